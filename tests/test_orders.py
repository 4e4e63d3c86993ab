"""Orders of training: windows, streams, from shuffled to serial; and the batches that follow from the settings."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from aunn_data.corpus import Corpus
from aunn_data.errors import RequestError
from aunn_data.orders import Annealed, Shuffled, Streams, windows
from aunn_data.sampling import Mixed, Sampler
from aunn_model.training import Settings
from pipelines.batches import Batches
from tests.corpora import append, smooth, text, volume

CPU = torch.device("cpu")
PLAIN = Settings(batch=16, steps=20, seed=3, fine_share=0.0)


def strung(order, batch, steps, start=0):
    return np.concatenate([order.at(step * batch, batch, batch) for step in range(start, start + steps)])


@pytest.fixture
def corpus(tmp_path):
    """Of a scan of two digit planes and a text, of one."""
    corpus = Corpus.create(tmp_path / "corpus", address_bits=32)
    append(corpus, volume("a.npy", smooth((3, 5, 7))), text("b.txt", b"To be, or not to be\n" * 4))
    return corpus


# ---- orders ------------------------------------------------------------------------------------------------------


@given(st.integers(1, 300), st.integers(1, 40), st.integers(0, 9), st.integers(1, 50))
@settings(deadline=None)
def test_windows_give_every_rank_once_an_epoch_in_contiguous_windows(size, length, seed, batch):
    """An epoch is the windows [0, length), [length, 2 length), … one after another in some order, each ascending."""
    ranks = strung(windows(size, seed, length), batch, -(-size // batch))[:size]
    starts = np.flatnonzero(ranks % length == 0)
    assert starts[0] == 0
    for part in np.split(ranks, starts[1:]):
        assert part.tolist() == list(range(part[0], min(part[0] + length, size)))
    assert np.sort(ranks).tolist() == list(range(size))


def test_windows_come_in_another_order_every_epoch():
    """What is shuffled are the windows, by seed and epoch."""
    order = windows(1000, 1, 10)
    first, second = strung(order, 100, 10), strung(order, 100, 10, start=10)
    assert first[::10].tolist() != sorted(first[::10])
    assert first.tolist() != second.tolist()
    assert first.tolist() != strung(windows(1000, 2, 10), 100, 10).tolist()


@given(st.integers(6, 200), st.integers(1, 6), st.integers(1, 9))
@settings(deadline=None)
def test_each_share_of_a_batch_is_serial_in_its_own_part(size, streams, share):
    """Stream k goes through its own k-th part of the ranks from the first to the last and round again."""
    batch = streams * share
    ranks = strung(Streams(size, streams), batch, 40).reshape(40, streams, share)
    for stream in range(streams):
        start, stop = stream * size // streams, (stream + 1) * size // streams
        found = ranks[:, stream].reshape(-1)
        assert found.tolist() == [start + k % (stop - start) for k in range(len(found))]


@given(st.integers(1, 50), st.integers(1, 8), st.integers(1, 30))
@settings(deadline=None)
def test_streams_stay_inside_whatever_the_batch(size, streams, batch):
    """A batch that the streams do not divide, as a part of a mixture may be, still gives ranks below the size."""
    ranks = strung(Streams(size, streams), batch, 20)
    assert ranks.min() >= 0
    assert ranks.max() < size


def test_annealed_is_all_shuffled_at_first_and_all_serial_at_last():
    """The first places are those of the first order, those beyond the end those of the last one, in every batch."""
    first, last = Shuffled(10_000, 7), Streams(10_000, 1)
    order = Annealed(first, last, 5000)
    assert order.at(0, 50, 50).tolist() == first.at(0, 50, 50).tolist()
    beyond = order.at(5000, 50, 50)
    assert beyond.tolist() == list(range(2500, 2550))


@given(st.integers(1, 3000), st.integers(1, 70), st.integers(0, 40))
@settings(deadline=None)
def test_annealed_counts_as_the_integral_of_a_line_says(places, batch, step):
    """Of the first p places p² / 2P are in the last order, give or take one; each order goes on without a gap."""
    size = 10**6  # large enough that no order goes round; the serial one is told by a key of its own
    shuffled, serial = Shuffled(size, 1), Streams(size, 1)
    order = Annealed(shuffled, serial, places)
    end = (step + 1) * batch
    within = min(end, places)
    expected = within**2 / (2 * places) + end - within
    ranks, counted, gone = [order.at(s * batch, batch, batch) for s in range(step + 1)], 0, 0
    for s, found in enumerate(ranks):
        now = order._last((s + 1) * batch) - counted
        assert found[batch - now :].tolist() == list(range(counted, counted + now))
        if batch > now:
            assert found[: batch - now].tolist() == shuffled.at(gone, batch - now, batch).tolist()
        counted, gone = counted + now, gone + batch - now
    assert abs(counted - expected) < 1


@pytest.mark.parametrize(
    "order", [windows(977, 3, 20), Streams(977, 4), Annealed(Shuffled(977, 3), Streams(977, 4), 900)]
)
def test_an_order_is_a_pure_function_of_the_place(order):
    """Asked for step 7 alone, later steps first, or in one long draw: the same ranks."""
    forward = [order.at(step * 24, 24, 24).tolist() for step in range(60)]
    backward = [order.at(step * 24, 24, 24).tolist() for step in reversed(range(60))]
    assert backward[::-1] == forward


# ---- batches -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("order", ["shuffled", "windows", "serial", "annealed"])
def test_batches_begun_anywhere_are_the_same(corpus, order):
    """Whatever the order, a new Batches at step 11 gives what one gives that has gone there: resuming is exact."""
    settings = replace(PLAIN, order=order, window=8, streams=2)
    gone = Batches(corpus, settings, CPU)
    steps = [tuple(t.tolist() for t in gone(step)) for step in range(20)]
    for step in (11, 19, 0):
        assert tuple(t.tolist() for t in Batches(corpus, settings, CPU)(step)) == steps[step]
    addresses, values = steps[5]
    assert [int(corpus.read(a, a + 1)[0]) for a in addresses] == values


@pytest.mark.parametrize("order", ["shuffled", "windows", "serial"])
def test_an_epoch_of_batches_has_every_trainable_address_once(corpus, order):
    """But for the mixture at its end, an epoch's batches are the trainable addresses, each once."""
    batches = Batches(corpus, replace(PLAIN, order=order, window=8, batch=1), CPU)
    found = [int(batches(step)[0]) for step in range(batches.size)]
    assert len(set(found)) == len(found) == batches.size


def test_a_batch_is_repeated_as_often_as_asked(corpus):
    """``repeats = 3`` takes three steps on each batch, and the fourth step has the next."""
    once = Batches(corpus, PLAIN, CPU)
    batches = Batches(corpus, replace(PLAIN, repeats=3), CPU)
    for step in range(9):
        assert torch.equal(batches(step)[0], once(step // 3)[0])
    assert not torch.equal(batches(2)[0], batches(3)[0])


def test_annealed_batches_end_serial_whatever_the_repeats(corpus):
    """The way from shuffled to serial is as long as the run, also where batches are repeated."""
    for repeats in (1, 2):
        settings = replace(PLAIN, order="annealed", steps=40, repeats=repeats)
        steps = [Batches(corpus, settings, CPU)(step)[0] for step in (0, 39)]
        neighbours = [int((torch.diff(addresses_B) == 1).sum()) for addresses_B in steps]
        assert neighbours[0] < 4
        assert neighbours[1] > 12


@pytest.mark.parametrize(("order", "streams"), [("shuffled", 1), ("windows", 1), ("serial", 1), ("serial", 4)])
def test_fine_share_is_the_share_of_finer_digits(corpus, order, streams):
    """Of every batch that share lies in digit planes behind the first, the rest in first planes, texts and headers."""
    batches = Batches(corpus, replace(PLAIN, fine_share=0.25, order=order, streams=streams, window=4), CPU)
    entry = corpus.entries.named("a.npy")
    assert entry.geometry.planes == 2
    fine = entry.payload_start + entry.geometry.plane_extent
    for step in range(30):
        addresses_B = batches(step)[0]
        assert int(((addresses_B >= fine) & (addresses_B < entry.payload_stop)).sum()) == 4


def test_each_device_reads_its_own_part_of_a_serial_corpus(corpus):
    """Two devices with two streams share out every batch, and each goes on where it was."""
    settings = replace(PLAIN, order="serial", streams=2)
    whole = Batches(corpus, settings, CPU)
    parts = [Batches(corpus, settings, CPU, part=(number, 2)) for number in range(2)]
    for step in range(5):
        assert torch.equal(torch.cat([part(step)[0] for part in parts]), whole(step)[0])
    addresses_N = whole.sampler.addresses(np.arange(whole.size))
    second = torch.cat([parts[1](step)[0] for step in range(3)])
    assert second.tolist() == addresses_N[whole.size // 2 :][:24].tolist()


@pytest.mark.parametrize(("streams", "of"), [(3, 1), (1, 5)])
def test_a_batch_that_cannot_be_shared_out_is_refused(corpus, streams, of):
    """A batch that streams or devices do not divide is a RequestError that says so."""
    with pytest.raises(RequestError, match="a multiple of"):
        Batches(corpus, replace(PLAIN, streams=streams), CPU, part=(0, of))


def test_a_mixture_of_streams_draws_its_own_spans_only(corpus):
    """Shares of a batch that are no multiple of the streams: every rank is of the sampler's own spans."""
    spans_S = np.array([[0, 10], [20, 45]])
    parts = [(Sampler(spans_S[:1], 0, Streams(10, 4)), 0.3), (Sampler(spans_S[1:], 0, Streams(25, 4)), 0.7)]
    mixed = Mixed(parts)
    for step in range(50):
        addresses_B = mixed.addresses(mixed.ranks(step, 16))
        assert ((addresses_B < 10) | ((addresses_B >= 20) & (addresses_B < 45))).all()
        assert 3 <= (addresses_B < 10).sum() <= 5
