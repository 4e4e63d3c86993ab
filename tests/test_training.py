"""Training: exact, resumable, blind to what is held out."""

import functools
import json
import math
import os
import re
import signal
import subprocess
import sys
import tomllib
from dataclasses import asdict, replace

import numpy as np
import pytest
import torch
import zarr
from safetensors.torch import load_file
from torch.nn import functional

from aunn_data.corpus import Corpus
from aunn_data.errors import CorpusError, RequestError
from aunn_data.registry import Holdout
from aunn_model import checkpoint
from aunn_model.network import Network
from aunn_model.training import DivergedError, Settings, State, begin, schedule, step, train
from pipelines import runs
from pipelines.batches import Batches
from pipelines.checkup import Checkup
from pipelines.cli.model import main as model
from pipelines.metrics import Log, read_log
from pipelines.train import read_settings, train_run
from tests import faults
from tests.commands import run as command
from tests.commands import run_json
from tests.corpora import append, smooth, text, volume

PLAIN = Settings(precision="float32", fine_share=0.0, ema=0.0, checks=0.0)
SMALL = replace(PLAIN, width=32, layers=4, batch=128, steps=24, warmup=4)
HELD = Holdout("slab", "a.npy", ((2, 4), (0, 9), (0, 10)))


def make(folder, scan, held=HELD):
    corpus = Corpus.create(folder, address_bits=32)
    append(corpus, volume("a.npy", scan), text("b.txt", b"To be, or not to be\n" * 9))
    corpus.add_holdouts([held])
    return corpus


@pytest.fixture
def corpus(tmp_path):
    return make(tmp_path / "corpus", smooth((6, 9, 10)))


@pytest.fixture
def holed(tmp_path):
    """A corpus with a small hole, beside which there is room for checks."""
    return make(tmp_path / "holed", smooth((6, 9, 10)), Holdout("block", "a.npy", ((1, 3), (2, 5), (3, 5))))


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
    done = train_run(corpus, tmp_path / "run", replace(PLAIN, width=64, layers=4, batch=512, steps=300))
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


@pytest.mark.parametrize("kind", ["linear", "cosine", "wsd"])
def test_learning_rates_rise_and_fall(kind):
    """Every schedule rises over the warm-up, peaks at 1 and ends just above 0."""
    settings = Settings(steps=1000, warmup=50, schedule=kind)
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


def test_a_cosine_falls_as_a_cosine_and_wsd_is_flat_until_its_cooldown():
    """Half the way down a cosine is at a half; wsd stays at 1 until its last share, then falls in a line."""
    cosine = Settings(steps=1000, warmup=0, schedule="cosine")
    assert [schedule(s, cosine) for s in (0, 250, 500)] == pytest.approx([1, 0.5 + 0.5**1.5, 0.5])
    wsd = Settings(steps=1000, warmup=100, schedule="wsd", cooldown=0.2)
    assert [schedule(s, wsd) for s in (99, 300, 820)] == pytest.approx([100 / 101, 1, 1])
    assert [schedule(s, wsd) for s in (910, 955)] == pytest.approx([0.5, 0.25])


# ---- one step ----------------------------------------------------------------------------------------------------


class Flat(torch.nn.Module):
    """Two features: 1 and the address."""

    features = 2

    def forward(self, addresses_B):
        return torch.stack([torch.ones(len(addresses_B)), addresses_B.float()], 1)

    def quantities(self, addresses_B):
        return torch.zeros_like(addresses_B, dtype=torch.bool)


def tiny():
    torch.manual_seed(0)
    return Network(Flat(), width=8, layers=2)


BATCH = (torch.arange(16), torch.arange(16).to(torch.uint8))


def moved(network, before):
    return torch.cat([(b - a).flatten() for a, b in zip(before, network.parameters(), strict=True)]).detach()


@pytest.mark.parametrize(("gain", "longest"), [(1e6, 0.01), (1e6, 1.0)])
def test_a_gradient_is_clipped_to_its_largest_norm_before_the_optimiser_sees_it(gain, longest):
    """Of a huge gradient plain descent goes ``clip`` far, in its direction; without clipping further than 1,000."""
    steps = []
    for clip in (longest, 0.0):
        network = tiny()
        with torch.no_grad():
            network.exit.weight *= gain
        settings = replace(PLAIN, steps=1, warmup=0, sgd_lr=1.0, clip=clip)
        before = [weight.detach().clone() for weight in network.parameters()]
        step(State(network, {"sgd": torch.optim.SGD(network.parameters(), lr=1.0)}), settings, *BATCH)
        steps.append(moved(network, before).double())
    clipped, free = steps
    assert float(clipped.norm()) == pytest.approx(longest, rel=1e-2)
    assert float(free.norm()) > 1000
    assert float(functional.cosine_similarity(clipped, free, dim=0)) > 0.99


def test_averaged_weights_are_the_exponential_average_of_the_steps():
    """With a horizon of half the steps the average is, step by step, that of the weights as computed by hand."""
    network, settings = tiny(), replace(PLAIN, steps=20, warmup=2, ema=0.5)
    state, by_hand = begin(network, settings), None
    for _ in range(12):
        step(state, settings, *BATCH)
        now = network.exit.weight.detach().double()
        by_hand = now if by_hand is None else by_hand + (now - by_hand) / 10
    assert torch.allclose(state.best.exit.weight.double(), by_hand, atol=1e-5)
    assert not torch.allclose(state.best.exit.weight, network.exit.weight, atol=1e-3)


def test_without_averaging_the_network_itself_is_asked(corpus):
    """``best`` is the network where ema is 0, and the averaged one where it is not."""
    assert (plain := runs.fresh(corpus, SMALL)).best is plain.network
    averaged = runs.fresh(corpus, replace(SMALL, ema=0.2))
    assert averaged.best is not averaged.network


@pytest.mark.parametrize(
    "changed",
    [
        {"order": "windows", "window": 16, "ema": 0.3, "clip": 0.5},
        {"order": "annealed", "streams": 2, "repeats": 2, "schedule": "wsd"},
        {"order": "serial", "fine_share": 0.2, "schedule": "cosine", "optimizer": "adamw", "trunk": "plain"},
        {"features": "digits", "checks": 0.1},
    ],
    ids=lambda changed: " ".join(changed),
)
def test_every_order_and_schedule_resumes_exactly(holed, tmp_path, changed):
    """Stopped at step 5 and begun again, a run ends with the weights and averages of one that went through."""
    settings = replace(SMALL, steps=12, width=16, layers=2, **changed)
    train_run(holed, tmp_path / "whole", settings)
    with pytest.raises(KeyboardInterrupt):
        train_run(holed, tmp_path / "stopped", settings, on_metrics=stop_at(5))
    assert train_run(holed, tmp_path / "stopped", settings).resumed_at == 5
    assert_equal(weights(tmp_path / "whole"), weights(tmp_path / "stopped"))
    last = checkpoint.found(tmp_path / "whole")[-1].name
    for name in ("adamw", "average"):
        files = [tmp_path / run / last / f"{name}.safetensors" for run in ("whole", "stopped")]
        if files[0].exists():
            assert_equal(*map(load_file, files))


def stop_at(number):
    def on_metrics(metrics):
        if metrics.step == number:
            os.kill(os.getpid(), signal.SIGINT)

    return on_metrics


# ---- what goes wrong ---------------------------------------------------------------------------------------------


def spoil(monkeypatch, address):
    """The features of one address are no number from step 6 on."""
    forward, calls = Network.forward, []

    def spoiled(network, addresses_B):
        logits_BV = forward(network, addresses_B)
        calls.append(1)
        return torch.where(((addresses_B == address) & (len(calls) > 6))[:, None], torch.nan, logits_BV)

    monkeypatch.setattr(Network, "forward", spoiled)


def test_a_loss_that_is_no_number_names_step_addresses_and_record_and_breaks_nothing(corpus, tmp_path, monkeypatch):
    """One byte with a NaN: the error names it and its record, the weights stay as the step before left them."""
    address = corpus.entries.named("b.txt").payload_start + 7
    settings = replace(SMALL, batch=Batches(corpus, SMALL, torch.device("cpu")).size)  # every batch has that byte
    spoil(monkeypatch, address)
    seen = []
    monkeypatch.setattr("pipelines.train.CHECKPOINT_SECONDS", 0.0)
    monkeypatch.setattr("pipelines.train.train", functools.partial(train, report_every=0))
    with pytest.raises(RequestError, match=f"none at step 6, of its batch addresses {address}:{address + 1} .b.txt"):
        train_run(corpus, tmp_path / "run", settings, on_metrics=lambda metrics: seen.append(metrics.step))
    assert seen == [1, 2, 3, 4, 5, 6]
    assert checkpoint.found(tmp_path / "run")[-1].name == "checkpoint-000000006"
    assert all(bool(value.isfinite().all()) for value in weights(tmp_path / "run").values())


def test_a_step_that_diverges_leaves_the_weights_alone():
    """DivergedError comes before the optimisers: no weight has moved."""
    network, settings = tiny(), replace(PLAIN, steps=4)
    state = begin(network, settings)
    with torch.no_grad():
        network.exit.bias[3] = torch.inf
    before = [weight.detach().clone() for weight in network.parameters()]
    with pytest.raises(DivergedError, match="step 0, addresses 0 to 16"):
        step(state, settings, *BATCH)
    assert all(torch.equal(a, b) for a, b in zip(before, network.parameters(), strict=True))
    assert state.step == 0


def test_weights_that_are_no_numbers_are_never_saved(corpus, tmp_path):
    """Broken by the very last step, whose own loss was finite, the run ends with an error and no such checkpoint."""
    settings = replace(SMALL, steps=1, adam_lr=1e39)
    with pytest.raises(RequestError, match="lower muon_lr"):
        train_run(corpus, tmp_path / "run", settings)
    assert checkpoint.found(tmp_path / "run") == []


def test_divergence_at_the_command_line_is_exit_2_and_one_line(corpus, tmp_path):
    """aunn-model train with a learning rate far too high: exit 2, one line, what to do."""
    (tmp_path / "run.toml").write_text("adam_lr = 1e30\nwidth = 16\nlayers = 2\nbatch = 64\n")
    words = ("--corpus", corpus.path, "--out", tmp_path / "run", "--config", tmp_path / "run.toml", "--steps", 9)
    code, _, err = command(model, "train", *words, "--quiet")
    assert code == 2
    assert len(err.strip().splitlines()) == 1
    assert "a finite loss" in err
    assert "clip = 1" in err


# ---- checkpoints and the log -------------------------------------------------------------------------------------


def test_of_checkpoints_that_are_about_as_good_the_newest_is_loaded(holed, tmp_path, monkeypatch):
    """Within 0.05 bits of the best figure the later one is taken: a difference that small is noise."""
    figures = iter([5.0, 4.0, 1.0, 3.0, 1.04, 1.06])
    monkeypatch.setattr(Checkup, "figure", lambda *_: next(figures))
    monkeypatch.setattr("pipelines.train.CHECKPOINT_SECONDS", 0.0)
    train_run(holed, tmp_path / "run", replace(SMALL, steps=6, checks=0.1))
    assert runs.load(tmp_path / "run", holed, runs.Run.read(tmp_path / "run")).step == 5


def test_a_damaged_checkpoint_is_not_passed_over_in_silence(holed, tmp_path):
    """Though another checkpoint is whole: a flipped bit in the description of one is an error that names it."""
    train_run(holed, tmp_path / "run", replace(SMALL, steps=8, checks=0.1, keep=8))
    worst = max(checkpoint.figures(tmp_path / "run").items(), key=lambda item: item[1])[0]
    said = worst / "state.json"
    said.write_text(said.read_text().replace('"step"', '"Step"'))
    with pytest.raises(CorpusError, match=worst.name):
        runs.load(tmp_path / "run", holed, runs.Run.read(tmp_path / "run"))


def test_the_newest_and_the_best_checkpoint_stay_and_the_best_is_loaded(holed, tmp_path, monkeypatch):
    """Of checkups that are best at step 3 of 8, with keep = 2, steps 3, 7 and 8 stay, and the run loads step 3."""
    figures = iter([5.0, 4.0, 1.0, 3.0, 2.0, 2.0, 2.0, 2.0])
    monkeypatch.setattr(Checkup, "figure", lambda *_: next(figures))
    monkeypatch.setattr("pipelines.train.CHECKPOINT_SECONDS", 0.0)
    settings = replace(SMALL, steps=8, checks=0.1)
    train_run(holed, tmp_path / "run", settings)
    assert [int(path.name[-2:]) for path in checkpoint.found(tmp_path / "run")] == [3, 7, 8]
    state = runs.load(tmp_path / "run", holed, runs.Run.read(tmp_path / "run"))
    assert state.step == 3
    best = load_file(tmp_path / "run" / "checkpoint-000000003" / "network.safetensors")
    assert_equal(best, dict(state.network.state_dict()))


@pytest.mark.parametrize("keep", [1, 3])
def test_as_many_of_the_newest_stay_as_asked(corpus, tmp_path, monkeypatch, keep):
    """Without checks the ``keep`` newest checkpoints stay, and the newest is loaded."""
    monkeypatch.setattr("pipelines.train.CHECKPOINT_SECONDS", 0.0)
    monkeypatch.setattr("pipelines.train.train", functools.partial(train, report_every=0))
    train_run(corpus, tmp_path / "run", replace(SMALL, steps=5, keep=keep))
    assert [int(path.name[-2:]) for path in checkpoint.found(tmp_path / "run")] == list(range(6 - keep, 6))
    assert runs.load(tmp_path / "run", corpus, runs.Run.read(tmp_path / "run")).step == 5


KILLED = """
import functools, os, signal, sys
from pipelines import metrics, train
from pipelines.cli.model import main
train.CHECKPOINT_SECONDS, train.train = 0.0, functools.partial(train.train, report_every=0)
write, save = metrics.Log.write, train.checkpoint.save
def cut(log, said, found):
    write(log, said, found)
    if said.step == 6:
        log._file.write('{"step": 7, "sec')
        log._file.flush()
        os.kill(os.getpid(), signal.SIGKILL)
metrics.Log.write = cut
train.checkpoint.save = lambda folder, state, *rest: save(folder, state, *rest) if state.step == 4 else None
main(sys.argv[1:])
"""


def test_killed_in_the_middle_the_same_command_ends_with_the_same_weights_and_a_whole_log(holed, tmp_path):
    """kill -9 two steps after a checkpoint, in a line of the log: weights and log are those of an undisturbed run."""
    (tmp_path / "run.toml").write_text('width = 16\nlayers = 2\nbatch = 64\nprecision = "float32"\nchecks = 0.1\n')

    def words(out):
        options = ["--corpus", holed.path, "--out", tmp_path / out, "--config", tmp_path / "run.toml", "--steps", 8]
        return list(map(str, ["train", *options, "--quiet"]))

    line = [sys.executable, "-c", KILLED, *words("run")]
    killed = subprocess.run(line, cwd=faults.ROOT, capture_output=True, text=True, check=False)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert [path.name for path in checkpoint.found(tmp_path / "run")] == ["checkpoint-000000004"]
    assert not (tmp_path / "run" / "log.jsonl").read_text().endswith("\n")
    for out in ("run", "whole"):
        assert command(model, *words(out))[0] == 0
    assert_equal(weights(tmp_path / "whole"), weights(tmp_path / "run"))
    logs = [(tmp_path / out / "log.jsonl").read_text().splitlines() for out in ("run", "whole")]
    lines = [[json.loads(line) for line in log] for log in logs]
    assert [line["step"] for line in lines[0]] == list(range(1, 9))
    said = ("step", "bits_per_byte", "lr", "checks")
    for mine, whole in zip(*lines, strict=True):
        assert [mine[key] for key in said] == [whole[key] for key in said]


def test_a_log_is_rewritten_whole_or_not_at_all(tmp_path, monkeypatch):
    """Killed while a resumed run drops lines, the log is still the old one."""
    metrics = [
        {"step": s, "seconds": 1.0, "bits_per_byte": 8.0, "addresses_per_second": 9.0, "lr": 0.1} for s in (1, 2)
    ]
    (tmp_path / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in metrics))

    def die(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("pathlib.Path.replace", die)
        with pytest.raises(KeyboardInterrupt):
            Log(tmp_path, 1)
    assert read_log(tmp_path) == metrics
    with Log(tmp_path, 1) as log:
        assert log.last.step == 1
    assert read_log(tmp_path) == metrics[:1]


def test_tensorboard_reads_back_what_the_log_says(holed, tmp_path):
    """With ``tensorboard`` event files hold every line's figures, those of the checks too, at its step."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    train_run(holed, tmp_path / "run", replace(SMALL, steps=4, checks=0.1), tensorboard=True)
    events = EventAccumulator(str(tmp_path / "run" / "tensorboard")).Reload()
    lines = read_log(tmp_path / "run")
    assert set(events.Tags()["scalars"]) == {
        *("bits_per_byte", "addresses_per_second", "lr"),
        *("checks/scan/bits_per_byte", "checks/scan/mse", "checks/scan/psnr_db"),
    }
    for name, value in (
        ("bits_per_byte", [line["bits_per_byte"] for line in lines]),
        ("checks/scan/psnr_db", [line["checks"]["scan"]["psnr_db"] for line in lines]),
    ):
        assert [scalar.step for scalar in events.Scalars(name)] == [1, 2, 3, 4]
        assert [scalar.value for scalar in events.Scalars(name)] == pytest.approx(value, rel=1e-5)


def test_without_the_package_tensorboard_is_refused_before_training(corpus, tmp_path, monkeypatch):
    """--tensorboard where the extra is not installed is one clear error that says what to install."""
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(RequestError, match=r"pip install 'aunn\[tensorboard\]'"):
        train_run(corpus, tmp_path / "run", SMALL, tensorboard=True)
    assert read_log(tmp_path / "run") == []


# ---- the command line --------------------------------------------------------------------------------------------


def test_the_help_shows_every_setting_with_its_default_and_a_word_on_it():
    """The run.toml of --help is TOML with the names and defaults of Settings, each with a comment on its line."""
    lines = re.findall(r"^    (\w+ = .*)$", command(model, "train", "--help")[1], re.M)
    assert tomllib.loads("\n".join(lines)) == asdict(Settings())
    assert all(re.search(r"  # \w", line) for line in lines)


def test_what_train_prints_has_the_promised_keys_and_the_last_checks(holed, tmp_path):
    """--json: the keys of a run and the held-out figures of its last step; the same when the finished run is asked."""
    (tmp_path / "run.toml").write_text("width = 16\nlayers = 2\nbatch = 64\nchecks = 0.1\n")
    words = ("--corpus", holed.path, "--out", tmp_path / "run", "--config", tmp_path / "run.toml", "--steps", 3)
    first, again = run_json(model, "train", *words), run_json(model, "train", *words)
    assert set(first) >= {"run", "version", "steps", "seconds", "addresses_per_second", "bits_per_byte", "checks"}
    assert first["checks"] == again["checks"] == read_log(tmp_path / "run")[-1]["checks"]
    assert again["bits_per_byte"] == first["bits_per_byte"]
    assert set(first["checks"]["scan"]) == {"bits_per_byte", "mse", "psnr_db"}


def test_the_bar_says_how_long_it_will_still_take(corpus, tmp_path, monkeypatch):
    """On a terminal the bar shows steps done, of how many, and the time that is left."""
    monkeypatch.setattr("click.testing._NamedTextIOWrapper.isatty", lambda _: True)
    monkeypatch.setattr("pipelines.train.train", functools.partial(train, report_every=0))
    (tmp_path / "run.toml").write_text("width = 16\nlayers = 2\nbatch = 64\n")
    words = ("--corpus", corpus.path, "--out", tmp_path / "run", "--config", tmp_path / "run.toml", "--steps", 40)
    shown = command(model, "train", *words)[2]
    assert re.search(r"train:.*\d+/40 \[\d\d:\d\d<\d\d:\d\d", shown)


def test_tensorboard_is_an_option_of_the_command(corpus, tmp_path):
    """--tensorboard leaves event files in the run's folder; without it there are none."""
    (tmp_path / "run.toml").write_text("width = 16\nlayers = 2\nbatch = 64\n")
    for out, more in (("with", ["--tensorboard"]), ("without", [])):
        words = ["--corpus", corpus.path, "--out", tmp_path / out, "--config", tmp_path / "run.toml", "--steps", 2]
        assert command(model, "train", *words, *more)[0] == 0
    assert list((tmp_path / "with" / "tensorboard").glob("events.out.tfevents.*"))
    assert not (tmp_path / "without" / "tensorboard").exists()
