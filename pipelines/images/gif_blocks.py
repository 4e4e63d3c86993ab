"""The blocks of a GIF, to the last byte: https://www.w3.org/Graphics/GIF/spec-gif89a.txt"""

import struct
from dataclasses import dataclass, field
from typing import NamedTuple

SIGNATURES = (b"GIF87a", b"GIF89a")
EXTENSION, PICTURE, TRAILER = 0x21, 0x2C, 0x3B
CONTROL, COMMENT, APPLICATION = 0xF9, 0xFE, 0xFF
INTERLACED = 0x40
HAS_TABLE, TABLE_BITS = 0x80, 7


class Extension(NamedTuple):
    """A label and the sub-blocks behind it as they lie there: lengths, bytes, the zero at the end."""

    label: int
    blocks: bytes

    @property
    def data(self) -> bytes:
        """The bytes of all sub-blocks."""
        parts, at = [], 0
        while self.blocks[at]:
            parts.append(self.blocks[at + 1 : at + 1 + self.blocks[at]])
            at += 1 + self.blocks[at]
        return b"".join(parts)


@dataclass
class Frame:
    """A picture: place and size on the screen, flags, its own colours, its coded pixels, what stands before it."""

    x: int
    y: int
    width: int
    height: int
    flags: int
    colours: bytes
    coded: bytes
    control: bytes | None = None
    before: list[Extension] = field(default_factory=list)


@dataclass
class Gif:
    """A whole file. ``after``: extensions behind the last picture."""

    signature: bytes
    width: int
    height: int
    flags: int
    background: int
    aspect: int
    colours: bytes
    frames: list[Frame]
    after: list[Extension]
    trailing: int


def parsed(data: bytes) -> Gif:
    """A file's blocks. ValueError if it ends before its trailer or has anything else in it."""
    if data[:6] not in SIGNATURES or len(data) < 13:
        raise ValueError(f"a file that begins with {data[:6]!r}")
    width, height, flags, background, aspect = struct.unpack("<HHBBB", data[6:13])
    reader = _Reader(data)
    colours = reader.table(flags)
    frames: list[Frame] = []
    waiting: list[Extension] = []
    control: bytes | None = None
    while (kind := reader.take(1)[0]) != TRAILER:
        if kind == PICTURE:
            frames.append(reader.frame(control, waiting))
            control, waiting = None, []
        elif kind == EXTENSION:
            extension = Extension(reader.take(1)[0], reader.blocks())
            if extension.label == CONTROL and control is None and len(extension.data) == 4:
                control = extension.data
            else:
                waiting.append(extension)
        else:
            raise ValueError(f"byte {kind:#x} at {reader.at - 1}, where a block was due")
    if not frames:
        raise ValueError("no picture")
    trailing = len(data[reader.at :].strip(b"\0"))
    return Gif(data[:6], width, height, flags, background, aspect, colours, frames, waiting, trailing)


def single(frame: Frame) -> bytes:
    """A GIF of one picture without colours: its indices are its greys."""
    sizes = struct.pack("<HH", frame.width, frame.height)
    picture = bytes([PICTURE]) + bytes(4) + sizes + bytes([frame.flags & INTERLACED]) + frame.coded
    return b"GIF89a" + sizes + bytes(3) + picture + bytes([TRAILER])


def split(data: bytes) -> bytes:
    """Bytes as sub-blocks of 255, with the zero at the end."""
    parts = (data[at : at + 255] for at in range(0, len(data), 255))
    return b"".join(bytes([len(part)]) + part for part in parts) + b"\0"


class _Reader:
    """Goes through a file's bytes."""

    def __init__(self, data: bytes):
        self.data, self.at = data, 13

    def take(self, count: int) -> bytes:
        if self.at + count > len(self.data):
            raise ValueError(f"the end of the file at byte {len(self.data)}, without a trailer")
        self.at += count
        return self.data[self.at - count : self.at]

    def table(self, flags: int) -> bytes:
        return self.take(3 << (flags & TABLE_BITS) + 1) if flags & HAS_TABLE else b""

    def blocks(self) -> bytes:
        start = self.at
        while size := self.take(1)[0]:
            self.take(size)
        return self.data[start : self.at]

    def frame(self, control: bytes | None, before: list[Extension]) -> Frame:
        x, y, width, height, flags = struct.unpack("<HHHHB", self.take(9))
        if not width or not height:
            raise ValueError(f"a picture of {width} x {height}")
        colours = self.table(flags)
        coded = self.take(1) + self.blocks()
        return Frame(x, y, width, height, flags, colours, coded, control, before)
