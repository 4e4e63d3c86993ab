"""Ingest on a dask.distributed cluster: a scheduler and two workers, each a process of its own, on loopback."""

import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from click.testing import CliRunner

from aunn_data.corpus import Corpus
from aunn_data.outgoing import Outgoing
from aunn_data.verify import verify
from pipelines import parallel
from pipelines.cli.data import main
from pipelines.ingest import ingest
from pipelines.parallel import Workers


@pytest.fixture
def cluster(tmp_path):
    """(address, the two workers' processes)."""
    file = tmp_path / "scheduler.json"
    command = [sys.executable, "-m", "dask"]
    options = ["--scheduler-file", str(file), "--no-dashboard"]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "cwd": os.getcwd()}
    started = [subprocess.Popen([*command, "scheduler", "--host", "127.0.0.1", "--port", "0", *options], **quiet)]
    for _ in range(2):
        one = ["--nworkers", "1", "--nthreads", "1", "--no-nanny", "--local-directory", str(tmp_path)]
        started.append(subprocess.Popen([*command, "worker", *one, *options], **quiet))
    try:
        deadline = time.monotonic() + 60
        while not file.exists() and time.monotonic() < deadline:
            time.sleep(0.05)
        yield json.loads(file.read_text())["address"], started[1:]
    finally:
        for process in reversed(started):
            process.kill()
            process.wait()


@pytest.fixture
def heap(tmp_path):
    """Many small volumes."""
    home = tmp_path / "heap"
    home.mkdir()
    rng = np.random.default_rng(0)
    for number in range(300):
        np.save(home / f"{number}.npy", rng.integers(0, 9999, (8, 16, 16)).astype(np.int16))
    return home


def test_a_worker_killed_midway_costs_nothing(cluster, heap, tmp_path, monkeypatch):
    """One of two workers dies while ten-odd tasks are out: the corpus is the one that a single process makes."""
    monkeypatch.setattr(parallel, "TASK_SOURCES", 10)
    address, workers = cluster
    alone = Corpus.create(tmp_path / "alone", 34)
    ingest([heap], alone)
    real, seen = parallel._Ahead._answer, []

    def answer(self, job):
        seen.append(job)
        if len(seen) == 6:
            workers[0].send_signal(signal.SIGKILL)
        return real(self, job)

    monkeypatch.setattr(parallel._Ahead, "_answer", answer)
    corpus = Corpus.create(tmp_path / "corpus", 34)
    report = ingest([heap], corpus, workers=Workers(dask=address))
    assert report.refused == []
    assert workers[0].wait(10) == -signal.SIGKILL
    assert [e.row() for e in corpus.entries] == [e.row() for e in alone.entries]
    assert verify(corpus) == []


def test_a_big_volume_is_written_by_all_workers(cluster, tmp_path, monkeypatch):
    """Its shards are put down by the workers, from the file; the corpus is that of a single process."""
    monkeypatch.setattr(parallel, "FAR_BYTES", 1 << 20)
    monkeypatch.setattr(parallel, "TASK_BYTES", 1 << 20)
    values = np.random.default_rng(0).integers(0, 900, (64, 100, 256)).astype(np.int16)
    values[5:20] = 0
    np.save(tmp_path / "v.npy", values)
    alone, corpus = (Corpus.create(tmp_path / name, 24) for name in ("alone", "corpus"))
    ingest([tmp_path / "v.npy"], alone)
    here, real = [], Outgoing._store
    monkeypatch.setattr(Outgoing, "_store", lambda self, key, *rest: (here.append(key), real(self, key, *rest))[1])
    report = ingest([tmp_path / "v.npy"], corpus, workers=Workers(dask=cluster[0]))
    assert report.refused == []
    assert len(corpus.shard_numbers("bytes")) > 500
    assert len(here) < 3  # the header's
    assert [e.row() for e in corpus.entries] == [e.row() for e in alone.entries]
    assert (corpus.elements(corpus.entries[0]) == values).all()
    assert verify(corpus, deep=True) == []


def test_without_a_scheduler_there_the_error_says_what_to_start(tmp_path, monkeypatch):
    """Exit 2 and one line, not a wait without end."""
    monkeypatch.setattr(parallel, "CONNECT_SECONDS", 1)
    (tmp_path / "a.txt").write_text("text")
    command = ["ingest", str(tmp_path / "a.txt"), "--corpus", str(tmp_path / "corpus")]
    result = CliRunner().invoke(main, [*command, "--dask", "tcp://127.0.0.1:9"])
    assert result.exit_code == 2
    assert "dask scheduler" in result.output
