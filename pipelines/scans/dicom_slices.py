"""The slices of a DICOM series as one array, read from their files when they are asked for."""

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from pipelines.scans.dicom_file import Dicom
from pipelines.scans.dicom_pixels import HELD_BYTES, Layout, checked, frames_of, is_plain
from pipelines.source import Source
from pipelines.stored import SLAB_BYTES, SMALL_BYTES

Part = tuple[Source, Dicom, Layout]


class Slices:
    """Array-like of shape (C?, *grid, y, x): a slice for every place of the grid, the last axis of which is fastest.

    What is compressed is decoded once, when this is made, into memory or a scratch file, and all else if it is little;
    big slices that are not compressed are read every time.
    """

    def __init__(self, source: Source, parts: Sequence[Part], grid: tuple[int, ...]):
        layout = parts[0][2]
        self.source, self.parts, self.grid = source, list(parts), grid  # the source keeps what was unpacked
        self.channels = (layout.samples,) if layout.samples > 1 else ()
        self.shape = (*self.channels, *grid, layout.rows, layout.columns)
        self.dtype = layout.dtype
        for _, dicom, layout in parts:
            checked(dicom, layout, source.options.limits, len(parts))
        little = math.prod(self.shape) * self.dtype.itemsize <= SMALL_BYTES
        plain = not little and all(is_plain(dicom, layout) for _, dicom, layout in parts)
        self.decoded = None if plain else self._decoded()
        self.parts = [(part, replace(dicom, dataset=None), layout) for part, dicom, layout in parts]

    @property
    def elements(self) -> "npt.NDArray[Any] | Slices":
        """All of them where they are in memory, else itself."""
        if self.decoded is None or isinstance(self.decoded, np.memmap):
            return self
        found = self.decoded.reshape(*self.grid, *self.decoded.shape[1:])
        return np.moveaxis(found, len(self.grid), 0) if self.channels else found

    def _decoded(self) -> npt.NDArray[Any]:
        shape = (len(self.parts), *self.channels, *self.shape[-2:])
        if math.prod(shape) * self.dtype.itemsize <= HELD_BYTES:
            frames = np.empty(shape, self.dtype)
        else:
            frames = np.memmap(self.source.scratch.folder / f"slices-{id(self)}", self.dtype, "w+", 0, shape)
        for number in range(len(self.parts)):
            frames[number] = self._slice(number)
        return frames

    def _slice(self, number: int) -> npt.NDArray[Any]:
        """(C?, y, x) of one file."""
        part, dicom, layout = self.parts[number]
        frame = frames_of(dicom, layout, part)[0]
        return frame if layout.samples == 1 or layout.planar else np.moveaxis(frame, -1, 0)

    def __getitem__(self, key: Any) -> npt.NDArray[Any]:
        slices = self._whole(key)
        depth = len(self.channels)
        on_grid, inside = slices[depth : depth + len(self.grid)], (*slices[:depth], *slices[-2:])
        places = np.arange(len(self.parts)).reshape(self.grid)[tuple(on_grid)]
        size = [len(range(*cut.indices(length))) for cut, length in zip(slices, self.shape, strict=True)]
        out = np.empty((places.size, *size[:depth], *size[-2:]), self.dtype)
        for row, number in zip(out, places.reshape(-1).tolist(), strict=True):
            row[...] = (self._slice(number) if self.decoded is None else self.decoded[number])[inside]
        found = np.moveaxis(out.reshape(*places.shape, *out.shape[1:]), places.ndim, 0) if depth else out.reshape(size)
        given = [part for part in (key if isinstance(key, tuple) else (key,)) if part is not ...]
        numbers = tuple(0 if isinstance(part, int | np.integer) else slice(None) for part in given)
        return found[numbers] if 0 in numbers else found

    def _whole(self, key: Any) -> list[slice]:
        """The key as a slice for every axis."""
        given = list(key) if isinstance(key, tuple) else [key]
        if any(part is ... for part in given):
            at = next(k for k, part in enumerate(given) if part is ...)
            given[at : at + 1] = [slice(None)] * (len(self.shape) - len(given) + 1)
        given += [slice(None)] * (len(self.shape) - len(given))
        return [part if isinstance(part, slice) else slice(part, part + 1 or None) for part in given]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> npt.NDArray[Any]:
        return np.asarray(self[...], dtype)


class PaddingMarks:
    """Array-like of bool: True where an element only pads the picture, so the source has no value there."""

    def __init__(self, elements: Any, low: int, high: int):
        self.elements, self.low, self.high = elements, low, high
        self.shape, self.dtype = elements.shape, np.dtype(np.bool_)

    def __getitem__(self, key: Any) -> npt.NDArray[np.bool_]:
        found = self.elements[key]
        marks: npt.NDArray[np.bool_] = (found >= self.low) & (found <= self.high)
        return marks

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> npt.NDArray[Any]:
        return np.asarray(self[...], dtype)


def padding_marks(elements: Any, pad: tuple[int, int]) -> PaddingMarks | None:
    """Marks of the elements from one value to another; None if there is none, looked for slab by slab."""
    marks = PaddingMarks(elements, *pad)
    step = max(1, SLAB_BYTES // max(1, math.prod(marks.shape[1:]) * elements.dtype.itemsize))
    return marks if any(bool(marks[k : k + step].any()) for k in range(0, marks.shape[0], step)) else None
