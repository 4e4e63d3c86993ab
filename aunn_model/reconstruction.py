"""Ask for any address: what the network holds to stand there, and how sure it is.

Legend: N addresses, V = 256.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from aunn_model.network import BYTES, Network

MIDDLE = (BYTES - 1) / 2


def together(device: torch.device) -> int:
    """How many addresses to ask at once: what a layer says of them stays in a processor's cache, and fills a GPU."""
    return 1 << 16 if device.type == "cuda" else 1 << 10


@dataclass(frozen=True)
class Prediction:
    """For N addresses: expected_N float64 expected byte and its variance_N, likeliest_N uint8, entropy_N float32 bits,
    and surprise_N float32, that at the true byte in bits where truth was given (NaN elsewhere)."""

    expected_N: npt.NDArray[np.float64]
    variance_N: npt.NDArray[np.float64]
    likeliest_N: npt.NDArray[np.uint8]
    entropy_N: npt.NDArray[np.float32]
    surprise_N: npt.NDArray[np.float32]


@torch.no_grad()
def predict(
    network: Network,
    addresses_N: npt.NDArray[np.int64],
    truth_N: npt.NDArray[np.uint8] | None = None,
    on_addresses: Callable[[int], object] = lambda count: None,
) -> Prediction:
    """The network's distribution at each address, summed up. int64 addresses, any below 2^63."""
    device = next(network.parameters()).device
    off_V = torch.arange(BYTES, dtype=torch.float32, device=device) - MIDDLE  # small squares: float32 holds them
    moments_V2 = torch.stack([off_V, off_V.square()], dim=1)
    parts: list[tuple[npt.NDArray[np.float64], ...]] = []
    size = together(device)
    for start in range(0, len(addresses_N), size):
        chunk = torch.from_numpy(addresses_N[start : start + size]).to(device)
        log_BV = network(chunk).log_softmax(1)
        probability_BV = log_BV.exp()
        entropy_B = -(probability_BV * log_BV).sum(1) / np.log(2)
        if truth_N is None:
            surprise_B = torch.full_like(entropy_B, torch.nan)
        else:
            true_B = torch.from_numpy(truth_N[start : start + size].astype(np.int64)).to(device)
            surprise_B = -log_BV.gather(1, true_B[:, None])[:, 0] / np.log(2)
        mean_B, square_B = (probability_BV @ moments_V2).unbind(1)
        variance_B = (square_B - mean_B.square()).clamp_(min=0)
        columns = (mean_B + MIDDLE, variance_B, log_BV.argmax(1), entropy_B, surprise_B)
        parts.append(tuple(column.cpu().numpy() for column in columns))
        on_addresses(len(chunk))
    if not parts:
        none = np.zeros(0)
        return Prediction(none, none, none.astype(np.uint8), none.astype(np.float32), none.astype(np.float32))
    expected, variance, likeliest, entropy, surprise = (np.concatenate(column) for column in zip(*parts, strict=True))
    whole, single = likeliest.astype(np.uint8), np.float32
    moments = expected.astype(np.float64), variance.astype(np.float64)
    return Prediction(*moments, whole, entropy.astype(single), surprise.astype(single))
