"""Batches: a pure function of (corpus version, seed, step) that visits every trainable address once an epoch."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aunn_data import sampling, spans
from aunn_data.corpus import Corpus
from aunn_data.registry import Holdout
from aunn_data.sampling import Sampler, permute
from tests.corpora import append, smooth, text, volume


@pytest.fixture
def corpus(tmp_path):
    corpus = Corpus.create(tmp_path / "corpus", address_bits=32)
    scan = smooth((4, 9, 10))
    append(corpus, volume("a.npy", scan, missing=scan > 850), text("b.txt", b"words"))
    corpus.add_holdouts([Holdout("h", "a.npy", ((1, 2), (0, 9), (2, 10))), Holdout("i", "b.txt", ((1, 3),))])
    return corpus


@given(st.integers(1, 3000), st.integers(0, 2**64 - 1))
def test_permute_is_a_bijection(size, key):
    """Every index of [0, size) is met exactly once, whatever the key."""
    assert (np.sort(permute(np.arange(size), size, key)) == np.arange(size)).all()


def test_permute_is_pinned():
    """The order of batches never changes between releases: runs would not resume."""
    assert permute(np.arange(8), 1000, key=1).tolist() == PINNED_SMALL
    assert permute(np.arange(4), 2**40 + 7, key=2).tolist() == PINNED_LARGE


PINNED_SMALL = [1, 927, 441, 692, 945, 644, 281, 193]
PINNED_LARGE = [402488015377, 665292595883, 1046190482637, 574101999016]


@given(st.integers(1, 400), st.integers(1, 64), st.integers(0, 5))
def test_an_epoch_visits_every_address_once(size, batch, seed):
    """Batches strung together are one whole permutation after another, without a short batch between."""
    sampler = Sampler(np.array([[10, 10 + size]]), seed)
    steps = -(-3 * size // batch)
    ranks = np.concatenate([sampler.ranks(step, batch) for step in range(steps)])
    for epoch in range(3):
        assert (np.sort(ranks[epoch * size : (epoch + 1) * size]) == np.arange(size)).all()
    assert size < 30 or (ranks[:size] != ranks[size : 2 * size]).any()


def test_trainable_is_headers_and_elements_without_holdouts_and_missing(corpus):
    """Held-out and missing elements, padding and gaps are never drawn; all else is, the headers too."""
    expected = set()
    a, b = (corpus.entries.named(name) for name in ("a.npy", "b.txt"))
    held, missing = np.zeros(a.shape, bool), corpus.missing(a)
    held[1, :, 2:] = True
    for entry in (a, b):
        expected |= set(range(entry.header_start, entry.header_start + entry.header_bytes))
        for address in range(entry.payload_start, entry.payload_stop):
            found = entry.geometry.locate(address - entry.payload_start)
            if found and not (entry is a and (held | missing)[found[0]]) and not (entry is b and 1 <= found[0][0] < 3):
                expected.add(address)
    assert set(spans.addresses(sampling.trainable(corpus)).tolist()) == expected
    drawn = np.concatenate([sampling.batch(corpus, 3, step, 64) for step in range(-(-len(expected) // 64))])
    assert set(drawn.tolist()) == expected


def test_a_batch_depends_on_seed_and_step_alone(corpus):
    """The same (seed, step) gives the same addresses, another seed or step others."""
    again = Corpus.open(corpus.path)
    assert (sampling.batch(corpus, 1, 7, 32) == sampling.batch(again, 1, 7, 32)).all()
    assert (sampling.batch(corpus, 1, 7, 32) != sampling.batch(corpus, 2, 7, 32)).any()
    assert (sampling.batch(corpus, 1, 7, 32) != sampling.batch(corpus, 1, 8, 32)).any()
