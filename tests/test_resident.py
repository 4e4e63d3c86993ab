"""A corpus in memory, found by address."""

import numpy as np
import pytest

from aunn_data import sampling, spans
from aunn_data.corpus import Corpus
from aunn_data.registry import Holdout
from aunn_data.resident import Resident
from tests.corpora import append, smooth, text, volume


def test_every_address_of_the_spans_gives_its_byte_and_no_other_one_does(tmp_path):
    """Trainable addresses give the corpus' own bytes; held-out ones and gaps give 0, past the end is an error."""
    corpus = Corpus.create(tmp_path / "corpus", 40)
    append(corpus, volume("a.npy", 1 + smooth((5, 30, 40))), text("b.txt", b"words " * 20_000))
    append(corpus, text("c.txt", b"more"))
    corpus.add_holdouts([Holdout("h", "a.npy", ((1, 2), (3, 9), (0, 40)))])
    spans_S = sampling.trainable(corpus)
    resident = Resident(corpus, spans_S)
    addresses_N = np.random.default_rng(0).permutation(spans.addresses(spans_S))
    expected_N = np.concatenate([corpus.read(a, b) for a, b in spans_S.tolist()])
    assert (resident.gather(np.sort(addresses_N)) == expected_N).all()
    assert (resident.gather(addresses_N) == resident.bytes[addresses_N]).all()
    assert not resident.gather(spans.addresses(sampling.held_out(corpus))).any()
    assert np.count_nonzero(resident.bytes) == np.count_nonzero(expected_N)
    with pytest.raises(IndexError):
        resident.gather(np.array([corpus.size - 1]))
