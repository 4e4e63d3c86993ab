"""The torch dataset: every batch once for any number of workers, parts for ranks, a state of one integer."""

import pickle
from itertools import chain, islice
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from aunn_data import spans
from aunn_data.corpus import Corpus
from aunn_data.errors import RequestError
from aunn_data.registry import Holdout
from aunn_data.sampling import batch, trainable
from pipelines.dataset import CorpusDataset
from tests.corpora import append, text, volume

KINDS = [{}, {"memory": 40_000, "strip": 4}]


@pytest.fixture
def corpus(tmp_path):
    corpus = Corpus.create(tmp_path / "corpus", address_bits=20)
    rng = np.random.default_rng(0)
    append(corpus, text("a.txt", rng.bytes(9000)), volume("b.npy", rng.integers(0, 256, (20, 30), np.uint8)))
    corpus.add_holdouts([Holdout("h", "b.npy", ((2, 9), (3, 20)))])
    return corpus


def listed(batches, count):
    return [(addresses.tolist(), data.tolist()) for addresses, data in islice(batches, count)]


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_a_dataset_yields_trainable_bytes(corpus, kind):
    """An epoch is every trainable address once, int64, each with its own byte, uint8; never a held-out one."""
    expected = trainable(corpus)
    dataset = CorpusDataset(corpus.path, seed=1, batch=64, **kind)
    steps = -(-spans.size(expected) // 64)
    addresses, data = (torch.cat(parts)[: spans.size(expected)] for parts in zip(*islice(dataset, steps), strict=True))
    assert (addresses.dtype, data.dtype) == (torch.int64, torch.uint8)
    assert (np.sort(addresses.numpy()) == spans.addresses(expected)).all()
    assert (data.numpy()[addresses.numpy().argsort()] == corpus.gather(expected)).all()


def test_in_memory_a_dataset_draws_the_batches_of_training(corpus):
    """Without ``memory`` a step's addresses are ``sampling.batch``'s."""
    for step, (addresses, _) in enumerate(islice(CorpusDataset(corpus.path, seed=4, batch=50), 5)):
        assert (addresses.numpy() == batch(corpus, 4, step, 50)).all()


def test_workers_together_yield_each_batch_once(corpus):
    """A DataLoader with two spawned workers gives the batches of none, in the same order."""
    kind = KINDS[1]
    dataset = CorpusDataset(corpus.path, seed=1, batch=64, **kind)
    loader = DataLoader(dataset, batch_size=None, num_workers=2, multiprocessing_context="spawn")
    assert listed(loader, 9) == listed(CorpusDataset(corpus.path, seed=1, batch=64, **kind), 9)


def test_workers_take_steps_in_turn(corpus, monkeypatch):
    """Of W workers, number w yields the steps w, w + W, …, and its state counts whole rounds."""
    alone = listed(CorpusDataset(corpus.path, seed=1, batch=64), 12)
    for workers in (2, 3):
        for number in range(workers):
            worker = SimpleNamespace(id=number, num_workers=workers)
            monkeypatch.setattr("pipelines.dataset.get_worker_info", lambda worker=worker: worker)
            dataset = CorpusDataset(corpus.path, seed=1, batch=64)
            assert listed(dataset, 2) == alone[number::workers][:2]
            assert dataset.state_dict()["step"] == 2 * workers
            assert listed(dataset, 2) == alone[number::workers][2:4]


@pytest.mark.parametrize("world_size", [1, 2, 3, 8])
def test_ranks_share_each_batch(corpus, world_size):
    """The parts of all ranks, put together, are the batch that one alone would draw."""
    alone = listed(CorpusDataset(corpus.path, seed=1, batch=48), 4)
    parts = [
        listed(CorpusDataset(corpus.path, seed=1, batch=48, rank=rank, world_size=world_size), 4)
        for rank in range(world_size)
    ]
    for step in range(4):
        for both in range(2):
            assert list(chain.from_iterable(part[step][both] for part in parts)) == alone[step][both]


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_a_state_resumes_exactly(corpus, kind):
    """A dataset that loads a state goes on with the batch after the last one drawn; the state is small and plain."""
    dataset = CorpusDataset(corpus.path, seed=1, batch=64, **kind)
    expected = listed(CorpusDataset(corpus.path, seed=1, batch=64, **kind), 30)
    batches = iter(dataset)
    assert listed(batches, 17) == expected[:17]
    state = dataset.state_dict()
    assert state["step"] == 17
    again = CorpusDataset(corpus.path, seed=1, batch=64, **kind)
    again.load_state_dict(state)
    assert listed(again, 13) == expected[17:]
    again.load_state_dict(dataset.state_dict(step=20))
    assert listed(again, 10) == expected[20:]


def test_a_foreign_state_is_refused(corpus):
    """A state of another seed, batch, shuffle, set of holdouts or version names what differs; the step stays."""
    made = {"seed": 1, "batch": 64}
    dataset = CorpusDataset(corpus.path, **made)
    for other in ({"seed": 2}, {"batch": 32}, {"memory": 40_000}, {"strip": 4}):
        with pytest.raises(RequestError, match=f"another {next(iter(other))}"):
            dataset.load_state_dict(CorpusDataset(corpus.path, **made | other).state_dict())
    corpus.add_holdouts([Holdout("later", "a.txt", ((0, 5),))])
    with pytest.raises(RequestError, match="another trainable"):
        dataset.load_state_dict(CorpusDataset(corpus.path, **made).state_dict())
    append(corpus, text("c.txt", b"more"))
    with pytest.raises(RequestError, match="another version"):
        dataset.load_state_dict(CorpusDataset(corpus.path, **made).state_dict())
    with pytest.raises(RequestError, match="another"):
        dataset.load_state_dict({})
    assert dataset.step == 0


def test_a_dataset_stays_with_its_version_and_holdouts(corpus):
    """What is added later is not drawn; a holdout added later stops it, for the bytes must not be seen."""
    dataset = CorpusDataset(corpus.path, seed=1, batch=64)
    before = listed(dataset, 3)
    append(corpus, text("c.txt", b"more"))
    dataset.step = 0
    assert listed(pickle.loads(pickle.dumps(dataset)), 3) == before
    corpus.add_holdouts([Holdout("later", "a.txt", ((0, 5),))])
    with pytest.raises(RequestError, match="holdouts"):
        next(iter(dataset))


def test_forked_workers_are_refused(corpus):
    """A forked worker would wait for ever for threads that it does not have: it says what to do instead."""
    loader = DataLoader(
        CorpusDataset(corpus.path, seed=1, batch=64), batch_size=None, num_workers=1, multiprocessing_context="fork"
    )
    with pytest.raises(Exception, match='multiprocessing_context="spawn"'):
        next(iter(loader))


@pytest.mark.parametrize(
    "wrong", [{"rank": 1}, {"rank": 2, "world_size": 2}, {"rank": 0, "world_size": 5}], ids=["half", "above", "uneven"]
)
def test_parts_that_do_not_fit_are_refused(corpus, wrong):
    """A rank without a world size or above it, and a batch that the ranks cannot share, are RequestErrors."""
    with pytest.raises(RequestError):
        CorpusDataset(corpus.path, seed=1, batch=64, **wrong)
