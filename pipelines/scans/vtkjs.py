"""Images of vtk.js: a folder with index.json and a file of raw numbers for each array, ``data/<id>.gz`` or not gzipped.

https://kitware.github.io/vtk-js/docs/ (HttpDataSetReader). One record an array of a vtkImageData, (z, y, x) with its
components in front. Metadata: ``index`` is index.json as it is, ``array`` the number of the array, ``file`` where its
numbers lie. Origin and direction stay there: vtk.js does not say which way its axes point.
"""

import gzip
import json
import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from aunn_data.errors import InputError
from aunn_data.geometry import Geometry, fitted
from aunn_data.header import Header
from aunn_data.record import Record
from pipelines.scans.volpkg import text_of
from pipelines.scans.voxels import lying
from pipelines.source import Group, Source
from pipelines.stored import marks_of, refusing

MODALITY = "scan"
FORMATS = ("vtkjs",)

INDEX = "index.json"
NUMBERS = ("Int8", "Int16", "Int32", "Uint8", "Uint16", "Uint32", "Float32", "Float64")
DTYPES = {f"{name}Array": np.dtype(name.lower()) for name in NUMBERS}
DTYPES |= {"Uint8ClampedArray": np.dtype("u1"), "BigInt64Array": np.dtype("i8"), "BigUint64Array": np.dtype("u8")}
ORDERS: dict[str, Literal["<", ">"]] = {"LittleEndian": "<", "BigEndian": ">"}
REMEDY = "write the data set again with vtk.js, arrays of numbers in files of their own"


@dataclass(frozen=True)
class Array:
    """An array of the image: its name, where its numbers lie, their type and the shape (z, y, x[, component])."""

    name: str
    file: str
    dtype: np.dtype[Any]
    shape: tuple[int, ...]


def sniff(head: bytes, path: Path) -> bool:
    """A folder whose index.json is that of a vtkImageData."""
    return not head and path.is_dir() and _is_image(path)


def gather(folder: Path, files: Sequence[str], folders: Sequence[str]) -> Iterator[Group]:
    """index.json and the files that it names, those that there are."""
    if INDEX not in files or not _is_image(folder):
        return
    if list(files) == [INDEX] and len(folders) == 1:  # as vtk.js writes it
        yield Group("", whole=True)
        return
    try:
        arrays = _arrays(json.loads(text_of(folder / INDEX)), folder)
    except (InputError, ValueError, RecursionError):
        arrays = []
    data = dict.fromkeys(file for array in arrays for file in _spellings(array.file) if (folder / file).is_file())
    yield Group("", (INDEX, *data))


def read(source: Source) -> Iterator[Record | InputError]:
    """One record, or one an array (``name::array``)."""
    text = text_of(source.path / INDEX)
    with refusing(source.label, "the index of a vtk.js image", REMEDY):
        index = json.loads(text)
        arrays = _arrays(index, source.label)
    for number, array in enumerate(arrays):
        name = f"{source.name}::{array.name}" if len(arrays) > 1 else source.name
        try:
            yield _record(source, name, array, index, {"index": text, "array": number})
        except InputError as error:
            if len(arrays) == 1:
                raise
            yield error


def write(records: Sequence[Record], path: Path) -> Path:
    """The folder with its index and its files, gzipped where their names say so."""
    path.mkdir(parents=True, exist_ok=True)
    for record in records:
        metadata = record.header.metadata
        file = path / metadata["file"]
        if not file.resolve().is_relative_to(path.resolve()):
            found = f"{metadata['file']!r}, which leads out"
            raise InputError(path, expected="a file of the folder", found=found, remedy="do not trust it")
        elements = np.asarray(record.elements[...])
        if metadata.get("components"):
            elements = np.moveaxis(elements, 0, -1)
        file.parent.mkdir(parents=True, exist_ok=True)
        data = np.ascontiguousarray(elements).tobytes()
        file.write_bytes(gzip.compress(data, 6, mtime=0) if file.suffix == ".gz" else data)
    (path / INDEX).write_bytes(records[0].header.metadata["index"].encode())
    return path


def _record(source: Source, name: str, array: Array, index: dict[str, Any], metadata: dict[str, Any]) -> Record:
    file = next((file for file in _spellings(array.file) if (source.path / file).is_file()), array.file)
    data = replace(source, path=source.beside(file), files=(), label=f"{source.label}/{file}")
    with refusing(data.label, "the numbers of an array", REMEDY):
        elements, after = lying(data, array.dtype, array.shape, 0)
    if after:
        found = f"{elements.nbytes + after} bytes"
        raise InputError(data.label, expected=f"{elements.nbytes} bytes for {array.shape}", found=found, remedy=REMEDY)
    axes: tuple[str, ...] = ("z", "y", "x")
    if len(array.shape) > 3:
        elements, axes = np.moveaxis(elements, -1, 0), ("component", *axes)
        metadata = {**metadata, "components": True}
    missing = marks_of(elements)
    spacing = index.get("spacing")
    sizes: dict[str, Any] = {}
    if isinstance(spacing, list) and len(spacing) == 3 and all(_is_size(size) for size in spacing):
        sizes["spacing"] = tuple([1.0] * (len(axes) - 3) + [float(size) for size in reversed(spacing)])
    geometry = fitted(Geometry(elements.dtype.str, axes, elements.shape, **sizes), elements, missing)
    return Record(Header(name, source.name, MODALITY, "vtkjs", geometry, {**metadata, "file": file}), elements, missing)


def _is_size(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value) and value > 0


def _arrays(index: dict[str, Any], where: object) -> list[Array]:
    """The arrays that lie in files. InputError if there are none, or one is not as vtk.js writes it."""
    with refusing(where, "the index of a vtk.js image", REMEDY):
        low_high = [int(end) for end in index["extent"]]
        points = [high - low + 1 for low, high in zip(low_high[::2], low_high[1::2], strict=True)][::-1]
        if len(points) != 3 or min(points) < 1:
            raise ValueError(f"extent {low_high}")
        found = []
        for kind, sizes in (("pointData", points), ("cellData", [max(1, size - 1) for size in points])):
            for entry in index.get(kind, {}).get("arrays", []):
                found.append(_array(entry["data"], sizes))
        if not found:
            raise ValueError("no arrays")
        if len({array.name for array in found}) != len(found):
            found = [replace(array, name=f"{number}-{array.name}") for number, array in enumerate(found)]
        return found


def _array(data: dict[str, Any], sizes: list[int]) -> Array:
    reference, components = data["ref"], int(data.get("numberOfComponents", 1))
    order = ORDERS[reference.get("encode", "LittleEndian")]
    shape = (*sizes, *([components] if components > 1 else []))
    if components < 1 or int(data.get("size", math.prod(shape))) != math.prod(shape):
        raise ValueError(f"{data.get('size')} numbers for {shape}")
    file = "/".join(part for part in (str(reference.get("basepath", "")), str(reference["id"])) if part)
    if ".." in Path(file).parts or Path(file).is_absolute():
        raise ValueError(f"a reference to {file!r}, which leads out")
    return Array(str(data.get("name", "")), file, DTYPES[data["dataType"]].newbyteorder(order), shape)


def _spellings(file: str) -> tuple[str, str]:
    return f"{file}.gz", file


def _is_image(folder: Path) -> bool:
    try:
        text = text_of(folder / INDEX)
    except InputError:
        return False
    return re.search(r'"vtkClass"\s*:\s*"vtkImageData"', text) is not None
