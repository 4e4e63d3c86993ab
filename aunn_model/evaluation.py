"""Figures: how near a prediction comes to the truth. Each is named by its unit.

Legend: N elements or bytes.
"""

from typing import Any

import numpy as np
import numpy.typing as npt


def normalised_mse(predicted: npt.NDArray[Any], truth: npt.NDArray[Any], peak: float) -> float | None:
    """Mean squared error over peak^2, without unit; None where the peak is 0, of a constant record."""
    error = predicted.astype(np.float64) - truth.astype(np.float64)
    return float(np.mean(error**2)) / peak**2 if peak else None


def psnr_db(nmse: float | None) -> float | None:
    """Peak signal-to-noise ratio in decibel of a normalised mean squared error; None if there is no error at all."""
    return float(-10 * np.log10(nmse)) if nmse else None


def peak_of(truth: npt.NDArray[Any]) -> float:
    """max - min of the true values, the peak of ``psnr_db``; NaN and infinities left out."""
    finite = truth[np.isfinite(truth)]
    return float(finite.max()) - float(finite.min()) if finite.size else 0.0


def byte_accuracy(predicted_N: npt.NDArray[np.uint8], truth_N: npt.NDArray[np.uint8]) -> float:
    """Share of bytes that are exactly right."""
    return float(np.mean(predicted_N == truth_N))
