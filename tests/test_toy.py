"""The toy benchmark learns its text by heart, goes on in its form, and prints what it promises."""

from copy import deepcopy
from dataclasses import replace

import numpy as np
import pytest
import torch

from benchmarks import toy, toy_asked

TINY = replace(toy.OURS, codes=128, width=96, batch=200, precision="float32")
EPOCHS = 30


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return toy.toy(tmp_path_factory.mktemp("toy"), 1000)


@pytest.fixture(scope="module")
def learned(made):
    """The network that knows 1,000 triplets, and how it came to."""
    return toy.learn(made, TINY, EPOCHS)


def test_the_text_is_groups_of_a_bar_and_three_equal_letters_at_multiples_of_four(made):
    """What the network is given are the absolute addresses of a corpus, and groups begin at multiples of four."""
    assert int(made.addresses[0]) % 4 == 0
    groups_G4 = made.bytes.view(-1, 4)
    assert len(groups_G4) == 1000
    assert (groups_G4[:, 0] == ord("|")).all()
    assert (groups_G4[:, 1:] == groups_G4[:, 1:2]).all()


def test_our_settings_learn_1000_triplets_by_heart(learned):
    """Every one of the 4,000 characters is right, and it took fewer epochs than were planned."""
    assert learned[1].accuracy == 1
    assert learned[1].epochs < EPOCHS


def test_characters_of_a_group_have_one_code_and_groups_have_others(made, learned):
    """Parities are the same within a group; those of two groups agree in about a half."""
    signs_NP = learned[0].network.embedding.parities(made.addresses)
    groups_GP = signs_NP[::4]
    assert torch.equal(signs_NP, groups_GP.repeat_interleave(4, 0))
    alike_GG = groups_GP @ groups_GP.T / TINY.codes
    alike_GG.fill_diagonal_(0)
    assert alike_GG.abs().max() < 0.8
    assert alike_GG.abs().mean() < 0.15


def test_what_comes_after_the_end_keeps_the_form(made, learned):
    """Of groups that nobody trained on, right after the text and far away, most are a bar and three equal letters."""
    found = toy_asked.asked(learned[0].best, made.corpus, span=4000)
    assert found["well_formed_after_end"] > 0.6
    assert found["well_formed_past_10m"] > 0.6
    assert sum(found["letters"].values()) <= 1000


def test_one_step_on_a_letter_turns_the_next_two_into_it(made, learned):
    """Far more often than before the step; and the weights are what they were."""
    network = deepcopy(learned[0].best)
    found = toy_asked.asked(network, made.corpus, 60, span=4000)
    assert found["conditioned_before"] < 0.2
    assert found["conditioned"] > 0.7
    assert all(
        torch.equal(weight, trained)
        for weight, trained in zip(network.parameters(), learned[0].best.parameters(), strict=True)
    )


def test_a_group_with_another_letter_or_without_a_bar_is_not_well_formed():
    """Of five groups two are."""
    groups = np.frombuffer(b"|aaa|aab?ccc|zzz||||", np.uint8)
    assert toy_asked.well_formed(groups) == 0.4


def test_equal_counts_are_uniform_and_a_single_letter_is_not():
    """Total variation: 0, and 25/26."""
    assert toy_asked.off_uniform(np.full(26, 9)) == pytest.approx(0)
    assert toy_asked.off_uniform(np.eye(26, dtype=int)[0]) == pytest.approx(25 / 26)


def test_the_comparison_has_the_promised_keys_and_a_picture(made, tmp_path):
    """Ours and the original recipe, the latter for as much processor time as ours took."""
    torch.manual_seed(0)
    found = toy.compare(made, TINY, 4, float("inf"), toy.original(width=64, layers=2), trials=4, span=400)
    assert {"accuracy", "epochs", "well_formed_after_end", "well_formed_past_10m", "conditioned"} <= found.keys()
    assert {"accuracy", "epochs", "processor_seconds"} <= found["original"].keys()
    assert found["original"]["processor_seconds"] >= found["processor_seconds"] - 0.1
    assert len(found["by_epoch"]) == found["epochs"] == 4
    toy_asked.draw(found, tmp_path / "toy.png")
    assert (tmp_path / "toy.png").read_bytes().startswith(b"\x89PNG")


def test_the_same_seed_learns_the_same(made):
    """Codes, weights and order follow from the seed."""
    first, second = (toy.learn(made, TINY, 2)[1].by_epoch for _ in range(2))
    assert first == second
