"""The byte list and its registry: what is committed can be read, by us and by others; what is not cannot."""

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import duckdb
import numpy as np
import polars
import pyarrow as pa
import pytest
import zarr
from deltalake import DeltaTable

from aunn_data import header as headers
from aunn_data import verify
from aunn_data.corpus import Corpus
from aunn_data.entries import Entries
from aunn_data.errors import ConflictError, CorpusError, InputError, RequestError
from aunn_data.registry import Holdout
from tests.corpora import append, smooth, text, volume


@pytest.fixture
def corpus(tmp_path):
    return Corpus.create(tmp_path / "corpus", address_bits=32)


@pytest.mark.parametrize("layout", ["padded", "packed", "morton"])
def test_records_come_back_as_they_went_in(corpus, layout):
    """Elements, marks and header of every record are read back equal, in every layout, after reopening."""
    scan, notes = smooth((5, 30, 20)), text("notes.txt", b"To be, or not to be\n" * 50)
    missing = scan > 800
    append(corpus, volume("a.npy", scan, layout, missing), notes)
    opened = Corpus.open(corpus.path)
    entry = opened.entries.named("a.npy")
    assert (opened.elements(entry)[~missing] == scan[~missing]).all()
    assert (opened.missing(entry) == missing).all()
    assert opened.header(entry) == volume("a.npy", scan, layout, missing).header
    assert opened.elements(opened.entries.named("notes.txt")).tobytes() == b"To be, or not to be\n" * 50
    assert verify.verify(opened) == []


def test_plain_zarr_reads_the_bytes(corpus):
    """zarr.open_group(corpus)["bytes"][a:b] gives a text's own bytes, and its readable header before them."""
    [entry] = append(corpus, text("notes.txt", b"plain words"))
    group = zarr.open_group(corpus.path, mode="r")
    assert group["bytes"].shape == (2**32,)
    assert group["bytes"][entry.payload_start : entry.payload_stop].tobytes() == b"plain words"
    header = group["bytes"][entry.header_start : entry.header_start + entry.header_bytes].tobytes()
    assert header.startswith(b"AUNN1 header=")
    assert json.loads(header[headers.PREAMBLE_BYTES :])["record"] == "notes.txt"


def test_others_read_the_registry(corpus):
    """deltalake, Polars and DuckDB see the rows of registry/records with none of our code."""
    append(corpus, text("a.txt", b"abc"), volume("b.npy", smooth((3, 4, 5))))
    path = str(corpus.path / "registry" / "records")
    rows = DeltaTable(path).to_pyarrow_table()
    assert set(rows["record"].to_pylist()) == {"a.txt", "b.npy"}
    assert polars.read_delta(path).filter(polars.col("modality") == "scan")["shape"].to_list() == [[3, 4, 5]]
    assert duckdb.sql("SELECT sum(payload_bytes) FROM rows").fetchall() == [(3 + 60 * 2,)]


def test_registry_can_be_found_again_by_hopping_from_header_to_header(corpus):
    """Each preamble leads to the payload and to the next header; nothing but the byte list is needed."""
    entries = append(corpus, text("a.txt", b"abc"), volume("b.npy", smooth((3, 4, 5))), text("c.txt", b"xyz"))
    entries += append(corpus, volume("d.npy", smooth((9, 9))))
    at, found = 0, []
    while (data := corpus.read(at, at + 4096).tobytes())[:5] == b"AUNN1":
        preamble, header = headers.decode_preamble(data, "here"), headers.decode(data, "here")
        found.append((header.record, at, preamble.payload, preamble.payload + preamble.extent))
        at = preamble.next
    assert found == [(e.record, e.header_start, e.payload_start, e.payload_stop) for e in entries]


def test_padded_records_of_one_shape_have_one_period(corpus):
    """28x28 digits lie 2048 apart, header in the lower 1024, payload in the upper: record number = address >> 11."""
    digit = np.zeros((28, 28), np.uint8)
    entries = append(corpus, *(volume(f"{n}.npy", digit + n) for n in range(20)))
    assert [e.header_start >> 11 for e in entries] == list(range(20))
    assert all(e.payload_start == e.header_start + 1024 for e in entries)


def test_payloads_start_on_multiples_of_their_extent(corpus):
    """The low bits of an address are the element's coordinates: extents are powers of two and payloads aligned."""
    entries = append(corpus, *(volume(f"{n}.npy", smooth((n, 7, 11))) for n in (3, 40, 5)))
    for entry in entries:
        extent = entry.payload_stop - entry.payload_start
        assert extent & (extent - 1) == 0
        assert entry.payload_start % extent == 0


def test_batches_never_share_a_shard(corpus):
    """A committed shard is never written again: batches start and end on shard boundaries."""
    first, second = (append(corpus, text(name, b"abc"))[0] for name in ("a", "b"))
    assert second.header_start // corpus.shard > (first.stop - 1) // corpus.shard


def test_nothing_is_seen_before_the_commit(corpus, monkeypatch):
    """A writer that dies after writing its shards leaves the corpus as it was; the same append again succeeds."""
    append(corpus, text("a.txt", b"abc"))

    def die(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(corpus.registry, "commit", die)
        with pytest.raises(KeyboardInterrupt):
            append(corpus, text("b.txt", b"abc"))
    opened = Corpus.open(corpus.path)
    assert [e.record for e in opened.entries] == ["a.txt"]
    append(opened, text("b.txt", b"other"))
    assert opened.elements(opened.entries.named("b.txt")).tobytes() == b"other"
    assert verify.verify(opened) == []


def test_two_writers_get_different_addresses_and_both_land(corpus):
    """Two corpora opened at one version append different records: no address is handed out twice, nothing is lost."""
    other = Corpus.open(corpus.path)
    append(corpus, text("a.txt", b"abc"))
    append(other, text("b.txt", b"xyz"))
    opened = Corpus.open(corpus.path)
    assert {e.record for e in opened.entries} == {"a.txt", "b.txt"}
    assert verify.verify(opened) == []


def test_the_second_of_two_writers_of_one_record_is_told_of_the_conflict(corpus):
    """Two writers of one name: the second gets ConflictError (exit 4) and the first one's bytes stay."""
    other = Corpus.open(corpus.path)
    append(corpus, text("a.txt", b"abc"))
    with pytest.raises(ConflictError, match="again"):
        append(other, text("a.txt", b"xyz"))
    opened = Corpus.open(corpus.path)
    assert opened.elements(opened.entries.named("a.txt")).tobytes() == b"abc"


def test_an_older_version_reads_as_it_was(corpus):
    """Opened at an older version, later records are not there."""
    append(corpus, text("a.txt", b"abc"))
    version = corpus.version
    append(corpus, text("b.txt", b"abc"))
    assert [e.record for e in Corpus.open(corpus.path, version).entries] == ["a.txt"]
    with pytest.raises(RequestError, match="a version from 0 to 2"):
        Corpus.open(corpus.path, 99)


def test_a_record_that_does_not_fit_is_refused_and_reserves_nothing(tmp_path):
    """A full address space is one clear InputError, and what fits still goes in afterwards."""
    corpus = Corpus.create(tmp_path / "small", address_bits=20)
    with pytest.raises(InputError, match="room for"):
        append(corpus, text("big.txt", bytes(65 for _ in range(2**20))))
    append(corpus, text("a.txt", b"abc"))
    assert len(corpus.entries) == 1


@pytest.mark.parametrize("bits", [20, 38, 63])
def test_any_width_up_to_63_bits_works(tmp_path, bits):
    """The last address of the widest space can be read, and records go in and out."""
    corpus = Corpus.create(tmp_path / "c", address_bits=bits)
    append(corpus, volume("a.npy", smooth((3, 5))))
    assert corpus.read(2**bits - 2, 2**bits).tolist() == [0, 0]
    assert (corpus.elements(corpus.entries.named("a.npy")) == smooth((3, 5))).all()
    with pytest.raises(RequestError, match="addresses within"):
        corpus.read(2**bits - 1, 2**bits + 1)


@pytest.mark.parametrize("bits", [0, 19, 64])
def test_other_widths_are_refused(tmp_path, bits):
    """Fewer than 20 or more than 63 address bits is a RequestError."""
    with pytest.raises(RequestError, match="from 20 to 63"):
        Corpus.create(tmp_path / "c", address_bits=bits)


def test_what_is_no_corpus_is_said_to_be_none(tmp_path):
    """An empty folder, a folder of other things and another Zarr group are RequestErrors that say what to do."""
    with pytest.raises(RequestError, match="no corpus there"):
        Corpus.open(tmp_path)
    zarr.create_group(tmp_path / "other")
    with pytest.raises(RequestError, match="another Zarr group"):
        Corpus.open(tmp_path / "other")
    with pytest.raises(RequestError, match="another Zarr group"):
        Corpus.create(tmp_path / "other")
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "cat.txt").write_text("purr")
    with pytest.raises(RequestError, match="something else there"):
        Corpus.create(tmp_path / "photos")


def test_a_lost_table_is_damage(corpus):
    """A corpus without its registry is a CorpusError (exit 3)."""
    (corpus.path / "registry" / "records").rename(corpus.path / "gone")
    with pytest.raises(CorpusError, match="a Delta table"):
        Corpus.open(corpus.path)


@pytest.mark.parametrize("where", ["header_start", "payload_start"])
def test_a_changed_byte_is_found_by_verify(corpus, where):
    """One byte changed in a header or a payload: verify names the record and its addresses."""
    append(corpus, text("a.txt", b"abc" * 99), text("b.txt", b"xyz" * 99))
    entry = corpus.entries.named("b.txt")
    array = zarr.open_group(corpus.path)["bytes"]
    at = getattr(entry, where) + 7
    array[at] = array[at] ^ 1
    faults = verify.verify(Corpus.open(corpus.path))
    assert [f.record for f in faults] == ["b.txt"]
    assert faults[0].start <= at < faults[0].stop


def test_a_flipped_bit_never_gives_wrong_bytes(corpus):
    """Wherever in a shard's file a bit flips, reading part of it raises CorpusError or still gives the right bytes."""
    data = np.random.default_rng(0).bytes(2000) + b"hello world, " * 100
    [entry] = append(corpus, text("a.txt", data))
    shard = corpus.path / "bytes" / "c" / "0"
    stored, raised = shard.read_bytes(), 0
    for place in range(0, len(stored), 5):
        damaged = bytearray(stored)
        damaged[place] ^= 1 << place % 8
        shard.write_bytes(damaged)
        try:
            assert corpus.read(entry.payload_start, entry.payload_stop).tobytes() == data
        except CorpusError:
            raised += 1
    assert raised > 0.99 * len(range(0, len(stored), 5))
    assert {f.record for f in verify.verify(corpus)} == {"a.txt"}


def test_unwritten_addresses_cost_nothing(corpus):
    """A corpus of 2^32 addresses with one small record takes less than 64 KiB of disk."""
    append(corpus, text("a.txt", b"abc"))
    assert sum(path.stat().st_size for path in Path(corpus.path).rglob("*") if path.is_file()) < 2**16


def test_the_same_holdout_twice_is_one(corpus):
    """Adding a held-out region again changes nothing; another region of the same name joins it."""
    append(corpus, volume("a.npy", smooth((4, 5, 6))))
    slab = Holdout("h", "a.npy", ((1, 2), (0, 5), (0, 6)))
    assert corpus.add_holdouts([slab]) == 1
    assert corpus.add_holdouts([slab, Holdout("h", "a.npy", ((3, 4), (0, 5), (0, 6)))]) == 1
    assert len(corpus.holdouts()) == 2


def test_gather_gives_the_bytes_of_spans_in_order(corpus):
    """Bytes gathered for spans across shards are those that read gives span by span."""
    append(corpus, volume("a.npy", smooth((5, 30, 20))))
    append(corpus, text("b.txt", b"words " * 400))
    spans_S = np.concatenate([e.spans(e.geometry.whole) for e in corpus.entries])
    expected = np.concatenate([corpus.read(int(a), int(b)) for a, b in spans_S])
    assert (corpus.gather(spans_S) == expected).all()


@pytest.mark.parametrize(("wide", "apart"), [(3, 0), (400, 1), (400, 40), (30, 44)])
def test_many_addresses_find_their_records(wide, apart):
    """A table of cells or a search: header, payload, padding and gaps, as a look at every record would say."""
    rng = np.random.default_rng(0)
    lengths = rng.integers(2, 2 + wide, 3000)
    gaps = 2 ** rng.integers(0, apart + 1, 3000) * (rng.random(3000) < 0.02)
    stops = np.cumsum(lengths + gaps)
    starts = stops - lengths
    addresses = np.concatenate([starts, starts - 1, stops, stops - 1, rng.integers(-5, stops[-1] + 99, 9000), [2**62]])
    number = np.searchsorted(starts, addresses, side="right") - 1
    expected = np.where((number >= 0) & (addresses < stops[number]), number, -1)
    entries = Entries(pa.table({"header_start": starts, "stop": stops}))
    assert (entries.numbers_at(addresses) == expected).all()
    assert [entries.numbers_at(addresses[n : n + 1])[0] for n in range(0, 21000, 500)] == expected[:21000:500].tolist()


@pytest.mark.parametrize("layout", ["padded", "morton"])
def test_of_a_volume_that_is_mostly_padding_every_element_is_verified(corpus, monkeypatch, layout):
    """Less than half of it is read, and a change of any element is found."""
    monkeypatch.setattr(verify, "_PART", 16)
    corpus = Corpus.create(corpus.path.with_name("narrow"), address_bits=20)
    [entry] = append(corpus, volume("a.npy", smooth((5, 9, 17)), layout))
    read, parts, changed = corpus.read, [], [-1]

    def counted(start, stop):
        parts.append(stop - start)
        found = read(start, stop)
        if start <= changed[0] < stop:
            found[changed[0] - start] ^= 1
        return found

    monkeypatch.setattr(corpus, "read", counted)
    assert verify.verify(corpus) == []
    assert sum(parts) < (entry.payload_stop - entry.header_start) // 2
    for address in entry.geometry.offsets(entry.geometry.whole).reshape(-1)[::41] + entry.payload_start:
        changed[0] = int(address)
        assert [fault.record for fault in verify.verify(corpus)] == ["a.npy"]


def test_corpora_opened_in_many_threads_leave_zarrs_settings_alone(tmp_path):
    """Which codecs a corpus is read with is its own affair: afterwards everybody else's arrays are read as before."""
    Corpus.create(tmp_path / "corpus", 20)
    before = zarr.config.get("codec_pipeline.path")
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: Corpus.without_registry(tmp_path / "corpus"), range(100)))
    assert zarr.config.get("codec_pipeline.path") == before
