"""What the formats of many texts share: a record of bytes, made cheaply, and which column is the text."""

from collections.abc import Collection
from functools import lru_cache
from typing import Any

import numpy as np

from aunn_data.geometry import Geometry
from aunn_data.header import Header
from aunn_data.record import Record

# Without --text-column: the first of these that is there. A row without any goes in as a whole.
TEXT_COLUMNS = ("text", "content", "contents")


@lru_cache(maxsize=4096)
def packed(size: int) -> Geometry:
    """The geometry of so many bytes one after another; a byte is its own digit, nothing is to be fitted."""
    return Geometry("|u1", ("byte",), (size,), layout="packed")


def record(name: str, number: int, format: str, data: bytes, metadata: dict[str, Any]) -> Record:
    """Row ``number`` (from 1) of the source ``name``, with these bytes (at least one) as its payload."""
    header = Header(f"{name}#{number}", name, "text", format, packed(len(data)), metadata)
    return Record(header, np.frombuffer(data, np.uint8))


def text_column(asked: str | None, columns: Collection[str]) -> str | None:
    """The column that holds the text: the one asked for, else the one that is called so; None if it is not there."""
    return next((name for name in ((asked,) if asked else TEXT_COLUMNS) if name in columns), None)
