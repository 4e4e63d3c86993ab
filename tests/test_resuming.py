"""A long benchmark that is killed goes on: the same figures, no part twice, and none of other arguments."""

import json
import sys
from dataclasses import replace
from functools import cache
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from aunn_data.corpus import Corpus
from aunn_model import checkpoint
from aunn_model.training import Settings
from benchmarks import new_scan, resuming
from benchmarks.resuming import NOWHERE, Training, Work, trained
from pipelines import runs
from pipelines.batches import Batches
from tests import faults
from tests.corpora import append, smooth, text
from tests.faults import Fault, why_not

# The benchmarks as they are, but small; a second is a step, and all steps are saved.
STEPPED = """
import functools, sys
from dataclasses import replace
from benchmarks import resuming
resuming.SAVE_SECONDS, resuming.pace, resuming.best_precision = 0.0, lambda *_: 0.5, lambda *_: "float32"
resuming.Training.seconds = property(lambda self: float(self.state.step))
resuming.train = functools.partial(resuming.train, report_every=0)
"""
SMALL = {
    "toy": """
from benchmarks import toy, toy_asked
original, compare = toy.original, toy.compare
toy.train, toy.original = functools.partial(toy.train, report_every=0), lambda: original(16, 2)
toy.OURS = replace(toy.OURS, width=16, codes=32, batch=100)
toy.compare = functools.partial(compare, trials=3, span=40)
sys.argv[1:1] = ["--triplets", "100", "--epochs", "3", "--json"]
toy.main()
""",
    "shakespeare": """
from benchmarks import shakespeare
shakespeare.TELLINGS = (("sgd", 0.01, "exit"), ("adamw", 0.001, ""))
shakespeare.NETWORKS = {name: {"width": 16, "layers": 1, "batch": 64, "order": name} for name in ("serial", "windows")}
text = ["--text", "LICENSE", "--only", "serial;windows;peers", "--tail", "300", "--windows", "64,8"]
shakespeare.TRANSFORMERS = ()
shakespeare.main([*text, "--seconds", "10", "--json", *sys.argv[1:]])
""",
}
SMALL["mnist"] = """
import pathlib, tempfile
import numpy as np
from benchmarks import mnist, mnist_digits
small = {"width": 8, "layers": 1, "batch": 64}
mnist.OURS, mnist.ORIGINAL = replace(mnist.OURS, **small), replace(mnist.ORIGINAL, **small)
mnist.TOGETHER, mnist.time = 16, type("Stopped", (), {"process_time": lambda: 0.0})
mnist.classifier = lambda *_: 0.0
with tempfile.TemporaryDirectory() as data:
    digits, random = pathlib.Path(data) / "images" / "mnist", np.random.default_rng(0)
    digits.mkdir(parents=True)
    for part in ("train", "t10k"):
        labels = random.integers(0, 2, 60, np.uint8)
        (digits / f"{part}-{mnist_digits.LABELS}").write_bytes(mnist_digits.idx(labels))
        images = labels[:, None, None] * random.integers(0, 256, (60, 4, 4), np.uint8)
        (digits / f"{part}-{mnist_digits.IMAGES}").write_bytes(mnist_digits.idx(images))
    words = ["--data", data, "--numbers", "20,40", "--unseen", "30", "--steps", "8", "--json"]
    sys.argv[1:1] = words
    mnist.main()
"""
STRUCK = [("mnist", 0.4), ("toy", 0.3), ("toy", 0.8), ("shakespeare", 0.7)]


def benchmark(name, work, fault=None, *words):
    """The small benchmark in a process of its own; its outcome."""
    work.mkdir(exist_ok=True)
    command = [sys.executable, "-c", STEPPED + SMALL[name], "--work", str(work), *words]
    return faults.run(command, [work], fault, cwd=faults.ROOT)


@pytest.fixture(scope="module")
def unharmed(tmp_path_factory):
    """name -> the small benchmark as nothing strikes it, and its folder; made when it is first asked for."""

    def run(name):
        done = benchmark(name, work := tmp_path_factory.mktemp(name))
        assert done.returncode == 0, done.stderr
        return done, work

    return cache(run)


def parts(work):
    """The parts at the top that are over, and when each was written."""
    return {path.name: path.stat().st_mtime_ns for path in work.glob("*-*.json")}


@pytest.mark.skipif(why_not() is not None, reason=str(why_not()))
@pytest.mark.parametrize(("name", "share"), STRUCK)
def test_killed_and_begun_again_a_benchmark_finds_what_it_would_have_found(unharmed, tmp_path, name, share):
    """Struck dead at some write: the same command goes on from saved weights, measures no part twice, prints the same
    document."""
    done, _ = unharmed(name)
    struck = benchmark(name, tmp_path / "work", Fault("kill", int(share * done.calls)))
    assert struck.struck
    before = parts(tmp_path / "work")
    again = benchmark(name, tmp_path / "work")
    assert again.returncode == 0, again.stderr
    assert json.loads(again.stdout) == json.loads(done.stdout)
    assert "goes on at step" in again.stderr
    assert before.items() <= parts(tmp_path / "work").items()


@pytest.mark.skipif(why_not() is not None, reason=str(why_not()))
@pytest.mark.parametrize("name", SMALL)
def test_parts_of_another_seed_are_others(unharmed, name):
    """In the same folder nothing is known of them but the precision, and what was measured before stays."""
    done, work = unharmed(name)
    before = parts(work)
    other = benchmark(name, work, None, "--seed", "1")
    assert other.returncode == 0, other.stderr
    assert json.loads(other.stdout) != json.loads(done.stdout)
    known = [line.split(" is known")[0] for line in other.stderr.splitlines() if "is known from" in line]
    assert {*known} <= {"precision"}
    assert before.items() < parts(work).items()


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    corpus = Corpus.create(tmp_path_factory.mktemp("some") / "corpus", address_bits=32)
    append(corpus, text("b.txt", b"To be, or not to be, that is the question\n" * 5))
    return corpus


@pytest.fixture
def learn(corpus):
    """Trains a few steps in a Work; (weights, seconds)."""
    settings = Settings(width=16, layers=1, batch=32, steps=9, precision="float32", checks=0.0)

    def learn(work, **other):
        state, seconds = trained(
            corpus, replace(settings, **other), 0.0, lambda s: Batches(corpus, s, torch.device("cpu")), work
        )
        return torch.cat([weight.flatten() for weight in state.best.parameters()]), seconds

    return learn


def test_what_is_over_is_loaded_and_took_as_long_as_it_took(tmp_path, learn):
    """The weights, bit for bit those of a training that nobody saved, and the seconds of the first time."""
    first, again = learn(Work(tmp_path)), learn(Work(tmp_path))
    assert torch.equal(first[0], again[0])
    assert torch.equal(first[0], learn(NOWHERE)[0])
    assert first[1] == again[1]


def test_seconds_before_a_kill_are_counted_on(tmp_path, corpus, monkeypatch):
    """A training that was saved after so many seconds goes on counting there; its notes are as they were saved."""
    state = runs.fresh(corpus, Settings(width=8, layers=1, steps=1, precision="float32"))
    clock = SimpleNamespace(now=10.0)
    monkeypatch.setattr(resuming, "time", SimpleNamespace(process_time=lambda: clock.now))
    first = Training(Work(tmp_path), state, seen=[])
    first.notes["seen"].append(1)
    clock.now += resuming.SAVE_SECONDS - 1
    first.save()  # too soon
    assert not checkpoint.found(tmp_path)
    clock.now += 2
    first.save()
    clock.now = 1000.0
    again = Training(Work(tmp_path), state, seen=[])
    assert (again.notes, again.over) == ({"seen": [1]}, False)
    clock.now += 3
    assert again.seconds == again.end() == resuming.SAVE_SECONDS + 1 + 3


def test_a_part_is_computed_once_for_each_key(tmp_path):
    """Another key is another part, a key of the same content the same; what it finds comes back as JSON has it."""
    calls = []

    def compute(work):
        calls.append(work.folder.name)
        return {"figures": (1, 2.5)}

    work = Work(tmp_path)
    for key in ({"a": 1, "b": 2}, {"b": 2, "a": 1}, {"a": 1, "b": 3}):
        assert work.part("a row, of 3", key, compute) == {"figures": [1, 2.5]}
    assert len(calls) == len(set(calls)) == 2
    assert all(name.startswith("a-row-of-3-") for name in calls)


def test_a_part_that_fails_is_not_kept(tmp_path):
    """No file says that it is over."""
    with pytest.raises(ZeroDivisionError):
        Work(tmp_path).part("a row", 0, lambda work: {"found": 1 / 0})
    assert list(tmp_path.iterdir()) == []


def test_of_a_new_scan_what_is_over_is_known_and_a_run_that_is_there_is_finished(tmp_path, monkeypatch):
    """Killed while it tells: the run of the known scan takes no step again, and the other way is not measured twice."""
    for number in (1, 2):
        np.save(tmp_path / f"{number}.npy", smooth((8, 18, 20), seed=number))
    settings = Settings(width=16, layers=2, batch=64, precision="float32")
    words = tmp_path / "work", tmp_path / "1.npy", tmp_path / "2.npy", settings, 0.3, 0.3
    first, runs = new_scan.compared(*words), []
    next((tmp_path / "work").glob("told-*.json")).unlink()

    def train_run(*words):
        runs.append(done := real(*words))
        return done

    real = new_scan.train_run
    monkeypatch.setattr(new_scan, "train_run", train_run)
    again = new_scan.compared(*words)
    assert [done.resumed_at == done.state.step > 0 for done in runs] == [True]
    assert again["alone"] == first["alone"]
    assert again["told"]["best_fill_db"] == first["told"]["best_fill_db"]
