"""Pictures for the demo, made from noise and geometry: a landscape, its heights, a mosaic, a still life.

Legend: H, W pixels; 3 = red, green, blue. All values are computed in floating point and rounded once, at the end.
"""

import io

import numpy as np
import numpy.typing as npt
from PIL import ExifTags, Image
from scipy.ndimage import gaussian_filter

Array = npt.NDArray[np.float64]

_LANDSCAPE = (192, 256)
_MOSAIC = (96, 128)
_STILL_LIFE = (144, 108)
_BALLS = (
    (0.62, 0.3, 0.2, "c8452f"),
    (0.68, 0.68, 0.24, "3f7fae"),
    (0.92, 0.42, 0.15, "e0b03c"),
    (1, 0.8, 0.1, "6f9a4b"),
)
_ROTATE_90_CW = 6  # the value of EXIF's Orientation for it


def landscape(rng: np.random.Generator) -> tuple[Image.Image, Image.Image]:
    """A hilly coast seen from above, RGB of 8 bits, and its heights in metres, grey of 16 bits (one value a metre)."""
    height = _fractal(rng, _LANDSCAPE, slope=1.9)
    shore = np.quantile(height, 0.35)
    relief = (height - shore) / (height.max() - shore)
    metres = np.rint(np.clip(relief, -0.2, 1) * 2400 + 1000).astype(np.uint16)
    north, east = np.gradient(gaussian_filter(height, 0.7))
    light = np.clip(0.75 + 9 * (north + east) / np.ptp(height), 0.25, 1.3)[..., None]
    land = _blend(relief, (0.0, 0.05, 0.3, 0.6, 1.0), "d9c99a 7f9a4e 4c7038 8a7a66 f4f4f6") * light
    depth = np.clip(-relief, 0, None)
    water = _blend(depth, (0.0, 0.15, 0.5), "6fb0b5 2f6f95 173a63") * (0.97 + 0.03 * light)
    colour = np.where((relief > 0)[..., None], land, water) + rng.normal(0, 0.012, (*_LANDSCAPE, 3))
    return Image.fromarray(_eight_bits(colour)), Image.fromarray(metres)


def mosaic(rng: np.random.Generator) -> Image.Image:
    """A mosaic of 60 tiles (Voronoi cells) with dark joints: one palette index a pixel, 16 colours and the joint's."""
    y, x = np.mgrid[: _MOSAIC[0], : _MOSAIC[1]]
    seeds = rng.uniform(0, 1, (60, 2)) * _MOSAIC
    distance = np.sqrt((y[..., None] - seeds[:, 0]) ** 2 + (x[..., None] - seeds[:, 1]) ** 2)
    nearest = np.sort(distance, axis=-1)
    joint = nearest[..., 1] - nearest[..., 0] < 1.2
    tile_colour = rng.integers(1, 17, len(seeds))
    indices = np.where(joint, 0, tile_colour[distance.argmin(-1)]).astype(np.uint8)
    hues = np.linspace(0, 2 * np.pi, 16, endpoint=False)[:, None] + np.array([0, 2, 4]) * np.pi / 3
    palette = np.concatenate([[[0.12, 0.11, 0.1]], 0.55 + 0.35 * np.cos(hues)])
    image = Image.fromarray(indices).convert("P")
    image.putpalette(_eight_bits(palette).tobytes())
    return image


def still_life(rng: np.random.Generator) -> Image.Image:
    """Four balls on a table under one lamp, a ray a pixel: RGB of 8 bits."""
    height, width = _STILL_LIFE
    y, x = np.mgrid[:height, :width] / width
    table = _blend(y / y.max(), (0.0, 0.45, 0.46, 1.0), "3b3f4c 565b68 8a5a3c b98258")
    colour = table * (1 + 0.04 * _fractal(rng, (height, width), slope=1.2)[..., None])
    for middle, across, radius, tint in _BALLS:
        colour = _ball(colour, y - middle, x - across, radius, tint)
    return Image.fromarray(_eight_bits(colour + rng.normal(0, 0.008, colour.shape)))


def jpeg_on_its_side(image: Image.Image) -> bytes:
    """JPEG as a camera held sideways makes it: its EXIF orientation asks for a quarter turn clockwise."""
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = _ROTATE_90_CW
    exif[ExifTags.Base.ImageDescription] = "Four balls under a lamp, computed"
    buffer = io.BytesIO()
    image.transpose(Image.Transpose.ROTATE_90).save(buffer, "JPEG", quality=90, exif=exif)
    return buffer.getvalue()


def _ball(colour: Array, y: Array, x: Array, radius: float, tint: str) -> Array:
    """The picture with a shaded ball, and its shadow to the lower right, in front of it."""
    shadow = np.exp(-((((y - 0.9 * radius) / (0.45 * radius)) ** 2 + ((x - 0.5 * radius) / (1.2 * radius)) ** 2) ** 2))
    colour = colour * (1 - 0.5 * shadow[..., None])
    toward = np.sqrt(np.clip(radius**2 - y**2 - x**2, 0, None)) / radius
    lit = np.clip((-0.6 * y - 0.45 * x) / radius + 0.66 * toward, 0, None)
    shaded = _rgb(tint) * (0.18 + 0.85 * lit[..., None]) + 0.6 * (lit**24)[..., None]
    cover = np.clip((radius - np.hypot(y, x)) * _STILL_LIFE[1] + 0.5, 0, 1)[..., None]
    return colour * (1 - cover) + shaded * cover


def _fractal(rng: np.random.Generator, shape: tuple[int, int], slope: float) -> Array:
    """Noise whose amplitude falls with the frequency to the power ``slope``; mean 0, standard deviation 1."""
    fy, fx = np.fft.fftfreq(shape[0])[:, None], np.fft.rfftfreq(shape[1])
    frequency = np.hypot(fy, fx)
    frequency[0, 0] = np.inf
    field = np.fft.irfft2(np.fft.rfft2(rng.standard_normal(shape)) / frequency**slope, shape)
    fractal: Array = (field - field.mean()) / field.std()
    return fractal


def _blend(value: Array, stops: tuple[float, ...], colours: str) -> Array:
    """(H, W) values -> (H, W, 3) colours, linear between the stops."""
    table = np.stack([_rgb(colour) for colour in colours.split()])
    return np.stack([np.interp(value, stops, table[:, channel]) for channel in range(3)], axis=-1)


def _rgb(colour: str) -> Array:
    return np.frombuffer(bytes.fromhex(colour), np.uint8) / 255


def _eight_bits(colour: Array) -> npt.NDArray[np.uint8]:
    return np.rint(np.clip(colour, 0, 1) * 255).astype(np.uint8)
