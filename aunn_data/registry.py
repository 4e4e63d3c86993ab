"""What lies where: the Delta tables beside the byte list. The version of ``records`` is the version of the corpus.

Legend: R records, B addresses. A commit is one file of the table's log that must not exist yet: of two racing writers
the second is refused, reads again and decides anew. Commits are written here and not by delta-rs, which links a
commit's name before its bytes are on the disk; they are read by delta-rs, or anybody else.

A flipped bit cannot pass: a Parquet file's name is the SHA-256 of its bytes, and every commit says how many rows the
table has with it, so that a damaged log, which would hide a file, is noticed.
"""

import hashlib
import json
import random
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from deltalake import DeltaTable, Schema
from deltalake.exceptions import DeltaError, TableNotFoundError

from aunn_data.entries import Entries, Entry, rows_of
from aunn_data.errors import AunnError, ConflictError, CorpusError, RequestError, StoreError
from aunn_data.geometry import Region
from aunn_data.schemas import REPEATED, SCHEMAS, in_memory
from aunn_data.store import Store

# Who writes to the tables with other tools keeps their versions too.
_CONFIGURATION = {"delta.enableExpiredLogCleanup": "false"}
_DICTIONARIES = [*REPEATED, "axes.list.element", "shape.list.element"]  # what others hold is different in every row
_ATTEMPTS = 100
_LONGEST_WAIT = 0.25  # seconds between two attempts of one commit


@dataclass(frozen=True)
class Holdout:
    """One held-out region of one record; regions of one name are one holdout."""

    holdout: str
    record: str
    region: Region


@dataclass(frozen=True)
class Reservation:
    """Addresses ``start:stop`` handed out to one batch, which nobody else will get."""

    batch: str
    start: int
    stop: int
    created: datetime


class _Seen(NamedTuple):
    """The version of a table that was newest when this object looked or committed: its Parquet files and its rows."""

    version: int
    files: frozenset[str]
    rows: pa.Table


class Registry:
    """The three tables below a key of a store.

    ``checked`` is False for corpora of format version 1, which have neither hashes in file names nor row counts.
    """

    def __init__(self, store: Store, key: str = "registry", checked: bool = True):
        self.store, self.key, self.checked = store, key, checked
        self._tables: dict[str, DeltaTable] = {}
        self._parts: dict[str, pa.Table] = {}
        self._seen: dict[str, _Seen] = {}
        self._newest: tuple[frozenset[str], Entries] = (frozenset(), Entries.none())

    @classmethod
    def create(cls, store: Store, key: str = "registry") -> "Registry":
        """New, empty tables; those that are there already stay as they are."""
        for name, schema in SCHEMAS.items():
            actions: list[dict[str, Any]] = [
                {"protocol": {"minReaderVersion": 1, "minWriterVersion": 2}},
                {
                    "metaData": {
                        "id": str(uuid.uuid4()),
                        "format": {"provider": "parquet", "options": {}},
                        "schemaString": Schema.from_arrow(schema).to_json(),
                        "partitionColumns": [],
                        "configuration": _CONFIGURATION,
                        "createdTime": _now(),
                    }
                },
            ]
            store.put(_log(f"{key}/{name}", 0), _commit_of("CREATE TABLE", actions, rows=0), new=True)
        return cls(store, key)

    # ---- read --------------------------------------------------------------------------------------------------

    def entries(self, version: int | None = None) -> tuple[int, Entries]:
        """(version, records) of a version, the newest by default."""
        if version is not None:
            table = self._open("records", version)
            return table.version(), Entries(self._rows("records", table))
        self._look("records")
        return self._entries()

    def _entries(self) -> tuple[int, Entries]:
        """(version, records) as this object saw them last."""
        version, files, rows = self._seen["records"]
        known, entries = self._newest
        if not known or not known <= files:
            entries = Entries(rows)
        elif new := files - known:
            entries = entries.plus(self._table("records", new))
        self._newest = files, entries
        return version, entries

    def arrow(self, name: str, version: int | None = None) -> pa.Table:
        """One of the tables ``records``, ``reservations``, ``holdouts`` as plain Arrow columns."""
        return self._rows(name, self._open(name, version)).cast(SCHEMAS[name])

    def holdouts(self) -> list[Holdout]:
        """All held-out regions, by name, record and place: Delta promises no order of its own."""
        rows = self.arrow("holdouts").to_pylist()
        rows.sort(key=lambda row: (row["holdout"], row["record"], row["starts"], row["stops"]))
        return [
            Holdout(row["holdout"], row["record"], tuple(zip(row["starts"], row["stops"], strict=True))) for row in rows
        ]

    def reservations(self) -> list[Reservation]:
        """All batches of addresses that were ever handed out, by address."""
        rows = self.arrow("reservations").to_pylist()
        return sorted((Reservation(**row) for row in rows), key=lambda r: r.start)

    def newest(self, name: str) -> int:
        """The newest version of a table."""
        return self._open(name).version()

    def revoked(self, batch: str) -> bool:
        """Has ``gc`` taken a batch's addresses back, so that it can never be committed?"""
        self._open("records")
        return self._revoked(batch)

    def _revoked(self, batch: str) -> bool:
        return self._tables["records"].transaction_version(_revocation(batch)) is not None

    def unlisted(self, name: str) -> dict[str, pa.Table]:
        """The rows of the Parquet files that no version lists, by key: those of writers that died, or at work."""
        listed = {f"{self.key}/{name}/{file}" for file in self._files(name, self._open(name))}
        return {key: rows for key, rows in self._readable(name) if key not in listed}

    def surviving(self) -> set[str]:
        """The records that have a readable row, whatever is damaged beside it."""
        return {name for _, rows in self._readable("records") for name in rows["record"].to_pylist()}

    def surviving_end(self) -> int:
        """Where the last batch stops of which there is a readable row."""
        return max((pc.max(rows["stop"]).as_py() or 0 for _, rows in self._readable("reservations")), default=0)

    def _readable(self, name: str) -> Iterator[tuple[str, pa.Table]]:
        for item in self.store.items(f"{self.key}/{name}"):
            if item.key.endswith(".parquet"):
                with suppress(CorpusError):
                    yield item.key, self._part(name, item.key.rsplit("/", 1)[-1])

    # ---- write -------------------------------------------------------------------------------------------------

    def commit(self, entries: Sequence[Entry], seen: int, batch: str) -> tuple[int, Entries]:
        """Appends rows; returns the new version and all its records.

        ConflictError if a record of that name came after version ``seen``, or if ``gc`` took the batch for abandoned.
        """

        new = rows_of(entries)

        def rows(version: int, there: pa.Table) -> pa.Table:
            if self._revoked(batch):
                raise ConflictError(
                    self._where("records"),
                    expected="the addresses that this batch was given",
                    found="that `aunn-data gc` took it for abandoned",
                    remedy="run the same command again; give gc a greater --older-than",
                )
            if version != seen:
                names = new["record"]
                if taken := pc.filter(names, pc.is_in(names, there["record"].combine_chunks())).to_pylist():
                    raise ConflictError(
                        taken[0],
                        expected="to be the only writer of this record",
                        found="it committed by another writer meanwhile",
                        remedy="run the same command again",
                    )
            return new

        self._append("records", rows)
        return self._entries()

    def reserve(self, place: Callable[[int], int]) -> Reservation:
        """Hands out addresses nobody had before: ``place(start)`` says where the batch ends."""
        handed = Reservation("", 0, 0, datetime.now(UTC))

        def rows(_: int, there: pa.Table) -> pa.Table:
            nonlocal handed
            start = pc.max(there["stop"]).as_py() or 0
            handed = Reservation(uuid.uuid4().hex, start, place(start), datetime.now(UTC))
            return pa.Table.from_pylist([handed.__dict__], schema=SCHEMAS["reservations"])

        self._append("reservations", rows)
        return handed

    def add_holdouts(self, named: Sequence[tuple[Holdout, str]]) -> int:
        """Appends (holdout, its region as text) pairs that are not there yet; returns how many were new."""
        new = 0

        def rows(_: int, there: pa.Table) -> pa.Table:
            nonlocal new
            known = {(r["holdout"], r["record"], r["region"]) for r in there.to_pylist()}
            rows = [
                {
                    "holdout": h.holdout,
                    "record": h.record,
                    "region": text,
                    "starts": [start for start, _ in h.region],
                    "stops": [stop for _, stop in h.region],
                }
                for h, text in named
                if (h.holdout, h.record, text) not in known
            ]
            new = len(rows)
            return pa.Table.from_pylist(rows, schema=SCHEMAS["holdouts"])

        self._append("holdouts", rows)
        return new

    def revoke(self, choose: Callable[[pa.Table], list[str]]) -> list[str]:
        """Revokes the batches that ``choose(records)`` names, in one commit of ``records`` that adds no row.

        A writer of such a batch either committed before, and then its records are in the table that ``choose`` sees,
        or reads this commit before it can make its own, and gives up: nothing is revoked that anybody may still see.
        """
        chosen: list[str] = []

        def attempt(_: int, there: pa.Table) -> tuple[pa.Table | None, list[str]]:
            nonlocal chosen
            chosen = [batch for batch in choose(there) if not self._revoked(batch)]
            return None, chosen

        self._seen.pop("records", None)
        self._commit("records", attempt)
        return chosen

    def _append(self, name: str, rows_for: Callable[[int, pa.Table], pa.Table]) -> None:
        self._commit(name, lambda version, there: (rows_for(version, there), []))

    def _commit(self, name: str, decide: Callable[[int, pa.Table], tuple[pa.Table | None, list[str]]]) -> None:
        """Commits what ``decide(version, rows)`` says on exactly the version that it was decided on.

        The first attempt takes the last version that this object saw for the newest: if it is not, the commit fails.
        """
        for attempt in range(_ATTEMPTS):
            if attempt or name not in self._seen:
                self._look(name)
            version, files, there = self._seen[name]
            rows, revoked = decide(version, there)
            if not revoked and (rows is None or not rows.num_rows):
                self.settle()  # somebody has done it, and may have been killed before it was durable
                return
            actions: list[dict[str, Any]] = [
                {"txn": {"appId": _revocation(batch), "version": 1, "lastUpdated": _now()}} for batch in revoked
            ]
            key, total = "", there.num_rows
            if rows is not None:
                key, add = self._put(name, rows)
                actions.append(add)
                total += rows.num_rows
            commit = _commit_of("WRITE", actions, total)
            if self.store.put(_log(f"{self.key}/{name}", version + 1), commit, new=True):
                if revoked:
                    del self._seen[name]
                else:
                    files |= {key.rsplit("/", 1)[-1]}
                    self._seen[name] = _Seen(version + 1, files, self._table(name, files))
                return
            self.store.delete([key] if key else [])
            time.sleep(random.random() * min(_LONGEST_WAIT, 0.01 * 2**attempt))
        raise ConflictError(
            self._where(name),
            expected="to commit",
            found=f"other writers faster {_ATTEMPTS} times",
            remedy="run the same command again",
        )

    def _put(self, name: str, rows: pa.Table) -> tuple[str, dict[str, Any]]:
        """Writes rows as a Parquet file that no version lists yet; returns its key and the action that lists it."""
        sink = pa.BufferOutputStream()
        rows = rows.replace_schema_metadata({"attempt": uuid.uuid4().hex})  # no two attempts share a file
        pq.write_table(rows, sink, compression="zstd", write_page_checksum=True, use_dictionary=_DICTIONARIES)
        data = sink.getvalue().to_pybytes()
        file = f"{hashlib.sha256(data).hexdigest()}.parquet"
        key = f"{self.key}/{name}/{file}"
        self.store.put(key, data)
        self._parts[key] = rows.cast(in_memory(name))
        stats = json.dumps({"numRecords": rows.num_rows})
        add = {"path": file, "partitionValues": {}, "size": len(data), "modificationTime": _now()}
        return key, {"add": {**add, "dataChange": True, "stats": stats}}

    def settle(self) -> None:
        """Makes the newest versions durable: a writer that was killed on its last step has left them in sight.

        Whoever calls work done because it finds it done calls this; a commit of its own does the same for its table.
        """
        self.store.settle([f"{self.key}/{name}/_delta_log" for name in SCHEMAS])

    # ---- tables ------------------------------------------------------------------------------------------------

    def _where(self, name: str) -> str:
        return f"{self.store.name}/{self.key}/{name}"

    def _open(self, name: str, version: int | None = None) -> DeltaTable:
        uri, options = self.store.table(f"{self.key}/{name}")
        try:
            if version is not None:
                return DeltaTable(uri, version=version, storage_options=options)
            if name in self._tables:
                self._tables[name].update_incremental()
            else:
                self._tables[name] = DeltaTable(uri, storage_options=options)
            return self._tables[name]
        except TableNotFoundError as error:
            raise self._damaged(name, "a Delta table", "none") from error
        except (DeltaError, OSError, ValueError, OverflowError) as error:
            newest = self._open(name).version() if version is not None else 0
            if version is not None and not 0 <= version <= newest:
                raise RequestError(
                    self._where(name),
                    expected=f"a version from 0 to {newest}",
                    found=str(version),
                    remedy="ask for one of these",
                ) from error
            raise self._damaged(name, "a readable Delta table", f"{type(error).__name__}: {error}") from error

    def _look(self, name: str) -> None:
        """Sees the newest version."""
        table = self._open(name)
        files = frozenset(self._files(name, table))
        self._seen[name] = _Seen(table.version(), files, self._rows(name, table))

    def _rows(self, name: str, table: DeltaTable) -> pa.Table:
        rows = self._table(name, self._files(name, table))
        self._check_rows(name, table, rows.num_rows)
        return rows

    def _files(self, name: str, table: DeltaTable) -> list[str]:
        """The names of a version's Parquet files."""
        try:
            return sorted(uri.rsplit("/", 1)[-1] for uri in table.file_uris())
        except (DeltaError, OSError, ValueError) as error:
            raise self._damaged(name, "a readable Delta log", f"{type(error).__name__}: {error}") from error

    def _table(self, name: str, files: Iterable[str]) -> pa.Table:
        parts = [part for file in sorted(files) if (part := self._part(name, file)).num_rows]
        if name == "records":  # batches seldom interleave: what is in order already need not be sorted
            parts.sort(key=lambda part: part["header_start"][0].as_py())
        return pa.concat_tables(parts) if parts else SCHEMAS[name].empty_table()

    def _part(self, name: str, file: str) -> pa.Table:
        """The rows of one Parquet file, read once and checked against the hash that is its name."""
        key = f"{self.key}/{name}/{file}"
        if key not in self._parts:
            try:
                data = self.store.get(key)
            except (OSError, StoreError) as error:
                raise self._damaged(name, f"the file {file}", str(error)) from error
            if self.checked and file != f"{hashlib.sha256(data).hexdigest()}.parquet":
                raise self._damaged(name, f"a file whose SHA-256 is its name, {file}", "other bytes")
            self._parts[key] = self._parsed(name, file, data)
        return self._parts[key]

    def _parsed(self, name: str, file: str, data: bytes) -> pa.Table:
        schema = in_memory(name)
        try:
            rows = pq.read_table(pa.BufferReader(data), read_dictionary=list(REPEATED))
            return rows.select(schema.names).cast(schema)
        except (pa.ArrowException, KeyError, OSError) as error:
            raise self._damaged(name, f"rows of {name} in {file}", f"{type(error).__name__}: {error}") from error

    def _check_rows(self, name: str, table: DeltaTable, found: int) -> None:
        if not self.checked:
            return
        try:
            log = self.store.get(_log(f"{self.key}/{name}", table.version()))
            actions = [json.loads(line) for line in log.splitlines()]
            said = next(action["commitInfo"]["rows"] for action in actions if "commitInfo" in action)
        except (OSError, StoreError, ValueError, KeyError, TypeError, StopIteration) as error:
            raise self._damaged(name, "a commit that says its rows", f"{type(error).__name__}: {error}") from error
        if said != str(found):
            raise self._damaged(name, f"{said} rows in version {table.version()}, as its commit says", str(found))

    def _damaged(self, name: str, expected: str, found: str) -> AunnError:
        self.store.exists(_log(f"{self.key}/{name}", 0))  # StoreError if it is the store that refuses whatever is asked
        return CorpusError(
            self._where(name),
            expected=expected,
            found=found,
            remedy="restore the registry from a copy, or make it again with `aunn-data verify --rebuild-registry`",
        )


def _revocation(batch: str) -> str:
    return f"revoked:{batch}"


def _commit_of(operation: str, actions: list[dict[str, Any]], rows: int) -> bytes:
    """A commit of the Delta log; no two are the same bytes. ``rows`` are those of the table with this commit."""
    said = {"timestamp": _now(), "operation": operation, "rows": str(rows), "attempt": uuid.uuid4().hex}
    return b"".join(json.dumps(action).encode() + b"\n" for action in [{"commitInfo": said}, *actions])


def _now() -> int:
    """Milliseconds since 1970, as Delta counts."""
    return int(time.time() * 1000)


def _log(table: str, version: int) -> str:
    return f"{table}/_delta_log/{version:020}.json"
