"""Reconstruction: who may look at what, what is written, and figures that are finite or absent."""

import json
from dataclasses import replace

import numpy as np
import pytest

from aunn_data.corpus import Corpus
from aunn_data.registry import Holdout
from aunn_model.training import Settings
from pipelines import runs
from pipelines.figures import summary
from pipelines.reconstruct import reconstruct
from pipelines.restored import write
from pipelines.runs import Run
from pipelines.targets import holdout_targets, region_targets, span_targets
from tests.corpora import append, smooth, text, volume

SETTINGS = Settings(width=16, layers=2, batch=64, steps=1, precision="float32")


@pytest.fixture
def corpus(tmp_path):
    corpus = Corpus.create(tmp_path / "corpus", 32)
    scan = smooth((24, 9, 10))
    missing = np.zeros(scan.shape, bool)
    missing[0, 0, :3] = True
    append(corpus, volume("a.npy", scan, missing=missing), volume("b.npy", np.full((4, 5, 6), 7, "<i2")))
    append(corpus, text("c.txt", b"To be, or not to be\n" * 9))
    slab, other = ((12, 14), (0, 9), (0, 10)), ((20, 21), (0, 9), (0, 10))
    corpus.add_holdouts([Holdout("slab", "a.npy", slab), Holdout("other", "a.npy", other)])
    corpus.add_holdouts([Holdout("slab", "b.npy", ((1, 2), (0, 5), (0, 6))), Holdout("slab", "c.txt", ((20, 40),))])
    return corpus


def judged(corpus, target):
    held = tuple(
        (h.holdout, h.record, corpus.entries.named(h.record).geometry.format_region(h.region))
        for h in corpus.holdouts()
    )
    run = Run(str(corpus.path), corpus.version, 32, held, SETTINGS)
    return reconstruct(runs.fresh(corpus, SETTINGS).network, corpus, run, target, "overwrite")


def test_fills_see_no_more_than_the_network_did(corpus):
    """What is asked for, missing, or held out of the run under any name is unknown to the classical fills too."""
    found = judged(corpus, holdout_targets(corpus, "slab")[0])
    expected = np.ones((24, 9, 10), bool)
    expected[12:14] = expected[20] = expected[0, 0, :3] = False
    assert (found.known == expected).all()
    assert found.figures["seen"] == 0


def test_what_was_trained_on_is_said_to_be_seen(corpus):
    """A region half held out is half seen."""
    [target] = region_targets(corpus, "a.npy", ["z=11:13"])
    assert judged(corpus, target).figures["seen"] == 0.5


def test_only_what_was_asked_for_changes(corpus):
    """Elements outside the target keep their bits; the uncertainty is 0 there and above 0 inside."""
    found = judged(corpus, holdout_targets(corpus, "slab")[0])
    mask = found.target.mask
    assert (found.filled[~mask] == found.truth[~mask]).all()
    assert (found.uncertainty[~mask] == 0).all()
    assert (found.uncertainty[mask] > 0).all()


def test_linear_fill_of_a_smooth_slab_is_near_the_truth(corpus):
    """The peers' figures are those of a real fill: linear along z is far better than an untrained network."""
    figures = judged(corpus, holdout_targets(corpus, "slab")[0]).figures
    assert figures["peers"]["linear"]["psnr_db"] > figures["peers"]["network"]["psnr_db"] + 5


def test_a_span_asks_for_the_elements_whose_bytes_it_holds(corpus):
    """One address of the fine plane asks for the whole element; two records are asked where the span holds both."""
    entry = corpus.entries.named("a.npy")
    at = (
        entry.payload_start
        + entry.geometry.plane_extent
        + int(entry.geometry.offsets(((3, 4), (4, 5), (5, 6)))[0, 0, 0])
    )
    [target] = span_targets(corpus, at, at + 1)
    assert np.argwhere(target.mask).tolist() == [[3, 4, 5]]
    assert [t.entry.record for t in span_targets(corpus, at, corpus.entries.named("c.txt").payload_stop)] == [
        "a.npy",
        "b.npy",
        "c.txt",
    ]


def test_figures_are_finite_or_absent(corpus):
    """A constant record, a text and a scan together: every figure is a number or null, never NaN or infinite."""
    figures = [judged(corpus, target).figures for target in holdout_targets(corpus, "slab")]
    whole = summary(figures)
    json.dumps(whole, allow_nan=False)
    assert whole["psnr_db"] == pytest.approx(figures[0]["psnr_db"])  # the only record with a peak
    assert set(whole["peers"]) == {"network", "nearest", "linear", "harmonic", "biharmonic"}
    assert figures[2]["peers"]["nearest"]["byte_accuracy"] is not None


def test_missing_elements_can_be_asked_for_and_are_not_judged(corpus, tmp_path):
    """A region of missing elements is filled in the file; there is no truth to compare with."""
    [target] = region_targets(corpus, "a.npy", ["z=0,y=0,x=0:3"])
    found = judged(corpus, target)
    assert found.figures["bytes"] == 0
    assert found.figures["psnr_db"] is None
    path = write(found, tmp_path / "out")[0]
    assert (np.load(path)[0, 0, :3] == found.filled[0, 0, :3]).all()


def test_records_that_differ_in_suffix_alone_keep_their_own_files(corpus, tmp_path):
    """a.png beside a.jpg: no file of one record overwrites one of the other."""
    image = np.arange(80, dtype=np.uint8).reshape(8, 10)
    records = [volume(name, image, modality="image") for name in ("a.png", "a.bmp")]
    named = [replace(r, header=replace(r.header, format=f)) for r, f in zip(records, ("png", "bmp"), strict=True)]
    append(corpus, *named)
    files = []
    for name in ("a.png", "a.bmp"):
        [target] = region_targets(corpus, name, ["y=2:4"])
        files += write(judged(corpus, target), tmp_path / "out")
    assert len(set(files)) == 6
