"""Learning rules: each learns, resumes exactly and is determined; each is the rule that it says it is."""

import json
import math
import os
import signal
from contextlib import nullcontext
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch.nn import functional

from aunn_data.corpus import Corpus
from aunn_data.errors import RequestError
from aunn_model import checkpoint
from aunn_model.conditioning import only
from aunn_model.embedding import Digits
from aunn_model.network import Network
from aunn_model.rules import RULES
from aunn_model.rules.delta import delta
from aunn_model.rules.feedback_alignment import feedback, feedback_alignment
from aunn_model.rules.forward_gradient import forward_gradient
from aunn_model.rules.lesson import Lesson
from aunn_model.rules.predictive_coding import ITERATIONS, RATE, predictive_coding
from aunn_model.training import Settings, bits_per_byte, train
from benchmarks import rules as benchmark
from pipelines import runs
from pipelines.batches import Batches
from pipelines.train import read_settings, train_run
from tests.corpora import append, smooth, text, volume
from tests.test_distributed import ranks

PLAIN = Settings(precision="float32", fine_share=0.0, ema=0.0, checks=0.0)
SMALL = replace(PLAIN, width=24, layers=4, batch=64, steps=12, warmup=2)
TRUNKS = ("plain", "residual")
# Bits per byte that each has to reach by heart in 150 steps, of 8 knowing nothing and 5.5 by the bytes' own entropy.
REACHED = {
    "backpropagation": 0.8,
    "predictive_coding": 0.8,
    "feedback_alignment": 4.0,
    "forward_gradient": 4.1,
    "delta": 4.6,
}


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return tmp_path_factory.mktemp("rules")


@pytest.fixture(scope="module")
def corpus(place):
    corpus = Corpus.create(place / "corpus", address_bits=32)
    append(
        corpus, volume("a.npy", smooth((4, 5, 6))), text("b.txt", b"To be, or not to be, that is the question\n" * 5)
    )
    return corpus


def learned(corpus, settings):
    """A network after all its steps, and bits per byte by heart."""
    state, batches = runs.fresh(corpus, settings), Batches(corpus, settings, torch.device("cpu"))
    for _ in train(state, settings, batches):
        pass
    every = torch.from_numpy(batches.sampler.addresses(np.arange(batches.size)))
    return state.network, bits_per_byte(state.network, every, batches.bytes_N)


# ---- what all have in common -------------------------------------------------------------------------------------


def test_every_rule_has_its_least_figure():
    """A new rule does not go untested."""
    assert REACHED.keys() == RULES.keys()


@pytest.mark.parametrize("trunk", TRUNKS)
@pytest.mark.parametrize("rule", RULES)
def test_every_rule_learns_by_heart(corpus, rule, trunk):
    """In 150 steps on 1,187 bytes each comes below what it has to reach."""
    settings = replace(PLAIN, width=48, batch=256, steps=150, trunk=trunk, rule=rule)
    assert learned(corpus, settings)[1] < REACHED[rule]


def test_hidden_layers_that_learn_hold_more_than_random_ones(corpus):
    """Feedback alignment and forward gradients are worth more than the exit alone."""
    settings = replace(PLAIN, width=48, batch=256, steps=150)
    names = ("delta", "feedback_alignment", "forward_gradient")
    exit_alone, *others = (learned(corpus, replace(settings, rule=rule))[1] for rule in names)
    assert max(others) < exit_alone - 0.3


@pytest.mark.parametrize("trunk", TRUNKS)
@pytest.mark.parametrize("rule", RULES)
def test_a_stopped_run_resumes_exactly_by_every_rule(corpus, tmp_path, rule, trunk):
    """Stopped at step 5 and begun again, a run ends with the weights and optimisers of one that went through."""
    settings = replace(SMALL, rule=rule, trunk=trunk, ema=0.3, clip=0.5)
    train_run(corpus, tmp_path / "whole", settings)
    feedback.cache_clear()
    with pytest.raises(KeyboardInterrupt):
        train_run(corpus, tmp_path / "stopped", settings, on_metrics=stop_at(5))
    feedback.cache_clear()  # as a new process would
    assert train_run(corpus, tmp_path / "stopped", settings).resumed_at == 5
    for file in sorted(checkpoint.found(tmp_path / "whole")[-1].glob("*.safetensors")):
        here, there = load_file(file), load_file(checkpoint.found(tmp_path / "stopped")[-1] / file.name)
        assert here.keys() == there.keys()
        assert all(torch.equal(here[name], there[name]) for name in here), file.name


def stop_at(number):
    def on_metrics(metrics):
        if metrics.step == number:
            os.kill(os.getpid(), signal.SIGINT)

    return on_metrics


@pytest.mark.parametrize("rule", RULES)
def test_the_seed_decides_all(corpus, rule):
    """The same seed gives the same weights, whatever torch has drawn before; another seed others."""
    first, again, other = (learned(corpus, replace(SMALL, rule=rule, seed=seed))[0] for seed in (0, 0, 1))
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), again.parameters(), strict=True))
    assert not torch.equal(first.exit.weight, other.exit.weight)


@pytest.mark.parametrize("rule", sorted(RULES.keys() - {"backpropagation"}))
def test_a_run_by_another_rule_is_refused(corpus, tmp_path, rule):
    """A folder holds a run by one rule."""
    train_run(corpus, tmp_path / "run", replace(SMALL, steps=1))
    with pytest.raises(RequestError, match="another rule"):
        train_run(corpus, tmp_path / "run", replace(SMALL, steps=1, rule=rule))


def test_two_devices_give_the_weights_of_one(corpus, place):
    """Each with its part of every batch, by every rule but backpropagation, whose test is another."""
    jobs = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.Tensor, "bfloat16", torch.Tensor.float)  # as tests/ranks.py
        for rule in sorted(RULES.keys() - {"backpropagation"}):
            toml = place / f"{rule}.toml"
            toml.write_text(f'rule = "{rule}"\nwidth = 18\nbatch = 64\nsteps = 6\nwarmup = 2\nprecision = "float32"\n')
            train_run(corpus, place / f"one-{rule}", read_settings(toml))
            jobs.append((f"two-{rule}", toml.name, None))
    done = ranks(place, 2, *jobs)
    assert done.returncode == 0, done.stderr
    for rule in sorted(RULES.keys() - {"backpropagation"}):
        one, two = (checkpoint.found(place / f"{number}-{rule}")[-1] for number in ("one", "two"))
        expected, found = (load_file(path / "network.safetensors") for path in (one, two))
        for name, value in expected.items():
            torch.testing.assert_close(found[name], value, rtol=0, atol=1e-5, msg=f"{rule} {name}")


@pytest.mark.parametrize("rule", sorted(RULES.keys() - {"backpropagation"}))
def test_weights_in_parts_are_for_backpropagation_alone(tmp_path, rule):
    """With shard = "full" another rule is refused, by what to do."""
    (tmp_path / "run.toml").write_text(f'rule = "{rule}"\nshard = "full"\n')
    with pytest.raises(RequestError, match='shard = "none"'):
        read_settings(tmp_path / "run.toml")


# ---- one lesson --------------------------------------------------------------------------------------------------


def tiny(trunk="plain", layers=4):
    """A network of eight units whose residual branches say something."""
    torch.manual_seed(0)
    network = Network(Digits(8), 8, layers, trunk)
    for name, weight in network.named_parameters():
        if "outer" in name:
            torch.nn.init.normal_(weight, std=0.5)
    return network


def lesson(seed=0, step=0, autocast=nullcontext):
    addresses_B = torch.arange(48)
    bytes_B = (addresses_B * 7) % 5
    return Lesson(addresses_B, lambda logits_BV: functional.cross_entropy(logits_BV, bytes_B), seed, step, autocast)


def gradients(network, rule, given, **options):
    """By name; those of weights that a rule does not teach are left out."""
    network.zero_grad()
    rule(network, given, **options)
    return {name: weight.grad.clone() for name, weight in network.named_parameters() if weight.grad is not None}


def hidden(found):
    """All but the exit's, as one vector."""
    return torch.cat([value.flatten() for name, value in found.items() if not name.startswith("exit")])


def cosine(a, b):
    return float(functional.cosine_similarity(a.double(), b.double(), dim=0))


@pytest.mark.parametrize("trunk", TRUNKS)
@pytest.mark.parametrize("rule", RULES)
def test_every_rule_returns_the_logits_and_gives_the_exit_its_exact_gradient(rule, trunk):
    """What lies behind the last hidden layer learns of its own error, as by backpropagation, bit for bit."""
    network = tiny(trunk)
    logits_BV = RULES[rule](network, lesson())
    assert torch.equal(logits_BV, network(lesson().addresses_B))
    exact, found = (gradients(network, RULES[name], lesson()) for name in ("backpropagation", rule))
    for name in ("exit.weight", "exit.bias"):
        assert torch.equal(found[name], exact[name])


@pytest.mark.parametrize("trunk", TRUNKS)
@pytest.mark.parametrize("rule", sorted(RULES.keys() - {"delta"}))
def test_every_rule_but_delta_teaches_every_weight(corpus, rule, trunk):
    """Entry, codes, biases, norms, both matrices of a pair, exit: none is forgotten."""
    settings = replace(SMALL, codes=16, trunk=trunk)
    network = runs.fresh(corpus, settings).network
    taught = gradients(network, RULES[rule], lesson())
    assert taught.keys() == {name for name, _ in network.named_parameters()}
    unmoved = {name for name, value in taught.items() if not value.any()}
    assert unmoved == {name for name in taught if trunk == "residual" and ("inner" in name or ".norm." in name)}


@pytest.mark.parametrize("layer", ["entry", "trunk.1", "exit"])
@pytest.mark.parametrize("rule", RULES)
def test_where_one_layer_may_learn_alone_no_other_does(rule, layer):
    """As `aunn-model condition --layers` asks for; and the layer learns what it learns beside the others."""
    network = tiny()
    among = gradients(network, RULES[rule], lesson())
    with only(network, [layer]):
        alone = gradients(network, RULES[rule], lesson())
    assert alone.keys() == {name for name in among if name.startswith(f"{layer}.")}
    assert all(torch.equal(alone[name], among[name]) for name in alone)


@pytest.mark.parametrize("trunk", TRUNKS)
@pytest.mark.parametrize("rule", RULES)
def test_in_bfloat16_gradients_point_where_they_do_in_float32(rule, trunk):
    """Products rounded to bfloat16 turn no rule's gradient far."""
    network = tiny(trunk)
    rounded = lesson(autocast=lambda: torch.autocast("cpu", torch.bfloat16))
    exact, found = (gradients(network, RULES[rule], given) for given in (lesson(), rounded))
    assert exact.keys() == found.keys()
    assert all(cosine(exact[name].flatten(), found[name].flatten()) > 0.98 for name in exact)


def test_delta_leaves_all_but_the_exit_untouched(corpus):
    """No gradient, and after a run with weight decay the very weights that it began with."""
    assert gradients(tiny(), delta, lesson()).keys() == {"exit.weight", "exit.bias"}
    settings = replace(SMALL, rule="delta", weight_decay=0.1)
    before, after = runs.fresh(corpus, settings).network, learned(corpus, settings)[0]
    moved = {
        name
        for (name, a), b in zip(before.named_parameters(), after.parameters(), strict=True)
        if not torch.equal(a, b)
    }
    assert moved == {"exit.weight", "exit.bias"}


def test_feedback_reaches_a_hidden_layer_through_its_own_matrix_alone():
    """The third layer's gradient by hand, from error, feedback and activations; no weight after it has a say."""
    network = tiny()
    found = gradients(network, feedback_alignment, lesson(seed=5))
    logits_BV = network(lesson().addresses_B).detach().requires_grad_()
    (error_BV,) = torch.autograd.grad(lesson().loss(logits_BV), logits_BV)
    first = network.first(lesson().addresses_B)
    given_BW = network.trunk[:2](first)
    error_BW = error_BV @ feedback(5, 40, torch.device("cpu"))[:, 24:32] * (network.trunk[2](given_BW) > 0)
    torch.testing.assert_close(found["trunk.2.linear.weight"], error_BW.T @ given_BW)
    with torch.no_grad():
        network.trunk[3].linear.weight.neg_()  # others come to other logits, so the error is kept the same
    changed = Lesson(lesson().addresses_B, lambda said_BV: (said_BV * error_BV).sum(), 5, 0, nullcontext)
    torch.testing.assert_close(
        gradients(network, feedback_alignment, changed)["trunk.2.linear.weight"], found["trunk.2.linear.weight"]
    )


def test_feedback_is_made_of_the_seed_alone():
    """The same matrices whatever was drawn before; others of another seed; pinned."""
    cpu = torch.device("cpu")
    first = feedback(7, 16, cpu)
    feedback.cache_clear()
    torch.manual_seed(3)
    assert torch.equal(feedback(7, 16, cpu), first)
    assert not torch.equal(feedback(8, 16, cpu), first)


@pytest.mark.parametrize("trunk", TRUNKS)
def test_forward_gradients_are_exact_on_average(trunk):
    """The mean over 1,000 draws points where the gradient does, is as long, and single ones are far off."""
    network = tiny(trunk, layers=2)
    exact = hidden(gradients(network, RULES["backpropagation"], lesson()))
    drawn = torch.stack([hidden(gradients(network, forward_gradient, lesson(step=step))) for step in range(1000)])
    assert cosine(drawn.mean(0), exact) > 0.98
    assert float(drawn.mean(0).norm() / exact.norm()) == pytest.approx(1, abs=0.1)
    assert cosine(drawn[0], exact) < 0.9


def test_directions_follow_from_seed_and_step():
    """The same again, and others at another step or of another seed."""
    network = tiny()
    first, again, later, other = (
        hidden(gradients(network, forward_gradient, lesson(*key))) for key in ((4, 9), (4, 9), (4, 10), (5, 9))
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, later)
    assert not torch.equal(first, other)


@pytest.mark.parametrize("trunk", TRUNKS)
def test_predictive_coding_relaxes_into_backpropagation(trunk):
    """The angle to the gradient closes with the iterations: cosine above 0.9999 after 30, equal after 60; and at rate 1
    equal after one for each layer."""
    network = tiny(trunk)
    exact = gradients(network, RULES["backpropagation"], lesson())
    angles = []
    for iterations in (5, 8, 12, 30):
        found = gradients(network, predictive_coding, lesson(), iterations=iterations)
        angles.append(cosine(hidden(found), hidden(exact)))
    assert angles == sorted(angles)
    assert angles[0] < 0.99
    assert angles[-1] > 0.9999
    for options in ({"iterations": 60}, {"iterations": len(network.trunk) + 1, "rate": 1.0}):
        found = gradients(network, predictive_coding, lesson(), **options)
        for name, value in exact.items():
            torch.testing.assert_close(found[name], value, rtol=1e-4, atol=1e-7, msg=name)


def test_before_it_rests_predictive_coding_is_backpropagation_with_a_rate_for_each_layer():
    """Of the k-th layer before the exit the gradient is the exact one times the chance of k successes or more."""
    network = tiny()
    exact = gradients(network, RULES["backpropagation"], lesson())
    found = gradients(network, predictive_coding, lesson())
    tries = ITERATIONS * 5
    for k, name in enumerate(["trunk.3.linear", "trunk.2.linear", "trunk.1.linear", "trunk.0.linear", "entry"], 1):
        chance = sum(math.comb(tries, n) * RATE**n * (1 - RATE) ** (tries - n) for n in range(k, tries + 1))
        torch.testing.assert_close(found[f"{name}.weight"], exact[f"{name}.weight"] * chance, rtol=1e-4, atol=1e-7)


# ---- the benchmark -----------------------------------------------------------------------------------------------


def test_the_benchmark_measures_rules_on_the_sample_collection(capsys, monkeypatch, tmp_path):
    """Figures of two rules; each shows its better long run, with the rates of one of its best short runs. Begun again
    it knows them all."""
    monkeypatch.setattr(benchmark, "SAMPLE", 512)
    words = "--seconds 0.3 --width 8 --layers 2 --batch 32 --rules delta,forward_gradient --json --work"
    benchmark.main([*words.split(), str(tmp_path)])
    found = json.loads(capsys.readouterr().out)
    monkeypatch.setattr(benchmark.Trial, "trained", None)
    benchmark.main([*words.split(), str(tmp_path)])
    assert json.loads(capsys.readouterr().out) == found
    assert [row["rule"] for row in found["rules"]] == ["delta", "forward_gradient"]
    assert 5 < found["entropy_bits_per_byte"] < 8
    for row in found["rules"]:
        figures = [one["bits_per_byte"] for one in row["tried"]]
        short, long = sorted(row["tried"][:8], key=lambda one: one["bits_per_byte"]), row["tried"][8:]
        assert [(one["optimizer"], one["times"]) for one in long] == [(o["optimizer"], o["times"]) for o in short[:2]]
        assert row["bits_per_byte"] == min(figures[8:])
        assert row["steps"] >= 1
        assert 4 < row["bits_per_byte"] < 9
        assert 5 < row["held_out_psnr_db"] < row["harmonic_psnr_db"]
