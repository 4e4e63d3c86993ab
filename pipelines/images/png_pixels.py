"""The samples of a PNG's frame, by libpng, without anything that libpng would add to them.

libpng stretches samples below 8 bits and looks palettes up. So it is given such rows as what they also are: bytes of an
8-bit grey picture (the filters of both are the same), or, where they are interlaced, grey samples whose stretching is
undone.
"""

import zlib
from typing import Any

import imagecodecs
import numpy as np
import numpy.typing as npt

from pipelines.images.png_chunks import PALETTE, Frame, Kind, header, parsed, written

GREY8 = Kind(8, 0)


def decoded(kind: Kind, frame: Frame) -> npt.NDArray[Any]:
    """(y, x) or (y, x, channel) samples as stored: bool, uint8, or big-endian uint16. Raises where they are damaged."""
    body = b"".join(written(b"IDAT", bytes(part)) for part in frame.data) + written(b"IEND")
    if kind.bits >= 8:
        disguise = Kind(kind.depth, 0 if kind.colour == PALETTE else kind.colour, kind.interlaced)
        samples = imagecodecs.png_decode(header(disguise, frame.width, frame.height) + body)
        return samples.astype(">u2") if kind.depth == 16 else samples
    if kind.interlaced:
        samples = imagecodecs.png_decode(header(Kind(kind.depth, 0, True), frame.width, frame.height) + body)
        samples = samples // (255 // ((1 << kind.depth) - 1))
    else:
        rows = imagecodecs.png_decode(header(GREY8, kind.row_bytes(frame.width), frame.height) + body)
        samples = _unpacked(rows, kind.depth)[:, : frame.width]
    return samples.astype(np.bool_) if kind == Kind(1, 0, kind.interlaced) else samples


def encoded(kind: Kind, samples: npt.NDArray[Any]) -> list[bytes]:
    """The zlib stream, in one part or more. Inverse of ``decoded``."""
    if kind.interlaced:
        return [zlib.compress(b"".join(_unfiltered(kind, samples)))]
    if kind.bits < 8:
        samples = _packed(samples, kind.depth)
    native = np.ascontiguousarray(samples, samples.dtype.newbyteorder("="))
    return [bytes(part) for part in parsed(bytes(imagecodecs.png_encode(native))).frames[0].data]


def _unfiltered(kind: Kind, samples: npt.NDArray[Any]) -> list[bytes]:
    """The rows of all passes, each with filter 0."""
    height, width = samples.shape[:2]
    rows: list[bytes] = []
    for part in kind.passes(width, height):
        chosen = samples[part]
        chosen = _packed(chosen, kind.depth) if kind.bits < 8 else chosen
        rows.extend(b"\0" + row.tobytes() for row in chosen)
    return rows


def _unpacked(rows: npt.NDArray[np.uint8], depth: int) -> npt.NDArray[np.uint8]:
    """(y, bytes) -> (y, samples), the highest bits first."""
    if depth == 1:
        return np.unpackbits(rows, axis=1)
    shifts = np.arange(8 - depth, -1, -depth, dtype=np.uint8)
    samples = (rows[..., None] >> shifts) & np.uint8((1 << depth) - 1)
    return samples.astype(np.uint8, copy=False).reshape(len(rows), -1)


def _packed(samples: npt.NDArray[Any], depth: int) -> npt.NDArray[np.uint8]:
    """Inverse of ``_unpacked``; the last byte of a row is filled up with zeros."""
    if depth == 1:
        return np.packbits(samples.astype(np.bool_), axis=1)
    each = 8 // depth
    padded = np.pad(samples, ((0, 0), (0, -samples.shape[1] % each))).reshape(len(samples), -1, each)
    shifts = np.arange(8 - depth, -1, -depth, dtype=np.uint8)
    packed: npt.NDArray[np.uint8] = np.bitwise_or.reduce(padded << shifts, axis=2).astype(np.uint8)
    return packed
