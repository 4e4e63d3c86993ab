"""The classical fills against exact oracles: what they must give where the answer is known in closed form."""

import numpy as np
import pytest
from scipy import ndimage

from aunn_model.evaluation import byte_accuracy, normalised_mse, peak_of, psnr_db
from pipelines import fills

SHAPE = (12, 14, 16)


def planes(*slopes):
    """A linear ramp over SHAPE."""
    grid = np.meshgrid(*(np.arange(n, dtype=np.float64) for n in SHAPE), indexing="ij")
    return sum(s * g for s, g in zip(slopes, grid, strict=True))


def hole():
    mask = np.zeros(SHAPE, bool)
    mask[4:8, 5:9, 6:11] = True
    return mask


def test_harmonic_fill_continues_a_linear_ramp_exactly():
    """A linear function is harmonic: an inner hole in it comes back to the solver's tolerance."""
    values = planes(3.0, -2.0, 0.5)
    filled = fills.harmonic(np.where(hole(), 0, values), hole())
    assert np.abs(filled - values).max() < 1e-3


def test_harmonic_fill_obeys_the_mean_value_property_and_the_maximum_principle():
    """Every filled element is the mean of its face neighbours and lies within the known values around."""
    values = np.random.default_rng(0).normal(size=SHAPE)
    filled = fills.harmonic(np.where(hole(), 99, values), hole())
    for z, y, x in np.argwhere(hole()):
        around = [filled[z + d, y, x] for d in (-1, 1)] + [filled[z, y + d, x] for d in (-1, 1)]
        around += [filled[z, y, x + d] for d in (-1, 1)]
        assert filled[z, y, x] == pytest.approx(np.mean(around), abs=1e-4)
    assert values.min() <= filled[hole()].min() <= filled[hole()].max() <= values.max()


def test_biharmonic_fill_goes_on_with_the_slope_where_harmonic_cannot():
    """A bowl has a slope at the rim of a hole: a bent plate follows it, a membrane stays flat."""
    y, x = np.mgrid[0:24, 0:24].astype(np.float64)
    gone = np.zeros(x.shape, bool)
    gone[8:15, 7:16] = True
    bowl = (x - 11) ** 2 + (y - 12) ** 2 + 3 * x
    found = {name: fills.FILLS[name](np.where(gone, 0, bowl), gone) for name in ("harmonic", "biharmonic")}
    assert np.abs(found["harmonic"] - bowl).max() > 10
    assert np.abs(found["biharmonic"] - bowl).max() < 0.25 * np.abs(found["harmonic"] - bowl).max()


def test_biharmonic_fill_is_that_of_scikit_image():
    """The same holes filled by skimage.restoration.inpaint_biharmonic: equal to a hundredth of the range."""
    restoration = pytest.importorskip("skimage.restoration")
    values = ndimage.gaussian_filter(np.random.default_rng(2).normal(size=(40, 40)), 3)
    gone = np.zeros(values.shape, bool)
    gone[10:17, 12:20] = gone[28:31, 5:30] = True
    ours = fills.biharmonic(np.where(gone, 0, values), gone)
    theirs = restoration.inpaint_biharmonic(np.where(gone, 0, values), gone)
    assert np.abs(ours - theirs)[gone].max() < 0.01 * np.ptp(values)


def test_a_fitted_frame_undoes_another_contrast():
    """A frame that is a line of its neighbour comes back exactly through the hole; a copy does not."""
    one = np.random.default_rng(3).normal(size=(8, 9))
    values, gone = np.stack([5 - 2 * one, one]), np.zeros((2, 8, 9), bool)
    gone[0, 2:5, 3:7] = True
    given = np.where(gone, 0, values)
    assert np.allclose(fills.fitted_frame(given, gone, ("t", "y", "x")), values)
    assert not np.allclose(fills.other_frame(given, gone, ("t", "y", "x")), values)
    assert fills.fitted_frame(given[0], gone[0], ("y", "x")) is None


def test_distance_counts_elements_to_what_is_known_in_the_frame():
    """1 next to a known element, more further in; a frame of which nothing is known is as far as can be."""
    gone = np.zeros((2, 1, 7), bool)
    gone[0, 0, 1:6] = gone[1] = True
    assert fills.distance(gone, ("t", "y", "x"))[0, 0].tolist() == [0, 1, 2, 3, 2, 1, 0]
    assert (fills.distance(gone, ("t", "y", "x"))[1] == 7).all()


def test_every_fill_that_the_axes_allow_is_made():
    """A volume has five; one with a time axis its other frames too."""
    gone = hole()
    values = np.where(gone, 0, planes(1.0, 2.0, 3.0))
    one = ["nearest", "linear", "harmonic", "biharmonic", "spectral"]
    assert list(fills.every(values, gone, ("z", "y", "x"))) == one
    series = fills.every(np.stack([values, values]), np.stack([gone, ~gone]), ("t", "z", "y", "x"))
    assert list(series)[5:] == ["other_frame"]  # there is no place where both are known to fit a line to
    series = fills.every(np.stack([values, values]), np.stack([gone, gone & False]), ("t", "z", "y", "x"))
    assert list(series)[5:] == ["other_frame", "fitted_frame"]


def test_linear_fill_is_exact_along_the_slices():
    """A missing slab of a volume linear in z comes back exactly; at the end the last slice is repeated."""
    values, gone = planes(2.0, 1.0, -1.0), np.zeros(SHAPE, bool)
    gone[3:6] = gone[11] = True
    filled = fills.linear(np.where(gone, 0, values), gone)
    assert np.allclose(filled[:11], values[:11])
    assert (filled[11] == values[10]).all()


def test_nearest_fill_takes_the_nearest_known_value():
    """In a gap of four the first half takes the left neighbour, the second the right one."""
    gone = np.array([0, 1, 1, 1, 1, 0], bool)
    assert fills.nearest(np.array([7.0, 0, 0, 0, 0, 9.0]), gone).tolist() == [7, 7, 7, 9, 9, 9]


@pytest.mark.parametrize("name", fills.FILLS)
def test_fills_never_touch_known_elements(name):
    """Whatever the fill, known elements keep their values, and every unknown one gets a finite value."""
    values = np.random.default_rng(1).normal(size=SHAPE)
    given = np.where(hole(), np.nan, values)
    filled = fills.FILLS[name](np.nan_to_num(given), hole())
    assert (filled[~hole()] == values[~hole()]).all()
    assert np.isfinite(filled).all()


def test_frames_are_filled_from_themselves_alone():
    """Time and channels are no space: a hole in one frame is not filled from the next one."""
    values = np.stack([np.full(SHAPE, 1.0), np.full(SHAPE, 500.0)])
    gone = np.stack([hole(), np.zeros(SHAPE, bool)])
    for fill in fills.FILLS.values():
        filled = fills.by_frame(fill, np.where(gone, 0, values), gone, ("t", "z", "y", "x"))
        assert np.allclose(filled, values)


def test_other_frame_copies_the_nearest_frame_that_has_the_place():
    """The same place in the frame next in time; None where there is no time."""
    values = np.arange(4.0)[:, None] * np.ones((4, 5))
    gone = np.zeros((4, 5), bool)
    gone[1, 2] = gone[0, 2] = True
    filled = fills.other_frame(np.where(gone, -1, values), gone, ("t", "x"))
    assert filled[1, 2] == 2
    assert filled[0, 2] == 2
    assert fills.other_frame(values, gone, ("y", "x")) is None


def test_figures_have_their_textbook_values():
    """A constant error of one tenth of the peak is 20 dB; where there is no error or no peak there is no figure."""
    truth = np.array([0.0, 50.0, 100.0])
    assert peak_of(truth) == 100
    assert psnr_db(normalised_mse(truth + 10, truth, 100.0)) == pytest.approx(20.0)
    assert psnr_db(normalised_mse(truth, truth, 100.0)) is None
    assert normalised_mse(truth, truth, 0.0) is None
    assert byte_accuracy(np.array([1, 2, 3, 4], np.uint8), np.array([1, 2, 0, 0], np.uint8)) == 0.5
