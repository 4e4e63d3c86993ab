"""Pixel data of a DICOM file -> its values as stored, frame by frame, and back to bytes.

Legend: F frames, C samples of a pixel (colour channels). Words are whole: where fewer bits are stored than allocated,
the others (an overlay, or copies of the sign) stay. What is compressed is decoded once, by pydicom's decoders, without
a transformation of colours, but that a JPEG 2000 codestream calls its own (then it gives RGB).
"""

import math
import struct
import tempfile
from collections.abc import Iterator
from typing import Any, NamedTuple, cast

import imagecodecs
import numpy as np
import numpy.typing as npt
from pydicom import uid
from pydicom.encaps import generate_frames
from pydicom.pixels.decoders.base import get_decoder
from pydicom.pixels.utils import as_pixel_options

from aunn_data.errors import InputError
from pipelines.compressed import FREE_BYTES
from pipelines.options import Limits
from pipelines.scans.dicom_file import DEFLATED, REPAIR, Dicom, quiet
from pipelines.scans.dicom_values import value_in
from pipelines.source import Source
from pipelines.stored import element_bytes, refusing, stored

HELD_BYTES = 1 << 26  # decoded pixels beyond this go to a scratch file
SUBSAMPLED = "YBR_FULL_422"
NATIVE = ("", uid.ImplicitVRLittleEndian, uid.ExplicitVRLittleEndian, uid.ExplicitVRBigEndian, DEFLATED)
LOSSLESS_JPEG = (uid.JPEGLossless, uid.JPEGLosslessSV1)
HIGH_THROUGHPUT = (uid.HTJ2KLossless, uid.HTJ2KLosslessRPCL, uid.HTJ2K)
JPEG_2000 = (uid.JPEG2000Lossless, uid.JPEG2000, *HIGH_THROUGHPUT)
JPEG_LS = (uid.JPEGLSLossless, uid.JPEGLSNearLossless)
NO_SIZE = (0xC4, 0xC8, 0xCC)  # markers amid those of JPEG frames that are none


class Layout(NamedTuple):
    """How the pixels of one file lie: F frames, rows, columns, C samples; ``planar`` if samples are the slower.

    ``swapped``: bytes lie in big-endian words of two.
    """

    frames: int
    rows: int
    columns: int
    samples: int
    bits: int
    dtype: np.dtype[Any]
    photometric: str
    planar: bool
    swapped: bool = False

    @property
    def subsampled(self) -> bool:
        """Do two pixels share their colour?"""
        return self.photometric == SUBSAMPLED and self.samples == 3

    @property
    def shape(self) -> tuple[int, ...]:
        """In the order of storage; no axis of samples if there is one."""
        size, parts = (self.rows, self.columns), (self.samples,) if self.samples > 1 else ()
        return (self.frames, *parts, *size) if self.planar else (self.frames, *size, *parts)

    @property
    def value_bytes(self) -> int:
        """Bytes of all pixels, not compressed."""
        pixels = self.frames * self.rows * self.columns
        if self.bits == 1:
            return -(-pixels * self.samples // 8)
        count = pixels * (2 if self.subsampled else self.samples) * self.dtype.itemsize
        return count + count % 2 if self.swapped else count


def layout_of(dicom: Dicom) -> Layout:
    """How the pixels lie, checked. InputError if no image can be so."""
    bits, frames = dicom.whole("BitsAllocated", least=1), dicom.whole("NumberOfFrames", 1) or 1
    samples = dicom.whole("SamplesPerPixel", 1, 1, 4)
    photometric = str(value_in(dicom.dataset, "PhotometricInterpretation") or "")
    signed = dicom.whole("PixelRepresentation", 0, 0, 1)
    kind = "iu"[not signed] if dicom.keyword == "PixelData" else "f"
    if bits not in ((1, 8, 16, 32, 64) if kind != "f" else ({"FloatPixelData": 32}.get(dicom.keyword, 64),)):
        raise InputError(
            dicom.label, expected="1, 8, 16, 32 or 64 bits a sample", found=f"{bits} ({dicom.keyword})", remedy=REPAIR
        )
    dtype = np.dtype(f"{'>' if dicom.big and bits > 8 else '<'}{kind}{max(1, bits // 8)}")
    planar = samples > 1 and dicom.whole("PlanarConfiguration", 0, 0, 1) == 1 and not dicom.encapsulated
    rows, columns = (dicom.whole(side, least=1, most=0xFFFF) for side in ("Rows", "Columns"))
    dtype = np.dtype("u1") if bits == 1 else dtype
    swapped = dicom.big and dicom.vr == "OW" and bits == 8
    layout = Layout(frames, rows, columns, samples, bits, dtype, photometric, planar, swapped)
    if layout.subsampled and not dicom.encapsulated and (columns % 2 or bits != 8 or planar):
        raise InputError(dicom.label, expected=f"8-bit {SUBSAMPLED} of even width", found=f"{layout}", remedy=REPAIR)
    return layout


def checked(dicom: Dicom, layout: Layout, limits: Limits, files: int = 1) -> None:
    """InputError unless the pixels can all be there, and are no more than the limits allow in so many files."""
    elements = math.prod(layout.shape) * files
    if elements > limits.max_elements:
        raise InputError(
            dicom.label,
            expected=f"at most {limits.max_elements} elements",
            found=f"{elements}",
            remedy="give --max-elements if you trust it",
        )
    if dicom.encapsulated:
        most = max(FREE_BYTES, int(dicom.length * limits.max_ratio))
        element_bytes(dicom.label, layout.shape, layout.dtype.itemsize, most)
    else:
        element_bytes(dicom.label, (layout.value_bytes,), 1, dicom.length)
        if dicom.syntax not in NATIVE and dicom.length - layout.value_bytes > 1:
            raise InputError(
                dicom.label,
                expected="pixel data that is not compressed, or in items",
                found=f"{dicom.length} bytes of transfer syntax {dicom.syntax} instead of {layout.value_bytes}",
                remedy=REPAIR,
            )


def frames_of(dicom: Dicom, layout: Layout, source: Source) -> npt.NDArray[Any]:
    """All frames, (F, y, x) or with samples as they lie: mapped, or decoded. InputError if they are not all there."""
    checked(dicom, layout, source.options.limits)
    with refusing(dicom.label, "pixel data that can be decoded", REPAIR), quiet():
        return _decoded(dicom, layout, source) if dicom.encapsulated else native(dicom, layout)


def is_plain(dicom: Dicom, layout: Layout) -> bool:
    """Do the pixels lie in the file just like their array?"""
    return not (dicom.encapsulated or layout.bits == 1 or layout.subsampled or layout.swapped)


def native(dicom: Dicom, layout: Layout) -> npt.NDArray[Any]:
    """Pixels that are not compressed."""
    if is_plain(dicom, layout):
        return stored(dicom.path, layout.dtype, layout.shape, dicom.start)
    data = np.fromfile(dicom.path, np.uint8, layout.value_bytes, offset=dicom.start)
    if layout.bits == 1:
        return np.unpackbits(data, count=math.prod(layout.shape), bitorder="little").reshape(layout.shape)
    if layout.subsampled:
        pairs = data.reshape(layout.frames, layout.rows, layout.columns // 2, 4)  # Y Y Cb Cr of two pixels
        return np.stack([pairs[..., [0, 2, 3]], pairs[..., [1, 2, 3]]], axis=-2).reshape(layout.shape)
    return data.reshape(-1, 2)[:, ::-1].reshape(-1)[: math.prod(layout.shape)].reshape(layout.shape)


def value_of(dicom: Dicom, layout: Layout, frames: npt.NDArray[Any]) -> npt.NDArray[Any] | bytes:
    """Inverse of ``native``: what stands in the file for these frames, in the order of storage. No padding."""
    if layout.bits == 1:
        return np.packbits(frames.reshape(-1), bitorder="little").tobytes()
    if layout.subsampled:
        pairs = frames.reshape(layout.frames, layout.rows, layout.columns // 2, 2, 3)
        return np.stack([pairs[..., 0, 0], pairs[..., 1, 0], pairs[..., 0, 1], pairs[..., 0, 2]], axis=-1).tobytes()
    if is_plain(dicom, layout):
        return np.ascontiguousarray(frames, layout.dtype).reshape(-1).view(np.uint8)
    data = frames.tobytes() + bytes(frames.size % 2)
    return np.frombuffer(data, np.uint8).reshape(-1, 2)[:, ::-1].tobytes()


def _decoded(dicom: Dicom, layout: Layout, source: Source) -> npt.NDArray[Any]:
    """All frames, decoded one by one into memory, or into a scratch file where they are big."""
    if math.prod(layout.shape) * layout.dtype.itemsize <= HELD_BYTES:
        frames = np.empty(layout.shape, layout.dtype)
    else:
        with tempfile.NamedTemporaryFile(dir=source.scratch.folder, delete=False) as file:
            frames = np.memmap(file.name, layout.dtype, "w+", 0, layout.shape)
    _check_streams(dicom, layout)
    count = 0
    for count, frame in enumerate(_frames(dicom, layout), 1):
        if frame.shape != layout.shape[1:]:
            raise ValueError(f"a frame of shape {frame.shape}")
        wide = frame.view(f"{layout.dtype.kind}{frame.dtype.itemsize}")
        if wide.dtype.itemsize > layout.dtype.itemsize:
            raise ValueError(f"samples of {8 * frame.dtype.itemsize} bits")
        frames[count - 1] = wide
        if count == layout.frames:
            break
    return frames


def _frames(dicom: Dicom, layout: Layout) -> Iterator[npt.NDArray[Any]]:
    """The frames, (y, x) or (y, x, C), as the codec gives them."""
    if _ours(dicom, layout):
        for stream in _streams(dicom, layout):
            yield _stream(stream, dicom, layout)
        return
    options = as_pixel_options(dicom.dataset, transfer_syntax_uid=uid.UID(dicom.syntax), pixel_keyword=dicom.keyword)
    options |= {"pixel_vr": dicom.vr, "number_of_frames": layout.frames}
    with dicom.path.open("rb") as file:
        file.seek(dicom.start)
        for frame, _ in get_decoder(dicom.syntax).iter_array(file, raw=True, **options):
            yield frame


def _ours(dicom: Dicom, layout: Layout) -> bool:
    """Is there no decoder behind pydicom for these? (Those of JPEG that it knows are GPL.)"""
    wide = dicom.syntax in JPEG_2000 and layout.samples > 1 and layout.bits > 8
    return wide or dicom.syntax in (*LOSSLESS_JPEG, uid.JPEGExtended12Bit, *HIGH_THROUGHPUT)


def _stream(stream: bytes, dicom: Dicom, layout: Layout) -> npt.NDArray[Any]:
    """One frame by imagecodecs, without a transformation of colours but JPEG 2000's own."""
    if dicom.syntax in JPEG_2000:
        frame = imagecodecs.jpeg2k_decode(stream)
    else:
        space = {3: "YCBCR", 4: "CMYK"}.get(layout.samples)  # in and out alike: whatever it is, it stays
        frame = imagecodecs.jpeg_decode(stream, colorspace=space, outcolorspace=space)
    return np.ascontiguousarray(frame)


def _streams(dicom: Dicom, layout: Layout) -> Iterator[bytes]:
    """The encoded frames."""
    table = [dicom.dataset.get(name) for name in ("ExtendedOffsetTable", "ExtendedOffsetTableLengths")]
    extended = (table[0], table[1]) if all(table) else None
    with dicom.path.open("rb") as file:
        file.seek(dicom.start)
        yield from generate_frames(file, number_of_frames=layout.frames, extended_offsets=cast(Any, extended))


def _check_streams(dicom: Dicom, layout: Layout) -> None:
    """Are all frames there, of the size that the data set says, and whole? Decoders are lax, or believe any size."""
    count = 0
    for count, stream in enumerate(_streams(dicom, layout), 1):
        size = _stream_size(stream, dicom.syntax)
        if size not in (None, (layout.rows, layout.columns)):
            raise ValueError(f"a frame of {size} rows and columns")
        if count == layout.frames:
            break
    if count < layout.frames:
        raise ValueError(f"{count} frames of {layout.frames}")


def _stream_size(stream: bytes, syntax: str) -> tuple[int, int] | None:
    """Rows and columns of a codestream, checked to be whole; None where it does not say them."""
    if syntax in JPEG_2000:
        return _jpeg_2000_size(stream)
    if syntax in (*LOSSLESS_JPEG, uid.JPEGExtended12Bit, *JPEG_LS, uid.JPEGBaseline8Bit):
        return _jpeg_size(stream)
    return None


def _jpeg_2000_size(stream: bytes) -> tuple[int, int]:
    at = stream.find(b"\xff\x4f\xff\x51")  # within a JP2 file, or at its start
    if at < 0:
        raise ValueError("no JPEG 2000 codestream")
    right, bottom, left, top = struct.unpack_from(">4I", stream, at + 8)
    tile = stream.find(b"\xff\x90\x00\x0a", at)
    while stream[tile : tile + 2] == b"\xff\x90":
        length = int.from_bytes(stream[tile + 6 : tile + 10], "big")
        if length == 0:  # up to the end
            break
        tile += max(length, 12)
    if tile > len(stream) or tile < 0:
        raise ValueError("a JPEG 2000 codestream that is cut short")
    return bottom - top, right - left


def _jpeg_size(stream: bytes) -> tuple[int, int]:
    if stream.rstrip(b"\0")[-2:] != b"\xff\xd9" and b"\xff\xd9" not in stream[-16:]:
        raise ValueError("a JPEG stream without an end")
    at = 2
    while at + 9 <= len(stream):
        marker = stream[at + 1]
        if stream[at] != 0xFF:
            break
        if marker == 0xF7 or (0xC0 <= marker <= 0xCF and marker not in NO_SIZE):
            return cast(tuple[int, int], struct.unpack_from(">HH", stream, at + 5))
        at += 1 if marker == 0xFF else 2 + int.from_bytes(stream[at + 2 : at + 4], "big")
    raise ValueError("no JPEG frame")
