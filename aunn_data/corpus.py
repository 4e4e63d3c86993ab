"""The byte list: one sparse Zarr array of 2^address_bits bytes, one of marks beside it, the registry that knows both.

A batch of records goes in as: reserve addresses → write whole shards → fsync → commit rows. Before the commit no reader
sees anything; after a kill at any moment the corpus opens as it was at the last commit. Batches start and end on shard
boundaries, so a committed shard is never written again. On disk: docs/corpus-format.md.
"""

import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import zarr
from zarr.codecs import ZstdCodec

from aunn_data import header as headers
from aunn_data import payload, spans
from aunn_data.allocation import Place, aligned, place
from aunn_data.errors import CorpusError, InputError, RequestError
from aunn_data.geometry import Region
from aunn_data.header import Header
from aunn_data.record import Record
from aunn_data.registry import Entry, Holdout, Registry
from aunn_data.spans import Spans

FORMAT = "aunn-corpus"
FORMAT_VERSION = 1
ADDRESS_BITS = 38
MOST_ADDRESS_BITS = 63
SHARD_BITS = 26  # at most; a small address space has smaller shards so that it still has 2^12 of them
CHUNK_BITS = 16

# zarrs decodes and encodes the same shards several times faster than zarr-python's own pipeline (docs/log.md).
_PIPELINE = {"codec_pipeline.path": "zarrs.ZarrsCodecPipeline", "codec_pipeline.strict": True}

Progress = Callable[[int], object]
Pieces = Iterator[tuple[int, npt.NDArray[Any]]]


class Corpus:
    """An open corpus at one version. ``append`` and ``add_holdout`` move it to the newest."""

    def __init__(self, path: Path, group: zarr.Group, registry: Registry, version: int | None = None):
        self.path, self.registry = path, registry
        self.address_bits = int(str(group.attrs["address_bits"]))
        self._bytes, self._missing = _array(group, "bytes"), _array(group, "missing")
        self.shard = int(self._bytes.shards[0])
        self.version, self.entries = registry.entries(version)

    # ---- open --------------------------------------------------------------------------------------------------

    @classmethod
    def create(cls, path: Path, address_bits: int = ADDRESS_BITS) -> "Corpus":
        """A new, empty corpus; it appears at ``path`` whole or not at all."""
        if not 20 <= address_bits <= MOST_ADDRESS_BITS:
            raise RequestError(
                "--address-bits",
                expected=f"a width from 20 to {MOST_ADDRESS_BITS}",
                found=str(address_bits),
                remedy=f"{ADDRESS_BITS} bits address 275 GB and can be widened later",
            )
        if path.exists() and (not path.is_dir() or any(path.iterdir())):
            raise _not_a_corpus(path, "something else there")
        path.parent.mkdir(parents=True, exist_ok=True)
        building = Path(tempfile.mkdtemp(prefix=f".{path.name}-", dir=path.parent))
        try:
            building.chmod(0o755)
            _create_arrays(building, address_bits)
            Registry.create(building / "registry")
            _sync(building.rglob("*"))
            building.rename(path)
        except OSError as error:
            shutil.rmtree(building, ignore_errors=True)
            if (path / "zarr.json").exists():  # a racing writer made it first
                return cls.open(path)
            raise RequestError(
                path, expected="a place to make a corpus", found=str(error), remedy="choose another folder"
            ) from error
        _sync([path.parent])
        return cls.open(path)

    @classmethod
    def open(cls, path: Path, version: int | None = None) -> "Corpus":
        """The corpus at ``path``, the newest version by default. RequestError if there is none."""
        if not (path / "zarr.json").exists():
            raise _not_a_corpus(path, "no corpus there")
        try:
            with zarr.config.set(_PIPELINE):
                group = zarr.open_group(path, mode="r+")
            attributes = dict(group.attrs)
            if attributes.get("format") != FORMAT:
                raise _not_a_corpus(path, "another Zarr group")
            if attributes["format_version"] != FORMAT_VERSION:
                raise CorpusError(
                    path,
                    expected=f"corpus format version {FORMAT_VERSION}",
                    found=str(attributes["format_version"]),
                    remedy="read it with the release that wrote it",
                )
            return cls(path, group, Registry(path / "registry"), version)
        except (ValueError, KeyError, OSError) as error:
            if isinstance(error, RequestError | CorpusError):
                raise
            raise CorpusError(
                path,
                expected="the arrays bytes and missing",
                found=f"{type(error).__name__}: {error}",
                remedy="restore the corpus from a copy",
            ) from error

    # ---- read --------------------------------------------------------------------------------------------------

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
            last = int(np.searchsorted(spans_S[:, 0], stop))
            ends = np.zeros(stop - start + 1, np.int8)
            inside = np.clip(spans_S[number:last], start, stop) - start
            np.add.at(ends, inside[:, 0], 1)
            np.add.at(ends, inside[:, 1], -1)
            found = self.read(start, stop)[np.cumsum(ends[:-1], dtype=np.int8).view(np.bool_)]
            out[done : done + len(found)] = found
            done, shard = done + len(found), shard + 1
        return out

    def header(self, entry: Entry) -> Header:
        """The header of a record, from the byte list."""
        data = self.read(entry.header_start, entry.header_start + entry.header_bytes).tobytes()
        return headers.decode(data, f"{self.path} at {entry.header_start}")

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

    def holdouts(self) -> list[Holdout]:
        """All held-out regions."""
        return self.registry.holdouts()

    def _read_payload(self, read: Callable[[int, int], Any], entry: Entry, start: int, stop: int) -> Any:
        return read(entry.payload_start + start, entry.payload_start + stop)

    def _read(self, array: Any, start: int, stop: int) -> Any:
        if not 0 <= start <= stop <= self.size:
            raise RequestError(
                self.path,
                expected=f"addresses within 0:{self.size}",
                found=f"{start}:{stop}",
                remedy="`aunn-data ls` lists what lies where",
            )
        try:
            return np.asarray(array[start:stop])
        except Exception as error:  # zarr, zarrs and the file system each raise their own
            raise CorpusError(
                f"{self.path} addresses {start}:{stop}",
                expected="readable chunks",
                found=f"{type(error).__name__}: {error}",
                remedy="run `aunn-data verify`, restore the damaged shard from a copy",
            ) from error

    # ---- write -------------------------------------------------------------------------------------------------

    def append(
        self, records: Sequence[Record], source_sha256: Sequence[str], on_bytes: Progress | None = None
    ) -> list[Entry]:
        """Commits records as one batch and returns their entries. ``on_bytes(n)`` after n more payload bytes lie there.

        Raises InputError if the address space has no room, ConflictError if another writer committed one of the names.
        """
        seen = self.version
        sizes = [(headers.PREAMBLE_BYTES + len(r.header.line()), r.header.geometry) for r in records]
        with self._durable_registry():
            start, stop = self.registry.reserve(partial(self._fit, sizes))
        places = place(sizes, start)
        hashes = [hashlib.sha256() for _ in records]
        nexts = [p.header_start for p in places[1:]] + [stop]
        lines = [
            headers.encode(r.header, payload=p.payload_start, next=n)
            for r, p, n in zip(records, places, nexts, strict=True)
        ]
        bytes_pieces = _bytes_pieces(records, places, lines, hashes, self.shard, on_bytes or (lambda n: None))
        written = self._write(self._bytes, bytes_pieces)
        missing_bytes = [0] * len(records)
        written += self._write(self._missing, _missing_pieces(records, places, missing_bytes, self.shard))
        _sync(written)
        entries = [
            _entry(r, p, len(line), source, digest.hexdigest(), marked)
            for r, p, line, source, digest, marked in zip(
                records, places, lines, source_sha256, hashes, missing_bytes, strict=True
            )
        ]
        with self._durable_registry():
            self.registry.commit(entries, seen)
        self.version, self.entries = self.registry.entries()
        return entries

    def add_holdouts(self, holdouts: Sequence[Holdout]) -> int:
        """Adds held-out regions that are not there yet; returns how many were new."""
        named = [(h, self.entries.named(h.record).geometry.format_region(h.region)) for h in holdouts]
        with self._durable_registry():
            return self.registry.add_holdouts(named)

    @contextmanager
    def _durable_registry(self) -> Iterator[None]:
        """Flushes the files that the registry gained within to the disk; the older ones are there already."""
        folder = self.path / "registry"
        before = set(folder.rglob("*"))
        yield
        _sync(set(folder.rglob("*")) - before)

    def _fit(self, sizes: list[tuple[int, Any]], start: int) -> int:
        """Where a batch that starts at ``start`` ends; InputError if that is past the last address."""
        stop = aligned(place(sizes, start)[-1].stop, self.shard)
        if stop > self.size:
            raise InputError(
                self.path,
                expected=f"room for {stop - start:,} addresses",
                found=f"{max(0, self.size - start):,} left of 2^{self.address_bits}",
                remedy="make a wider corpus with --address-bits",
            )
        return stop

    def _write(self, array: Any, pieces: Pieces) -> list[Path]:
        """Writes pieces (ascending, none across a shard's end) as whole shards; returns the files."""
        number, buffer, files = -1, np.empty(0, array.dtype), []

        def flush() -> None:
            if number >= 0:
                array[number * self.shard : (number + 1) * self.shard] = buffer
                files.append(self.path / array.basename / "c" / str(number))

        for address, piece in pieces:
            if address // self.shard != number:
                flush()
                number, buffer = address // self.shard, np.zeros(self.shard, array.dtype)
            within = address - number * self.shard
            buffer[within : within + len(piece)] = piece
        flush()
        return files


def _bytes_pieces(
    records: Sequence[Record],
    places: Sequence[Place],
    lines: Sequence[bytes],
    hashes: Sequence[Any],
    shard: int,
    on_bytes: Progress,
) -> Pieces:
    for record, at, line, digest in zip(records, places, lines, hashes, strict=True):
        yield from _cut(at.header_start, np.frombuffer(line, np.uint8), shard)
        geometry = record.header.geometry
        for start, stop in payload.blocks(geometry, shard, at.payload_start):
            block = payload.encode(geometry, record.elements, start, stop, record.missing)
            if block is not None:
                inside = payload.element_bytes(geometry, block, start)
                digest.update(inside)
                on_bytes(len(inside))
                yield at.payload_start + start, block


def _missing_pieces(records: Sequence[Record], places: Sequence[Place], counts: list[int], shard: int) -> Pieces:
    for number, (record, at) in enumerate(zip(records, places, strict=True)):
        if record.missing is None:
            continue
        for start, stop in payload.blocks(record.header.geometry, shard, at.payload_start):
            block = payload.encode_missing(record.header.geometry, record.missing, start, stop)
            if block is not None and block.any():
                counts[number] += int(block.sum())
                yield at.payload_start + start, block


def _cut(address: int, data: npt.NDArray[np.uint8], shard: int) -> Pieces:
    while len(data):
        room = shard - address % shard
        yield address, data[:room]
        address, data = address + room, data[room:]


def _entry(record: Record, at: Place, header_bytes: int, source_sha256: str, sha256: str, missing_bytes: int) -> Entry:
    header, geometry = record.header, record.header.geometry
    return Entry(
        record=header.record,
        source=header.source,
        modality=header.modality,
        format=header.format,
        header_start=at.header_start,
        header_bytes=header_bytes,
        payload_start=at.payload_start,
        payload_stop=at.payload_start + geometry.extent,
        stop=at.stop,
        axes=geometry.axes,
        shape=geometry.shape,
        dtype=geometry.dtype,
        layout=geometry.layout,
        geometry=geometry,
        payload_bytes=geometry.payload_bytes,
        missing_bytes=missing_bytes,
        sha256=sha256,
        source_sha256=source_sha256,
    )


def _create_arrays(path: Path, address_bits: int) -> None:
    shard_bits = max(CHUNK_BITS - 8, min(SHARD_BITS, address_bits - 12))
    attributes = {"format": FORMAT, "format_version": FORMAT_VERSION, "address_bits": address_bits}
    group = zarr.create_group(path, zarr_format=3, attributes=attributes)
    for name, dtype in (("bytes", "uint8"), ("missing", "bool")):
        group.create_array(
            name,
            shape=(1 << address_bits,),
            dtype=dtype,
            chunks=(1 << min(CHUNK_BITS, shard_bits),),
            shards=(1 << shard_bits,),
            fill_value=0,
            compressors=[ZstdCodec(level=3, checksum=True)],
        )


def _array(group: zarr.Group, name: str) -> Any:
    with zarr.config.set(_PIPELINE):
        return group[name]


def _not_a_corpus(path: Path, found: str) -> RequestError:
    return RequestError(
        path,
        expected="a corpus",
        found=found,
        remedy="name its folder with --corpus or AUNN_CORPUS; `aunn-data ingest` makes one",
    )


def _sync(paths: Iterable[Path]) -> None:
    """Flushes files and the folders that name them to the disk: Zarr and delta-rs rename but do not fsync."""
    found = {path for path in paths if path.exists()}
    for path in sorted(found | {path.parent for path in found}):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
