"""Predictive coding with fixed predictions (Millidge et al. 2020, https://arxiv.org/abs/2006.04182; Rosenbaum 2022).

Each layer holds an activity, at first what the layer before it predicts; the difference is its error. The exit's error
is the loss's own. While predictions stay as they are, activities relax: a layer's error goes a part of the way to what
would explain the error of the layer after it, all layers at once, each knowing its neighbours only. Then each layer's
weights learn from its error.

Where the errors come to rest they are backpropagation's. Until then, as predictions are fixed, each layer's are these
times a factor from 0 to 1: of the k-th layer before the exit the chance of k successes or more, of ``RATE`` each, in as
many tries as there were iterations. Optimisers that do not heed how long a gradient is heed no such factor either.

Legend: B batch, W width, V = 256.
"""

from typing import cast

import torch
from torch import Tensor

from aunn_model.network import Network
from aunn_model.rules.lesson import Lesson, learn

RATE = 0.5  # of the way to where it would rest that an error goes in an iteration
ITERATIONS = 2  # for each layer that the error has to pass


def predictive_coding(network: Network, lesson: Lesson, iterations: int | None = None, rate: float = RATE) -> Tensor:
    """Gradients of the exit that are exact, and of all else from errors relaxed so often; returns (B, V) logits.

    By default ``ITERATIONS`` for each hidden layer: with less than one each some would learn nothing.
    """
    inputs: list[Tensor] = []
    with lesson.autocast():
        outputs = [network.first(lesson.addresses_B)]
        for block in network.trunk:
            inputs.append(outputs[-1].detach().requires_grad_())
            outputs.append(block(inputs[-1]))
        inputs.append(outputs[-1].detach().requires_grad_())
        logits_BV: Tensor = network.exit(inputs[-1]).float()
    lesson.error(logits_BV)
    top_BW, errors = cast(Tensor, inputs.pop().grad), [torch.zeros_like(output) for output in outputs]
    for _ in range(ITERATIONS * len(outputs) if iterations is None else iterations):
        explaining = (*torch.autograd.grad(outputs[1:], inputs, errors[1:], retain_graph=True), top_BW)
        errors = [error + rate * (goal - error) for error, goal in zip(errors, explaining, strict=True)]
    learn(outputs, errors)
    return logits_BV
