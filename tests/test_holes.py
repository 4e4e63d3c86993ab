"""Checks: what is left out beside the holes, like them, never in them, to see how well they are filled."""

from dataclasses import replace

import numpy as np
import pytest
import torch
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from aunn_data import spans
from aunn_data.corpus import Corpus
from aunn_data.header import NO_SHA256
from aunn_data.registry import Holdout
from aunn_data.sampling import held_out, trainable
from aunn_model import checkpoint
from aunn_model.training import Settings
from pipelines import runs
from pipelines.batches import Batches
from pipelines.checkup import Checkup
from pipelines.holes import _moved, addresses_of, checks_of, holes_of, spans_of
from pipelines.metrics import read_log
from pipelines.train import train_run
from tests.corpora import append, smooth, text, volume
from tests.test_training import SMALL, assert_equal, weights

CPU = torch.device("cpu")
LOWER = "y=4:8"


def holdouts_of(corpus):
    geometry_of = {entry.record: entry.geometry for entry in corpus.entries}
    return tuple((h.holdout, h.record, geometry_of[h.record].format_region(h.region)) for h in corpus.holdouts())


def checks(corpus, share=0.1, seed=0):
    return checks_of(corpus, holdouts_of(corpus), share, seed)


def touching(mask):
    """The places of a mask and all around them, diagonals too."""
    return ndimage.binary_dilation(mask, np.ones((3,) * mask.ndim))


def blocks(*corners, shape=(12, 16, 16), size=3):
    mask = np.zeros(shape, np.bool_)
    for corner in corners:
        mask[tuple(slice(at, at + size) for at in corner)] = True
    return mask


@pytest.fixture
def corpus(tmp_path):
    """A scan with two held-out blocks, another that is whole, a text."""
    corpus = Corpus.create(tmp_path / "corpus", address_bits=32)
    append(
        corpus, volume("a.npy", smooth((8, 9, 10))), volume("b.npy", smooth((8, 9, 10), 1)), text("c.txt", b"a" * 99)
    )
    corpus.add_holdouts(
        [Holdout("h", "a.npy", ((1, 3), (0, 3), (2, 5))), Holdout("h", "a.npy", ((5, 7), (5, 8), (2, 5)))]
    )
    return corpus


def digits(folder, whole, halved):
    """Pictures of 8 by 8 of which some lack their lower halves."""
    corpus = Corpus.create(folder, address_bits=32)
    rng = np.random.default_rng(0)
    names = [f"{number:02}.npy" for number in range(whole + halved)]
    append(corpus, *(volume(name, rng.integers(0, 255, (8, 8), np.uint8), modality="image") for name in names))
    corpus.add_holdouts([Holdout("lower", name, ((4, 8), (0, 8))) for name in names[whole:]])
    return corpus


# ---- where they lie ----------------------------------------------------------------------------------------------


@given(
    st.lists(st.tuples(st.integers(0, 9), st.integers(0, 13), st.integers(0, 13)), min_size=1, max_size=12),
    st.floats(0.005, 0.3),
    st.integers(0, 99),
)
@settings(deadline=None)
def test_moved_holes_neither_overlap_nor_touch_a_hole(corners, share, seed):
    """Where holes are moved, no element of a check lies in a hole or beside one, not even across a corner."""
    holes = blocks(*corners)
    found = _moved(holes, ("z", "y", "x"), share, np.random.default_rng(seed))
    assert not (touching(holes) & found).any()


def test_a_moved_hole_has_its_shape():
    """Each piece of a check is as large as a hole, where the share allows it."""
    holes = blocks((0, 0, 0), (8, 8, 8), (4, 12, 2))
    parts, count = ndimage.label(_moved(holes, ("z", "y", "x"), 0.5, np.random.default_rng(0)))
    assert 3 < count <= 3 * 8  # each several times
    assert {parts[box].shape for box in ndimage.find_objects(parts)} == {(3, 3, 3)}


@pytest.mark.parametrize("share", [0.01, 0.03, 0.1])
def test_the_share_is_about_as_asked(share):
    """Many small holes are moved until their elements make up the share of what is known: one hole more at most."""
    corners = [(z, y, x) for z in (0, 8, 16, 24) for y in (0, 8, 16, 24) for x in (0, 8, 16, 24)]
    holes = blocks(*corners, shape=(28, 28, 28))
    found = _moved(holes, ("z", "y", "x"), share, np.random.default_rng(0))
    asked = share * (~holes).sum()
    assert asked * 0.7 <= found.sum() < asked + 27


def test_one_large_hole_is_cropped_to_the_share():
    """Of a slab that is larger than the share a middle part is moved, not the slab."""
    holes = np.zeros((16, 16, 16), np.bool_)
    holes[4:8] = True
    found = _moved(holes, ("z", "y", "x"), 0.02, np.random.default_rng(0))
    assert 0.3 * 0.02 * (~holes).sum() < found.sum() < 0.02 * (~holes).sum() + 1


def test_scattered_holes_have_scattered_checks():
    """Where every fifth voxel at random is missing, checks are single voxels between them, about the share."""
    holes = np.random.default_rng(0).random((24, 24, 24)) < 0.2
    found = _moved(holes, ("z", "y", "x"), 0.05, np.random.default_rng(1))
    assert not (found & holes).any()
    assert found.sum() / (~holes).sum() == pytest.approx(0.05, rel=0.15)


def test_holes_of_one_frame_have_checks_of_that_frame():
    """Of a series in time a check has the frames that its hole has, and its hole's place in none of them."""
    holes = np.zeros((3, 6, 8, 8), np.bool_)
    holes[1, 0:2, 0:3, 0:3] = True
    found = _moved(holes, ("t", "z", "y", "x"), 0.2, np.random.default_rng(0))
    assert found[1].any()
    assert not found[[0, 2]].any()
    assert not (touching(holes[1]) & found[1]).any()


@pytest.mark.parametrize("share", [0.02, 0.1, 1.0])
def test_holes_that_fit_nowhere_are_laid_in_whole_records_alike(tmp_path, share):
    """Lower halves of digits: the checks are lower halves of digits that are whole, not scraps of upper halves."""
    corpus = digits(tmp_path / "corpus", whole=20, halved=5)
    found = checks(corpus, share)
    names = [check.entry.record for check in found]
    assert len(names) == len(set(names)) == {0.02: 1, 0.1: 2, 1.0: 5}[share]
    for check in found:
        assert int(check.entry.record[:2]) < 20
        assert (np.nonzero(check.mask.any(axis=1))[0] == [4, 5, 6, 7]).all()
        assert check.mask.sum() == 32


def test_without_whole_records_alike_a_hole_that_fits_nowhere_is_cropped(tmp_path):
    """A picture of which half is gone, alone in the corpus, still has checks, beside the hole."""
    [check] = checks(digits(tmp_path / "corpus", whole=0, halved=1), 0.2)
    assert check.mask[:3].any()
    assert not check.mask[3:].any()


def test_there_are_no_checks_without_holes_or_a_share(corpus, tmp_path):
    """A corpus without holdouts has none, and a share of 0 has none."""
    assert checks(corpus, 0.0) == []
    whole = Corpus.create(tmp_path / "whole", address_bits=32)
    append(whole, volume("a.npy", smooth((4, 5, 6))))
    assert checks(whole) == []


def test_missing_elements_are_holes_too(tmp_path):
    """A scan that lacks a block, with no holdout, has checks beside it."""
    corpus = Corpus.create(tmp_path / "corpus", address_bits=32)
    append(corpus, volume("a.npy", smooth((12, 16, 16)), missing=blocks((2, 2, 2), (8, 9, 9))))
    [check] = checks(corpus)
    assert check.mask.any()
    assert not (touching(holes_of(corpus, check.entry, ())) & check.mask).any()


def test_checks_are_a_pure_function_of_corpus_holdouts_share_and_seed(corpus):
    """The same arguments give the same checks, another seed others; they are trained on by nobody."""
    first, again, other = checks(corpus), checks(corpus), checks(corpus, seed=1)
    assert [c.entry.record for c in first] == ["a.npy"]
    assert (first[0].mask == again[0].mask).all()
    assert (first[0].mask != other[0].mask).any()


def test_checks_never_lie_on_a_payload_that_is_held_out_by_another_name(tmp_path):
    """Of exact duplicates that share a payload what is held out of one is a hole of all."""
    corpus = digits(tmp_path / "corpus", whole=8, halved=1)
    first = corpus.entries.named("00.npy")
    names = [f"twin{number}.npy" for number in range(8)]
    for name, entry in zip(names, list(corpus.entries)[:8], strict=True):
        corpus.append([replace(volume(name, corpus.elements(entry), modality="image"), twin=entry)], [NO_SHA256])
    corpus.add_holdouts([Holdout("lower", name, ((4, 8), (0, 8))) for name in names[:7]])
    assert corpus.entries.named(names[0]).payload_start == first.payload_start
    held = spans.addresses(held_out(corpus))
    for seed in range(5):
        found = checks(corpus, 1.0, seed)
        assert not np.isin(spans.addresses(spans_of(found)), held).any()


def test_addresses_of_a_mask_are_those_of_its_elements_in_every_plane(corpus):
    """The addresses of a check are its elements' bytes, digit plane after digit plane; spans are their union."""
    entry = corpus.entries.named("a.npy")
    mask = np.zeros(entry.shape, np.bool_)
    mask[2, 3, 4:6] = mask[7, 8, 9] = True
    found = addresses_of(entry, mask)
    assert len(found) == 3 * entry.geometry.planes == 6
    regions = (((2, 3), (3, 4), (4, 6)), ((7, 8), (8, 9), (9, 10)))
    expected = spans.union(*(entry.spans(region) for region in regions))
    assert np.sort(found).tolist() == spans.addresses(expected).tolist()


# ---- training with them ------------------------------------------------------------------------------------------


CHECKED = replace(SMALL, checks=0.1, steps=8)


def test_checks_are_trainable_bytes_that_no_batch_has(corpus):
    """All checks could be trained on; batches without them have every other trainable address and none of theirs."""
    all_N = spans.addresses(trainable(corpus))
    left_out = spans_of(checks(corpus))
    batches = Batches(corpus, SMALL, CPU, left_out)
    assert np.isin(spans.addresses(left_out), all_N).all()
    drawn = batches.sampler.addresses(np.arange(batches.size))
    assert sorted(drawn.tolist()) == sorted(set(all_N.tolist()) - set(spans.addresses(left_out).tolist()))


def poison(corpus, spans_S):
    array = zarr.open_group(corpus.path)["bytes"]
    for start, stop in spans_S.tolist():
        array[start:stop] = 255 - array[start:stop]
    return Corpus.open(corpus.path)


def test_the_bytes_of_checks_never_reach_the_network(corpus, tmp_path):
    """Checks overwritten in the store, the same seed trained again: identical weights, bit for bit."""
    train_run(corpus, tmp_path / "clean", CHECKED)
    poisoned = poison(corpus, spans_of(checks(corpus)))
    train_run(poisoned, tmp_path / "poisoned", CHECKED)
    assert_equal(weights(tmp_path / "clean"), weights(tmp_path / "poisoned"))
    assert found_in_log(tmp_path / "clean") != found_in_log(tmp_path / "poisoned")


def test_held_out_bytes_change_neither_weights_nor_checks_nor_the_choice_of_a_checkpoint(corpus, tmp_path):
    """With checks on, held-out bytes overwritten give the same weights, the same curve and the same best checkpoint."""
    train_run(corpus, tmp_path / "clean", CHECKED)
    train_run(poison(corpus, held_out(corpus)), tmp_path / "poisoned", CHECKED)
    assert_equal(weights(tmp_path / "clean"), weights(tmp_path / "poisoned"))
    assert found_in_log(tmp_path / "clean") == found_in_log(tmp_path / "poisoned")
    assert checkpoint.best(tmp_path / "clean").name == checkpoint.best(tmp_path / "poisoned").name


def found_in_log(run):
    return [line["checks"] for line in read_log(run) if "checks" in line]


def test_the_log_has_the_held_out_curve_by_modality(tmp_path):
    """log.jsonl says bits a byte of every modality with holes, and PSNR where elements are quantities."""
    corpus = Corpus.create(tmp_path / "corpus", address_bits=32)
    append(corpus, volume("a.npy", smooth((8, 9, 10))), text("b.txt", b"To be, or not to be\n" * 30))
    corpus.add_holdouts([Holdout("h", "a.npy", ((1, 3), (0, 3), (2, 5))), Holdout("h", "b.txt", ((100, 120),))])
    train_run(corpus, tmp_path / "run", CHECKED)
    curve = found_in_log(tmp_path / "run")
    assert len(curve) == CHECKED.steps
    assert all(set(found) == {"scan", "text"} for found in curve)
    assert set(curve[0]["scan"]) == {"bits_per_byte", "mse", "psnr_db"}
    assert set(curve[0]["text"]) == {"bits_per_byte"}
    assert curve[-1]["text"]["bits_per_byte"] < curve[0]["text"]["bits_per_byte"]


def test_a_checkup_says_what_the_network_makes_of_the_checks(corpus):
    """Its mse is that of the expected coarsest digit at the check's addresses, computed here by hand."""
    [check] = checks(corpus)
    network = runs.fresh(corpus, SMALL).network
    found = Checkup(corpus, [check], SMALL)(network)["scan"]
    addresses = addresses_of(check.entry, check.mask)[: check.mask.sum()]
    share = network(torch.from_numpy(addresses)).detach().double().softmax(1)
    expected = (share @ torch.arange(256.0, dtype=torch.float64)).numpy()
    true = np.array([int(corpus.read(a, a + 1)[0]) for a in addresses])
    assert found["mse"] == pytest.approx(((expected - true) ** 2).mean(), rel=1e-4)
    surprise = -torch.log2(share[torch.arange(len(true)), torch.from_numpy(true)]).mean()
    assert found["bits_per_byte"] == pytest.approx(float(surprise), rel=1e-4)


def test_one_record_may_have_two_checks(tmp_path):
    """Two patterns of holes that fit nowhere may fall on the same whole record: its bytes are asked once."""
    corpus = digits(tmp_path / "corpus", whole=8, halved=1)
    corpus.append([volume("half.npy", np.zeros((8, 8), np.uint8) + 9, modality="image")], [NO_SHA256])
    corpus.add_holdouts([Holdout("left", "half.npy", ((0, 8), (0, 5)))])
    settings = Settings(**{**SMALL.__dict__, "checks": 1.0})
    network = runs.fresh(corpus, settings).network
    for seed in range(4):
        assert Checkup(corpus, checks(corpus, 1.0, seed), settings)(network)["image"]["bits_per_byte"] > 0
