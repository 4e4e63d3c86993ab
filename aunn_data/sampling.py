"""(seed, step) -> the addresses of a batch: a pure function, every trainable address exactly once an epoch.

Legend: N trainable addresses, B batch, S spans, C blocks, W blocks of a window. Trainable addresses have dense *ranks*
0 … N-1. An order strings epochs together without a short batch between: step s draws places s·B … (s+1)·B-1, place p
is place p mod N of epoch p div N. Nothing is stored and nothing is scanned, so a run resumes from one integer, and any
number of workers or ranks that share out the steps, or the places of a step, draw the same batches.

===============  ======================================================================================================
Shuffled         exact: an epoch is one keyed bijection of [0, N), every place independent of every other
… with cuts      block-shuffled: the ranks are cut into C blocks, every epoch permutes the blocks, W that follow in that
                 order are a *window*, and within a window every rank is shuffled with every other. What lies in two
                 windows meets in no batch, but in the one that ends a window and begins the next
… with strips g  a window is permuted in *strips* of g consecutive ranks. B strips are dealt together, one rank of each
                 to a batch, the next ranks to the g-1 batches that follow. So within a batch all places are
                 independent, from batch to batch they are neighbours. The last M mod g ranks of a window of M come
                 last and in order
windows          contiguous windows of ranks, shuffled whole: every rank once an epoch
Serial           rank after rank and round again, within any window of ranks, from any start
Streams          serial in several equal parts of the ranks at once, each with the same share of every batch
Annealed         a share of the places that grows linearly from none to all goes from one order over to another
Mixed            several samplers over sets of their own: each has its share of the places, its order and its epochs
===============  ======================================================================================================

An order knows nothing of where the bytes lie: in memory, on the device and streamed, one order gives the same batches.
In memory and on the device the exact shuffle is the default. Streaming (``streaming``) is block-shuffled, always: one
window is in memory while the next is read.
"""

from collections.abc import Sequence
from fractions import Fraction

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from aunn_data import spans
from aunn_data.corpus import Corpus
from aunn_data.errors import RequestError
from aunn_data.geometry import Geometry, Region
from aunn_data.orders import Order, RankTable, Shuffled, strung
from aunn_data.permutation import Ints
from aunn_data.spans import Spans

_LAID = 1 << 16  # spans laid down at once

# ---- what is trainable -------------------------------------------------------------------------------------------


def trainable(corpus: Corpus) -> Spans:
    """(S, 2) addresses to train on: headers and elements, without held-out regions and missing elements."""
    rows = _Rows(corpus)
    shared_R = rows["payload_start"] < rows["header_start"]
    marked = np.flatnonzero((rows["missing_bytes"] > 0) & ~shared_R)
    missing = spans.union(*_missing(corpus, rows.spans(marked))) if len(marked) else spans.NONE
    found = rows.spans(np.flatnonzero(~shared_R), headers=True)
    if shared_R.any():
        found = spans.union(found, rows.headers(np.flatnonzero(shared_R)))
    return _without(found, spans.union(missing, held_out(corpus)))


def held_out(corpus: Corpus, name: str | None = None) -> Spans:
    """(S, 2) addresses of the held-out regions of one name, of all by default."""
    held = [h for h in corpus.holdouts() if name in (None, h.holdout)]
    if not held:
        return spans.NONE
    rows = _Rows(corpus)
    numbers = pc.index_in(pa.array([h.record for h in held], pa.string()), rows.table["record"].combine_chunks())
    alike: dict[tuple[int, Region], list[int]] = {}
    for holdout, number in zip(held, numbers.to_pylist(), strict=True):
        if number is not None:
            alike.setdefault((int(rows.kinds[number]), holdout.region), []).append(number)
    parts = []
    for (_, region), found in alike.items():
        relative_S = corpus.entries[found[0]].geometry.spans(region)
        parts.append((rows["payload_start"][found][:, None, None] + relative_S).reshape(-1, 2))
    return spans.union(*parts)


class _Rows:
    """The registry by columns: nothing here makes an object a record. Records whose elements lie alike are a *kind*."""

    def __init__(self, corpus: Corpus):
        self.entries, self.table = corpus.entries, corpus.entries.table
        table = self.table
        shape = pc.binary_join(pc.cast(table["shape"], pa.list_(pa.string())), "x")
        planes = pc.cast(table["payload_bytes"], pa.string())  # with the shape they tell the number of planes
        layout = pc.cast(table["layout"], pa.string())
        key = pc.binary_join_element_wise(layout, shape, planes, " ")
        self.kinds = np.asarray(pc.dictionary_encode(key).combine_chunks().indices, np.int64)
        self.packed = np.asarray(pc.equal(layout, "packed"), np.bool_)

    def __getitem__(self, column: str) -> Ints:
        return np.asarray(self.table[column], np.int64)

    def headers(self, rows_R: Ints) -> Spans:
        """(R, 2) addresses of the headers of records."""
        start = self["header_start"][rows_R]
        return np.stack([start, start + self["header_bytes"][rows_R]], axis=1)

    def spans(self, rows_R: Ints, headers: bool = False) -> Spans:
        """(S, 2) addresses of the elements of records (ascending), with their headers if asked for.

        A packed payload is one span whatever its shape; of the others one of each kind is asked where its spans lie.
        """
        start, packed_R, kinds_R = self["payload_start"], self.packed[rows_R], self.kinds[rows_R]
        order = np.argsort(kinds_R, kind="stable")
        alike = [
            k for k in np.split(order, np.flatnonzero(np.diff(kinds_R[order])) + 1) if len(k) and not packed_R[k[0]]
        ]
        relative = [_whole(self.entries[int(rows_R[k[0]])].geometry) for k in alike]
        number_R = np.ones(len(rows_R), np.int64)
        for k, relative_S in zip(alike, relative, strict=True):
            number_R[k] = len(relative_S)
        first_R = np.cumsum(number_R + headers) - number_R
        out = np.empty((int((number_R + headers).sum()), 2), np.int64)
        if headers:
            out[first_R - 1] = self.headers(rows_R)
        rows = rows_R[packed_R]
        out[first_R[packed_R]] = np.stack([start[rows], self["payload_stop"][rows]], axis=1)
        for k, relative_S in zip(alike, relative, strict=True):
            many = max(1, _LAID // len(relative_S))
            for some in (k[n : n + many] for n in range(0, len(k), many)):
                at = first_R[some, None] + np.arange(len(relative_S))
                out[at] = start[rows_R[some], None, None] + relative_S
        return spans.joined(out) if (out[1:, 0] == out[:-1, 1]).any() else out


def _whole(geometry: Geometry) -> Spans:
    return geometry.spans(geometry.whole)


def _missing(corpus: Corpus, elements_S: Spans) -> list[Spans]:
    """The marked addresses of the shards that these spans touch."""
    shards = np.concatenate([np.arange(a, b) for a, b in covering(elements_S, corpus.shard) // corpus.shard])
    starts = [int(shard) * corpus.shard for shard in shards]
    return [spans.of_mask(corpus.read_missing(start, start + corpus.shard), start) for start in starts]


def _without(spans_S: Spans, minus_T: Spans) -> Spans:
    """``spans.difference`` that sweeps only the spans that lose something."""
    if not len(minus_T):
        return spans_S
    first_T = np.searchsorted(spans_S[:, 1], minus_T[:, 0], side="right")
    last_T = np.searchsorted(spans_S[:, 0], minus_T[:, 1])
    opened, closed = (np.bincount(ends, minlength=len(spans_S) + 1) for ends in (first_T, last_T))
    touched = np.cumsum(opened - closed)[:-1] > 0
    kept, cut = spans_S[~touched], spans.difference(spans_S[touched], minus_T)
    return np.insert(kept, np.searchsorted(kept[:, 0], cut[:, 0]), cut, axis=0)


def covering(spans_S: Spans, unit: int) -> Spans:
    """(R, 2) ascending runs of whole units (chunks, shards) that hold ascending spans."""
    return spans.joined(np.stack([spans_S[:, 0] // unit, -(-spans_S[:, 1] // unit)], axis=1)) * unit


# ---- samplers -----------------------------------------------------------------------------------------------------


class Sampler:
    """Batches over spans of addresses in an order, exactly shuffled by default."""

    def __init__(self, spans_S: Spans, seed: int, order: Order | None = None):
        self.table, self.seed = RankTable(spans_S), seed
        self.spans, self.size = self.table.spans, self.table.size
        self.order = order or Shuffled(self.size, seed)

    def at(self, place: int, count: int, batch: int) -> Ints:
        """(count,) ranks at places from ``place`` on. RequestError if there is nothing to draw from."""
        if not self.size:
            raise RequestError("batch", expected="addresses to draw from", found="none", remedy="ingest something")
        return self.order.at(place, count, batch)

    def ranks(self, step: int, batch: int) -> Ints:
        """(B,) dense ranks of the addresses of a step."""
        return self.at(step * batch, batch, batch)

    def addresses(self, ranks_B: Ints) -> Ints:
        """(B,) the addresses that have these ranks."""
        return self.table.addresses(ranks_B)


class Mixed:
    """A mixture of samplers with given shares of every batch; its ranks count through the union of their spans.

    Of the first n places a sampler gets floor(its share of those that the samplers before it left · n), so at most one
    place more or fewer than its share for each sampler before it, and draws them in its own order.
    """

    def __init__(self, parts: Sequence[tuple[Sampler, float]]):
        self.samplers = [sampler for sampler, _ in parts]
        shares = [Fraction(share).limit_denominator(10**6) for _, share in parts]
        if not parts or min(shares) <= 0:
            raise RequestError(
                "mixture", expected="shares above 0", found=str([s for _, s in parts]), remedy="leave out what has none"
            )
        self._of_rest = [share / sum(shares[number:]) for number, share in enumerate(shares)]
        self.table = RankTable(spans.union(*(sampler.spans for sampler in self.samplers)))
        self.spans, self.size = self.table.spans, self.table.size
        self._into = [RankTable(_shifted(self.table, sampler.spans)) for sampler in self.samplers]

    def at(self, place: int, count: int, batch: int) -> Ints:
        """(count,) ranks at places from ``place`` on, those of the first sampler first."""
        before, after, each = self._counts(place), self._counts(place + count), self._counts(batch)
        parts = [
            into.addresses(sampler.at(first, last - first, max(1, together)))
            for sampler, into, first, last, together in zip(self.samplers, self._into, before, after, each, strict=True)
            if first < last
        ]
        return strung(parts)

    def ranks(self, step: int, batch: int) -> Ints:
        """(B,) dense ranks, in the union of the spans, of the addresses of a step."""
        return self.at(step * batch, batch, batch)

    def addresses(self, ranks_B: Ints) -> Ints:
        """(B,) the addresses that have these ranks."""
        return self.table.addresses(ranks_B)

    def _counts(self, places: int) -> list[int]:
        """How many of the first ``places`` places each sampler has; never falls as places grow."""
        counts = []
        for share in self._of_rest:
            counts.append(places * share.numerator // share.denominator)
            places -= counts[-1]
        return counts


def batch(corpus: Corpus, seed: int, step: int, size: int) -> Ints:
    """(size,) int64 addresses of one step of training on a corpus."""
    sampler = Sampler(trainable(corpus), seed)
    return sampler.addresses(sampler.ranks(step, size))


def _shifted(table: RankTable, spans_S: Spans) -> Spans:
    """Spans, each within one of the table's, as ranges of the table's ranks."""
    start = table.below(spans_S[:, 0])
    return np.stack([start, start + spans_S[:, 1] - spans_S[:, 0]], axis=1)
