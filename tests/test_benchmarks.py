"""Our sides of the benchmarks run and give figures; the peers are for `make bench`."""

import numpy as np

from benchmarks import data, lookup, sampling, small
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
