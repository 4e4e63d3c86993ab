"""A batch on its way into shards: hashes, whatever goes wrong on the way, and how much of it is in memory."""

import hashlib
import threading
import time
import weakref
from concurrent.futures import Future, ThreadPoolExecutor
from types import SimpleNamespace

import numpy as np
import pytest

from aunn_data import batch, payload, verify
from aunn_data import header as headers
from aunn_data.corpus import Corpus
from aunn_data.errors import InputError, StoreError
from aunn_data.geometry import Geometry
from aunn_data.header import Header
from aunn_data.outgoing import PIECES, WORKERS, Outgoing
from aunn_data.record import Record, Records, Strips
from aunn_data.store import Folder
from tests.corpora import append, smooth, text, volume

SHA256 = "5" * 64
WRONG = InputError("a.txt", expected="a readable file", found="none", remedy="check the disk")


@pytest.fixture
def corpus(tmp_path):
    """One with shards of 256 bytes and one record."""
    corpus = Corpus.create(tmp_path / "corpus", address_bits=20)
    append(corpus, text("first.txt", b"abc"))
    return corpus


class Elements:
    """An array that calls ``on_read(n)`` before its n-th part is read."""

    def __init__(self, array, on_read):
        self.array, self.on_read, self.reads = array, on_read, 0
        self.shape, self.dtype, self.ndim = array.shape, array.dtype, array.ndim

    def __getitem__(self, part):
        self.reads += 1
        self.on_read(self.reads)
        return self.array[part]


def big(name="big.npy", on_read=lambda n: None):
    """A record over 32 shards, each of which is one read."""
    record = volume(name, smooth((8, 16, 32)))
    object.__setattr__(record, "elements", Elements(np.asarray(record.elements), on_read))
    return record


def unchanged(corpus, shards):
    """Nothing was committed and no shard is there that was not before."""
    opened = Corpus.open(corpus.path)
    assert [entry.record for entry in opened.entries] == ["first.txt"]
    assert [opened.shard_numbers(name) for name in ("bytes", "missing")] == shards
    assert verify.verify(opened, deep=True) == []


def shards_of(corpus):
    return [corpus.shard_numbers(name) for name in ("bytes", "missing")]


@pytest.mark.parametrize("make", [big, lambda: text("b.txt", b"words " * 99)], ids=["padded", "packed"])
def test_the_hash_of_a_source_may_come_late(corpus, make):
    """A Future that is done only once the payload is under way: header and row have its hash."""
    with ThreadPoolExecutor(1) as pool:
        [entry] = corpus.append([make()], [pool.submit(lambda: time.sleep(0.2) or SHA256)])
    assert entry.source_sha256 == corpus.header(entry).source_sha256 == SHA256
    assert verify.verify(Corpus.open(corpus.path), deep=True) == []


def test_a_header_with_shards_to_itself_waits_for_the_hash_and_the_payload_does_not(corpus):
    """A hash that is there only once the last part of a big record was read keeps nobody waiting for ever."""
    source = Future()

    def on_read(n):
        if n == 32:
            source.set_result(SHA256)

    [entry] = corpus.append([big(on_read=on_read)], [source])
    assert corpus.header(entry).source_sha256 == SHA256


def read_fails(corpus, monkeypatch):
    def on_read(n):
        if n == 20:
            raise WRONG

    return [big(on_read=on_read)], [SHA256]


def source_fails(corpus, monkeypatch):
    source = Future()
    source.set_exception(WRONG)
    return [volume("marked.npy", smooth((3, 5)), missing=smooth((3, 5)) > 500), big()], [SHA256, source]


def disk_fails(corpus, monkeypatch):
    put, lock, count = corpus.store.put, threading.Lock(), [0]

    def failing(key, data, new=False):
        with lock:
            count[0] += "/c/" in key
        if count[0] == 9:
            raise StoreError(key, expected="room", found="none", remedy="make some")
        return put(key, data, new)

    monkeypatch.setattr(corpus.store, "put", failing)
    return [volume("marked.npy", smooth((3, 5)), missing=smooth((3, 5)) > 500), big()], [SHA256, SHA256]


@pytest.mark.parametrize(
    ("fault", "error"), [(read_fails, InputError), (source_fails, InputError), (disk_fails, StoreError)]
)
def test_a_batch_that_fails_leaves_nothing_behind(corpus, monkeypatch, fault, error):
    """Elements, a source's hash or the disk: the error comes through, no shard stays, the same batch then goes in."""
    before = shards_of(corpus)
    records, sources = fault(corpus, monkeypatch)
    with pytest.raises(error):
        corpus.append(records, sources)
    monkeypatch.undo()
    unchanged(corpus, before)
    append(corpus, *(volume(r.header.record, smooth(r.header.geometry.shape)) for r in records))
    assert verify.verify(Corpus.open(corpus.path), deep=True) == []


def test_an_interrupt_leaves_nothing_behind(corpus):
    """Ctrl-C while a batch goes in takes its shards away too, those that are being written included."""
    before = shards_of(corpus)

    def interrupt(count):
        if shards_of(corpus) != before:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        corpus.append([big(), big("other.npy")], [SHA256, SHA256], interrupt)
    unchanged(corpus, before)


@pytest.mark.parametrize("layout", ["padded", "packed", "morton"])
@pytest.mark.parametrize("aside", [1, 1 << 30])
def test_hashes_are_those_of_the_whole_whoever_makes_them(corpus, monkeypatch, layout, aside):
    """Payloads over many shards, hashed block by block in another thread or in this one: as hashlib has it at once."""
    monkeypatch.setattr(batch, "_HASH_ASIDE", aside)
    scans = {f"{n}.npy": smooth((8, 16, 31 + n), seed=n) for n in range(3)}
    words = np.random.default_rng(0).bytes(5000)
    entries = append(corpus, *(volume(name, scan, layout) for name, scan in scans.items()), text("w.txt", words))
    for entry in entries:
        inside = corpus.gather(entry.spans(entry.geometry.whole)).tobytes()
        assert entry.sha256 == hashlib.sha256(inside).hexdigest()
    assert entries[-1].sha256 == hashlib.sha256(words).hexdigest()


class SlowHash:
    """hashlib.sha256, far slower than the disk."""

    def __init__(self):
        self.digest = hashlib.new("sha256")

    def update(self, data):
        time.sleep(0.005)
        self.digest.update(data)

    def hexdigest(self):
        return self.digest.hexdigest()


@pytest.mark.parametrize("layout", ["padded", "packed"])  # made piece by piece, and whole
@pytest.mark.parametrize("slow", ["disk", "hash"])
def test_what_is_in_memory_is_a_few_shards(corpus, monkeypatch, slow, layout):
    """However slow disk or hash, there are no more shards than writers and two, and no more pieces than said."""
    at, submit, put, alive, most = Outgoing.at, Outgoing._submit, Folder.put, {}, [0, 0, 0]

    def counting(self, address, length):
        block = at(self, address, length)
        alive[id(self._data)] = weakref.ref(self._data)
        most[0] = max(most[0], sum(ref() is not None for ref in alive.values()))
        return block

    def submitting(self, *args):
        submit(self, *args)
        most[1:] = max(most[1], len(self._pending)), max(most[2], self._made)

    def slowly(*args, **options):
        time.sleep(0.01 if slow == "disk" else 0)
        return put(*args, **options)

    monkeypatch.setattr(Outgoing, "at", counting)
    monkeypatch.setattr(Outgoing, "_submit", submitting)
    monkeypatch.setattr(Folder, "put", slowly)
    monkeypatch.setattr(batch, "_HASH_ASIDE", 1)
    if slow == "hash":
        monkeypatch.setattr(batch, "hashlib", SimpleNamespace(sha256=SlowHash))
    records = [volume(f"{n}.npy", smooth((8, 16, 32), seed=n), layout) for n in range(3)]
    corpus.append(records, [SHA256] * len(records))
    assert most[0] <= WORKERS + 2
    assert 1 < most[1] <= WORKERS + 2
    assert (most[2] == 0) == (layout == "packed")
    assert most[2] <= PIECES


class Sparse(Elements):
    """Elements that know which regions hold nothing but zeros, and are not read there more than once a shape."""

    def constant(self, region):
        return not self.array[tuple(slice(*edges) for edges in region)].any()


@pytest.mark.parametrize("layout", ["padded", "morton"])
def test_what_a_source_does_not_store_is_written_as_if_it_did(tmp_path, layout):
    """Shards of regions without stored elements are made once; every file and hash is as if all had been read."""
    values = np.zeros((16, 16, 24), "<i2")
    values[3:5, 2:9] = smooth((2, 7, 24)) - 40
    values[12, 1, 1] = 9
    written, reads = [], []
    for number, kind in enumerate((Elements, Sparse)):
        corpus = Corpus.create(tmp_path / str(number), address_bits=20)
        record = volume("a.npy", values, layout=layout)
        elements = kind(values, lambda n: None)
        object.__setattr__(record, "elements", elements)
        append(corpus, record)
        reads.append(elements.reads)
        assert verify.verify(Corpus.open(corpus.path), deep=True) == []
        written.append({p.name: p.read_bytes() for p in (corpus.path / "bytes/c").iterdir()})
    assert written[0] == written[1]
    assert reads[1] < reads[0]


LINE = Geometry("|u1", ("byte",), (5,), "packed")
DIGIT = Geometry("|u1", ("y", "x"), (7, 6))


@pytest.mark.parametrize("aside", [1, 1 << 20])
def test_records_as_columns_make_the_same_corpus_as_one_by_one(tmp_path, monkeypatch, aside):
    """Digits, lines, marked volumes and strange ones between: the same files and rows, written in runs or singly."""
    rng = np.random.default_rng(0)
    digits = [rng.integers(0, 256, (7, 6), np.uint8) for _ in range(1100)]
    digits[500] = digits[500].T.copy().T  # not contiguous
    digits[501] = Elements(digits[501], lambda n: None)
    small = [Record(Header(f"d#{n}", "d", "image", "pnm", DIGIT), digit) for n, digit in enumerate(digits)]
    lines = [text(f"é#{n}", rng.bytes(n % 7 + 1)) for n in range(900)]
    volumes = [volume(f"{n}.npy", smooth((3, 5, n + 1)), missing=smooth((3, 5, n + 1)) > 500) for n in range(20)]
    flags = [volume(f"{n}.bool", smooth((4, 4)) > 300 + n) for n in range(9)]
    records = small[:600] + lines[:300] + volumes + [big()] + small[600:] + flags + lines[300:]
    made = []
    for name, given in (("columns", Records.of(records)), ("records", records)):
        monkeypatch.setattr(batch, "_HASH_ASIDE", aside if name == "records" else 1 << 20)
        corpus = Corpus.create(tmp_path / name, address_bits=24)
        entries = corpus.append(given, [SHA256] * len(records))
        assert verify.verify(Corpus.open(corpus.path), deep=True) == []
        files = {p.relative_to(corpus.path): p.read_bytes() for p in corpus.path.glob("*/c/*")}
        made.append((files, [entry.row() for entry in entries], list(corpus.entries)))
    assert made[0] == made[1]
    corpus, entries = Corpus.open(tmp_path / "columns"), made[0][2]
    starts = [entry.header_start for entry in entries]
    held = corpus.read(0, entries[-1].stop)
    for record, entry, after in zip(records, entries, [*starts[1:], None], strict=True):
        assert record.header.record == entry.record
        block = payload.encode(entry.geometry, record.elements, 0, entry.geometry.extent, record.missing)
        assert (held[entry.payload_start : entry.payload_stop] == block).all()
        header = held[entry.header_start : entry.header_start + entry.header_bytes].tobytes()
        start, last = entry.payload_start, headers.decode_preamble(header, "").next
        assert after in (last, None)
        assert header == headers.encode(record.header, payload=start, next=last, source_sha256=SHA256)


def test_columns_are_as_long_as_their_names():
    """A column of another length is an error, what all share is said once, and a part is a part of every column."""
    with pytest.raises(ValueError, match="columns of 2 rows"):
        Records(["a", "b"], "s", "text", "text", LINE, [smooth((5,))])
    records = Records(["a", "b"], "s", "text", "text", LINE, np.zeros((2, 5), np.uint8), metadata={"n": 1})
    assert [record.header for record in records] == [Header(n, "s", "text", "text", LINE, {"n": 1}) for n in "ab"]
    assert [record.header.record for record in records[1:]] == ["b"]


def test_strips_are_arrays_one_after_another():
    """One by one, by number and in parts they are the payloads; among single records they stay the same records."""
    payloads = [b"a", b"bc", b"def", b"g"]
    strips = Strips.of(payloads)
    assert [bytes(strip) for strip in strips] == payloads
    assert [bytes(strip) for strip in strips[1:][:2]] == payloads[1:3]
    assert (bytes(strips[-1]), len(strips[3:1])) == (b"g", 0)
    with pytest.raises(IndexError):
        strips[4]
    lines = [Geometry("|u1", ("byte",), (len(data),), "packed") for data in payloads]
    names = [f"s#{n}" for n in range(4)]
    rows, single = Records(names, "s", "text", "jsonl", lines, strips), text("t", b"one")
    joined = Records.of([single, rows, rows[:0], single])
    assert [r.header for r in joined] == [single.header, *(r.header for r in rows), single.header]
    assert [bytes(r.elements) for r in joined] == [b"one", *payloads, b"one"]
