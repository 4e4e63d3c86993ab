"""What the formats of many texts share: rows of bytes, made cheaply, and which column is the text."""

from collections.abc import Collection, Iterator, Sequence
from functools import lru_cache
from typing import Any

from aunn_data.errors import InputError
from aunn_data.geometry import Geometry
from aunn_data.record import Records, Strips

# Without --text-column: the first of these that is there. A row without any goes in as a whole.
TEXT_COLUMNS = ("text", "content", "contents")
BLOCK_ROWS, BLOCK_BYTES = 1 << 10, 1 << 20  # of the columns in which rows are handed on

Row = tuple[bytes, dict[str, Any]]
"""A payload (at least one byte), and what its header says."""


@lru_cache(maxsize=4096)
def packed(size: int) -> Geometry:
    """The geometry of so many bytes one after another; a byte is its own digit, nothing is to be fitted."""
    return Geometry("|u1", ("byte",), (size,), layout="packed")


def records(
    name: str, first: int, format: str, payloads: Sequence[bytes], metadata: Sequence[dict[str, Any]]
) -> Records:
    """Rows ``first`` (from 1), ``first + 1``, … of the source ``name``."""
    names = [f"{name}#{number}" for number in range(first, first + len(payloads))]
    geometries = list(map(packed, map(len, payloads)))
    return Records(names, name, "text", format, geometries, Strips.of(payloads), metadata=metadata)


def in_blocks(name: str, format: str, found: Iterator[Row | InputError]) -> Iterator[Records | InputError]:
    """The rows of a source some at a time, each refusal in its place. What ``found`` raises comes after all before."""
    number, size = 0, 0
    payloads, metadata = list[bytes](), list[dict[str, Any]]()

    def taken() -> Iterator[Records]:
        nonlocal size, payloads, metadata
        if payloads:
            yield records(name, number - len(payloads) + 1, format, payloads, metadata)
        size, payloads, metadata = 0, [], []

    try:
        for row in found:
            if isinstance(row, InputError):
                yield from taken()
                yield row
                number += 1
                continue
            number += 1
            payloads.append(row[0])
            metadata.append(row[1])
            size += len(row[0])
            if size >= BLOCK_BYTES or len(payloads) == BLOCK_ROWS:
                yield from taken()
    except Exception:
        yield from taken()
        raise
    yield from taken()


def text_column(asked: str | None, columns: Collection[str]) -> str | None:
    """The column that holds the text: the one asked for, else the one that is called so; None if it is not there."""
    for name in (asked,) if asked else TEXT_COLUMNS:
        if name in columns:
            return name
    return None
