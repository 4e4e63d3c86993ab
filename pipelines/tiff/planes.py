"""Pages of a TIFF as lazy arrays: mapped where samples lie as they are, else decoded strip by strip or tile by tile."""

import math
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from pathlib import Path
from typing import Any
from weakref import finalize

import numpy as np
import numpy.typing as npt

from pipelines.stored import MAPPED_BYTES, refusing
from pipelines.tiff.pages import PAGE, REMEDY, Page

PARALLEL_BYTES = 1 << 22  # less is decoded before threads have started
CACHED_BYTES = 1 << 27
LOADED_BYTES = 1 << 25  # what takes no more and must be decoded is decoded once
THREADS = min(8, os.cpu_count() or 1)

Segment = tuple[npt.NDArray[Any], tuple[int, ...]]
"""Samples (depth, length, width, samples in a pixel), and where they begin in a page that is shaped."""


class Decoder:
    """Rows of pages of one kind. ``read`` gives so many bytes of the file from an offset on.

    ``segments`` is how many decoded strips or tiles are kept, as more rows of them may be asked for.
    """

    def __init__(self, read: Callable[[int, int], bytes], pages: Sequence[Page], where: object, segments: int = 0):
        self.read, self.pages, self.where = read, pages, where
        self.dtype = pages[0].layout.dtype
        self._native = self.dtype.newbyteorder("=")
        self.segment = lru_cache(maxsize=segments)(self._decoded) if segments else self._decoded

    def rows(self, number: int, start: int, stop: int, parallel: bool) -> npt.NDArray[Any]:
        """Some rows of a page, shaped like it."""
        page = self.pages[number]
        layout = page.layout
        separate, depth, length, width, contig = layout.shaped
        if page.linear is not None:
            return layout.channels_first(self._lying(page, page.linear, start, stop))
        if layout.segments == 1:  # as it was decoded; a tile may be larger
            samples, _ = self.segment(number, 0)
            if all(have >= size for have, size in zip(samples.shape, layout.shaped[1:], strict=True)):
                samples = samples[None, :depth, start:stop, :width]
                return layout.channels_first(samples.astype(self.dtype, copy=False))
        out = np.empty((separate, depth, stop - start, width, contig), self.dtype)

        def fill(index: int) -> None:
            samples, (s, z, y, x, _) = self.segment(number, index)
            low, high = max(y, start), min(y + samples.shape[1], stop)
            if low < high:
                there = out[s, z : z + samples.shape[0], low - start : high - start, x : x + samples.shape[2]]
                there[...] = samples[: there.shape[0], low - y : high - y, : there.shape[2]]

        across, down = layout.across, -(-length // layout.rows)
        some = range(start // layout.rows * across, -(-stop // layout.rows) * across)
        wanted = [first + index for first in range(0, layout.segments, across * down) for index in some]
        _each(fill, wanted, parallel and layout.packed and out.nbytes >= PARALLEL_BYTES)
        return layout.channels_first(out)

    def _lying(self, page: Page, at: int, start: int, stop: int) -> npt.NDArray[Any]:
        """Rows of a page whose samples begin at byte ``at`` of the file, shaped."""
        separate, depth, length, *inner = page.layout.shaped
        if separate * depth > 1:
            data = np.frombuffer(self.read(at, page.bytes), self.dtype).reshape(page.layout.shaped)
            return data[:, :, start:stop]
        row = page.bytes // length
        data = np.frombuffer(self.read(at + start * row, (stop - start) * row), self.dtype)
        return data.reshape(1, 1, stop - start, *inner)

    def _decoded(self, number: int, index: int) -> Segment:
        """A strip or tile, decoded."""
        page = self.pages[number]
        offset, count = page.offsets[index], page.counts[index]
        data = self.read(offset, count) if offset and count else None
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


class Planes:
    """Array-like of pages of one kind: (*grid, *page). ``numbers`` says for each place in the grid which page it is.

    Only the strips or tiles that a slice needs are read and decoded. ``keep`` is held on to as long as the array is.
    """

    def __init__(self, path: Path, pages: Sequence[Page], numbers: npt.NDArray[Any], keep: Any, where: object):
        self.pages, self.numbers, self.keep = pages, numbers, keep
        self.shape = (*numbers.shape, *pages[0].shape)
        self.dtype = pages[0].layout.dtype
        file = os.open(path, os.O_RDONLY)
        finalize(self, os.close, file)
        per_segment = max(1, pages[0].bytes // pages[0].layout.segments)
        read, kept = (lambda offset, size: os.pread(file, size, offset)), max(1, CACHED_BYTES // per_segment)
        self.decoder = Decoder(read, pages, where, kept)

    def __getitem__(self, key: Any) -> npt.NDArray[Any]:
        bounds, cut = boxed(key, self.shape)
        split = self.numbers.ndim
        numbers = self.numbers[tuple(slice(*bound) for bound in bounds[:split])]
        out = np.empty((*numbers.shape, *(len(range(*bound)) for bound in bounds[split:])), self.dtype)
        start, stop, step = bounds[-2]
        inner = (*(slice(*bound) for bound in bounds[split:-2]), slice(0, stop - start, step), slice(*bounds[-1]))

        def fill(place: tuple[int, ...], several: bool) -> None:
            out[place] = self.decoder.rows(int(numbers[place]), start, stop, not several)[inner]

        if out.size:
            places = list(np.ndindex(numbers.shape))
            heavy = self.pages[0].layout.packed and out.nbytes >= PARALLEL_BYTES
            _each(lambda place: fill(place, len(places) > 1), places, heavy)
        picked: npt.NDArray[Any] = out[cut]
        return picked


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


def elements_of(
    path: Path,
    pages: Sequence[Page],
    numbers: npt.NDArray[Any],
    keep: Any,
    where: object,
    read: Callable[[int, int], bytes] | None = None,
) -> Any:
    """Array-like of pages in a grid: (*grid, *page), the channels in a pixel moved to the front.

    Mapped where the samples lie in the file as they are, else decoded: at once if they are few. ``read`` gives so many
    bytes of the file from an offset on, as long as it is open; None: it is opened again.
    """
    if not numbers.ndim and pages[int(numbers)].bytes < MAPPED_BYTES:
        return _little(path, pages[int(numbers)], where, read)
    pages = [pages[number] for number in numbers.ravel().tolist()]  # others may be of another size and type
    numbers = np.arange(len(pages)).reshape(numbers.shape)
    found: Any = _linear(path, pages, numbers)
    if found is None:
        found = Planes(path, pages, numbers, keep, where)
        if math.prod(found.shape) * found.dtype.itemsize < LOADED_BYTES:
            found = found[...]
    elif math.prod(found.shape) * found.dtype.itemsize < MAPPED_BYTES:
        found = np.array(found)
    grid = numbers.ndim
    if not grid or pages[0].layout.axes[0] != "channel":
        return found
    order = (grid, *range(grid), *range(grid + 1, len(found.shape)))
    return found.transpose(order) if isinstance(found, np.ndarray) else Moved(found, order)


def _little(path: Path, page: Page, where: object, read: Callable[[int, int], bytes] | None) -> npt.NDArray[Any]:
    """A little page, read at once."""
    if read is None:
        with path.open("rb") as file:
            return _little(path, page, where, lambda offset, size: os.pread(file.fileno(), size, offset))
    return Decoder(read, [page], where).rows(0, 0, page.layout.shaped[2], parallel=False)


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
    little = path.stat().st_size < MAPPED_BYTES
    file = np.fromfile(path, np.uint8) if little else np.memmap(path, np.uint8, "r")
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
