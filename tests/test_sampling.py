"""Batches: a pure function of (corpus version, seed, step) that visits every trainable address once an epoch."""

from fractions import Fraction
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aunn_data import sampling, spans
from aunn_data.corpus import Corpus
from aunn_data.errors import RequestError
from aunn_data.orders import RankTable, Serial, Shuffled, cuts
from aunn_data.permutation import permute
from aunn_data.registry import Holdout
from aunn_data.sampling import Mixed, Sampler
from tests.corpora import append, smooth, text, volume


@pytest.fixture
def corpus(tmp_path):
    corpus = Corpus.create(tmp_path / "corpus", address_bits=32)
    scan = smooth((4, 9, 10))
    append(corpus, volume("a.npy", scan, missing=scan > 850), text("b.txt", b"words"))
    corpus.add_holdouts([Holdout("h", "a.npy", ((1, 2), (0, 9), (2, 10))), Holdout("i", "b.txt", ((1, 3),))])
    return corpus


@st.composite
def span_sets(draw, most=12, longest=9):
    """Ascending spans, none touching another."""
    gaps = draw(st.lists(st.tuples(st.integers(1, 20), st.integers(1, longest)), min_size=1, max_size=most))
    ends = np.cumsum(np.array(gaps).reshape(-1))
    return ends.reshape(-1, 2).astype(np.int64)


@st.composite
def orders(draw):
    """A shuffled order of any size, blocks, window and strip."""
    size = draw(st.integers(1, 300))
    inner = draw(st.lists(st.integers(1, max(1, size - 1)), max_size=6))
    edges = np.unique([0, *(cut for cut in inner if cut < size), size])
    return Shuffled(size, draw(st.integers(0, 9)), edges, draw(st.integers(1, 4)), draw(st.integers(1, 12)))


def strung(order, batch, steps, start=0):
    return np.concatenate([order.at(step * batch, batch, batch) for step in range(start, start + steps)])


# ---- the bijection -----------------------------------------------------------------------------------------------


@given(st.integers(1, 3000), st.integers(0, 2**64 - 1))
@settings(deadline=None)
def test_permute_is_a_bijection(size, key):
    """Every index of [0, size) is met exactly once, whatever the key."""
    assert (np.sort(permute(np.arange(size), size, key)) == np.arange(size)).all()


@given(st.integers(1, 2**62), st.integers(0, 2**64 - 1))
@settings(deadline=None)
def test_permute_stays_inside(size, key):
    """Images of different indices are different and below the size, for sizes in which no list fits."""
    index = np.unique(np.linspace(0, size - 1, 50).astype(np.int64).clip(0, size - 1))
    found = permute(index, size, key)
    assert len(np.unique(found)) == len(index)
    assert found.min() >= 0
    assert found.max() < size


def test_permute_does_not_depend_on_company():
    """An index has one image, alone, in a long array (computed in blocks) and in any order."""
    index = np.arange(150_000)
    found = permute(index, 2**33 + 5, key=7)
    assert (permute(index[::-1], 2**33 + 5, key=7)[::-1] == found).all()
    assert permute(index[70_001:70_002], 2**33 + 5, key=7) == found[70_001]


def test_permute_is_pinned():
    """The order of batches never changes between releases: runs would not resume."""
    assert permute(np.arange(8), 20, key=1).tolist() == PINNED["tiny"]
    assert permute(np.arange(8), 1000, key=1).tolist() == PINNED["small"]
    assert permute(np.arange(4), 2**40 + 7, key=2).tolist() == PINNED["large"]
    assert permute(np.arange(4), 2**60 + 7, key=3).tolist() == PINNED["huge"]


@pytest.mark.parametrize("size", [2**20 - 3, 2**24 + 1, 2**33 + 5])
def test_permuted_neighbours_are_independent(size):
    """Pairs of consecutive images fill a 64 by 64 table evenly, by their high bits and their low, and do not correlate.

    Each statistic is a standard normal for a random permutation; a sixth of a million normals passes 4.5 once.
    """
    for key in range(4):
        found = permute(np.arange(2**18), size, key)
        for digit in (found * 64 // size, found % 64):
            pairs = np.bincount(digit[:-1] * 64 + digit[1:], minlength=4096)
            expected = (len(found) - 1) / 4096
            chi = ((pairs - expected) ** 2 / expected).sum()
            assert abs(chi - 4095) / np.sqrt(2 * 4095) < 4.5
        assert abs(np.corrcoef(found[:-1], found[1:])[0, 1]) * np.sqrt(len(found)) < 4.5


# ---- ranks -------------------------------------------------------------------------------------------------------


@given(span_sets(), st.data())
@settings(deadline=None)
def test_a_rank_table_is_the_list_of_addresses(spans_S, data):
    """Ranks to addresses, back, in runs and in ranges: all as in the list of all addresses."""
    table, every = RankTable(spans_S), spans.addresses(spans_S)
    ranks = np.arange(table.size)
    assert (table.addresses(ranks) == every).all()
    assert (table.below(np.arange(every[-1] + 5)) == np.searchsorted(every, np.arange(every[-1] + 5))).all()
    start = data.draw(st.integers(0, table.size - 1))
    stop = data.draw(st.integers(start + 1, table.size))
    assert (spans.addresses(table.between(start, stop)) == every[start:stop]).all()
    step = data.draw(st.integers(1, 9))
    assert (table.every(step) == every[::step]).all()
    onward = table.onward(ranks[: table.size - start])
    for ahead in range(start + 1):
        assert (next(onward) == every[ahead : ahead + table.size - start]).all()


@given(span_sets(most=30), st.integers(4, 40), st.sampled_from([4, 8]))
@settings(deadline=None)
def test_cuts_keep_chunks_whole(spans_S, length, unit):
    """No unit of addresses is in two blocks, and no block is longer than asked for by more than a unit."""
    table = RankTable(spans_S)
    length = max(length, unit)
    edges = cuts(table, length, unit)
    assert edges[0] == 0
    assert edges[-1] == table.size
    assert np.diff(edges).min() > 0
    assert np.diff(edges).max() <= length + unit
    units = spans.addresses(spans_S) // unit
    assert (units[edges[1:-1] - 1] < units[edges[1:-1]]).all()


# ---- orders ------------------------------------------------------------------------------------------------------


@given(orders(), st.integers(1, 64))
@settings(deadline=None)
def test_an_epoch_visits_every_rank_once(order, batch):
    """Batches strung together are one whole permutation after another, without a short batch between."""
    ranks = strung(order, batch, -(-3 * order.size // batch))
    for epoch in range(3):
        assert (np.sort(ranks[epoch * order.size : (epoch + 1) * order.size]) == np.arange(order.size)).all()
    assert order.size < 30 or len(order.cuts) > 2 or order.strip > 1 or (ranks[:30] != ranks[order.size :][:30]).any()


@given(orders(), st.integers(1, 64), st.integers(0, 900), st.integers(1, 90))
@settings(deadline=None)
def test_any_places_can_be_drawn(order, batch, place, count):
    """The ranks at some places are those that a run from the beginning has there: resuming needs one integer."""
    together = strung(order, batch, -(-(place + count) // batch))
    assert (order.at(place, count, batch) == together[place : place + count]).all()


@given(orders(), st.integers(1, 64))
@settings(deadline=None)
def test_a_window_holds_whole_blocks(order, batch):
    """The places of a window hold its blocks and nothing else, and every window but the last has its number of them."""
    ranks, place = strung(order, batch, -(-order.size // batch)), 0
    while place < order.size:
        window, within = order.window_at(place)
        assert within == 0
        assert window.size <= order.largest_window
        assert len(window.blocks) == order.window or place + window.size == order.size
        expected = np.concatenate([np.arange(start, stop) for start, stop in window.blocks])
        assert (np.sort(ranks[place : place + window.size]) == np.sort(expected)).all()
        place += window.size


def test_a_batch_takes_one_rank_of_a_strip():
    """With strips, each batch of a deal takes one rank of each of B strips, and the next batch their neighbours."""
    order, batch, strip = Shuffled(4096, 3, strip=8), 64, 8
    for deal in range(8):
        rows = strung(order, batch, strip, start=deal * strip).reshape(strip, batch)
        assert (rows[0] % strip == 0).all()
        assert len(np.unique(rows[0])) == batch
        assert (rows == rows[0] + np.arange(strip)[:, None]).all()


@given(st.integers(0, 50), st.integers(1, 30), st.integers(0, 40), st.integers(1, 20))
def test_serial_goes_round_its_window(start, size, first, batch):
    """Rank after rank from ``start + first``, and after the window's last its first."""
    order = Serial(start, start + size, first)
    expected = [start + (first + place) % size for place in range(5 * batch)]
    assert strung(order, batch, 5).tolist() == expected


@given(span_sets(), span_sets(), st.integers(1, 50), st.integers(1, 9), st.integers(1, 9))
@settings(deadline=None)
def test_a_mixture_keeps_shares_and_epochs(first_S, second_S, batch, one, other):
    """Of n places each part has its share of n rounded down or up, and draws its own addresses in its own order."""
    parts = [Sampler(first_S, 1), Sampler(second_S, 2, Serial(0, spans.size(second_S)))]
    mixed = Mixed([(parts[0], one), (parts[1], other)])
    drawn = [np.empty(0, np.int64), np.empty(0, np.int64)]
    share = Fraction(one, one + other)
    for step in range(12):
        addresses = mixed.addresses(mixed.ranks(step, batch))
        cut = (step + 1) * batch * share.numerator // share.denominator - len(drawn[0])
        drawn = [np.append(drawn[0], addresses[:cut]), np.append(drawn[1], addresses[cut:])]
    for part, found in zip(parts, drawn, strict=True):
        assert (found == part.addresses(part.at(0, len(found), batch))).all()


@pytest.mark.parametrize("shares", [[], [0.5, 0.0]])
def test_a_mixture_of_nothing_is_refused(shares):
    """No parts, or a part without a share, is a RequestError."""
    with pytest.raises(RequestError, match="shares above 0"):
        Mixed([(Sampler(np.array([[0, 9]]), 0), share) for share in shares])


def test_orders_are_pinned():
    """The batches of every order never change between releases."""
    spans_S = np.array([[100, 700], [2000, 2400]])
    blocks = Shuffled(1000, 5, np.array([0, 300, 500, 800, 1000]), window=2, strip=4)
    samplers = {
        "shuffled": Sampler(spans_S, 5),
        "blocks": Sampler(spans_S, 5, blocks),
        "serial": Sampler(spans_S, 5, Serial(590, 610, 5)),
    }
    samplers["mixed"] = Mixed([(samplers["shuffled"], 0.75), (samplers["serial"], 0.25)])
    for name, sampler in samplers.items():
        assert sampler.addresses(sampler.ranks(31, 8)).tolist() == PINNED[name], name


@pytest.mark.parametrize("workers", [1, 2, 3, 8])
def test_workers_and_ranks_share_the_same_batches(workers):
    """Steps dealt to workers in turn, or a batch cut into the ranks' parts, put together are the batches of one."""
    order = Shuffled(5000, 1, np.array([0, 1500, 3000, 5000]), window=2, strip=4)
    sampler, batch = Sampler(np.array([[0, 5000]]), 1, order), 48
    alone = [sampler.ranks(step, batch) for step in range(24)]
    for worker in range(workers):
        again = Sampler(np.array([[0, 5000]]), 1, Shuffled(5000, 1, order.cuts, 2, 4))
        for step in range(worker, 24, workers):
            assert (again.ranks(step, batch) == alone[step]).all()
            part = again.at(step * batch + worker * batch // workers, batch // workers, batch)
            assert (part == alone[step][worker * batch // workers :][: batch // workers]).all()


# ---- what is trainable -------------------------------------------------------------------------------------------


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


@pytest.fixture(scope="module")
def motley(tmp_path_factory):
    """Records of many kinds in turn, over several shards of 256 bytes, some with missing elements."""
    corpus = Corpus.create(tmp_path_factory.mktemp("motley") / "corpus", address_bits=20)
    rng = np.random.default_rng(0)
    for turn in range(3):
        noise = rng.integers(0, 256, (5, 6), np.uint8)
        append(
            corpus,
            volume(f"{turn}-padded.npy", noise),
            text(f"{turn}.txt", b"x" * (turn + 3)),
            volume(f"{turn}-packed.npy", noise, "packed"),
            volume(f"{turn}-morton.npy", noise, "morton"),
            volume(f"{turn}-planes.npy", smooth((3, 5, 7), turn), missing=smooth((3, 5, 7), turn) > 600),
            volume(f"{turn}-wide.npy", noise[:, : 3 + turn]),
        )
    return corpus


@given(st.data())
@settings(deadline=None, max_examples=40)
def test_trainable_by_columns_is_trainable_by_records(motley, data):
    """Whatever is held out, the sets found by columns are those that a loop over the records finds."""
    held = []
    for _ in range(data.draw(st.integers(0, 6))):
        entry = motley.entries[data.draw(st.integers(0, len(motley.entries) - 1))]
        starts = [data.draw(st.integers(0, size - 1)) for size in entry.shape]
        region = tuple((a, data.draw(st.integers(a + 1, size))) for a, size in zip(starts, entry.shape, strict=True))
        held.append(Holdout(data.draw(st.sampled_from("gh")), entry.record, region))
    held.append(Holdout("g", "of another version", ((0, 1),)))
    seen = SimpleNamespace(
        entries=motley.entries, shard=motley.shard, read_missing=motley.read_missing, holdouts=lambda: held
    )
    for name in (None, "g", "h"):
        regions = [(motley.entries.named(h.record), h.region) for h in held[:-1] if name in (None, h.holdout)]
        expected = spans.union(*(entry.spans(region) for entry, region in regions))
        assert (sampling.held_out(seen, name) == expected).all()
    parts = []
    for entry in motley.entries:
        marks = motley.read_missing(entry.payload_start, entry.payload_stop)
        elements = spans.difference(entry.spans(entry.geometry.whole), spans.of_mask(marks, entry.payload_start))
        parts += [elements, np.array([[entry.header_start, entry.header_start + entry.header_bytes]])]
    expected = spans.difference(spans.union(*parts), sampling.held_out(seen))
    assert (sampling.trainable(seen) == expected).all()


def test_a_batch_depends_on_seed_and_step_alone(corpus):
    """The same (seed, step) gives the same addresses, another seed or step others."""
    again = Corpus.open(corpus.path)
    assert (sampling.batch(corpus, 1, 7, 32) == sampling.batch(again, 1, 7, 32)).all()
    assert (sampling.batch(corpus, 1, 7, 32) != sampling.batch(corpus, 2, 7, 32)).any()
    assert (sampling.batch(corpus, 1, 7, 32) != sampling.batch(corpus, 1, 8, 32)).any()


def test_an_empty_corpus_has_no_batch(tmp_path):
    """Nothing to draw from is a RequestError, not an arithmetic error."""
    with pytest.raises(RequestError, match="addresses to draw from"):
        sampling.batch(Corpus.create(tmp_path / "corpus", address_bits=20), 0, 0, 8)


PINNED = {
    "tiny": [15, 8, 10, 14, 4, 3, 12, 7],
    "small": [760, 977, 427, 121, 32, 446, 233, 88],
    "large": [251261242328, 40165836377, 845049830395, 274052396174],
    "huge": [729307355957892358, 1048640883458117637, 832150521449675988, 804740200140105682],
    "shuffled": [203, 661, 2141, 587, 2360, 2207, 2106, 2065],
    "blocks": [375, 2023, 2103, 147, 239, 263, 267, 359],
    "serial": [2003, 2004, 2005, 2006, 2007, 2008, 2009, 690],
    "mixed": [684, 150, 633, 569, 466, 362, 697, 698],
}
