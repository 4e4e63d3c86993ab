"""Versions of a corpus and its width: what is appended or widened later changes nothing that was there."""

import json
import os
import signal
import threading

import pytest

from aunn_data.corpus import Corpus
from aunn_data.errors import RequestError
from aunn_data.rebuild import rebuild
from aunn_data.registry import Holdout
from aunn_data.store import Folder
from aunn_data.verify import verify
from aunn_model import checkpoint
from aunn_model.training import Settings, train
from pipelines import runs
from pipelines.cli.data import main as data
from pipelines.cli.model import main as model
from pipelines.train import train_run
from tests.commands import run, run_json
from tests.corpora import append, smooth, text, volume

SMALL = Settings(width=16, layers=2, batch=64, steps=6, warmup=2, precision="float32")
TOML = 'width = 16\nlayers = 2\nbatch = 64\nprecision = "float32"\n'


@pytest.fixture
def corpus(tmp_path, monkeypatch):
    """Version 1 of a corpus: a text and a scan, a slab of which is held out."""
    monkeypatch.chdir(tmp_path)
    corpus = Corpus.create(tmp_path / "corpus", 28)
    append(corpus, text("a.txt", b"To be, or not to be\n" * 9), volume("a.npy", smooth((6, 9, 10))))
    corpus.add_holdouts([Holdout("slab", "a.npy", ((2, 4), (0, 9), (0, 10)))])
    return corpus


@pytest.fixture
def new(tmp_path):
    """A file to append."""
    path = tmp_path / "new.txt"
    path.write_text("new\n" * 30)
    return path


def grow(corpus):
    """Version 2."""
    append(corpus, text("later.txt", b"later"), volume("later.npy", smooth((3, 4, 5), seed=1)))


# ---- --version -------------------------------------------------------------------------------------------------------


def test_every_verb_reads_the_older_version(corpus, tmp_path):
    """ls, sql, export and verify with --version 1 know nothing of what was appended later."""
    before = run_json(data, "ls")
    grow(corpus)
    assert run_json(data, "ls", "--version", 1) == before
    assert len(run_json(data, "ls")["records"]) == 4
    found = run_json(data, "sql", "SELECT count(*) AS n FROM records", "--version", 1)
    assert found["rows"] == [{"n": 2}]
    files = run_json(data, "export", "--version", 1, "--out", tmp_path / "back")["files"]
    assert {f["record"] for f in files} == {"a.txt", "a.npy"}
    assert run_json(data, "verify", "--version", 1, "--deep")["records"] == 2


def test_an_older_version_has_the_same_bytes(corpus):
    """Rows, elements and bytes of version 1 are those it had, after three more batches."""
    before = [(e.row(), corpus.elements(e).tobytes()) for e in corpus.entries]
    stop = corpus.entries[1].stop
    bytes_ = corpus.read(0, stop)
    for number in range(3):
        append(corpus, text(f"{number}.txt", b"more"))
    opened = Corpus.open(corpus.path, 1)
    assert [(e.row(), opened.elements(e).tobytes()) for e in opened.entries] == before
    assert (opened.read(0, stop) == bytes_).all()


@pytest.mark.parametrize("version", [-1, 3, 10**30])
def test_a_version_that_is_not_there_is_exit_2(corpus, version):
    """One line that says which versions there are."""
    grow(corpus)
    for verb in (["ls"], ["verify"], ["export"], ["sql", "SELECT 1"]):
        code, out, err = run(data, *verb, f"--version={version}")
        assert (code, out) == (2, ""), verb
        assert "0 to 2" in err


# ---- a run and its version -------------------------------------------------------------------------------------------


def test_a_run_says_which_version_it_used(corpus, tmp_path):
    """run.json and --json of train name the version; after the corpus has grown, evaluate still judges by it."""
    (tmp_path / "run.toml").write_text(TOML)
    found = run_json(model, "train", "--out", "run", "--config", "run.toml", "--steps", 5)
    assert found["version"] == 1
    assert runs.Run.read(tmp_path / "run").version == 1
    before = run_json(model, "evaluate", "run", "--holdout", "slab")
    grow(corpus)
    assert run_json(model, "evaluate", "run", "--holdout", "slab") == before
    assert runs.Run.read(tmp_path / "run").open_corpus().version == 1


def test_a_run_on_another_version_must_be_told_so(corpus, tmp_path):
    """Going on with a run after the corpus has grown is refused with the --version that goes on, which then does."""
    (tmp_path / "run.toml").write_text(TOML)
    command = ["train", "--out", "run", "--config", "run.toml", "--steps", 5]
    run_json(model, *command)
    grow(corpus)
    code, _, err = run(model, *command)
    assert code == 2
    assert "corpus version" in err
    assert "--version 1" in err
    assert run_json(model, *command, "--version", 1)["resumed_at"] == 5


def test_a_run_can_begin_on_an_older_version(corpus, tmp_path):
    """train --version 1 on a grown corpus gives the weights that version 1 gave."""
    train_run(corpus, tmp_path / "then", SMALL)
    grow(corpus)
    train_run(Corpus.open(corpus.path, 1), tmp_path / "now", SMALL)
    assert weights(tmp_path / "then") == weights(tmp_path / "now")


def stop_at(corpus, folder, step):
    """Trains as far as this step and leaves a checkpoint there, as Ctrl-C does."""

    def interrupt(metrics):
        if metrics.step == step:
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pipelines.train.train", lambda *args, every: train(*args, report_every=0, every=every))
        with pytest.raises(KeyboardInterrupt):
            train_run(corpus, folder, SMALL, on_metrics=interrupt)


def weights(folder):
    return (checkpoint.found(folder)[-1] / "network.safetensors").read_bytes()


# ---- width -----------------------------------------------------------------------------------------------------------


def test_widening_moves_no_byte(corpus, new):
    """ingest --address-bits 40: every shard that was there is the same file; old records and bytes read the same."""
    shards = {path: path.read_bytes() for path in (corpus.path / "bytes").glob("c/*")}
    before = [(e.row(), corpus.elements(e).tobytes()) for e in corpus.entries]
    assert run(data, "ingest", new, "--address-bits", 40)[0] == 0
    opened = Corpus.open(corpus.path)
    assert (opened.address_bits, opened.shard) == (40, corpus.shard)
    assert {path: path.read_bytes() for path in shards} == shards
    assert [(e.row(), opened.elements(e).tobytes()) for e in opened.entries if e.record != "new.txt"] == before
    assert opened.read(2**40 - 3, 2**40).tolist() == [0, 0, 0]
    assert verify(opened, deep=True) == []
    assert run_json(data, "info")["address_bits"] == 40


def test_a_full_corpus_takes_more_once_it_is_wider(corpus, new):
    """What had no room is refused with the way out, and the way out works."""
    corpus.registry.reserve(lambda start: corpus.size)
    code, _, err = run(data, "ingest", new)
    assert code == 1
    assert "--address-bits" in err
    assert run(data, "ingest", new, "--address-bits", 29)[0] == 0
    opened = Corpus.open(corpus.path)
    assert opened.entries.named("new.txt").header_start == 2**28
    assert verify(opened, deep=True) == []


@pytest.mark.parametrize("bits", [27, 20, 64, 0])
def test_a_narrower_or_wider_one_than_there_can_be_is_refused(corpus, new, bits):
    """Fewer bits than the corpus has, and more than 63: exit 2, nothing changed."""
    code, _, err = run(data, "ingest", new, "--address-bits", bits)
    assert code == 2
    assert "--address-bits" in err
    assert Corpus.open(corpus.path).address_bits == 28
    assert len(Corpus.open(corpus.path).entries) == 2


def test_the_same_width_is_no_change(corpus, new):
    """--address-bits as the corpus has it: no zarr.json is written."""
    before = {path: path.stat().st_mtime_ns for path in corpus.path.rglob("zarr.json")}
    assert run(data, "ingest", new, "--address-bits", 28)[0] == 0
    assert {path: path.stat().st_mtime_ns for path in corpus.path.rglob("zarr.json")} == before


def test_old_versions_read_in_a_wider_corpus(corpus, new):
    """--version 1 after widening and appending: the records, elements and marks it had."""
    before = [(e.row(), corpus.elements(e).tobytes()) for e in corpus.entries]
    run(data, "ingest", new, "--address-bits", 50)
    opened = Corpus.open(corpus.path, 1)
    assert [(e.row(), opened.elements(e).tobytes()) for e in opened.entries] == before
    assert verify(opened) == []


def test_a_corpus_opened_before_the_widening_goes_on(corpus):
    """A reader and a writer that opened the narrower corpus read and append as before."""
    other = Corpus.open(corpus.path)
    corpus.widen(40)
    [entry] = append(other, text("b.txt", b"abc"))
    assert other.elements(entry).tobytes() == b"abc"
    assert verify(Corpus.open(corpus.path), deep=True) == []


@pytest.mark.parametrize("at", range(3))
def test_a_widening_killed_in_between_can_be_repeated(corpus, monkeypatch, at):
    """Killed before any of the three files: the corpus opens with one width or the other; again, it is the new one."""
    put, calls = Folder.put, []

    def die(store, key, *args):
        calls.append(key)
        if len(calls) == at + 1:
            raise KeyboardInterrupt
        return put(store, key, *args)

    with monkeypatch.context() as patch:
        patch.setattr(Folder, "put", die)
        with pytest.raises(KeyboardInterrupt):
            corpus.widen(40)
    opened = Corpus.open(corpus.path)
    assert opened.address_bits in (28, 40)
    assert verify(opened, deep=True) == []
    wide = opened.widen(40)
    assert wide.address_bits == 40
    assert json.loads((corpus.path / "zarr.json").read_text())["attributes"]["address_bits"] == 40


def test_widening_beside_writers_loses_nothing(corpus):
    """Two threads append while a third widens, again and again: every record is there, both arrays have one shape."""
    errors = []

    def appending(name):
        try:
            for number in range(4):
                append(Corpus.open(corpus.path), text(f"{name}{number}.txt", b"abc"))
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=appending, args=(name,)) for name in "xy"]
    for thread in threads:
        thread.start()
    for bits in range(29, 37):
        Corpus.open(corpus.path).widen(bits)
    for thread in threads:
        thread.join()
    opened = Corpus.open(corpus.path)
    assert errors == []
    assert (len(opened.entries), opened.address_bits) == (10, 36)
    assert opened._bytes.shape == opened._missing.shape
    assert verify(opened, deep=True) == []


def test_a_run_of_the_narrower_corpus_goes_on(corpus, tmp_path):
    """After widening a run is judged as before, and resumes with the weights it would have had."""
    train_run(corpus, tmp_path / "whole", SMALL)
    stop_at(corpus, tmp_path / "stopped", 3)
    before = run_json(model, "evaluate", "whole", "--holdout", "slab")
    corpus.widen(40)
    assert run_json(model, "evaluate", "whole", "--holdout", "slab") == before
    wide = Corpus.open(corpus.path)
    assert train_run(wide, tmp_path / "whole", SMALL).resumed_at == 6
    assert train_run(wide, tmp_path / "stopped", SMALL).resumed_at == 3
    assert weights(tmp_path / "stopped") == weights(tmp_path / "whole")


def test_a_run_of_a_wider_corpus_is_refused(tmp_path):
    """A run whose addresses the corpus named with --corpus does not have: exit 2, though the records are the same."""
    narrow, wide = Corpus.create(tmp_path / "narrow", 38), Corpus.create(tmp_path / "wide", 40)
    for made in (narrow, wide):
        append(made, text("a.txt", b"To be"), volume("a.npy", smooth((6, 9, 10))))
    train_run(wide, tmp_path / "run", SMALL)
    with pytest.raises(RequestError, match="40"):
        runs.Run.read(tmp_path / "run").open_corpus(narrow.name)


def test_a_run_finds_its_records_under_another_version(corpus, tmp_path):
    """After the registry was made again, or gc committed, the same records may have another number: the run goes on."""
    append(corpus, text("more.txt", b"words"))
    done = train_run(corpus, tmp_path / "run", SMALL)
    rebuild(corpus.name)
    again = runs.Run.read(tmp_path / "run").open_corpus()
    assert again.version != done.run.version
    assert list(again.entries) == list(corpus.entries)
    assert train_run(again, tmp_path / "run", SMALL).resumed_at == SMALL.steps
    append(again, text("other.txt", b"words"))
    rebuild(corpus.name)
    with pytest.raises(RequestError):
        runs.Run.read(tmp_path / "run").open_corpus()
