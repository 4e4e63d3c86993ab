"""How much a network keeps in its weights: bits per bit of weight, beside compressors of the same bytes.

A byte at which the network is surprised by b bits is one of which it holds 8 - b. An honest price of a byte adds the
weights, which a decoder must have too, shared out to all bytes. What the geometries in the registry tell the embedding
is not counted, nor are the dictionaries that compressors make as they go.
"""

import lzma
from copy import deepcopy
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import zstandard

from aunn_data import spans
from aunn_data.corpus import Corpus
from aunn_data.sampling import trainable
from aunn_data.spans import Spans
from aunn_model.network import Network
from aunn_model.training import bits_per_byte, parameters
from pipelines.holes import checks_of, spans_of
from pipelines.runs import Run

WIDTHS = {"float32": 32, "bfloat16": 16}


def capacity(network: Network, addresses_N: npt.NDArray[np.int64], bytes_N: npt.NDArray[np.uint8]) -> dict[str, Any]:
    """Bits per byte of (N,) bytes by the network, its weights as saved and rounded to bfloat16, and by xz and zstd.

    ``stored_per_weight_bit`` is (8 - bits_per_byte) N over the bits of the weights; ``with_weights`` is bits_per_byte
    and the bits of the weights over N. The keys "xz -9" and "zstd -19" hold bits per byte.
    """
    weights, data = parameters(network), bytes_N.tobytes()
    device = next(network.parameters()).device
    addresses, values = torch.from_numpy(addresses_N).to(device), torch.from_numpy(bytes_N).to(device)
    out: dict[str, Any] = {"bytes": len(data), "weights": weights}
    for name, width in WIDTHS.items():
        bits = bits_per_byte(rounded(network) if name == "bfloat16" else network, addresses, values)
        out[name] = {
            "bits_per_byte": bits,
            "with_weights": bits + weights * width / len(data),
            "stored_per_weight_bit": (8 - bits) * len(data) / (weights * width),
        }
    out["xz -9"] = 8 * len(lzma.compress(data, preset=9)) / len(data)
    out["zstd -19"] = 8 * len(zstandard.ZstdCompressor(level=19).compress(data)) / len(data)
    return out


@torch.no_grad()
def rounded(network: Network) -> Network:
    """A copy of a network whose weights are what bfloat16 holds of them."""
    copy = deepcopy(network)
    for weight in copy.parameters():
        weight.copy_(weight.bfloat16())
    return copy


def trained_on(corpus: Corpus, run: Run) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.uint8]]:
    """(N,) addresses that a run was trained on, and the bytes there."""
    spans_S = trained_spans(corpus, run)
    return spans.addresses(spans_S), corpus.gather(spans_S)


def trained_spans(corpus: Corpus, run: Run) -> Spans:
    """(S, 2) addresses that a run was trained on; what was held out since is not among them."""
    checks = spans_of(checks_of(corpus, run.holdouts, run.settings.checks, run.settings.seed))
    return spans.difference(trainable(corpus), checks)
