"""Pillow's image <-> the values that its file stores, and where Pillow would not give these values: refused.

Pillow decodes into one of its modes. Most files' values survive that; 16-bit colour, signed bytes, 32-bit unsigned and
premultiplied pixels do not, and small grey ranges come stretched to full white (undone here, it loses nothing).
"""

import re
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from aunn_data.errors import InputError

# mode -> numpy's type and the number of channels
MODES = {
    "1": ("|b1", 1),
    "L": ("|u1", 1),
    "P": ("|u1", 1),
    "I;16": ("<u2", 1),
    "I;16B": (">u2", 1),
    "I": ("<i4", 1),
    "F": ("<f4", 1),
    "LA": ("|u1", 2),
    "La": ("|u1", 2),
    "PA": ("|u1", 2),
    "RGB": ("|u1", 3),
    "YCbCr": ("|u1", 3),
    "LAB": ("|u1", 3),
    "HSV": ("|u1", 3),
    "RGBA": ("|u1", 4),
    "RGBa": ("|u1", 4),
    "RGBX": ("|u1", 4),
    "CMYK": ("|u1", 4),
}
ONE_BYTE = ("|u1", "|b1")
# The mode of elements of which nothing else is known.
PLAIN_MODES = {MODES[mode]: mode for mode in ("1", "L", "I;16", "I;16B", "I", "F", "LA", "RGB", "RGBA")}

WHITE = {"L;2": 3, "L;4": 15}  # raw modes whose samples Pillow stretches -> the largest sample
DEEP = re.compile(r";16[BLN]")
# https://www.itu.int/itudoc/itu-t/com16/tiff-fx/docs/tiff6.pdf
ORIENTATION = 274
# Pillow turns a TIFF upright while it loads it, and no other format: orientation -> what turns it back.
TURN_BACK = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}


def white_of(image: Any) -> int | None:
    """The stored value that Pillow stretches to full white; None where it stretches nothing. Before loading."""
    tile = next(iter(getattr(image, "tile", ())), None)
    if tile is None:
        return None
    args = tile.args if isinstance(tile.args, tuple) else (tile.args,)
    return WHITE.get(str(args[0])[:3])


def refuse_lossy(image: Any, where: object) -> None:
    """InputError if Pillow would not give what the file stores. Before loading."""
    if image.mode not in MODES:
        raise _lossy(where, f"Pillow's mode {image.mode}")
    if MODES[image.mode][0] not in ONE_BYTE:
        return
    for tile in getattr(image, "tile", ()):
        if DEEP.search(str(tile.args)):
            raise _lossy(where, "16-bit channels, which Pillow cuts to 8")


def _lossy(where: object, found: str) -> InputError:
    return InputError(
        where,
        expected="an image whose stored values Pillow gives as they are",
        found=found,
        remedy="save the channels as .npy (numpy.save) and ingest that",
    )


def pixels_of(image: Any, white: int | None, orientation: int | None) -> npt.NDArray[Any]:
    """Stored values of a loaded image: (y, x), or (channel, y, x). ``orientation`` is what it had before loading."""
    if image.format == "TIFF" and orientation in TURN_BACK:
        image = image.transpose(TURN_BACK[orientation])
    dtype, channels = MODES[image.mode]
    if image.mode == "1":  # its bytes are bits
        pixels = np.asarray(image)
    else:
        size = (image.height, image.width, channels) if channels > 1 else (image.height, image.width)
        pixels = np.frombuffer(image.tobytes(), dtype).reshape(size)
    if white is not None:
        pixels = np.rint(pixels * (white / _full(image.mode))).astype(pixels.dtype)
    return pixels.transpose(2, 0, 1) if pixels.ndim == 3 else pixels


def image_of(elements: Any, metadata: dict[str, Any]) -> Image.Image:
    """Inverse of ``pixels_of``. Without metadata the type and the number of channels say the mode."""
    pixels = np.asarray(elements)
    pixels = np.moveaxis(pixels, 0, -1) if pixels.ndim == 3 else pixels
    channels = pixels.shape[2] if pixels.ndim == 3 else 1
    mode = metadata.get("mode", "")
    if MODES.get(mode) != (pixels.dtype.str, channels):
        if (pixels.dtype.str, channels) not in PLAIN_MODES:
            raise ValueError(f"{channels} channels of type {pixels.dtype}, for which Pillow has no mode")
        mode = PLAIN_MODES[pixels.dtype.str, channels]
    if white := metadata.get("white"):
        pixels = np.rint(np.minimum(pixels, white) / white * _full(mode)).astype(pixels.dtype)
    if mode == "1":
        return Image.fromarray(pixels)
    return Image.frombytes(mode, (pixels.shape[1], pixels.shape[0]), np.ascontiguousarray(pixels).tobytes())


def _full(mode: str) -> int:
    return 65535 if mode == "I" else 255
