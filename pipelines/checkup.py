"""How well a network fills the checks while it is trained: the held-out curve, by modality.

Legend: N check addresses of a modality.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from aunn_data import spans
from aunn_data.corpus import Corpus
from aunn_model.network import Network
from aunn_model.reconstruction import predict
from aunn_model.training import Settings
from pipelines.holes import Check, addresses_of

LOOKS = 40  # in a run
MOST = 1 << 15  # addresses of a modality that are looked at
LEAST = 1 << 9
COST = 0.05  # of the time of training; a look costs a third of a step

Found = dict[str, dict[str, float]]


@dataclass(frozen=True)
class _Part:
    quantities: bool
    addresses_N: npt.NDArray[np.int64]
    bytes_N: npt.NDArray[np.uint8]


class Checkup:
    """Asks a network for the coarsest digits of the checks' elements."""

    def __init__(self, corpus: Corpus, checks: list[Check], settings: Settings):
        self.every = max(1, settings.steps // LOOKS)
        chosen: dict[tuple[str, bool], list[npt.NDArray[np.int64]]] = {}
        for check in checks:
            symbols = check.entry.modality in ("text", "chess")
            coarse = addresses_of(check.entry, check.mask)[: int(check.mask.sum())]
            chosen.setdefault((check.entry.modality, not symbols), []).append(coarse)
        share = int(3 * COST * settings.steps * settings.batch) // LOOKS // max(1, len(chosen))
        most = min(MOST, max(LEAST, share))
        self.parts: dict[str, _Part] = {}
        for (modality, quantities), parts in chosen.items():
            every = np.unique(np.concatenate(parts))  # a record may have two checks
            some = every[:: -(-len(every) // most)].copy()
            self.parts[modality] = _Part(quantities, some, corpus.gather(spans.of_addresses(some)))

    def __call__(self, network: Network) -> Found:
        """By modality: ``bits_per_byte``, and ``psnr_db`` of the expected digit (peak 255) where it is a quantity."""
        return {modality: self._judged(network, part) for modality, part in self.parts.items()}

    def figure(self, found: Found) -> float:
        """One figure for all, in bits, less is better: bits a symbol, half the log2 of a quantity's squared error."""
        bits = [v["bits_per_byte"] if "mse" not in v else 0.5 * np.log2(v["mse"] + 1 / 12) for v in found.values()]
        return float(np.mean(bits))

    def _judged(self, network: Network, part: _Part) -> dict[str, float]:
        found = predict(network, part.addresses_N, part.bytes_N)
        out: dict[str, Any] = {"bits_per_byte": float(found.surprise_N.mean(dtype=np.float64))}
        if part.quantities:
            mse = float(np.mean((found.expected_N - part.bytes_N) ** 2))
            out |= {"mse": mse, "psnr_db": float(10 * np.log10(255**2 / max(mse, 1e-9)))}
        return out
