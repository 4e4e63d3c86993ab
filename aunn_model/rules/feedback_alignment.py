"""Direct feedback alignment (Nøkland 2016, https://arxiv.org/abs/1609.01596): each layer hears of the error directly.

The error at the logits goes to every hidden layer through a random matrix of its own that never changes; no weight is
used transposed but within a layer: of a residual pair the outer matrix hands the error on to the inner one. The random
matrices are made of the run's seed and saved nowhere.

Legend: B batch, W width, V = 256, L hidden layers (the first activations, then each block of the trunk).
"""

import math
from functools import lru_cache

import torch
from torch import Tensor

from aunn_model.network import BYTES, Network
from aunn_model.rules.lesson import Lesson, generator, learn


def feedback_alignment(network: Network, lesson: Lesson) -> Tensor:
    """Gradients of the exit that are exact, and of all else from the error's random shadow; returns (B, V) logits."""
    with lesson.autocast():
        outputs = [network.first(lesson.addresses_B)]
        for block in network.trunk:
            outputs.append(block(outputs[-1].detach()))
        logits_BV: Tensor = network.exit(outputs[-1].detach()).float()
    error_BV = lesson.error(logits_BV)
    width = network.exit.in_features
    with lesson.autocast():
        errors_BX: Tensor = error_BV @ feedback(lesson.seed, len(outputs) * width, error_BV.device)
    learn(outputs, torch.split(errors_BX, width, dim=1))
    return logits_BV


@lru_cache(maxsize=1)
def feedback(seed: int, columns: int, device: torch.device) -> Tensor:
    """(V, L * W) the random matrices side by side; errors keep their length through each, or so."""
    random = generator(device, "feedback", seed)
    drawn_VX: Tensor = torch.randn(BYTES, columns, generator=random, device=device)
    return drawn_VX / math.sqrt(BYTES)
