"""The reconstruction benchmark: its cases hold out what they say, its peers work, its table prints."""

import json
from functools import partial

import numpy as np
import pytest

from aunn_data.sampling import trainable
from benchmarks import cases, coordinate, inpainting, reconstruction
from benchmarks.cases import CASES, Case, ball, blocks, boxes, make
from benchmarks.coordinate import Fourier, HashGrid, Limit, Siren, fit
from benchmarks.reconstruction import METHODS, Asked, main, measured
from tests.corpora import smooth

COUNTS = {
    "papyrus-blocks": 12 * 16**3,
    "papyrus-slab": 8 * 128 * 128,
    "papyrus-fourth": 16 * 128 * 128,
    "papyrus-20": 209712,
    "mri-blocks-alone": 30 * 4 * 6 * 6,
    "mri-slices-alone": 6 * 96 * 128,
    "mri-blocks": 30 * 4 * 6 * 6,
    "mri-slices": 6 * 96 * 128,
    "brain-slab": 4 * 41 * 33,
    "brain-ball": 515,
    "kodak-holes": 3 * 19 * 32 * 32,
    "kodak-half": 3 * 196881,
    "mnist-lower": 100 * 14 * 28,
    "shakespeare-lines": 1149,
}


@pytest.fixture(autouse=True)
def small_batches(monkeypatch):
    """Coordinate networks train on fewer elements a step than in earnest."""
    monkeypatch.setattr(coordinate, "BATCH", 512)


def held(truth, asked, axes=("z", "y", "x"), hidden=None, name="smooth"):
    """A case of an array, which goes in as .npy."""

    def files(folder):
        np.save(folder / "smooth.npy", truth)
        return [folder / "smooth.npy"]

    return Case(name, truth, axes, asked, np.zeros_like(asked) if hidden is None else hidden, files)


def volume(frames=0):
    """A smooth volume, or several in time that differ in contrast, with a block missing in the first."""
    truth = smooth((12, 16, 16))
    asked = blocks(truth.shape, (4, 5, 5), 2, 0)
    if not frames:
        return held(truth, asked)
    others = [np.zeros_like(asked)] * (frames - 1)
    truth = np.stack([truth, *(2 * truth + 50 * k for k in range(1, frames))])
    return held(truth, np.stack([asked, *others]), ("t", "z", "y", "x"))


def error(case, values):
    """Mean squared error where asked."""
    return float(np.mean((values[case.asked] - case.truth[case.asked]) ** 2))


def mean_error(case):
    """That of the mean of what is known."""
    return error(case, np.full(case.truth.shape, case.truth[case.known].mean()))


@pytest.mark.parametrize("name", CASES)
def test_a_case_holds_out_what_it_says_and_nothing_else(name, shared_data, tmp_path):
    """So many elements are asked for; the corpus trains on exactly what is known, and holds it as it is."""
    case = make(name, shared_data)
    assert case.asked.sum() == COUNTS[name]
    assert not (case.asked & case.hidden).any()
    corpus = case.corpus(tmp_path)
    spans_S, planes = trainable(corpus), corpus.entries[0].geometry.planes
    headers = sum(entry.header_bytes for entry in corpus.entries)
    assert (spans_S[:, 1] - spans_S[:, 0]).sum() == headers + planes * case.known.sum()
    stored = np.stack([np.asarray(corpus.record(entry).elements) for entry in corpus.entries])
    known = case.by_record(corpus, case.known)
    assert (stored[known] == case.by_record(corpus, case.truth)[known]).all()
    if case.scattered:  # the truth is not even in the corpus
        assert (stored[~known] == cases.GAP).all()


def test_what_is_held_out_follows_from_the_seed(shared_data):
    """The same seed holds out the same, another one something else."""
    first, again, other = (make("papyrus-blocks", shared_data, seed).asked for seed in (0, 0, 1))
    assert (first == again).all()
    assert (first != other).any()


def test_boxes_make_up_their_mask():
    """Disjoint boxes cover a ball exactly, and two blocks; a whole slice is one box."""
    for mask in (ball((9, 11, 13), (4, 5, 6), 3.5), blocks((20, 20), (4, 5), 2, 0)):
        count = np.zeros(mask.shape, int)
        for box in boxes(mask):
            count[tuple(slice(*span) for span in box)] += 1
        assert (count == mask).all()
    assert list(boxes(cases.slices((8, 4, 4), slice(2, 4)))) == [((2, 4), (0, 4), (0, 4))]


@pytest.mark.parametrize("method", ["nearest", "linear", "harmonic", "skimage_biharmonic"])
def test_a_classical_fill_is_better_than_the_mean(method):
    """On a smooth volume with two blocks missing."""
    case = volume()
    [fill] = METHODS[method]
    assert error(case, fill(case, Asked(60)).values) < mean_error(case)


@pytest.mark.parametrize("frames", [False, True], ids=["alone", "with time"])
@pytest.mark.parametrize(
    ("made", "steps"),
    [(Siren, 150), (partial(Fourier, scale=0.5), 100), (HashGrid, 100)],
    ids=["siren", "fourier", "hash"],
)
def test_a_coordinate_network_is_better_than_the_mean(made, steps, frames):
    """On the same, within a few steps."""
    case = volume(2 if frames else 0)
    filled = fit(made, case.given, case.known, case.asked, case.axes, Limit(steps=steps), frames=frames)
    assert error(case, filled) < mean_error(case) / 2
    assert (filled[case.known] == case.truth[case.known]).all()


def test_a_coordinate_network_follows_from_the_seed_and_not_from_what_is_asked_for():
    """Equal seeds give equal values, whatever stands where something is asked for; another seed gives others."""
    case = volume()
    poisoned = np.where(case.asked, 1e6, case.given)
    fitted = partial(fit, Siren, known=case.known, asked=case.asked, axes=case.axes, limit=Limit(steps=3))
    first = fitted(given=case.given, seed=1)[case.asked]
    assert (first == fitted(given=poisoned, seed=1)[case.asked]).all()
    assert (first != fitted(given=case.given, seed=2)[case.asked]).any()


def test_colours_are_values_of_one_place():
    """An image whose channels run together is filled in all of them."""
    plane = smooth((24, 24), top=200)
    truth = np.stack([plane, 255 - plane, plane // 2]).astype(np.uint8)
    asked = np.repeat(blocks((24, 24), (6, 6), 1, 0)[None], 3, axis=0)
    case = held(truth, asked, ("channel", "y", "x"))
    filled = fit(Siren, case.given, case.known, case.asked, case.axes, Limit(steps=150))
    assert error(case, filled) < mean_error(case) / 2


def test_another_contrast_is_brought_to_scale():
    """Frames on a straight line are copied with their contrast turned back; a hidden frame is no help."""
    case = volume(frames=3)
    assert error(case, METHODS["other_frame"][0](case, Asked(1)).values) > mean_error(case)
    assert error(case, METHODS["fitted_frame"][0](case, Asked(1)).values) < 1e-6
    hidden = np.zeros_like(case.asked)
    hidden[1:] = True
    alone = held(case.truth, case.asked, case.axes, hidden)
    assert METHODS["fitted_frame"][0](alone, Asked(1)) is None
    assert METHODS["siren+t"][0](alone, Asked(1)) is None


def test_inpainting_that_takes_too_long_is_ended_and_counted():
    """Biharmonic inpainting with no time gives a row that says of how many unknowns."""
    row = measured(volume(), "skimage_biharmonic", METHODS["skimage_biharmonic"][0], Asked(0.01))
    assert (row.psnr_db, row.note) == (None, "not done: 200 unknowns")


def test_digits_are_completed_by_their_like():
    """Of two kinds of items the half that is missing is that of its own kind, by a k that suits."""
    rng = np.random.default_rng(0)
    kind = np.arange(40) % 2
    truth = np.clip(200 * kind[:, None, None] + rng.integers(0, 40, (40, 6, 6)), 0, 255).astype(np.uint8)
    asked = np.zeros(truth.shape, np.bool_)
    asked[30:, 3:] = True
    case = held(truth, asked, ("item", "y", "x"))
    filled, neighbours = inpainting.nearest_items(case.given, case.asked)
    assert neighbours > 1
    assert error(case, filled) < mean_error(case) / 10


def test_an_ngram_is_a_distribution_counted_in_what_is_known():
    """Probabilities sum to 1; bytes that nobody knows are counted neither as bytes nor as contexts."""
    text = np.frombuffer(b"abcabcabcabcXbcabcabc", np.uint8)
    asked = text == ord("X")
    for order in (1, 3):
        likely_NV = inpainting.ngram(text, ~asked, asked, order)
        assert likely_NV.sum(axis=1) == pytest.approx(1)
        assert likely_NV[0, ord("X")] < 1 / 256
    assert likely_NV[0].argmax() == ord("a")
    assert likely_NV[0, ord("a")] > 0.9


def test_a_table_and_a_document_say_the_same_methods(tmp_path, monkeypatch, capsys):
    """Ours, a fill, a network and the best of a sweep, each a line with its PSNR and SSIM; --json has the same rows."""
    monkeypatch.setitem(CASES, "smooth", lambda name, data, seed: volume())
    methods = ["ours", "harmonic", "siren", "fourier"]
    command = ["--data", str(tmp_path), "--only", "smooth", "--methods", ",".join(methods), "--seconds", "0.3"]
    main(command)
    lines = capsys.readouterr().out.splitlines()[2:]
    assert [line.split()[:2] for line in lines] == [["smooth", method] for method in methods]
    assert all(float(figure) for line in lines for figure in line.split()[2:4])
    assert "best of scales 1: " in lines[3]
    main([*command, "--json"])
    document = json.loads(capsys.readouterr().out)
    assert [row["method"] for row in document["rows"]] == methods
    assert document["rows"][0]["bits_per_byte"] > 0


def test_similarity_is_that_of_what_was_asked_for():
    """1 where the filled elements are the true ones, less where they are not."""
    case = volume()
    assert reconstruction.similarity(case.truth, case.truth, case.asked) == pytest.approx(1)
    assert reconstruction.similarity(case.truth, case.given, case.asked) < 0.8


def test_an_unknown_case_is_a_usage_error(tmp_path, capsys):
    """Exit 2, and its name."""
    with pytest.raises(SystemExit) as stopped:
        main(["--data", str(tmp_path), "--only", "scroll"])
    assert stopped.value.code == 2
    assert "scroll" in capsys.readouterr().err
