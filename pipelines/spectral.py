"""A fill by the spectrum of what is known: the best linear guess for a texture whose waves are as strong as here.

Harmonic and biharmonic fills take it for granted that a wave of frequency k has a power of 1/k^2 or 1/k^4. Here the
power of each cosine of the whole frame is measured: of a first fill, then once more of its own result, smoothed over
neighbouring frequencies. The unknown elements are those of the least sum of squared cosines over their powers, which is
the mean of a Gaussian process given what is known (kriging: Matheron, "Principles of geostatistics", 1963). Cosines
and not sines, as a frame's edges are then mirrors and no steps.

Legend: U unknown elements.
"""

import numpy as np
import numpy.typing as npt
from scipy import fft, ndimage
from scipy.sparse.linalg import LinearOperator, cg

Floats = npt.NDArray[np.float32]

SMOOTHED = 4.5  # frequencies around each that say how strong it is
ROUNDS = 2
STEPS = 60  # of conjugate gradients
LEAST = 1e-6  # of the mean power: no wave is weaker


def filled(
    values: npt.NDArray[np.float64], unknown: npt.NDArray[np.bool_], first: npt.NDArray[np.float64]
) -> npt.NDArray[np.float64]:
    """``values`` with the unknown elements filled, from a ``first`` fill that the spectrum is measured on."""
    middle, spread = values[~unknown].mean(), values[~unknown].std()
    if not spread:
        return first
    guess = ((first - middle) / spread).astype(np.float32)
    for _ in range(ROUNDS):
        guess = _likeliest(guess, unknown, _power(guess))
    return np.where(unknown, guess.astype(np.float64) * spread + middle, values)


def _power(guess: Floats) -> Floats:
    """How strong each cosine is, 1 in the mean."""
    power = fft.dctn(guess, norm="ortho") ** 2
    smooth = np.exp(ndimage.gaussian_filter(np.log(power + LEAST * power.mean()), SMOOTHED, mode="nearest"))
    return np.asarray(smooth / smooth.mean(), np.float32)


def _likeliest(guess: Floats, unknown: npt.NDArray[np.bool_], power: Floats) -> Floats:
    """The guess with other unknown elements: of all the likeliest under these powers."""
    at_U = np.flatnonzero(unknown)

    def filtered(frame: Floats, by: Floats) -> Floats:
        cosines = fft.dctn(frame, norm="ortho") * by
        return np.asarray(fft.idctn(cosines, norm="ortho")).reshape(-1)[at_U]

    def operator(by: Floats) -> LinearOperator:
        def of(values_U: Floats) -> Floats:
            frame = np.zeros_like(guess)
            frame.reshape(-1)[at_U] = values_U.reshape(-1)
            return filtered(frame, by)

        return LinearOperator((len(at_U), len(at_U)), matvec=of, dtype=np.float32)

    inverse = np.asarray(1 / power, np.float32)
    right_U = -filtered(np.where(unknown, np.float32(0), guess), inverse)
    start_U = guess.reshape(-1)[at_U]
    # The same filter with the powers themselves all but inverts it: it would, were everything unknown.
    found_U, _ = cg(operator(inverse), right_U, x0=start_U, rtol=1e-4, maxiter=STEPS, M=operator(power))
    out = guess.copy()
    out.reshape(-1)[at_U] = found_U
    return out
