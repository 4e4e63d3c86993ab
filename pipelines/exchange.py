"""Records as files of another format than their own: what ``export --as`` writes, one file a record."""

from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import zarr

from aunn_data.errors import InputError
from aunn_data.record import Record
from pipelines import formats


class Kind(NamedTuple):
    """A format to write: its name in a header, the suffix of its files, the modalities that it holds."""

    format: str
    suffix: str
    modalities: tuple[str, ...]


ANY = ("text", "image", "scan", "chess")
KINDS = {
    "npy": Kind("npy", ".npy", ANY),
    "zarr": Kind("zarr3", ".zarr", ANY),
    "png": Kind("png", ".png", ("image",)),
    "tiff": Kind("tiff", ".tif", ("image", "scan")),
    "nifti": Kind("nifti1", ".nii", ("scan", "image")),
    "txt": Kind("text", ".txt", ("text",)),
    "pgn": Kind("pgn", ".pgn", ("chess",)),
}
# What is told of the elements of an array that is nothing else.
ABOUT = ("spacing", "units", "slope", "intercept", "affine")
# What a picture means beside its samples, in the words that the readers of images share.
PICTURE = ("palette", "transparency")


def write_as(record: Record, name: str, path: Path) -> Path:
    """Writes one record as ``name`` of KINDS. InputError if that cannot hold it."""
    kind, header = KINDS[name], record.header
    if header.modality not in kind.modalities:
        raise _refused(record, name, f"{header.modality} of type {header.geometry.dtype}")
    if name == "pgn":
        return formats.named(header.format).write([record], path)
    stack = name == "tiff" and header.modality == "scan" and len(header.geometry.shape) > 2
    format = "tiff_stack" if stack else kind.format
    kept: dict[str, Any] = {key: header.metadata[key] for key in PICTURE if key in header.metadata}
    plain = Record(replace(header, format=format, metadata=kept), np.asarray(record.elements), record.missing)
    try:
        written = _zarr(plain, path) if name == "zarr" else formats.named(format).write([plain], path)
    except InputError:
        raise
    except Exception as error:  # a writer that was made for what its own reader gives
        raise _refused(record, name, f"{type(error).__name__}: {error}") from error
    if written != path and written.exists():
        raise _refused(record, name, f"elements that went to {written.name} instead")
    return written


def _zarr(record: Record, path: Path) -> Path:
    """One array; what the geometry says of its elements are its attributes."""
    geometry = record.header.geometry
    said = {key: value for key, value in geometry.to_json().items() if key in ABOUT}
    zarr.create_array(path, data=record.elements, dimension_names=geometry.axes, attributes=said)
    return path


def _refused(record: Record, name: str, found: str) -> InputError:
    return InputError(
        record.header.record,
        expected=f"a record that a .{name} can hold",
        found=found,
        remedy="export it as npy or zarr, which hold everything, or in its own format without --as",
    )
