"""Racing writers: no address is handed out twice, nothing is lost, nothing is stored twice; each ends 0 or 4."""

from itertools import pairwise

import numpy as np
import pytest

from aunn_data.corpus import Corpus
from aunn_data.registry import Holdout
from aunn_data.store import Folder
from aunn_data.verify import verify
from tests.corpora import append, smooth, text, volume


@pytest.fixture
def folders(tmp_path):
    """Folders 0 … 7 of two texts and a scan each; in every one ``all.txt`` is the same file."""
    for number in range(8):
        folder = tmp_path / "sources" / str(number)
        folder.mkdir(parents=True)
        (folder / "all.txt").write_text("of all\n" * 40)
        (folder / f"{number}.txt").write_text(f"of {number}\n" * (number + 1))
        np.save(folder / f"{number}.npy", smooth((3, 4, 5), seed=number))
    return [tmp_path / "sources" / str(number) for number in range(8)]


def finish(racers, *commands):
    """Races the commands; those that end with a conflict once more, and then they must be done."""
    ended = racers.race(*commands)
    assert not any(e.raised for e in ended)
    assert {e.code for e in ended} <= {0, 4}, [e.err for e in ended]
    again = [command for e, command in zip(ended, commands, strict=True) if e.code == 4]
    for command in again:
        [e] = racers.race(command)
        assert e.code == 0, e.err


def assert_sound(where, folders):
    """Every file of the folders is one record with the file's bytes, and no shard is anybody else's."""
    corpus = Corpus.open(where)
    assert verify(corpus, deep=True) == []
    expected = {path.name: path.read_bytes() for folder in folders for path in folder.iterdir()}
    assert sorted(e.record for e in corpus.entries) == sorted(expected)
    for entry in corpus.entries:
        if entry.format == "text":
            assert corpus.elements(entry).tobytes() == expected[entry.record]
    assert all(before.stop <= after.start for before, after in pairwise(corpus.registry.reservations()))
    shards = {number for entry in corpus.entries for number in touched(corpus, entry)}
    assert set(corpus.shard_numbers("bytes")) == shards


def touched(corpus, entry):
    yield from range(entry.header_start // corpus.shard, (entry.header_start + entry.header_bytes) // corpus.shard + 1)
    yield from range(entry.payload_start // corpus.shard, (entry.payload_stop - 1) // corpus.shard + 1)


def test_eight_writers_of_different_and_identical_files(racers, folders, tmp_path):
    """Eight processes ingest into one corpus at once, each folder given to two: every file is there once, and sound."""
    where = tmp_path / "corpus"
    Corpus.create(where, 32)
    finish(racers, *(["ingest", folders[number // 2], "--corpus", where] for number in range(8)))
    assert_sound(where, folders[:4])


def test_eight_writers_make_the_corpus(racers, folders, tmp_path):
    """Eight processes ingest their own folders into a corpus that is not there yet: one is made, all are in it."""
    where = tmp_path / "corpus"
    finish(racers, *(["ingest", folder, "--corpus", where] for folder in folders))
    assert_sound(where, folders)


def test_creators_of_different_widths(racers, folders, tmp_path):
    """Of racing creators that ask for different widths one wins; both arrays have one shape and one size of shard."""
    for turn in range(3):
        where = tmp_path / f"corpus{turn}"
        commands = [["ingest", folders[n], "--corpus", where, "--address-bits", 30 + n // 2] for n in range(8)]
        ended = racers.race(*commands)
        assert {e.code for e in ended} <= {0, 2, 4}, [e.err for e in ended]  # 2: narrower than the corpus by then
        corpus = Corpus.open(where)
        assert (corpus._bytes.shape, corpus._bytes.shards) == (corpus._missing.shape, corpus._missing.shards)
        assert_sound(where, [folders[n] for n in range(8) if ended[n].code == 0])


def test_a_creator_of_another_width_in_between(tmp_path, monkeypatch):
    """A creator that is overtaken between its two arrays takes the other's width: marks lie beside their bytes."""
    put, where = Folder.put, tmp_path / "corpus"

    def overtaken(store, key, data, new=False):
        if key == "missing/zarr.json":
            monkeypatch.setattr(Folder, "put", put)
            Corpus.create(where, 30)
        return put(store, key, data, new)

    monkeypatch.setattr(Folder, "put", overtaken)
    corpus = Corpus.create(where, 38)
    scan = smooth((20, 30, 40))
    append(corpus, text("a.txt", b"abc"))
    append(corpus, volume("b.npy", scan, missing=scan > 700))
    opened = Corpus.open(where)
    assert opened._bytes.shards == opened._missing.shards
    assert (opened.missing(opened.entries.named("b.npy")) == (scan > 700)).all()
    assert verify(opened, deep=True) == []


def test_eight_holdouts_at_once(racers, tmp_path):
    """Eight processes hold out four regions, each region twice: four are held out, each once, and nobody is refused."""
    where = tmp_path / "corpus"
    append(Corpus.create(where, 32), volume("a.npy", smooth((8, 5, 6))))
    finish(
        racers,
        *(
            ["holdout", "slabs", "--record", "a.npy", "--region", f"z={n // 2}", "--corpus", where, "--json"]
            for n in range(8)
        ),
    )
    slabs = [Holdout("slabs", "a.npy", ((n, n + 1), (0, 5), (0, 6))) for n in range(4)]
    assert Corpus.open(where).holdouts() == slabs


def test_readers_and_a_collector_beside_writers(racers, folders, tmp_path):
    """Three ingest, one widens, gc takes every unfinished batch: readers see whole versions, nothing is lost."""
    where = tmp_path / "corpus"
    append(Corpus.create(where, 32), volume("a.npy", smooth((8, 5, 6))))
    finish(
        racers,
        ["ingest", folders[0], "--corpus", where],
        ["gc", "--older-than", "0s", "--corpus", where],
        ["ingest", folders[1], "--corpus", where],
        ["verify", "--deep", "--corpus", where],
        ["ingest", folders[0], folders[2] / "2.txt", "--corpus", where, "--address-bits", 34],
        ["ls", "--corpus", where],
        ["gc", "--older-than", "0s", "--corpus", where],
        ["sql", "SELECT count(*) FROM records", "--corpus", where],
    )
    corpus = Corpus.open(where)
    expected = {"a.npy", "all.txt", "0.txt", "0.npy", "1.txt", "1.npy", "2.txt"}
    assert {e.record for e in corpus.entries} == expected
    assert len(corpus.entries) == len(expected)
    assert corpus.address_bits == 34
    assert verify(corpus, deep=True) == []


def test_a_batch_that_is_begun_while_verify_looks_is_no_fault(tmp_path, monkeypatch):
    """Shards laid down after the list of batches was read are not shards that nobody was given."""
    corpus = Corpus.create(tmp_path / "corpus", 32)
    append(corpus, volume("a.npy", smooth((8, 5, 6))))
    read = corpus.registry.reservations

    def read_just_before_a_writer():
        found = read()
        append(Corpus.open(corpus.path), volume("b.npy", smooth((8, 5, 7))))
        return found

    monkeypatch.setattr(corpus.registry, "reservations", read_just_before_a_writer)
    assert verify(corpus, deep=True) == []
