"""The chunks of a PNG, every one of them checked: https://www.w3.org/TR/png-3/

Decoders pass over wrong checksums, missing ends and frames out of order; here each of these is an error.
"""

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

SIGNATURE = b"\x89PNG\r\n\x1a\n"
# colour type -> channels, and the depths it may have
CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
DEPTHS = {0: (1, 2, 4, 8, 16), 2: (8, 16), 3: (1, 2, 4, 8), 4: (8, 16), 6: (8, 16)}
PALETTE = 3
ADAM7 = ((0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1))
"""(first row, first column, rows apart, columns apart) of each pass of an interlaced image."""


class Chunk(NamedTuple):
    """A chunk's type and its data."""

    kind: bytes
    data: bytes | memoryview


@dataclass(frozen=True)
class Kind:
    """What IHDR says of all frames."""

    depth: int
    colour: int
    interlaced: bool = False

    @property
    def bits(self) -> int:
        """Bits a pixel."""
        return self.depth * CHANNELS[self.colour]

    def row_bytes(self, width: int) -> int:
        """Bytes of a row, without the one that names its filter."""
        return -(-width * self.bits // 8)

    def passes(self, width: int, height: int) -> Iterator[tuple[slice, slice]]:
        """The rows and columns of each pass that has any; one of everything where it is not interlaced."""
        for top, left, down, right in ADAM7 if self.interlaced else ((0, 0, 1, 1),):
            if top < height and left < width:
                yield slice(top, None, down), slice(left, None, right)

    def raw_bytes(self, width: int, height: int) -> int:
        """Bytes of a frame's filtered rows: what its zlib stream must give."""
        sizes = ((len(range(height)[rows]), len(range(width)[columns])) for rows, columns in self.passes(width, height))
        return sum(rows * (1 + self.row_bytes(columns)) for rows, columns in sizes)


@dataclass
class Frame:
    """A picture: its place and time (``fcTL``; None for a picture outside the animation), its data."""

    width: int
    height: int
    control: tuple[int, ...] | None = None
    data: list[bytes | memoryview] = field(default_factory=list)

    @property
    def data_bytes(self) -> int:
        """Compressed bytes."""
        return sum(len(part) for part in self.data)


@dataclass
class Png:
    """A whole file. ``before`` and ``after``: the chunks beside the pixels, by their place before or after these."""

    kind: Kind
    frames: list[Frame]
    plays: int | None = None
    before: list[Chunk] = field(default_factory=list)
    after: list[Chunk] = field(default_factory=list)
    trailing: int = 0


def parsed(data: bytes) -> Png:
    """A file's chunks by their meaning. ValueError if it is damaged, cut or not as the specification wants it."""
    chunks, trailing = _chunks(data)
    if not chunks or chunks[0].kind != b"IHDR":
        raise ValueError("no IHDR at the beginning")
    width, height, kind = _header(bytes(chunks[0].data))
    png = Png(kind, [Frame(width, height)], trailing=trailing)
    reader = _Reader(png)
    for chunk in chunks[1:-1]:
        reader.take(chunk)
    reader.end()
    return png


def written(kind: bytes, data: bytes = b"") -> bytes:
    """A chunk's bytes."""
    return b"%b%b%b%b" % (
        struct.pack(">I", len(data)),
        kind,
        data,
        struct.pack(">I", zlib.crc32(data, zlib.crc32(kind))),
    )


def header(kind: Kind, width: int, height: int) -> bytes:
    """The signature and IHDR."""
    fields = struct.pack(">IIBBBBB", width, height, kind.depth, kind.colour, 0, 0, kind.interlaced)
    return SIGNATURE + written(b"IHDR", fields)


def _chunks(data: bytes) -> tuple[list[Chunk], int]:
    """All chunks up to IEND, and how many bytes follow that."""
    view, at, found = memoryview(data), len(SIGNATURE), list[Chunk]()
    if not data.startswith(SIGNATURE):
        raise ValueError("no signature")
    while not found or found[-1].kind != b"IEND":
        if at + 12 > len(data):
            raise ValueError(f"the end of the file at byte {len(data)}, without IEND")
        length, kind = int.from_bytes(view[at : at + 4]), bytes(view[at + 4 : at + 8])
        stop = at + 8 + length
        if stop + 4 > len(data):
            raise ValueError(f"a chunk {kind!r} of {length} bytes at byte {at}, which the file has not")
        if zlib.crc32(view[at + 4 : stop]) != int.from_bytes(view[stop : stop + 4]):
            raise ValueError(f"a wrong checksum of the chunk {kind!r} at byte {at}")
        found.append(Chunk(kind, view[at + 8 : stop]))
        at = stop + 4
    return found, len(data) - at


def _header(data: bytes) -> tuple[int, int, Kind]:
    if len(data) != 13:
        raise ValueError(f"an IHDR of {len(data)} bytes")
    width, height, depth, colour, compression, filtering, interlace = struct.unpack(">IIBBBBB", data)
    if depth not in DEPTHS.get(colour, ()) or compression or filtering or interlace > 1:
        raise ValueError(
            f"an IHDR with depth {depth}, colour type {colour}, methods {compression, filtering, interlace}"
        )
    if not (1 <= width < 1 << 31 and 1 <= height < 1 << 31):
        raise ValueError(f"a size of {width} x {height}")
    return width, height, Kind(depth, colour, bool(interlace))


class _Reader:
    """Takes chunks in order and knows what may follow."""

    def __init__(self, png: Png):
        self.png, self.sequence, self.announced = png, 0, 0

    def take(self, chunk: Chunk) -> None:
        """The next chunk."""
        kind, png = chunk.kind, self.png
        if kind == b"IDAT":
            if len(png.frames) > 1 or png.after:
                raise ValueError("pixels in two places")
            png.frames[0].data.append(chunk.data)
        elif kind in (b"acTL", b"fcTL", b"fdAT"):
            self._animated(kind, bytes(chunk.data) if kind != b"fdAT" else chunk.data)
        elif kind[0] & 32 or kind == b"PLTE":
            (png.after if png.frames[0].data else png.before).append(chunk)
        else:
            raise ValueError(f"a critical chunk {kind!r}, which the specification has not")

    def end(self) -> None:
        """Is all there that was announced?"""
        frames = self.png.frames
        if not all(frame.data for frame in frames):
            raise ValueError("a frame without pixels")
        animated = sum(frame.control is not None for frame in frames)
        if animated != self.announced:
            raise ValueError(f"{animated} frames of {self.announced} announced")

    def _animated(self, kind: bytes, data: bytes | memoryview) -> None:
        if kind == b"acTL":
            self.announced, self.png.plays = struct.unpack(">II", data)
            return
        if int.from_bytes(data[:4]) != self.sequence:
            raise ValueError(f"number {int.from_bytes(data[:4])} in a chunk {kind!r}, where {self.sequence} was due")
        self.sequence += 1
        if kind == b"fcTL":
            self._control(struct.unpack(">IIIIIHHBB", data)[1:])
        elif len(self.png.frames) < 2:
            raise ValueError("pixels of a frame before its fcTL")
        else:
            self.png.frames[-1].data.append(data[4:])

    def _control(self, fields: tuple[int, ...]) -> None:
        canvas = self.png.frames[0]
        width, height, x, y = fields[:4]
        if not (1 <= width <= canvas.width - x and 1 <= height <= canvas.height - y):
            raise ValueError(f"a frame of {width} x {height} at {x}, {y}, beyond the picture")
        if canvas.data:
            self.png.frames.append(Frame(width, height, fields[2:]))
        elif canvas.control is None and (width, height) == (canvas.width, canvas.height):
            canvas.control = fields[2:]
        else:
            raise ValueError("a first frame that is not the whole picture")
