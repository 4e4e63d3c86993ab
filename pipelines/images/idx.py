"""idx, the format of MNIST and its relatives: http://yann.lecun.com/exdb/mnist/

Two zero bytes, the type, the number of axes, their sizes (uint32), the elements; all big-endian, the last axis fastest.
Three axes and more are a stack of items, each a record ``name#k``; they share one geometry, fitted to the whole file.
One or two axes (labels, tables) are one record with the axes item and column.

Labels beside images (``…-labels-idx1-ubyte`` beside ``…-images-idx3-ubyte``), as many as there are images, also stand
in the images' metadata: ``label``, a number, or a list where each has several.
"""

import math
import re
import struct
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from aunn_data.errors import InputError
from aunn_data.geometry import Geometry, fitted
from aunn_data.header import Header
from aunn_data.record import Record, Records
from pipelines.source import Group, Source
from pipelines.stored import bytes_of, element_bytes, marks_of, refusing

MODALITY = "image"
FORMATS = ("idx",)

TYPES = {0x08: "|u1", 0x09: "|i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
CODES = {dtype: code for code, dtype in TYPES.items()}
MOST_AXES = 8
AXES = {1: ("item",), 2: ("item", "column")}
ITEM_AXES = {2: ("y", "x"), 3: ("z", "y", "x")}
BLOCK_ITEMS, BLOCK_BYTES = 1 << 12, 1 << 24  # of the columns in which items are handed on
MOST_LABELS = 64  # an item's; more are data, not a label
IMAGES = re.compile(r"(?P<set>.*)images(?P<link>[-.])idx[3-8]-.*", re.IGNORECASE)
LABELS = re.compile(r"(?P<set>.*)labels(?P<link>[-.])idx[12]-.*", re.IGNORECASE)
REMEDY = "restore it, or fetch the data set again"


def sniff(head: bytes, path: Path) -> bool:
    """By content: a known type, and a size above zero for each axis."""
    if len(head) < 8 or head[:2] != b"\0\0" or head[2] not in TYPES or not 1 <= head[3] <= MOST_AXES:
        return False
    sizes = head[4 : 4 + 4 * head[3]]
    return len(sizes) == 4 * head[3] and all(struct.unpack(f">{head[3]}I", sizes))


def gather(folder: Path, files: Sequence[str], folders: Sequence[str]) -> Iterator[Group]:
    """Images with the labels that are called like them; the labels are a source of their own as well."""
    labels = {match["set"] + match["link"]: file for file in files if (match := LABELS.fullmatch(file))}
    for file in files:
        match = IMAGES.fullmatch(file)
        if match and (beside := labels.get(match["set"] + match["link"])):
            yield Group(file, (file, beside))
            yield Group(beside, (beside,))


def read(source: Source) -> Iterator[Record | Records]:
    """One record an item, or one for labels and tables. InputError if the file is longer or shorter than it says."""
    stack = _array(source)
    if stack.ndim in AXES:
        missing = marks_of(stack)
        geometry = fitted(Geometry(stack.dtype.str, AXES[stack.ndim], stack.shape), stack, missing)
        yield Record(Header(source.name, source.name, MODALITY, "idx", geometry), stack, missing)
    else:
        yield from _items(source, stack)


def write(records: Sequence[Record], path: Path) -> Path:
    """The stack again, of all its items in order."""
    first = np.asarray(records[0].elements)
    if first.dtype.str not in CODES or any(record.elements.shape != first.shape for record in records):
        raise InputError(
            path,
            expected="items of one shape, of a type that idx has",
            found=f"{first.dtype} of shape {first.shape}, or other shapes beside it",
            remedy="export them as .npy",
        )
    single = records[0].header.geometry.axes[0] == "item"
    sizes = first.shape if single else (len(records), *first.shape)
    with path.open("wb") as file:
        file.write(struct.pack(f">HBB{len(sizes)}I", 0, CODES[first.dtype.str], len(sizes), *sizes))
        for record in records:
            file.write(np.ascontiguousarray(record.elements[...]).tobytes())
    return path


def _array(source: Source) -> npt.NDArray[Any]:
    """All elements of a file, as stored."""
    with refusing(source.label, "an idx file", REMEDY):
        data = bytes_of(source)
        head = data[: 4 + 4 * MOST_AXES].tobytes()
        if not sniff(head, source.inner):
            raise ValueError(f"a header of {head[:4].hex()}, a size of zero or fewer sizes than axes")
        dtype, shape = np.dtype(TYPES[head[2]]), struct.unpack_from(f">{head[3]}I", head, 4)
    offset = 4 + 4 * len(shape)
    available = len(data) - offset
    needed = element_bytes(source.label, shape, dtype.itemsize, available)
    item = shape[1:] if len(shape) > 2 else shape
    if needed < available or math.prod(item) > source.options.limits.max_elements:
        raise InputError(
            source.label,
            expected=f"{needed} bytes for shape {shape}, at most {source.options.limits.max_elements} elements an item",
            found=f"{available}",
            remedy="leave out what follows, or raise --max-elements",
        )
    # A plain view: of a memmap every item would be a memmap, which is slow to make.
    return np.asarray(data)[offset:].view(dtype).reshape(shape)


def _items(source: Source, stack: npt.NDArray[Any]) -> Iterator[Records]:
    marks = marks_of(stack)
    axes = ITEM_AXES.get(stack.ndim - 1, tuple(f"axis{k}" for k in range(stack.ndim - 1)))
    geometry = fitted(Geometry(stack.dtype.str, ("item", *axes), stack.shape), stack, marks)
    geometry = replace(geometry, axes=axes, shape=stack.shape[1:])
    name, labels = source.name, _labels(source, len(stack))
    at_once = max(1, min(BLOCK_ITEMS, BLOCK_BYTES // geometry.payload_bytes))
    for first in range(0, len(stack), at_once):
        items = stack[first : first + at_once]
        numbers = range(first, first + len(items))
        names = [f"{name}#{number + 1}" for number in numbers]
        metadata = [{} if labels is None else {"label": labels[number]} for number in numbers]
        missing = None if marks is None else np.isnan(items)
        yield Records(names, name, MODALITY, "idx", geometry, items, missing, metadata)


def _labels(source: Source, count: int) -> list[Any] | None:
    """The labels that lie beside; None where there are none that fit. A damaged file is refused as its own source."""
    try:
        beside = next((file for file in source.files if LABELS.fullmatch(file.name)), None)
        labels = _array(replace(source, path=beside, files=(), label="")) if beside else None
    except InputError:
        return None
    fits = labels is not None and len(labels) == count and labels.dtype.kind in "iu"
    if labels is None or not fits or labels.ndim > 2 or labels[0].size > MOST_LABELS:
        return None
    found: list[Any] = labels.tolist()
    return found
