"""Our sides of the benchmarks run and give figures; the peers are for `make bench`."""

import json
import sys

import numpy as np
import torch

from benchmarks import data, engine, lookup, sampling, small
from benchmarks.measure import Row
from benchmarks.scaling import Series
from benchmarks.table import table


def test_small_records_go_in(tmp_path):
    """Digits and lines make a corpus, timed."""
    for kind, suffix in ((data.digits, "npy"), (data.lines, "jsonl")):
        source = tmp_path / f"{kind.__name__}.{suffix}"
        kind(source, 50)
        figures = small.ours(str(source), str(tmp_path / kind.__name__))
        assert figures["seconds"] > 0
        assert figures["stored"] > 0


def test_bytes_at_random_addresses_are_those_of_the_plain_file(tmp_path, monkeypatch):
    """What the peer reads from the plain file sums up to what we find at the addresses."""
    monkeypatch.setattr(sampling, "ADDRESSES", 1000)
    data.digits(tmp_path / "digits.npy", 50)
    sampling.make(str(tmp_path / "digits.npy"), str(tmp_path / "corpus"))
    sampling.plain(str(tmp_path / "corpus"), str(tmp_path / "plain"), str(tmp_path / "places.npy"))
    plain, places = np.fromfile(tmp_path / "plain", np.uint8), np.load(tmp_path / "places.npy", allow_pickle=False)
    assert sampling.gather(str(tmp_path / "corpus"))["sum"] == plain[places].sum(dtype=np.int64)
    assert sampling.in_order(str(tmp_path / "corpus"))["seconds"] > 0


def test_addresses_find_their_records(tmp_path, monkeypatch):
    """Random addresses are looked up; opening is timed with and without a question."""
    monkeypatch.setattr(lookup, "ADDRESSES", 1000)
    corpus, file = str(tmp_path / "corpus"), str(tmp_path / "addresses.npy")
    lookup.make(corpus, 50)
    lookup.addresses(corpus, file)
    figures = lookup.lookup(corpus, file)
    assert figures["seconds"] > 0
    assert 0 < figures["sum"] < 1000 * 50
    for what in ("open", "open, one address", "open, one name"):
        assert lookup.opening(corpus, what)["seconds"] > 0


def test_the_table_says_what_is_reached_and_what_failed():
    """A ratio stands beside its goal; a peer that failed has its error, never a blank."""
    rows = [Row("w", "tensorstore", 1.0, 2.0, "a tensorstore"), Row("w", "mds", 1.0, None, "a mds", error="no disk")]
    lines = table(rows)
    assert "2.00" in lines[1]
    assert lines[1].endswith("yes")
    assert lines[2].endswith("FAILED: no disk")


def test_a_curve_bends_upward_where_a_unit_more_than_doubles_over_a_decade():
    """A fixed cost that is spread over more units is no defect, nor is noise below a factor of two."""
    assert not Series("f", "byte", [(10, 9.0), (100, 1.0), (1000, 1.9)]).bends
    assert Series("f", "byte", [(10, 1.0), (50, 3.0), (100, 2.1)]).bends


def test_training_is_timed_beside_plain_loops_on_the_same_network_and_bytes(capsys, monkeypatch):
    """Ratios, shares of the peak, the limit and the parts of a step, for each batch, as JSON and as text."""
    words = "engine --width 16 --layers 2 --batch 32,64 --seconds 0.2 --size 2000 --no-compile"
    monkeypatch.setattr(sys, "argv", [*words.split(), "--json"])
    engine.main()
    found = json.loads(capsys.readouterr().out)
    assert [figures["batch"] for figures in found] == [32, 64]
    for figures in found:
        speeds = figures["addresses_per_second"]
        assert set(speeds) == {"ours", "ours, muon", "plain loop", "toy loop"}
        for name, ratio in figures["ratio"].items():
            assert ratio == speeds["ours"] / speeds[name]
        assert all(0 < share < 1 for share in figures["share"].values())
        assert figures["parts"]["matrix products"] > 0
        assert sum(figures["parts"].values()) < 2
        assert f"ours is {figures['ratio']['toy loop']:.2f} times as fast" in engine.shown(figures)


def test_both_engines_train_the_same_network(tmp_path):
    """Our perceptron and the plain one have weights of the same shapes, given equal ones the same logits."""
    settings = engine.settings_of(16, 2, 32)
    mine = engine.state_of(settings).network
    plain, _ = engine.perceptron(settings, torch.device("cpu"))
    shapes = [tuple(weight.shape) for weight in plain.parameters()]
    assert shapes == [tuple(weight.shape) for weight in mine.parameters()]
    assert engine.operations(settings) == sum(6 * a * b for a, b in filter(lambda s: len(s) == 2, shapes)) - 2 * 64 * 16
    with torch.no_grad():
        for a, b in zip(plain.parameters(), mine.parameters(), strict=True):
            a.copy_(b)
        addresses_B = torch.randint(0, 2**40, (32,))
        assert torch.allclose(mine(addresses_B), plain(mine.embedding(addresses_B)), atol=1e-5)
    corpus = engine.made(tmp_path / "corpus", 500)
    addresses_N, bytes_N = engine.data(corpus)
    digits, byte = engine.OneByOne(addresses_N, bytes_N)[7]
    assert digits.flip(0).tolist() == (addresses_N[7] >> torch.arange(64) & 1).tolist()
    assert int(byte) == int(corpus.read(int(addresses_N[7]), int(addresses_N[7]) + 1)[0])
