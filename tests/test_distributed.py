"""Many devices, as processes over gloo: the weights of one, whatever their number, and on another number after a stop.

Three torchruns serve all tests: starting torch takes seconds a process.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from aunn_data.corpus import Corpus
from aunn_data.errors import CorpusError
from aunn_model import checkpoint
from aunn_model.training import named_state, train
from pipelines import runs
from pipelines.train import read_settings, train_run
from tests.corpora import append, smooth, text, volume

TOML = """width = 18  # 4 do not divide it
batch = 128
steps = 12
warmup = 2
clip = 0.5
ema = 0.3
checks = 0.2
precision = "float32"
"""
ROOT = Path(__file__).parent.parent
CLOSE = 1e-5  # float32 sums of another order; a step moves weights by 0.06


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with a corpus, run.toml, full.toml (sharded) and a run of one process, "one"."""
    place = tmp_path_factory.mktemp("distributed")
    corpus = Corpus.create(place / "corpus", address_bits=32)
    append(corpus, volume("a.npy", smooth((6, 9, 10))), text("b.txt", b"To be, or not to be\n" * 9))
    (place / "run.toml").write_text(TOML)
    (place / "full.toml").write_text(TOML + 'shard = "full"\n')
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.Tensor, "bfloat16", torch.Tensor.float)  # as tests/ranks.py
        go_on(place, "one")
        patch.setattr("pipelines.train.train", stopping)
        with pytest.raises(KeyboardInterrupt):
            go_on(place, "stopped")
        patch.undo()
        patch.setattr(torch.Tensor, "bfloat16", torch.Tensor.float)
        yield place


def stopping(state, settings, batches, every):
    """The loop of one process, interrupted after step 6."""
    for metrics in train(state, settings, batches, report_every=0, every=every):
        if metrics.step == 6:
            signal.raise_signal(signal.SIGINT)
        yield metrics


def go_on(place, run):
    """One process begins or finishes a run."""
    return train_run(Corpus.open(place / "corpus"), place / run, read_settings(place / "run.toml"))


def torchrun(place, number, *command):
    """A torchrun on loopback."""
    start = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(number), *command]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(start, cwd=place, env=environment, text=True, **pipes) as started:
        try:
            out, err = started.communicate(timeout=200)
        except subprocess.TimeoutExpired:
            started.terminate()  # ends its processes too, as a kill does not
            raise
    return subprocess.CompletedProcess(start, started.returncode, out, err)


def ranks(place, number, *jobs):
    """A torchrun of tests/ranks.py; jobs are (run, its run.toml, strike)."""
    said = [
        {"args": ["--corpus", "corpus", "--out", run, "--config", toml], "strike": strike} for run, toml, strike in jobs
    ]
    return torchrun(place, number, "-m", "tests.ranks", json.dumps(said))


@pytest.fixture(scope="module")
def four(place):
    """On 4 processes: a whole run, and a sharded one whose rank 2 gets SIGTERM in its sixth step."""
    done = ranks(place, 4, ("four", "run.toml", None), ("sharded", "full.toml", [5, 2, "SIGTERM"]))
    assert done.returncode == 0, done.stderr
    shutil.copytree(place / "sharded", place / "sharded-to-one")
    return done


@pytest.fixture(scope="module")
def two(place, four):
    """On 2 processes: the sharded run and a whole one go on, one meets no number, and of one a rank is killed."""
    shutil.copytree(place / "stopped", place / "whole-to-sharded")
    return ranks(
        place,
        2,
        ("sharded", "full.toml", None),
        ("whole-to-sharded", "full.toml", None),
        ("nan", "run.toml", [3, 1, "nan"]),
        ("killed", "run.toml", [7, 1, "SIGKILL"]),
    )


def tensors(place, run):
    """Weights, averaged weights and optimisers of a run, loaded by one process."""
    state = runs.load(place / run, Corpus.open(place / "corpus"), runs.Run.read(place / run))
    assert state.step == 12
    found = {"network": state.network.state_dict(), "average": state.average.state_dict()}
    found |= {name: named_state(optimizer) for name, optimizer in state.optimizers.items()}
    return {f"{part}.{name}": value for part, named in found.items() for name, value in named.items()}


def assert_close(place, run):
    """A run has ended as that of one process did."""
    expected, found = tensors(place, "one"), tensors(place, run)
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=0, atol=CLOSE, msg=name)


def exits(place, run):
    return [path.read_text() for path in sorted(place.glob(f"{run}.exit-*"))]


def test_torchrun_as_a_user_types_it(place):
    """Two processes give the weights of one, one log and one document."""
    program = Path(sys.executable).with_name("aunn-model")
    command = ["--no-python", program, "train", "--corpus", "corpus", "--out", "two", "--config", "run.toml", "--json"]
    done = torchrun(place, 2, *map(str, command))
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["steps"] == 12
    steps = [json.loads(line)["step"] for line in (place / "two" / "log.jsonl").read_text().splitlines()]
    assert steps == sorted(set(steps))
    found, expected = tensors(place, "two"), tensors(place, "one")  # Newton-Schulz in bfloat16 beside float32
    for name, value in expected.items():
        torch.testing.assert_close(found[name].float(), value.float(), rtol=0, atol=0.05, msg=name)


def test_four_processes_give_the_weights_of_one(place, four):
    """Each with its part of every batch; gradients clipped, weights averaged, checks looked at."""
    assert exits(place, "four") == ["0, 32 addresses"] * 4
    assert_close(place, "four")
    here, there = (runs.Run.read(place / run) for run in ("one", "four"))
    assert here == there


def test_a_signal_to_one_rank_stops_all_after_the_same_step(place, four):
    """Every rank ends with 130, and the checkpoint is one of 4 shards, sealed, without any pickle."""
    assert exits(place, "sharded") == ["130, 32 addresses"] * 4
    saved = checkpoint.found(place / "sharded-to-one")[-1]
    assert saved.name == "checkpoint-000000006"
    names = sorted(path.name for path in saved.iterdir())
    assert names == [*(f"shard-0000{k}-model-00001-of-00001.safetensors" for k in (1, 2, 3, 4)), "state.json"]
    sizes = [path.stat().st_size for path in saved.glob("shard-*")]
    assert max(sizes) < 0.4 * sum(sizes)


@pytest.mark.parametrize("run", ["sharded", "whole-to-sharded"])
def test_sharded_runs_give_the_weights_of_one(place, two, run):
    """From 4 shards to 2, and from whole weights to 2 shards: Muon's matrices are whole ones, not their parts."""
    assert_close(place, run)
    assert len(list(checkpoint.found(place / run)[-1].glob("shard-*"))) == 2


def test_one_process_finishes_what_four_sharded(place, four):
    """The run of 4 shards goes on without any, and ends with the same weights."""
    done = go_on(place, "sharded-to-one")
    assert done.resumed_at == 6
    assert_close(place, "sharded-to-one")


def test_a_flipped_bit_in_a_shard_is_noticed(place, four, tmp_path):
    """A shard that is not what was written is refused."""
    saved = checkpoint.found(shutil.copytree(place / "sharded-to-one", tmp_path / "run"))[0]
    shard = sorted(saved.glob("shard-*"))[2]
    data = bytearray(shard.read_bytes())
    data[-9] ^= 1
    shard.write_bytes(data)
    run = runs.Run.read(tmp_path / "run")
    with pytest.raises(CorpusError, match="SHA-256"):
        runs.restore(saved, runs.fresh(Corpus.open(place / "corpus"), run.settings))


def test_a_loss_that_is_no_number_on_one_rank_ends_all(place, two):
    """All ranks end with 2, the step is named and nothing is saved after it."""
    assert exits(place, "nan") == ["2, 64 addresses"] * 2
    assert "none at step 3" in two.stderr
    assert not checkpoint.found(place / "nan")


def test_a_killed_rank_ends_the_run_and_the_next_one_goes_on(place, two):
    """torchrun ends the others, says so, and the same command finishes with the weights of one process."""
    assert two.returncode != 0
    assert "SIGKILL" in two.stderr
    assert not any(code.startswith("0") for code in exits(place, "killed"))
    assert go_on(place, "killed").resumed_at == 7
    assert_close(place, "killed")
