"""MetaImage, .mha and .mhd with its data files: https://github.com/Kitware/MetaIO/blob/master/Documentation/spec.md

The header's lines are kept verbatim. Space is left-posterior-superior, as ITK has it, row i of TransformMatrix the
direction of axis i. A detached volume is written as .mhd.mha; compressed voxels are compressed anew.
"""

import math
import re
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from aunn_data.errors import InputError
from aunn_data.geometry import Geometry
from aunn_data.record import Record
from pipelines.scans.detached import MOST_GATHERED, data_files, gathered, joined
from pipelines.scans.voxels import (
    MOST_HEADER_BYTES,
    Affine,
    affine_of,
    check,
    check_unpacked,
    chunks_of,
    inflated,
    kept_text,
    lying,
    named,
    numbers_text,
    parsed_numbers,
    record_of,
    saving,
    text_kept,
    unpacked,
    voxels_of,
)
from pipelines.source import Group, Source
from pipelines.stored import only, refusing

MODALITY = "scan"
FORMATS = ("metaimage",)

FIRST = re.compile(rb"(?:\s*[A-Za-z][\w ]*=[^\n]*\n)*?\s*(?:NDims|ObjectType)\s*=\s*(?:Image\b|\d)")
DATA = re.compile(rb"^[ \t]*ElementDataFile[ \t]*=[ \t]*([^\r\n]*?)[ \t]*(?:\r?\n|\Z)", re.MULTILINE | re.IGNORECASE)
MOST_AXES = 10
TYPES = {
    "CHAR": "i1",
    "ASCII_CHAR": "i1",
    "UCHAR": "u1",
    "SHORT": "i2",
    "USHORT": "u2",
    "INT": "i4",
    "UINT": "u4",
    "LONG": "i4",
    "ULONG": "u4",
    "LONG_LONG": "i8",
    "ULONG_LONG": "u8",
    "FLOAT": "f4",
    "DOUBLE": "f8",
}
AXES = ("x", "y", "z", "t")
TRUE, FALSE = ("true", "t", "1", "yes"), ("false", "f", "0", "no")
LPS = (-1, -1, 1)
REMEDY = "restore it, or write it again with ITK or SimpleITK"


class Layout(NamedTuple):
    """What the header says; ``shape`` fastest axis first, without the channels."""

    fields: dict[str, str]
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    channels: int
    text: bool
    packed: bool
    skip: int
    files: tuple[str, ...]


def sniff(head: bytes, path: Path) -> bool:
    """By content: lines of "Key = Value", ObjectType or NDims among the first, and dimensions below them."""
    return bool(FIRST.match(head[:512])) and b"DimSize" in head


def gather(folder: Path, files: Sequence[str], folders: Sequence[str]) -> Iterator[Group]:
    """A detached header with its data files."""
    return gathered(folder, files, (".mhd", ".mha"), _named)


def _named(head: bytes) -> tuple[str, ...]:
    return _layout(*_header(head)[:2], MOST_GATHERED).files if sniff(head, Path()) else ()


def read(source: Source) -> Iterator[Record | InputError]:
    """One record: the elements as stored; channels become the slowest axis."""
    with refusing(source.label, "a MetaImage", REMEDY):
        with source.open() as file:
            text, listed, start = _header(file.read(MOST_HEADER_BYTES))
        layout = _layout(text, listed, source.options.limits.max_members)
        elements, trailing = _elements(source, layout, start)
        if layout.channels > 1:
            elements = np.moveaxis(elements, -1, 0)
        geometry = _geometry(layout, elements.shape)
    metadata = kept_text(text + b"".join(line.encode() + b"\n" for line in listed))
    yield record_of(source, "metaimage", geometry, elements, metadata, trailing)


def write(records: Sequence[Record], path: Path) -> Path:
    """The image with its own header, its voxels in the same file."""
    record = only(records, path)
    path = named(path, (".mha",))
    with refusing(path, "an image that MetaImage can hold", "export it as .npy"):
        text, listed, _ = _header(text_kept(record.header.metadata))
        layout = _layout(text, listed, 1 << 32)
        data = _encoded(voxels_of(record, layout.dtype, layout.channels > 1), layout)
        text = _local(text, len(data))
    with saving(path) as file:
        file.write(text)
        file.write(data)
    return path


# ---- the header ----------------------------------------------------------------------------------------------------


def _header(data: bytes) -> tuple[bytes, list[str], int]:
    """The header's text, ElementDataFile its last line; the lines of a LIST after it; where local data begin."""
    end = DATA.search(data)
    if not end or end.end() >= MOST_HEADER_BYTES:
        raise ValueError("no ElementDataFile")
    listed = data[end.end() :].decode("utf-8", "replace").splitlines() if end[1].startswith(b"LIST") else []
    return data[: end.end()], listed, end.end()


def _fields(text: bytes) -> dict[str, str]:
    """Values by keys in lower case."""
    fields: dict[str, str] = {}
    for line in text.decode("utf-8", "replace").splitlines():
        key, equals, value = line.partition("=")
        key = key.strip().lower()
        if not line.strip():
            continue
        if not equals or key in fields:
            raise ValueError(f"the line {line[:60]!r}, no field or one that is there twice")
        fields[key] = value.strip()
    return fields


def _true(fields: dict[str, str], *keys: str) -> bool:
    value = next((fields[key].lower() for key in keys if key in fields), "false")
    if value not in TRUE + FALSE:
        raise ValueError(f"{keys[0]} = {value!r}")
    return value in TRUE


def _layout(text: bytes, listed: Sequence[str], most_files: int) -> Layout:
    """What the header says, checked as far as it can be without the data."""
    fields = _fields(text)
    shape = tuple(map(int, fields["dimsize"].split()))
    channels = int(fields.get("elementnumberofchannels", 1))
    if len(shape) != int(fields["ndims"]) or not 1 <= len(shape) <= MOST_AXES or min(*shape, channels) < 1:
        raise ValueError(f"NDims {fields['ndims']}, DimSize {fields['dimsize'][:60]}, {channels} channels")
    code = TYPES[fields["elementtype"].upper().removeprefix("MET_").removesuffix("_ARRAY")]
    spelt = _is_text(fields)
    big = _true(fields, "binarydatabyteordermsb", "elementbyteordermsb")
    order = "|" if code[1] == "1" else ">" if big and not spelt else "<"
    packed, skip = _true(fields, "compresseddata"), int(fields.get("headersize", 0))
    if skip < -1 or (skip and packed) or (packed and spelt):
        raise ValueError(f"HeaderSize {skip} of compressed data, or data both compressed and text")
    name = fields["elementdatafile"]
    files = () if name.upper() == "LOCAL" else data_files(name, listed, shape, most_files)
    return Layout(fields, np.dtype(order + code), shape, channels, spelt, packed, skip, files)


def _is_text(fields: dict[str, str]) -> bool:
    return "binarydata" in fields and not _true(fields, "binarydata")


def _local(text: bytes, packed_bytes: int) -> bytes:
    """The header of a file that holds its voxels itself."""
    lines = []
    for line in text.splitlines(keepends=True):
        key, _, value = (part.strip().lower() for part in line.partition(b"="))
        if key == b"compresseddatasize":
            line = f"CompressedDataSize = {packed_bytes}\n".encode()
        elif key == b"elementdatafile" and value != b"local":
            line = b"ElementDataFile = LOCAL\n"
        if key != b"headersize":
            lines.append(line)
    return b"".join(lines)


def _numbers(layout: Layout, *keys: str) -> list[float]:
    return next(([float(v) for v in layout.fields[key].split()] for key in keys if key in layout.fields), [])


def _geometry(layout: Layout, shape: tuple[int, ...]) -> Geometry:
    """``shape`` slowest axis first, channels before all."""
    count = len(layout.shape)
    names = AXES[:count] if count <= len(AXES) else tuple(f"axis{k}" for k in range(count))
    spacing = _numbers(layout, "elementspacing", "elementsize")
    parts = [1.0] if layout.channels > 1 else []
    unit = layout.fields.get("distanceunits", "").strip("()")
    unit = unit if unit in ("mm", "um", "cm", "m") else ""
    known = len(spacing) == count and all(map(math.isfinite, spacing))
    slopes = _numbers(layout, "elementtointensityfunctionslope"), _numbers(layout, "elementtointensityfunctionoffset")
    slope, offset = (value[0] if value and math.isfinite(value[0]) else 0.0 for value in slopes)
    return Geometry(
        dtype=layout.dtype.str,
        axes=(*(["channel"] if parts else []), *reversed(names)),
        shape=shape,
        spacing=(*parts, *reversed(spacing)) if known else None,
        units=(*([""] if parts else []), *(unit if n in "xyz" else "" for n in reversed(names))) if unit else None,
        slope=slope or 1.0,
        intercept=offset,
        affine=_affine(layout, spacing if known else [1.0] * count),
    )


def _affine(layout: Layout, spacing: Sequence[float]) -> Affine | None:
    count = len(layout.shape)
    matrix = _numbers(layout, "transformmatrix", "rotation", "orientation")
    origin = _numbers(layout, "offset", "position", "origin")
    if count not in (3, 4) or len(matrix) != count * count or len(origin) != count:
        return None
    columns = [[matrix[axis * count + k] * spacing[axis] for k in range(3)] for axis in range(3)]
    return affine_of(columns, origin[:3], LPS)


# ---- the data ------------------------------------------------------------------------------------------------------


def _elements(source: Source, layout: Layout, start: int) -> tuple[npt.NDArray[Any], int]:
    """The elements, slowest axis first, channels last, and the number of bytes after them."""
    shape = (*layout.shape[::-1], *([layout.channels] if layout.channels > 1 else []))
    if not layout.files:
        return _part(source, layout, start, shape)
    return joined(
        source, layout.files, layout.packed, lambda file, each: _part(file, layout, 0, each), layout.dtype, shape
    )


def _part(source: Source, layout: Layout, start: int, shape: tuple[int, ...]) -> tuple[npt.NDArray[Any], int]:
    """The elements in one file from ``start`` on."""
    available = source.length() - start
    if layout.skip == -1:
        start += available - check(source, shape, layout.dtype.itemsize, available)
    start += max(0, layout.skip)
    if not layout.packed and not layout.text:
        return lying(source, layout.dtype, shape, start)
    if layout.packed:
        check_unpacked(source, shape, layout.dtype.itemsize, available)
    else:
        check(source, shape, 1, available)  # at least a letter for each
    with source.file() as file:
        file.seek(start)
        chunks = chunks_of(file)
        if layout.packed:
            return unpacked(inflated(chunks, source.label), layout.dtype, shape, source)
        return unpacked(parsed_numbers(chunks, layout.dtype, source.label), layout.dtype, shape, source)


def _encoded(elements: npt.NDArray[Any], layout: Layout) -> bytes | memoryview:
    data = elements.reshape(-1).view(np.uint8).data
    if layout.text:
        return b"".join(numbers_text(elements))
    return zlib.compress(data) if layout.packed else data
