"""FreeSurfer's .mgh, gzipped as .mgz: https://surfer.nmr.mgh.harvard.edu/fswiki/FsTutorial/MghFormat

The 284 bytes before the voxels and all bytes after them (scan parameters, tags) are kept verbatim.
"""

import base64
import math
import struct
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from nibabel.freesurfer import mghformat

from aunn_data.errors import InputError
from aunn_data.geometry import Geometry
from aunn_data.record import Record
from pipelines.scans.voxels import affine_of, lying, named, record_of, saving, voxels_of
from pipelines.source import Source
from pipelines.stored import only, refusing

MODALITY = "scan"
FORMATS = ("mgh",)

START = 284  # of the voxels
UNUSED = slice(90, START)
SUFFIXES = (".mgh", ".mgz")
TYPES = {0: "u1", 1: ">i4", 3: ">f4", 4: ">i2", 10: ">u2"}
MOST_FOOTER = 1 << 24
HEADER: Any = mghformat.MGHHeader
REMEDY = "restore it, or convert it with mri_convert"


def sniff(head: bytes, path: Path) -> bool:
    """By content: version 1, four sizes, a type; and by the name where the unused bytes are not all zero."""
    if len(head) < START:
        return False
    version, *shape, type = struct.unpack_from(">6i", head)
    known = version == 1 and all(0 < size < 1 << 24 for size in shape) and 0 <= type <= 20
    return known and (path.suffix.lower() in SUFFIXES or not any(head[UNUSED]))


def read(source: Source) -> Iterator[Record | InputError]:
    """One record: frames, if several, then voxels as stored."""
    with refusing(source.label, "an MGH volume", REMEDY):
        with source.file() as file:
            block = file.read(START)
        version, *shape, type = struct.unpack_from(">6i", block)
        if version != 1 or type not in TYPES:
            raise ValueError(f"version {version} and data type {type}; known are 1 and {sorted(TYPES)}")
        shape = shape[:3] if shape[3] == 1 else shape
        elements, after = lying(source, np.dtype(TYPES[type]), tuple(reversed(shape)), START)
        if after > MOST_FOOTER:
            raise ValueError(f"{after} bytes after the voxels, too many for a footer")
        with source.file() as file:
            file.seek(START + elements.nbytes)
            footer = file.read(after)
        geometry = _geometry(block, footer, elements)
    metadata = {"header": base64.b64encode(block).decode()}
    if footer:
        metadata["footer"] = base64.b64encode(footer).decode()
    yield record_of(source, "mgh", geometry, elements, metadata)


def write(records: Sequence[Record], path: Path) -> Path:
    """The volume between the bytes that stood before and after it."""
    record = only(records, path)
    path = named(path, SUFFIXES)
    with refusing(path, "a volume that MGH can hold", "export it as .npy"):
        block = base64.b64decode(record.header.metadata["header"])
        voxels = voxels_of(record, record.header.geometry.numpy_dtype, False)
    with saving(path) as file:
        file.write(block)
        file.write(voxels.reshape(-1).view(np.uint8).data)
        file.write(base64.b64decode(record.header.metadata.get("footer", "")))
    return path


def _geometry(block: bytes, footer: bytes, elements: Any) -> Geometry:
    """Space in mm; where the header gives no place in it, FreeSurfer's default. Frames follow one another by TR."""
    header = HEADER(block[:90] + footer, check=False)
    spacing = [float(step) for step in reversed(header["delta"])]
    frames = elements.ndim - 3
    if frames:
        spacing = [float(header["tr"]), *spacing]
    affine = header.get_affine()
    return Geometry(
        dtype=elements.dtype.str,
        axes=("t", "z", "y", "x")[1 - frames :],
        shape=elements.shape,
        spacing=tuple(spacing) if all(map(math.isfinite, spacing)) else None,
        units=("ms", "mm", "mm", "mm")[1 - frames :],
        affine=affine_of(affine[:3, :3].T, affine[:3, 3], (1, 1, 1)),
    )
