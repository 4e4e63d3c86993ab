"""A keyed bijection of [0, size): a shuffle that is computed index by index and stored nowhere.

A Feistel network over pairs (high, low), high in [0, ceil(size / 2^bits of low)), so that its domain is hardly larger
than the size; what lands outside is walked on until it lands inside (Black & Rogaway, "Ciphers with Arbitrary Finite
Domains", 2002). Halves of 16 bits are computed in 32-bit words (sizes to 2^48), halves of 32 bits in 64-bit words.
"""

from typing import Any

import numpy as np
import numpy.typing as npt

from aunn_data.geometry import bits_for

Ints = npt.NDArray[np.int64]

_ROUNDS = 6
_GOLDEN = 0x9E3779B97F4A7C15
_TINY = 64  # indices that are rather sorted by a hash: a Feistel network over so few bits is visibly uneven
_CACHED = 1 << 16  # indices permuted together: their words and scratch stay in the second-level cache


def permute(index_B: Ints, size: int, key: int) -> Ints:
    """A bijection of [0, size) chosen by a 64-bit key, applied to (B,) indices."""
    if size <= _TINY:
        return np.array(sorted(range(size), key=lambda index: mix(key + _GOLDEN * index)), np.int64)[index_B]
    feistel = _Feistel(size, key, min(len(index_B), _CACHED))
    out = np.empty(len(index_B), np.int64)
    for start in range(0, len(index_B), _CACHED):
        out[start : start + _CACHED] = feistel(index_B[start : start + _CACHED])
        block = out[start : start + _CACHED]
        outside = np.flatnonzero(block >= size)
        while len(outside):
            block[outside] = feistel(block[outside])
            outside = outside[block[outside] >= size]
    return out


class _Feistel:
    """One keyed bijection of [0, highs · 2^low_bits), with scratch for ``most`` indices at once."""

    def __init__(self, size: int, key: int, most: int):
        bits = bits_for(size)
        self.half = 16 if bits <= 48 else 32
        self.word: Any = np.uint32 if self.half == 16 else np.uint64
        self.low_bits = max((bits + 1) // 2, bits - self.half)
        self.highs = self.word(-(-size // (1 << self.low_bits)))
        self.keys = [self.word(mix(key + _GOLDEN * (r + 1)) % (1 << 2 * self.half)) for r in range(_ROUNDS)]
        # Odd multipliers with high bits well spread: the golden ratio's, and murmur3's or splitmix64's second.
        pair = (0x9E3779B1, 0x85EBCA6B) if self.half == 16 else (_GOLDEN, 0xBF58476D1CE4E5B9)
        self.multipliers = [self.word(m) for m in pair]
        self.scratch = np.empty((2, most), self.word)

    def __call__(self, index_B: Ints) -> Ints:
        high, low = (index_B >> self.low_bits).astype(self.word), (index_B & (1 << self.low_bits) - 1).astype(self.word)
        hash_B = self.scratch[0, : len(index_B)]
        half, unused = self.word(self.half), self.word(2 * self.half - self.low_bits)
        for number, key in enumerate(self.keys):
            if number % 2:
                self._hash(high, key)
                np.right_shift(hash_B, unused, out=hash_B)
                np.bitwise_xor(low, hash_B, out=low)
            else:
                self._hash(low, key)
                np.right_shift(hash_B, half, out=hash_B)  # a fraction of half a word …
                np.multiply(hash_B, self.highs, out=hash_B)
                np.right_shift(hash_B, half, out=hash_B)  # … of the highs, added modulo their number
                np.add(high, hash_B, out=high)
                np.subtract(high, self.highs, out=hash_B)  # wraps to something large where nothing is to be taken off
                np.minimum(high, hash_B, out=high)
        return high.astype(np.int64) << self.low_bits | low.astype(np.int64)

    def _hash(self, value_B: npt.NDArray[Any], key: Any) -> None:
        """Leaves a hash of value and key in the first row of scratch, its high bits the best."""
        hash_B, moved_B = self.scratch[:, : len(value_B)]
        np.multiply(value_B, self.multipliers[0], out=hash_B)
        np.add(hash_B, key, out=hash_B)
        np.right_shift(hash_B, self.word(self.half - 1), out=moved_B)
        np.bitwise_xor(hash_B, moved_B, out=hash_B)
        np.multiply(hash_B, self.multipliers[1], out=hash_B)


def mix(value: int) -> int:
    """splitmix64 of one integer."""
    z = (value + _GOLDEN) % 2**64
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9 % 2**64
    z = (z ^ z >> 27) * 0x94D049BB133111EB % 2**64
    return z ^ z >> 31
