"""What a network keeps in its weights, by the bit."""

import lzma
from dataclasses import replace

import numpy as np
import pytest
import torch
import zstandard

from aunn_data import spans
from aunn_data.sampling import trainable
from aunn_model.training import bits_per_byte, parameters
from pipelines import runs
from pipelines.capacity import capacity, rounded, trained_on
from pipelines.cli.model import main as model
from pipelines.holes import checks_of, spans_of
from pipelines.runs import Run
from pipelines.train import train_run
from tests.commands import run as command
from tests.commands import run_json
from tests.test_training import SMALL, holed

__all__ = ["holed"]


@pytest.fixture
def trained(holed, tmp_path):
    """A run that knows its bytes better than chance."""
    train_run(holed, tmp_path / "run", replace(SMALL, width=64, batch=256, steps=80, checks=0.1))
    return tmp_path / "run"


def test_capacity_is_what_its_parts_say(holed, trained):
    """Bits a byte over all that was trained on; with the weights; per weight bit; compressors on the same bytes."""
    network = runs.load(trained, holed, Run.read(trained)).best
    addresses_N, bytes_N = trained_on(holed, Run.read(trained))
    found = capacity(network, addresses_N, bytes_N)
    size, weights, data = len(bytes_N), parameters(network), bytes_N.tobytes()
    assert (found["bytes"], found["weights"]) == (size, weights)
    mine = found["float32"]
    assert mine["bits_per_byte"] == bits_per_byte(network, torch.from_numpy(addresses_N), torch.from_numpy(bytes_N))
    assert 0 < mine["bits_per_byte"] < 6
    assert mine["with_weights"] == pytest.approx(mine["bits_per_byte"] + 32 * weights / size)
    assert mine["stored_per_weight_bit"] == pytest.approx((8 - mine["bits_per_byte"]) * size / (32 * weights))
    half = found["bfloat16"]
    assert half["bits_per_byte"] == pytest.approx(mine["bits_per_byte"], rel=0.1)
    assert half["bits_per_byte"] != mine["bits_per_byte"]
    assert half["with_weights"] < mine["with_weights"]
    assert len(lzma.decompress(lzma.compress(data, preset=9))) == size
    assert found["xz -9"] == 8 * len(lzma.compress(data, preset=9)) / size
    assert found["zstd -19"] == 8 * len(zstandard.ZstdCompressor(level=19).compress(data)) / size


def test_rounded_weights_are_those_of_bfloat16_and_the_network_keeps_its_own(holed):
    """Every weight of the copy is exact in bfloat16, most of the network's are not, and stay as they were."""
    network = runs.fresh(holed, SMALL).network
    before = [weight.detach().clone() for weight in network.parameters()]
    for weight in rounded(network).parameters():
        assert torch.equal(weight, weight.bfloat16().float())
    for old, now in zip(before, network.parameters(), strict=True):
        assert torch.equal(old, now)
    assert not torch.equal(network.entry.weight, network.entry.weight.bfloat16().float())


def test_what_a_run_was_trained_on_is_neither_held_out_nor_a_check(holed, trained):
    """The bytes that are counted are all trainable ones but the run's own checks, with their addresses."""
    addresses_N, bytes_N = trained_on(holed, run := Run.read(trained))
    checks = spans.addresses(spans_of(checks_of(holed, run.holdouts, run.settings.checks, run.settings.seed)))
    assert len(checks)
    assert sorted([*addresses_N.tolist(), *checks.tolist()]) == spans.addresses(trainable(holed)).tolist()
    some = np.arange(0, len(addresses_N), 97)
    assert [int(holed.read(a, a + 1)[0]) for a in addresses_N[some]] == bytes_N[some].tolist()


def test_evaluate_prints_the_capacity(trained):
    """--capacity alone or beside a holdout, as a table or as JSON; neither of the two is wrong usage."""
    found = run_json(model, "evaluate", trained, "--capacity")
    assert set(found["capacity"]) == {"bytes", "weights", "float32", "bfloat16", "xz -9", "zstd -19"}
    both = run_json(model, "evaluate", trained, "--capacity", "--holdout", "block")
    assert both["capacity"] == found["capacity"]
    assert {"psnr_db", "peers"} <= set(both)
    code, shown, _ = command(model, "evaluate", trained, "--capacity")
    assert code == 0
    assert f"{found['capacity']['weights']:,} weights in bfloat16" in shown
    assert f"{found['capacity']['xz -9']:.3f}" in shown
    assert command(model, "evaluate", trained)[0] == 2
