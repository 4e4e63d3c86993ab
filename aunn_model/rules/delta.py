"""The delta rule (prescribed error sensitivity, MacNeil & Eliasmith 2011): the exit alone learns, from its own error.

All layers before it stay as they are, so nothing is kept of the way through them and no error goes back.
"""

import torch
from torch import Tensor

from aunn_model.network import Network
from aunn_model.rules.lesson import Lesson


def delta(network: Network, lesson: Lesson) -> Tensor:
    """The exact gradients of the exit's weights, None for all others; returns (B, V) logits."""
    with lesson.autocast():
        with torch.no_grad():
            h_BW = network.trunk(network.first(lesson.addresses_B))
        logits_BV: Tensor = network.exit(h_BW).float()
    lesson.error(logits_BV)
    return logits_BV
