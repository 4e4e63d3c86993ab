"""Elements <-> the bytes of a payload, a block at a time, so that no volume need be in memory whole.

Legend: P digit planes. A *block* is a range of offsets of a payload: aligned and a power of two long (or the whole
payload) for padded and morton layouts, any range for packed ones.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from aunn_data import digits
from aunn_data.geometry import Geometry, Region, slices
from aunn_data.spans import Spans, joined

SLAB_BYTES = 1 << 26  # a region is decoded in pieces whose covering span is at most about this long

Bytes = npt.NDArray[np.uint8]
Mask = npt.NDArray[np.bool_]


def blocks(geometry: Geometry, size: int, first: int = 0) -> Iterator[tuple[int, int]]:
    """Offset ranges that cover the payload, ascending, cut where ``first + offset`` is a multiple of ``size``."""
    start = 0
    while start < geometry.extent:
        stop = min(geometry.extent, start + size - (first + start) % size)
        yield start, stop
        start = stop


def encode(geometry: Geometry, elements: Any, start: int, stop: int, missing: Any = None) -> Bytes | None:
    """The bytes of a block, uint8[stop - start], padding 0; None if no element lies in it."""
    block = np.zeros(stop - start, np.uint8)
    return block if encode_into(block, geometry, elements, start, missing) else None


def encode_into(block: Bytes, geometry: Geometry, elements: Any, start: int, missing: Any = None) -> bool:
    """Writes the bytes of a block, which holds zeros, into it; False if no element lies in it."""
    if geometry.is_bytes and len(block) == geometry.extent and geometry.layout != "morton":  # the same, much faster
        stored = np.asarray(elements[geometry.all], geometry.numpy_dtype)
        block.reshape(geometry.pitches)[geometry.all] = stored.view(np.uint8)  # a bool may be any byte but 0
        return True

    def planes_of(region: Region) -> Bytes:
        cut = slices(region)
        stored = np.asarray(elements[cut], geometry.numpy_dtype)
        if geometry.is_bytes:
            return stored.view(np.uint8)[None]
        if missing is None and not any(stored.strides):  # one value all over, such as that of chunks not stored
            digits_P = digits.digits_of(stored[(slice(0, 1),) * stored.ndim], geometry.offset, geometry.place_values)
            return np.broadcast_to(digits_P, (geometry.planes, *stored.shape))
        masked = None if missing is None or geometry.missing_value is None else np.asarray(missing[cut])
        return digits.digits_of(stored, geometry.offset, geometry.place_values, masked)

    return _fill(geometry, block, start, planes_of)


def encode_whole(block: Bytes, geometry: Geometry, elements: Any, missing: Any = None) -> Any:
    """Writes all bytes of a payload into its block; returns those that hold elements, as ``element_bytes``."""
    if not geometry.is_bytes or geometry.layout == "morton":
        encode_into(block, geometry, elements, 0, missing)
        return element_bytes(geometry, block, 0)
    stored = np.ascontiguousarray(elements[geometry.all], geometry.numpy_dtype).view(np.uint8)
    if geometry.layout == "packed":
        block[:] = stored.reshape(-1)
    else:
        block.reshape(geometry.pitches)[geometry.all] = stored
    return stored


def encode_many(
    block: Bytes, geometries: Sequence[Geometry], elements: Sequence[Any], starts: Sequence[int]
) -> Bytes | None:
    """``encode_whole`` for N payloads that begin at ``starts`` of a block, in one go: (N, bytes) of elements.

    Only for arrays of bytes of one padded geometry that lie evenly in the block; else None, and nothing is written.
    """
    geometry, count, period = geometries[0], len(starts), 2 * starts[0]
    if not geometry.is_bytes or geometry.layout != "padded" or len(block) != period * count:
        return None
    if any(g is not geometry for g in geometries) or starts[-1] != len(block) - starts[0]:
        return None
    shape, dtype = geometry.shape, geometry.numpy_dtype
    if any(type(e) is not np.ndarray or e.shape != shape or e.dtype != dtype for e in elements):
        return None
    stored = np.concatenate(elements).view(np.uint8).reshape(count, *geometry.shape)
    places = block.reshape(count, period)[:, starts[0] : starts[0] + geometry.extent]
    places.reshape(count, *geometry.pitches)[(slice(None), *geometry.all)] = stored
    return stored.reshape(count, -1)


def encode_missing_into(block: Mask, geometry: Geometry, missing: Any, start: int) -> bool:
    """The same for marks: True at every byte of a missing element."""

    def planes_of(region: Region) -> Mask:
        marks = np.asarray(missing[slices(region)], np.bool_)
        return np.broadcast_to(marks, (geometry.planes, *marks.shape))

    return _fill(geometry, block, start, planes_of)


def holds_elements(geometry: Geometry, start: int, stop: int) -> bool:
    """Does an element lie in a block?"""
    if geometry.layout == "packed":
        return start < min(stop, geometry.extent)
    planes, region = _box(geometry, start, stop)
    return bool(planes) and all(low < high for low, high in region)


def is_cut_freely(geometry: Geometry) -> bool:
    """Does a piece of a block cost no more than its share? A packed one takes whole rows of the slowest axis."""
    return geometry.layout != "packed" or geometry.elements == geometry.shape[0]


def bytes_within(geometry: Geometry, start: int, stop: int) -> int:
    """How many bytes of a block hold elements."""
    if geometry.layout == "packed":
        return max(0, min(stop, geometry.extent) - start)
    planes, region = _box(geometry, start, stop)
    return len(planes) * math.prod(max(0, high - low) for low, high in region)


class _Loaded:
    """A part of an array-like in memory, sliced as the whole would be."""

    def __init__(self, part: npt.NDArray[Any], region: Region):
        self.part, self.lows, self.dtype = part, [low for low, _ in region], part.dtype

    def __getitem__(self, key: tuple[slice, ...]) -> npt.NDArray[Any]:
        return self.part[tuple(slice(k.start - low, k.stop - low) for k, low in zip(key, self.lows, strict=True))]


def loaded(geometry: Geometry, elements: Any, start: int, stop: int) -> Any:
    """The elements of a block (or their marks), to be read in pieces: what is no array is read for all of it at once.

    It may have chunks of its own (a compressed page, say), which each piece would decode again.
    """
    if elements is None or isinstance(elements, np.ndarray) or geometry.layout == "packed":
        return elements
    region = _box(geometry, start, stop)[1]
    return _Loaded(np.asarray(elements[slices(region)]), region)


def alike(geometry: Geometry, elements: Any, missing: Any, start: int, stop: int) -> tuple[object, ...] | None:
    """What a block has in common with all of the same bytes, known without reading; None where it is not known."""
    constant = getattr(elements, "constant", None)
    if constant is None or missing is not None or geometry.layout == "packed":
        return None
    planes, region = _box(geometry, start, stop)
    return (planes, [high - low for low, high in region]) if constant(region) else None


def held(geometry: Geometry, start: int, stop: int, piece: int) -> Spans:
    """(S, 2) offsets in a block, multiples of the power of two ``piece``, outside of which no element lies."""
    if geometry.layout == "packed":
        return np.array([[start, stop]], np.int64)
    first_N = np.arange(start, stop, piece, dtype=np.int64)
    plane_N, inner_N = np.divmod(first_N, geometry.plane_extent)
    inside_N = plane_N < geometry.planes
    for size, bits in zip(geometry.shape, geometry.axis_bits, strict=True):
        index_N = np.zeros_like(inner_N)  # the smallest in the piece, as the bits within it are 0
        for low, bit in enumerate(bits):
            index_N |= (inner_N >> bit & 1) << low
        inside_N &= index_N < size
    first_N = first_N[inside_N]
    return joined(np.stack([first_N, np.minimum(first_N + piece, stop)], axis=1))


def element_bytes(geometry: Geometry, block: Bytes, start: int) -> memoryview:
    """The bytes of a block that hold elements, in ascending order of address, padding left out (for hashing)."""
    if geometry.layout == "packed":
        return block.data
    if geometry.is_bytes and len(block) == geometry.extent and geometry.layout == "padded":
        return np.ascontiguousarray(block.reshape(geometry.pitches)[geometry.all]).reshape(-1).data
    planes, region = _box(geometry, start, start + len(block))
    if any(low >= high for low, high in region):
        return memoryview(b"")
    if geometry.layout == "padded":
        return np.ascontiguousarray(_view(geometry, block, start, planes, region)).reshape(-1).data
    return block[np.sort(_positions(geometry, start, planes, region), axis=None)].data


def decode(geometry: Geometry, read: Callable[[int, int], Any], region: Region) -> npt.NDArray[Any]:
    """The elements of a region. ``read(start, stop)`` gives the bytes at those offsets of the payload."""
    out = np.empty([stop - start for start, stop in region], geometry.dtype)

    def take(planes_P: Bytes) -> npt.NDArray[Any]:
        return digits.elements_of(planes_P, np.dtype(geometry.dtype), geometry.offset, geometry.place_values)

    _gather(geometry, read, region, out, take)
    return out


def decode_missing(geometry: Geometry, read: Callable[[int, int], Any], region: Region) -> Mask:
    """The marks of a region, bool. ``read`` gives marks of bytes; the first plane's are the element's."""
    out = np.empty([stop - start for start, stop in region], np.bool_)
    _gather(geometry, read, region, out, lambda planes_P: planes_P[0].astype(np.bool_))
    return out


def restore_missing(geometry: Geometry, elements: npt.NDArray[Any], missing: Mask) -> npt.NDArray[Any]:
    """Elements with the missing value put back where they are marked."""
    if geometry.missing_value is not None:
        elements[missing] = digits.value_of(geometry.missing_value, np.dtype(geometry.dtype))
    return elements


def _fill(geometry: Geometry, block: npt.NDArray[Any], start: int, planes_of: Callable[[Region], Any]) -> bool:
    if geometry.layout == "packed":
        _fill_packed(geometry, block, start, planes_of)
        return bool(block.size)
    planes, region = _box(geometry, start, start + len(block))
    if not planes or any(low >= high for low, high in region):
        return False
    values_P = planes_of(region)[planes.start : planes.stop]
    if geometry.layout == "padded":
        _view(geometry, block, start, planes, region)[...] = values_P
    else:
        block[_positions(geometry, start, planes, region)] = values_P
    return True


def _box(geometry: Geometry, start: int, stop: int) -> tuple[range, Region]:
    if stop - start == geometry.extent:
        return range(geometry.planes), geometry.whole
    return geometry.box(start, stop)


def _fill_packed(geometry: Geometry, block: npt.NDArray[Any], start: int, planes_of: Callable[[Region], Any]) -> None:
    """A packed block may begin and end amid a row: take whole rows of the slowest axis and cut."""
    if not block.size:
        return
    row, stop = geometry.elements // geometry.shape[0], start + len(block)
    for plane in range(start // geometry.elements, -(-stop // geometry.elements)):
        base = plane * geometry.elements
        low, high = max(start - base, 0), min(stop - base, geometry.elements)
        first, last = low // row, -(-high // row)
        flat = planes_of(((first, last), *geometry.whole[1:]))[plane].reshape(-1)
        block[base + low - start : base + high - start] = flat[low - first * row : high - first * row]


def _gather(
    geometry: Geometry,
    read: Callable[[int, int], Any],
    region: Region,
    out: npt.NDArray[Any],
    take: Callable[[Any], npt.NDArray[Any]],
) -> None:
    if out.size == 0:
        return
    low, high = _cover(geometry, region)
    widest = next((k for k, (a, b) in enumerate(region) if b - a > 1), None)
    if high - low > SLAB_BYTES and widest is not None:
        a, b = region[widest]
        middle = a + max(1, 1 << ((b - a - 1).bit_length() - 1))
        for part in ((a, middle), (middle, b)):
            half = (*region[:widest], part, *region[widest + 1 :])
            where = (slice(None),) * widest + (slice(part[0] - a, part[1] - a),)
            _gather(geometry, read, half, out[where], take)
        return
    planes_P = np.empty((geometry.planes, *out.shape), np.uint8)
    for plane in range(geometry.planes):
        base = plane * geometry.plane_extent
        block = np.asarray(read(base + low, base + high)).view(np.uint8)
        if geometry.layout == "morton":
            planes_P[plane] = block[_positions(geometry, low, range(1), region)[0]]
        else:
            planes_P[plane] = _view(geometry, block, low, range(1), region)[0]
    out[...] = take(planes_P)


def _cover(geometry: Geometry, region: Region) -> tuple[int, int]:
    """The shortest offset range in plane 0 that holds a region that is not empty."""
    ends = np.array(region, np.int64)
    corner = [geometry.axis_offset(k, np.array([start, stop - 1])) for k, (start, stop) in enumerate(ends)]
    if geometry.layout != "morton":
        return int(sum(c[0] for c in corner)), int(sum(c[1] for c in corner)) + 1
    offsets = [geometry.axis_offset(k, np.arange(start, stop)) for k, (start, stop) in enumerate(ends)]
    return int(sum(o.min() for o in offsets)), int(sum(o.max() for o in offsets)) + 1


def _view(geometry: Geometry, block: npt.NDArray[Any], start: int, planes: range, region: Region) -> npt.NDArray[Any]:
    """A (planes, *region) view into a block of a padded or packed payload."""
    if geometry.layout == "padded" and len(block) == geometry.extent:  # the same view, made much faster
        return block.reshape(-1, *geometry.pitches)[planes.start : planes.stop, *slices(region)]
    first = planes.start * geometry.plane_extent + sum(
        low * stride for (low, _), stride in zip(region, geometry.strides, strict=True)
    )
    return np.lib.stride_tricks.as_strided(
        block[first - start :],
        (len(planes), *(high - low for low, high in region)),
        tuple(stride * block.itemsize for stride in (geometry.plane_extent, *geometry.strides)),
    )


def _positions(geometry: Geometry, start: int, planes: range, region: Region) -> npt.NDArray[np.int64]:
    """(planes, *region) places in a block of a morton payload."""
    base = np.array(planes, np.int64) * geometry.plane_extent - start
    return base.reshape(-1, *[1] * len(region)) + geometry.offsets(region)
