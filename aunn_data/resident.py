"""A corpus in memory, found by address: for who asks for bytes at random, again and again.

The addresses stay what they are: memory is reserved for all of them and taken only for pages that hold something, as
the byte list itself does on the disk. So a byte is one look-up, whatever lies between the records.
"""

import mmap

import numpy as np
import numpy.typing as npt

from aunn_data import spans
from aunn_data.corpus import Corpus
from aunn_data.sampling import covering
from aunn_data.spans import Spans


class Resident:
    """The bytes of ascending spans of a corpus. ``bytes`` is uint8[end of the last span], 0 outside of the spans."""

    def __init__(self, corpus: Corpus, spans_S: Spans):
        size = max(1, int(spans_S[-1, 1]) if len(spans_S) else 1)
        flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | getattr(mmap, "MAP_NORESERVE", 0)
        self.bytes = np.frombuffer(mmap.mmap(-1, size, flags=flags), np.uint8)
        for low, high in covering(spans_S, corpus.shard).tolist():
            for start in range(low, min(high, size), corpus.shard):
                stop = min(start + corpus.shard, size)
                inside = spans.mask(spans_S, start, stop)
                np.copyto(self.bytes[start:stop], corpus.read(start, stop), where=inside)

    def gather(self, addresses_B: npt.NDArray[np.int64]) -> npt.NDArray[np.uint8]:
        """(B,) the bytes at the addresses. IndexError past the last span."""
        return self.bytes[addresses_B]
