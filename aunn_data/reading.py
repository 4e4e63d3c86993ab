"""Reads in ascending order, each shard decoded once: records are often much smaller than shards."""

import numpy as np
import numpy.typing as npt

from aunn_data.corpus import Corpus
from aunn_data.errors import CorpusError


class Ascending:
    """A reader of a corpus that keeps the shard it read last."""

    def __init__(self, corpus: Corpus):
        self.corpus = corpus
        self._number, self._bytes = -1, np.empty(0, np.uint8)

    def read(self, start: int, stop: int) -> npt.NDArray[np.uint8]:
        """The bytes at ``start:stop``. CorpusError if these cannot be read, whatever else of the shard can."""
        size = self.corpus.shard
        number = start // size
        if stop > (number + 1) * size or stop - start == size:
            return self.corpus.read(start, stop)
        if number != self._number:
            try:
                self._bytes = self.corpus.read(number * size, (number + 1) * size)
            except CorpusError:
                return self.corpus.read(start, stop)
            self._number = number
        return self._bytes[start - number * size : stop - number * size]
