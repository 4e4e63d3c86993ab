"""Pages of a TIFF: where their strips or tiles lie, and how tifffile and imagecodecs decode them.

Samples are as stored, with the file's own byte order; only JPEG's YCbCr becomes RGB, as in every JPEG reader. What
tifffile would fill up with zeros (strips that are absent or cut short) is refused.

Legend: a page's *shaped* is (separate samples, depth, length, width, samples in a pixel).
"""

import logging
import math
from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import tifffile

from aunn_data.errors import InputError
from pipelines.options import Limits
from pipelines.stored import element_bytes, refusing
from pipelines.tiff.ifd import Ifd, Skeleton
from pipelines.tiff.plain import plain_of

logging.getLogger("tifffile").addHandler(logging.NullHandler())  # what it complains of is checked here

REMEDY = "restore it, or save it again with an image editor, uncompressed"
PAGE = "a TIFF page that decodes"

# The tags that say how the bytes of a page become samples.
LAYOUT = (256, 257, 258, 259, 262, 266, 277, 278, 284, 292, 293, 317, 322, 323, 338, 339, 530, 32997, 32998)
PHOTOMETRIC, COLOUR_MAP, NEW_SUBFILE, SAMPLES, DEPTH, JPEG_TABLES = 262, 320, 254, 277, 32997, 347
PALETTE, MASK = 3, 4
REDUCED = 1
JPEG = (6, 7, 34892, 33007)
FREE_BYTES = 1 << 28  # a file may claim so many whatever its size: blank pages compress well
GDAL_NODATA = 42113


@dataclass(frozen=True)
class Layout:
    """How pages of one kind are decoded: tifffile's page of the first of them, and their normal shape and type."""

    path: Path
    page: Any
    shaped: tuple[int, int, int, int, int]
    dtype: np.dtype[Any]
    segments: int

    @cached_property
    def packed(self) -> bool:
        """Does decoding take longer than reading?"""
        return bool(self.page.compression != 1)

    @cached_property
    def jpeg(self) -> bool:
        """Is it JPEG, of which tables may stand in a tag?"""
        return self.page.compression in JPEG

    @cached_property
    def plain(self) -> bool:
        """Do samples lie in a strip as they are?"""
        page = self.page
        raw = page.compression == 1 and page.predictor == 1 and page.fillorder == 1 and not page.is_tiled
        whole = page.bitspersample == 8 * self.dtype.itemsize and page.sampleformat != 5 and self.dtype.kind != "b"
        return bool(raw and whole)

    @cached_property
    def rows(self) -> int:
        """Rows in a strip or tile."""
        return int(self.page.tilelength if self.page.is_tiled else self.page.rowsperstrip)

    @cached_property
    def across(self) -> int:
        """Tiles beside one another."""
        return -(-self.shaped[3] // int(self.page.tilewidth)) if self.page.is_tiled else 1

    @cached_property
    def bytes(self) -> int:
        """Bytes of a page's samples."""
        return math.prod(self.shaped) * self.dtype.itemsize

    @cached_property
    def like(self) -> tuple[Any, ...]:
        """Equal for pages that may be one stack, if their palettes are."""
        return self.shape, self.dtype.str, int(self.page.photometric), tuple(self.page.extrasamples)

    @cached_property
    def shape(self) -> tuple[int, ...]:
        """(channel, z, y, x) without the axes that there is one of, but y and x."""
        separate, depth, length, width, samples = self.shaped
        return (*(size for size in (separate * samples, depth) if size > 1), length, width)

    def channels_first(self, samples: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Rows of a page that are shaped, as ``shape`` has them."""
        first = samples[..., 0] if samples.shape[-1] == 1 else samples[0].transpose(3, 0, 1, 2)
        found: npt.NDArray[Any] = first.reshape(*self.shape[:-2], *first.shape[-2:])
        return found

    @cached_property
    def axes(self) -> tuple[str, ...]:
        """The names of the shape's axes."""
        separate, depth, *_, samples = self.shaped
        return ("channel",) * (separate * samples > 1) + ("z",) * (depth > 1) + ("y", "x")


@dataclass(frozen=True)
class Page:
    """A page: its directory, how it is decoded, where its strips or tiles lie."""

    ifd: Ifd
    layout: Layout
    offsets: Sequence[int]
    counts: Sequence[int]
    tables: bytes | None
    like: tuple[Any, ...]  # equal for pages that may be one stack

    @property
    def shape(self) -> tuple[int, ...]:
        """(channel, z, y, x), see Layout."""
        return self.layout.shape

    @property
    def bytes(self) -> int:
        """Bytes of its samples."""
        return self.layout.bytes

    @property
    def linear(self) -> int | None:
        """Where the samples begin, if they lie in one piece as they are; None if they must be decoded."""
        if not self.layout.plain:
            return None
        if len(self.counts) == 1:
            return self.offsets[0] if self.counts[0] >= self.bytes else None
        ends = [offset + count for offset, count in zip(self.offsets, self.counts, strict=True)]
        joined = all(end == offset for end, offset in zip(ends, self.offsets[1:], strict=False))
        return self.offsets[0] if joined and sum(self.counts) == self.bytes else None


class Pages:
    """Makes the pages of one file. InputError for those that cannot be decoded or lie elsewhere than in the file."""

    def __init__(self, skeleton: Skeleton, path: Path, limits: Limits, layouts: dict[Any, Layout] | None = None):
        self.skeleton, self.path, self.limits = skeleton, path, limits
        self.layouts: dict[Any, Layout] = {} if layouts is None else layouts  # shared by files that are alike

    @cached_property
    def _tiff(self) -> Any:
        """tifffile's view of the file, which stays ours to close."""
        return tifffile.TiffFile(self.skeleton.file, offset=0, _multifile=False)

    def page(self, ifd: Ifd, where: object) -> Page:
        """The page of a directory."""
        skeleton = self.skeleton
        colours = ifd.by_code.get(COLOUR_MAP)
        palette = skeleton.raw(colours) if colours else None
        if plain := plain_of(skeleton, ifd):
            most = self.limits.max_elements * plain.dtype.itemsize
            size = element_bytes(where, plain.shaped, plain.dtype.itemsize, most)
            layout = Layout(self.path, plain, plain.shaped, plain.dtype, 1)
            return Page(ifd, layout, (plain.start,), (size,), None, (layout.like, palette))
        tags = [ifd.by_code.get(code) for code in LAYOUT]
        key = (skeleton.order, *[(tag.kind, skeleton.raw(tag)) if tag else None for tag in tags])
        if key not in self.layouts:
            with refusing(where, PAGE, REMEDY):
                self.layouts[key] = self._layout(ifd, where)
        layout = self.layouts[key]
        offsets, counts = self._segments(ifd, layout, where)
        tables = ifd.by_code.get(JPEG_TABLES)
        return Page(ifd, layout, offsets, counts, skeleton.raw(tables) if tables else None, (layout.like, palette))

    def _layout(self, ifd: Ifd, where: object) -> Layout:
        page: Any = self._tiff.pages.first  # has been parsed already
        if page.offset != ifd.offset:
            self._tiff.filehandle.seek(ifd.offset)
            page = tifffile.TiffPage(self._tiff, index=0)
        if page.dtype is not None and 0 not in page.shaped:
            page.init_decode()  # while the file is open: it looks into JPEGs
        if page.dtype is None or page.dtype.kind not in "biufc" or isinstance(page.bitspersample, tuple):
            found = f"{page.bitspersample} bits, format {page.sampleformat}"
            raise _refused(where, "samples of one numeric type", found)
        needed = element_bytes(where, page.shaped, page.dtype.itemsize, self.limits.max_elements * page.dtype.itemsize)
        if page.is_subsampled and page.compression not in JPEG:
            raise _refused(where, "YCbCr in full resolution or as JPEG", "subsampled colours")
        segments = math.prod(page.chunked)
        self._affordable(needed, page, where)
        order = self.skeleton.order if page.dtype.itemsize > 1 else "|"
        return Layout(self.path, page, tuple(map(int, page.shaped)), page.dtype.newbyteorder(order), segments)  # type: ignore[arg-type]

    def _affordable(self, needed: int, page: Any, where: object) -> None:
        """The bytes of a page must have come from somewhere: all in all no more than compression makes of the file."""
        stored = -(-needed * int(page.bitspersample) // (8 * page.dtype.itemsize))
        limit = self.skeleton.size
        if page.compression != 1:
            limit = int(limit * self.limits.max_ratio) + FREE_BYTES
        if stored > limit:
            raise _refused(where, f"{stored} bytes for shape {page.shape}", f"a file of {self.skeleton.size}")

    def _segments(self, ifd: Ifd, layout: Layout, where: object) -> tuple["array[int]", "array[int]"]:
        """Offsets and byte counts of the strips or tiles, all of them in the file."""
        page, skeleton = layout.page, self.skeleton
        if (self.path, ifd.offset) == (layout.path, page.offset):
            offsets, counts = tuple(page.dataoffsets), tuple(page.databytecounts)
        else:
            offsets = skeleton.numbers(ifd, 324) or skeleton.numbers(ifd, 273) or skeleton.numbers(ifd, 513)
            counts = skeleton.numbers(ifd, 325) or skeleton.numbers(ifd, 279) or skeleton.numbers(ifd, 514)
            counts = counts or ((page.databytecounts[0],) if page.compression == 1 and layout.segments == 1 else ())
        offsets, counts = offsets[: layout.segments], counts[: layout.segments]
        if not len(offsets) == len(counts) == layout.segments:
            raise _refused(where, f"{layout.segments} strips or tiles", f"{len(offsets)} and {len(counts)} byte counts")
        self._check(offsets, counts, layout, where)
        return array("Q", offsets), array("Q", counts)

    def _check(self, offsets: Sequence[int], counts: Sequence[int], layout: Layout, where: object) -> None:
        """All of them lie in the file; absent ones are allowed where the file says what stands for them."""
        size = self.skeleton.size
        for offset, count in zip(offsets, counts, strict=True):
            absent = not offset or not count
            if absent and GDAL_NODATA not in layout.page.tags:
                raise _refused(where, "every strip or tile", "one that was never written (and no value that means so)")
            if not 0 <= offset <= offset + count <= size:
                raise _refused(where, f"strips within the file of {size} bytes", f"one at {offset}:{offset + count}")


def _refused(where: object, expected: str, found: str) -> InputError:
    return InputError(where, expected=expected, found=found, remedy=REMEDY)
