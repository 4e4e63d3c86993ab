"""Forward gradients (Baydin et al. 2022, https://arxiv.org/abs/2202.08587): nothing goes back, not even at random.

Every activation is pushed along a random direction v while the network is computed; how much this moves the loss is
grad . v, and (grad . v) v is the gradient on average over directions. Activities are pushed, not weights (Ren et al.
2022, https://arxiv.org/abs/2210.03310): each address of the batch has directions of its own, and far fewer of them.
Units that a relu keeps silent are not pushed: they pass nothing on. The exit learns from its own error, which it knows.

Legend: B batch, W width, V = 256.
"""

import warnings

import torch
from torch import Tensor, nn

from aunn_model import distributed
from aunn_model.network import Network
from aunn_model.rules.lesson import Lesson, generator, learn


def forward_gradient(network: Network, lesson: Lesson) -> Tensor:
    """Gradients of the exit that are exact, and of all else exact on average; returns (B, V) logits."""
    random = generator(lesson.addresses_B.device, "directions", lesson.seed, lesson.step)
    with lesson.autocast():
        h_BW = network.first(lesson.addresses_B)
        outputs, directions = [h_BW], [direction(h_BW, random)]
        pushed_BW = directions[0]
        for block in network.trunk:
            h_BW, pushed_BW = push(block, h_BW, pushed_BW)
            outputs.append(h_BW)
            directions.append(direction(h_BW, random))
            pushed_BW = pushed_BW + directions[-1]
        logits_BV, pushed_BV = push(network.exit, h_BW, pushed_BW)
        logits_BV = logits_BV.float()
    moved_B = (lesson.error(logits_BV) * pushed_BV).sum(1)
    learn(outputs, [moved_B[:, None] * direction_BW for direction_BW in directions])
    return logits_BV


def push(block: nn.Module, h_BW: Tensor, pushed_BW: Tensor) -> tuple[Tensor, Tensor]:
    """What a block makes of activations, and of the way along which they are pushed."""
    with warnings.catch_warnings(category=DeprecationWarning, action="ignore"):  # torch's own use of its scripts
        found = torch.func.jvp(block, (h_BW.detach(),), (pushed_BW,))
    return found[0], found[1].detach()


def direction(h_BW: Tensor, random: torch.Generator) -> Tensor:
    """(B, W) 1 or -1 at random where ``h_BW`` is not 0. Of many devices each has its part of the whole batch's."""
    number, of = distributed.part()
    batch, width = h_BW.shape
    bits = torch.randint(
        0, 256, (of * batch, -(-width // 8), 1), generator=random, device=h_BW.device, dtype=torch.uint8
    )
    bits = bits[number * batch : (number + 1) * batch] >> torch.arange(8, device=h_BW.device, dtype=torch.uint8) & 1
    signs_BW: Tensor = 2 * bits.view(batch, -1)[:, :width].to(h_BW.dtype) - 1
    return signs_BW * (h_BW.detach() != 0)
