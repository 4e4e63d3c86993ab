"""What the readers share: stored bytes as arrays, NaN as marks, what a library raises as one clear InputError."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from aunn_data.errors import InputError
from aunn_data.record import Record
from pipelines.source import Source

# Smaller payloads are read at once: a mapping holds a file descriptor until its batch is committed, and a batch may
# have thousands of records.
MAPPED_BYTES = 1 << 20
SMALL_BYTES = 1 << 24  # bytes as they are: fewer are read at once, and out of a compressed file need none of their own
SLAB_BYTES = 1 << 26


class Marks:
    """Array-like of bool, True where ``elements`` is NaN or the value that means nothing; worked out slice by slice."""

    def __init__(self, elements: Any, nothing: float | None):
        self.elements, self.nothing = elements, nothing
        self.shape, self.dtype = tuple(elements.shape), np.dtype(np.bool_)

    def __getitem__(self, key: Any) -> npt.NDArray[np.bool_]:
        found = np.asarray(self.elements[key])
        marks = np.isnan(found) if found.dtype.kind == "f" else np.zeros(found.shape, np.bool_)
        return marks if self.nothing is None else marks | (found == self.nothing)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> npt.NDArray[Any]:
        return np.asarray(self[...], dtype)


def marks_of(elements: Any, nothing: float | None = None) -> Marks | None:
    """Marks of the elements that are NaN or ``nothing``; None if none is. Read a slab at a time."""
    if elements.dtype.kind != "f" and nothing is None:
        return None
    marks = Marks(elements, nothing)
    step = max(1, SLAB_BYTES // max(1, math.prod(elements.shape[1:]) * elements.dtype.itemsize))
    found = any(marks[start : start + step].any() for start in range(0, elements.shape[0], step))
    return marks if found else None


class Refusing:
    """Turns what a library raises on bad bytes (any exception at all) into an InputError; a context."""

    def __init__(self, where: object, expected: str, remedy: str):
        self.where, self.expected, self.remedy = where, expected, remedy

    def __enter__(self) -> "Refusing":
        """Itself, as what is read may become known only there."""
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        """InputErrors, and what is no error (GeneratorExit), go on as they are."""
        if isinstance(error, Exception) and not isinstance(error, InputError):
            found = f"{type(error).__name__}: {error}"
            raise InputError(self.where, expected=self.expected, found=found, remedy=self.remedy) from error


refusing = Refusing  # read as a verb: with refusing(path, "an image that decodes", "restore it")


def element_bytes(where: object, shape: Sequence[int], itemsize: int, available: int) -> int:
    """Bytes of an array of this shape. InputError if it has no elements, or more than there are bytes for."""
    needed = math.prod(shape) * itemsize
    if min(shape, default=1) < 1:
        raise InputError(
            where, expected="at least one element", found=f"shape {tuple(shape)}", remedy="leave the file out"
        )
    if needed > available:
        raise InputError(
            where,
            expected=f"{needed} bytes for shape {tuple(shape)}",
            found=f"{available}",
            remedy="the file is cut short or its header damaged: restore it",
        )
    return needed


def stored(
    path: Path, dtype: np.dtype[Any], shape: tuple[int, ...], offset: int = 0, whole: bytes | None = None
) -> npt.NDArray[Any]:
    """The array that lies in a file from ``offset`` on, row-major: mapped when big, read when small.

    ``whole`` are the file's bytes where they have been read already.
    """
    if math.prod(shape) * dtype.itemsize >= MAPPED_BYTES:
        return np.memmap(path, dtype, "r", offset, shape)
    if whole is not None:
        return np.frombuffer(whole, dtype, math.prod(shape), offset).reshape(shape)
    return np.fromfile(path, dtype, math.prod(shape), offset=offset).reshape(shape)


def bytes_of(source: Source) -> npt.NDArray[np.uint8]:
    """All bytes of a source, uncompressed: (N,), mapped when they are many, read when they are few."""
    if source.codecs and (data := source.unpacked(SMALL_BYTES)) is not None:
        return np.frombuffer(data, np.uint8)
    if (whole := source.whole) is not None:
        return np.frombuffer(whole, np.uint8)
    path = source.local()
    size = path.stat().st_size
    return np.fromfile(path, np.uint8) if size < SMALL_BYTES else np.memmap(path, np.uint8, "r")


def only(records: Sequence[Record], path: Path) -> Record:
    """The one record of a file that holds one."""
    if len(records) != 1:
        raise InputError(
            path, expected="one record for this file", found=f"{len(records)}", remedy="export them one by one"
        )
    return records[0]
