"""The fill by the spectrum of what is known: a Gaussian process' mean, exact where it can be computed densely."""

import numpy as np
import pytest
from scipy import fft, ndimage

from aunn_model.evaluation import normalised_mse, psnr_db
from pipelines import fills, spectral


def with_hole(shape, *edges):
    gone = np.zeros(shape, bool)
    gone[tuple(slice(*edge) for edge in edges)] = True
    return gone


def texture(shape, seed=0):
    """Noise of a narrow band: waves of some ten elements, in no direction."""
    noise = np.random.default_rng(seed).normal(size=shape)
    return ndimage.gaussian_filter(noise, 1.5) - ndimage.gaussian_filter(noise, 3)


def test_unknown_elements_are_the_mean_of_a_gaussian_process():
    """For a small frame and any powers: the same as the dense conditional mean, -A_uu^-1 A_uk x_k."""
    rng, shape = np.random.default_rng(1), (6, 7)
    power = np.exp(rng.normal(size=shape)).astype(np.float32)
    values, gone = rng.normal(size=shape).astype(np.float32), with_hole(shape, (2, 5), (1, 5))
    cosines_NN = np.stack([fft.dctn(unit.reshape(shape), norm="ortho").ravel() for unit in np.eye(42)], axis=1)
    inverse_NN = cosines_NN.T @ (cosines_NN / power.reshape(-1, 1))
    u, k = np.flatnonzero(gone), np.flatnonzero(~gone)
    expected_U = -np.linalg.solve(inverse_NN[np.ix_(u, u)], inverse_NN[np.ix_(u, k)] @ values.ravel()[k])
    found = spectral._likeliest(values, gone, power)
    assert found[gone] == pytest.approx(expected_U, abs=1e-3)
    assert (found[~gone] == values[~gone]).all()


def test_a_texture_goes_on_where_smooth_fills_end():
    """Through a hole as wide as its waves the texture comes back 3 dB nearer than by any other fill."""
    values, gone = texture((64, 64)), with_hole((64, 64), (20, 28), (30, 38))
    found = {name: fill(np.where(gone, 0, values), gone) for name, fill in fills.FILLS.items()}
    db = {name: psnr_db(normalised_mse(one[gone], values[gone], np.ptp(values))) for name, one in found.items()}
    assert db.pop("spectral") > max(db.values()) + 3


def test_what_is_known_stays_and_scale_and_level_do_not_matter():
    """Known elements come back exactly; values times 1,000 plus 5,000 are filled so too."""
    values, gone = texture((32, 40)), with_hole((32, 40), (8, 14), (9, 17))
    plain = fills.by_spectrum(np.where(gone, 0, values), gone)
    large = fills.by_spectrum(np.where(gone, 0, 1000 * values + 5000), gone)
    assert (plain[~gone] == values[~gone]).all()
    assert large == pytest.approx(1000 * plain + 5000, abs=0.05 * 1000 * values.std())


def test_a_frame_of_one_value_is_filled_with_it():
    """No spectrum, no division by nothing."""
    gone = with_hole((9, 9), (2, 5), (2, 5))
    assert fills.by_spectrum(np.where(gone, 0, 7.0), gone) == pytest.approx(np.full((9, 9), 7.0))


def test_frames_too_large_for_their_transforms_have_the_other_fills(monkeypatch):
    """One element too many, and the spectrum is not measured."""
    values, gone = texture((16, 16)), with_hole((16, 16), (4, 6), (4, 6))
    assert "spectral" in fills.every(values, gone, ("y", "x"))
    monkeypatch.setattr(fills, "MOST_WAVES", 255)
    assert "spectral" not in fills.every(values, gone, ("y", "x"))
    assert "biharmonic" in fills.every(values, gone, ("y", "x"))
