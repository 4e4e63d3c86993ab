"""Records back into an image file: the first lossless format that gives every pixel back when it is read again."""

import base64
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from PIL import Image

from aunn_data.errors import InputError
from aunn_data.record import Record
from pipelines.images import png
from pipelines.images.pixels import image_of
from pipelines.source import Source

# Formats that can be written without loss, each with the suffix that a name gets if it has none of the format's own.
LOSSLESS = {"PNG": ".png", "TIFF": ".tiff", "BMP": ".bmp", "WEBP": ".webp"}
BLOCKS = ("exif", "icc_profile", "xmp", "comment")
XMP = 700  # TIFF's tag
MAX_DPI = 1 << 20  # more is damage, and some formats cannot hold it
# Set for every format; each takes what it knows.
OPTIONS = {"lossless": True, "exact": True, "optimize": False}

Read = Callable[[Source], Iterator[Record | InputError]]


class Attempt(NamedTuple):
    """A way to write: the format, whether frames keep their times, and whether transparency must come back too."""

    format: str
    timed: bool = True
    transparent: bool = True


def save(records: Sequence[Record], path: Path, read: Read) -> Path:
    """Writes the frames of one source and reads them again; returns the path really written."""
    images = [image_of(record.elements, record.header.metadata) for record in records]
    named = Image.registered_extensions().get(path.suffix.lower())
    own = (named, records[0].header.format.upper())
    for attempt in _attempts(own, len(images), any("duration" in record.header.metadata for record in records)):
        final = path if attempt.format == named else path.with_name(path.name + LOSSLESS[attempt.format])
        part = final.with_name(f".{final.name}.part")
        try:
            _save(images, records, part, attempt)
            again = [found for found in read(Source(part, "")) if isinstance(found, Record)]
            if _shown(again, attempt) == _shown(records, attempt):
                return part.replace(final)
        except Exception as error:  # Pillow raises anything where a format lacks the mode, the size, the palette
            if isinstance(error, OSError) and error.errno is not None:
                raise  # the disk, not the format
        finally:
            part.unlink(missing_ok=True)
    raise ValueError(f"{len(images)} frames of mode {', '.join(sorted({image.mode for image in images}))}")


def _attempts(own: Sequence[str | None], frames: int, moving: bool) -> Iterator[Attempt]:
    """The source's own formats first, then the one that is at home with pages, or with what moves or is single."""
    pages = frames > 1 and not moving
    for format in dict.fromkeys((*own, *(("TIFF", "PNG") if pages else ("PNG", "TIFF")))):
        if format in LOSSLESS:
            yield Attempt(format)
            if moving:  # timed frames that are equal may get merged
                yield Attempt(format, timed=False)
    yield Attempt("TIFF", transparent=False)  # frames of unlike modes, of which one has a transparent index


def _shown(records: Sequence[Record], attempt: Attempt) -> list[Any]:
    """All that makes up the pictures; two lists are the same if these are equal."""
    keys = ("palette_mode", "orientation", *["transparency"] * attempt.transparent)
    shown = []
    for record in records:
        metadata = record.header.metadata
        image = image_of(record.elements, metadata)
        # TIFF fills a palette up with black to 256 colours.
        palette = base64.b64decode(metadata.get("palette", "")).rstrip(b"\0")
        shown.append((image.mode, image.size, image.tobytes(), palette, [metadata.get(key) for key in keys]))
    return shown


def _save(images: list[Image.Image], records: Sequence[Record], path: Path, attempt: Attempt) -> None:
    frames = [record.header.metadata for record in records]
    if attempt.format == "PNG":
        path.write_bytes(png.file_of(records))
        return
    options = [_options(metadata, attempt.format) for metadata in frames]
    for image, metadata, own in zip(images, frames, options, strict=True):
        if "palette" in metadata:
            mode = metadata.get("palette_mode", "RGB")
            colours = base64.b64decode(metadata["palette"])
            if image.mode == "P":  # a network may guess an index that has no colour
                colours = colours.ljust((max(image.tobytes()) + 1) * len(mode), b"\0")
            image.putpalette(colours, mode)
        if "transparency" in metadata:
            image.info["transparency"] = _plain(metadata["transparency"])
        image.encoderinfo = own
    more: dict[str, Any] = {}
    if len(images) > 1:
        more = {"save_all": True, "append_images": images[1:]}
        if attempt.timed and any("duration" in metadata for metadata in frames):
            more["duration"] = [metadata.get("duration", 0) for metadata in frames]
    images[0].save(path, attempt.format, **{**OPTIONS, **options[0], **more})


def _options(metadata: dict[str, Any], format: str) -> dict[str, Any]:
    """Pillow's options for what the source said beside its pixels."""
    options = {key: _plain(metadata[key]) for key in BLOCKS if key in metadata}
    options.update({key: metadata[key] for key in ("loop",) if key in metadata})
    if max(metadata.get("dpi", [MAX_DPI])) < MAX_DPI:
        options["dpi"] = tuple(metadata["dpi"])
    if "white" in metadata:
        options["bits"] = int(metadata["white"]).bit_length()
    if format == "TIFF":
        options["exif"] = _tiff_exif(options)
    return options


def _tiff_exif(options: dict[str, Any]) -> Image.Exif:
    """Texts as bytes, for Pillow would replace what is not ASCII in them, and XMP, which it takes as a tag."""
    exif = Image.Exif()
    exif.load(options.get("exif", b""))
    for tag, value in list(exif.items()):
        if isinstance(value, str):
            exif[tag] = value.encode("latin-1")
    if "xmp" in options:
        exif[XMP] = options["xmp"]
    return exif


def _plain(value: Any) -> Any:
    """Inverse of the reader's JSON: base64 -> bytes, list -> tuple."""
    if isinstance(value, str):
        return base64.b64decode(value)
    return tuple(value) if isinstance(value, list) else value
