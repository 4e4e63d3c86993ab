"""Records on their way in: header + payload, the payload not yet bytes; one by one, or many as columns."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, chain, groupby, pairwise
from typing import Any, overload

import numpy as np
import numpy.typing as npt

from aunn_data.entries import Entry
from aunn_data.geometry import Geometry
from aunn_data.header import Header


@dataclass(frozen=True)
class Record:
    """One item: a volume, an image, a document, a game.

    ``elements`` is an array-like of the geometry's shape and dtype, sliced when its bytes are written: an ndarray, a
    memmap, anything with numpy's slicing. Two methods are optional: ``constant(region)`` says without reading whether
    a region holds nothing but the one value of what the source does not store; ``write_far(store, shard, geometry,
    start, first)`` has somebody else write a shard (``batch.write_shard``) and gives a Future. ``missing`` is an
    array-like of bool and the same shape, True where the source itself lacks the element, or None where nothing is
    missing. ``twin`` is a committed record of the same elements: its payload is shared, only a header is written.
    """

    header: Header
    elements: Any
    missing: Any = None
    twin: Entry | None = None


class Strips(Sequence[npt.NDArray[Any]]):
    """Arrays of one axis that lie one after another in one: array k is ``flat[bounds[k] : bounds[k + 1]]``."""

    def __init__(self, flat: npt.NDArray[Any], bounds: list[int]):
        self.flat, self.bounds = flat, bounds

    @classmethod
    def of(cls, payloads: Sequence[bytes]) -> "Strips":
        """Payloads as arrays of uint8."""
        return cls(np.frombuffer(b"".join(payloads), np.uint8), list(accumulate(map(len, payloads), initial=0)))

    def __len__(self) -> int:
        return len(self.bounds) - 1

    @overload
    def __getitem__(self, number: int) -> npt.NDArray[Any]: ...
    @overload
    def __getitem__(self, number: slice) -> "Strips": ...
    def __getitem__(self, number: int | slice) -> "npt.NDArray[Any] | Strips":
        if isinstance(number, slice):
            start, stop, _ = number.indices(len(self))
            return Strips(self.flat, self.bounds[start : max(start, stop) + 1])
        at = range(len(self))[number]
        return self.flat[self.bounds[at] : self.bounds[at + 1]]

    def __iter__(self) -> Iterator[npt.NDArray[Any]]:
        return (self.flat[start:stop] for start, stop in pairwise(self.bounds))


class Records(Sequence[Record]):
    """Many records as columns: of very many small ones an object each would cost more than their bytes.

    A column is a sequence; of ``source``, ``modality``, ``format``, ``geometry`` and ``metadata`` what all share may
    be given once. ``elements`` may be one array of them all, (R, *shape), or ``Strips``.
    """

    def __init__(
        self,
        record: Sequence[str],
        source: str | Sequence[str],
        modality: str | Sequence[str],
        format: str | Sequence[str],
        geometry: Geometry | Iterable[Geometry],
        elements: Any,
        missing: Any = None,
        metadata: dict[str, Any] | Sequence[dict[str, Any]] | None = None,
        twin: Sequence[Entry | None] | None = None,
    ):
        count = len(record)
        self.record, self.elements = record, elements
        self.source = [source] * count if isinstance(source, str) else source
        self.modality = [modality] * count if isinstance(modality, str) else modality
        self.format = [format] * count if isinstance(format, str) else format
        self.geometry = [geometry] * count if isinstance(geometry, Geometry) else list(geometry)
        self.missing = [None] * count if missing is None else missing
        self.metadata = [metadata or {}] * count if metadata is None or isinstance(metadata, dict) else metadata
        self.twin = [None] * count if twin is None else twin
        columns = (self.source, self.modality, self.format, self.geometry, elements, self.missing, self.metadata)
        if any(len(column) != count for column in columns):
            raise ValueError(f"expected columns of {count} rows, found {[len(column) for column in columns]}")

    @classmethod
    def of(cls, records: "Sequence[Record | Records]") -> "Records":
        """The columns of records, of which some may be columns already."""
        if isinstance(records, Records):
            return records
        parts: list[Records] = []
        for together, run in groupby(records, lambda found: isinstance(found, Records)):
            some: Any = list(run)
            parts += some if together else [cls._of_each(some)]
        if len(parts) == 1:
            return parts[0]
        return cls(**{name: list(chain.from_iterable(getattr(p, name) for p in parts)) for name in vars(parts[0])})

    @classmethod
    def _of_each(cls, records: Sequence[Record]) -> "Records":
        headers = [record.header for record in records]
        return cls(
            [header.record for header in headers],
            [header.source for header in headers],
            [header.modality for header in headers],
            [header.format for header in headers],
            [header.geometry for header in headers],
            [record.elements for record in records],
            [record.missing for record in records],
            [header.metadata for header in headers],
            [record.twin for record in records],
        )

    def __len__(self) -> int:
        return len(self.record)

    @overload
    def __getitem__(self, number: int) -> Record: ...
    @overload
    def __getitem__(self, number: slice) -> "Records": ...
    def __getitem__(self, number: int | slice) -> "Record | Records":
        if isinstance(number, slice):
            return Records(**{name: column[number] for name, column in vars(self).items()})
        names = self.record[number], self.source[number], self.modality[number], self.format[number]
        header = Header(*names, self.geometry[number], self.metadata[number])
        return Record(header, self.elements[number], self.missing[number], self.twin[number])

    def __iter__(self) -> Iterator[Record]:
        return (self[number] for number in range(len(self)))
