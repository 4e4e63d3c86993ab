"""Frames and the bytes that stood around them -> a DICOM file: the same file, or the nearest that says the same."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pydicom
from pydicom import uid
from pydicom.filereader import read_dataset

from pipelines.scans.dicom_file import DEFLATED, UNDEFINED, Dicom, deflated, parsed
from pipelines.scans.dicom_pixels import Layout, layout_of, value_of

OFFSETS = ("ExtendedOffsetTable", "ExtendedOffsetTableLengths")
HELD_BY = {"b": "u1", "f2": "f4"}
COLOURS = {"YBR_RCT": "RGB", "YBR_ICT": "RGB", "YBR_FULL_422": "YBR_FULL", "YBR_PARTIAL_422": "YBR_FULL"}


def written_file(before: bytes, after: bytes, frames: npt.NDArray[Any], syntax: str) -> bytes:
    """The bytes of a file. ``frames`` is (F, y, x) or (F, y, x, C)."""
    dicom = _parsed(before)
    layout = layout_of(dicom)
    if dicom.encapsulated or not _fits(layout, frames):
        return _rebuilt(dicom, after, layout, frames)
    if layout.planar:
        frames = np.moveaxis(frames, -1, 1)
    data = before + bytes(value_of(dicom, layout, frames)) + after
    return deflated(data) if syntax == DEFLATED else data


def _parsed(before: bytes) -> Dicom:
    """The data set of the bytes before the pixel data, whatever length they say that this has."""
    size = len(before) + UNDEFINED
    if before.endswith(b"\xff\xff\xff\xff"):  # encapsulated: an end for its items
        before += b"\xfe\xff\xdd\xe0\0\0\0\0"
    return parsed(io.BytesIO(before), Path(), "the header", size)


def _fits(layout: Layout, frames: npt.NDArray[Any]) -> bool:
    shape = (layout.frames, layout.rows, layout.columns, *((layout.samples,) if layout.samples > 1 else ()))
    return frames.dtype == layout.dtype and frames.shape == shape and (layout.bits > 1 or bool((frames < 2).all()))


def _rebuilt(dicom: Dicom, after: bytes, layout: Layout, frames: npt.NDArray[Any]) -> bytes:
    """Explicit VR Little Endian, not compressed; all elements but those that say how the pixels lie stay."""
    dataset = dicom.dataset
    _decode(dataset)
    if dicom.encapsulated:
        implicit, little = dataset.original_encoding[:2]
        dataset.update(read_dataset(io.BytesIO(after), implicit, little))
    for keyword in OFFSETS:
        if keyword in dataset:
            del dataset[keyword]
    _describe(dataset, layout, frames)
    meta = getattr(dataset, "file_meta", None) or pydicom.dataset.FileMetaDataset()
    meta.TransferSyntaxUID = uid.ExplicitVRLittleEndian
    dataset.file_meta = meta
    out = io.BytesIO()
    pydicom.dcmwrite(out, dataset, implicit_vr=False, little_endian=True, force_encoding=True)
    return out.getvalue()


def _decode(dataset: Any) -> None:
    """Takes elements out of their original encoding where that is another."""
    if dataset.original_encoding[:2] != (False, True):
        for _ in dataset.iterall():
            pass


def _describe(dataset: Any, layout: Layout, frames: npt.NDArray[Any]) -> None:
    """The elements of the image module for these frames, and the frames."""
    kind = HELD_BY.get(frames.dtype.kind) or HELD_BY.get(frames.dtype.str[1:]) or frames.dtype.str[1:]
    frames = np.ascontiguousarray(frames, "<" + kind)
    data, bits = frames.tobytes(), 8 * frames.dtype.itemsize
    samples = frames.shape[3] if frames.ndim == 4 else 1
    dataset.Rows, dataset.Columns = frames.shape[1:3]
    if len(frames) > 1 or "NumberOfFrames" in dataset:
        dataset.NumberOfFrames = len(frames)
    dataset.SamplesPerPixel = samples
    photometric = COLOURS.get(layout.photometric, layout.photometric)
    dataset.PhotometricInterpretation = photometric if samples == layout.samples else "MONOCHROME2"
    if samples > 1:
        dataset.PlanarConfiguration = 0
    if frames.dtype != layout.dtype.newbyteorder("<") or bits != layout.bits:
        dataset.BitsAllocated = dataset.BitsStored = bits
        dataset.HighBit = bits - 1
        dataset.PixelRepresentation = int(frames.dtype.kind == "i")
        for keyword in ("RescaleSlope", "RescaleIntercept", "PixelPaddingValue", "PixelPaddingRangeLimit"):
            if keyword in dataset:
                del dataset[keyword]
    keyword = {"f4": "FloatPixelData", "f8": "DoubleFloatPixelData"}.get(kind, "PixelData")
    setattr(dataset, keyword, data + bytes(len(data) % 2))
    if keyword == "PixelData":
        dataset["PixelData"].VR = "OB" if bits == 8 else "OW"
