"""Pages of a TIFF as arrays: decoded by tifffile and imagecodecs, strip by strip or tile by tile, where asked for.

Samples are as stored, with the file's own byte order; only JPEG's YCbCr becomes RGB, as in every JPEG reader. What
tifffile would fill up with zeros (strips that are absent or cut short) is refused.

Legend: a page's *shaped* is (separate samples, depth, length, width, samples in a pixel).
"""

import logging
import math
import os
from array import array
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any
from weakref import finalize

import numpy as np
import numpy.typing as npt
import tifffile

from aunn_data.errors import InputError
from pipelines.options import Limits
from pipelines.stored import MAPPED_BYTES, SLAB_BYTES, element_bytes, refusing
from pipelines.tiff.ifd import Ifd, Skeleton

logging.getLogger("tifffile").addHandler(logging.NullHandler())  # what it complains of is checked here

REMEDY = "restore it, or save it again with an image editor, uncompressed"
PAGE = "a TIFF page that decodes"

# The tags that say how the bytes of a page become samples.
LAYOUT = (256, 257, 258, 259, 262, 266, 277, 278, 284, 292, 293, 317, 322, 323, 338, 339, 530, 32997, 32998)
PHOTOMETRIC, COLOUR_MAP, NEW_SUBFILE, SAMPLES, DEPTH, JPEG_TABLES = 262, 320, 254, 277, 32997, 347
PALETTE, MASK = 3, 4
REDUCED = 1
JPEG = (6, 7, 34892, 33007)
PARALLEL_BYTES = 1 << 18  # less is decoded without threads
CACHED_BYTES = 1 << 27
FREE_BYTES = 1 << 28  # a file may claim so many whatever its size: blank pages compress well
LOADED_BYTES = 1 << 25  # what takes no more and must be decoded is decoded once
GDAL_NODATA = 42113
THREADS = min(8, os.cpu_count() or 1)


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

    @property
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

    def page(self, ifd: Ifd, where: object) -> Page:
        """The page of a directory."""
        skeleton = self.skeleton
        tags = [ifd.by_code.get(code) for code in LAYOUT]
        key = (skeleton.order, *[(tag.kind, skeleton.raw(tag)) if tag else None for tag in tags])
        if key not in self.layouts:
            with refusing(where, PAGE, REMEDY):
                self.layouts[key] = self._layout(ifd, where)
        layout = self.layouts[key]
        offsets, counts = self._segments(ifd, layout, where)
        tables, colours = ifd.by_code.get(JPEG_TABLES), ifd.by_code.get(COLOUR_MAP)
        palette = skeleton.raw(colours) if colours else None
        return Page(ifd, layout, offsets, counts, skeleton.raw(tables) if tables else None, (layout.like, palette))

    def _layout(self, ifd: Ifd, where: object) -> Layout:
        with tifffile.TiffFile(self.path, _multifile=False) as tiff:
            tiff.filehandle.seek(ifd.offset)
            page = tifffile.TiffPage(tiff, index=0)
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


Segment = tuple[npt.NDArray[Any], tuple[int, ...]]
"""Samples (depth, length, width, samples in a pixel), and where they begin in a page that is shaped."""


class Planes:
    """Array-like of pages of one kind: (*grid, *page). ``numbers`` says for each place in the grid which page it is.

    Only the strips or tiles that a slice needs are read and decoded. ``keep`` is held on to as long as the array is.
    """

    def __init__(self, path: Path, pages: Sequence[Page], numbers: npt.NDArray[Any], keep: Any, where: object):
        self.path, self.pages, self.numbers, self.keep, self.where = path, pages, numbers, keep, where
        self.shape = (*numbers.shape, *pages[0].shape)
        self.dtype = pages[0].layout.dtype
        self._native = self.dtype.newbyteorder("=")
        per_segment = max(1, pages[0].bytes // pages[0].layout.segments)
        self._segment = lru_cache(maxsize=max(1, CACHED_BYTES // per_segment))(self._decoded)
        self._file = os.open(path, os.O_RDONLY)
        finalize(self, os.close, self._file)

    def __getitem__(self, key: Any) -> npt.NDArray[Any]:
        bounds, cut = boxed(key, self.shape)
        split = self.numbers.ndim
        numbers = self.numbers[tuple(slice(*bound) for bound in bounds[:split])]
        out = np.empty((*numbers.shape, *(len(range(*bound)) for bound in bounds[split:])), self.dtype)
        start, stop, step = bounds[-2]
        inner = (*(slice(*bound) for bound in bounds[split:-2]), slice(0, stop - start, step), slice(*bounds[-1]))

        def fill(place: tuple[int, ...], several: bool) -> None:
            out[place] = self._rows(int(numbers[place]), start, stop, not several)[inner]

        if out.size:
            places = list(np.ndindex(numbers.shape))
            heavy = self.pages[0].layout.packed and out.nbytes >= PARALLEL_BYTES
            _each(lambda place: fill(place, len(places) > 1), places, heavy)
        picked: npt.NDArray[Any] = out[cut]
        return picked

    def _rows(self, number: int, start: int, stop: int, parallel: bool) -> npt.NDArray[Any]:
        """Some rows of a page, shaped like it."""
        page = self.pages[number]
        layout = page.layout
        separate, depth, _, width, contig = layout.shaped
        out = np.empty((separate, depth, stop - start, width, contig), self.dtype)

        def fill(index: int) -> None:
            samples, (s, z, y, x, _) = self._segment(number, index)
            low, high = max(y, start), min(y + samples.shape[1], stop)
            if low < high:
                there = out[s, z : z + samples.shape[0], low - start : high - start, x : x + samples.shape[2]]
                there[...] = samples[: there.shape[0], low - y : high - y, : there.shape[2]]

        across, down = layout.across, -(-layout.shaped[2] // layout.rows)
        some = range(start // layout.rows * across, -(-stop // layout.rows) * across)
        wanted = [first + index for first in range(0, layout.segments, across * down) for index in some]
        _each(fill, wanted, parallel and layout.packed and out.nbytes >= PARALLEL_BYTES)
        channels = out[..., 0] if contig == 1 else np.moveaxis(out[0], -1, 0)
        rows: npt.NDArray[Any] = channels.reshape(*page.shape[:-2], stop - start, width)
        return rows

    def _decoded(self, number: int, index: int) -> Segment:
        page = self.pages[number]
        offset, count = page.offsets[index], page.counts[index]
        data = os.pread(self._file, count, offset) if offset and count else None
        with refusing(self.where, PAGE, REMEDY):
            tables = {"jpegtables": page.tables} if page.layout.jpeg else {}
            samples, place, shape = page.layout.page.decode(data, index, **tables)
            if samples is None:
                samples = np.full(shape, page.layout.page.nodata, self.dtype)
            if samples.dtype != self._native:
                samples = self._same(samples)
            return samples, place

    def _same(self, samples: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Samples of the type that the tags promise, whatever type the codec gives."""
        cast = samples.astype(self.dtype)
        if not np.array_equal(cast, samples):
            raise ValueError(f"samples of type {samples.dtype} in a page of type {self.dtype}")
        return cast


def _each(do: Callable[[Any], None], items: Sequence[Any], parallel: bool) -> None:
    """All items, in so many threads as there are cores, each a run of them."""
    if not parallel or len(items) < 2 or THREADS < 2:
        for item in items:
            do(item)
        return

    def some(first: int) -> None:
        for item in items[first::THREADS]:
            do(item)

    with ThreadPoolExecutor(THREADS) as pool:
        list(pool.map(some, range(THREADS)))


def boxed(key: Any, shape: tuple[int, ...]) -> tuple[list[tuple[int, int, int]], tuple[Any, ...]]:
    """A numpy index of slices and integers as (start, stop, step > 0) an axis, and what is cut from the box then."""
    keys = list(key) if isinstance(key, tuple) else [key]
    if Ellipsis in [part for part in keys if part is Ellipsis]:
        at = next(index for index, part in enumerate(keys) if part is Ellipsis)
        keys[at : at + 1] = [slice(None)] * (len(shape) - len(keys) + 1)
    keys += [slice(None)] * (len(shape) - len(keys))
    bounds: list[tuple[int, int, int]] = []
    cut: list[slice | int] = []
    for part, size in zip(keys, shape, strict=True):
        if isinstance(part, slice):
            start, stop, step = part.indices(size)
            if step < 0:
                raise IndexError("slices run forwards here")
            bounds.append((start, max(start, stop), step))
            cut.append(slice(None))
        else:
            index = range(size)[int(part)]
            bounds.append((index, index + 1, 1))
            cut.append(0)
    return bounds, tuple(cut)


class Moved:
    """Array-like with its axes in another order."""

    def __init__(self, array: Any, order: Sequence[int]):
        self.array, self.order = array, tuple(order)
        self.shape, self.dtype = tuple(array.shape[axis] for axis in order), array.dtype

    def __getitem__(self, key: Any) -> npt.NDArray[Any]:
        bounds, cut = boxed(key, self.shape)
        inner = [slice(None)] * len(self.shape)
        for axis, bound in zip(self.order, bounds, strict=True):
            inner[axis] = slice(*bound)
        found: npt.NDArray[Any] = self.array[tuple(inner)].transpose(self.order)[cut]
        return found


def elements_of(path: Path, pages: Sequence[Page], numbers: npt.NDArray[Any], keep: Any, where: object) -> Any:
    """Array-like of pages in a grid: (*grid, *page), the channels in a pixel moved to the front.

    Mapped where the samples lie in the file as they are, else decoded: at once if they are few.
    """
    pages = [pages[number] for number in numbers.ravel().tolist()]  # others may be of another size and type
    numbers = np.arange(len(pages)).reshape(numbers.shape)
    found: Any = _linear(path, pages, numbers)
    if found is None:
        found = Planes(path, pages, numbers, keep, where)
    most = MAPPED_BYTES if isinstance(found, np.ndarray) else LOADED_BYTES
    if math.prod(found.shape) * found.dtype.itemsize < most:
        found = np.array(found[...])
    grid = numbers.ndim
    if not grid or pages[0].layout.axes[0] != "channel":
        return found
    order = (grid, *range(grid), *range(grid + 1, len(found.shape)))
    return found.transpose(order) if isinstance(found, np.ndarray) else Moved(found, order)


def _linear(path: Path, pages: Sequence[Page], numbers: npt.NDArray[Any]) -> npt.NDArray[Any] | None:
    """The pages as one view of the file, if all lie in it as they are, in even steps along every axis of the grid."""
    starts = [page.linear for page in pages]
    if None in starts:
        return None
    starts_G = np.array(starts, np.int64)[numbers]
    origin, steps, even = int(starts_G.flat[0]), [], np.zeros((), np.int64)
    for axis, size in enumerate(numbers.shape):
        along = np.moveaxis(starts_G, axis, 0).reshape(size, -1)[:, 0]
        steps.append(int(along[1] - along[0]) if size > 1 else 0)
        even = even[..., None] + np.arange(size) * steps[-1]
    if min(steps, default=0) < 0 or not np.array_equal(starts_G, origin + even):
        return None
    layout = pages[0].layout
    *inner, last = np.cumprod((layout.dtype.itemsize, *layout.shaped[:0:-1]))[::-1].tolist()
    file = np.memmap(path, np.uint8, "r")
    view: npt.NDArray[Any] = np.ndarray(
        (*numbers.shape, *layout.shaped), layout.dtype, file, origin, (*steps, *inner, last)
    )
    grid = numbers.ndim
    view = view[..., 0] if layout.shaped[-1] == 1 else np.moveaxis(view.squeeze(grid), -1, grid)
    return view.squeeze(tuple(axis for axis in (grid, grid + 1) if view.shape[axis] == 1))


class Components:
    """Array-like of complex numbers as (component, …): real parts, imaginary parts."""

    def __init__(self, array: Any):
        self.array = array
        self.shape, self.dtype = (2, *array.shape), np.empty(0, array.dtype).real.dtype

    def __getitem__(self, key: Any) -> npt.NDArray[Any]:
        bounds, cut = boxed(key, self.shape)
        found = self.array[tuple(slice(*bound) for bound in bounds[1:])]
        parts: npt.NDArray[Any] = np.stack([found.real, found.imag])[slice(*bounds[0])][cut]
        return parts


class Marks:
    """Array-like of bool: where ``elements`` is NaN or the value that the file says means nothing."""

    def __init__(self, elements: Any, nothing: float | None):
        self.elements, self.nothing = elements, nothing
        self.shape, self.dtype = tuple(elements.shape), np.dtype(np.bool_)

    def __getitem__(self, key: Any) -> npt.NDArray[np.bool_]:
        found = np.asarray(self.elements[key])
        marks = np.isnan(found) if found.dtype.kind == "f" else np.zeros(found.shape, np.bool_)
        return marks if self.nothing is None else marks | (found == self.nothing)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> npt.NDArray[Any]:
        return np.asarray(self[...], dtype)


def marks_of(elements: Any, nothing: float | None) -> Marks | None:
    """Marks of the elements that are NaN or ``nothing``; None if none is. Read a slab at a time."""
    if elements.dtype.kind != "f" and nothing is None:
        return None
    marks = Marks(elements, nothing)
    step = max(1, SLAB_BYTES // max(1, math.prod(elements.shape[1:]) * elements.dtype.itemsize))
    found = any(marks[start : start + step].any() for start in range(0, elements.shape[0], step))
    return marks if found else None
