"""How the elements of a payload lie in its bytes: element <-> offset, region -> spans.

Legend: K axes, slowest first; P digit planes, coarsest first; S spans. An *offset* is an address less the payload's
start. Every layout is a sum, ``offset = plane * plane_extent + sum_k axis_offset(k, index_k)``; layouts differ only in
how an axis' index becomes its part of it:

=======  =============================================================================================================
padded   index * pitch, every axis padded to a power of two: the bit fields of an offset are the coordinates
morton   the same bits, dealt out to the axes in turn from the lowest (Z-order): near elements have near addresses
packed   index * stride of the plain row-major raster, no padding
=======  =============================================================================================================
"""

import json
import math
import re
from collections.abc import Iterable
from dataclasses import dataclass, fields, replace
from functools import cached_property, lru_cache
from operator import attrgetter
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from aunn_data.digits import fit
from aunn_data.errors import RequestError
from aunn_data.spans import joined

Layout = Literal["padded", "packed", "morton"]
Region = tuple[tuple[int, int], ...]
"""Half-open (start, stop) along each axis, within the shape."""

LAYOUTS: tuple[Layout, ...] = get_args(Layout)


@dataclass(frozen=True)
class Geometry:
    """Shape, type and layout of one payload, and what its numbers mean.

    ``dtype`` is numpy's string with byte order (``<i2``). ``axes`` and ``shape`` run from the slowest to the fastest.
    ``offset`` and ``place_values`` are the mixed radix that turns an element into P digits (see ``digits``);
    ``missing_value`` is the ordered integer of elements marked missing, None if each of them keeps its own digits.
    ``spacing`` and ``units`` go with the axes. ``slope`` and ``intercept`` make physical values of stored ones;
    ``affine`` is 4x4, (x, y, z) index -> RAS+ position in the unit of the axes. None is ever applied to stored bytes.
    """

    dtype: str
    axes: tuple[str, ...]
    shape: tuple[int, ...]
    layout: Layout = "padded"
    offset: int = 0
    place_values: tuple[int, ...] = (1,)
    missing_value: int | None = None
    spacing: tuple[float, ...] | None = None
    units: tuple[str, ...] | None = None
    slope: float = 1.0
    intercept: float = 0.0
    affine: tuple[tuple[float, ...], ...] | None = None

    def __post_init__(self) -> None:
        if len(self.axes) != len(self.shape) or len(set(self.axes)) != len(self.axes) or not self.axes:
            raise RequestError(
                "geometry",
                expected="one name for each axis, all different",
                found=f"axes {self.axes} for shape {self.shape}",
                remedy="name every axis once",
            )
        if self.layout not in LAYOUTS:
            raise RequestError(
                "geometry", expected=" or ".join(LAYOUTS), found=repr(self.layout), remedy="choose one of these layouts"
            )

    @cached_property
    def _hash(self) -> int:
        return hash((self.kind, self.dtype, self.offset, self.place_values, self.missing_value))

    def __hash__(self) -> int:
        """Kept: records of one geometry are many."""
        return self._hash

    # ---- to and from JSON --------------------------------------------------------------------------------------

    def to_json(self) -> dict[str, Any]:
        """The fields that differ from their defaults (and always dtype, axes, shape, layout), JSON types only."""
        values = ((field, getattr(self, field.name)) for field in fields(self))
        kept = {"dtype", "axes", "shape", "layout"}
        return {field.name: value for field, value in values if field.name in kept or value != field.default}

    @cached_property
    def line(self) -> str:
        """Its canonical JSON, as headers have it."""
        return json.dumps(self.to_json(), sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)

    @cached_property
    def text(self) -> str:
        """Its JSON as the registry has it."""
        return json.dumps(self.to_json(), sort_keys=True)

    @classmethod
    def from_json(cls, fields: dict[str, Any]) -> "Geometry":
        """Inverse of ``to_json``."""
        return cls(**{name: _tupled(value) for name, value in fields.items()})

    # ---- extents -----------------------------------------------------------------------------------------------

    @cached_property
    def elements(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)

    @cached_property
    def numpy_dtype(self) -> np.dtype[Any]:
        """The element's type."""
        return np.dtype(self.dtype)

    @cached_property
    def is_bytes(self) -> bool:
        """Is an element its own only digit: a byte as it is?"""
        byte = self.numpy_dtype.kind in "ub" and self.numpy_dtype.itemsize == 1
        return byte and self.place_values == (1,) and self.missing_value is None

    @cached_property
    def planes(self) -> int:
        """Number of digit planes P: bytes an element."""
        return len(self.place_values)

    @cached_property
    def kind(self) -> tuple[object, ...]:
        """What records have in common whose bytes lie alike: axes, shape, planes, layout."""
        return self.axes, self.shape, self.planes, self.layout

    @cached_property
    def payload_bytes(self) -> int:
        """Bytes that hold a digit of an element, padding left out."""
        return self.planes * self.elements

    @cached_property
    def plane_extent(self) -> int:
        """Addresses from one digit plane to the next."""
        return self.elements if self.layout == "packed" else 1 << sum(bits_for(size) for size in self.shape)

    @cached_property
    def extent(self) -> int:
        """Addresses the payload takes, padding included; a power of two unless packed."""
        return self.payload_bytes if self.layout == "packed" else self.plane_extent << bits_for(self.planes)

    @cached_property
    def whole(self) -> Region:
        """The region of all elements."""
        return tuple((0, size) for size in self.shape)

    @cached_property
    def all(self) -> tuple[slice, ...]:
        """The region of all elements as an index for numpy."""
        return slices(self.whole)

    # ---- element <-> offset ------------------------------------------------------------------------------------

    @cached_property
    def axis_bits(self) -> tuple[tuple[int, ...], ...]:
        """For each axis the bits of an offset that spell its index, lowest first. Padded and morton only."""
        free = [bits_for(size) for size in self.shape]
        fastest_first = range(len(free) - 1, -1, -1)
        if self.layout == "padded":
            owners = [k for k in fastest_first for _ in range(free[k])]
        else:
            owners = [k for turn in range(max(free)) for k in fastest_first if turn < free[k]]
        return tuple(tuple(bit for bit, owner in enumerate(owners) if owner == k) for k in range(len(free)))

    @cached_property
    def strides(self) -> tuple[int, ...]:
        """Addresses from one index to the next along each axis. Padded and packed only."""
        return tuple(math.prod(self.pitches[k + 1 :]) for k in range(len(self.pitches)))

    @cached_property
    def pitches(self) -> tuple[int, ...]:
        """What each axis counts to, padding included. Padded and packed only."""
        return tuple(size if self.layout == "packed" else 1 << bits_for(size) for size in self.shape)

    def axis_offset(self, axis: int, indices: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """What ``indices`` along ``axis`` add to an element's offset. Same shape, int64."""
        if self.layout != "morton":
            return indices * self.strides[axis]
        offsets = np.zeros_like(indices)
        for low, bit in enumerate(self.axis_bits[axis]):
            offsets |= ((indices >> low) & 1) << bit
        return offsets

    def offsets(self, region: Region) -> npt.NDArray[np.int64]:
        """Offset in plane 0 of every element of a region, shaped like the region."""
        total = np.zeros((), np.int64)
        for axis, (start, stop) in enumerate(region):
            total = total[..., None] + self.axis_offset(axis, np.arange(start, stop, dtype=np.int64))
        return total

    def locate(self, offset: int) -> tuple[tuple[int, ...], int] | None:
        """The element's index and the digit plane whose byte lies at ``offset``; None if that is padding."""
        if not 0 <= offset < self.extent:
            return None
        plane, rest = divmod(offset, self.plane_extent)
        index = []
        if self.layout == "morton":
            index = [sum((rest >> bit & 1) << low for low, bit in enumerate(bits)) for bits in self.axis_bits]
        else:
            for stride in self.strides:
                position, rest = divmod(rest, stride)
                index.append(position)
        inside = plane < self.planes and all(i < size for i, size in zip(index, self.shape, strict=True))
        return (tuple(index), plane) if inside else None

    def box(self, start: int, stop: int) -> tuple[range, Region]:
        """The planes and the region whose elements lie in an aligned power-of-two block. Padded and morton only."""
        free = bits_for(stop - start)
        plane, inner = divmod(start, self.plane_extent)
        planes = range(plane, min(self.planes, plane + max(1, (stop - start) // self.plane_extent)))
        region = []
        for size, bits in zip(self.shape, self.axis_bits, strict=True):
            first = sum((inner >> bit & 1) << low for low, bit in enumerate(bits))
            count = 1 << sum(bit < free for bit in bits)
            region.append((min(first, size), min(first + count, size)))
        return planes, tuple(region)

    # ---- region -> spans ---------------------------------------------------------------------------------------

    def spans(self, region: Region) -> npt.NDArray[np.int64]:
        """(S, 2) int64 half-open offset ranges, ascending and disjoint, that hold the region in every digit plane."""
        if any(start >= stop for start, stop in region):
            return np.empty((0, 2), np.int64)
        if self.layout == "morton":
            starts, run = np.sort(self.offsets(region), axis=None), 1
        else:
            k, run = len(region), 1  # grow the run over the axes that the region covers without a gap
            while k and self.strides[k - 1] == run:
                start, stop = region[k - 1]
                k, run = k - 1, run * (stop - start)
            first = sum(start * self.strides[j] for j, (start, _) in enumerate(region) if j >= k)
            starts = self.offsets(region[:k]).reshape(-1) + first
        planes = np.arange(self.planes, dtype=np.int64)[:, None] * self.plane_extent
        starts = (planes + starts).reshape(-1)
        return joined(np.stack([starts, starts + run], axis=1))

    def parse_region(self, text: str, where: str) -> Region:
        """``z=8:12,y=0:64,x=:`` -> region. An axis not named is taken whole, ``t=3`` is ``t=3:4``.

        Raises RequestError for an unknown axis, bad syntax, an empty range or one outside the shape.
        """
        ranges = dict(zip(self.axes, self.whole, strict=True))
        remedy = "axes and sizes are " + ", ".join(f"{a}={n}" for a, n in zip(self.axes, self.shape, strict=True))
        for part in text.split(","):
            match = re.fullmatch(r"\s*(\w+)=(?:(\d*):(\d*)|(\d+))\s*", part)
            if not match or match[1] not in ranges:
                raise RequestError(where, expected="AXIS=START:STOP,… (z=8:12,x=:)", found=repr(part), remedy=remedy)
            size = self.shape[self.axes.index(match[1])]
            one = match[4]
            start = int(one or match[2] or 0)
            stop = start + 1 if one else int(match[3] or size)
            if not start < stop <= size:
                raise RequestError(
                    where, expected=f"{match[1]} within 0:{size}, not empty", found=f"{start}:{stop}", remedy=remedy
                )
            ranges[match[1]] = (start, stop)
        return tuple(ranges.values())

    def format_region(self, region: Region) -> str:
        """Inverse of ``parse_region``, every axis named."""
        return ",".join(f"{a}={start}:{stop}" for a, (start, stop) in zip(self.axes, region, strict=True))


def fitted(geometry: Geometry, elements: Any, missing: Any = None) -> Geometry:
    """The geometry with the mixed radix that fits these elements: their range becomes the fewest digit planes.

    ``elements`` and ``missing`` are array-likes of ``geometry.shape``, read a slab at a time.
    """
    offset, place_values, missing_value = fit(np.dtype(geometry.dtype), elements, missing)
    if (offset, place_values, missing_value) == (geometry.offset, geometry.place_values, geometry.missing_value):
        return geometry
    return replace(geometry, offset=offset, place_values=place_values, missing_value=missing_value)


def interned(geometries: Iterable[Geometry]) -> list[Geometry]:
    """The same, those of the same JSON as one object: what is worked out for one is kept for all."""
    of_fields: dict[Any, Geometry] = {}
    of_object: dict[int, Geometry] = {}
    found = []
    for geometry in geometries:
        one = of_object.get(id(geometry))
        if one is None:
            one = of_object[id(geometry)] = of_fields.setdefault(_fields(geometry), geometry)
        found.append(one)
    return found


_bits_and_names = attrgetter("dtype", "axes", "shape", "layout", "offset", "place_values", "missing_value", "units")
_numbers = attrgetter("spacing", "slope", "intercept", "affine")
_PLAIN = (None, 1.0, 0.0, None)


def _fields(geometry: Geometry) -> Any:
    """What tells one from another; 1 and 1.0, 0.0 and -0.0 are equal and not the same JSON."""
    numbers = _numbers(geometry)
    return _bits_and_names(geometry), None if numbers == _PLAIN else repr(numbers)


def bits_for(size: int) -> int:
    """Bits that number ``size`` things: 0 for one, 7 for 96."""
    return max(0, size - 1).bit_length()


@lru_cache(maxsize=1024)
def slices(region: Region) -> tuple[slice, ...]:
    """The region as an index for numpy."""
    return tuple(slice(start, stop) for start, stop in region)


def _tupled(value: Any) -> Any:
    return tuple(_tupled(v) for v in value) if isinstance(value, list) else value
