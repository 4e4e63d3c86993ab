"""The committed records of a version: rows of the table ``records``, by name, by number and by address.

Legend: B addresses.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property, lru_cache
from typing import Any, NamedTuple, overload

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from aunn_data.errors import RequestError
from aunn_data.geometry import Geometry, Region
from aunn_data.schemas import SCHEMAS

_FEW = 4096  # addresses up to which a search among all records costs less than a table of cells
_STEPS = 8
_MADE_AHEAD = 1024


class Entry(NamedTuple):
    """A row of ``records``: one committed record. Addresses are int64; ``sha256`` is of the element-bearing bytes of
    the payload in ascending order of address (for text: of the file), ``source_sha256`` of the source file."""

    record: str
    source: str
    modality: str
    format: str
    header_start: int
    header_bytes: int
    payload_start: int
    payload_stop: int
    stop: int
    axes: tuple[str, ...]
    shape: tuple[int, ...]
    dtype: str
    layout: str
    geometry: Geometry
    payload_bytes: int
    missing_bytes: int
    sha256: str
    source_sha256: str

    @property
    def is_shared(self) -> bool:
        """Is its payload another record's, which holds the same?"""
        return self.payload_start < self.header_start

    def row(self) -> dict[str, Any]:
        """The row as it stands in the table."""
        return {**self._asdict(), "geometry": self.geometry.text}

    def spans(self, region: Region) -> npt.NDArray[np.int64]:
        """(S, 2) absolute addresses of a region's bytes."""
        return self.geometry.spans(region) + self.payload_start


@lru_cache(maxsize=4096)
def _geometry_of(text: str) -> Geometry:
    return Geometry.from_json(json.loads(text))


class Entries:
    """The committed records of one version, by name, by number and by address; kept as Arrow columns until asked.

    Numbers go by address: record 0 has the lowest header.
    """

    def __init__(self, table: pa.Table):
        starts = table["header_start"].to_numpy()
        if (starts[1:] < starts[:-1]).any():
            table = table.unify_dictionaries().take(pa.array(np.argsort(starts)))
        self.table = table
        self._made: tuple[int, list[Entry]] = 0, []  # the number of the first of those that were asked for last

    @classmethod
    def none(cls) -> "Entries":
        """No records."""
        return cls(SCHEMAS["records"].empty_table())

    def plus(self, rows: pa.Table) -> "Entries":
        """These and more records. The index by name, dear to make, goes over to the new object."""
        more = Entries(pa.concat_tables([self.table, rows]))
        names = self.__dict__.pop("_numbers", None)
        if names is not None and more.table.num_rows and (rows["header_start"].to_numpy() >= self._end).all():
            first = len(self)
            names.update((name, first + k) for k, name in enumerate(more.table["record"][first:].to_pylist()))
            more.__dict__["_numbers"] = names
        return more

    def __len__(self) -> int:
        return int(self.table.num_rows)

    def __getitem__(self, number: int) -> Entry:
        """Who asks for one after another has more and more of them made at once, which takes much less time."""
        first, entries = self._made
        if not first <= number < first + len(entries):
            follows = entries and number == first + len(entries)
            count = min(2 * len(entries), _MADE_AHEAD) if follows else 1
            first, entries = number, list(_entries_of(self.table.slice(number, count)))
            self._made = first, entries
        return entries[number - first]

    def __iter__(self) -> Iterator[Entry]:
        for batch in self.table.to_batches(max_chunksize=1024):
            yield from _entries_of(batch)

    def __contains__(self, record: str) -> bool:
        return record in self._numbers

    def taken(self, names: Sequence[str]) -> list[str]:
        """Those of some names that records have."""
        if "_numbers" in self.__dict__:
            return [name for name in names if name in self._numbers]
        mine = self.table["record"]  # the index by name takes longer to make than one look through all names
        return list(mine.filter(pc.is_in(mine, value_set=pa.array(names, pa.string()))).to_pylist())

    @cached_property
    def _numbers(self) -> dict[str, int]:
        return {name: number for number, name in enumerate(self.table["record"].to_pylist())}

    @cached_property
    def _starts(self) -> npt.NDArray[np.int64]:
        return np.asarray(self.table["header_start"].to_numpy(), np.int64)

    @cached_property
    def _stops(self) -> npt.NDArray[np.int64]:
        return np.asarray(self.table["stop"].to_numpy(), np.int64)

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 over what these records are and where, whatever number their version has."""
        digest = hashlib.sha256(self._starts.tobytes())
        for column in ("record", "sha256", "geometry"):
            digest.update("\n".join(self.table[column].to_pylist()).encode())
        return digest.hexdigest()

    @property
    def _end(self) -> int:
        """Where the last record ends."""
        return int(self.table["stop"][-1].as_py()) if len(self) else 0

    def named(self, record: str) -> Entry:
        """The record of this name; RequestError if there is none."""
        if record not in self._numbers:
            near = [name for name in self._numbers if record in name or name in record][:3]
            raise RequestError(
                record,
                expected="the name of a record in the corpus",
                found="none of that name" + (f", but {', '.join(near)}" if near else ""),
                remedy="`aunn-data ls` lists them",
            )
        return self[self._numbers[record]]

    def numbers_at(self, addresses_B: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """(B,) the number of the record whose header, payload or padding holds each address; -1 for a gap."""
        if not len(self):
            return np.full(len(addresses_B), -1, np.int64)
        passed_B = self._passed(addresses_B) if len(addresses_B) > _FEW else self._passed_exactly(addresses_B)
        passed_B[addresses_B >= self._stop_before.take(passed_B)] = 0
        return passed_B - 1

    def _passed(self, addresses_B: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """(B,) how many records start at or before each address: those of the cells before, then a step or two."""
        shift, first_C = self._cells
        passed_B = first_C.take(addresses_B >> shift, mode="clip").astype(np.int64)
        late = np.flatnonzero(self._next_start.take(passed_B) <= addresses_B)
        late_B, steps_B = addresses_B[late], passed_B[late]
        for _ in range(_STEPS):
            steps_B += self._next_start[steps_B] <= late_B
        far = self._next_start[steps_B] <= late_B
        steps_B[far] = self._passed_exactly(late_B[far])
        passed_B[late] = steps_B
        return passed_B

    def _passed_exactly(self, addresses_B: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        return np.searchsorted(self._starts, addresses_B, side="right")

    @cached_property
    def _cells(self) -> tuple[int, npt.NDArray[np.int32]]:
        """(shift, how many records start before each cell of 2^shift addresses). At most 16 bytes a record."""
        shift = max(0, self._end.bit_length() - len(self).bit_length() - 1)
        in_cell_C = np.bincount(self._starts >> shift)
        before_C = np.zeros(len(in_cell_C) + 1, np.int32)
        np.cumsum(in_cell_C, out=before_C[1:])
        return shift, before_C

    @cached_property
    def _next_start(self) -> npt.NDArray[np.int64]:
        """Where the next record starts, by the number of records passed."""
        return np.append(self._starts, np.iinfo(np.int64).max)

    @cached_property
    def _stop_before(self) -> npt.NDArray[np.int64]:
        """Where the last record ends, by the number of records passed."""
        return np.append(np.iinfo(np.int64).min, self._stops)

    def at(self, address: int) -> Entry | None:
        """The record whose addresses (header, payload or the padding within) hold this one."""
        number = int(self.numbers_at(np.array([address], np.int64))[0])
        return None if number < 0 else self[number]

    def within(self, start: int, stop: int) -> Iterator[Entry]:
        """The records that have an address in ``start:stop``."""
        first = int(np.searchsorted(self._stops, start, side="right"))
        last = int(np.searchsorted(self._starts, stop, side="left"))
        return (self[number] for number in range(first, last))


class Rows(Sequence[Entry]):
    """Entries as rows of the table, made into objects when somebody asks."""

    def __init__(self, table: pa.Table):
        self.table = table

    @cached_property
    def _entries(self) -> list[Entry]:
        return list(_entries_of(self.table))

    def __len__(self) -> int:
        return int(self.table.num_rows)

    def __iter__(self) -> Iterator[Entry]:
        return iter(self._entries)

    @overload
    def __getitem__(self, number: int) -> Entry: ...
    @overload
    def __getitem__(self, number: slice) -> list[Entry]: ...
    def __getitem__(self, number: int | slice) -> Entry | list[Entry]:
        return self._entries[number]

    @classmethod
    def of(cls, columns: Mapping[str, Any]) -> "Rows":
        """Of columns, each but ``geometry``, whose objects it takes, as it stands in the table."""
        text = [geometry.text for geometry in columns["geometry"]]
        return cls(pa.Table.from_pydict({**columns, "geometry": text}, schema=SCHEMAS["records"]))


def rows_of(entries: Sequence[Entry]) -> pa.Table:
    """The rows as they stand in the table."""
    if isinstance(entries, Rows):
        return entries.table
    return Rows.of(dict(zip(Entry._fields, zip(*entries, strict=True), strict=True))).table


def _entries_of(table: pa.Table) -> Iterator[Entry]:
    """Column by column: a dictionary a row would take ten times as long."""
    columns = [table[name].to_pylist() for name in Entry._fields]
    axes, shape, geometry = (Entry._fields.index(name) for name in ("axes", "shape", "geometry"))
    columns[axes], columns[shape] = (list(map(tuple, columns[k])) for k in (axes, shape))
    columns[geometry] = list(map(_geometry_of, columns[geometry]))
    return map(Entry._make, zip(*columns, strict=True))
