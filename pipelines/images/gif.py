"""GIF, frame by frame as it lies in the file: https://www.w3.org/Graphics/GIF/spec-gif89a.txt

A frame is a record of its own: the indices of its part of the screen, with its own or the common palette; a viewer lays
it over those before it. ``frame`` says how: x, y, dispose, and what else its flags say; ``transparency`` is the index
that shows what lies below, ``duration`` milliseconds. Of the whole file, in the first record: ``screen``, and ``loop``,
which is 0 for ever. ``extensions`` stand in the record of the frame that they precede, those at the end in ``after`` of
the last: ``["comment", text]`` or ``[label, base64]`` of the sub-blocks as they lie there.
"""

import base64
import io
import struct
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image
from PIL.GifImagePlugin import GifImageFile

from aunn_data.errors import InputError
from aunn_data.geometry import Geometry
from aunn_data.header import Header
from aunn_data.record import Record
from pipelines.images import gif_blocks as blocks
from pipelines.images import png
from pipelines.images.bombs import refuse_bomb
from pipelines.images.gif_blocks import Extension, Frame, Gif
from pipelines.source import Source
from pipelines.stored import refusing

MODALITY = "image"
FORMATS = ("gif",)
EXPECTED, REMEDY = "a GIF that is whole", "restore it, or open it with an image editor and save it again"
NETSCAPE = (b"NETSCAPE2.0", b"ANIMEXTS1.0")
DISPOSE, OWN_FLAGS, TRANSPARENT = 0x1C, 0xE2, 0x01
SORTED_OR_RESERVED = 0x38  # of a picture's flags


def sniff(head: bytes, path: Path) -> bool:
    """By its signature."""
    return head.startswith(blocks.SIGNATURES)


def read(source: Source) -> Iterator[Record | InputError]:
    """One record ``name``, or ``name#1``, ``name#2``, … where there are several frames. Ends at the first bad one."""
    if png.sniff(source.head, source.path):  # what ``write`` made
        yield from png.read(source)
        return
    with refusing(source.label, EXPECTED, REMEDY), source.open() as file:
        gif = blocks.parsed(file.read())
    for number, frame in enumerate(gif.frames, 1):
        suffix = f"#{number}" if len(gif.frames) > 1 else ""
        try:
            with refusing(source.label + suffix, EXPECTED, REMEDY):
                elements = _indices(frame, source, suffix)
        except InputError as error:
            if number == 1:
                raise
            yield error
            return
        metadata = {**_of_frame(gif, frame), **(_of_file(gif) if number == 1 else {})}
        if number == len(gif.frames) and gif.after:
            metadata["after"] = [_entry(extension) for extension in gif.after]
        geometry = Geometry("|u1", ("y", "x"), elements.shape)
        yield Record(Header(source.name + suffix, source.name, MODALITY, "gif", geometry, metadata), elements)


def write(records: Sequence[Record], path: Path) -> Path:
    """The GIF again, block by block; the pixels coded anew. What is not indices goes into a PNG."""
    if any(np.dtype(record.elements.dtype) != np.uint8 or record.elements.ndim != 2 for record in records):
        return png.write(records, path)
    path = path if path.suffix.lower() == ".gif" else path.with_name(f"{path.name}.gif")
    path.write_bytes(_file_of(records))
    return path


def _indices(frame: Frame, source: Source, suffix: str) -> npt.NDArray[np.uint8]:
    """(y, x) palette indices."""
    count, shape = frame.width * frame.height, (frame.height, frame.width)
    refuse_bomb(source.label + suffix, shape, count, count, len(frame.coded), source.options.limits)
    return np.array(GifImageFile(io.BytesIO(blocks.single(frame))))


def _of_frame(gif: Gif, frame: Frame) -> dict[str, Any]:
    """What is needed to show a frame, and what stands before it."""
    place: dict[str, Any] = {"x": frame.x, "y": frame.y, "dispose": 0}
    colours = frame.colours or gif.colours
    found: dict[str, Any] = {"mode": "P" if colours else "L", "frame": place}
    if colours:
        found["palette"] = _base64(colours)
    if frame.colours:
        place["own_palette"] = True
    if frame.flags & blocks.INTERLACED:
        place["interlaced"] = True
    if frame.flags & SORTED_OR_RESERVED:
        place["flags"] = frame.flags & SORTED_OR_RESERVED
    if frame.control is not None:
        flags, delay, transparent = struct.unpack("<BHB", frame.control)
        place["dispose"] = (flags & DISPOSE) >> 2
        found["duration"] = 10 * delay
        if flags & TRANSPARENT:
            found["transparency"] = transparent
        if flags & OWN_FLAGS:
            place["control"] = flags & OWN_FLAGS
    if frame.before:
        found["extensions"] = [_entry(extension) for extension in frame.before]
    return found


def _of_file(gif: Gif) -> dict[str, Any]:
    """What stands once."""
    screen: dict[str, Any] = {"width": gif.width, "height": gif.height, "version": gif.signature[3:].decode()}
    bits = gif.flags & ~(blocks.HAS_TABLE | blocks.TABLE_BITS) if gif.colours else gif.flags
    others = {"flags": bits, "background": gif.background, "aspect": gif.aspect}
    screen.update({key: value for key, value in others.items() if value})
    if gif.colours and all(frame.colours for frame in gif.frames):
        screen["palette"] = _base64(gif.colours)  # which no frame uses
    found: dict[str, Any] = {"screen": screen}
    for extension in (extension for frame in gif.frames for extension in frame.before):
        data = extension.data
        if extension.label == blocks.APPLICATION and data[:11] in NETSCAPE and len(data) == 14 and data[11] == 1:
            found["loop"] = int.from_bytes(data[12:], "little")
    if gif.trailing:
        found["left_out"] = [f"{gif.trailing} bytes after the end"]
    return found


def _entry(extension: Extension) -> list[str]:
    data = extension.data
    if extension.label == blocks.COMMENT and blocks.split(data) == extension.blocks:
        return ["comment", data.decode("latin-1")]
    return [f"{extension.label:02x}", _base64(extension.blocks)]


def _extension(entry: Sequence[str]) -> bytes:
    """Inverse of ``_entry``."""
    if entry[0] == "comment":
        return bytes([blocks.EXTENSION, blocks.COMMENT]) + blocks.split(entry[1].encode("latin-1"))
    return bytes([blocks.EXTENSION, int(entry[0], 16)]) + base64.b64decode(entry[1])


def _file_of(records: Sequence[Record]) -> bytes:
    first = records[0].header.metadata
    sizes = [
        (place.get("x", 0) + record.elements.shape[1], place.get("y", 0) + record.elements.shape[0])
        for record in records
        for place in [record.header.metadata.get("frame", {})]
    ]
    screen = first.get("screen", {"width": max(x for x, _ in sizes), "height": max(y for _, y in sizes)})
    shared = [record for record in records if not record.header.metadata.get("frame", {}).get("own_palette")]
    colours = b"".join(_colours(record.header.metadata, shared) for record in shared[:1])
    colours = colours or base64.b64decode(screen.get("palette", ""))
    flags = screen.get("flags", 0) | _table_flags(colours)
    sizes_and_flags = (screen["width"], screen["height"], flags, screen.get("background", 0), screen.get("aspect", 0))
    parts = [b"GIF", screen.get("version", "89a").encode(), struct.pack("<HHBBB", *sizes_and_flags), colours]
    for record in records:
        parts += _frame_parts(record)
    parts += [_extension(entry) for entry in records[-1].header.metadata.get("after", [])]
    return b"".join((*parts, bytes([blocks.TRAILER])))


def _frame_parts(record: Record) -> Iterator[bytes]:
    metadata, elements = record.header.metadata, np.asarray(record.elements)
    place = metadata.get("frame", {})
    yield from (_extension(entry) for entry in metadata.get("extensions", []))
    if "duration" in metadata:
        transparent = metadata.get("transparency")
        flags = place.get("dispose", 0) << 2 | place.get("control", 0) | (transparent is not None)
        fields = struct.pack("<BHB", flags, metadata["duration"] // 10, transparent or 0)
        yield bytes([blocks.EXTENSION, blocks.CONTROL]) + blocks.split(fields)
    colours = _colours(metadata, [record]) if place.get("own_palette") else b""
    flags = place.get("flags", 0) | (blocks.INTERLACED if place.get("interlaced") else 0) | _table_flags(colours)
    corner = (place.get("x", 0), place.get("y", 0))
    yield struct.pack("<BHHHHB", blocks.PICTURE, *corner, *elements.shape[::-1], flags) + colours
    yield _coded(elements, bool(place.get("interlaced")))


def _coded(elements: npt.NDArray[np.uint8], interlaced: bool) -> bytes:
    """The LZW stream, by Pillow."""
    out = io.BytesIO()
    size = (elements.shape[1], elements.shape[0])
    image = Image.frombytes("L", size, np.ascontiguousarray(elements).tobytes())
    image.save(out, "GIF", optimize=False, interlace=interlaced)
    return blocks.parsed(out.getvalue()).frames[0].coded


def _colours(metadata: dict[str, Any], users: Sequence[Record]) -> bytes:
    """A palette of 2, 4, …, 256 colours, with one (black) for every index."""
    if "palette" not in metadata:
        return b""
    colours = base64.b64decode(metadata["palette"])[: 3 << 8]
    used = 1 + max(int(np.asarray(record.elements).max()) for record in users)
    entries = max(2, 1 << (max(used, -(-len(colours) // 3)) - 1).bit_length())
    return colours if len(colours) == 3 * entries else colours.ljust(3 * entries, b"\0")


def _table_flags(colours: bytes) -> int:
    return blocks.HAS_TABLE | ((len(colours) // 3).bit_length() - 2) if colours else 0


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()
