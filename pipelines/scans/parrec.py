"""Philips' .PAR and .REC, versions 4 to 4.2, whose lines nibabel reads: https://nipy.org/nibabel/reference/nibabel.parrec.html

The header's text is kept verbatim. Written as NIfTI with that text as a comment in it.
"""

import io
import math
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import nibabel
import numpy as np

from aunn_data.errors import InputError
from aunn_data.geometry import Geometry
from aunn_data.record import Record
from pipelines.scans import nifti
from pipelines.scans.voxels import MOST_HEADER_BYTES, affine_of, kept_text, lying, pairs, partner, record_of
from pipelines.source import Group, Source
from pipelines.stored import refusing

MODALITY = "scan"
FORMATS = ("parrec",)

MAGIC = b"# === DATA DESCRIPTION FILE ==="
PARSED: Any = nibabel.parrec.parse_PAR_header
HEADER: Any = nibabel.parrec.PARRECHeader
SCALING = {"slopes": "rescale slope", "intercepts": "rescale intercept"}
MOST_SLICES = 1 << 16  # nibabel lists them all
REMEDY = "restore it, or convert it with parrec2nii or dcm2niix"


def sniff(head: bytes, path: Path) -> bool:
    """By content: the first line."""
    return MAGIC in head[:256]


def gather(folder: Path, files: Sequence[str], folders: Sequence[str]) -> Iterator[Group]:
    """A .PAR with its .REC."""
    for header, voxels in pairs(files, ".par", ".rec"):
        yield Group(header, (header, voxels))


def read(source: Source) -> Iterator[Record | InputError]:
    """One record: volumes and slices in the order of the file; (image, y, x) where they make no whole volumes."""
    if nifti.sniff(source.head, source.inner):  # as this module writes it
        yield from nifti.read(source)
        return
    with refusing(source.label, "a PAR header of version 4 to 4.2", REMEDY), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of truncated recordings, which go in image by image
        with source.open() as file:
            text = file.read(MOST_HEADER_BYTES)
        general, images = PARSED(io.StringIO(text.decode("latin-1")))
        if not 0 < general["max_slices"] <= MOST_SLICES:
            raise ValueError(f"{general['max_slices']} slices")
        sizes, bits = {tuple(size) for size in images["recon resolution"].tolist()}, set(images["image pixel size"])
        [(columns, rows)], [depth] = sizes, bits
        dtype, shape = np.dtype({8: "|u1", 16: "<u2"}[int(depth)]), (len(images), rows, columns)
        elements, trailing = lying(partner(source, ".rec"), dtype, shape, 0)
        header = HEADER(general, images, permit_truncated=True)
        lead = _lead(header)
        elements = elements.reshape(*lead.values(), rows, columns)
        geometry, metadata = _geometry(header, tuple(lead), elements), kept_text(text)
    yield record_of(source, "parrec", geometry, elements, metadata | _scaling(images), trailing)


def write(records: Sequence[Record], path: Path) -> Path:
    """The volume as NIfTI."""
    return nifti.write(records, path)


def _lead(header: Any) -> dict[str, int]:
    """The axes before rows and columns, slowest first, and their sizes."""
    count, slices = len(header.image_defs), header.get_data_shape()[2]
    volumes = count // slices
    order = header.image_defs["index in REC file"][header.get_sorted_slice_indices()]
    if len(order) != count or volumes * slices != count:
        return {"image": count}
    places = order.reshape(volumes, slices)
    if np.array_equal(places.ravel(), np.arange(count)):
        return {"t": volumes, "z": slices} if volumes > 1 else {"z": slices}
    return {"z": slices, "t": volumes} if np.array_equal(places.T.ravel(), np.arange(count)) else {"image": count}


def _scaling(images: Any) -> dict[str, list[float]]:
    """Slopes and intercepts where the images have different ones, in the order of the header's lines."""
    return {
        name: images[field].tolist()
        for name, field in SCALING.items()
        if len(set(images[field].tolist())) > 1 and np.isfinite(images[field]).all()
    }


def _geometry(header: Any, lead: tuple[str, ...], elements: Any) -> Geometry:
    images = header.image_defs
    zooms = [float(zoom) for zoom in header.get_zooms()]
    steps = {"x": zooms[0], "y": zooms[1], "z": zooms[2], "t": zooms[3] if len(zooms) > 3 else 1.0, "image": 1.0}
    units = {"t": "s", "image": ""}
    axes = (*lead, "y", "x")
    affine: Any = header.get_affine() if "z" in lead else np.full((4, 4), math.nan)
    slope, intercept = (set(images[field].tolist()) for field in SCALING.values())
    return Geometry(
        dtype=elements.dtype.str,
        axes=axes,
        shape=elements.shape,
        spacing=tuple(steps[axis] for axis in axes),
        units=tuple(units.get(axis, "mm") for axis in axes),
        slope=_one(slope, 1.0),
        intercept=_one(intercept, 0.0),
        affine=affine_of(affine[:3, :3].T, affine[:3, 3], (1, 1, 1)),
    )


def _one(values: set[float], otherwise: float) -> float:
    """The value that all images have."""
    value = values.pop() if len(values) == 1 else otherwise
    return value if math.isfinite(value) else otherwise
