"""Ingest: a fixed order, batches, and a kill at any moment that loses nothing."""

import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from aunn_data.corpus import Corpus
from aunn_data.errors import InputError
from aunn_data.verify import verify
from pipelines import ingest as flow
from pipelines.export import export
from pipelines.ingest import ingest, walk
from pipelines.options import Options


@pytest.fixture
def folder(tmp_path):
    """Forty small files of three kinds in nested folders."""
    made = tmp_path / "folder"
    rng = np.random.default_rng(0)
    for number in range(20):
        (made / str(number % 3)).mkdir(parents=True, exist_ok=True)
        (made / str(number % 3) / f"{number}.txt").write_text(f"text {number}\n" * 50)
        np.save(made / str(number % 3) / f"{number}.npy", rng.integers(0, 900, (5, 6, 7)).astype("<i2"))
    return made


def names(corpus):
    return [entry.record for entry in corpus.entries]


def test_the_walk_is_in_a_fixed_order(folder, tmp_path):
    """Folders and files come sorted by name, named by their path below the folder, with the prefix before it."""
    found = [source.name for source in walk([folder], tmp_path / "corpus", Options(prefix="p/"))]
    assert found == sorted(found, key=lambda name: name.split("/"))
    assert len(found) == 40
    assert all(name.startswith("p/") for name in found)


def test_the_same_folder_gives_the_same_bytes(folder, tmp_path):
    """Two corpora of one folder agree in every address and every byte."""
    corpora = [Corpus.create(tmp_path / name, 32) for name in ("a", "b")]
    for corpus in corpora:
        ingest([folder], corpus)
    rows = [[e.row() for e in corpus.entries] for corpus in corpora]
    assert rows[0] == rows[1]
    stop = rows[0][-1]["stop"]
    assert (corpora[0].read(0, stop) == corpora[1].read(0, stop)).all()


def test_many_records_are_committed_in_batches(folder, tmp_path, monkeypatch):
    """Batches are bounded in records and in memory; each is one version; nothing is lost between them."""
    monkeypatch.setattr(flow, "BATCH_RECORDS", 7)
    corpus = Corpus.create(tmp_path / "corpus", 32)
    report = ingest([folder], corpus)
    assert len(report.ingested) == len(corpus.entries) == 40
    assert corpus.version == 6


def test_a_record_that_fails_while_it_is_written_does_not_take_others_with_it(folder, tmp_path, monkeypatch):
    """An InputError in the middle of a batch refuses that record alone."""
    real = Corpus.append

    def failing(self, records, *args):
        if any(r.header.record == "1/4.txt" for r in records):
            raise InputError("1/4.txt", expected="readable bytes", found="a hole", remedy="restore it")
        return real(self, records, *args)

    monkeypatch.setattr(Corpus, "append", failing)
    corpus = Corpus.create(tmp_path / "corpus", 32)
    report = ingest([folder], corpus)
    assert [str(path.name) for path, _ in report.refused] == ["4.txt"]
    assert len(corpus.entries) == 39
    assert verify(corpus) == []


@pytest.mark.parametrize("seed", range(4))
def test_killed_at_any_moment_the_same_command_finishes(folder, tmp_path, seed):
    """kill -9 while `aunn-data ingest` runs: the corpus opens clean, the same command again completes it."""
    command = [sys.executable, "-m", "pipelines.cli.data", "ingest", str(folder), "--corpus", str(tmp_path / "corpus")]
    script = "import pipelines.ingest as i, runpy, sys; i.BATCH_RECORDS = 3; sys.argv = sys.argv[1:]; "
    script += "runpy.run_module('pipelines.cli.data', run_name='__main__')"
    slow = [sys.executable, "-c", script, "aunn-data", *command[3:]]
    process = subprocess.Popen(slow, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    commits = tmp_path / "corpus" / "registry" / "records" / "_delta_log"
    wanted = 1 + 2 * seed  # killed once so many versions are there, at a moment of the disk's choosing
    deadline = time.monotonic() + 60
    while process.poll() is None and time.monotonic() < deadline:
        if commits.exists() and len(list(commits.glob("*.json"))) > wanted:
            break
        time.sleep(0.003)
    process.send_signal(signal.SIGKILL)
    process.wait()
    opened = Corpus.open(tmp_path / "corpus")
    assert verify(opened) == []
    before = names(opened)
    assert subprocess.run([*command, "--quiet"], check=False, env={**os.environ}).returncode == 0
    opened = Corpus.open(tmp_path / "corpus")
    assert set(before) <= set(names(opened))
    assert len(opened.entries) == 40
    assert verify(opened) == []
    done = export(opened, list(opened.entries), tmp_path / "back")
    for entry, path in done.files:
        assert path.read_bytes() == (folder / entry.record).read_bytes()


def test_texts_are_padded_only_if_that_is_asked_for(tmp_path):
    """By default packed; padded, a text begins at a power of two and comes back byte for byte; Morton has no order."""
    (tmp_path / "a.txt").write_text("To be, or not to be\n" * 99)
    layouts = {}
    for layout in (None, "padded", "morton"):
        corpus = Corpus.create(tmp_path / str(layout), 32)
        ingest([tmp_path / "a.txt"], corpus, Options(layout=layout))
        entry = corpus.entries.named("a.txt")
        layouts[layout] = entry.layout
        export(corpus, [entry], tmp_path / f"out-{layout}")
        assert (tmp_path / f"out-{layout}" / "a.txt").read_text() == "To be, or not to be\n" * 99
        assert verify(corpus) == []
        if layout == "padded":
            assert entry.payload_start % 2048 == 0
    assert layouts == {None: "packed", "padded": "padded", "morton": "packed"}
