"""What lies where: the Delta tables beside the byte list. The version of ``records`` is the version of the corpus.

Legend: R records. Every commit here is made at exactly the version that was read, without delta-rs' automatic retries:
of two racing writers the second is refused, reads again and decides anew.
"""

import json
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from deltalake import CommitProperties, DeltaTable, write_deltalake
from deltalake.exceptions import CommitFailedError, DeltaError, TableNotFoundError

from aunn_data.errors import ConflictError, CorpusError, RequestError
from aunn_data.geometry import Geometry, Region

_ADDRESS = pa.field("", pa.int64(), nullable=False)
_TEXT = pa.field("", pa.string(), nullable=False)


def _schema(**columns: pa.Field | pa.DataType) -> pa.Schema:
    return pa.schema(
        [c.with_name(n) if isinstance(c, pa.Field) else pa.field(n, c, nullable=False) for n, c in columns.items()]
    )


_INDICES = pa.list_(pa.field("element", pa.int64(), nullable=False))

SCHEMAS = {
    "records": _schema(
        record=_TEXT,
        source=_TEXT,
        modality=_TEXT,
        format=_TEXT,
        header_start=_ADDRESS,
        header_bytes=_ADDRESS,
        payload_start=_ADDRESS,
        payload_stop=_ADDRESS,
        stop=_ADDRESS,
        axes=pa.list_(pa.field("element", pa.string(), nullable=False)),
        shape=_INDICES,
        dtype=_TEXT,
        layout=_TEXT,
        geometry=_TEXT,
        payload_bytes=_ADDRESS,
        missing_bytes=_ADDRESS,
        sha256=_TEXT,
        source_sha256=_TEXT,
    ),
    "reservations": _schema(batch=_TEXT, start=_ADDRESS, stop=_ADDRESS, created=pa.timestamp("us", tz="UTC")),
    "holdouts": _schema(holdout=_TEXT, record=_TEXT, region=_TEXT, starts=_INDICES, stops=_INDICES),
}


@dataclass(frozen=True)
class Entry:
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

    def row(self) -> dict[str, Any]:
        """The row as it stands in the table."""
        return {**self.__dict__, "geometry": json.dumps(self.geometry.to_json(), sort_keys=True)}

    @classmethod
    def of_row(cls, row: dict[str, Any]) -> "Entry":
        """Inverse of ``row``."""
        geometry = Geometry.from_json(json.loads(row["geometry"]))
        return cls(**{**row, "axes": tuple(row["axes"]), "shape": tuple(row["shape"]), "geometry": geometry})

    def spans(self, region: Region) -> npt.NDArray[np.int64]:
        """(S, 2) absolute addresses of a region's bytes."""
        return self.geometry.spans(region) + self.payload_start


@dataclass(frozen=True)
class Holdout:
    """One held-out region of one record; regions of one name are one holdout."""

    holdout: str
    record: str
    region: Region


class Entries:
    """The committed records of one version, by name, by number and by address; kept as Arrow columns until asked."""

    def __init__(self, table: pa.Table):
        self.table = table.sort_by("header_start")

    def __len__(self) -> int:
        return int(self.table.num_rows)

    def __getitem__(self, number: int) -> Entry:
        return Entry.of_row(self.table.slice(number, 1).to_pylist()[0])

    def __iter__(self) -> Iterator[Entry]:
        for batch in self.table.to_batches(max_chunksize=1024):
            yield from map(Entry.of_row, batch.to_pylist())

    def __contains__(self, record: str) -> bool:
        return record in self._numbers

    @cached_property
    def _numbers(self) -> dict[str, int]:
        return {name: number for number, name in enumerate(self.table["record"].to_pylist())}

    @cached_property
    def _starts(self) -> npt.NDArray[np.int64]:
        return np.asarray(self.table["header_start"].to_numpy(), np.int64)

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

    def at(self, address: int) -> Entry | None:
        """The record whose addresses (header, payload or the padding within) hold this one."""
        number = int(np.searchsorted(self._starts, address, side="right")) - 1
        if number < 0:
            return None
        entry = self[number]
        return entry if address < entry.stop else None


class Registry:
    """The three tables below a folder."""

    def __init__(self, path: Path):
        self.path = path

    @classmethod
    def create(cls, path: Path) -> "Registry":
        """New, empty tables."""
        for name, schema in SCHEMAS.items():
            DeltaTable.create(str(path / name), schema)
        return cls(path)

    def entries(self, version: int | None = None) -> tuple[int, Entries]:
        """(version, records) of a version, the newest by default."""
        table = self._open("records", version)
        return table.version(), Entries(_arrow(table, "records"))

    def commit(self, entries: Sequence[Entry], seen: int) -> int:
        """Appends rows and returns the new version. ConflictError if a record of that name came after ``seen``."""

        def rows(table: DeltaTable) -> list[dict[str, Any]]:
            if table.version() != seen:
                taken = set(_arrow(table, "records")["record"].to_pylist())
                for entry in entries:
                    if entry.record in taken:
                        raise ConflictError(
                            entry.record,
                            expected="to be the only writer of this record",
                            found="it committed by another writer meanwhile",
                            remedy="run the same command again",
                        )
            return [entry.row() for entry in entries]

        return self._append("records", rows)

    def reserve(self, place: Callable[[int], int]) -> tuple[int, int]:
        """Hands out addresses nobody had before: ``place(start)`` says where the batch ends. Returns (start, stop)."""
        handed: tuple[int, int] = (0, 0)

        def rows(table: DeltaTable) -> list[dict[str, Any]]:
            nonlocal handed
            stops = _arrow(table, "reservations")["stop"].to_numpy()
            start = int(stops.max()) if len(stops) else 0
            handed = (start, place(start))
            now = datetime.now(UTC)
            return [{"batch": uuid.uuid4().hex, "start": start, "stop": handed[1], "created": now}]

        self._append("reservations", rows)
        return handed

    def holdouts(self) -> list[Holdout]:
        """All held-out regions, by name, record and place: Delta promises no order of its own."""
        table = _arrow(self._open("holdouts"), "holdouts")
        rows = sorted(table.to_pylist(), key=lambda row: (row["holdout"], row["record"], row["starts"], row["stops"]))
        return [
            Holdout(row["holdout"], row["record"], tuple(zip(row["starts"], row["stops"], strict=True))) for row in rows
        ]

    def add_holdouts(self, named: Sequence[tuple[Holdout, str]]) -> int:
        """Appends (holdout, its region as text) pairs that are not there yet; returns how many were new."""
        new: list[tuple[Holdout, str]] = []

        def rows(table: DeltaTable) -> list[dict[str, Any]]:
            nonlocal new
            known = {(r["holdout"], r["record"], r["region"]) for r in _arrow(table, "holdouts").to_pylist()}
            new = [(h, text) for h, text in named if (h.holdout, h.record, text) not in known]
            return [
                {
                    "holdout": h.holdout,
                    "record": h.record,
                    "region": text,
                    "starts": [start for start, _ in h.region],
                    "stops": [stop for _, stop in h.region],
                }
                for h, text in new
            ]

        self._append("holdouts", rows)
        return len(new)

    def _open(self, name: str, version: int | None = None) -> DeltaTable:
        where = self.path / name
        try:
            return DeltaTable(str(where), version=version)
        except TableNotFoundError as error:
            raise CorpusError(
                where, expected="a Delta table", found="none", remedy="restore the corpus from a copy"
            ) from error
        except DeltaError as error:
            if version is not None and version > DeltaTable(str(where)).version():
                newest = DeltaTable(str(where)).version()
                raise RequestError(
                    where, expected=f"a version from 0 to {newest}", found=str(version), remedy="ask for one of these"
                ) from error
            raise CorpusError(
                where, expected="a readable Delta table", found=str(error), remedy="restore the corpus from a copy"
            ) from error

    def _append(self, name: str, rows_for: Callable[[DeltaTable], list[dict[str, Any]]], attempts: int = 20) -> int:
        """Commits rows that were decided on exactly the version that they follow."""
        for _ in range(attempts):
            table = self._open(name)
            rows = rows_for(table)
            if not rows:
                return table.version()
            try:
                write_deltalake(
                    table,
                    pa.Table.from_pylist(rows, schema=SCHEMAS[name]),
                    mode="append",
                    commit_properties=CommitProperties(max_commit_retries=0),
                )
            except CommitFailedError:
                continue
            return table.version()
        raise ConflictError(
            self.path / name,
            expected="to commit",
            found=f"another writer faster {attempts} times",
            remedy="run the same command again",
        )


def _arrow(table: DeltaTable, name: str) -> pa.Table:
    return table.to_pyarrow_table().cast(SCHEMAS[name])
