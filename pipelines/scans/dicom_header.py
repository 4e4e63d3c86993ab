"""What the header of a record keeps of DICOM data sets: all their bytes, a few words of them, scaling and padding."""

import base64
import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import zstandard
from pydicom.tag import Tag

from aunn_data.errors import InputError
from pipelines.scans.dicom_file import Dicom, kept
from pipelines.scans.dicom_pixels import SUBSAMPLED, Layout
from pipelines.scans.dicom_series import Stack
from pipelines.scans.dicom_values import value_in, word_in

ABOUT = (  # what a reader of the header looks for; all else is in the data set, verbatim
    *("Modality", "Manufacturer", "ManufacturerModelName", "StudyDescription", "SeriesDescription", "ProtocolName"),
    *("BodyPartExamined", "ImageType", "SOPClassUID", "StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID"),
    *("SliceThickness", "SpacingBetweenSlices", "GantryDetectorTilt", "PixelSpacing", "ImageOrientationPatient"),
    *("BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation", "PhotometricInterpretation"),
    *("PixelPaddingValue", "PixelPaddingRangeLimit", "WindowCenter", "WindowWidth", "DoseUnits", "Units"),
)
ABOUT_TAGS = {keyword: Tag(keyword) for keyword in ABOUT}


MOST_HEADERS = 1 << 30  # bytes of all that is kept of one series


def packed(parts: Sequence[tuple[Dicom, Layout]], label: str) -> dict[str, Any]:
    """What stands before and after the pixel data of every file, one after another, Zstandard in base64."""
    many = {"enable_ldm": True, "window_log": 23} if len(parts) > 1 else {}  # slices differ in little from one another
    options = zstandard.ZstdCompressionParameters.from_level(3, **many)
    stream, lengths, pieces, size = zstandard.ZstdCompressor(compression_params=options).compressobj(), [], [], 0
    for dicom, layout in parts:
        both = kept(dicom, dicom.length if dicom.encapsulated else layout.value_bytes)
        lengths.append([len(piece) for piece in both])
        pieces += (new := [stream.compress(piece) for piece in both])
        size += sum(map(len, new))
        if size > MOST_HEADERS:
            raise InputError(label, expected="headers of 1 GiB at most", found="more", remedy="split the series")
    data = b"".join([*pieces, stream.flush()])
    return {
        "bytes": lengths,
        "zstd": base64.b64encode(data).decode(),
    }


def unpacked(metadata: dict[str, Any]) -> list[tuple[bytes, bytes]]:
    """Inverse of ``packed``."""
    dataset = metadata["dataset"]
    stream = zstandard.ZstdDecompressor(max_window_size=1 << 27).decompressobj()
    data = stream.decompress(base64.b64decode(dataset["zstd"]))
    ends = np.cumsum([0, *(length for both in dataset["bytes"] for length in both)]).tolist()
    pieces = [data[start:stop] for start, stop in pairwise(ends)]
    return list(zip(pieces[::2], pieces[1::2], strict=True))


def about(dicoms: Sequence[Dicom]) -> dict[str, Any]:
    """What all files say alike, in words, and how the pixels were stored."""
    first, words = dicoms[0], {}
    for keyword, tag in ABOUT_TAGS.items():
        stored = {repr(getattr(dicom.dataset.get_item(tag), "value", None)) for dicom in dicoms[1:] and dicoms}
        if len(stored) < 2 and (value := word_in(first.dataset, keyword)):
            words[keyword] = value[:200]
    mosaic = first.dataset.get((0x0019, 0x100A))
    if "MOSAIC" in words.get("ImageType", "") and mosaic is not None:
        words["NumberOfImagesInMosaic"] = _plain(mosaic.value)
    metadata: dict[str, Any] = {"about": words, "transfer_syntax": first.syntax}
    if first.encapsulated:
        metadata["decoded"] = "as the codec gives it, no colour transformation"
        if words.get("PhotometricInterpretation") in ("YBR_RCT", "YBR_ICT"):
            metadata["decoded"] = "RGB: the codestream's own colour transformation was undone"
        elif words.get("PhotometricInterpretation", "").startswith("YBR_FULL_42"):
            metadata["decoded"] = "YBR_FULL: subsampled colours repeated, no colour transformation"
    elif words.get("PhotometricInterpretation") == SUBSAMPLED:
        metadata["decoded"] = "YBR_FULL: subsampled colours repeated"
    return metadata


def _plain(value: Any) -> Any:
    return int.from_bytes(value, "little") if isinstance(value, bytes) else int(value)


def of_stack(stack: Stack) -> dict[str, Any]:
    """Where each slice lies (LPS, mm), and what they were ordered by."""
    positions = [slice.plane.position for slice in stack.slices]
    where: dict[str, Any] = {}
    if any(positions):
        where["positions"] = [position and list(position) for position in positions]
    if stack.axes[-1] == "z":
        places = [slice.plane.place or 0.0 for slice in stack.slices[: stack.shape[-1]]]
        steps = np.diff(places)
        if len(steps) and steps.max() - steps.min() > 0.01 * abs(float(np.median(steps))) + 2e-3:
            where["uneven"] = "distances between slices differ, or slices are missing: see positions"
    return where | ({"ordered_by": stack.by} if stack.by else {})


def scaling(dataset: Any, frames: int) -> list[tuple[float, float]]:
    """Slope and intercept of every frame; one pair where all frames have them in common."""
    if (dose := _number(value_in(dataset, "DoseGridScaling"), 0.0)) != 0.0:
        return [(dose, 0.0)]
    per_frame = list(value_in(dataset, "PerFrameFunctionalGroupsSequence") or [])
    shared = list(value_in(dataset, "SharedFunctionalGroupsSequence") or [])
    scales = []
    for group in per_frame if len(per_frame) == frames else [None]:
        found = [*_transformations(group), *_transformations(shared[0] if shared else None), dataset]
        where = next((item for item in found if value_in(item, "RescaleSlope") not in (None, "")), dataset)
        scales.append(
            (_number(value_in(where, "RescaleSlope"), 1.0), _number(value_in(where, "RescaleIntercept"), 0.0))
        )
    return scales


def _transformations(group: Any) -> list[Any]:
    return [] if group is None else list(group.get("PixelValueTransformationSequence") or [])[:1]


def _number(value: Any, default: float) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError):
        return default
    return number if math.isfinite(number) else default


def padding(dicom: Dicom, layout: Layout) -> tuple[int, int] | None:
    """The least and the greatest value of pixels that only pad a picture; None if none are declared."""
    if not layout.photometric.startswith("MONOCHROME") or layout.dtype.kind not in "iu":
        return None
    low = value_in(dicom.dataset, "PixelPaddingValue")
    high = value_in(dicom.dataset, "PixelPaddingRangeLimit")
    if not isinstance(low, int):
        return None
    values = sorted([low, high if isinstance(high, int) else low])
    info = np.iinfo(layout.dtype)
    if info.min < 0 and values[0] > info.max:  # written as if it were unsigned
        values = [value - (1 << layout.bits) for value in values]
    return (values[0], values[1]) if info.min <= values[0] and values[1] <= info.max else None
