"""Raw numbers with a JSON note beside them: ``x.raw`` (any name, compressed or not) with ``x.raw.json``.

The note is an object with these keys, those in brackets may be left out::

    dtype     numpy's string with byte order: "<u2", "|u1", ">f4"; also uint16, float32, … (little-endian)
    shape     sizes, slowest axis first
    [axes]    their names: ["z", "y", "x"]; "channel" is moved to the front
    [order]   "C" (the last axis of shape runs fastest in the file, the default) or "F" (the first does)
    [offset]  bytes before the numbers, kept in the header
    [spacing] a number an axis
    [units]   a text an axis
    [fill]    the value of elements that are missing
    …         anything else stays in the header

Files of other formats, which say these things themselves, are left to those. Or ``meta.json`` beside a lone ``*.raw``,
``*.bin`` or ``*.vol`` as Vesuvius and Volume Cartographer write it (width, height, slices, voxelsize in µm); bytes are
taken as uint8, anything else must be told by a ``dtype`` in it. Nothing is guessed and the size must match exactly.
Written is a folder with the two files.
"""

import base64
import json
import math
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from aunn_data.errors import InputError
from aunn_data.geometry import Geometry, fitted
from aunn_data.header import Header
from aunn_data.record import Record
from pipelines import compressed
from pipelines.scans.volpkg import META, text_of
from pipelines.scans.voxels import lying
from pipelines.source import Group, Source
from pipelines.stored import marks_of, only, refusing

MODALITY = "scan"
FORMATS = ("raw_json",)

AXES = ("t", "z", "y", "x")
SUFFIXES = (".raw", ".bin", ".vol")
COMPRESSED = tuple(compressed.SUFFIXES)
OTHERS = {".tif", ".tiff", ".png", ".jpg", ".npy", ".npz", ".nii", ".nrrd", ".mha", ".mhd", ".mrc", ".h5", ".dcm"}
OWN_KEYS, VESUVIUS_KEYS = ("dtype", "shape"), ("width", "height", "slices")
MOST_OFFSET = 1 << 22  # bytes before the numbers that a header can keep
REMEDY = "write a note that fits: dtype, shape and what else the documentation of raw.py names"


@dataclass(frozen=True)
class Note:
    """What a note says: type, shape and axes as the numbers lie (slowest first), and the rest."""

    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    axes: tuple[str, ...]
    offset: int
    spacing: tuple[float, ...] | None
    units: tuple[str, ...] | None
    fill: float | None


def sniff(head: bytes, path: Path) -> bool:
    """Is there a note beside it (in it, where it is a folder)?"""
    if not head and path.is_dir():
        return len(_pairs(path, sorted(entry.name for entry in os.scandir(path) if entry.is_file()))) == 1
    suffix = str(path)[str(path).rfind(".") :].lower()
    if suffix not in OTHERS and _says(f"{path}.json", OWN_KEYS):
        return True
    return suffix in SUFFIXES and _says(path.with_name(META), VESUVIUS_KEYS)


def gather(folder: Path, files: Sequence[str], folders: Sequence[str]) -> Iterator[Group]:
    """Numbers and notes. A folder that holds one pair and nothing else is that."""
    pairs = _pairs(folder, files)
    for data, note in pairs:
        yield Group("" if len(files) == 2 and not folders else data, (data, note))


def read(source: Source) -> Iterator[Record | InputError]:
    """One record: the numbers as stored, channels first."""
    folder = source.path if source.path.is_dir() else source.path.parent
    names = [path.name for path in source.files] or [entry.name for entry in folder.iterdir()]
    mine = [pair for pair in _pairs(folder, names) if source.path.is_dir() or pair[0] == source.path.name]
    if len(mine) != 1:
        raise InputError(source.label, expected="numbers and a note", found=f"{len(mine)} pairs", remedy=REMEDY)
    [(data, beside)] = mine
    text = text_of(folder / beside)
    numbers = Source(folder / data, source.name, source.options, label=source.label, scratch=source.scratch)
    with refusing(folder / beside, "a note on raw numbers", REMEDY):
        size = numbers.length()
        said = json.loads(text)
        note = _vesuvius(said, size) if beside == META else _own(said)
    with refusing(source.label, "raw numbers", REMEDY):
        elements, after = lying(numbers, note.dtype, note.shape, note.offset)
        with numbers.open() as file:
            before = file.read(note.offset)
    if after:
        needed = f"{note.offset + elements.nbytes} bytes for shape {note.shape} of type {note.dtype.str}"
        raise InputError(source.label, expected=needed, found=f"{size}", remedy=REMEDY)
    metadata = {"note": text, "note_name": beside, "name": _inner(data)}
    if before:
        metadata["before"] = base64.b64encode(before).decode()
    yield _record(source, note, elements, metadata)


def write(records: Sequence[Record], path: Path) -> Path:
    """A folder with the numbers and the note, called as they were."""
    record = only(records, path)
    metadata = record.header.metadata
    data, note = (Path(metadata.get(key, default)).name for key, default in (("name", "x.raw"), ("note_name", "")))
    elements = np.asarray(record.elements[...])
    if "note" not in metadata:
        geometry = record.header.geometry
        said = {"dtype": elements.dtype.str, "shape": list(elements.shape), "axes": list(geometry.axes)}
        metadata, note = {"note": json.dumps(said)}, f"{data}.json"
    elif (moved := metadata.get("channel_axis")) is not None:
        elements = np.moveaxis(elements, 0, moved)
    path.mkdir(parents=True, exist_ok=True)
    written = base64.b64decode(metadata.get("before", "")) + np.ascontiguousarray(elements).tobytes()
    (path / data).write_bytes(written)
    (path / note).write_bytes(metadata["note"].encode())
    return path


def _record(source: Source, note: Note, elements: Any, metadata: dict[str, Any]) -> Record:
    axes, spacing, units = note.axes, note.spacing, note.units
    if "channel" in axes[1:]:
        at = axes.index("channel")
        order = [at, *(axis for axis in range(len(axes)) if axis != at)]
        metadata["channel_axis"] = at
        elements, axes = np.moveaxis(elements, at, 0), tuple(axes[axis] for axis in order)
        spacing = tuple(spacing[axis] for axis in order) if spacing else None
        units = tuple(units[axis] for axis in order) if units else None
    missing = marks_of(elements, note.fill)
    geometry = Geometry(elements.dtype.str, axes, elements.shape, spacing=spacing, units=units)
    geometry = fitted(geometry, elements, missing)
    return Record(Header(source.name, source.name, MODALITY, "raw_json", geometry, metadata), elements, missing)


def _pairs(folder: Path, names: Sequence[str]) -> list[tuple[str, str]]:
    """Files of numbers, each with its note."""
    inner = {_inner(name): name for name in reversed(names)}
    found = []
    for name in names:
        data = inner.get(name.removesuffix(".json")) if name.endswith(".json") else None
        if data and data != name and Path(_inner(data)).suffix.lower() not in OTHERS and _says(folder / name, OWN_KEYS):
            found.append((data, name))
    lone = [name for name in inner if name.lower().endswith(SUFFIXES)]
    if not found and META in names and len(lone) == 1 and _says(folder / META, VESUVIUS_KEYS):
        found.append((inner[lone[0]], META))
    return found


def _inner(name: str) -> str:
    """The name without the suffixes of compression."""
    return compressed.inner_name(Path(name)).name if name.lower().endswith(COMPRESSED) else name


def _says(path: str | Path, keys: Sequence[str]) -> bool:
    if not os.access(path, os.F_OK):  # beside most files there is none, and all are asked
        return False
    try:
        said = json.loads(text_of(Path(path)))
    except (InputError, ValueError, RecursionError):
        return False
    return isinstance(said, dict) and set(keys) <= set(said)


def _own(said: dict[str, Any]) -> Note:
    """Our own note. ValueError, TypeError or KeyError if it does not fit itself."""
    shape = tuple(_whole(size, 1) for size in said["shape"])
    plain = AXES[-len(shape) :] if len(shape) <= len(AXES) else [f"axis{k}" for k in range(len(shape))]
    axes = said.get("axes") or plain
    order = said.get("order", "C")
    spacing, units = said.get("spacing"), said.get("units")
    axes = tuple(str(axis) for axis in axes)
    if order not in ("C", "F") or not shape or len({*axes}) != len(shape):
        raise ValueError(f"order {order!r}, axes {axes} for shape {shape}")
    if spacing is not None and (len(spacing) != len(shape) or not all(_is_number(size) for size in spacing)):
        raise ValueError(f"spacing {spacing}")
    if units is not None and len(units) != len(shape):
        raise ValueError(f"units {units}")
    fill = said.get("fill")
    if fill is not None and not _is_number(fill):
        raise ValueError(f"fill {fill!r}")
    way = slice(None, None, -1 if order == "F" else 1)
    return Note(
        _dtype(said["dtype"]),
        shape[way],
        axes[way],
        _whole(said.get("offset", 0), 0, MOST_OFFSET),
        tuple(float(size) for size in spacing)[way] if spacing else None,
        tuple(str(unit) for unit in units)[way] if units else None,
        fill,
    )


def _vesuvius(said: dict[str, Any], size: int) -> Note:
    """meta.json: its sizes, and bytes unless it says a type."""
    shape = tuple(_whole(said[key], 1) for key in ("slices", "height", "width"))
    type = said.get("dtype")
    if type is None and size != math.prod(shape):
        raise ValueError(f"{size} bytes for {math.prod(shape)} voxels and no dtype")
    voxel = said.get("voxelsize", 0)
    known = _is_number(voxel) and voxel > 0
    spacing, units = ((float(voxel),) * 3, ("µm",) * 3) if known else (None, None)
    return Note(_dtype(type or "|u1"), shape, AXES[1:], 0, spacing, units, None)


def _dtype(text: Any) -> np.dtype[Any]:
    if not isinstance(text, str):
        raise TypeError(f"dtype {text!r}")
    dtype = np.dtype(text)
    if dtype.kind not in "biuf" or dtype.itemsize > 8 or dtype.fields:
        raise ValueError(f"dtype {text!r}")
    return dtype.newbyteorder("<") if dtype.byteorder == "=" else dtype


def _whole(value: Any, least: int, most: int = 1 << 62) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
        raise ValueError(f"{value!r} where a number from {least} is expected")
    return value


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
