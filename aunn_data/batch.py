"""One batch on its way in: records -> headers and payloads at their places -> whole shards, durable before the commit.

Legend: R records. Payloads are encoded in this thread, hashed in a second, shards compressed and flushed in some more;
hashlib, zstd and the file system all work beside one another. What is in memory at any time is a few shards.
"""

import hashlib
import mmap
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, suppress
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from aunn_data import header as headers
from aunn_data import payload, shards
from aunn_data.allocation import Places, aligned, place
from aunn_data.entries import Rows
from aunn_data.errors import StoreError
from aunn_data.geometry import Geometry, interned
from aunn_data.outgoing import WORKERS, Outgoing
from aunn_data.record import Record, Records
from aunn_data.shards import shard_key
from aunn_data.store import Store

Progress = Callable[[int], object]
Sha256 = str | Future[str]
"""Of a source: known, or on its way while the payload is written."""

_AT_ONCE = 512  # small records: what they are made of stays in the cache
_LOADED = 1 << 24  # bytes of elements that are read at once where reading in pieces would decode them twice
_HASH_ASIDE = 1 << 20  # bytes of a payload from which handing its hash to another thread costs less than doing it here
_ARRAYS = (("bytes", np.uint8), ("missing", np.bool_))


class Incoming:
    """A batch as columns: its records, their headers' stems, their sources' hashes and, once placed, their places."""

    def __init__(self, records: Sequence[Record], sources: Sequence[Sha256]):
        given = Records.of(records)
        r = self.records = Records(**{**vars(given), "geometry": interned(given.geometry)})
        self.sources = sources
        self.stems = list(headers.stems(r.record, r.source, r.modality, r.format, r.geometry, r.metadata))
        self.twins = {number: twin for number, twin in enumerate(r.twin) if twin}
        self.places = Places([], [], [])
        self.nexts: list[int] = []

    def place(self, start: int, shard: int) -> int:
        """Gives each record its place, from address ``start`` on; returns where the batch stops."""
        sizes = list(zip(map(headers.size, self.stems), self.records.geometry, strict=True))
        self.places = place(sizes, start, {number: twin.payload_start for number, twin in self.twins.items()})
        stop = aligned(self.places.stop[-1], shard)
        self.nexts = [*self.places.header_start[1:], stop]
        return stop

    def columns(self, digests: Sequence[str], missing_bytes: Sequence[int]) -> dict[str, Sequence[Any]]:
        """The columns of the table ``records``; ``geometry`` as objects."""
        records, places, geometries = self.records, self.places, self.records.geometry
        return {
            "record": records.record,
            "source": records.source,
            "modality": records.modality,
            "format": records.format,
            "header_start": places.header_start,
            "header_bytes": list(map(headers.size, self.stems)),
            "payload_start": places.payload_start,
            "payload_stop": [start + g.extent for start, g in zip(places.payload_start, geometries, strict=True)],
            "stop": places.stop,
            "axes": [geometry.axes for geometry in geometries],
            "shape": [geometry.shape for geometry in geometries],
            "dtype": [geometry.dtype for geometry in geometries],
            "layout": [geometry.layout for geometry in geometries],
            "geometry": geometries,
            "payload_bytes": [geometry.payload_bytes for geometry in geometries],
            "missing_bytes": missing_bytes,
            "sha256": digests,
            "source_sha256": list(map(resolved, self.sources)),
        }


def write(store: Store, shard: int, incoming: Incoming, on_bytes: Progress = lambda count: None) -> Rows:
    """Writes all shards of a batch that was placed and returns its entries; nothing is committed.

    Whatever goes wrong, the shards are taken away again: nobody else will ever have these addresses.
    """
    with ExitStack() as stack:
        pool = stack.enter_context(ThreadPoolExecutor(WORKERS))
        hasher = stack.enter_context(ThreadPoolExecutor(1))
        bytes_, marks = (Outgoing(store, name, shard, dtype, pool) for name, dtype in _ARRAYS)
        try:
            digests = _write_bytes(bytes_, incoming, hasher, on_bytes)
            marked = _write_marks(marks, incoming)
            bytes_.finish()
            marks.finish()
        except BaseException:
            pool.shutdown(cancel_futures=True)
            with suppress(StoreError):
                store.delete(bytes_.keys + marks.keys)
            raise
    return Rows.of(incoming.columns(digests, marked))


def remove(store: Store, shard: int, start: int, stop: int) -> None:
    """Takes away the shards of a batch that was refused."""
    numbers = range(start // shard, -(-stop // shard))
    store.delete([key for n in numbers for name, _ in _ARRAYS if store.exists(key := shard_key(name, n))])


def _write_bytes(out: Outgoing, incoming: Incoming, hasher: ThreadPoolExecutor, on_bytes: Progress) -> list[str]:
    """Headers and payloads of all records; returns the payloads' hashes."""
    digests: list[str] = []
    pending: dict[int, hashlib._Hash] = {}
    places = incoming.places
    for small, run in _runs(incoming, out.shard):
        if small:
            digests += _write_run(out, incoming, run)
            on_bytes(sum(geometry.payload_bytes for geometry in incoming.records.geometry[run.start : run.stop]))
            continue
        for number in run:
            if number in incoming.twins:
                _write_header(out, incoming, number)
                digests.append(incoming.twins[number].sha256)
                continue
            # A header with shards to itself is written last: the source's hash may come while the payload goes in.
            late = not (places.header_start[number] % out.shard or places.payload_start[number] % out.shard)
            if not late:
                _write_header(out, incoming, number)
            pending[len(digests)] = _write_payload(out, incoming, number, hasher, on_bytes)
            digests.append("")
            if late:
                _write_header(out, incoming, number)
    hasher.shutdown()
    for number, digest in pending.items():
        digests[number] = digest.hexdigest()
    return digests


def _runs(incoming: Incoming, shard: int) -> Iterator[tuple[bool, range]]:
    """Records in order, in pieces: (True, small ones that lie in one shard) or (False, others).

    A small one is no longer than a chunk, so that no chunk from the first to the last of them is without a byte.
    """
    places = incoming.places
    start_R, stop_R = np.array(places.header_start, np.int64), np.array(places.stop, np.int64)
    small_R = stop_R - start_R <= min(shard, 1 << shards.CHUNK_BITS, _HASH_ASIDE)
    small_R[list(incoming.twins)] = False
    shard_R = np.where(small_R & (start_R // shard == (stop_R - 1) // shard), start_R // shard, -1)
    for first, last in pairwise([0, *(np.flatnonzero(np.diff(shard_R)) + 1).tolist(), len(shard_R)]):
        yield bool(shard_R[first] >= 0), range(first, last)


def _write_run(out: Outgoing, incoming: Incoming, run: range) -> Iterator[str]:
    """Headers and payloads of small records in one shard; yields the payloads' hashes."""
    records, places = incoming.records, incoming.places
    for first in range(run.start, run.stop, _AT_ONCE):
        cut = slice(first, min(first + _AT_ONCE, run.stop))
        start = places.header_start[first]
        block = out.at(start, places.stop[cut.stop - 1] - start)
        _write_headers(block.data, incoming, cut)
        geometries, elements, starts = records.geometry[cut], records.elements[cut], places.payload_start[cut]
        inside: Iterable[Any] | None = payload.encode_many(block, geometries, elements, [at - start for at in starts])
        if inside is None:
            inside = (
                payload.encode_whole(block[at - start : at - start + geometry.extent], geometry, element, missing)
                for at, geometry, element, missing in zip(
                    starts, geometries, elements, records.missing[cut], strict=True
                )
            )
        yield from (hashlib.sha256(data).hexdigest() for data in inside)


def _write_headers(block: memoryview, incoming: Incoming, cut: slice) -> None:
    """The headers of records into a block that begins with the first of them."""
    places, stems = incoming.places, incoming.stems
    zero, columns = places.header_start[cut.start], (places.header_start, places.payload_start, incoming.nexts, stems)
    rows = zip(incoming.records.geometry[cut], incoming.sources[cut], *(c[cut] for c in columns), strict=True)
    for geometry, source, start, payload_start, next, stem in rows:
        data = headers.assemble(stem, payload_start, geometry.extent, next, resolved(source))
        block[start - zero : start - zero + len(data)] = data


def _write_header(out: Outgoing, incoming: Incoming, number: int) -> None:
    start, extent = incoming.places.payload_start[number], incoming.records.geometry[number].extent
    source = resolved(incoming.sources[number])
    data = headers.assemble(incoming.stems[number], start, extent, incoming.nexts[number], source)
    address, left = incoming.places.header_start[number], np.frombuffer(data, np.uint8)
    while len(left):
        room = min(len(left), out.shard - address % out.shard)
        out.at(address, room)[:] = left[:room]
        address, left = address + room, left[room:]


def _write_payload(
    out: Outgoing, incoming: Incoming, number: int, hasher: ThreadPoolExecutor, on_bytes: Progress
) -> "hashlib._Hash":
    records, start = incoming.records, incoming.places.payload_start[number]
    geometry, elements, missing = records.geometry[number], records.elements[number], records.missing[number]
    if geometry.extent + start % out.shard <= out.shard and geometry.payload_bytes < _HASH_ASIDE:
        digest = hashlib.sha256(payload.encode_whole(out.at(start, geometry.extent), geometry, elements, missing))
        on_bytes(geometry.payload_bytes)
        return digest
    if hasattr(elements, "write_far") and not start % out.shard and not geometry.extent % out.shard:
        return _written_far(out, geometry, elements, missing, start, on_bytes)
    digest = hashlib.sha256()
    kept: tuple[tuple[object, ...] | None, list[Any]] = None, []  # a shard of one value, and what of it is hashed
    for first, last in payload.blocks(geometry, out.shard, start):
        if not payload.holds_elements(geometry, first, last):
            continue
        whole = last - first == out.shard and payload.is_cut_freely(geometry)
        alike = payload.alike(geometry, elements, missing, first, last) if whole else None
        if alike and alike == kept[0]:
            out.again(start + first)
            for inside in kept[1]:
                out.reader = hasher.submit(digest.update, inside)
        elif whole:
            kept = _streamed(out, incoming, number, first, hasher, digest, alike)
        else:
            block = out.at(start + first, last - first)
            payload.encode_into(block, geometry, elements, first, missing)
            out.reader = hasher.submit(digest.update, payload.element_bytes(geometry, block, first))
        _forget(elements)
        on_bytes(payload.bytes_within(geometry, first, last))
    return digest


def _streamed(
    out: Outgoing,
    incoming: Incoming,
    number: int,
    first: int,
    hasher: ThreadPoolExecutor,
    digest: "hashlib._Hash",
    alike: tuple[object, ...] | None,
) -> tuple[tuple[object, ...] | None, list[Any]]:
    """A whole shard of a payload; if it is ``alike`` others, with what of it is hashed."""
    geometry, hashed = incoming.records.geometry[number], list[Any]()
    source = incoming.records.elements[number], incoming.records.missing[number]
    step = max(out.piece, 1 << (_LOADED // geometry.numpy_dtype.itemsize).bit_length() - 1)
    held = list(source)

    def fill(piece: npt.NDArray[Any], within: int) -> Future[Any]:
        if not within % step:
            held[:] = [payload.loaded(geometry, part, first + within, first + within + step) for part in source]
        payload.encode_into(piece, geometry, held[0], first + within, held[1])
        inside = payload.element_bytes(geometry, piece, first + within)
        if alike:  # the piece's own memory will be used for others; equal ones are kept once
            inside = hashed[-1] if hashed and hashed[-1] == inside else memoryview(bytes(inside))
            hashed.append(inside)
        return hasher.submit(digest.update, inside)

    out.stream(incoming.places.payload_start[number] + first, fill, keep=bool(alike))
    return alike, hashed


def _written_far(
    out: Outgoing, geometry: Geometry, elements: Any, missing: Any, start: int, on_bytes: Progress
) -> "hashlib._Hash":
    """A payload whose shards others write, from the source; here it is only hashed."""
    held = [block for block in payload.blocks(geometry, out.shard, start) if payload.holds_elements(geometry, *block)]
    far: list[Future[None]] = []
    for first, _ in held:
        out.keys.append(shard_key(out.name, (start + first) // out.shard))
        far.append(elements.write_far(out.store.name, out.shard, geometry, start, first))
    digest, block = hashlib.sha256(), np.zeros(out.shard, np.uint8)
    for first, _ in held:
        block[:] = 0
        payload.encode_into(block, geometry, elements, first, missing)
        inside = payload.element_bytes(geometry, block, first)
        digest.update(inside)
        on_bytes(len(inside))
    for future in far:
        future.result()
    return digest


def write_shard(
    store: Store, shard: int, geometry: Geometry, elements: Any, missing: Any, start: int, first: int
) -> None:
    """One shard of the payload that begins at address ``start``: that from offset ``first`` on, durable."""
    block = np.zeros(shard, np.uint8)
    payload.encode_into(block, geometry, elements, first, missing)
    written = np.ones(shard // min(shard, 1 << shards.CHUNK_BITS), np.bool_)
    store.put(shard_key("bytes", (start + first) // shard), shards.encode(block, written))


def _write_marks(out: Outgoing, incoming: Incoming) -> list[int]:
    """The marks of all records; returns how many bytes of each are marked."""
    records, starts = incoming.records, incoming.places.payload_start
    marked = [
        0 if missing is None else _write_mark(out, geometry, missing, start)
        for geometry, missing, start in zip(records.geometry, records.missing, starts, strict=True)
    ]
    for number, twin in incoming.twins.items():
        marked[number] = twin.missing_bytes
    return marked


def _write_mark(out: Outgoing, geometry: Geometry, missing: Any, address: int) -> int:
    """The marks of a record, all or none of its shards."""
    marked = 0
    if not np.any(missing):
        return 0
    for start, stop in payload.blocks(geometry, out.shard, address):
        if payload.holds_elements(geometry, start, stop):
            block = out.at(address + start, stop - start)
            payload.encode_missing_into(block, geometry, missing, start)
            marked += int(np.count_nonzero(block))
    return marked


def resolved(source: Sha256) -> str:
    """The hash, waited for if need be; what making it raised."""
    return source if isinstance(source, str) else source.result()


def _forget(elements: Any) -> None:
    """Gives pages of a mapped file that were read back to the system, which counts them as ours."""
    while isinstance(elements, np.ndarray):
        elements = elements.base
    if isinstance(elements, mmap.mmap):
        elements.madvise(mmap.MADV_DONTNEED)
