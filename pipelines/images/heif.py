"""HEIC and AVIF: samples as libheif and libavif decode them, 10 and 12 bits kept: https://nokiatech.github.io/heif/

HEIC needs the extra ``heif`` (pillow-heif), AVIF does not: Pillow decodes it, imagecodecs what is deeper than 8 bits.
Samples above 8 bits are big-endian uint16, not stretched: ``bits`` is how many they have.

libheif turns a HEIC upright, as its ``irot`` and ``imir`` ask for. Its EXIF, which says the same once more, is kept
with orientation 1; ``turned`` is what it said. AVIF is not turned; ``orientation`` is kept. Thumbnails, depth maps and
other pictures that help a main one are listed in ``auxiliary`` and not read.
"""

import base64
import io
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import numpy.typing as npt
from PIL import Image, features

from aunn_data.errors import InputError
from aunn_data.geometry import Geometry, fitted
from aunn_data.header import Header
from aunn_data.record import Record
from pipelines.images import png
from pipelines.images.bombs import refuse_bomb, without_pillows_limit
from pipelines.images.pixels import ORIENTATION
from pipelines.source import Source
from pipelines.stored import refusing

MODALITY = "image"
FORMATS = ("heic", "avif")
HEIC = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"heif", b"mif1", b"msf1")
AVIF = (b"avif", b"avis")
EXPECTED, REMEDY = "a picture that decodes", "restore it, or open it with an image editor and save it as PNG"
BLOCKS = ("exif", "icc_profile", "xmp")
Picture = tuple[npt.NDArray[Any], dict[str, Any]]


def sniff(head: bytes, path: Path) -> bool:
    """By the brands of its first box."""
    return _format(head) is not None


def read(source: Source) -> Iterator[Record | InputError]:
    """One record ``name``, or ``name#1``, ``name#2``, … where there are several pictures or frames."""
    if png.sniff(source.head, source.path):  # what ``write`` made
        yield from png.read(source)
        return
    format = _format(source.head)
    with refusing(source.label, EXPECTED, REMEDY), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what is odd beside the pixels is kept as it is
        with source.open() as file:
            data = file.read()
        if format is None:
            raise ValueError(f"a file that begins with {data[:12]!r}")
        pictures = list((_avif if format == "avif" else _heic)(data, source))
    for number, (samples, metadata) in enumerate(pictures, 1):
        suffix = f"#{number}" if len(pictures) > 1 else ""
        elements = _elements(samples)
        axes = ("channel", "y", "x")[-elements.ndim :]
        geometry = fitted(Geometry(elements.dtype.str, axes, elements.shape), elements)
        metadata = {"mode": _mode(elements), **metadata}
        yield Record(Header(source.name + suffix, source.name, MODALITY, format, geometry, metadata), elements)


def write(records: Sequence[Record], path: Path) -> Path:
    """A PNG of equal samples, several as an animation: nothing writes the original stream again."""
    return png.write(records, path.with_name(f"{path.name}.png"))


def _format(head: bytes) -> str | None:
    if head[4:8] != b"ftyp":
        return None
    size = min(int.from_bytes(head[:4]), len(head))
    brands = [head[8:12], *(head[at : at + 4] for at in range(16, size - 3, 4))]
    if any(brand in AVIF for brand in brands):
        return "avif"
    return "heic" if brands[0] in HEIC or any(brand in HEIC[:6] for brand in brands) else None


def _avif(data: bytes, source: Source) -> Iterator[Picture]:
    if not features.check("avif"):
        raise InputError(
            source.label, expected="Pillow 11.3 or later", found="one without AVIF", remedy="pip install -U pillow"
        )
    with without_pillows_limit(), Image.open(io.BytesIO(data), formats=("AVIF",)) as image:
        frames, (width, height) = getattr(image, "n_frames", 1), image.size
        size = 4 * frames * width * height
        refuse_bomb(source.label, (frames, height, width), 4 * width * height, size, len(data), source.options.limits)
        info: Any = image.info
        metadata = _blocks(info)
        orientation = image.getexif().get(ORIENTATION)
        bits = _avif_bits(data)
        pictures = _deep(data, image, frames) if bits else _frames(image, frames)
        if isinstance(orientation, int) and 1 <= orientation <= 8:
            metadata["orientation"] = orientation
        for index, samples in enumerate(pictures):
            once = metadata if index == 0 else {}
            yield samples, {**once, **_depth(bits, samples), **_time(image, frames)}


def _time(image: Any, frames: int) -> dict[str, Any]:
    """How long the frame is shown, in milliseconds."""
    return {"duration": image.info["duration"]} if frames > 1 and image.info.get("duration") else {}


def _frames(image: Any, frames: int) -> Iterator[npt.NDArray[Any]]:
    """8-bit frames, by Pillow."""
    for index in range(frames):
        image.seek(index)
        yield np.array(image)


def _deep(data: bytes, image: Any, frames: int) -> Iterator[npt.NDArray[Any]]:
    """Deep frames, which Pillow would cut to 8 bits, all at once: asked for one of several, imagecodecs may crash."""
    samples = imagecodecs.avif_decode(data)
    for index, frame in enumerate(samples if frames > 1 else [samples]):
        image.seek(index)  # for its time
        yield frame


def _heic(data: bytes, source: Source) -> Iterator[Picture]:
    try:
        import pillow_heif
    except ImportError as error:
        raise InputError(
            source.label,
            expected="pillow-heif, which reads HEIC",
            found="none installed",
            remedy="pip install 'aunn[heif]'",
        ) from error
    pictures: Any = pillow_heif.open_heif(io.BytesIO(data), convert_hdr_to_8bit=False, hdr_to_16bit=False)
    for picture in pictures:
        width, height = picture.size
        refuse_bomb(
            source.label, (height, width), 4 * width * height, 8 * width * height, len(data), source.options.limits
        )
        info: dict[str, Any] = dict(picture.info)
        turned = pillow_heif.set_orientation(info)
        metadata = {**_blocks(info), **_auxiliary(info)}
        if turned and turned > 1:
            metadata["turned"] = turned
        if len(pictures) > 1 and info.get("primary"):
            metadata["primary"] = True
        samples = np.asarray(picture)[:, :width]
        yield samples, {**metadata, **_depth(info.get("bit_depth"), samples)}


def _auxiliary(info: dict[str, Any]) -> dict[str, Any]:
    """The pictures that lie beside a picture: what they are, and how many or of which size."""
    found: dict[str, Any] = {kind: len(ids) for kind, ids in info.get("aux", {}).items()}
    if info.get("depth_images"):
        found["depth"] = [f"{depth.size[0]} x {depth.size[1]} {depth.mode}" for depth in info["depth_images"]]
    if info.get("thumbnails"):
        found["thumbnails"] = len(info["thumbnails"])
    return {"auxiliary": found} if found else {}


def _blocks(info: dict[str, Any]) -> dict[str, Any]:
    return {key: base64.b64encode(info[key]).decode() for key in BLOCKS if info.get(key)}


def _depth(bits: int | None, samples: npt.NDArray[Any]) -> dict[str, Any]:
    return {"bits": bits} if bits and samples.dtype != np.uint8 else {}


def _avif_bits(data: bytes) -> int | None:
    """The depth that the codec's configuration (``av1C``) of the first picture names."""
    at = data.find(b"av1C")
    if at < 0 or at + 7 > len(data) or not data[at + 6] & 0x40:
        return None
    return 12 if data[at + 6] & 0x20 else 10


def _elements(samples: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Channels first; above 8 bits big-endian, as PNG has them."""
    if samples.dtype != np.uint8:
        samples = samples.astype(">u2")
    return np.moveaxis(samples, -1, 0) if samples.ndim == 3 else samples


def _mode(elements: npt.NDArray[Any]) -> str:
    deep = elements.dtype != np.uint8
    if elements.ndim == 2:
        return "I;16" if deep else "L"
    return {2: "LA", 3: "RGB", 4: "RGBA"}[len(elements)] + ";16" * deep
