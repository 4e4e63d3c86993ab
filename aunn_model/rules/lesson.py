"""What the training loop gives a learning rule, and what rules have in common.

Legend: B batch, W width, V = 256.
"""

import random
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass

import torch
from torch import Tensor

Loss = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Lesson:
    """One step's: ``loss`` of (B, V) logits, a mean over the batch, is to be lowered at (B,) int64 ``addresses_B``.

    What a rule draws is a pure function of ``seed`` and ``step``. ``autocast`` is the context of its matrix products.
    """

    addresses_B: Tensor
    loss: Loss
    seed: int
    step: int
    autocast: Callable[[], AbstractContextManager[object]]

    def error(self, logits_BV: Tensor) -> Tensor:
        """(B, V) gradient of the loss at the logits; it goes back into what these are attached to, if they are."""
        leaf_BV = logits_BV.detach().requires_grad_()
        (error_BV,) = torch.autograd.grad(self.loss(leaf_BV), leaf_BV)
        learn([logits_BV], [error_BV])
        return error_BV


def learn(outputs: Sequence[Tensor], errors: Sequence[Tensor]) -> None:
    """Gradients of each layer's own weights from the error at its output; what is fixed learns nothing."""
    learning = [(output, error.to(output.dtype)) for output, error in zip(outputs, errors, strict=True)]
    learning = [(output, error) for output, error in learning if output.requires_grad]
    if learning:
        torch.autograd.backward([output for output, _ in learning], [error for _, error in learning])


def generator(device: torch.device, *key: object) -> torch.Generator:
    """Random numbers that depend on the key alone."""
    return torch.Generator(device).manual_seed(random.Random(repr(key)).getrandbits(63))
