"""One batch on its way in: records -> headers and payloads at their places -> whole shards, durable before the commit.

Legend: R records. Payloads are encoded in this thread, hashed in a second, shards compressed and flushed in some more;
hashlib, zstd and the file system all work beside one another. What is in memory at any time is a few shards.
"""

import hashlib
import mmap
import os
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, suppress
from typing import Any

import numpy as np
import numpy.typing as npt

from aunn_data import header as headers
from aunn_data import payload, shards
from aunn_data.allocation import Place
from aunn_data.entries import Entry
from aunn_data.errors import StoreError
from aunn_data.record import Record
from aunn_data.store import Store

Progress = Callable[[int], object]
Sha256 = str | Future[str]
"""Of a source: known, or on its way while the payload is written."""

_WORKERS = max(3, min(4, os.cpu_count() or 1))  # one more than two cores: one waits for the disk
_HASH_ASIDE = 1 << 20  # bytes of a payload from which handing its hash to another thread costs less than doing it here


def write(
    store: Store,
    shard: int,
    records: Sequence[Record],
    places: Sequence[Place],
    stop: int,
    sources: Sequence[Sha256],
    on_bytes: Progress = lambda count: None,
) -> list[Entry]:
    """Writes all shards of a batch that ends at ``stop`` and returns its entries; nothing is committed.

    Whatever goes wrong, the shards are taken away again: nobody else will ever have these addresses.
    """
    with ExitStack() as stack:
        pool = stack.enter_context(ThreadPoolExecutor(_WORKERS))
        hasher = stack.enter_context(ThreadPoolExecutor(1))
        bytes_, marks = (_Shards(store, name, shard, dtype, pool) for name, dtype in _ARRAYS)
        try:
            digests = _write_bytes(bytes_, records, places, stop, sources, hasher, on_bytes)
            marked = [_write_marks(marks, record, place) for record, place in zip(records, places, strict=True)]
            bytes_.finish()
            marks.finish()
        except BaseException:
            pool.shutdown(cancel_futures=True)
            with suppress(StoreError):
                store.delete(bytes_.keys + marks.keys)
            raise
        hasher.shutdown()
    return [_entry(*row) for row in zip(records, places, sources, digests, marked, strict=True)]


def remove(store: Store, shard: int, start: int, stop: int) -> None:
    """Takes away the shards of a batch that was refused."""
    numbers = range(start // shard, -(-stop // shard))
    store.delete([key for n in numbers for name, _ in _ARRAYS if store.exists(key := shard_key(name, n))])


def shard_key(array: str, number: int) -> str:
    """The key of a shard of the array ``bytes`` or ``missing``."""
    return f"{array}/c/{number}"


_ARRAYS = (("bytes", np.uint8), ("missing", np.bool_))


class _Shards:
    """The shards of one array, filled one after another; each goes to the pool when another begins.

    Their memory is used again: pages that are fresh cost more time than all that is done with them.
    """

    def __init__(self, store: Store, name: str, shard: int, dtype: Any, pool: ThreadPoolExecutor):
        self.store, self.name, self.shard, self.dtype, self.pool = store, name, shard, dtype, pool
        self.keys: list[str] = []
        self.reader: Future[Any] | None = None  # the last of those that still read what was written, first in first out
        self._start = -shard  # of the shard that is being filled
        self._marked = 0
        self._pending: list[Future[None]] = []
        self._repeated: list[bytes] = []  # the file of a shard that is written again and again
        self._spare: list[npt.NDArray[Any]] = []
        self._chunk = min(shard, 1 << shards.CHUNK_BITS)

    def at(self, address: int, length: int) -> npt.NDArray[Any]:
        """A view of ``length`` places of the shard that holds them all, zero until written."""
        within = address - self._start
        if not 0 <= within < self.shard:
            self._flush()
            self._start = address - address % self.shard
            within = address - self._start
            self._data = self._spare.pop() if self._spare else np.zeros(self.shard, self.dtype)
            self._written = np.zeros(self.shard // self._chunk, np.bool_)
            self._marked = 0
        if within + length > self._marked:  # records come in ascending order: most lie in chunks marked already
            self._marked = -(-(within + length) // self._chunk) * self._chunk
            self._written[within // self._chunk : self._marked // self._chunk] = True
        return self._data[within : within + length]

    def keep(self) -> None:
        """Remembers the shard that is full now, to be written again."""
        self._repeated = shards.encode(self._data.view(np.uint8), self._written)

    def again(self, address: int) -> None:
        """The shard that was kept, once more at the one that begins at ``address``."""
        self._flush()
        if self.reader:
            self.reader.result()  # so that shards before it need not wait for their memory
        self._submit(shard_key(self.name, address // self.shard), self._repeat, self._repeated)

    def finish(self) -> None:
        """Waits until all is durable. StoreError if the disk or object store refused."""
        self._flush()
        for future in self._pending:
            future.result()

    def _flush(self) -> None:
        if self._start < 0:
            return
        key = shard_key(self.name, self._start // self.shard)
        self._submit(key, self._store, self._data, self._written, self.reader)
        self._start = -self.shard

    def _submit(self, key: str, task: Callable[..., None], *given: Any) -> None:
        self._pending = [f for f in self._pending if not f.done() or f.result()]
        if len(self._pending) > _WORKERS:  # keeps the memory in bounds
            self._pending.pop(0).result()
        self.keys.append(key)
        self._pending.append(self.pool.submit(task, key, *given))

    def _repeat(self, key: str, encoded: list[bytes]) -> None:
        self.store.put(key, encoded)

    def _store(
        self, key: str, data: npt.NDArray[Any], written: npt.NDArray[np.bool_], reader: Future[Any] | None
    ) -> None:
        _put(self.store, key, data, written)
        if reader:
            reader.result()
        data.reshape(len(written), -1)[written] = 0
        self._spare.append(data)


def _put(store: Store, key: str, data: npt.NDArray[Any], written: npt.NDArray[np.bool_]) -> None:
    store.put(key, shards.encode(data.view(np.uint8), written))


def _write_bytes(
    out: _Shards,
    records: Sequence[Record],
    places: Sequence[Place],
    stop: int,
    sources: Sequence[Sha256],
    hasher: ThreadPoolExecutor,
    on_bytes: Progress,
) -> list[Any]:
    """Headers and payloads of all records; returns the payloads' hashes."""
    digests = []
    nexts = [place.header_start for place in places[1:]] + [stop]
    for record, place, source, next in zip(records, places, sources, nexts, strict=True):
        # A header with shards to itself is written last: the source's hash may come while the payload goes in.
        late = not (place.header_start % out.shard or place.payload_start % out.shard)
        if not late:
            _write_header(out, record, place, source, next)
        digests.append(_write_payload(out, record, place, hasher, on_bytes))
        if late:
            _write_header(out, record, place, source, next)
    return digests


def _write_header(out: _Shards, record: Record, place: Place, source: Sha256, next: int) -> None:
    data = headers.encode(record.header, payload=place.payload_start, next=next, source_sha256=resolved(source))
    address, left = place.header_start, np.frombuffer(data, np.uint8)
    while len(left):
        room = min(len(left), out.shard - address % out.shard)
        out.at(address, room)[:] = left[:room]
        address, left = address + room, left[room:]


def _write_payload(
    out: _Shards, record: Record, place: Place, hasher: ThreadPoolExecutor, on_bytes: Progress
) -> "hashlib._Hash":
    geometry, start = record.header.geometry, place.payload_start
    if geometry.extent + start % out.shard <= out.shard and geometry.payload_bytes < _HASH_ASIDE:
        block = out.at(start, geometry.extent)
        payload.encode_into(block, geometry, record.elements, 0, record.missing)
        on_bytes(geometry.payload_bytes)
        return hashlib.sha256(payload.element_bytes(geometry, block, 0))
    digest, kept, same = hashlib.sha256(), None, memoryview(b"")
    for first, last in payload.blocks(geometry, out.shard, start):
        if payload.holds_elements(geometry, first, last):
            alike = payload.alike(geometry, record, first, last) if last - first == out.shard else None
            if alike and alike == kept:
                out.again(start + first)
                inside = same
            else:
                block = out.at(start + first, last - first)
                payload.encode_into(block, geometry, record.elements, first, record.missing)
                inside = payload.element_bytes(geometry, block, first)
                if alike:
                    out.keep()
                    kept, same = alike, memoryview(bytes(inside))  # the block's own memory will be used for others
            out.reader = hasher.submit(digest.update, inside)
            _forget(record.elements)
            on_bytes(len(inside))
    return digest


def _write_marks(out: _Shards, record: Record, place: Place) -> int:
    """The marks of a record, all or none of its shards; returns how many bytes are marked."""
    if record.missing is None or not np.any(record.missing):
        return 0
    geometry, marked = record.header.geometry, 0
    for start, stop in payload.blocks(geometry, out.shard, place.payload_start):
        if payload.holds_elements(geometry, start, stop):
            block = out.at(place.payload_start + start, stop - start)
            payload.encode_missing_into(block, geometry, record.missing, start)
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


def _entry(record: Record, place: Place, source: Sha256, digest: "hashlib._Hash", missing_bytes: int) -> Entry:
    header, geometry = record.header, record.header.geometry
    return Entry(
        header.record,
        header.source,
        header.modality,
        header.format,
        place.header_start,
        header.size,
        place.payload_start,
        place.payload_start + geometry.extent,
        place.stop,
        geometry.axes,
        geometry.shape,
        geometry.dtype,
        geometry.layout,
        geometry,
        geometry.payload_bytes,
        missing_bytes,
        digest.hexdigest(),
        resolved(source),
    )
