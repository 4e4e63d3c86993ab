"""What readers of volumes share: files that a header names, voxels as they lie there or unpacked, how all is written.

Legend: a *header* is kept verbatim as text where it is text (``kept_text``), as base64 where it is not.
"""

import gzip
import io
import math
import os
import tempfile
import zlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from aunn_data.errors import InputError
from aunn_data.geometry import Geometry, fitted
from aunn_data.header import Header
from aunn_data.record import Record
from pipelines import compressed
from pipelines.compressed import FREE_BYTES
from pipelines.source import Source
from pipelines.stored import SMALL_BYTES, element_bytes, marks_of, stored

CHUNK_BYTES = 1 << 16  # compressed; out of it come at most 64 MiB
COPY_BYTES = 1 << 20
MOST_HEADER_BYTES = 1 << 24
REMEDY = "the file is cut short or its header damaged: restore it"

Affine = tuple[tuple[float, ...], ...]


# ---- reading -------------------------------------------------------------------------------------------------------


def companion(source: Source, name: str, packed: bool = False) -> Source:
    """A data file that the header names, as a source of its own. InputError if it is not there or elsewhere.

    ``packed``: the header says that its data are compressed, so that its own compression is not that of the file.
    """
    label = f"{source.label} ({name})"
    return replace(source, path=source.beside(name), files=(), sidecars=(), label=label, as_it_lies=packed)


def partner(source: Source, suffix: str) -> Source:
    """The file that is called like this one but for its suffix, compressed or not. InputError if there is none."""
    names = [path.name for path in source.files] or os.listdir(source.path.parent)
    for header, name in pairs([source.path.name, *names], source.inner.suffix.lower(), suffix):
        if header == source.path.name:
            return companion(source, name)
    raise InputError(
        source.label, expected=f"a {suffix} file beside it", found="none", remedy="put both into one folder"
    )


def pairs(files: Sequence[str], header_suffix: str, suffix: str) -> Iterator[tuple[str, str]]:
    """Headers, each with the file of voxels that is called like it."""
    inner = {name: compressed.inner_name(Path(name)) for name in files}
    voxels = {path.stem: name for name, path in inner.items() if path.suffix.lower() == suffix}
    for name, path in inner.items():
        if path.suffix.lower() == header_suffix and path.stem in voxels:
            yield name, voxels[path.stem]


def check(source: Source, shape: Sequence[int], itemsize: int, available: int) -> int:
    """Bytes of an array. InputError if it is empty, more than the limit, or more than there are bytes for."""
    needed, most = element_bytes(source.label, shape, itemsize, available), source.options.limits.max_elements
    if math.prod(shape) > most:
        raise InputError(
            source.label,
            expected=f"at most {most} elements",
            found=f"shape {tuple(shape)}",
            remedy="raise --max-elements if you trust it",
        )
    return needed


def check_unpacked(source: Source, shape: Sequence[int], itemsize: int, packed_bytes: int) -> int:
    """The same, of an array that is compressed to ``packed_bytes``."""
    most = max(FREE_BYTES, int(packed_bytes * source.options.limits.max_ratio))
    return check(source, shape, itemsize, most)


def lying(source: Source, dtype: np.dtype[Any], shape: tuple[int, ...], offset: int) -> tuple[npt.NDArray[Any], int]:
    """The array that lies in a file from ``offset`` on, and the number of bytes after it."""
    available = max(0, source.length() - offset)
    needed = check(source, shape, dtype.itemsize, available)
    return stored(source.local(), dtype, shape, offset, source.whole), available - needed


def unpacked(
    chunks: Iterable[bytes | memoryview], dtype: np.dtype[Any], shape: tuple[int, ...], source: Source
) -> tuple[npt.NDArray[Any], int]:
    """The array that a stream spells, in memory if small, else in scratch; and the number of bytes after it.

    Its size is one that ``check`` has seen. The stream is read to its end, where its checksum stands.
    """
    needed, filled, after = math.prod(shape) * dtype.itemsize, 0, 0
    small = needed < SMALL_BYTES
    path, out = (Path(), io.BytesIO()) if small else _spool(source)
    with out:
        for chunk in chunks:
            part = memoryview(chunk)[: needed - filled]
            out.write(part)
            filled, after = filled + len(part), after + len(chunk) - len(part)
        check(source, shape, dtype.itemsize, filled)
        if isinstance(out, io.BytesIO):
            return np.frombuffer(out.getvalue(), dtype).reshape(shape), after
    return stored(path, dtype, shape), after


def chunks_of(file: IO[bytes]) -> Iterator[bytes]:
    """What is left of a file."""
    while chunk := file.read(COPY_BYTES):
        yield chunk


def exactly(file: IO[bytes], count: int) -> Iterator[bytes]:
    """The next ``count`` bytes, or those that are left."""
    while count and (chunk := file.read(min(COPY_BYTES, count))):
        count -= len(chunk)
        yield chunk


def inflated(chunks: Iterable[bytes], label: str) -> Iterator[bytes]:
    """What is in a zlib (or gzip) stream. InputError where it is damaged or cut."""
    inflate = zlib.decompressobj(47)
    try:
        for chunk in chunks:
            for start in range(0, len(chunk), CHUNK_BYTES):
                yield inflate.decompress(chunk[start : start + CHUNK_BYTES])
    except zlib.error as error:
        raise InputError(label, expected="zlib data that is whole", found=f"{error}", remedy=REMEDY) from error
    if not inflate.eof:
        raise InputError(label, expected="zlib data that is whole", found="an end amid it", remedy=REMEDY)


def opened(source: Source, codec: str, start: int) -> IO[bytes]:
    """What is compressed within a file from ``start`` on, as a stream."""
    file = source.local().open("rb")
    size = os.fstat(file.fileno()).st_size
    file.seek(start)
    return compressed.opened(file, codec, size - start, source.options.limits.max_ratio, source.label)


def parsed_numbers(chunks: Iterable[bytes], dtype: np.dtype[Any], label: str) -> Iterator[bytes]:
    """The bytes of the numbers in a text. InputError for what is no number, or none of that type."""
    rest = b""
    for chunk in chunks:
        text = rest + chunk.replace(b",", b" ")
        cut = len(text) if text[-1:].isspace() else max(text.rfind(b" "), text.rfind(b"\n")) + 1
        rest = text[cut:]
        if len(rest) > COPY_BYTES:
            break
        yield _numbers(text[:cut], dtype, label)
    yield _numbers(rest, dtype, label)


def _numbers(text: bytes, dtype: np.dtype[Any], label: str) -> bytes:
    kind = float if dtype.kind == "f" else int
    try:
        return np.array([kind(word) for word in text.split()], dtype).tobytes()
    except (ValueError, OverflowError) as error:
        raise InputError(label, expected=f"numbers of type {dtype}", found=f"{error}"[:80], remedy=REMEDY) from error


def numbers_text(elements: npt.NDArray[Any]) -> Iterator[bytes]:
    """The numbers as text, a line a row; each comes back as it was."""
    for row in elements.reshape(-1, elements.shape[-1]):
        yield " ".join(map(str, row if row.dtype.kind == "f" else row.tolist())).encode() + b"\n"


def kept_text(text: bytes) -> dict[str, str]:
    """The metadata that keep a header of text verbatim."""
    try:
        return {"header": text.decode()}
    except UnicodeDecodeError:
        return {"header": text.decode("latin-1"), "header_encoding": "latin-1"}


def text_kept(metadata: dict[str, Any]) -> bytes:
    """Inverse of ``kept_text``; nothing if there was no header."""
    return str(metadata.get("header", "")).encode(metadata.get("header_encoding", "utf-8"))


def record_of(
    source: Source, format: str, geometry: Geometry, elements: Any, metadata: dict[str, Any], trailing: int = 0
) -> Record:
    """The one record of a volume, NaN marked as missing. What the header gives as NaN or infinite is not known."""
    missing = marks_of(elements)
    spacing = geometry.spacing if all(map(math.isfinite, geometry.spacing or ())) else None
    known = math.isfinite(geometry.slope) and math.isfinite(geometry.intercept)
    slope, intercept = (geometry.slope, geometry.intercept) if known else (1.0, 0.0)
    geometry = replace(geometry, spacing=spacing, slope=slope, intercept=intercept)
    if trailing:
        metadata = {**metadata, "left_out": f"{trailing} bytes after the voxels"}
    geometry = fitted(geometry, elements, missing)
    return Record(Header(source.name, source.name, "scan", format, geometry, metadata), elements, missing)


def affine_of(columns: Sequence[Sequence[float]], origin: Sequence[float], signs: Sequence[int]) -> Affine | None:
    """From the world vectors of one step along x, y and z to a 4x4 affine in RAS+; None if it is not finite."""
    rows = [
        tuple(sign * float(column[k]) + 0.0 for column in (*columns, origin)) for k, sign in enumerate(signs)
    ]  # + 0.0: no negative zeros
    if not all(math.isfinite(value) for row in rows for value in row):
        return None
    return (*rows, (0.0, 0.0, 0.0, 1.0))


# ---- writing -------------------------------------------------------------------------------------------------------


def named(path: Path, suffixes: Sequence[str]) -> Path:
    """The path with one of the format's suffixes (the first if it has none); of compressions .gz stays."""
    inner = compressed.inner_name(path)
    if inner.suffix.lower() not in suffixes:
        return inner.with_name(inner.name + suffixes[0])
    return path if path.suffix.lower() == ".gz" else inner


@contextmanager
def saving(path: Path) -> Iterator[IO[bytes]]:
    """The file to write, compressed where its name says so, without a time in it."""
    with path.open("wb") as file:
        zipped = path.suffix.lower() == ".gz"
        with gzip.GzipFile("", "wb", 6, file, mtime=0) if zipped else nullcontext(file) as out:
            yield out  # type: ignore[misc]  # GzipFile is an IO[bytes] in all but name


def voxels_of(record: Record, dtype: np.dtype[Any] | str, moved: bool) -> npt.NDArray[Any]:
    """The elements in the order of storage, ``moved``: their slowest axis is the fastest in the file."""
    elements = np.asarray(record.elements[...])
    return np.ascontiguousarray(np.moveaxis(elements, 0, -1) if moved else elements, dtype)


def _spool(source: Source) -> tuple[Path, IO[bytes]]:
    handle, name = tempfile.mkstemp(dir=source.scratch.folder)
    return Path(name), os.fdopen(handle, "wb")
