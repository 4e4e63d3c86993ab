"""The shards of one array on their way into the store: filled in order, compressed and flushed by threads."""

import os
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from queue import SimpleQueue
from typing import Any

import numpy as np
import numpy.typing as npt

from aunn_data import shards
from aunn_data.shards import shard_key
from aunn_data.store import Store

WORKERS = max(3, min(4, os.cpu_count() or 1))  # one more than two cores: one waits for the disk
PIECE, PIECES = 1 << 22, 6  # bytes of a piece of a big payload: it stays in the cache; so many are in memory


class Outgoing:
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
        self._free: SimpleQueue[npt.NDArray[Any]] = SimpleQueue()  # pieces that nobody reads any more
        self._made = 0
        self.piece = min(shard, PIECE)

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

    def stream(self, address: int, fill: Callable[[npt.NDArray[Any], int], "Future[Any]"], keep: bool) -> None:
        """The whole shard at ``address``, piece by piece, so that little of it is in memory at any time.

        ``fill(piece, within)`` writes into a piece that holds zeros and says who still reads it then. What is to be
        written again (``keep``) is remembered.
        """
        self._flush()
        made: list[Future[tuple[int, list[bytes]]]] = []
        for within in range(0, self.shard, self.piece):
            piece = self._piece()
            reader = fill(piece, within)
            made.append(self.pool.submit(self._frames, piece, reader, made[0] if made else None))
        key = shard_key(self.name, address // self.shard)
        if keep:
            self._repeated = self._file(made)
            self._submit(key, self._repeat, self._repeated)
        else:
            self._submit(key, self._join, made)

    def again(self, address: int) -> None:
        """The shard that was kept, once more at the one that begins at ``address``."""
        self._flush()
        self._submit(shard_key(self.name, address // self.shard), self._repeat, self._repeated)

    def finish(self) -> None:
        """Waits until all is durable. StoreError if the disk or object store refused."""
        self._flush()
        for future in self._pending:
            future.result()

    def _piece(self) -> npt.NDArray[Any]:
        if self._made < PIECES:
            self._made += 1
            return np.zeros(self.piece, self.dtype)
        return self._free.get()

    def _frames(
        self, piece: npt.NDArray[Any], reader: "Future[Any]", first: "Future[tuple[int, list[bytes]]] | None"
    ) -> tuple[int, list[bytes]]:
        """The level of the shard's first piece, and the chunks of this one."""
        try:
            data = piece.view(np.uint8)
            chunks = [data[at : at + self._chunk].data for at in range(0, self.piece, self._chunk)]
            level = first.result()[0] if first else shards.level_for(chunks)
            return level, shards.frames(chunks, level)
        finally:
            wait([reader])
            piece[:] = 0
            self._free.put(piece)

    def _file(self, made: "Sequence[Future[tuple[int, list[bytes]]]]") -> list[bytes]:
        frames = [frame for future in made for frame in future.result()[1]]
        return shards.file_of(frames, range(len(frames)), len(frames))

    def _join(self, key: str, made: "Sequence[Future[tuple[int, list[bytes]]]]") -> None:
        self.store.put(key, self._file(made))

    def _flush(self) -> None:
        if self._start < 0:
            return
        key = shard_key(self.name, self._start // self.shard)
        self._submit(key, self._store, self._data, self._written, self.reader)
        self._start = -self.shard

    def _submit(self, key: str, task: Callable[..., None], *given: Any) -> None:
        self._pending = [f for f in self._pending if not f.done() or f.result()]
        if len(self._pending) > WORKERS:  # keeps the memory in bounds
            self._pending.pop(0).result()
        self.keys.append(key)
        self._pending.append(self.pool.submit(task, key, *given))

    def _repeat(self, key: str, encoded: list[bytes]) -> None:
        self.store.put(key, encoded)

    def _store(
        self, key: str, data: npt.NDArray[Any], written: npt.NDArray[np.bool_], reader: Future[Any] | None
    ) -> None:
        self.store.put(key, shards.encode(data.view(np.uint8), written))
        if reader:
            reader.result()
        data.reshape(len(written), -1)[written] = 0
        self._spare.append(data)
