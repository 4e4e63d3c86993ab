"""NIfTI-1 and NIfTI-2, ``.nii`` and pairs of .hdr and .img, and Analyze 7.5: voxels as stored, the header verbatim.

A pair is written as one file, .hdr.nii. What other formats' readers give can be written here as well.
"""

import base64
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from aunn_data.errors import InputError
from aunn_data.header import canonical
from aunn_data.record import Record
from pipelines.scans.nifti_header import (
    KINDS,
    LONGEST,
    REPAIR,
    SINGLE,
    format_of,
    geometry_of,
    layout,
    magic,
    parsed,
    preface_for,
    voxels_at,
)
from pipelines.scans.voxels import MOST_HEADER_BYTES, lying, named, pairs, partner, record_of, saving
from pipelines.source import Group, Source
from pipelines.stored import only, refusing

MODALITY = "scan"
FORMATS = ("nifti1", "nifti2", "analyze")

SPATIAL = ("z", "y", "x")


def sniff(head: bytes, path: Path) -> bool:
    """By content: size and magic of a header. Analyze's has no magic; half of a pair is claimed, so as to be told."""
    suffix = str(path)[-4:].lower()
    if suffix == ".img":
        return _head_of(path.with_suffix(".hdr"))[:4] in KINDS
    return head[:4] in KINDS and (suffix == ".hdr" or magic(head) != b"")


def gather(folder: Path, files: Sequence[str], folders: Sequence[str]) -> Iterator[Group]:
    """A .hdr with its .img."""
    for header, voxels in pairs(files, ".hdr", ".img"):
        source = Source(folder / header, header)
        try:
            mine = sniff(source.head, source.inner)
        except InputError:
            continue
        if mine:
            yield Group(header, (header, voxels))


def read(source: Source) -> Iterator[Record | InputError]:
    """One record: the volume as stored, axes slowest first; the parts of a colour or complex voxel slowest of all."""
    with refusing(source.label, "a NIfTI file", REPAIR):
        preface, data = _preface(source)
        header = parsed(preface)
        type, shape = layout(header, source.label)
        dtype = np.dtype(KINDS[preface[:4]].byte_order + type.part)
        elements, trailing = lying(data, dtype, shape, voxels_at(preface, source.label))
        if type.axis:
            elements = np.moveaxis(elements, -1, 0)
        geometry = geometry_of(header, type, elements.shape)
    metadata = {"header": base64.b64encode(preface).decode()}
    yield record_of(source, format_of(preface), geometry, elements, metadata, trailing)


def write(records: Sequence[Record], path: Path) -> Path:
    """The volume with its own header; ``.gz`` compresses, without a time in it. A name without .nii gets one."""
    record = only(records, path)
    path = named(path, (".nii",))
    with refusing(path, "a volume that NIfTI can hold", "export it as .npy"):
        record = _in_order(record)
        preface, type = preface_for(record.header, _kept(record))
        elements = np.moveaxis(np.asarray(record.elements), 0, -1) if type.axis else record.elements
        voxels = np.ascontiguousarray(elements, np.dtype(KINDS[preface[:4]].byte_order + type.part))
    with saving(path) as file:
        file.write(preface)
        file.write(voxels.reshape(-1).view(np.uint8).data)
    return path


def _head_of(path: Path) -> bytes:
    if not path.is_file():  # a pipe never ends
        return b""
    try:
        with path.open("rb") as file:
            return file.read(LONGEST)
    except OSError:
        return b""


def _preface(source: Source) -> tuple[bytes, Source]:
    """All that stands before the voxels, or in the file beside them; and the file that has them."""
    with source.file() as file:
        head = file.read(LONGEST)
        if head[:4] not in KINDS or len(head) < KINDS[head[:4]].header.sizeof_hdr:
            raise InputError(
                source.label,
                expected="a NIfTI header (or that of a .hdr/.img pair: ingest the .hdr)",
                found=f"{len(head)} bytes that begin with {head[:4]!r}",
                remedy="restore a damaged file; give an .img by its .hdr",
            )
        file.seek(0)
        if magic(head) not in SINGLE:
            return file.read(MOST_HEADER_BYTES), partner(source, ".img")
        start = voxels_at(head, source.label)
        preface = file.read(min(start, source.length()))
    if len(preface) < start:
        raise InputError(
            source.label, expected=f"voxels from byte {start} on", found=f"{len(preface)} bytes", remedy=REPAIR
        )
    return preface, source


def _kept(record: Record) -> bytes:
    """The preface that the record came with; of another format, all that its header says beside the voxels."""
    metadata = record.header.metadata
    if record.header.format in ("nifti1", "nifti2"):
        return base64.b64decode(metadata.get("header", ""))
    return canonical(metadata).encode() if metadata else b""


def _in_order(record: Record) -> Record:
    """The record with its axes as NIfTI has them: x fastest, then y, z, and all others."""
    geometry = record.header.geometry
    if not set(SPATIAL) <= set(geometry.axes):
        return record
    order = [k for k, axis in enumerate(geometry.axes) if axis not in SPATIAL]
    order += [geometry.axes.index(axis) for axis in SPATIAL]
    turned = replace(
        geometry,
        axes=tuple(geometry.axes[k] for k in order),
        shape=tuple(geometry.shape[k] for k in order),
        spacing=tuple(geometry.spacing[k] for k in order) if geometry.spacing else None,
        units=tuple(geometry.units[k] for k in order) if geometry.units else None,
    )
    return Record(replace(record.header, geometry=turned), np.asarray(record.elements).transpose(order))
