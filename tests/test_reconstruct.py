"""Reconstruction: who may look at what, what is written, and figures that are finite or absent."""

import json
from dataclasses import replace

import numpy as np
import pytest

from aunn_data.corpus import Corpus
from aunn_data.errors import RequestError
from aunn_data.registry import Holdout
from aunn_model.training import Settings
from pipelines import fills, runs
from pipelines.figures import summary
from pipelines.reconstruct import reconstruct
from pipelines.restored import write, write_preview
from pipelines.runs import Run
from pipelines.targets import holdout_targets, missing_targets, preview, region_targets, span_targets
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


def judged(corpus, target, observed="overwrite"):
    held = tuple(
        (h.holdout, h.record, corpus.entries.named(h.record).geometry.format_region(h.region))
        for h in corpus.holdouts()
    )
    run = Run(str(corpus.path), corpus.version, 32, held, SETTINGS)
    return reconstruct(runs.fresh(corpus, SETTINGS).network, corpus, run, target, observed)


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
    assert set(whole["peers"]) == {"network", *fills.FILLS}
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


def test_what_was_measured_is_not_overwritten(corpus):
    """A target with observed elements is refused, by name and with the way out; "keep" refuses one of nothing else."""
    [half] = region_targets(corpus, "a.npy", ["z=11:13"])
    with pytest.raises(RequestError, match=r"90 of 180 that were observed.*--observed keep"):
        judged(corpus, half, "refuse")
    [whole] = region_targets(corpus, "a.npy", ["z=1:3"])
    with pytest.raises(RequestError, match="180 of 180"):
        judged(corpus, whole, "keep")


def test_what_was_measured_is_kept_if_asked(corpus):
    """ "keep" fills the held-out half alone: the mask says so, and the measured half has its own values."""
    [half] = region_targets(corpus, "a.npy", ["z=11:13"])
    found = judged(corpus, half, "keep")
    assert found.target.mask[12].all()
    assert not found.target.mask[11].any()
    assert (found.filled[11] == found.truth[11]).all()
    assert found.figures["seen"] == 0


def test_all_that_a_source_lacks_can_be_asked_for(corpus):
    """Missing elements of every record, or of one; a record that lacks nothing is an error."""
    [target] = missing_targets(corpus)
    assert (target.entry.record, int(target.mask.sum())) == ("a.npy", 3)
    assert judged(corpus, missing_targets(corpus, "a.npy")[0], "refuse").figures["elements"] == 3
    with pytest.raises(RequestError, match="missing elements"):
        missing_targets(corpus, "b.npy")


def test_a_preview_asks_for_every_nth_element_and_writes_a_small_record(corpus, tmp_path):
    """Stride 2 along z, y and x: an eighth of the work, and a volume of half the edge with the spacing doubled."""
    [target] = holdout_targets(corpus, "slab")[:1]
    small = preview(target, 2)
    assert np.argwhere(small.mask)[:, 0].tolist() == [12] * 25
    found = judged(corpus, small)
    path = write_preview(found, tmp_path / "out", 2)
    written = np.load(path)
    assert written.shape == (12, 5, 5)
    assert (written == found.filled[::2, ::2, ::2]).all()
    assert "preview" in path.name


def test_checks_make_intervals_that_are_calibrated(corpus):
    """With checks the figures say whom they trust and how much of the truth lies within each interval."""
    figures = judged(corpus, holdout_targets(corpus, "slab")[0]).figures
    assert figures["calibrated"]
    assert set(figures["weights"]) == {"network", *fills.FILLS}
    assert sum(figures["weights"].values()) == pytest.approx(1, abs=0.001)
    assert figures["weights"]["network"] < 0.5  # it is not trained
    assert set(figures["coverage"]) >= {"0.50", "0.90", "0.99"}
    assert figures["psnr_db"] > figures["peers"]["network"]["psnr_db"] + 5


def test_without_checks_the_network_is_alone(tmp_path):
    """A run without checks is pooled with nothing, and says that its intervals are not calibrated."""
    corpus = Corpus.create(tmp_path / "corpus", 32)
    append(corpus, volume("a.npy", smooth((24, 9, 10))))
    corpus.add_holdouts([Holdout("slab", "a.npy", ((12, 14), (0, 9), (0, 10)))])
    settings = replace(SETTINGS, checks=0.0)
    run = Run(str(corpus.path), corpus.version, 32, (("slab", "a.npy", "z=12:14,y=0:9,x=0:10"),), settings)
    [target] = holdout_targets(corpus, "slab")
    figures = reconstruct(runs.fresh(corpus, settings).network, corpus, run, target).figures
    assert not figures["calibrated"]
    assert figures["weights"] is None
    assert figures["psnr_db"] == figures["peers"]["network"]["psnr_db"]
