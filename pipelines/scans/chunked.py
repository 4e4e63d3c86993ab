"""Elements that lie in chunks, some of which may not be stored: read a box at a time, what is not stored never.

What is small is read at once. What is big stays where it is: its range is found in pieces of stored chunks, one after
another, and a region without a stored chunk costs neither time nor memory.

Legend: K axes; N stored chunks, each by its place in the grid of chunks.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from aunn_data import digits
from aunn_data.errors import InputError
from aunn_data.geometry import Geometry, Region, fitted, slices
from aunn_data.header import Header
from aunn_data.record import Record
from pipelines.options import Limits

AXES = ("t", "z", "y", "x")
AT_ONCE_BYTES = 1 << 25  # elements that take no more are read at once: no file stays open for them
PIECE_BYTES = 1 << 24  # of elements that are read together to find their range …
PIECE_CHUNKS = 64  # … and chunks that are asked for together although most of them may not be stored
MOST_AXES = 32
FREE_BYTES = 1 << 32  # elements that a source may have for nothing: chunks that are not stored, or all alike

Array = npt.NDArray[Any]
Mask = npt.NDArray[np.bool_]
Grid = npt.NDArray[np.int64]
"""(N, K) places of chunks in their grid."""


class Chunked:
    """Array-like of ``shape`` and ``dtype``. ``read(region)`` gives the elements of a box, those not stored filled in.

    ``stored`` are the chunks that are stored, None if all are. ``fill`` is what the others read as.
    """

    def __init__(
        self,
        shape: tuple[int, ...],
        dtype: np.dtype[Any],
        chunk: tuple[int, ...],
        read: Callable[[Region], Array],
        stored: Grid | None = None,
        fill: Any = 0,
    ):
        self.shape, self.dtype, self.chunk, self._read = shape, dtype, chunk, read
        self.grid = tuple(-(-size // edge) for size, edge in zip(shape, chunk, strict=True))
        self.stored = None if stored is None or len(stored) == math.prod(self.grid) else stored
        self.fill = np.asarray(fill).astype(dtype)
        self._last: tuple[Region, Array] | None = None  # the marks of a box are asked for after its elements
        self.keeps_last = False

    @property
    def nbytes(self) -> int:
        """Bytes of all elements."""
        return math.prod(self.shape) * self.dtype.itemsize

    def __getitem__(self, key: Any) -> Array:
        region, rest = _region(key, self.shape)
        values: Array = self.box(region)[rest]
        return values

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Array:
        return np.asarray(self[...], dtype)

    def box(self, region: Region) -> Array:
        """The elements of a box; not to be written to."""
        if self._last is not None and self._last[0] == region:
            return self._last[1]
        pieces = list(self.pieces(region))
        if not pieces:
            values = np.broadcast_to(self.fill, [stop - start for start, stop in region])
        elif len(pieces) == 1 and pieces[0] == region:
            values = self._read(region)
        else:
            values = self._patched(region, pieces)
        if self.keeps_last:
            self._last = region, values
        return values

    def constant(self, region: Region) -> bool:
        """Is nothing of a region stored, so that all its elements are the fill value?"""
        return self.stored is not None and not len(self._within(*_chunks(region, self.chunk), self.stored))

    def pieces(self, region: Region | None = None, most: int | None = None) -> Iterator[Region]:
        """Disjoint boxes that hold all stored elements of a region; of ``most`` bytes unless one chunk is bigger."""
        region = region or tuple((0, size) for size in self.shape)
        if any(start >= stop for start, stop in region):
            return
        first = np.array([start // edge for (start, _), edge in zip(region, self.chunk, strict=True)], np.int64)
        last = np.array([-(-stop // edge) for (_, stop), edge in zip(region, self.chunk, strict=True)], np.int64)
        for low, high in self._split(first, last, self._within(first, last, self.stored), most):
            yield tuple(
                (max(start, int(a) * edge), min(stop, int(b) * edge))
                for (start, stop), a, b, edge in zip(region, low, high, self.chunk, strict=True)
            )

    def absent(self, region: Region) -> Mask:
        """Where the elements of a box are not stored."""
        shape = [stop - start for start, stop in region]
        if self.stored is None:
            return np.broadcast_to(np.False_, shape)
        mask = np.ones(shape, np.bool_)
        for place in self._within(*_chunks(region, self.chunk), self.stored):
            ends = zip(place.tolist(), self.chunk, region, strict=True)
            mask[tuple(slice(max(0, n * edge - start), (n + 1) * edge - start) for n, edge, (start, _) in ends)] = False
        return mask

    def _patched(self, region: Region, pieces: Sequence[Region]) -> Array:
        values = np.full([stop - start for start, stop in region], self.fill, self.dtype)
        for piece in pieces:
            into = tuple(slice(a - start, b - start) for (a, b), (start, _) in zip(piece, region, strict=True))
            values[into] = self._read(piece)
        return values

    def _within(self, low: Grid, high: Grid, stored: Grid | None) -> Any:
        return stored if stored is None else stored[((stored >= low) & (stored < high)).all(axis=1)]

    def _split(self, low: Grid, high: Grid, stored: Grid | None, most: int | None) -> Iterator[tuple[Grid, Grid]]:
        """Halves a box of the grid until it is small enough and mostly stored; leaves out what is not stored."""
        count = math.prod((high - low).tolist())
        known = count if stored is None else len(stored)
        if not known:
            return
        small = most is None or count * math.prod(self.chunk) * self.dtype.itemsize <= most
        if count == 1 or (small and count <= max(PIECE_CHUNKS, 2 * known)):
            yield low, high
            return
        axis = int(np.argmax(high - low > 1))
        middle = (low[axis] + high[axis]) // 2
        for cut, side in ((high, middle), (low, middle)):
            part = cut.copy()
            part[axis] = side
            ends = (low, part) if cut is high else (part, high)
            yield from self._split(*ends, self._within(*ends, stored), most)


@dataclass
class Marks:
    """Array-like of bool, True where elements are missing: NaN, equal to ``value``, in a chunk ``absent``.

    The parts of complex elements are marked one by one, the parts slowest.
    """

    elements: Chunked
    value: Any = None
    absent: bool = False

    def __post_init__(self) -> None:
        parts = (2,) if self.elements.dtype.kind == "c" else ()
        self.shape, self.dtype = (*parts, *self.elements.shape), np.dtype(np.bool_)

    def __getitem__(self, key: Any) -> Mask:
        region, rest = _region(key, self.shape)
        parts = len(self.shape) - len(self.elements.shape)
        marks: Mask = self.box(region[parts:])[slices(region[:parts])][rest]
        return marks

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Array:
        return np.asarray(self[...], dtype)

    def any(self, axis: Any = None, out: Any = None) -> bool:
        """What numpy.any asks for; there are no marks of a record without missing elements (see ``recorded``)."""
        return True

    def box(self, region: Region) -> Mask:
        """The marks of a box."""
        marks = self.of(self.elements.box(region))
        return marks | self.elements.absent(region) if self.absent else marks

    def of(self, values: Array) -> Mask:
        """The marks of elements that are stored."""
        values = _parted(values)
        marks = np.isnan(values) if values.dtype.kind == "f" else np.zeros(values.shape, np.bool_)
        return marks if self.value is None else marks | (values == self.value)


class Components:
    """Array-like of the real and imaginary parts of complex elements, the parts slowest."""

    def __init__(self, whole: Chunked):
        self.whole, self.shape, self.dtype = whole, (2, *whole.shape), part_of(whole.dtype)

    def __getitem__(self, key: Any) -> Array:
        region, rest = _region(key, self.shape)
        values: Array = _parted(self.whole.box(region[1:]))[slices(region[:1])][rest]
        return values

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Array:
        return np.asarray(self[...], dtype)


class _Pieces:
    """What ``fitted`` reads instead of all elements: a row a piece of stored chunks, and one for those not stored."""

    def __init__(self, marks: Marks):
        self.marks, self.elements = marks, marks.elements
        self.pieces: list[Region | None] = list(self.elements.pieces(None, PIECE_BYTES))
        if self.elements.stored is not None:
            self.pieces.append(None)
        self.dtype = part_of(self.elements.dtype)
        self.shape = (len(self.pieces), digits.SLAB_BYTES // self.dtype.itemsize)  # fitted takes them one by one

    def __getitem__(self, key: tuple[slice]) -> Array:
        piece = self.pieces[key[0].start]
        return _parted(self.elements.fill.reshape(1) if piece is None else self.elements.box(piece))


class _MarksOfPieces:
    """The same for marks; ``found`` says whether there were any."""

    def __init__(self, pieces: _Pieces):
        self.of, self.found = pieces, False

    def __getitem__(self, key: tuple[slice]) -> Mask:
        piece, marks = self.of.pieces[key[0].start], self.of.marks
        found = marks.of(self.of.elements.fill.reshape(1)) | marks.absent if piece is None else marks.box(piece)
        self.found = self.found or bool(found.any())
        return found


def recorded(header: Header, marks: Marks) -> Record:
    """The record of elements in chunks, its geometry fitted; the parts of complex elements become the slowest axis."""
    elements, geometry = marks.elements, header.geometry
    if elements.dtype.kind == "c":
        geometry = replace(
            geometry,
            dtype=part_of(elements.dtype).str,
            axes=("component", *geometry.axes),
            shape=(2, *geometry.shape),
            spacing=geometry.spacing and (1.0, *geometry.spacing),
            units=geometry.units and ("", *geometry.units),
        )
    take = _at_once if elements.nbytes <= AT_ONCE_BYTES else _later
    geometry, values, missing = take(geometry, marks)
    return Record(replace(header, geometry=geometry), values, missing)


def checked(where: object, dtype: np.dtype[Any], shape: Sequence[int], size: int, limits: Limits) -> None:
    """InputError for elements that are no numbers, none, too many, or far too many for a source of ``size`` bytes."""
    if dtype.kind not in "biufc" or dtype.itemsize > (16 if dtype.kind == "c" else 8):
        raise InputError(
            where,
            expected="numbers or bools of at most 64 bits",
            found=f"elements of type {dtype}",
            remedy="convert it to numbers; text goes in as text files",
        )
    if len(shape) > MOST_AXES:
        raise InputError(where, expected=f"at most {MOST_AXES} axes", found=f"{len(shape)}", remedy="reshape it")
    count = math.prod(shape)
    if count < 1 or min(shape, default=1) < 1:
        raise InputError(where, expected="at least one element", found=f"shape {tuple(shape)}", remedy="leave it out")
    most = min(limits.max_elements, int(max(FREE_BYTES, limits.max_ratio * size)) // dtype.itemsize)
    if count > most:
        raise InputError(
            where,
            expected=f"at most {most} elements for {size} bytes on disk",
            found=f"{count}, shape {tuple(shape)}",
            remedy="raise max_elements or max_ratio if you trust it",
        )


def axis_names(names: Sequence[Any] | None, count: int) -> tuple[str, ...]:
    """The names given if they are one word for each axis, all different; else those that every scan has."""
    given = [name if isinstance(name, str) and name.isidentifier() else None for name in names or ()]
    if len(given) == count == len({*given} - {None}):
        return tuple(str(name) for name in given)
    return AXES[-count:] if count <= len(AXES) else tuple(f"axis{k}" for k in range(count))


def part_of(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """The type of a complex number's parts; any other type is its own."""
    return np.dtype(f"{dtype.str[0]}f{dtype.itemsize // 2}") if dtype.kind == "c" else dtype


def whole_of(record: Record) -> Any:
    """The elements with complex numbers put together again: an array, or as they were where there are none."""
    if record.header.geometry.axes[0] != "component":
        return record.elements
    parts = np.ascontiguousarray(np.moveaxis(np.asarray(record.elements), 0, -1))
    return parts.view(f"{parts.dtype.str[0]}c{2 * parts.dtype.itemsize}")[..., 0]


def _at_once(geometry: Geometry, marks: Marks) -> tuple[Geometry, Any, Any]:
    values = np.ascontiguousarray(marks.elements[...])
    missing = marks.of(values)
    if marks.absent:
        missing = missing | marks.elements.absent(tuple((0, size) for size in values.shape))
    kept = missing if missing.any() else None
    values = _parted(values)
    return fitted(geometry, values, kept), values, kept


def _later(geometry: Geometry, marks: Marks) -> tuple[Geometry, Any, Any]:
    elements = marks.elements
    nothing = elements.dtype.kind not in "fc" and marks.value is None
    if nothing and not (marks.absent and elements.stored is not None):
        return fitted(geometry, _Pieces(marks)), elements, None  # bytes without sign are not even read for it
    pieces = _Pieces(marks)
    elements.keeps_last = True
    found = _MarksOfPieces(pieces)
    geometry = fitted(geometry, pieces, found)
    elements.keeps_last, elements._last = found.found, None
    values = Components(elements) if elements.dtype.kind == "c" else elements
    return geometry, values, marks if found.found else None


def _parted(values: Array) -> Array:
    """(…) complex -> (2, …) parts; anything else as it is."""
    return np.stack([values.real, values.imag]) if values.dtype.kind == "c" else values


def _chunks(region: Region, chunk: tuple[int, ...]) -> tuple[Grid, Grid]:
    """The box of the grid whose chunks a region meets."""
    low = [start // edge for (start, _), edge in zip(region, chunk, strict=True)]
    high = [-(-stop // edge) for (_, stop), edge in zip(region, chunk, strict=True)]
    return np.array(low, np.int64), np.array(high, np.int64)


def _region(key: Any, shape: tuple[int, ...]) -> tuple[Region, tuple[Any, ...]]:
    """A numpy index of slices and integers -> the box that holds it, and the index within that box."""
    keys = list(key) if isinstance(key, tuple) else [key]
    at = next((n for n, part in enumerate(keys) if part is Ellipsis), len(keys))
    keys[at : at + 1] = [slice(None)] * (len(shape) - len(keys) + (at < len(keys)))
    region, rest = [], []
    for part, size in zip(keys, shape, strict=True):
        place = part if isinstance(part, slice) else slice(part % size, part % size + 1)
        start, stop, step = place.indices(size)
        region.append((start, max(start, stop)))
        rest.append(slice(None, None, step) if isinstance(part, slice) else 0)
    return tuple(region), tuple(rest)
