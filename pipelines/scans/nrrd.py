"""NRRD, attached (.nrrd) and detached (.nhdr with its data files): https://teem.sourceforge.net/nrrd/format.html

The header is kept verbatim, comments and key/value pairs and all. A detached volume is written attached, as .nhdr.nrrd.
"""

import bz2
import gzip
import itertools
import math
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from aunn_data.errors import InputError
from aunn_data.geometry import Geometry
from aunn_data.record import Record
from pipelines.scans.detached import HEADER_BYTES, MOST_GATHERED, data_files, gathered, joined
from pipelines.scans.voxels import (
    MOST_HEADER_BYTES,
    Affine,
    affine_of,
    check,
    check_unpacked,
    chunks_of,
    exactly,
    kept_text,
    lying,
    named,
    numbers_text,
    opened,
    parsed_numbers,
    record_of,
    saving,
    text_kept,
    unpacked,
)
from pipelines.source import Group, Source
from pipelines.stored import only, refusing

MODALITY = "scan"
FORMATS = ("nrrd",)

MAGIC = re.compile(rb"NRRD000[1-9]\r?\n")
END = re.compile(rb"\r?\n(\r?\n)")
MOST_AXES = 16
FIELD, LOOSE_FIELD = re.compile(r"([^:]*(?::(?![= ])[^:]*)*):([= ])"), re.compile(r"([^:]*):()")
TYPES = {
    "i1": "signed char, int8, int8_t",
    "u1": "uchar, unsigned char, uint8, uint8_t",
    "i2": "short, short int, signed short, signed short int, int16, int16_t",
    "u2": "ushort, unsigned short, unsigned short int, uint16, uint16_t",
    "i4": "int, signed int, int32, int32_t",
    "u4": "uint, unsigned int, uint32, uint32_t",
    "i8": "longlong, long long, long long int, signed long long, signed long long int, int64, int64_t",
    "u8": "ulonglong, unsigned long long, unsigned long long int, uint64, uint64_t",
    "f4": "float",
    "f8": "double",
}
NUMPY = {name: code for code, names in TYPES.items() for name in names.split(", ")}
ENCODINGS = {
    **dict.fromkeys(("raw",), "raw"),
    **dict.fromkeys(("txt", "text", "ascii"), "text"),
    **dict.fromkeys(("hex",), "hex"),
    **dict.fromkeys(("gz", "gzip"), "gz"),
    **dict.fromkeys(("bz2", "bzip2"), "bz2"),
}
ORDERS = {"little": "<", "big": ">"}
SAME = {"datafile": "data file", "byteskip": "byte skip", "lineskip": "line skip", "centerings": "centers"}
SIGNS = {  # the world's axes -> RAS+; scanners' and unnamed worlds have none
    **dict.fromkeys(("right-anterior-superior", "ras", "right-anterior-superior-time", "rast"), (1, 1, 1)),
    **dict.fromkeys(("left-anterior-superior", "las", "left-anterior-superior-time", "last"), (-1, 1, 1)),
    **dict.fromkeys(("left-posterior-superior", "lps", "left-posterior-superior-time", "lpst"), (-1, -1, 1)),
}
SPATIAL = ("", "domain", "space", "???", "none")
OTHERS = {"time": "t", "list": "list", "complex": "component"}  # kinds -> axes; all that is left are channels
VECTOR = re.compile(r"none|\([^()]*\)")
REMEDY = "restore it, or write it again with teem, Slicer or pynrrd"


class Layout(NamedTuple):
    """What the header says: ``shape`` fastest axis first, ``files`` a number of them with ``shape`` together."""

    fields: dict[str, str]
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    encoding: str
    line_skip: int
    byte_skip: int
    files: tuple[str, ...]
    listed: bool

    @property
    def skips(self) -> tuple[str, ...]:
        """The fields that skip what an attached file does not have."""
        return ("line skip",) if self.byte_skip == -1 else ("line skip", "byte skip")


def sniff(head: bytes, path: Path) -> bool:
    """By content: the magic line."""
    return bool(MAGIC.match(head))


def gather(folder: Path, files: Sequence[str], folders: Sequence[str]) -> Iterator[Group]:
    """A detached header with its data files."""
    return gathered(folder, files, (".nhdr", ".nrrd"), _named)


def _named(head: bytes) -> tuple[str, ...]:
    return _layout(_header(head)[0], MOST_GATHERED).files if MAGIC.match(head) else ()


def read(source: Source) -> Iterator[Record | InputError]:
    """One record: the samples as stored; axes of colours, vectors and complex numbers become the slowest."""
    with refusing(source.label, "a NRRD file", REMEDY):
        with source.open() as file:
            head = file.read(HEADER_BYTES)
            text, start = _header(head if END.search(head) else head + file.read(MOST_HEADER_BYTES))
        layout = _layout(text, source.options.limits.max_members)
        elements, trailing = _samples(source, layout, start)
        axes = _axes(layout)
        moved = _moved(axes)
        if moved is not None:
            elements = np.moveaxis(elements, moved, 0)
        geometry = _geometry(layout, axes, elements.shape)
    yield record_of(source, "nrrd", geometry, elements, kept_text(text), trailing)


def write(records: Sequence[Record], path: Path) -> Path:
    """The volume with its own header, in its own encoding; attached, whatever it was."""
    record = only(records, path)
    path = named(path, (".nrrd",))
    with refusing(path, "a volume that NRRD can hold", "export it as .npy"):
        text = _attached(text_kept(record.header.metadata))
        layout = _layout(text, 0)
        moved = _moved(_axes(layout))
        elements = np.asarray(record.elements[...])
        elements = elements if moved is None else np.moveaxis(elements, 0, moved)
        elements = np.ascontiguousarray(elements, layout.dtype)
    with saving(path) as file:
        file.write(text)
        _encode(file, elements, layout.encoding)
    return path


# ---- the header ----------------------------------------------------------------------------------------------------


def _header(data: bytes) -> tuple[bytes, int]:
    """The header's text up to the empty line, and where the data begin."""
    end = END.search(data)
    text, start = (data[: end.start(1)], end.end()) if end else (data, len(data))
    if not MAGIC.match(text) or len(text) >= MOST_HEADER_BYTES:
        raise ValueError(f"a header that begins with {data[:9]!r}")
    return text, start


def _fields(text: str) -> tuple[dict[str, str], list[str]]:
    """Fields by their names in lower case, and the lines after ``data file: LIST``."""
    fields: dict[str, str] = {}
    lines = text.splitlines()[1:]
    for number, line in enumerate(lines):
        match = FIELD.match(line) or LOOSE_FIELD.match(line)
        if line.startswith("#") or not line.strip() or (match and match[2] == "="):
            continue
        name = match[1].strip().lower() if match else ""
        name = SAME.get(name, name)
        if not match or name in fields:
            raise ValueError(f"the line {line[:60]!r}, no field or one that is there twice")
        fields[name] = line[match.end() :].strip()
        if name == "data file" and re.match(r"LIST\b", fields[name]):
            return fields, lines[number + 1 :]
    return fields, []


def _layout(text: bytes, most_files: int) -> Layout:
    """What the header says, checked as far as it can be without the data."""
    fields, listed = _fields(text.decode("utf-8", "replace"))
    encoding = ENCODINGS[fields["encoding"].lower()]
    code = NUMPY[re.sub(r"\s+", " ", fields["type"].lower())]
    shape = tuple(map(int, fields["sizes"].split()))
    if len(shape) != int(fields["dimension"]) or not 1 <= len(shape) <= MOST_AXES or min(shape) < 1:
        raise ValueError(f"dimension {fields['dimension']} and sizes {fields['sizes']}")
    order = "|"
    if np.dtype(code).itemsize > 1:
        order = "<" if encoding == "text" else ORDERS[fields["endian"].lower()]
    skips = int(fields.get("line skip", 0)), int(fields.get("byte skip", 0))
    if skips[0] < 0 or skips[1] < -1 or (skips[1] < 0 and encoding != "raw"):
        raise ValueError(f"line skip {skips[0]}, byte skip {skips[1]} in {encoding} encoding")
    files: tuple[str, ...] = ()
    if "data file" in fields:
        files = data_files(fields["data file"], listed, shape, most_files)
    return Layout(fields, np.dtype(order + code), shape, encoding, *skips, files, bool(listed))


def _attached(text: bytes) -> bytes:
    """All before the data of an attached file: without the lines that tell of what lies elsewhere."""
    layout, lines = _layout(text, 1 << 32), []
    for line in text.splitlines(keepends=True):
        name = line.partition(b":")[0].decode("latin-1").strip().lower()
        name = SAME.get(name, name)
        if name == "data file" and layout.listed:
            break
        if name != "data file" and name not in layout.skips:
            lines.append(line)
    return b"".join(lines).removesuffix(b"\n") + b"\n\n"


def _vectors(text: str) -> list[list[float] | None]:
    """``(1,0,0) none (0,1,0)``."""
    if VECTOR.sub("", text).strip():
        raise ValueError(f"vectors {text[:60]!r}")
    return [None if word == "none" else list(map(float, word[1:-1].split(","))) for word in VECTOR.findall(text)]


def _axes(layout: Layout) -> tuple[str, ...]:
    """Names of the axes, slowest first: space is x, y, z from the fastest, after it t; kinds name the others."""
    kinds = [kind.lower() for kind in layout.fields.get("kinds", "").split()]
    kinds = kinds if len(kinds) == len(layout.shape) else [""] * len(layout.shape)
    directions = _directions(layout)
    known = any(direction is not None for direction in directions)
    free = [direction is None and known for direction in directions]
    spatial = [kind in SPATIAL and not other for kind, other in zip(kinds, free, strict=True)]
    names = iter("xyzt" if sum(spatial) <= 4 else [f"axis{k}" for k in range(len(kinds))])
    found: list[str] = []
    for k, kind in enumerate(kinds):
        name = next(names) if spatial[k] else "list" if kind in SPATIAL else OTHERS.get(kind, "channel")
        found.append(name if name not in found else f"{name}{k}")
    return tuple(reversed(found))


def _moved(axes: tuple[str, ...]) -> int | None:
    """The axis of channels, or of whatever is not space or time and runs fastest; it becomes the slowest."""
    if "channel" in axes or "component" in axes:
        return axes.index("channel" if "channel" in axes else "component")
    return len(axes) - 1 if axes[-1] == "list" and len(axes) > 1 else None


def _directions(layout: Layout) -> list[list[float] | None]:
    directions = _vectors(layout.fields.get("space directions", ""))
    return directions if len(directions) == len(layout.shape) else [None] * len(layout.shape)


def _geometry(layout: Layout, axes: tuple[str, ...], shape: tuple[int, ...]) -> Geometry:
    """``axes`` are slowest first, before one of them became the slowest of all."""
    directions = dict(zip(axes, reversed(_directions(layout)), strict=True))
    spacings = _spacings(layout, axes, directions)
    units = _units(layout, axes, directions)
    moved = _moved(axes)
    order = list(axes) if moved is None else [axes[moved], *axes[:moved], *axes[moved + 1 :]]
    return Geometry(
        dtype=layout.dtype.str,
        axes=tuple(order),
        shape=shape,
        spacing=tuple(spacings.get(axis, 1.0) for axis in order) if spacings else None,
        units=tuple(units.get(axis, "") for axis in order) if any(units.values()) else None,
        affine=_affine(layout, directions),
    )


def _spacings(layout: Layout, axes: tuple[str, ...], directions: dict[str, list[float] | None]) -> dict[str, float]:
    """Of the axes that have one, by direction or outright."""
    found = {axis: math.sqrt(sum(v * v for v in step)) for axis, step in directions.items() if step}
    given = list(map(float, layout.fields.get("spacings", "").split()))
    if len(given) == len(axes):
        found = {**dict(zip(reversed(axes), given, strict=True)), **found}
    return {axis: step for axis, step in found.items() if math.isfinite(step)}


def _units(layout: Layout, axes: tuple[str, ...], directions: dict[str, list[float] | None]) -> dict[str, str]:
    """By axis: its own, or that of space where space has one for all."""
    found = dict.fromkeys(axes, "")
    own, space = (re.findall(r'"([^"]*)"', layout.fields.get(name, "")) for name in ("units", "space units"))
    if len(own) == len(axes):
        found = dict(zip(reversed(axes), own, strict=True))
    if len(set(space)) == 1:
        found |= {axis: space[0] for axis, step in directions.items() if step}
    return found


def _affine(layout: Layout, directions: dict[str, list[float] | None]) -> Affine | None:
    signs = SIGNS.get(layout.fields.get("space", "").lower())
    columns = [directions.get(axis) or [] for axis in "xyz"]
    [origin, *_] = _vectors(layout.fields.get("space origin", "")) or [None]
    if not signs or not origin or any(len(column) < 3 for column in (*columns, origin)):
        return None
    return affine_of(columns, origin, signs)


# ---- the data ------------------------------------------------------------------------------------------------------


def _samples(source: Source, layout: Layout, start: int) -> tuple[npt.NDArray[Any], int]:
    """The samples, slowest axis first, and the number of bytes after them."""
    shape = layout.shape[::-1]
    if not layout.files:
        return _part(source, layout, start, shape)
    packed = layout.encoding in ("gz", "bz2")
    return joined(source, layout.files, packed, lambda file, each: _part(file, layout, 0, each), layout.dtype, shape)


def _part(source: Source, layout: Layout, start: int, shape: tuple[int, ...]) -> tuple[npt.NDArray[Any], int]:
    """The samples in one file from ``start`` on."""
    size = source.length()
    with source.file() as file:
        file.seek(start)
        for _ in range(min(layout.line_skip, size)):
            if not file.readline(MOST_HEADER_BYTES):
                break
        start = file.tell()
    if layout.encoding == "raw":
        skip = max(0, layout.byte_skip)
        if layout.byte_skip == -1:
            skip = size - start - check(source, shape, layout.dtype.itemsize, size - start)
        return lying(source, layout.dtype, shape, start + skip)
    skip = layout.byte_skip
    if layout.encoding in ("gz", "bz2"):
        check_unpacked(source, shape, layout.dtype.itemsize, size - start)
        with opened(source, layout.encoding, start) as file:
            list(exactly(file, skip))
            return unpacked(chunks_of(file), layout.dtype, shape, source)
    check(source, shape, 1, size - start)  # at least a letter for each
    with source.file() as file:
        file.seek(start + skip)
        return _spelt(file, layout, shape, source)


def _spelt(file: IO[bytes], layout: Layout, shape: tuple[int, ...], source: Source) -> tuple[npt.NDArray[Any], int]:
    """Samples that are written out, in decimal or hexadecimal digits."""
    if layout.encoding == "text":
        return unpacked(parsed_numbers(chunks_of(file), layout.dtype, source.label), layout.dtype, shape, source)
    digits = (re.sub(rb"\s+", b"", chunk) for chunk in chunks_of(file))
    return unpacked(_bytes_of(digits), layout.dtype, shape, source)


def _bytes_of(digits: Iterator[bytes]) -> Iterator[bytes]:
    rest = b""
    for chunk in itertools.chain(digits, [b""]):
        text = rest + chunk
        even = len(text) // 2 * 2
        rest = text[even:]
        yield bytes.fromhex(text[:even].decode("ascii"))


def _encode(file: IO[bytes], elements: npt.NDArray[Any], encoding: str) -> None:
    data = elements.reshape(-1).view(np.uint8).data
    if encoding == "gz":
        with gzip.GzipFile("", "wb", 6, file, mtime=0) as out:
            out.write(data)
    elif encoding == "bz2":
        file.write(bz2.compress(data))
    elif encoding == "text":
        file.writelines(numbers_text(elements))
    else:
        file.write(data if encoding == "raw" else data.hex(" ", 32).encode() + b"\n")
