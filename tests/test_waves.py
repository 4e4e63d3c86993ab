"""Waves in random directions: what they say of an address, before anything is learned."""

import numpy as np
import pytest
import torch

from aunn_data.corpus import Corpus
from aunn_model.embedding import ADDRESS_BITS
from aunn_model.training import Settings
from pipelines import runs
from pipelines.holes import addresses_of
from tests.corpora import append, smooth, text, volume

WAVES = 24


@pytest.fixture
def corpus(tmp_path):
    corpus = Corpus.create(tmp_path / "corpus", address_bits=32)
    append(corpus, volume("a.npy", smooth((6, 9, 40))), text("b.txt", b"To be, or not to be\n" * 9))
    return corpus


def oblique_turns(corpus, addresses_N, waves=WAVES):
    """(N, O) complex: where each oblique wave stands, 0 where it is silent."""
    embedding = runs.fresh(corpus, Settings(oblique=waves), 32).network.embedding
    features_NF = embedding(torch.as_tensor(addresses_N)).double().numpy()
    sines_NM, cosines_NM = np.split(features_NF[:, ADDRESS_BITS:], 2, axis=1)
    return cosines_NM[:, -waves:] + 1j * sines_NM[:, -waves:]


def test_oblique_waves_go_straight_through_the_record(corpus):
    """From each element to the next along an axis a wave turns by one and the same angle, whichever bits carry."""
    entry = corpus.entries[0]
    every = np.ones(entry.shape, bool)
    waves = oblique_turns(corpus, addresses_of(entry, every)[: every.sum()]).reshape(*entry.shape, WAVES)
    assert np.allclose(abs(waves), WAVES**-0.5, atol=1e-5)
    for axis in range(3):
        along = np.moveaxis(waves, axis, 0)
        turn = along[1:] / along[:-1]
        assert np.allclose(turn, turn[0, 0, 0], atol=1e-4)
        assert len(np.unique(turn[0, 0, 0].round(4))) > WAVES // 2, "every wave has an angle of its own"


def test_oblique_waves_say_nothing_of_text(corpus):
    """Lists have no directions: their features are silent there."""
    entry = corpus.entries[1]
    addresses = np.arange(entry.payload_start, entry.payload_stop)
    assert not oblique_turns(corpus, addresses).any()


def test_features_of_a_place_have_unit_norm_with_and_without_oblique_waves(corpus):
    """However many waves there are, all of them together are as loud; so the learning rates fit."""
    entry = corpus.entries[0]
    at = torch.as_tensor(addresses_of(entry, np.ones(entry.shape, bool))[:100])
    norms = []
    for waves in (0, WAVES, 128):
        embedding = runs.fresh(corpus, Settings(oblique=waves), 32).network.embedding
        norms.append(embedding(at)[:, ADDRESS_BITS:].norm(dim=1).mean())
    assert np.allclose(norms, 1, atol=0.05)
