"""Figures: how near a prediction comes to the truth. Each is named by its unit.

Legend: N elements or bytes.
"""

from typing import Any

import numpy as np
import numpy.typing as npt


def psnr_db(predicted: npt.NDArray[Any], truth: npt.NDArray[Any], peak: float) -> float:
    """Peak signal-to-noise ratio in decibel, 10 log10(peak^2 / mean squared error); inf where nothing differs."""
    error = predicted.astype(np.float64) - truth.astype(np.float64)
    mean_square = float(np.mean(error**2))
    return float("inf") if mean_square == 0 else float(10 * np.log10(peak**2 / mean_square)) if peak else float("-inf")


def peak_of(truth: npt.NDArray[Any]) -> float:
    """max - min of the true values, the peak of ``psnr_db``; NaN and infinities left out."""
    finite = truth[np.isfinite(truth)]
    return float(finite.max()) - float(finite.min()) if finite.size else 0.0


def byte_accuracy(predicted_N: npt.NDArray[np.uint8], truth_N: npt.NDArray[np.uint8]) -> float:
    """Share of bytes that are exactly right."""
    return float(np.mean(predicted_N == truth_N))
