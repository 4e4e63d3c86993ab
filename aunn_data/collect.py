"""Garbage: what writers that died have left. Nothing goes that a version lists or a writer at work may still commit.

A batch that has no record ``older_than`` after it was given its addresses is first *revoked*, by a commit of the
``records`` table: its writer, should it still live, can never commit it now (see ``Registry.revoke``). Then its
shards go.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from aunn_data.corpus import Corpus
from aunn_data.registry import Reservation
from aunn_data.store import TEMPORARY, Item

OLDER_THAN = timedelta(days=1)


@dataclass
class Collected:
    """Batches that were revoked, files that were removed, the bytes these took."""

    batches: list[str] = field(default_factory=list)
    files: list[str] = field(default_factory=list)
    bytes: int = 0


def collect(corpus: Corpus, older_than: timedelta = OLDER_THAN, dry_run: bool = False) -> Collected:
    """Removes what nobody can see or commit; with ``dry_run`` only says what would go.

    Unlisted files of the tables ``reservations`` and ``holdouts`` stay: a few hundred bytes each, owned by no batch.
    """
    before, registry, collected = datetime.now(UTC) - older_than, corpus.registry, Collected()
    items = list(_of_batches(corpus))
    candidates = _owners(registry.reservations(), [address for address, _ in items], before)

    def without_records(records: pa.Table) -> list[str]:
        starts = np.sort(records["header_start"].to_numpy())
        return [r.batch for r in candidates if not _any_within(starts, r)]

    corpus.refresh()
    chosen = set(without_records(corpus.entries.table))
    if chosen and not dry_run:
        collected.batches = registry.revoke(without_records)
        chosen = {batch for batch in chosen if registry.revoked(batch)}
    elif chosen:
        collected.batches = sorted(chosen)
    gone = [r for r in candidates if r.batch in chosen]
    files = [item for address, item in items if any(r.start <= address < r.stop for r in gone)]
    for item in [*files, *_temporary(corpus, before)]:
        collected.files.append(item.key)
        collected.bytes += item.size
    if not dry_run:
        corpus.store.delete(collected.files)
        corpus.refresh()
    return collected


def _of_batches(corpus: Corpus) -> Iterator[tuple[int, Item]]:
    """Every shard, and every file of rows that no version lists, with an address of the batch it belongs to."""
    for name in ("bytes", "missing"):
        for item in corpus.store.items(f"{name}/c"):
            number = item.key.rsplit("/", 1)[-1]
            if number.isdecimal():
                yield int(number) * corpus.shard, item
    rows = corpus.registry.unlisted("records")
    for item in corpus.store.items("registry/records") if rows else ():
        if item.key in rows and rows[item.key].num_rows:
            yield pc.min(rows[item.key]["header_start"]).as_py(), item


def _owners(reservations: list[Reservation], addresses: list[int], before: datetime) -> list[Reservation]:
    """The batches of some age that have any of the addresses."""
    there = np.unique(np.array(addresses, np.int64))
    return [r for r in reservations if r.created < before and _any_within(there, r)]


def _any_within(ascending_N: npt.NDArray[np.int64], r: Reservation) -> bool:
    first, last = np.searchsorted(ascending_N, [r.start, r.stop])
    return bool(first < last)


def _temporary(corpus: Corpus, before: datetime) -> Iterator[Item]:
    """Files that were never finished: ours, and those of delta-rs, which ends their names so."""
    for item in corpus.store.items(""):
        name = item.key.rsplit("/", 1)[-1]
        if item.modified < before and (name.startswith(TEMPORARY) or name.endswith(".json.tmp")):
            yield item
