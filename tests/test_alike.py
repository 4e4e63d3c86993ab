"""What records alike say of a hole: a mean of the nearest whole ones, never of itself, never of what is held out."""

import numpy as np
import pytest

from aunn_data.corpus import Corpus
from pipelines.alike import LEAST, NEAREST, Alike
from tests.corpora import append, volume

SHAPE = (1, 2, 8)
HOLE = np.zeros(SHAPE, np.bool_)
HOLE[:, 1] = True


def families(count, seed=0):
    """Records of two families: the first row says which, a second row is the same through a family but for noise."""
    rng, out = np.random.default_rng(seed), []
    rows = rng.integers(0, 20_000, (2, 2, 8))
    for number in range(count):
        noise = rng.integers(0, 900, (2, 8))
        out.append(volume(f"{number:03d}.npy", (rows[number % 2] + noise).astype(np.uint16)[None]))
    return out, rows


@pytest.fixture
def corpus(tmp_path):
    """As many records as it takes, and some."""
    corpus = Corpus.create(tmp_path / "corpus", address_bits=32)
    append(corpus, *families(LEAST + 16)[0])
    return corpus


def asked(corpus, lacking=(), name="001.npy", known=~HOLE):
    entry = corpus.entries.named(name)
    values = np.where(known, corpus.record(entry).elements, 0).astype(np.float64)
    return Alike(corpus, set(lacking)).fill(entry, values, known)


def test_a_hole_is_filled_from_records_whose_rest_is_alike(corpus):
    """The lower row is that of the record's own family, to the noise; what is known stays."""
    _, rows = families(0)
    filled = asked(corpus)
    assert np.abs(filled[HOLE] - (rows[1, 1] + 450)).max() < 450
    assert (filled[~HOLE] == np.asarray(corpus.record(corpus.entries.named("001.npy")).elements)[~HOLE]).all()


def test_the_fill_is_the_mean_of_the_nearest_others_that_are_whole(corpus):
    """Neither the record itself nor one that lacks a part is among them: against an oracle that sorts all."""
    elements = {entry.record: np.asarray(corpus.record(entry).elements, np.float64) for entry in corpus.entries}
    lacking = ["003.npy", "005.npy", "007.npy"]
    here = elements["001.npy"][~HOLE]
    others = [array for name, array in elements.items() if name not in ["001.npy", *lacking]]
    nearest = sorted(others, key=lambda array: ((array[~HOLE] - here) ** 2).sum())[:NEAREST]
    assert asked(corpus, lacking)[HOLE] == pytest.approx(np.mean(nearest, axis=0)[HOLE], rel=1e-5)
    assert (asked(corpus)[HOLE] != asked(corpus, lacking)[HOLE]).any()


def test_few_records_alike_say_nothing(tmp_path):
    """With one fewer than it takes there is no fill; with nothing known there is none either."""
    corpus = Corpus.create(tmp_path / "few", address_bits=32)
    append(corpus, *families(LEAST - 1)[0])
    assert asked(corpus) is None
    append(corpus, families(LEAST)[0][-1])
    assert asked(corpus) is not None
    assert asked(corpus, known=np.zeros(SHAPE, np.bool_)) is None


def test_records_of_another_shape_are_not_alike(tmp_path):
    """A corpus of many records, of which none is of the shape asked for, says nothing."""
    corpus = Corpus.create(tmp_path / "other", address_bits=32)
    append(corpus, *families(LEAST + NEAREST)[0], volume("odd.npy", np.zeros((1, 2, 9), np.uint8)))
    assert asked(corpus, name="odd.npy", known=np.arange(18).reshape(1, 2, 9) < 9) is None
