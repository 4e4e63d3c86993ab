"""Training: exact, resumable, blind to what is held out."""

import json
import math
import os
import signal

import numpy as np
import pytest
import torch
import zarr
from safetensors.torch import load_file

from aunn_data.corpus import Corpus
from aunn_data.errors import CorpusError, RequestError
from aunn_data.registry import Holdout
from aunn_model import checkpoint
from aunn_model.training import Settings, schedule, train
from pipelines import runs
from pipelines.batches import Batches
from pipelines.train import read_settings, train_run
from tests.corpora import append, smooth, text, volume

SMALL = Settings(width=32, layers=4, batch=128, steps=24, warmup=4, precision="float32")
HELD = Holdout("slab", "a.npy", ((2, 4), (0, 9), (0, 10)))


def make(folder, scan):
    corpus = Corpus.create(folder, address_bits=32)
    append(corpus, volume("a.npy", scan), text("b.txt", b"To be, or not to be\n" * 9))
    corpus.add_holdouts([HELD])
    return corpus


@pytest.fixture
def corpus(tmp_path):
    return make(tmp_path / "corpus", smooth((6, 9, 10)))


def weights(run):
    return load_file(checkpoint.found(run)[-1] / "network.safetensors")


def assert_equal(a, b):
    assert a.keys() == b.keys()
    for name in a:
        assert torch.equal(a[name], b[name]), name


@pytest.mark.parametrize("precision", ["float32", "bf16"])
def test_a_stopped_run_resumes_exactly(corpus, tmp_path, precision):
    """Stopped by Ctrl-C and started again by the same command, a run ends with the very same weights."""
    settings = Settings(**{**SMALL.__dict__, "precision": precision})
    train_run(corpus, tmp_path / "whole", settings)

    def stop_at_ten(metrics):
        if metrics.step == 10:
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pipelines.train.train", lambda *args, every: train(*args, report_every=0, every=every))
        with pytest.raises(KeyboardInterrupt):
            train_run(corpus, tmp_path / "stopped", settings, on_metrics=stop_at_ten)
    assert checkpoint.found(tmp_path / "stopped")[-1].name == "checkpoint-000000010"
    resumed = train_run(corpus, tmp_path / "stopped", settings)
    assert resumed.resumed_at == 10
    assert_equal(weights(tmp_path / "whole"), weights(tmp_path / "stopped"))


def test_poisoned_held_out_bytes_change_nothing(corpus, tmp_path):
    """Held-out bytes overwritten in the store, the same seed trained again: identical weights, bit for bit."""
    train_run(corpus, tmp_path / "clean", SMALL)
    entry = corpus.entries.named("a.npy")
    array = zarr.open_group(corpus.path)["bytes"]
    for start, stop in entry.spans(HELD.region):
        array[start:stop] = 255 - array[start:stop]
    poisoned = Corpus.open(corpus.path)
    assert (poisoned.elements(entry) != smooth((6, 9, 10))).any()
    train_run(poisoned, tmp_path / "poisoned", SMALL)
    assert_equal(weights(tmp_path / "clean"), weights(tmp_path / "poisoned"))


def test_a_corpus_made_of_poisoned_files_trains_to_the_same_weights(corpus, tmp_path):
    """The header tells nothing of held-out values either: ingested anew with other ones, the weights are identical."""
    train_run(corpus, tmp_path / "clean", SMALL)
    scan = smooth((6, 9, 10))
    scan[2:4] = scan[2:4][::-1] // 2 + 7
    train_run(make(tmp_path / "other", scan), tmp_path / "poisoned", SMALL)
    assert_equal(weights(tmp_path / "clean"), weights(tmp_path / "poisoned"))


def test_a_trained_byte_does_change_the_weights(corpus, tmp_path):
    """The poisoning test can fail: the same change outside the holdout gives other weights."""
    train_run(corpus, tmp_path / "clean", SMALL)
    scan = smooth((6, 9, 10))
    scan[1, 3, 3] += 1
    train_run(make(tmp_path / "other", scan), tmp_path / "changed", SMALL)
    a, b = weights(tmp_path / "clean"), weights(tmp_path / "changed")
    assert any(not torch.equal(a[name], b[name]) for name in a)


def test_another_seed_gives_another_network(corpus, tmp_path):
    """The seed decides weights and batches."""
    for seed in (0, 1):
        train_run(corpus, tmp_path / str(seed), Settings(**{**SMALL.__dict__, "seed": seed}))
    assert not torch.equal(weights(tmp_path / "0")["exit.weight"], weights(tmp_path / "1")["exit.weight"])


def test_training_learns(corpus, tmp_path):
    """Bits per byte fall far below the 8 of ignorance, and below the bytes' own entropy."""
    done = train_run(corpus, tmp_path / "run", Settings(width=64, layers=4, batch=512, steps=300, precision="float32"))
    values = Batches(corpus, SMALL, torch.device("cpu")).bytes_N.numpy()
    share = np.bincount(values, minlength=256) / len(values)
    entropy = -sum(p * math.log2(p) for p in share if p)
    assert done.metrics.bits_per_byte < 0.5 * entropy
    lines = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    assert lines[-1]["step"] == 300


def test_seconds_are_planned_into_steps_and_kept(corpus, tmp_path):
    """--seconds becomes a number of steps before the first one, so that a resumed run has the same schedule."""
    settings = Settings(**{**SMALL.__dict__, "steps": 0})
    done = train_run(corpus, tmp_path / "run", settings, seconds=0.3)
    assert done.run.settings.steps == done.state.step >= 1
    again = train_run(corpus, tmp_path / "run", settings, seconds=0.3)
    assert again.resumed_at == again.state.step == done.state.step


@pytest.mark.parametrize("changed", [{"width": 48}, {"seed": 5}, {"steps": 30}])
def test_another_run_in_the_same_folder_is_refused(corpus, tmp_path, changed):
    """A folder holds one run: other settings are refused by name, and the run stays."""
    train_run(corpus, tmp_path / "run", SMALL)
    before = weights(tmp_path / "run")
    with pytest.raises(RequestError, match=next(iter(changed))):
        train_run(corpus, tmp_path / "run", Settings(**{**SMALL.__dict__, **changed}))
    assert_equal(before, weights(tmp_path / "run"))


def test_a_run_on_a_grown_corpus_is_refused(corpus, tmp_path):
    """A run belongs to a version of the corpus and its holdouts; it is not silently continued on another."""
    train_run(corpus, tmp_path / "run", SMALL)
    append(corpus, text("c.txt", b"new"))
    with pytest.raises(RequestError, match="corpus version"):
        train_run(corpus, tmp_path / "run", SMALL)


def test_a_checkpoint_is_there_whole_or_not_at_all(corpus, tmp_path, monkeypatch):
    """A writer that dies while it saves leaves the checkpoint before it in place, and the run loads from that."""
    train_run(corpus, tmp_path / "run", SMALL)
    state = runs.load(tmp_path / "run", corpus, runs.Run.read(tmp_path / "run"))
    state.step += 1

    def die(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("aunn_model.checkpoint.json.dumps", die)
    with pytest.raises(KeyboardInterrupt):
        checkpoint.save(tmp_path / "run", state)
    monkeypatch.undo()
    assert [path.name for path in checkpoint.found(tmp_path / "run")] == ["checkpoint-000000024"]
    assert runs.load(tmp_path / "run", corpus, runs.Run.read(tmp_path / "run")).step == 24


def test_a_damaged_checkpoint_is_one_clear_error(corpus, tmp_path):
    """A cut weights file is a CorpusError that names the checkpoint."""
    train_run(corpus, tmp_path / "run", SMALL)
    path = checkpoint.found(tmp_path / "run")[-1] / "network.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(CorpusError, match="checkpoint-000000024"):
        runs.load(tmp_path / "run", corpus, runs.Run.read(tmp_path / "run"))


def test_learning_rates_rise_and_fall():
    """The schedule rises over the warm-up, peaks at 1 and ends just above 0."""
    settings = Settings(steps=1000, warmup=50)
    values = [schedule(step, settings) for step in range(1000)]
    assert values[:50] == sorted(values[:50])
    assert max(values) == pytest.approx(1, abs=0.02)
    assert 0 < values[-1] < 0.01
    assert values[60:] == sorted(values[60:], reverse=True)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("widht = 3", "did you mean 'width'"),
        ('width = "3"', "expected int"),
        ("batch = 0", "above 0"),
        ('precision = "half"', "bf16"),
        ("width = ", "readable TOML"),
    ],
)
def test_a_misspelt_run_toml_is_refused_with_a_hint(tmp_path, line, said):
    """An unknown key, a value of another kind and broken TOML are RequestErrors that say what was meant."""
    path = tmp_path / "run.toml"
    path.write_text(line)
    with pytest.raises(RequestError, match=said):
        read_settings(path)


def test_the_command_line_stands_above_the_file(tmp_path):
    """--steps and --seed override run.toml; the rest of the file holds; an integer serves where a real is asked."""
    path = tmp_path / "run.toml"
    path.write_text("width = 99\nseed = 4\nmuon_lr = 1\n")
    settings = read_settings(path, steps=7, seed=None)
    assert (settings.width, settings.seed, settings.steps, settings.muon_lr) == (99, 4, 7, 1.0)
