"""The toy benchmark learns its text by heart and prints what it promises."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from benchmarks import toy

TINY = replace(toy.OURS, parities=64, width=64, batch=128, epochs=30, precision="float32")
TINY_ORIGINAL = replace(toy.ORIGINAL, layers=2, width=64, batch=128)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return toy.toy(tmp_path_factory.mktemp("toy"), 200)


def test_the_text_is_groups_of_a_bar_and_three_equal_letters_at_multiples_of_four(made):
    """What the network is given are the absolute addresses of a corpus, and groups begin at multiples of four."""
    assert int(made.addresses[0]) % 4 == 0
    groups_G4 = made.bytes.view(-1, 4)
    assert len(groups_G4) == 200
    assert (groups_G4[:, 0] == ord("|")).all()
    assert (groups_G4[:, 1:] == groups_G4[:, 1:2]).all()


def test_our_recipe_learns_200_triplets_by_heart(made):
    """Every one of the 800 characters is right, and it took fewer epochs than were planned."""
    _, found = toy.learn(made, TINY)
    assert found.accuracy == 1
    assert found.epochs < TINY.epochs


def test_characters_of_a_group_look_alike_and_groups_do_not(made):
    """Parities are the same within a group; those of two groups agree in about a half."""
    signs_NP = toy.Features(toy.OURS)(made.addresses)[:, : toy.OURS.parities]
    groups_GP = signs_NP[::4]
    assert torch.equal(signs_NP, groups_GP.repeat_interleave(4, 0))
    alike_GG = groups_GP @ groups_GP.T / toy.OURS.parities
    alike_GG.fill_diagonal_(0)
    assert alike_GG.abs().max() < 0.3


def test_the_comparison_has_the_promised_keys(made):
    """Ours and the original recipe, the latter for as much processor time as ours took."""
    found = toy.compare(made, replace(TINY, epochs=4), float("inf"), TINY_ORIGINAL)
    assert {"accuracy", "epochs", "processor_seconds", "original"} <= found.keys()
    assert {"accuracy", "epochs", "processor_seconds"} <= found["original"].keys()
    assert found["original"]["processor_seconds"] >= found["processor_seconds"] - 0.1
    assert len(found["by_epoch"]) == found["epochs"] == 4


def test_the_same_seed_learns_the_same(made):
    """Features, weights and order follow from the seed."""
    first, second = (toy.learn(made, replace(TINY, epochs=2))[1].by_epoch for _ in range(2))
    assert np.array_equal(first, second)
