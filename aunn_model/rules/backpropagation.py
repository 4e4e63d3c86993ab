"""Backpropagation: the error goes back through every layer, transposed. What all other rules are measured by."""

import torch
from torch import Tensor, nn

from aunn_model.rules.lesson import Lesson


def backpropagation(network: nn.Module, lesson: Lesson) -> Tensor:
    """The exact gradients of all weights; returns (B, V) logits."""
    with lesson.autocast():
        logits_BV: Tensor = network(lesson.addresses_B)
    torch.autograd.backward(lesson.loss(logits_BV))
    return logits_BV
