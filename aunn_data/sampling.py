"""(seed, step) -> the addresses of a batch: a pure function, every trainable address exactly once an epoch.

Legend: N trainable addresses, B batch. Trainable addresses have dense *ranks* 0 … N-1. Epoch e visits the ranks in the
order of a keyed bijection of [0, N): a Feistel network over the next power of two, walked until it lands inside
(Black & Rogaway, "Ciphers with Arbitrary Finite Domains", 2002). So no shuffled list is stored, and a resumed or
redistributed run draws the same batches.
"""

import numpy as np
import numpy.typing as npt

from aunn_data import spans
from aunn_data.corpus import Corpus
from aunn_data.geometry import Region, bits_for
from aunn_data.spans import Spans

_ROUNDS = 6
_GOLDEN = 0x9E3779B97F4A7C15


def trainable(corpus: Corpus) -> Spans:
    """(S, 2) addresses to train on: headers and elements, without held-out regions and missing elements."""
    parts = []
    for entry in corpus.entries:
        parts.append(np.array([[entry.header_start, entry.header_start + entry.header_bytes]], np.int64))
        inside = entry.spans(entry.geometry.whole)
        if entry.missing_bytes:
            marks = corpus.read_missing(entry.payload_start, entry.payload_stop)
            inside = spans.difference(inside, spans.of_mask(marks, entry.payload_start))
        parts.append(inside)
    return spans.difference(spans.union(*parts), held_out(corpus))


def held_out(corpus: Corpus, name: str | None = None) -> Spans:
    """(S, 2) addresses of the held-out regions of one name, of all by default."""
    regions: dict[str, list[Region]] = {}
    for held in corpus.holdouts():
        if name in (None, held.holdout) and held.record in corpus.entries:
            regions.setdefault(held.record, []).append(held.region)
    entries = {record: corpus.entries.named(record) for record in regions}
    return spans.union(*(entries[record].spans(region) for record in regions for region in regions[record]))


class Sampler:
    """Uniformly shuffled batches over spans of addresses."""

    def __init__(self, spans_S: Spans, seed: int):
        self.spans, self.seed = spans_S, seed
        self._ranks = spans.ranks(spans_S)
        self.size = int(self._ranks[-1])

    def ranks(self, step: int, batch: int) -> npt.NDArray[np.int64]:
        """(B,) dense ranks of the addresses of a step. Epochs follow one another without a short batch."""
        place_B = np.arange(step * batch, (step + 1) * batch, dtype=np.int64)
        epoch_B, index_B = np.divmod(place_B, self.size)
        out = np.empty(batch, np.int64)
        for epoch in np.unique(epoch_B):
            here = epoch_B == epoch
            out[here] = permute(index_B[here], self.size, key=_mix(_mix(self.seed) + int(epoch)))
        return out

    def addresses(self, ranks_B: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """(B,) the addresses that have these ranks."""
        span_B = np.searchsorted(self._ranks, ranks_B, side="right") - 1
        return np.asarray(self.spans[span_B, 0] + ranks_B - self._ranks[span_B])


def batch(corpus: Corpus, seed: int, step: int, size: int) -> npt.NDArray[np.int64]:
    """(size,) int64 addresses of one step of training on a corpus."""
    sampler = Sampler(trainable(corpus), seed)
    return sampler.addresses(sampler.ranks(step, size))


def permute(index_B: npt.NDArray[np.int64], size: int, key: int) -> npt.NDArray[np.int64]:
    """A bijection of [0, size) chosen by a 64-bit key, applied to (B,) indices."""
    bits = max(2, bits_for(size))
    keys = [_mix(key + _GOLDEN * (round + 1)) for round in range(_ROUNDS)]
    out = _feistel(index_B.astype(np.uint64), bits, keys)
    outside = np.flatnonzero(out >= size)
    while outside.size:  # fewer than half on average: the domain is less than twice the size
        out[outside] = _feistel(out[outside], bits, keys)
        outside = outside[out[outside] >= size]
    return out.astype(np.int64)


def _feistel(value_B: npt.NDArray[np.uint64], bits: int, keys: list[int]) -> npt.NDArray[np.uint64]:
    """An alternating Feistel network over ``bits`` bits; an odd width has halves of unequal width."""
    low_bits = np.uint64(bits // 2)
    low_mask, high_mask = np.uint64((1 << bits // 2) - 1), np.uint64((1 << bits - bits // 2) - 1)
    low, high = value_B & low_mask, value_B >> low_bits
    for number, key in enumerate(keys):
        if number % 2:
            low = (low ^ _scramble(high, key)) & low_mask
        else:
            high = (high ^ _scramble(low, key)) & high_mask
    return high << low_bits | low


def _scramble(value_B: npt.NDArray[np.uint64], key: int) -> npt.NDArray[np.uint64]:
    """Steele, Lea & Flood's splitmix64 finaliser of value ^ key, its high half."""
    z = value_B ^ np.uint64(key)
    z = (z ^ z >> np.uint64(30)) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ z >> np.uint64(27)) * np.uint64(0x94D049BB133111EB)
    return z >> np.uint64(32)


def _mix(value: int) -> int:
    """splitmix64 of one integer."""
    z = (value + _GOLDEN) % 2**64
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9 % 2**64
    z = (z ^ z >> 27) * 0x94D049BB133111EB % 2**64
    return z ^ z >> 31
