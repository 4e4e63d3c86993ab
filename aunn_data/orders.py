"""Orders: a place in an endless row of epochs -> a rank, by arithmetic alone. Their laws stand in ``sampling``.

Legend: B batch, S spans, C blocks, W blocks of a window.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from aunn_data import spans
from aunn_data.permutation import Ints, mix, permute
from aunn_data.spans import Spans


class RankTable:
    """Dense ranks -> addresses: rank 0 is the first address of the first span. Spans are disjoint, in any order."""

    def __init__(self, spans_S: Spans):
        self.spans, self.firsts = spans_S, spans.ranks(spans_S)
        self.size = int(self.firsts[-1])
        self._shift = spans_S[:, 0] - self.firsts[:-1]
        # Buckets of 2^bits ranks, two to four a span, each with the span that holds its first rank: the search goes on
        # from there. A span's first rank lies at or before the first rank of bucket ceil(first / 2^bits) and all later.
        self._bits = max(0, (self.size // max(1, len(spans_S))).bit_length() - 2)
        bucket_S = self.firsts[:-1] + ((1 << self._bits) - 1) >> self._bits
        number = np.bincount(bucket_S, minlength=(self.size >> self._bits) + 2)
        self._bucket: npt.NDArray[Any] = np.cumsum(number, dtype=np.int32 if len(spans_S) < 2**31 else np.int64)
        self._bucket -= 1

    @property
    def nbytes(self) -> int:
        """Bytes of memory that the table takes."""
        return self.spans.nbytes + self.firsts.nbytes + self._shift.nbytes + self._bucket.nbytes

    def addresses(self, ranks_B: Ints) -> Ints:
        """(B,) the addresses that have these ranks."""
        if len(self.spans) == 1:
            return np.asarray(ranks_B + self._shift[0])
        return np.asarray(ranks_B + self._shift[self._span(ranks_B)])

    def every(self, step: int) -> Ints:
        """(ceil(size / step),) the addresses of the ranks 0, step, 2 step, …"""
        found = np.arange(0, self.size, step, dtype=np.int64)
        found += np.repeat(self._shift, np.diff(-(-self.firsts // step)))
        return found

    def onward(self, ranks_B: Ints) -> Iterator[Ints]:
        """(B,) the addresses of ranks_B, then those of ranks_B + 1, and so on to the last rank."""
        rank_B, span_B = ranks_B.copy(), self._span(ranks_B)
        end_B, shift_B = self.firsts[span_B + 1], self._shift[span_B]
        while True:
            yield rank_B + shift_B
            rank_B += 1
            done = np.flatnonzero(rank_B == end_B)
            if len(done):
                span_B[done] = np.minimum(span_B[done] + 1, len(self.spans) - 1)  # past the last rank nobody looks
                end_B[done], shift_B[done] = self.firsts[span_B[done] + 1], self._shift[span_B[done]]

    def between(self, start: int, stop: int) -> Spans:
        """(S, 2) addresses of the ranks ``start:stop``, not empty."""
        first = int(np.searchsorted(self.firsts, start, side="right")) - 1
        last = int(np.searchsorted(self.firsts, stop))
        found = self.spans[first:last].copy()
        found[0, 0] += start - self.firsts[first]
        found[-1, 1] -= self.firsts[last] - stop
        return found

    def below(self, addresses_B: Ints) -> Ints:
        """(B,) how many addresses of the table are lower: the rank of each that is in it. Ascending spans only."""
        span_B = np.searchsorted(self.spans[:, 1], addresses_B, side="right")
        inside = span_B < len(self.spans)
        into_B = addresses_B - self.spans[np.minimum(span_B, len(self.spans) - 1), 0]
        return np.asarray(self.firsts[span_B] + np.where(inside, np.maximum(into_B, 0), 0))

    def _span(self, ranks_B: Ints) -> Ints:
        """(B,) the numbers of the spans that hold these ranks, by bisection within a bucket."""
        bucket_B = ranks_B >> self._bits
        span_B, most_B = self._bucket.take(bucket_B), self._bucket[1:].take(bucket_B)
        unsure = np.flatnonzero(span_B != most_B)
        least, most, rank = span_B[unsure], most_B[unsure], ranks_B[unsure]
        while len(unsure):
            middle = least + most + 1 >> 1
            right = self.firsts[middle] <= rank
            least, most = np.where(right, middle, least), np.where(right, most, middle - 1)
            span_B[unsure] = least
            kept = least < most
            unsure, least, most, rank = unsure[kept], least[kept], most[kept], rank[kept]
        return np.asarray(span_B)


class Order(Protocol):
    """Places 0, 1, 2, … -> ranks. ``batch`` says how many places are drawn together."""

    def at(self, place: int, count: int, batch: int) -> Ints:
        """(count,) ranks at ``count`` places from ``place`` on."""
        ...


@dataclass(frozen=True)
class Deal:
    """``width`` strips of a window dealt in ``height`` rows from ``place`` on; row k is the k-th rank of each strip."""

    place: int
    strip: int
    width: int
    height: int

    @property
    def size(self) -> int:
        """Places dealt."""
        return self.width * self.height


class Window:
    """Blocks of ranks that are shuffled together. A *position* counts through its blocks as they follow in it."""

    def __init__(self, blocks_W: Spans, key: int, strip: int):
        self.blocks, self.key, self.strip = blocks_W, key, strip
        self.size = spans.size(blocks_W)
        self.strips = self.size // strip

    def deal(self, place: int, batch: int) -> Deal:
        """The deal that a place falls in: of ``batch`` strips, of those that are left, of the ranks that fill none."""
        strip, full = self.strip, self.strips // batch
        number = place // (batch * strip)
        if number < full:
            return Deal(number * batch * strip, number * batch, batch, strip)
        dealt = self.strips * strip
        if place < dealt:
            return Deal(full * batch * strip, full * batch, self.strips - full * batch, strip)
        return Deal(dealt, self.strips, 1, self.size - dealt)

    def drawn(self, start: int, stop: int) -> Ints:
        """(T,) which strip of the window is drawn as number ``start``, …, ``stop - 1``."""
        if start == self.strips:  # the ranks that fill no strip stay where they are
            return np.array([self.strips])
        return permute(np.arange(start, stop), self.strips, self.key)

    def positions(self, place: int, count: int, batch: int) -> Ints:
        """(count,) positions at places of the window."""
        parts = []
        while count:
            deal = self.deal(place, batch)
            start = place - deal.place
            stop = min(start + count, deal.size)
            first, last = start // deal.width, (stop - 1) // deal.width
            left, strip = first * deal.width, deal.strip
            if first == last:
                parts.append(self.drawn(strip + start - left, strip + stop - left) * self.strip + first)
            else:
                rows = np.arange(first, last + 1)[:, None] + self.drawn(strip, strip + deal.width) * self.strip
                parts.append(rows.reshape(-1)[start - left : stop - left])
            place, count = place + stop - start, count - (stop - start)
        return strung(parts)

    def ranks(self, place: int, count: int, batch: int) -> Ints:
        """(count,) ranks at places of the window."""
        return self._table.addresses(self.positions(place, count, batch))

    @cached_property
    def _table(self) -> RankTable:
        return RankTable(self.blocks)


class Shuffled:
    """Every rank once an epoch; exactly shuffled, or by blocks and strips (see above).

    ``cuts_C`` are (C+1,) ascending ranks from 0 to the size, ``window`` is a number of blocks.
    """

    def __init__(self, size: int, seed: int, cuts_C: Ints | None = None, window: int = 1, strip: int = 1):
        self.size, self.seed, self.window, self.strip = size, seed, window, strip
        self.cuts = np.array([0, size]) if cuts_C is None else cuts_C
        self._epoch = (-1, np.empty((0, 2), np.int64), np.empty(0, np.int64))
        self._window = (-1, -1, Window(self._epoch[1], 0, 1))

    @property
    def largest_window(self) -> int:
        """Ranks that are in no window exceeded."""
        return int(np.sort(np.diff(self.cuts))[-self.window :].sum())

    def at(self, place: int, count: int, batch: int) -> Ints:
        """(count,) ranks at places from ``place`` on."""
        parts = []
        while count:
            window, within = self.window_at(place)
            taken = min(count, window.size - within)
            parts.append(window.ranks(within, taken, batch))
            place, count = place + taken, count - taken
        return strung(parts)

    def window_at(self, place: int) -> tuple[Window, int]:
        """The window that a place falls in, and which place of the window it is."""
        epoch, place = divmod(place, self.size)
        key = mix(mix(self.seed) + epoch)
        blocks, starts = self._blocks(epoch, key)
        number = int(np.searchsorted(starts, place, side="right")) - 1
        memo = self._window  # replaced whole: two threads may ask for two windows
        if memo[:2] != (epoch, number):
            chosen = blocks[number * self.window : (number + 1) * self.window]
            memo = self._window = epoch, number, Window(chosen, mix(key + number + 1), self.strip)
        return memo[2], place - int(starts[number])

    def _blocks(self, epoch: int, key: int) -> tuple[Spans, Ints]:
        """(C, 2) blocks as they follow in an epoch, and the place at which each window starts."""
        memo = self._epoch
        if memo[0] != epoch:
            blocks = np.stack([self.cuts[:-1], self.cuts[1:]], axis=1)
            blocks = blocks[permute(np.arange(len(blocks)), len(blocks), key)]
            memo = self._epoch = epoch, blocks, spans.ranks(blocks)[:-1][:: self.window]
        return memo[1], memo[2]


@dataclass(frozen=True)
class Serial:
    """The ranks ``start:stop`` one after another and round again; place 0 is rank ``start + first``."""

    start: int
    stop: int
    first: int = 0

    def at(self, place: int, count: int, batch: int) -> Ints:
        """(count,) ranks at places from ``place`` on."""
        places = np.arange(place + self.first, place + self.first + count, dtype=np.int64)
        return self.start + places % (self.stop - self.start)


@dataclass(frozen=True)
class Streams:
    """``streams`` equal parts of [0, size), each read serially and round again; a batch has an equal share of each.

    The shares stand one behind another: of a batch that is shared out to as many devices, each device has one stream.
    """

    size: int
    streams: int

    def at(self, place: int, count: int, batch: int) -> Ints:
        """(count,) ranks at places from ``place`` on; the shares are equal where ``streams`` divide ``batch``."""
        share, streams = max(1, batch // self.streams), min(self.streams, self.size)
        step, within = np.divmod(np.arange(place, place + count, dtype=np.int64), share * streams)
        stream, offset = np.divmod(within, share)
        start = stream * self.size // streams
        length = (stream + 1) * self.size // streams - start
        return np.asarray(start + (step * share + offset) % length)


@dataclass(frozen=True)
class Annealed:
    """From all of a batch in one order to all of it in another, linearly over the first ``places`` places."""

    first: Order
    last: Order
    places: int

    def at(self, place: int, count: int, batch: int) -> Ints:
        """(count,) ranks at places from ``place`` on, those of the first order first."""
        before, after = self._last(place), self._last(place + count)
        parts = [
            order.at(start, stop - start, batch)
            for order, start, stop in ((self.first, place - before, place + count - after), (self.last, before, after))
            if start < stop
        ]
        return strung(parts)

    def _last(self, places: int) -> int:
        """How many of the first ``places`` places are in the last order: the integral of a line from 0 to 1."""
        within = min(places, self.places)
        return within * within // (2 * max(1, self.places)) + places - within


def windows(size: int, seed: int, length: int) -> Shuffled:
    """Every rank once an epoch, ``length`` consecutive ones at a time: what is shuffled are the windows."""
    edges = np.unique(np.append(np.arange(0, size, length, dtype=np.int64), size))
    return Shuffled(size, seed, edges, window=1, strip=length)


def cuts(table: RankTable, length: int, unit: int) -> Ints:
    """(C+1,) ranks that cut a table into blocks of about ``length``, at most ``length + unit`` ranks.

    They are cut at multiples of ``unit`` addresses: no chunk is in two blocks. Ascending spans, ``length >= unit``.
    """
    marks = table.addresses(np.arange(length, table.size, length, dtype=np.int64)) // unit * unit
    return np.unique(np.concatenate([[0], table.below(marks), [table.size]]))


def strung(parts: list[Ints]) -> Ints:
    """Arrays one behind another; a single one is not copied."""
    return parts[0] if len(parts) == 1 else np.concatenate(parts)
