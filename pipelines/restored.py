"""A reconstruction as files: the record in its own format, the mask of what was predicted, how sure that is."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from aunn_data.entries import Entry
from aunn_data.geometry import Geometry
from aunn_data.record import Record
from pipelines import compressed
from pipelines.export import path_below
from pipelines.export import write as write_source
from pipelines.holes import SPATIAL
from pipelines.reconstruct import Reconstruction

KEEPING = ("nifti1", "nifti2", "npy", "npz")  # their writers take an array of any type


def write(found: Reconstruction, folder: Path) -> list[Path]:
    """Writes the record with what was predicted, the mask (1 = predicted) and the uncertainty below a folder."""
    entry, record = found.target.entry, found.record
    path = path_below(folder, file_name(entry), overwrite=True)
    missing = None if record.missing is None else np.asarray(record.missing) & ~found.target.mask
    files = [write_source([replace(record, elements=found.filled, missing=missing)], path)]
    for what, array in (("mask", found.target.mask.astype(np.uint8)), ("uncertainty", found.uncertainty)):
        files.append(_write_map(found, what, array, path))
    return files


def picture_name(entry: Entry) -> str:
    """The file name of a record's picture; the record's suffix stays in it, for there may be an a.png beside a.jpg."""
    return Path(file_name(entry)).name + ".picture.png"


def file_name(entry: Entry) -> str:
    """The file name of one record of a source: game 7 of games.pgn is games#7.pgn."""
    number = entry.record.removeprefix(entry.source).replace("::", "#").replace("/", "_")
    stem, suffix = stem_and_suffix(entry.source)
    return f"{stem}{number}{suffix}"


def write_preview(found: Reconstruction, folder: Path, stride: int) -> Path:
    """Writes every ``stride``-th element of a record, predicted or given, as a small record below a folder."""
    entry, record = found.target.entry, found.record
    geometry = record.header.geometry
    spatial = [axis for axis in geometry.axes if axis in SPATIAL] or list(geometry.axes)
    steps = tuple(stride if axis in spatial else 1 for axis in geometry.axes)
    small = found.filled[tuple(slice(None, None, step) for step in steps)]
    spacing = geometry.spacing and tuple(size * step for size, step in zip(geometry.spacing, steps, strict=True))
    coarse = Geometry(small.dtype.str, geometry.axes, small.shape, spacing=spacing, units=geometry.units)
    stem, suffix = stem_and_suffix(file_name(entry))
    format, suffix = ("png", ".png") if record.header.modality == "image" else ("npy", ".npy")
    header = replace(record.header, format=format, geometry=coarse, metadata={})
    path = path_below(folder, f"{stem}.preview{suffix}", overwrite=True)
    return write_source([Record(header, small)], path)


def _write_map(found: Reconstruction, what: str, array: npt.NDArray[Any], path: Path) -> Path:
    """An array on the record's grid: NIfTI beside a NIfTI or another scan, PNG or TIFF beside an image, else .npy."""
    header, known = found.record.header, found.record.header.geometry
    axes, format, (stem, suffix) = known.axes, header.format, stem_and_suffix(path.name)
    if header.modality == "image":
        if "channel" in axes:  # one map for all channels
            array = array.sum(axis=axes.index("channel"), dtype=array.dtype)
            axes = tuple(axis for axis in axes if axis != "channel")
        array = np.where(array, 255, 0).astype(np.uint8) if what == "mask" else array
        format = "png" if what == "mask" else "tiff"
    elif header.modality != "scan":
        format = "npy"
    own = header.modality == "scan" and format in KEEPING
    if header.modality == "scan" and not own:
        format, suffix = "nifti1", ".nii"
    if header.modality != "scan":
        stem, suffix = path.name, f".{format}"
    whole = len(axes) == len(known.axes)
    geometry = Geometry(
        array.dtype.str,
        axes,
        array.shape,
        spacing=known.spacing if whole else None,
        units=known.units if whole else None,
        affine=known.affine,
    )
    metadata = header.metadata if own else {}
    record = Record(replace(header, format=format, geometry=geometry, metadata=metadata), array)
    return write_source([record], path.with_name(f"{stem}.{what}{suffix}"))


def stem_and_suffix(name: str) -> tuple[str, str]:
    """A file's name and suffix, .nii.gz being one suffix."""
    inner = compressed.inner_name(Path(name)).as_posix()
    stem = inner.removesuffix(Path(inner).suffix)
    return stem, name.removeprefix(stem)
