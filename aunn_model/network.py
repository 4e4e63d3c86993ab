"""features_BF -> logits_BV: a multilayer perceptron, plain or of residual pairs; V = 256 possible bytes.

Legend: B batch, F features, W width, V = 256.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from aunn_model.embedding import Digits, Embedding

BYTES = 256
CODE_NORM = 2**0.5  # what codes add to a first activation before anything is learned


class Pair(nn.Module):
    """h + outer(silu(inner(rmsnorm(h)))); the outer matrix is zero at first, so that depth begins as identity."""

    def __init__(self, width: int):
        super().__init__()
        self.norm = nn.RMSNorm(width)
        self.inner = nn.Linear(width, width)
        self.outer = nn.Linear(width, width, bias=False)
        nn.init.zeros_(self.outer.weight)

    def forward(self, h_BW: Tensor) -> Tensor:
        """(B, W) -> (B, W)."""
        out: Tensor = h_BW + self.outer(functional.silu(self.inner(self.norm(h_BW))))
        return out


class Layer(nn.Module):
    """relu(linear(h)), as perceptrons always were."""

    def __init__(self, width: int):
        super().__init__()
        self.linear = nn.Linear(width, width)
        nn.init.kaiming_uniform_(self.linear.weight, nonlinearity="relu")
        nn.init.zeros_(self.linear.bias)

    def forward(self, h_BW: Tensor) -> Tensor:
        """(B, W) -> (B, W)."""
        return functional.relu(self.linear(h_BW), inplace=True)


class Network(nn.Module):
    """Given nothing but absolute addresses, the logits of the bytes that stand there.

    ``embedding`` gives (B, F) float32 features of (B,) addresses and knows their number, ``embedding.features``.
    ``layers`` is the number of hidden (W, W) matrices; residual pairs have two each.
    """

    def __init__(self, embedding: Embedding | Digits, width: int, layers: int, trunk: str = "residual"):
        super().__init__()
        self.embedding = embedding
        self.entry = nn.Linear(embedding.features, width)
        self.codes: nn.Linear | None = None
        if isinstance(embedding, Embedding) and embedding.codes:
            self.codes = nn.Linear(embedding.codes, width, bias=False)
            nn.init.normal_(self.codes.weight, std=CODE_NORM / embedding.codes**0.5)
        if trunk == "residual":
            self.trunk = nn.Sequential(*(Pair(width) for _ in range(layers // 2)), nn.RMSNorm(width))
            self.activation = functional.silu
        else:
            self.trunk = nn.Sequential(*(Layer(width) for _ in range(layers)))
            self.activation = functional.relu
        self.exit = nn.Linear(width, BYTES)
        # Features of an address have unit norm or so: unit weights make first activations of unit size.
        nn.init.normal_(self.entry.weight)
        nn.init.normal_(self.entry.bias, std=0.1)
        nn.init.normal_(self.exit.weight, std=0.2 / width**0.5)
        nn.init.zeros_(self.exit.bias)

    def first(self, addresses_B: Tensor) -> Tensor:
        """(B,) int64 -> (B, W) first activations, which the trunk goes on from."""
        with torch.autocast(addresses_B.device.type, enabled=False):  # sines of phases are not for bfloat16
            h_BW: Tensor = self.entry(self.embedding(addresses_B))
        if self.codes is not None and isinstance(self.embedding, Embedding):  # apart: bfloat16 costs them nothing
            told_C, of_B = self.embedding.told(addresses_B)  # a batch that stays with few records has few codes
            h_BW = h_BW + self.codes(self.embedding.codes_of(told_C))[of_B]
        return self.activation(h_BW)

    def forward(self, addresses_B: Tensor) -> Tensor:
        """(B,) int64 -> (B, V) float32 logits."""
        logits_BV: Tensor = self.exit(self.trunk(self.first(addresses_B))).float()
        return logits_BV

    def hidden_matrices(self) -> list[nn.Parameter]:
        """The matrices that Muon orthogonalises the updates of."""
        codes = list(self.codes.parameters()) if self.codes is not None else []
        return codes + [weight for weight in self.trunk.parameters() if weight.ndim == 2]
