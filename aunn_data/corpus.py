"""The byte list: one sparse Zarr array of 2^address_bits bytes, one of marks beside it, the registry that knows both.

A batch of records goes in as: reserve addresses → write whole shards → fsync → commit rows. Before the commit no reader
sees anything; after a kill at any moment the corpus opens as it was at the last commit. Batches start and end on shard
boundaries, so a committed shard is never written again. On disk: docs/corpus-format.md.
"""

import json
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import zarr
from obstore.exceptions import BaseError

from aunn_data import batch, documents, payload, spans
from aunn_data import header as headers
from aunn_data.batch import Incoming, Progress, Sha256
from aunn_data.documents import ADDRESS_BITS, FORMAT_VERSION
from aunn_data.entries import Entries, Entry
from aunn_data.errors import ConflictError, CorpusError, InputError, RequestError
from aunn_data.geometry import Region
from aunn_data.header import Header
from aunn_data.record import Record
from aunn_data.registry import Holdout, Registry
from aunn_data.shards import shard_key
from aunn_data.spans import Spans
from aunn_data.store import TEMPORARY, Folder, Store, refused, store_at

# zarrs decodes shards several times faster than zarr-python's own pipeline, but only from a folder (docs/log.md).
# The setting is one for all threads: two that set and unset it at once could leave it behind.
_CONFIGURING = threading.Lock()
_PIPELINE = {"codec_pipeline.path": "zarrs.ZarrsCodecPipeline", "codec_pipeline.strict": True}


class Corpus:
    """An open corpus at one version. ``append`` moves it to the newest. ``name`` opens it again: a path or a URL."""

    def __init__(self, store: Store, group: Any):
        self.store, self.name = store, store.name
        self.format_version = int(str(group.attrs["format_version"]))
        self._bytes, self._missing = group["bytes"], group["missing"]
        # The width is that of the arrays: each widens in one step; until both have, the narrower one holds.
        self.address_bits: int = min(self._bytes.shape[0], self._missing.shape[0]).bit_length() - 1
        self.shard: int = self._bytes.shards[0]
        self.registry = Registry(store, checked=self.format_version > 1)
        self.version, self.entries = 0, Entries.none()

    # ---- open --------------------------------------------------------------------------------------------------

    @classmethod
    def create(cls, where: str | Path, address_bits: int = ADDRESS_BITS) -> "Corpus":
        """A new, empty corpus in a folder or at a URL; the group's zarr.json, written last, makes it one.

        Of racing creators one wins, the others open what it made.
        """
        documents.check_bits(address_bits)
        store = store_at(where)
        if store.exists("zarr.json"):
            return cls.open(where)
        if isinstance(store, Folder) and _occupied(store.path):
            raise documents.not_a_corpus(store.name, "something else there")
        store.put("bytes/zarr.json", documents.of_empty(address_bits)["bytes/zarr.json"], new=True)
        [addresses] = json.loads(store.get("bytes/zarr.json"))["shape"]  # of the first of creators that race
        others = documents.of_empty(addresses.bit_length() - 1)
        store.put("missing/zarr.json", others["missing/zarr.json"], new=True)
        Registry.create(store)
        store.put("zarr.json", others["zarr.json"], new=True)
        return cls.open(where)

    @classmethod
    def open(cls, where: str | Path, version: int | None = None) -> "Corpus":
        """The corpus in a folder or at a URL, the newest version by default. RequestError if there is none."""
        corpus = cls.without_registry(where)
        corpus.version, corpus.entries = corpus.registry.entries(version)
        return corpus

    @classmethod
    def without_registry(cls, where: str | Path) -> "Corpus":
        """The byte list alone, as if no record were committed: for those who mend the registry."""
        store = store_at(where)
        if not store.exists("zarr.json"):
            raise documents.not_a_corpus(store.name, "no corpus there")
        try:
            with _CONFIGURING, zarr.config.set(_PIPELINE if isinstance(store, Folder) else {}):
                group = zarr.open_group(store.zarr(), mode="r")
                documents.check_format(store, dict(group.attrs))
                documents.check_arrays(group)
                return cls(store, group)
        except BaseError as error:
            raise refused(store.name, error) from error
        except (ValueError, KeyError, TypeError, OSError) as error:
            if isinstance(error, RequestError | CorpusError):
                raise
            raise CorpusError(
                store.name,
                expected="the arrays bytes and missing",
                found=f"{type(error).__name__}: {error}",
                remedy="restore the corpus' zarr.json files from a copy",
            ) from error

    # ---- read --------------------------------------------------------------------------------------------------

    @property
    def path(self) -> Path:
        """The folder of a corpus that lies in one."""
        return Path(self.name)

    @property
    def size(self) -> int:
        """The number of addresses, 2^address_bits."""
        return 1 << self.address_bits

    def read(self, start: int, stop: int) -> npt.NDArray[np.uint8]:
        """The bytes at addresses ``start:stop``, uint8; 0 where nothing was written."""
        return np.asarray(self._read(self._bytes, start, stop), np.uint8)

    def read_missing(self, start: int, stop: int) -> npt.NDArray[np.bool_]:
        """The marks at addresses ``start:stop``: True where a byte belongs to an element its source lacks."""
        return np.asarray(self._read(self._missing, start, stop), np.bool_)

    def gather(self, spans_S: Spans) -> npt.NDArray[np.uint8]:
        """(N,) uint8 bytes at all addresses of the spans, ascending; a shard is decoded once."""
        rank, out = spans.ranks(spans_S), np.empty(spans.size(spans_S), np.uint8)
        done, shard = 0, 0
        while done < len(out):
            number = int(np.searchsorted(rank, done, side="right")) - 1
            shard = max(shard, int(spans_S[number, 0]) // self.shard)  # shards that no span touches are passed over
            start, stop = shard * self.shard, min((shard + 1) * self.shard, int(spans_S[-1, 1]))
            found = self.read(start, stop)[spans.mask(spans_S, start, stop)]
            out[done : done + len(found)] = found
            done, shard = done + len(found), shard + 1
        return out

    def header(self, entry: Entry) -> Header:
        """The header of a record, from the byte list."""
        data = self.read(entry.header_start, entry.header_start + entry.header_bytes).tobytes()
        return headers.decode(data, f"{self.name} at {entry.header_start}")

    def elements(self, entry: Entry, region: Region | None = None) -> npt.NDArray[Any]:
        """The stored values of a region (all of the record by default), missing ones as the source had them."""
        region = entry.geometry.whole if region is None else region
        elements = payload.decode(entry.geometry, partial(self._read_payload, self.read, entry), region)
        if entry.missing_bytes and entry.geometry.missing_value is not None:
            elements = payload.restore_missing(entry.geometry, elements, self.missing(entry, region))
        return elements

    def missing(self, entry: Entry, region: Region | None = None) -> npt.NDArray[np.bool_]:
        """The marks of a region's elements: True where the source lacks the element."""
        region = entry.geometry.whole if region is None else region
        if not entry.missing_bytes:
            return np.zeros([stop - start for start, stop in region], np.bool_)
        return payload.decode_missing(entry.geometry, partial(self._read_payload, self.read_missing, entry), region)

    def record(self, entry: Entry) -> Record:
        """The record as its reader gave it: header, all elements, marks."""
        missing = self.missing(entry) if entry.missing_bytes else None
        return Record(self.header(entry), self.elements(entry), missing)

    def blocks(self, entry: Entry) -> Iterator[tuple[int, npt.NDArray[np.uint8]]]:
        """(offset, bytes) of the payload, a shard at a time."""
        for start, stop in payload.blocks(entry.geometry, self.shard, entry.payload_start):
            yield start, self._read_payload(self.read, entry, start, stop)

    def shard_numbers(self, name: str) -> list[int]:
        """The numbers of the shards that exist in the array ``bytes`` or ``missing``, ascending."""
        last = (item.key.rsplit("/", 1)[-1] for item in self.store.items(f"{name}/c"))
        return sorted(int(number) for number in last if number.isdecimal())

    def holdouts(self) -> list[Holdout]:
        """All held-out regions."""
        return self.registry.holdouts()

    def _read_payload(self, read: Callable[[int, int], Any], entry: Entry, start: int, stop: int) -> Any:
        return read(entry.payload_start + start, entry.payload_start + stop)

    def _read(self, array: Any, start: int, stop: int) -> Any:
        if not 0 <= start <= stop <= self.size:
            raise RequestError(
                self.name,
                expected=f"addresses within 0:{self.size}",
                found=f"{start}:{stop}",
                remedy="`aunn-data ls` lists what lies where",
            )
        try:
            found = np.asarray(array[start:stop])
        except BaseError as error:
            raise refused(self.name, error) from error
        except Exception as error:  # zarr, zarrs and the file system each raise their own
            raise self._unreadable(start, stop, "readable chunks", f"{type(error).__name__}: {error}") from error
        if self.format_version > 1:
            self._check_not_lost(array.basename, start, stop, found)
        return found

    def _check_not_lost(self, name: str, start: int, stop: int, found: npt.NDArray[Any]) -> None:
        """Zarr reads a shard that does not exist as zeros: CorpusError where one must exist."""
        for number in range(start // self.shard, -(-stop // self.shard)):
            low, high = number * self.shard, (number + 1) * self.shard
            if self.store.remote and found[max(low, start) - start : high - start].any():
                continue  # spares a request
            if not self.store.exists(shard_key(name, number)) and self.expects(name, number):
                raise self._unreadable(max(low, start), min(high, stop), f"shard {number} of {name}", "none")

    def expects(self, name: str, number: int) -> bool:
        """Must there be a shard of this number in the array ``bytes`` or ``missing``?"""
        low, high = number * self.shard, (number + 1) * self.shard
        for entry in self.entries.within(low, high):
            if name == "bytes" and entry.header_start < high and low < entry.header_start + entry.header_bytes:
                return True
            first, last = max(low, entry.payload_start), min(high, entry.payload_stop)
            inside = first < last and payload.holds_elements(
                entry.geometry, first - entry.payload_start, last - entry.payload_start
            )
            if inside and (name == "bytes" or entry.missing_bytes):
                return True
        return False

    def _unreadable(self, start: int, stop: int, expected: str, found: str) -> CorpusError:
        records = [entry.record for entry in self.entries.within(start, stop)][:3]
        return CorpusError(
            f"{self.name} addresses {start}:{stop}" + (f" of {', '.join(records)}" if records else ""),
            expected=expected,
            found=found,
            remedy="run `aunn-data verify`, restore the damaged shard from a copy",
        )

    # ---- write -------------------------------------------------------------------------------------------------

    def append(
        self,
        records: Sequence[Record],
        source_sha256: Sequence[Sha256],
        on_bytes: Progress = lambda count: None,
    ) -> Sequence[Entry]:
        """Commits records as one batch and returns their entries; ``on_bytes(n)`` after n more payload bytes.

        Raises InputError if the address space has no room, RequestError if a name is taken, ConflictError if another
        writer has taken one meanwhile.
        """
        self._check_writable()
        incoming = Incoming(records, source_sha256)
        self._check_new(incoming.records.record)
        given = self.registry.reserve(lambda start: self._fitting(start, incoming.place(start, self.shard)))
        entries = batch.write(self.store, self.shard, incoming, on_bytes)
        try:
            self.version, self.entries = self.registry.commit(entries, self.version, given.batch)
        except ConflictError:
            batch.remove(self.store, self.shard, given.start, given.stop)
            raise
        return entries

    def refresh(self) -> None:
        """Moves to the newest version."""
        self.version, self.entries = self.registry.entries()

    def add_holdouts(self, holdouts: Sequence[Holdout]) -> int:
        """Adds held-out regions that are not there yet; returns how many were new."""
        self._check_writable()
        named = [(h, self.entries.named(h.record).geometry.format_region(h.region)) for h in holdouts]
        return self.registry.add_holdouts(named)

    def widen(self, address_bits: int) -> "Corpus":
        """The same corpus with more addresses; no byte moves. RequestError if it would be narrower."""
        self._check_writable()
        documents.check_bits(address_bits)
        if address_bits < self.address_bits:
            raise RequestError(
                "--address-bits",
                expected=f"at least the corpus' own width, {self.address_bits}",
                found=str(address_bits),
                remedy="leave the option out: committed bytes never move",
            )
        arrays = ("missing/zarr.json", "bytes/zarr.json")
        # Until both agree: of two who widen at once, one may have written over the other's greater width.
        while (width := max([address_bits, *map(self._width, arrays)])) > min(map(self._width, arrays)):
            for key in arrays:
                self._rewrite(key, {"shape": [1 << width]})
        attributes = json.loads(self.store.get("zarr.json"))["attributes"]
        self._rewrite("zarr.json", {"attributes": {**attributes, "address_bits": width}})
        return Corpus.open(self.name)

    def _width(self, key: str) -> int:
        [addresses] = json.loads(self.store.get(key))["shape"]
        return int(addresses).bit_length() - 1

    def _rewrite(self, key: str, changes: dict[str, Any]) -> None:
        document = json.loads(self.store.get(key)) | changes
        self.store.put(key, json.dumps(document, indent=2).encode())

    def _check_new(self, names: Sequence[str]) -> None:
        taken = self.entries.taken(names)
        if len(set(names)) < len(names):
            taken += [name for name, count in Counter(names).items() if count > 1]
        if taken:
            raise RequestError(
                taken[0],
                expected="the name of a new record",
                found="one that is taken",
                remedy="committed bytes never change: give it another name",
            )

    def _check_writable(self) -> None:
        if self.format_version != FORMAT_VERSION:
            raise RequestError(
                self.name,
                expected=f"corpus format version {FORMAT_VERSION} to write to",
                found=f"version {self.format_version}, which is kept for reading",
                remedy="export it and ingest the files into a new corpus",
            )

    def _fitting(self, start: int, stop: int) -> int:
        """``stop``; InputError if that is past the last address."""
        if stop > self.size:
            raise InputError(
                self.name,
                expected=f"room for {stop - start:,} addresses",
                found=f"{max(0, self.size - start):,} left of 2^{self.address_bits}",
                remedy="widen the corpus with `aunn-data ingest --address-bits`",
            )
        return stop


def _occupied(folder: Path) -> bool:
    """Is something there that is no corpus half made?"""

    def ours(name: str) -> bool:
        return name in ("bytes", "missing", "registry") or name.startswith(TEMPORARY)

    return folder.exists() and (not folder.is_dir() or any(not ours(found.name) for found in folder.iterdir()))
