"""A surface patch of scroll segmentation, ``tifxyz``: a folder with x.tif, y.tif, z.tif and meta.json.

Each pixel is a point of the surface in voxels of its volume. One record (component, y, x): x, y and z of the points.
Points whose three coordinates are -1 are none, as in Volume Cartographer, and marked missing. Metadata: ``meta`` is
meta.json as it is. Other files of the folder (masks, overlays) go in by themselves.
"""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from aunn_data.errors import InputError
from aunn_data.geometry import Geometry, fitted
from aunn_data.header import Header
from aunn_data.record import Record
from pipelines.scans.volpkg import META, text_of
from pipelines.source import Group, Source
from pipelines.stored import only
from pipelines.tiff.pages import Layout
from pipelines.tiff.slices import Slices, opened, same, write_slices

MODALITY = "scan"
FORMATS = ("tifxyz",)

NAMES = ("x.tif", "y.tif", "z.tif")
NO_POINT = -1


def sniff(head: bytes, path: Path) -> bool:
    """A folder with the three files and a meta.json that says so."""
    return not head and path.is_dir() and all((path / name).is_file() for name in NAMES) and _is_patch(path)


def gather(folder: Path, files: Sequence[str], folders: Sequence[str]) -> Iterator[Group]:
    """The three files and meta.json."""
    if set(NAMES) | {META} <= set(files) and _is_patch(folder):
        yield Group("", (META, *NAMES))


def read(source: Source) -> Iterator[Record | InputError]:
    """One record (component, y, x)."""
    text = text_of(source.path / META)
    layouts: dict[Any, Layout] = {}
    slices = [opened(source.path / name, source, layouts) for name in NAMES]
    same(slices)
    found = Slices(slices, source)
    elements = found[...]
    missing = _missing(elements)
    axes = ("component", "y", "x")
    geometry = fitted(Geometry(elements.dtype.str, axes, elements.shape), elements, missing)
    metadata = {**found.metadata, "meta": text}
    yield Record(Header(source.name, source.name, MODALITY, "tifxyz", geometry, metadata), elements, missing)


def write(records: Sequence[Record], path: Path) -> Path:
    """The folder of the three files with its meta.json."""
    record = only(records, path)
    write_slices(record, path)
    (path / META).write_bytes(record.header.metadata.get("meta", "").encode())
    return path


def _missing(elements: npt.NDArray[Any]) -> npt.NDArray[np.bool_] | None:
    """NaN, and the points that are none."""
    marks = np.isnan(elements) if elements.dtype.kind == "f" else np.zeros(elements.shape, np.bool_)
    marks = marks | (elements == NO_POINT).all(axis=0)
    return marks if marks.any() else None


def _is_patch(folder: Path) -> bool:
    try:
        meta = json.loads(text_of(folder / META))
    except (InputError, ValueError, RecursionError):
        return False
    return isinstance(meta, dict) and meta.get("format") == "tifxyz"
