"""A record on its way in: header + payload, the payload not yet bytes."""

from dataclasses import dataclass
from typing import Any

from aunn_data.header import Header


@dataclass(frozen=True)
class Record:
    """One item: a volume, an image, a document, a game.

    ``elements`` is an array-like of the geometry's shape and dtype, sliced when its bytes are written: an ndarray, a
    memmap, anything with numpy's slicing. If it has a method ``constant(region)``, that says without reading whether a
    region holds nothing but the one value of what the source does not store. ``missing`` is an array-like of bool and
    the same shape, True where the source itself lacks the element, or None where nothing is missing.
    """

    header: Header
    elements: Any
    missing: Any = None
