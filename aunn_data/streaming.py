"""Batches of a corpus larger than memory, step after step: one window in memory, the next one coming.

Legend: B batch, S spans, T strips of a deal, R rows of it, M ranks of a window. The order is ``sampling``'s Shuffled
with cuts and strips, so block-shuffled: a pure function of seed, step, batch and memory. A thread reads the next window
while one is dealt; zarrs decodes without holding the interpreter. Start processes that read a corpus with spawn: its
threads do not survive a fork.
"""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from mmap import mmap

import numpy as np
import numpy.typing as npt

from aunn_data import spans
from aunn_data.corpus import Corpus
from aunn_data.errors import RequestError
from aunn_data.orders import Deal, RankTable, Shuffled, Window, cuts
from aunn_data.permutation import Ints
from aunn_data.sampling import Sampler, trainable
from aunn_data.shards import CHUNK_BITS
from aunn_data.spans import Spans

Bytes = npt.NDArray[np.uint8]
Batch = tuple[Ints, Bytes]

STRIP = 64  # a cache line: what a random place of the window costs to fetch
_READ = 1 << 22  # bytes read at once, at most
_BLOCKS = 16  # of a window, at most: more mix better, but blocks below _READ read slower
_TURNED = 1 << 13  # strips turned at once: they fit the second-level cache
_SHORT = 512  # bytes of a span; longer ones are copied one by one, shorter ones picked by index
_LONG = 8  # ranks of a strip from which on the addresses of all strips of a window are kept
_DRAWN = 1 << 16  # strips drawn at once
_PICKED = 1 << 16  # bytes picked at once: their index fits the second-level cache


class Stream:
    """Iterates over (addresses_B int64, bytes_B uint8) from step ``start`` on, without end.

    ``memory`` is in bytes and holds for all that the stream allocates; RequestError says how much is needed at least.
    ``sampler`` draws the same batches: ``sampler.ranks(step, batch)``. The order depends on ``memory``, so resume with
    the same.
    """

    def __init__(self, corpus: Corpus, seed: int, *, memory: int, batch: int, strip: int = STRIP, start: int = 0):
        self.corpus, self.batch, self.start = corpus, batch, start
        self._reader = ThreadPoolExecutor(1, "window")
        self._chunk = min(1 << CHUNK_BITS, corpus.shard)
        self._addresses_at_once = max(batch, min(1 << 17, memory // 512))
        self._read_at_once = max(1, min(_READ, memory // 32) // self._chunk) * self._chunk
        table = RankTable(trainable(corpus))
        self.order = self._order(table, seed, memory, strip)
        self.sampler = Sampler(table.spans, seed, self.order)

    def __iter__(self) -> Iterator[Batch]:
        return _cut(self._dealt(self.start * self.batch), self.batch)

    def _order(self, table: RankTable, seed: int, memory: int, strip: int) -> Shuffled:
        """The order whose windows leave room for two of them in memory."""
        if not table.size:
            raise RequestError(
                self.corpus.name, expected="bytes to draw from", found="none", remedy="ingest something not held out"
            )
        # Beside two windows: the table; pieces being read; a deal, twice; addresses, being made and in use.
        beside = table.nbytes + 4 * self._read_at_once + 3 * self.batch * (strip + 9) + 32 * self._addresses_at_once
        each = 1 + 2 * table.nbytes / table.size + (24 / strip if strip >= _LONG else 0)  # bytes in memory a rank
        window = int((memory - beside) / 2 / each)
        if window < 2 * self._chunk:
            least = beside + int(4 * self._chunk * each)
            raise RequestError(
                "memory",
                expected=f"more than {least:,} bytes for batches of {self.batch:,} in strips of {strip}",
                found=f"{memory:,}",
                remedy=f"allow {2 * least:,}, or take smaller batches or strips",
            )
        length = max(window // _BLOCKS, min(_READ, window // 4), 2 * self._chunk) - self._chunk
        return Shuffled(
            table.size, seed, cuts(table, length, self._chunk), max(1, window // (length + self._chunk)), strip
        )

    # ---- windows -----------------------------------------------------------------------------------------------

    def _dealt(self, place: int) -> Iterator[Batch]:
        """Runs of places from ``place`` on, of any length: their addresses and bytes."""
        # Maps of their own, given back whole: in the heap they would leave holes that grow with every iterator.
        buffers = [np.frombuffer(mmap(-1, self.order.largest_window), np.uint8) for _ in range(2)]
        window, within = self.order.window_at(place)
        coming = self._reader.submit(self._read, window, buffers[0])
        while True:
            loaded = coming.result()
            buffers.reverse()
            place += window.size - within
            window, _ = self.order.window_at(place)
            coming = self._reader.submit(self._read, window, buffers[0])
            yield from loaded.dealt(within, self.batch, self._addresses_at_once)
            within = 0

    def _read(self, window: Window, out_M: Bytes) -> "_Loaded":
        """Reads the bytes of a window, block after block, into the front of a buffer."""
        blocks = [self.sampler.table.between(start, stop) for start, stop in window.blocks.tolist()]
        done = 0
        for spans_S in blocks:
            for start, stop in self._pieces(spans_S):
                first, last = np.searchsorted(spans_S[:, 1], start, "right"), np.searchsorted(spans_S[:, 0], stop)
                inside_S = np.clip(spans_S[first:last], start, stop) - start
                count = spans.size(inside_S)
                _pick(self.corpus.read(start, stop), inside_S, out_M[done : done + count])
                done += count
        table, starts = RankTable(np.concatenate(blocks)), None
        if window.strip >= _LONG:
            starts = table.every(window.strip)
            starts[np.diff(starts, append=-1) != window.strip] = -1
        return _Loaded(window, table, out_M[:done], starts)

    def _pieces(self, spans_S: Spans) -> Iterator[tuple[int, int]]:
        """Runs of whole chunks that hold the spans, none longer than is read at once, small gaps read over."""
        near = np.array([0, 4 * self._chunk])
        chunks_S = np.stack([spans_S[:, 0] // self._chunk, -(-spans_S[:, 1] // self._chunk)], axis=1) * self._chunk
        for start, stop in (spans.joined(chunks_S + near) - near).tolist():
            for piece in range(start, stop, self._read_at_once):
                yield piece, min(piece + self._read_at_once, stop)


@dataclass(frozen=True)
class _Loaded:
    """A window in memory: ``table`` position -> address, ``bytes_M`` position -> byte.

    ``starts`` are the first addresses of all strips, -1 where the others do not just follow the first; None where
    strips are so short that the table is asked.
    """

    window: Window
    table: RankTable
    bytes_M: Bytes
    starts: Ints | None

    def dealt(self, place: int, batch: int, at_once: int) -> Iterator[Batch]:
        """Runs of places from ``place`` to the window's end."""
        window, first, drawn = self.window, 0, np.empty(0, np.int64)
        while place < window.size:
            deal = window.deal(place, batch)
            if not first <= deal.strip < first + len(drawn):  # several deals together: many small calls take long
                first, deals = deal.strip, max(1, _DRAWN // deal.width)
                drawn = window.drawn(first, min(first + deals * deal.width, window.strips))
            strips_T = drawn[deal.strip - first :][: deal.width]
            yield from self._runs(deal, strips_T, place - deal.place, max(1, at_once // deal.width))
            place = deal.place + deal.size

    def _runs(self, deal: Deal, strips_T: Ints, done: int, rows: int) -> Iterator[Batch]:
        """A deal, ``rows`` of it at once, without the first ``done`` places."""
        bytes_flat, strip = self._turned(deal, strips_T), self.window.strip
        first_T, leaving = self._firsts(strips_T)
        onward = self.table.onward(strips_T[leaving] * strip)
        for row in range(0, deal.height, rows):
            addresses_RT = np.arange(row, min(row + rows, deal.height))[:, None] + first_T
            for addresses_T in addresses_RT if len(leaving) else ():
                addresses_T[leaving] = next(onward)
            first, last = row * deal.width, row * deal.width + addresses_RT.size
            if last > done:
                skipped = max(0, done - first)
                yield addresses_RT.reshape(-1)[skipped:], bytes_flat[first + skipped : last]

    def _firsts(self, strips_T: Ints) -> tuple[Ints, Ints]:
        """(T,) the first address of each strip; which of them are to be asked of the table, rank by rank."""
        if self.starts is None:
            return np.zeros_like(strips_T), np.arange(len(strips_T))
        first_T = self.starts.take(strips_T)
        return first_T, np.flatnonzero(first_T < 0)

    def _turned(self, deal: Deal, strips_T: Ints) -> Bytes:
        """(height · width,) bytes of a deal in the order of its places: first bytes of its strips, second bytes, …"""
        strip = self.window.strip
        if deal.height < strip and deal.width == 1:
            return self.bytes_M[-deal.height :].copy()
        rows_strip = self.bytes_M[: self.window.strips * strip].reshape(-1, strip)
        out = np.empty((strip, deal.width), np.uint8)
        scratch = np.empty((min(_TURNED, deal.width), strip), np.uint8)
        for first in range(0, deal.width, _TURNED):
            some = strips_T[first : first + _TURNED]
            np.take(rows_strip, some, axis=0, out=scratch[: len(some)], mode="clip")
            out[:, first : first + len(some)] = scratch[: len(some)].T
        return out.reshape(-1)


def _pick(piece: Bytes, spans_S: Spans, out_N: Bytes) -> None:
    """Copies the bytes at the spans of a piece."""
    if len(out_N) >= _SHORT * len(spans_S):
        done = 0
        for start, stop in spans_S.tolist():
            out_N[done : done + stop - start] = piece[start:stop]
            done += stop - start
        return
    done, many = 0, max(1, _PICKED * len(spans_S) // len(out_N))
    for first in range(0, len(spans_S), many):
        index = spans.addresses(spans_S[first : first + many])
        np.take(piece, index, out=out_N[done : done + len(index)], mode="clip")
        done += len(index)


def _cut(runs: Iterator[Batch], batch: int) -> Iterator[Batch]:
    """Runs of any length as batches: views where a batch lies within a run."""
    waiting: list[Batch] = []
    missing = batch
    for addresses, data in runs:
        at = 0
        while len(addresses) - at >= missing:
            waiting.append((addresses[at : at + missing], data[at : at + missing]))
            at += missing
            yield waiting[0] if len(waiting) == 1 else _joined(waiting)
            waiting, missing = [], batch
        if at < len(addresses):
            waiting.append((addresses[at:], data[at:]))
            missing -= len(addresses) - at


def _joined(parts: list[Batch]) -> Batch:
    return np.concatenate([addresses for addresses, _ in parts]), np.concatenate([data for _, data in parts])
