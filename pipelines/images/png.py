"""PNG and animated PNG, every depth and colour as stored: https://www.w3.org/TR/png-3/

Palette pixels stay indices, pixels below 8 bits keep their values (1-bit grey is bool), 16-bit samples are big-endian.
A frame of an animation is a record of its own, as it lies in the file: its part of the picture, not what a viewer has
made of it so far. ``frame`` says where it goes: x, y, delay (seconds as a fraction), dispose, blend (as in fcTL); a
first picture outside the animation has none. Metadata of the whole file stands in the first record. See also
``png_metadata``.
"""

import base64
import struct
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from aunn_data.errors import InputError
from aunn_data.geometry import Geometry, fitted
from aunn_data.header import Header
from aunn_data.record import Record
from pipelines.images import png_metadata
from pipelines.images.bombs import refuse_bomb
from pipelines.images.png_chunks import CHANNELS, PALETTE, SIGNATURE, Frame, Kind, header, parsed, written
from pipelines.images.png_pixels import decoded, encoded
from pipelines.options import Limits
from pipelines.source import Source
from pipelines.stored import refusing

MODALITY = "image"
FORMATS = ("png",)
SUFFIXES = (".png", ".apng")

DEFLATE_RATIO = 1032  # no deflate stream gives more
MODES = ("1", "L", "I;16", "I;16B", "RGB", "RGB;16", "P", "LA", "LA;16", "RGBA", "RGBA;16")  # others mean other colours
EXPECTED, REMEDY = "a PNG that is whole", "restore it, or open it with an image editor and save it again"


def sniff(head: bytes, path: Path) -> bool:
    """By its signature."""
    return head.startswith(SIGNATURE)


def read(source: Source) -> Iterator[Record | InputError]:
    """One record ``name``, or ``name#1``, ``name#2``, … of an animation. Ends at the first bad frame."""
    with refusing(source.label, EXPECTED, REMEDY):
        with source.open() as file:
            png = parsed(file.read())
        common, once = png_metadata.shared(png), png_metadata.file_wide(png)
    for number, frame in enumerate(png.frames, 1):
        suffix = f"#{number}" if len(png.frames) > 1 else ""
        try:
            with refusing(source.label + suffix, EXPECTED, REMEDY):
                elements = _elements(png.kind, frame, source.options.limits, source.label + suffix)
        except InputError as error:
            if number == 1:
                raise
            yield error
            return
        geometry = fitted(
            Geometry(elements.dtype.str, ("channel", "y", "x")[-elements.ndim :], elements.shape), elements
        )
        metadata = {**common, **_placed(frame), **(once if number == 1 else {})}
        yield Record(Header(source.name + suffix, source.name, MODALITY, "png", geometry, metadata), elements)


def write(records: Sequence[Record], path: Path) -> Path:
    """The picture or animation, chunks and all; what PNG cannot hold goes where any image would go."""
    try:
        data = file_of(records)
    except (ValueError, KeyError, struct.error):
        from pipelines.images import pillow  # which needs this module to write PNG

        return pillow.write(records, path)
    path = path if path.suffix.lower() in SUFFIXES else path.with_name(f"{path.name}.png")
    path.write_bytes(data)
    return path


def file_of(records: Sequence[Record]) -> bytes:
    """A PNG's bytes. ValueError, KeyError or struct.error if PNG cannot hold these records."""
    kinds = {_kind(record) for record in records}
    if len(kinds) != 1:
        raise ValueError(f"frames of {len(kinds)} kinds")
    (kind,) = kinds
    pictures = [_samples(record, kind) for record in records]
    colours = {str([record.header.metadata.get(key) for key in ("palette", "transparency")]) for record in records}
    if len(colours) != 1:
        raise ValueError("frames of several palettes or transparent colours")
    first = {**records[0].header.metadata, **_grown_palette(records[0].header.metadata, pictures)}
    before, after = png_metadata.chunks_of(first, kind)
    controls = [_control(record, number, len(records)) for number, record in enumerate(records)]
    animated = sum(control is not None for control in controls)
    parts = [header(kind, *pictures[0].shape[1::-1])]
    if animated:
        parts.append(written(b"acTL", struct.pack(">II", animated, first.get("loop", 0))))
    parts += [written(chunk.kind, bytes(chunk.data)) for chunk in before]
    parts += _frames(kind, pictures, controls)
    parts += [written(chunk.kind, bytes(chunk.data)) for chunk in after]
    return b"".join((*parts, written(b"IEND")))


def _elements(kind: Kind, frame: Frame, limits: Limits, where: str) -> npt.NDArray[Any]:
    """The samples, channels first. Before they are made: can the data hold as many, and may they?"""
    raw = kind.raw_bytes(frame.width, frame.height)
    elements = frame.width * frame.height * CHANNELS[kind.colour]
    if raw > frame.data_bytes * DEFLATE_RATIO:
        raise ValueError(
            f"{frame.width} x {frame.height} pixels in {frame.data_bytes} bytes, which cannot hold as many"
        )
    refuse_bomb(where, (frame.height, frame.width), elements, raw, frame.data_bytes, limits)
    samples = decoded(kind, frame)
    return np.moveaxis(samples, -1, 0) if samples.ndim == 3 else samples


def _placed(frame: Frame) -> dict[str, Any]:
    if frame.control is None:
        return {}
    x, y, numerator, denominator, dispose, blend = frame.control
    return {"frame": {"x": x, "y": y, "delay": [numerator, denominator], "dispose": dispose, "blend": blend}}


def _kind(record: Record) -> Kind:
    """Depth and colour type that hold these elements as what they are."""
    metadata, elements = record.header.metadata, record.elements
    dtype, shape = np.dtype(elements.dtype), elements.shape
    if metadata.get("mode", "L") not in MODES or metadata.get("palette_mode", "RGB") != "RGB":
        raise ValueError(f"pixels of mode {metadata.get('mode')}")
    interlaced = bool(metadata.get("interlaced"))
    if len(shape) == 2 and dtype == np.bool_:
        return Kind(1, 0, interlaced)
    if dtype not in (np.dtype(np.uint8), np.dtype("<u2"), np.dtype(">u2")) or len(shape) not in (2, 3):
        raise ValueError(f"elements of type {dtype} and shape {shape}")
    if "palette" in metadata and len(shape) == 2:
        return Kind(_palette_depth(metadata, elements), PALETTE, interlaced)
    if white := metadata.get("white"):
        depths = {value: depth for depth, value in png_metadata.WHITE.items()}
        return Kind(depths[white], 0, interlaced)
    channels = shape[0] if len(shape) == 3 else 1
    colour = {1: 0, 2: 4, 3: 2, 4: 6}[channels]
    return Kind(8 * dtype.itemsize, colour, interlaced)


def _palette_depth(metadata: dict[str, Any], elements: Any) -> int:
    """As many bits as it had; more where a network guessed an index beyond them."""
    depth = metadata.get("bits", 8)
    return depth if int(np.asarray(elements).max()) < 1 << depth else 8


def _samples(record: Record, kind: Kind) -> npt.NDArray[Any]:
    """(y, x) or (y, x, channel); what a network guessed beyond white is white."""
    elements = np.asarray(record.elements)
    if kind.colour == 0 and kind.depth in png_metadata.WHITE:
        elements = np.minimum(elements, png_metadata.WHITE[kind.depth]).astype(np.uint8)
    return np.moveaxis(elements, 0, -1) if elements.ndim == 3 and kind.colour else elements.reshape(elements.shape[-2:])


def _grown_palette(metadata: dict[str, Any], pictures: Sequence[npt.NDArray[Any]]) -> dict[str, Any]:
    """A palette with a colour (black) for every index, where it lacks some."""
    if "palette" not in metadata:
        return {}
    colours = base64.b64decode(metadata["palette"])
    needed = 3 * (1 + max(int(picture.max()) for picture in pictures))
    return {"palette": base64.b64encode(colours.ljust(needed, b"\0")).decode()}


def _control(record: Record, number: int, count: int) -> tuple[int, ...] | None:
    """The fields of fcTL after the size; for whole pictures from another format made from their times."""
    metadata = record.header.metadata
    if frame := metadata.get("frame"):
        return (frame["x"], frame["y"], *frame["delay"], frame["dispose"], frame["blend"])
    if count == 1 or record.header.format == "png":
        return None
    return 0, 0, min(65535, round(metadata.get("duration", 0))), 1000, 0, 0


def _frames(
    kind: Kind, pictures: Sequence[npt.NDArray[Any]], controls: Sequence[tuple[int, ...] | None]
) -> Iterator[bytes]:
    sequence = 0
    for number, (picture, control) in enumerate(zip(pictures, controls, strict=True)):
        if control is not None:
            fields = struct.pack(">IIIIIHHBB", sequence, *picture.shape[1::-1], *control)
            yield written(b"fcTL", fields)
            sequence += 1
        elif number:
            raise ValueError("a second picture without a place in the animation")
        for part in encoded(kind, picture):
            if number:
                yield written(b"fdAT", struct.pack(">I", sequence) + part)
                sequence += 1
            else:
                yield written(b"IDAT", part)
