"""How a multi-byte element becomes bytes: mixed radix over the record's own range, coarsest digit first.

Legend: P digit planes. An element has an *ordered integer*: an integer is its own, a float's is its bits in IEEE 754's
total order (sign bit set: all bits inverted, else the sign bit set). Its excess over the record's smallest one is
written in mixed radix with place values w_0 > w_1 > … > w_(P-1) = 1, where w_0 = ceil(count / 256) and
w_(p+1) = ceil(w_p / 256): every digit fits a byte, and the first one follows the value smoothly, without the wrapping
saw of plain low bytes. For 16-bit data this is value // r and value % r.

Arithmetic runs in unsigned integers as wide as the element; signed ones are *biased* by 2^(bits-1) to get there.
"""

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

SLAB_BYTES = 1 << 26  # elements are scanned for their range in slabs of about this size


def place_values_for(count: int) -> tuple[int, ...]:
    """Place values that write ``count`` different integers in the fewest byte digits."""
    values = [-(-count // 256)]
    while values[-1] > 1:
        values.append(-(-values[-1] // 256))
    return tuple(values)


def fit(dtype: np.dtype[Any], elements: Any, missing: Any = None) -> tuple[int, tuple[int, ...], int | None]:
    """(offset, place values, missing value) that fit the elements.

    Elements of one byte without sign are their own digit. Missing elements that all carry the same bits (NaN, a fill
    value) stay out of the range: they are stored as digit 0 and come back through ``missing_value``.
    """
    if missing is None and dtype.kind in "ub" and dtype.itemsize == 1:
        return 0, (1,), None
    bias = _bias(dtype)
    low, high, low_missing, high_missing = 2**64, -1, 2**64, -1
    for slab in _slabs(elements):
        part = np.asarray(elements[slab])
        if missing is None and part.size and part.dtype.kind in "iu":  # as they are compared
            low, high = min(low, int(part.min()) + bias), max(high, int(part.max()) + bias)
            continue
        part = _ends(part) if missing is None and part.size else ordered(part)
        if missing is not None:
            marked = np.asarray(missing[slab])
            if marked.any():
                low_missing = min(low_missing, int(part[marked].min()))
                high_missing = max(high_missing, int(part[marked].max()))
            part = part[~marked]
        if part.size:
            low, high = min(low, int(part.min())), max(high, int(part.max()))
    one_value = low_missing == high_missing
    if not one_value:
        low, high = min(low, low_missing), max(high, high_missing)
    if high < low:
        low = high = 0
    if dtype.kind in "ub" and dtype.itemsize == 1:
        low, high = 0, 255
    return low - bias, place_values_for(high - low + 1), low_missing - bias if one_value else None


def _ends(elements: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Ordered integers of the least and the greatest float at least; comparing says nothing of NaN and -0.0."""
    ends = np.array([elements.min(), elements.max()], elements.dtype)
    plain = ends[0] == ends[0] and ends.all()
    return ordered(ends if plain else elements)


def ordered(elements: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Elements -> their (biased) ordered integers: unsigned, of the same width and order, one to one."""
    unsigned, sign, everything = _unsigned(elements.dtype)
    raw: npt.NDArray[Any] = elements.astype(elements.dtype.newbyteorder("="), copy=False).view(unsigned)
    if elements.dtype.kind == "i":
        raw = raw ^ sign
    elif elements.dtype.kind == "f":
        raw = np.where(raw & sign, raw ^ everything, raw | sign)
    return raw


def unordered(integers: npt.NDArray[Any], dtype: np.dtype[Any]) -> npt.NDArray[Any]:
    """Inverse of ``ordered``: unsigned integers -> elements of ``dtype``."""
    unsigned, sign, everything = _unsigned(dtype)
    raw = integers.astype(unsigned, copy=False)
    if dtype.kind == "i":
        raw = raw ^ sign
    elif dtype.kind == "f":
        raw = np.where(raw & sign, raw ^ sign, raw ^ everything)
    return raw.view(dtype.newbyteorder("=")).astype(dtype, copy=False)


def digits_of(
    elements: npt.NDArray[Any],
    offset: int,
    place_values: tuple[int, ...],
    missing: npt.NDArray[np.bool_] | None = None,
) -> npt.NDArray[np.uint8]:
    """(…) elements -> (P, …) uint8 digits; where ``missing`` is True every digit is 0."""
    rest = ordered(elements)
    number = rest.dtype.type
    if low := offset + _bias(elements.dtype):
        rest = rest - number(low)
    if missing is not None:
        rest = np.where(missing, number(0), rest)
    if rest.dtype == np.uint8 and len(place_values) == 1:
        return rest[None]
    digits_P = np.empty((len(place_values), *rest.shape), np.uint8)
    for plane, place_value in enumerate(place_values):
        digit, rest = np.divmod(rest, number(place_value)) if place_value > 1 else (rest, rest)
        digits_P[plane] = digit
    return digits_P


def elements_of(
    digits_P: npt.NDArray[np.uint8], dtype: np.dtype[Any], offset: int, place_values: tuple[int, ...]
) -> npt.NDArray[Any]:
    """Inverse of ``digits_of``: (P, …) uint8 -> (…) elements of ``dtype``."""
    number = _unsigned(dtype)[0].type
    total = np.full(digits_P.shape[1:], offset + _bias(dtype), number)
    for digit, place_value in zip(digits_P, place_values, strict=True):
        total += digit * number(place_value)
    return unordered(total, dtype)


def expected_elements_of(
    expected_P: npt.NDArray[np.floating[Any]], dtype: np.dtype[Any], offset: int, place_values: tuple[int, ...]
) -> npt.NDArray[Any]:
    """(P, …) expected digits (float) -> (…) the element nearest to the expected value, of ``dtype``.

    The expectation is linear in the digits. For floats it is taken over the ordered integers, which are linear in the
    value within each octave.
    """
    total = np.zeros(expected_P.shape[1:], np.float64)
    for digit, place_value in zip(expected_P, place_values, strict=True):
        total += digit.astype(np.float64) * place_value
    low = offset + _bias(dtype)
    top = (1 << dtype.itemsize * 8) - 1 - low
    # A float64 rounds 2^64 - 1 up to 2^64, which is no uint64: stay one float below.
    limit = float(top) if top < 1 << 53 else float(np.nextafter(float(top), 0))
    return unordered(np.rint(np.clip(total, 0, limit)).astype(np.uint64) + np.uint64(low), dtype)


def value_of(integer: int, dtype: np.dtype[Any]) -> Any:
    """The element (a numpy scalar) whose ordered integer this is."""
    return unordered(np.array([integer + _bias(dtype)], np.uint64), dtype)[0]


def _bias(dtype: np.dtype[Any]) -> int:
    return 1 << dtype.itemsize * 8 - 1 if dtype.kind == "i" else 0


def _unsigned(dtype: np.dtype[Any]) -> tuple[np.dtype[Any], Any, Any]:
    """The native unsigned type as wide as ``dtype``, its highest bit, and all its bits."""
    unsigned, bits = np.dtype(f"u{dtype.itemsize}"), dtype.itemsize * 8
    return unsigned, unsigned.type(1 << (bits - 1)), unsigned.type((1 << bits) - 1)


def _slabs(elements: Any) -> Iterator[tuple[slice, ...]]:
    """Index tuples that cut an array-like along its slowest axis into pieces of about SLAB_BYTES."""
    shape = elements.shape
    row = max(1, math.prod(shape[1:]) * elements.dtype.itemsize)
    step = max(1, SLAB_BYTES // row)
    for start in range(0, shape[0], step):
        yield (slice(start, start + step),)
