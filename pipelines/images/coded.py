"""JPEG 2000, JPEG XL, QOI, and JPEGs of more than 8 bits or without loss, decoded by imagecodecs at their full depth.

``bits`` is how many bits samples have where that is less than their type's; those above 8 are big-endian, not
stretched. ``boxes`` (of JPEG 2000 and XL: colours, EXIF, XMP, GeoTIFF) and ``segments`` (of JPEG) are kept as they lie
there, in base64. A JPEG XL is turned upright by its decoder, as its codestream asks for.
"""

import base64
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import imagecodecs
import numpy as np
import numpy.typing as npt

from aunn_data.errors import InputError
from aunn_data.geometry import Geometry, fitted
from aunn_data.header import Header
from aunn_data.record import Record
from pipelines.images import png
from pipelines.images.bombs import refuse_bomb
from pipelines.images.png_metadata import MOST_BYTES
from pipelines.source import Source
from pipelines.stored import marks_of, refusing

MODALITY = "image"
FORMATS = ("jpeg2000", "jpegxl", "qoi", "jpeg-deep")
ANY_MAGIC = re.compile(
    rb"(?P<jpeg2000>\0\0\0\x0cjP  \r\n\x87\n|\xff\x4f\xff\x51)|(?P<jpegxl>\0\0\0\x0cJXL \r\n\x87\n|\xff\x0a)"
    rb"|(?P<qoi>qoif.{8}[\3\4][\0\1])",
    re.DOTALL,
)
BOXED = b"\r\n\x87\n"
PIXEL_BOXES = (b"jp2c", b"jxlc", b"jxlp", b"jP  ", b"JXL ", b"ftyp")
QOI_END = bytes(7) + b"\1"
BASELINE = (0xC0, 0xC1, 0xC2, 0xC9, 0xCA)  # frames with a DCT that Pillow reads if they have 8 bits
FRAMES = (*BASELINE, 0xC3, 0xC5, 0xC6, 0xC7, 0xCB, 0xCD, 0xCE, 0xCF)
RATIOS = ((1, 1), (12, 10), (4, 3), (3, 2), (16, 9), (5, 4), (2, 1))
EXPECTED, REMEDY = "an image that decodes", "restore it, or open it with an image editor and save it as PNG"


class Size(NamedTuple):
    """What a header claims: rows, columns, channels, bits a sample."""

    height: int
    width: int
    channels: int
    bits: int


def sniff(head: bytes, path: Path) -> bool:
    """By magic number; a JPEG by the depth and kind of its frame, if that is within the head."""
    return _format(head) is not None


def read(source: Source) -> Iterator[Record | InputError]:
    """One record ``name``."""
    if png.sniff(source.head, source.path):  # what ``write`` made
        yield from png.read(source)
        return
    with refusing(source.label, EXPECTED, REMEDY):
        with source.open() as file:
            data = file.read()
        format = _format(data)
        if format is None:
            raise ValueError(f"a file that begins with {data[:12]!r}")
        size = SIZES[format](data)
        count = size.height * size.width * size.channels
        raw = count * (1 + (size.bits > 8))
        refuse_bomb(source.label, size[:2], count, raw, len(data), source.options.limits)
        samples = DECODERS[format](data)
        if samples.ndim not in (2, 3) or samples.shape[:2] not in (size[:2], size[1::-1]):
            raise ValueError(f"{samples.shape} samples where {size} were announced")
        metadata = {**_depth(samples, size), **_beside(format, data)}
    elements = np.moveaxis(samples, -1, 0) if samples.ndim == 3 else samples
    if elements.dtype.itemsize == 2 and elements.dtype.kind == "u":
        elements = elements.astype(">u2")
    if mode := _mode(elements):
        metadata["mode"] = mode
    missing = marks_of(elements)
    geometry = Geometry(elements.dtype.str, ("channel", "y", "x")[-elements.ndim :], elements.shape)
    geometry = fitted(geometry, elements, missing)
    yield Record(Header(source.name, source.name, MODALITY, format, geometry, metadata), elements, missing)


def is_deep(source: Source) -> bool:
    """Is it a JPEG whose frame, too far in for ``sniff``, is not Pillow's?"""
    if not source.head.startswith(b"\xff\xd8\xff") or any(kind in FRAMES for kind, _ in _segments(source.head)):
        return False
    with source.open() as file:
        return _format(file.read()) is not None


def write(records: Sequence[Record], path: Path) -> Path:
    """A PNG of equal samples."""
    return png.write(records, path.with_name(f"{path.name}.png"))


def _format(head: bytes) -> str | None:
    if match := ANY_MAGIC.match(head):
        return match.lastgroup
    if head.startswith(b"\xff\xd8\xff"):
        frame = next((part for kind, part in _segments(head) if kind in FRAMES), None)
        kind = next((kind for kind, _ in _segments(head) if kind in FRAMES), None)
        if frame and (frame[0] != 8 or kind == 0xC3):
            return "jpeg-deep"
    return None


def _segments(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Marker and content of a JPEG's segments up to its pixels."""
    at = 2
    while at + 4 <= len(data) and data[at] == 0xFF:
        kind = data[at + 1]
        if kind == 0xFF:
            at += 1
            continue
        stop = at + 2 + int.from_bytes(data[at + 2 : at + 4])
        yield kind, data[at + 4 : stop]
        if kind == 0xDA:
            return
        at = stop


def _size_jpeg(data: bytes) -> Size:
    frame = next(part for kind, part in _segments(data) if kind in FRAMES)
    if not data.rstrip(b"\0").endswith(b"\xff\xd9"):
        raise ValueError("a JPEG without its end")
    return Size(int.from_bytes(frame[1:3]), int.from_bytes(frame[3:5]), frame[5], frame[0])


def _size_jpeg2000(data: bytes) -> Size:
    at = data.find(b"\xff\x4f\xff\x51")
    if at < 0 or len(data) < at + 42:
        raise ValueError("no size of a codestream")
    x, y, left, top = (int.from_bytes(data[at + 8 + 4 * k : at + 12 + 4 * k]) for k in range(4))
    channels = int.from_bytes(data[at + 40 : at + 42])
    parts = [data[at + 42 + 3 * k : at + 45 + 3 * k] for k in range(channels)]
    if not channels or x <= left or y <= top or any(len(part) < 3 for part in parts):
        raise ValueError("a size without pixels")
    if len(set(parts)) > 1:
        raise ValueError("channels of unlike depth or resolution")
    return Size(y - top, x - left, channels, (parts[0][0] & 0x7F) + 1)


def _size_qoi(data: bytes) -> Size:
    if not data.endswith(QOI_END):
        raise ValueError("a QOI without its end")
    return Size(int.from_bytes(data[8:12]), int.from_bytes(data[4:8]), data[12], 8)


def _size_jpegxl(data: bytes) -> Size:
    """The size alone, at the beginning of the codestream; depth and channels stand further in, so the most of each."""
    stream = data
    if data[8:12] == BOXED:
        stream = next((body[4 * (kind == b"jxlp") :] for kind, body in _boxes(data) if kind in (b"jxlc", b"jxlp")), b"")
    if stream[:2] != b"\xff\x0a":
        raise ValueError("no codestream")
    bits = _Bits(stream[2:16])
    small = bits.take(1)
    height = 8 * (bits.take(5) + 1) if small else bits.size()
    ratio = bits.take(3)
    if ratio:
        width = height * RATIOS[ratio - 1][0] // RATIOS[ratio - 1][1]
    else:
        width = 8 * (bits.take(5) + 1) if small else bits.size()
    return Size(height, width, 4, 8)


class _Bits:
    """Bits of a JPEG XL, the lowest of each byte first."""

    def __init__(self, data: bytes):
        self.value = int.from_bytes(data, "little")

    def take(self, count: int) -> int:
        found = self.value & ((1 << count) - 1)
        self.value >>= count
        return found

    def size(self) -> int:
        return self.take((9, 13, 18, 30)[self.take(2)]) + 1


SIZES = {"jpeg2000": _size_jpeg2000, "jpegxl": _size_jpegxl, "qoi": _size_qoi, "jpeg-deep": _size_jpeg}
DECODERS: dict[str, Any] = {
    "jpeg2000": imagecodecs.jpeg2k_decode,
    "jpegxl": imagecodecs.jpegxl_decode,
    "qoi": imagecodecs.qoi_decode,
    "jpeg-deep": imagecodecs.jpeg8_decode,
}


def _boxes(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Type and content of the boxes of an ISO file."""
    at = 0
    while at + 8 <= len(data):
        size, kind, head = int.from_bytes(data[at : at + 4]), data[at + 4 : at + 8], 8
        if size == 1:
            size, head = int.from_bytes(data[at + 8 : at + 16]), 16
        stop = at + size if size else len(data)
        if stop < at + head:
            raise ValueError(f"a box of {size} bytes")
        yield kind, data[at + head : stop]
        at = stop


def _beside(format: str, data: bytes) -> dict[str, Any]:
    """Boxes and segments that are no pixels."""
    if format == "jpeg-deep":
        parts = [(f"{kind:02x}", body) for kind, body in _segments(data) if kind >= 0xE0]
        return _listed("segments", parts)
    if data[8:12] == BOXED and format != "qoi":
        boxes = [(kind.decode("latin-1"), body) for kind, body in _boxes(data) if kind not in PIXEL_BOXES]
        return _listed("boxes", boxes)
    return {}


def _listed(name: str, parts: Sequence[tuple[str, bytes]]) -> dict[str, Any]:
    kept = [[kind, base64.b64encode(body).decode()] for kind, body in parts if len(body) <= MOST_BYTES]
    left_out = [f"{kind} ({len(body)} bytes)" for kind, body in parts if len(body) > MOST_BYTES]
    return {**({name: kept} if kept else {}), **({"left_out": left_out} if left_out else {})}


def _depth(samples: npt.NDArray[Any], size: Size) -> dict[str, Any]:
    """``bits`` where a sample has room for more; a JPEG XL does not tell."""
    return {"bits": size.bits} if samples.dtype == np.uint16 and 8 < size.bits < 16 else {}


def _mode(elements: npt.NDArray[Any]) -> str:
    deep = elements.dtype.str == ">u2"
    if not deep and elements.dtype != np.uint8:
        return ""
    if elements.ndim == 2:
        return "I;16" if deep else "L"
    return {2: "LA", 3: "RGB", 4: "RGBA"}[len(elements)] + ";16" * deep if len(elements) in (2, 3, 4) else ""
