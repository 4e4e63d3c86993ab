"""A lost registry made again from the byte list's own headers, identical in every column."""

import json
import shutil

import numpy as np
import pytest
from click.testing import CliRunner

from aunn_data import shards
from aunn_data.corpus import Corpus
from aunn_data.errors import CorpusError
from aunn_data.header import Header
from aunn_data.rebuild import rebuild
from aunn_data.record import Record
from aunn_data.registry import Holdout, Registry
from aunn_data.store import Folder
from aunn_data.verify import verify
from pipelines.cli.data import main as data
from tests.corpora import append, smooth, text, volume
from tests.test_collect import Writer

SLAB = Holdout("slab", "a.npy", ((1, 2), (0, 4), (0, 5)))


def talkative(name, elements, layout="padded"):
    """A volume whose header is longer than the smallest half of its block."""
    record = volume(name, elements, layout)
    header = record.header
    metadata = {"said": "ä word or two; " * 300}
    header = Header(name, name, header.modality, header.format, header.geometry, metadata)
    return Record(header, record.elements, record.missing)


def batches():
    """Batches of every kind of record there is, named ``batch/…``."""
    nan = np.where(smooth((9, 8)) > 800, np.nan, 0.5).astype("<f4")
    big = smooth((60, 70, 80), seed=3)
    yield [text("1/a.txt", b"To be, or not to be\n" * 50), text("1/ä.txt", b"x")]
    yield [volume(f"2/{n}.npy", smooth((5, 7, 11), seed=n)) for n in range(3)]
    yield [volume("3/packed.npy", smooth((5, 7)), "packed"), volume("3/morton.npy", smooth((5, 7, 3)), "morton")]
    yield [volume("4/nan.npy", nan, missing=np.isnan(nan)), volume("4/big.npy", big, missing=big > 700)]
    yield [talkative("5/long.npy", smooth((3, 3))), talkative("5/packed.npy", smooth((4, 4)), "packed")]
    yield [volume("6/zero.npy", np.zeros((50, 60, 70), "u1")), talkative("6/same.npy", smooth((3, 3)))]
    yield [volume("7/four.npy", smooth((2, 3, 4, 5)), "morton"), text("7/z.txt", bytes(range(256)) * 999)]


@pytest.fixture(scope="module")
def mixed(tmp_path_factory):
    """A corpus of all these batches, not to be changed."""
    corpus = Corpus.create(tmp_path_factory.mktemp("mixed") / "corpus", 30)
    for batch in batches():
        append(corpus, *batch)
    corpus.add_holdouts([Holdout("slab", "2/1.npy", ((1, 2), (0, 7), (0, 11)))])
    return corpus


@pytest.fixture
def corpus(tmp_path):
    """A small corpus of two batches and a holdout."""
    corpus = Corpus.create(tmp_path / "corpus", 32)
    append(corpus, text("a.txt", b"abc"), volume("a.npy", smooth((3, 4, 5))))
    append(corpus, text("b.txt", b"xyz"))
    corpus.add_holdouts([SLAB])
    return corpus


def rows(corpus):
    return [entry.row() for entry in corpus.entries]


@pytest.mark.parametrize("lost", ["registry", "registry/records", "registry/records/_delta_log", ""])
def test_whole_rows_come_back(mixed, tmp_path, lost):
    """Records of every modality, layout and length of header: all rows equal in all columns, whatever was lost."""
    where = tmp_path / "corpus"
    shutil.copytree(mixed.path, where)
    if lost:
        shutil.rmtree(where / lost)
    done = rebuild(where)
    assert rows(done.corpus) == rows(mixed)
    assert done.left_out == []
    assert done.corpus.version == 1
    assert verify(done.corpus, deep=True) == []
    assert done.corpus.holdouts() == ([] if lost == "registry" else mixed.holdouts())


def test_the_command_says_what_it_did(corpus):
    """verify --rebuild-registry: a damaged corpus (exit 3) is clean afterwards (exit 0), old files stay beside it."""
    before = rows(corpus)
    shutil.rmtree(corpus.path / "registry" / "records")
    command = ["verify", "--corpus", str(corpus.path), "--deep", "--json"]
    assert CliRunner().invoke(data, command).exit_code == 3
    done = CliRunner().invoke(data, [*command, "--rebuild-registry"])
    assert done.exit_code == 0
    assert json.loads(done.stdout)["ok"]
    assert rows(Corpus.open(corpus.path)) == before
    assert len(list(corpus.path.glob("registry-old-*"))) == 1


def test_addresses_in_use_are_not_handed_out_again(corpus):
    """After a rebuild the next batch starts behind every shard there is and every reservation that survived."""
    ends = [r.stop for r in corpus.registry.reservations()]
    shutil.rmtree(corpus.path / "registry")
    opened = rebuild(corpus.path).corpus
    [entry] = append(opened, text("c.txt", b"new"))
    assert entry.header_start >= max(ends)
    assert verify(opened, deep=True) == []
    assert opened.elements(opened.entries.named("b.txt")).tobytes() == b"xyz"


def test_a_reservation_that_survived_counts(corpus):
    """Addresses handed out to a writer that has not written yet are nobody else's after a rebuild either."""
    writer = Writer(corpus, "late").until("reserve")
    shutil.rmtree(corpus.path / "registry" / "records")
    [entry] = append(rebuild(corpus.path).corpus, text("c.txt", b"new"))
    assert entry.header_start >= writer.given.stop


@pytest.mark.parametrize("which", ["first", "last"])
def test_a_half_written_batch_is_left_out(corpus, which):
    """A writer died among its shards: what lacks one is left out and said, what was committed is all there."""
    before, there = rows(corpus), set(corpus.shard_numbers("bytes"))
    Writer(corpus, "dead").until("write")
    written = sorted(set(corpus.shard_numbers("bytes")) - there)
    lost = {"first": written[0], "last": written[-1]}[which]
    corpus.store.delete([f"bytes/c/{lost}"])
    shutil.rmtree(corpus.path / "registry")
    done = rebuild(corpus.path)
    names = {row["record"] for row in rows(done.corpus)} - {row["record"] for row in before}
    assert [row for row in rows(done.corpus) if row["record"] not in names] == before
    assert "dead.npy" not in names
    assert verify(done.corpus) == []
    append(done.corpus, text("c.txt", b"new"))
    assert verify(done.corpus, deep=True) == []


def test_a_batch_written_again_later_is_left_out(corpus):
    """A writer died before its commit and was run again: the committed records are those of the second time."""
    Writer(corpus, "dead").until("write")
    Writer(corpus, "dead").until("write").commit()
    before = rows(Corpus.open(corpus.path))
    shutil.rmtree(corpus.path / "registry")
    done = rebuild(corpus.path)
    assert rows(done.corpus) == before
    assert [record for record, _, _ in done.left_out] == ["dead", "dead.npy"]
    assert verify(done.corpus, deep=True) == []


CALLS = {"put": 9, "move": 2}  # of the store, while a registry of records and holdouts is made


@pytest.mark.parametrize(
    ("name", "at", "after"),
    [(name, at, after) for name in CALLS for at in range(CALLS[name]) for after in (False, True)],
)
def test_a_rebuild_killed_in_between_can_be_repeated(corpus, monkeypatch, name, at, after):
    """Killed before or after any of its writes: the same again gives the same rows and keeps the holdouts."""
    before, real, calls = rows(corpus), getattr(Folder, name), []

    def die(store, *args, **options):
        calls.append(name)
        if len(calls) == at + 1:
            if after:
                real(store, *args, **options)
            raise KeyboardInterrupt
        return real(store, *args, **options)

    shutil.rmtree(corpus.path / "registry" / "records")
    with monkeypatch.context() as patch:
        patch.setattr(Folder, name, die)
        with pytest.raises(KeyboardInterrupt):
            rebuild(corpus.path)
    opened = rebuild(corpus.path).corpus
    assert rows(opened) == before
    assert opened.holdouts() == [SLAB]
    assert verify(opened, deep=True) == []


def test_holdouts_of_records_that_are_gone_go_too(corpus):
    """A holdout of a record that could not be made again is not carried over."""
    corpus.add_holdouts([Holdout("other", "b.txt", ((0, 2),))])
    last = corpus.entries.named("b.txt").header_start // corpus.shard
    corpus.store.delete([f"bytes/c/{last}"])
    assert rebuild(corpus.path).corpus.holdouts() == [SLAB]


@pytest.mark.parametrize("part", [0, 0.5, 1], ids=["start", "middle", "end"])
def test_a_damaged_byte_list_is_a_corpus_error(corpus, part):
    """A flipped bit in a shard: CorpusError, and the registry stays as it was."""
    shard = corpus.path / "bytes" / "c" / "0"
    raw = bytearray(shard.read_bytes())
    raw[min(int(part * len(raw)), len(raw) - 1)] ^= 4
    shard.write_bytes(raw)
    there = sorted(path.name for path in corpus.path.iterdir())
    with pytest.raises(CorpusError):
        rebuild(corpus.path)
    assert sorted(path.name for path in corpus.path.iterdir()) == there


def test_headers_that_lead_astray_are_a_corpus_error(corpus):
    """A preamble whose numbers are in no order is damage, however sound the shard is as a file."""
    data_ = corpus.read(0, corpus.shard).copy()
    at = data_.tobytes().index(b"payload=") + len(b"payload=")
    data_[at] = ord("9")
    corpus.store.put("bytes/c/0", shards.encode(data_, np.ones(corpus.shard >> 16, np.bool_)))
    with pytest.raises(CorpusError):
        rebuild(corpus.path)


def test_a_rebuilt_corpus_takes_records_and_holdouts(corpus):
    """Append, hold out, gc and rebuild again work on what a rebuild made."""
    shutil.rmtree(corpus.path / "registry")
    opened = rebuild(corpus.path).corpus
    append(opened, volume("c.npy", smooth((4, 5, 6))))
    opened.add_holdouts([SLAB])
    before = rows(opened)
    shutil.rmtree(opened.path / "registry" / "records")
    again = rebuild(corpus.path).corpus
    assert rows(again) == before
    assert again.holdouts() == [SLAB]
    assert verify(again, deep=True) == []


def test_an_empty_corpus_is_made_again(tmp_path):
    """No record yet and no registry any more: an empty registry, to which records can be added."""
    where = tmp_path / "corpus"
    Corpus.create(where, 32)
    shutil.rmtree(where / "registry")
    opened = rebuild(where).corpus
    assert len(opened.entries) == 0
    append(opened, text("a.txt", b"abc"))
    assert verify(opened, deep=True) == []
    assert Registry(opened.store).newest("records") == 1
