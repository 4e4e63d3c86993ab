"""NIfTI-1 and NIfTI-2 single files, ``.nii`` and ``.nii.gz``: voxels as stored, and the header they came with."""

import base64
import gzip
import io
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from aunn_data.errors import InputError
from aunn_data.geometry import fitted
from aunn_data.header import Header
from aunn_data.record import Record
from pipelines.scans.nifti_header import (
    KINDS,
    LONGEST,
    PAIR,
    REPAIR,
    SINGLE,
    geometry_of,
    layout,
    magic,
    parsed,
    preface_for,
    voxels_at,
)
from pipelines.source import Source
from pipelines.stored import element_bytes, nan_marks, only, refusing, stored

MODALITY = "scan"
FORMATS = ("nifti1", "nifti2")

GZIP = b"\x1f\x8b"
DEFLATE_LIMIT = 1032  # no deflate stream grows by more than this factor
CHUNK_BYTES = 1 << 24


def sniff(head: bytes, path: Path) -> bool:
    """By content: size and magic of a header. A .hdr/.img pair is claimed, so as to be told why."""
    suffix = path.suffix.lower()
    if suffix == ".img":
        return magic(_head_of(path.with_suffix(".hdr"))) in PAIR
    return magic(head) in (*SINGLE, *PAIR) or (suffix == ".hdr" and head[:4] in KINDS)


def read(source: Source) -> Iterator[Record | InputError]:
    """One record: the volume as stored, axes slowest first; the parts of a colour or complex voxel slowest of all."""
    path, name = source.local(), source.name
    with refusing(path, "a NIfTI file", REPAIR):
        preface, elements, trailing = _stored(path)
        header = parsed(preface)
        type, _ = layout(header, path)
        if type.axis:
            elements = np.moveaxis(elements, -1, 0)
        geometry = geometry_of(header, type, elements.shape)
    missing = nan_marks(elements)
    metadata = {"header": base64.b64encode(preface).decode()}
    if trailing:
        metadata["left_out"] = f"{trailing} bytes after the voxels"
    geometry = fitted(geometry, elements, missing)
    yield Record(Header(name, name, MODALITY, KINDS[preface[:4]].format, geometry, metadata), elements, missing)


def write(records: Sequence[Record], path: Path) -> Path:
    """The volume with its own header; ``.gz`` compresses, without a time in it. A name without .nii gets one."""
    record = only(records, path)
    if not path.name.lower().endswith((".nii", ".nii.gz")):
        path = path.with_name(path.name + ".nii")
    with refusing(path, "a volume that NIfTI can hold", "export it as .npy"):
        kept = base64.b64decode(record.header.metadata.get("header", ""))
        preface, type = preface_for(record.header, kept)
        elements = np.moveaxis(np.asarray(record.elements), 0, -1) if type.axis else record.elements
        voxels = np.ascontiguousarray(elements, np.dtype(KINDS[preface[:4]].byte_order + type.part))
    with path.open("wb") as file:
        compressed = path.suffix.lower() == ".gz"
        with gzip.GzipFile("", "wb", 6, file, mtime=0) if compressed else nullcontext(file) as out:
            out.write(preface)
            out.write(voxels.reshape(-1).view(np.uint8).data)
    return path


def _head_of(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(LONGEST)
    except OSError:
        return b""


def _stored(path: Path) -> tuple[bytes, npt.NDArray[Any], int]:
    """The bytes before the voxels, the voxels in storage order (parts last), and the number of bytes after them."""
    with gzip.open(path) if _head_of(path).startswith(GZIP) else path.open("rb") as file:
        preface = _preface(file, path)
        type, shape = layout(parsed(preface), path)
        dtype = np.dtype(KINDS[preface[:4]].byte_order + type.part)
        if isinstance(file, gzip.GzipFile):
            return preface, *_inflated(file, path, dtype, shape)
    available = path.stat().st_size - len(preface)
    trailing = available - element_bytes(path, shape, dtype.itemsize, available)
    return preface, stored(path, dtype, shape, len(preface)), trailing


def _preface(file: gzip.GzipFile | io.BufferedReader, path: Path) -> bytes:
    """All bytes before the voxels; ``file`` stands at the first voxel then."""
    head = file.read(LONGEST)
    if magic(head) not in SINGLE:
        raise InputError(
            path,
            expected="a NIfTI single file (magic n+1 or n+2)",
            found="half of a .hdr/.img pair" if path.suffix.lower() in (".hdr", ".img") else f"{head[:4]!r}",
            remedy="join a pair with nibabel.save(nibabel.load('x.hdr'), 'x.nii'); restore a damaged file",
        )
    start = voxels_at(parsed(head), path)
    file.seek(0)
    preface = file.read(start)
    if len(preface) < start:
        raise InputError(path, expected=f"voxels from byte {start} on", found=f"{len(preface)} bytes", remedy=REPAIR)
    return preface


def _inflated(
    file: gzip.GzipFile, path: Path, dtype: np.dtype[Any], shape: tuple[int, ...]
) -> tuple[npt.NDArray[Any], int]:
    """The voxels, and how many bytes came after them. Reading on to the end checks gzip's CRC."""
    flat = np.empty(element_bytes(path, shape, dtype.itemsize, path.stat().st_size * DEFLATE_LIMIT), np.uint8)
    filled = trailing = 0
    while filled < len(flat) and (count := file.readinto(flat[filled : filled + CHUNK_BYTES].data)):
        filled += count
    element_bytes(path, shape, dtype.itemsize, filled)
    while count := len(file.read(CHUNK_BYTES)):
        trailing += count
    return flat.view(dtype).reshape(shape), trailing
