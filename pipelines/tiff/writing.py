"""Records -> a TIFF: equal samples, the same tags. Written anew are strips (never tiles), size and bits.

The compression is the source's where it is one of LOSSLESS, else Adobe's deflate (what was JPEG is RGB from then on).
BigTIFF where the source was one or 4 GB are exceeded.
"""

import math
import struct
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Literal

import imagecodecs
import numpy as np
import numpy.typing as npt
import tifffile

from aunn_data.record import Record
from pipelines.tiff.ifd import SUB_IFDS
from pipelines.tiff.pages import COLOUR_MAP, DEPTH, PALETTE, PHOTOMETRIC
from pipelines.tiff.tags import LAYOUT, POINTERS, Json, applied, count_of, number_in, raw_of

COMPRESSION, EXTRA_SAMPLES, SUBSAMPLING = 259, 338, 530
LOSSLESS = (1, 5, 8, 32773, 32946, 34925, 34926, 50000)  # none, LZW, deflate, PackBits, LZMA, Zstandard
DEFLATE, YCBCR, RGB, GREY = 8, 6, 2, 1
STRIP_BYTES = 1 << 20
BIG_BYTES = (1 << 32) - (1 << 26)
FORMATS = {"u": 1, "b": 1, "i": 2, "f": 3, "c": 6}
SHORT, LONG, LONG8 = 3, 4, 16
LETTERS = {SHORT: "H", LONG: "L", LONG8: "Q"}


@dataclass
class Out:
    """A page to be written: its samples (channel, z, y, x) when they are asked for, its tags, its SubIFDs."""

    record: Record
    index: tuple[int, ...]
    tags: list[Json]
    below: list["Out"] = field(default_factory=list)

    def samples(self) -> npt.NDArray[Any]:
        """(channel, z, y, x)."""
        return page_of(self.record, self.index)


def write(records: Sequence[Record], path: Path) -> Path:
    """All pages of all records, each in its place."""
    pages: dict[int, Out] = {}
    for record in records:
        parent = record.header.metadata.get("parent")
        if parent and parent - 1 in pages:
            pages[parent - 1].below.append(Out(record, (), record.header.metadata.get("tags", [])))
        else:
            _place(record, pages)
    metadata = records[0].header.metadata
    total = sum(math.prod(record.elements.shape) * np.dtype(record.elements.dtype).itemsize for record in records)
    with path.open("wb") as file:
        writer = _Writer(file, _order(records[0]), bool(metadata.get("big")) or total > BIG_BYTES)
        writer.write([pages[number] for number in sorted(pages)])
    return path


def _order(record: Record) -> Literal["<", ">"]:
    if "byte_order" in record.header.metadata:
        return ">"
    return ">" if np.dtype(record.elements.dtype).str.startswith(">") else "<"


def _place(record: Record, pages: dict[int, Out]) -> None:
    """The pages of a record at the numbers that they had; behind the others where these are taken."""
    metadata = record.header.metadata
    grid = grid_of(record)
    sizes = [record.elements.shape[record.header.geometry.axes.index(axis)] for axis in grid]
    first = metadata.get("tags", [])
    others = [tags for tags, count in metadata.get("pages", []) for _ in range(count)]
    numbers = _numbers(metadata, sizes, len(pages))
    for flat, index in enumerate(np.ndindex(*sizes)):
        number = int(numbers[flat])
        if number in pages:
            number = max(pages) + 1
        tags = applied(first, others[flat]) if flat < len(others) else first
        pages[number] = Out(record, index, tags)


def _numbers(metadata: dict[str, Any], sizes: Sequence[int], taken: int) -> npt.NDArray[np.int64]:
    count = math.prod(sizes)
    if len(metadata.get("page_numbers", ())) == count:
        return np.array(metadata["page_numbers"], np.int64)
    first = metadata.get("first_page", taken)
    steps = metadata.get("page_steps")
    if steps is None or len(steps) != len(sizes):
        return np.arange(first, first + count)
    even = np.zeros((), np.int64)
    for size, step in zip(sizes, steps, strict=True):
        even = even[..., None] + np.arange(size) * step
    placed: npt.NDArray[np.int64] = (first + even).ravel()
    return placed


def grid_of(record: Record) -> list[str]:
    """The axes of a record that its pages lie along."""
    axes = record.header.geometry.axes
    others = [axis for axis in axes[:-2] if axis not in ("component", "channel")]
    return [axis for axis in axes if axis in record.header.metadata.get("page_axes", others)]


def page_of(record: Record, index: tuple[int, ...]) -> npt.NDArray[Any]:
    """One page of a record: (channel, z, y, x)."""
    axes, grid = record.header.geometry.axes, iter(index)
    outer = set(grid_of(record))
    key = tuple(next(grid) if axis in outer else slice(None) for axis in axes)
    found = np.asarray(record.elements[key])
    kept = [axis for axis in axes if axis not in outer]
    if kept[0] == "component":
        found = np.ascontiguousarray(np.moveaxis(found, 0, -1))
        found = found.view(f"{found.dtype.str[0]}c{2 * found.dtype.itemsize}")[..., 0]
        kept = kept[1:]
    if "channel" not in kept:
        found, kept = found[None], ["channel", *kept]
    if len(kept) < 4:
        found = found.reshape(found.shape[0], 1, *((1,) * (3 - len(kept))), *found.shape[1:])
    return found


class _Writer:
    def __init__(self, file: IO[bytes], order: Literal["<", ">"], big: bool):
        self.file, self.order, self.big = file, order, big
        self.word = "Q" if big else "L"

    def write(self, pages: Sequence[Out]) -> None:
        """The header and the chain of all pages."""
        start = b"II" if self.order == "<" else b"MM"
        self.file.write(start + (self._pack("HHH", 43, 8, 0) if self.big else self._pack("H", 42)))
        link = self.file.tell()
        self.file.write(self._pack(self.word, 0))
        for page in pages:
            link = self._link(link, page)

    def _link(self, link: int, page: Out) -> int:
        """A page, and its place in the link before it. Where its own link to the next one lies."""
        ifd, following = self._page(page)
        self.file.seek(link)
        self.file.write(self._pack(self.word, ifd))
        self.file.seek(0, 2)
        return following

    def _page(self, page: Out) -> tuple[int, int]:
        """Writes samples, SubIFDs, tags: where the directory lies, and its link."""
        samples = page.samples()
        tags = self._pixels(page, samples)
        if page.below:
            below = [self._page(below)[0] for below in page.below]
            tags.append((SUB_IFDS, 18 if self.big else 13, self._pack(f"{len(below)}{self.word}", *below)))
        return self._ifd(tags)

    def _pixels(self, page: Out, samples: npt.NDArray[Any]) -> list[tuple[int, int, bytes]]:
        channels, depth, length, width = samples.shape
        metadata = page.record.header.metadata
        kept = _fitting(page.tags, samples)
        compression = number_in(kept, COMPRESSION, 1)
        bits = _bits(samples, metadata.get("bits"))
        planar = bool(metadata.get("planar")) and channels > 1
        rows = max(1, min(length, STRIP_BYTES // max(1, width * channels * samples.dtype.itemsize)))
        rows = length if compression == 1 else rows
        offsets, counts = self._strips(samples, bits, planar, compression, rows)
        place = LONG8 if self.big else LONG
        numbers = [
            (256, LONG, [width]),
            (257, LONG, [length]),
            (258, SHORT, [bits] * channels),
            (273, place, offsets),
            (277, SHORT, [channels]),
            (278, LONG, [rows]),
            (279, place, counts),
            (284, SHORT, [2 if planar else 1]),
            (339, SHORT, [FORMATS[samples.dtype.kind]] * channels),
        ]
        numbers += [(DEPTH, LONG, [depth])] if depth > 1 else []
        found = [(tag[0], tag[1], self._raw(tag)) for tag in kept]
        found += [(code, kind, self._pack(f"{len(values)}{LETTERS[kind]}", *values)) for code, kind, values in numbers]
        return found

    def _raw(self, tag: Json) -> bytes:
        if tag[0] in POINTERS and isinstance(tag[2], list) and (not tag[2] or isinstance(tag[2][0], list)):
            offset, _ = self._ifd([(inner[0], inner[1], self._raw(inner)) for inner in tag[2]])
            return self._pack("Q" if tag[1] in (16, 18) else "L", offset)
        return raw_of(tag, self.order)

    def _strips(
        self, samples: npt.NDArray[Any], bits: int, planar: bool, compression: int, rows: int
    ) -> tuple[list[int], list[int]]:
        """Writes the samples strip by strip."""
        dtype = samples.dtype.newbyteorder(self.order)
        offsets, counts = [], []
        for part in samples[:, None] if planar else [samples]:
            for plane in np.moveaxis(part, 0, -1):  # (y, x, channel) of each z
                for start in range(0, plane.shape[0], rows):
                    strip = np.ascontiguousarray(plane[start : start + rows], dtype)
                    data = _packed(strip, bits) if bits < 8 * dtype.itemsize else strip.tobytes()
                    if compression != 1:
                        data = tifffile.TIFF.COMPRESSORS[compression](data)
                    offsets.append(self._even())
                    counts.append(len(data))
                    self.file.write(data)
        return offsets, counts

    def _ifd(self, tags: list[tuple[int, int, bytes]]) -> tuple[int, int]:
        """A directory of tags and the values that do not fit into it; where it lies, and its link."""
        room = 8 if self.big else 4
        entries = []
        for code, kind, raw in sorted(tags, key=lambda tag: tag[0]):
            inline = raw.ljust(room, b"\0")
            if len(raw) > room:
                inline = self._pack(self.word, self._even())
                self.file.write(raw)
            entries.append(self._pack("HH" + self.word, code, kind, count_of(kind, raw)) + inline)
        start = self._even()
        self.file.write(self._pack("Q" if self.big else "H", len(entries)) + b"".join(entries))
        link = self.file.tell()
        self.file.write(self._pack(self.word, 0))
        return start, link

    def _even(self) -> int:
        """Where the next bytes go: directories and values begin at even offsets."""
        if self.file.tell() % 2:
            self.file.write(b"\0")
        return self.file.tell()

    def _pack(self, letters: str, *values: int) -> bytes:
        return struct.pack(self.order + letters, *values)


def _fitting(tags: Sequence[Json], samples: npt.NDArray[Any]) -> list[Json]:
    """The tags that still hold of these samples, with a compression that we write."""
    channels = samples.shape[0]
    compression = number_in(tags, COMPRESSION, 1)
    photometric = number_in(tags, PHOTOMETRIC, -1)
    if compression not in LOSSLESS:
        photometric = RGB if photometric == YCBCR else photometric
        compression = DEFLATE
    if (photometric < 0 and not tags) or (photometric == PALETTE and samples.dtype.kind not in "ub"):
        photometric = RGB if channels in (3, 4) and samples.dtype.kind == "u" else GREY
    if photometric == RGB and channels < 3:
        photometric = GREY
    new = {COMPRESSION: compression, PHOTOMETRIC: photometric}
    new = {code: value for code, value in new.items() if value >= 0}
    kept = []
    for tag in tags:
        if tag[0] in LAYOUT or (tag[0] == COLOUR_MAP and photometric != PALETTE):
            continue
        kept.append([tag[0], tag[1], [new.pop(tag[0])]] if tag[0] in new else tag)
    kept.extend([code, SHORT, [value]] for code, value in new.items() if not (tags and value == 1))
    if photometric == YCBCR:  # all samples of all pixels; left out, it means that colours have a quarter of them
        kept.append([SUBSAMPLING, SHORT, [1, 1]])
    extra = channels - {RGB: 3, 5: 4, YCBCR: 3, 8: 3}.get(photometric, 1)
    if extra > 0 and not any(tag[0] == EXTRA_SAMPLES for tag in kept):
        kept.append([EXTRA_SAMPLES, SHORT, [2 if extra == 1 else 0] + [0] * (extra - 1)])
    return kept


def _bits(samples: npt.NDArray[Any], bits: int | None) -> int:
    """Bits a sample: as many as the source had, if the values still fit them."""
    if samples.dtype.kind == "b":
        return 1
    full = 8 * samples.dtype.itemsize
    if bits and bits < full and samples.dtype.kind == "u" and int(samples.max(initial=0)) < 1 << bits:
        return bits
    return full


def _packed(strip: npt.NDArray[Any], bits: int) -> bytes:
    """Samples of fewer bits than their type has, every row on a byte of its own."""
    rows = strip.reshape(strip.shape[0], -1)
    if bits == 1:
        return np.packbits(rows.astype(np.bool_), axis=1).tobytes()
    native = rows.astype(rows.dtype.newbyteorder("="))
    return bytes(imagecodecs.packints_encode(native, bits, runlen=rows.shape[1]))
