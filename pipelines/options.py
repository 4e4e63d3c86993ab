"""How sources go in: what ``ingest`` and its readers are told."""

from dataclasses import dataclass, field
from typing import Literal

from aunn_data.geometry import Layout


@dataclass(frozen=True)
class Limits:
    """What a hostile file may not exceed; each has an option of the same name.

    ``max_elements`` of one record. ``max_ratio``: bytes that one compressed byte may become. ``max_members`` of one
    archive, those of the archives in it included. ``max_line``: bytes of one line of JSON Lines; to read one takes
    four times its bytes of memory, with emoji in it thirteen times.
    """

    max_elements: int = 1 << 38
    max_ratio: float = 1000.0
    max_members: int = 100_000
    max_line: int = 1 << 26


@dataclass(frozen=True)
class Options:
    """``layout`` None takes each format's own; ``chess`` is the payload of games.

    ``text_column`` is the column of JSON Lines and Parquet that holds the text (None: the one that is called so).
    ``fill``: elements of scans that equal it are missing. ``window``: scans go in as uint8, low and below it 0, high
    and above it 255.
    """

    layout: Layout | None = None
    chess: Literal["boards", "pgn"] = "boards"
    prefix: str = ""
    text_column: str | None = None
    fill: float | None = None
    window: tuple[float, float] | None = None
    limits: Limits = field(default_factory=Limits)
