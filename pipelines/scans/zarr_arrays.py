"""Zarr v2 and v3 in a folder, OME-Zarr 0.4 and 0.5 among it: https://zarr-specs.readthedocs.io

Every array is a record, ``name::path/of/array``; of an image of several scales (``multiscales``) the first alone,
called by the group that it is the image of. The others are left out, which the metadata says; where the first is
lacking they go in.

A chunk that is not stored is missing where the store gives no value for it: ``fill_value`` null (v2). Else it *is* the
fill value. Elements equal to a fill value are missing where that is what it stands for: NaN, a ``_FillValue`` among the
attributes, or the ``fill_value`` of a v2 array by xarray (which has ``_ARRAY_DIMENSIONS``).
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from aunn_data.errors import InputError
from aunn_data.geometry import Geometry, slices
from aunn_data.header import Header
from aunn_data.record import Record
from pipelines.scans.chunked import Chunked, Marks, axis_names, recorded, whole_of
from pipelines.scans.ome_zarr import Image
from pipelines.scans.zarr_store import DOCUMENTS, Opened, Store, opened, parsed_document, text_of
from pipelines.source import Group, Source

MODALITY = "scan"
FORMATS = ("zarr2", "zarr3")


def sniff(head: bytes, path: Path) -> bool:
    """A folder with a group's or an array's document."""
    return not head and path.is_dir() and any((path / name).is_file() for name in DOCUMENTS)


def gather(folder: Path, files: Sequence[str], folders: Sequence[str]) -> Iterator[Group]:
    """The folder itself, with all below it, if it is a group or an array."""
    if not DOCUMENTS.isdisjoint(files):
        yield Group("", whole=True)


def read(source: Source) -> Iterator[Record | InputError]:
    """A record an array, but those that are lower scales of an image; files that belong to none are reported."""
    store = Store(source)
    lower, names = _scales(store)
    notes = store.notes()
    for path in store.arrays:
        if path in lower:
            continue
        try:
            record = _record(source, store, path, names, notes)
        except InputError as error:
            yield error
        else:
            notes = {}  # they went with the first record
            yield record
    yield from store.strangers


def write(records: Sequence[Record], path: Path) -> Path:
    """The folder again, with the documents as they were and every array in its own chunks and codecs.

    Chunks that are missing, or hold nothing but the fill value, are not stored.
    """
    path.mkdir(parents=True)
    for record in records:
        kept = record.header.metadata
        for name, document in {**kept["documents"], **kept.get("notes", {})}.items():
            (path / name).parent.mkdir(parents=True, exist_ok=True)
            (path / name).write_text(text_of(document), "utf-8", newline="")
        array = opened(path, kept["path"], _array_document(kept), str(path / kept["path"]), read_only=False)
        _write_chunks(record, array, kept)
    return path


def _array_document(kept: dict[str, Any]) -> dict[str, Any]:
    name = next(name for name in ("zarr.json", ".zarray") if _joined(kept["path"], name) in kept["documents"])
    document = parsed_document(text_of(kept["documents"][_joined(kept["path"], name)]), kept["path"])
    return {**document, "dimension_separator": "/"} if kept.get("nested") else document


def _joined(path: str, name: str) -> str:
    return f"{path}/{name}" if path else name


def _write_chunks(record: Record, array: Opened, kept: dict[str, Any]) -> None:
    elements, parts = whole_of(record), record.header.geometry.axes[0] == "component"
    for region in Chunked(array.shape, array.dtype, array.chunk, lambda region: np.empty(0)).pieces(None, 1):
        cut = slices(region) if array.array.shape else (slice(0, 1),)
        values = np.asarray(elements[cut])
        if array.unknown_fill and record.missing is not None:
            marked = np.asarray(record.missing[(slice(None), *cut) if parts else cut])
            if marked.all() and not np.any(values):
                continue
        array.write(region, values)


def _record(source: Source, store: Store, path: str, names: dict[str, str], notes: dict[str, str]) -> Record:
    array, image = store.opened(path), store.image_of(path)
    geometry = _geometry(array, image)
    metadata: dict[str, Any] = {"path": path, "documents": store.documents_of(path)}
    if array.nested:
        metadata["nested"] = True
    if image.lower:
        metadata["left_out"] = [f"the lower scale {lower}" for lower in image.lower]
    if notes:
        metadata["notes"] = notes
    name = names.get(path, path)
    record = f"{source.name}::{name}" if name else source.name
    elements = Chunked(array.shape, array.dtype, array.chunk, array.read, array.stored, array.fill)
    marks = Marks(elements, array.declared, array.unknown_fill)
    return recorded(Header(record, source.name, MODALITY, f"zarr{array.version}", geometry, metadata), marks)


def _geometry(array: Opened, image: Image) -> Geometry:
    """Axes as the image names them if it has as many, else as the array does, with what the image says of each.

    An image may leave out axes that its array has by name: they have no unit, and steps of 1.
    """
    count = len(array.shape)
    axes = axis_names(image.axes if len(image.axes) == count else array.dimensions, count)
    places = dict(zip(image.axes or axes, range(count), strict=False))
    spacing, units = image.spacing or (), image.units
    if not set(places) <= set(axes) or len(spacing) not in (0, len(places)):
        return Geometry(array.dtype.str, axes, array.shape)
    steps = (
        tuple(spacing[places[axis]] if axis in places else 1.0 for axis in axes)
        if len(spacing) == len(places)
        else None
    )
    named = tuple(units[places[axis]] if axis in places and units else "" for axis in axes)
    return Geometry(array.dtype.str, axes, array.shape, spacing=steps, units=named if any(named) else None)


def _scales(store: Store) -> tuple[set[str], dict[str, str]]:
    """The arrays that are lower scales of images, and for each image's first scale what it is called: its group."""
    lower: set[str] = set()
    names: dict[str, str] = {}
    there = set(store.arrays)
    for group, images in store.images.items():
        for number, image in enumerate(images):
            if image.path in there:
                names[image.path] = group if number == 0 else image.path
                lower.update(image.lower)
    return lower - set(names), names
