"""Images that Pillow reads: pixels as stored, one record a frame, and what the file says beside them.

Metadata: ``mode`` is Pillow's. ``palette`` (of indices, which stay indices), ``exif``, ``icc_profile``, ``xmp`` and
``comment`` are base64. ``orientation`` is EXIF's and not applied. ``white`` is the stored value of white where it is
not the largest of the type. ``segments`` are those of a JPEG that stand nowhere else (IPTC, MPF, Adobe, …).
``left_out`` lists what was too big to keep or could not be read. CMYK is ink, as Pillow gives it: Adobe's JPEGs store
255 less that. An icon's sizes are its frames.
"""

import base64
import io
import math
import re
import struct
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any

import numpy.typing as npt
from PIL import ExifTags, IcoImagePlugin, Image

from aunn_data.errors import InputError
from aunn_data.geometry import Geometry, fitted
from aunn_data.header import Header
from aunn_data.record import Record
from pipelines.images import coded, png
from pipelines.images.bombs import refuse_bomb
from pipelines.images.pixels import ORIENTATION, pixels_of, refuse_lossy, white_of
from pipelines.images.png_metadata import MOST_BYTES
from pipelines.images.saving import save
from pipelines.options import Limits
from pipelines.source import Source
from pipelines.stored import SMALL_BYTES, element_bytes, marks_of, refusing

MODALITY = "image"

# What Pillow decodes by itself and a magic number tells apart (BMP needs more than its own: text may begin so).
MAGIC = {
    "BMP": rb"BM.{12}[\x0c\x28\x34\x38\x40\x6c\x7c]\0\0\0",
    "ICO": rb"\x00\x00\x01\x00[^\x00]\x00",
    "JPEG": rb"\xff\xd8\xff",
    "PCX": rb"\n[\x00\x02\x03\x05][\x00\x01][\x01\x02\x04\x08]",
    "SGI": rb"\x01\xda[\x00\x01]\x01\x00[\x01-\x03]",  # of 8 bits; Pillow would cut those of 16
    "SUN": rb"\x59\xa6\x6a\x95",
    "WEBP": rb"RIFF.{4}WEBP",
}
FORMATS = tuple(format.lower() for format in (*MAGIC, "MPO", "TGA"))  # MPO: a JPEG with more of them behind it
ANY_MAGIC = re.compile(
    b"|".join(b"(?P<%s>%s)" % (format.encode(), magic) for format, magic in MAGIC.items()), re.DOTALL
)
# A Truevision file has no magic: its name must say so, and its kind, colours and depth make sense.
TGA = re.compile(rb".[\x00\x01][\x01-\x03\x09-\x0b].{13}[\x08\x0f\x10\x18\x20]", re.DOTALL)
TGA_SUFFIXES = (".tga", ".icb", ".vda", ".vst")

# JPEG's segments that stand under another key; of the others all are kept as they are.
KEPT_ELSEWHERE = (b"JFIF\0", b"Exif\0\0", b"http://ns.adobe.com/xap/1.0/\0", b"ICC_PROFILE\0")
BESIDE = {"dpi", "transparency", "icc_profile", "xmp", "comment"}  # what is kept of all that Pillow tells
EXIF_IN = {"exif", "Raw profile type exif", "XML:com.adobe.xmp", "xmp"}  # where Pillow looks for an orientation
EXPECTED, REMEDY = "an image that decodes", "restore it, or open it with an image editor and save it again"


def sniff(head: bytes, path: Path) -> bool:
    """By magic number, a TGA by its name."""
    return ANY_MAGIC.match(head) is not None or _is_tga(head, path)


def read(source: Source) -> Iterator[Record | InputError]:
    """One record ``name``, or ``name#1``, ``name#2``, … where there are several frames. Ends at the first bad one."""
    head, path = source.head, str(source.local())
    if png.sniff(head, source.path):  # has a reader of its own; here only to check those that ``write`` made
        yield from png.read(source)
        return
    if head.startswith(b"\xff\xd8") and coded.is_deep(source):
        yield from coded.read(source)
        return
    image, frame, frames, opening = None, 0, 1, set[str]()
    # Not the path: Pillow would map a raw TIFF into memory, and mixes up the sides of one that is turned.
    file, size = _file(source)
    with file:
        while frame < frames:
            try:
                with refusing(path, EXPECTED, REMEDY) as guarded, _Warned() as warned:
                    if image is None:
                        image, frames = _opened(file, path, source)
                        opening = _said(warned)
                    number = f"#{frame + 1}" if frames > 1 else ""
                    guarded.where = path + number
                    pixels, found = _frame(image, frame, frames, path + number, size, source.options.limits)
            except InputError as error:
                if not frame:
                    raise
                yield error
                return
            yield _record(source, number, image.format.lower(), pixels, _kept(found, opening | _said(warned)))
            frame += 1


def write(records: Sequence[Record], path: Path) -> Path:
    """The image in its own format if that keeps every pixel, else PNG or TIFF; the name gets their suffix then."""
    with refusing(path, "an image that some lossless format holds", "export it as .npy"):
        return save(records, path, read)


def _is_tga(head: bytes, path: Path) -> bool:
    return str(path).lower().endswith(TGA_SUFFIXES) and TGA.match(head) is not None


def _format(source: Source) -> str:
    """Pillow's format whose magic this is. TIFF has a reader of its own; here only to check those of ``write``."""
    if match := ANY_MAGIC.match(source.head):
        return str(match.lastgroup)
    return "TGA" if _is_tga(source.head, source.inner) else "TIFF"


def _file(source: Source) -> tuple[IO[bytes], int]:
    """The bytes of a source, in memory where they are few, as Pillow reads in small pieces; and how many they are."""
    file, size = source.file(), source.length()
    if isinstance(file, io.BytesIO) or size > SMALL_BYTES:
        return file, size
    with file:
        data = file.read()
    return io.BytesIO(data), len(data)


def _record(source: Source, number: str, format: str, pixels: npt.NDArray[Any], metadata: dict[str, Any]) -> Record:
    missing = marks_of(pixels)
    axes = ("channel", "y", "x")[-pixels.ndim :]
    geometry = fitted(Geometry(pixels.dtype.str, axes, pixels.shape), pixels, missing)
    return Record(Header(source.name + number, source.name, MODALITY, format, geometry, metadata), pixels, missing)


def _opened(file: IO[bytes], path: str, source: Source) -> tuple[Any, int]:
    """Pillow's image, and the number of its frames (of an icon's sizes)."""
    format = _format(source)
    if format not in Image.OPEN:
        Image.init()
    try:
        image: Any = _Icon(file) if format == "ICO" else Image.OPEN[format][0](file, "")  # as Image.open does
    except (SyntaxError, IndexError, TypeError, struct.error) as error:
        raise InputError(path, expected=EXPECTED, found="a damaged or unknown header", remedy=REMEDY) from error
    return image, getattr(image, "n_frames", 1)


class _Icon(IcoImagePlugin.IcoFile):
    """An icon's frames, each decoded once: Pillow's image of an icon decodes its largest when it is opened."""

    format = "ICO"

    def __init__(self, file: IO[bytes]):
        super().__init__(file)
        self.n_frames = len(self.entry)
        self.largest = super().frame(0)
        if self.largest.size != self.entry[0].dim:
            warnings.warn("Image was not the expected size", stacklevel=1)  # as Pillow says

    def frame(self, idx: int) -> Image.Image:
        """A frame of the icon, the largest first."""
        return super().frame(idx) if idx else self.largest


def _frame(
    image: Any, frame: int, frames: int, where: str, size: int, limits: Limits
) -> tuple[npt.NDArray[Any], dict[str, Any]]:
    """The pixels of a frame, and what stands beside them."""
    if image.format == "ICO":
        image = image.frame(frame)
    elif frame:
        image.seek(frame)
    elements = image.width * image.height * len(image.getbands())
    refuse_bomb(where, (image.height, image.width), elements, elements, size, limits)
    refuse_lossy(image, where)
    white, tiff = white_of(image), image.format == "TIFF"
    # Loading turns a TIFF upright and forgets that it did; other formats may have their EXIF behind the pixels.
    exif, orientation = (_exif_of_tiff(image), _orientation(image)) if tiff else (None, None)
    image.load()
    pixels = pixels_of(image, white, orientation)
    if not pixels.size:
        element_bytes(where, pixels.shape, pixels.itemsize, 0)
    found = _beside(image, frames)
    if white is not None:
        found["white"] = white
    found["exif"] = exif if tiff else image.info.get("exif")
    found["orientation"] = orientation if tiff else _orientation(image)
    return pixels, found


class _Warned(warnings.catch_warnings):
    """Pillow without its own limit of pixels; gives the list of what it warns of."""

    def __init__(self) -> None:
        super().__init__(record=True, action="always")

    def __enter__(self) -> Any:
        self.limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        return super().__enter__()

    def __exit__(self, *error: Any) -> None:
        Image.MAX_IMAGE_PIXELS = self.limit
        super().__exit__(*error)


def _said(warned: Sequence[warnings.WarningMessage]) -> set[str]:
    return {str(warning.message) for warning in warned} if warned else set()


def _beside(image: Any, frames: int) -> dict[str, Any]:
    """What Pillow found beside the pixels of a loaded frame."""
    info = image.info
    found = {key: info[key] for key in BESIDE & info.keys()}
    found["mode"] = image.mode
    if segments := [part for part in getattr(image, "applist", ()) if not part[1].startswith(KEPT_ELSEWHERE)]:
        found["segments"] = [[name, base64.b64encode(data).decode()] for name, data in segments if name != "COM"]
    if frames > 1:
        found.update(duration=info.get("duration"), loop=info.get("loop"))
    if image.mode in ("P", "PA"):
        found["palette"] = image.im.getpalette(image.im.getpalettemode(), image.palette.mode)
        found["palette_mode"] = image.palette.mode if image.palette.mode != "RGB" else None
    return found


def _kept(found: dict[str, Any], left_out: set[str]) -> dict[str, Any]:
    """As JSON types, what is empty or odd dropped, what is too big or was warned of listed in ``left_out``."""
    metadata = {}
    for key, value in found.items():
        if value is None:
            continue
        if isinstance(value, bytes) and len(value) > MOST_BYTES:
            left_out.add(f"{key} ({len(value)} bytes)")
        elif (value := _json(value)) in (None, "", [], {}):
            continue
        else:
            metadata[key] = value
    return {**metadata, "left_out": sorted(left_out)} if left_out else metadata


def _json(value: Any) -> Any:
    """bytes as base64, numbers if they are finite; None for what has no place in JSON."""
    if type(value) in (str, int):
        return value
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if isinstance(value, tuple | list):
        values = [_json(part) for part in value]
        return None if None in values else values
    if isinstance(value, str | dict | int):
        return value
    try:
        return float(value) if math.isfinite(value) else None
    except TypeError:
        return None


def _orientation(image: Any) -> int | None:
    if image.format != "TIFF" and not image.info.keys() & EXIF_IN:
        return None
    orientation = _exif(image).get(ORIENTATION)
    return orientation if isinstance(orientation, int) and 1 <= orientation <= 8 else None


def _exif(image: Any) -> Any:
    try:
        return image.getexif()
    except Exception as error:  # a damaged block is no reason to refuse the pixels; the warning lands in left_out
        warnings.warn(f"EXIF not understood: {type(error).__name__}: {error}", stacklevel=1)
        return Image.Exif()


def _exif_of_tiff(image: Any) -> bytes:
    """A TIFF is its own EXIF block: its texts, orientation, camera and place, without the tags that lay out pixels."""
    own, kept = _exif(image), Image.Exif()
    for tag, value in own.items():
        if isinstance(value, str):
            kept[tag] = value.encode("latin-1")  # as Pillow decoded it
    if orientation := _orientation(image):
        kept[ORIENTATION] = orientation
    for group in (ExifTags.IFD.Exif, ExifTags.IFD.GPSInfo):
        if group in own:
            kept.get_ifd(group).update(own.get_ifd(group))
    return kept.tobytes() if kept or kept._ifds else b""
