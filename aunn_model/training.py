"""The training loop, one page, read top to bottom.

Legend: N trainable addresses, B batch, V = 256. Loss is cross-entropy; over ln 2 it is bits per byte. A step is a pure
function of (weights, optimiser state, seed, step): resumed or not, the run ends with the same weights.
"""

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from statistics import quantiles
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from aunn_model.network import Network

PROBE_STEPS = 15


@dataclass(frozen=True)
class Settings:
    """What a run is made of. Learning rates rise linearly over ``warmup`` steps and fall linearly to 0 at ``steps``."""

    width: int = 256
    pairs: int = 2
    batch: int = 2048
    steps: int = 0
    seed: int = 0
    muon_lr: float = 0.06
    adam_lr: float = 0.01
    weight_decay: float = 0.01
    warmup: int = 50
    octave_decay: float = 0.7
    precision: str = "auto"


@dataclass(frozen=True)
class Metrics:
    """Where a run stands; ``bits_per_byte`` and the speed are means since the last report."""

    step: int
    seconds: float
    bits_per_byte: float
    addresses_per_second: float
    lr: float


@dataclass
class State:
    """Everything that a checkpoint holds: network, optimisers, steps done, seconds spent."""

    network: Network
    optimizers: dict[str, torch.optim.Optimizer]
    step: int = 0
    seconds: float = 0.0


def begin(network: Network, settings: Settings) -> State:
    """A state at step 0: Muon on the hidden matrices, AdamW on the rest."""
    hidden = network.hidden_matrices()
    ids = {id(weight) for weight in hidden}
    rest = [weight for weight in network.parameters() if id(weight) not in ids]
    return State(
        network,
        {
            "muon": torch.optim.Muon(hidden, lr=settings.muon_lr, weight_decay=settings.weight_decay),
            "adamw": torch.optim.AdamW(rest, lr=settings.adam_lr, betas=(0.9, 0.99), weight_decay=0.0, fused=True),
        },
    )


def train(
    state: State,
    settings: Settings,
    batch_of: Callable[[int], tuple[Tensor, Tensor]],
    report_every: float = 1.0,
) -> Iterator[Metrics]:
    """Trains to ``settings.steps``, yielding Metrics every ``report_every`` seconds and after the last step.

    ``batch_of(step)`` gives (addresses_B int64, bytes_B int64). Between two yields the state is whole: the caller may
    save it, or stop.
    """
    began, since, losses = time.perf_counter() - state.seconds, time.perf_counter(), []
    while state.step < settings.steps:
        addresses_B, bytes_B = batch_of(state.step)
        losses.append(step(state, settings, addresses_B, bytes_B))
        now = time.perf_counter()
        if now - since >= report_every or state.step == settings.steps:
            bits = float(torch.stack(losses).mean()) / math.log(2)
            if not math.isfinite(bits):
                raise FloatingPointError(f"a loss of {bits} at step {state.step}")
            state.seconds = time.perf_counter() - began
            speed = len(losses) * len(addresses_B) / (time.perf_counter() - since)
            yield Metrics(state.step, state.seconds, bits, speed, settings.muon_lr * schedule(state.step - 1, settings))
            since, losses = time.perf_counter(), []
            began = since - state.seconds  # what the caller did between is not training time


def step(state: State, settings: Settings, addresses_B: Tensor, bytes_B: Tensor) -> Tensor:
    """One step; returns the loss in nats."""
    scale = schedule(state.step, settings)
    for optimizer, lr in zip(state.optimizers.values(), (settings.muon_lr, settings.adam_lr), strict=True):
        for group in optimizer.param_groups:
            group["lr"] = lr * scale
        optimizer.zero_grad()
    with autocast(settings.precision, addresses_B.device):
        loss = functional.cross_entropy(state.network(addresses_B), bytes_B)
    torch.autograd.backward(loss)
    for optimizer in state.optimizers.values():
        optimizer.step()
    state.step += 1
    return loss.detach()


def schedule(step: int, settings: Settings) -> float:
    """The factor on the learning rates at a step: up over the warm-up, then down to nearly 0 at the last."""
    warmup = min(settings.warmup, settings.steps // 5)
    return min((step + 1) / (warmup + 1), (settings.steps - step) / max(1, settings.steps - warmup))


def steps_within(
    seconds: float, state: State, settings: Settings, batch_of: Callable[[int], tuple[Tensor, Tensor]]
) -> int:
    """How many steps fit: a few are timed on a network whose weights and optimisers are thrown away."""
    settings, times = replace(settings, steps=10**9), []
    for number in range(PROBE_STEPS):
        began = time.perf_counter()
        step(state, settings, *batch_of(number))
        times.append(time.perf_counter() - began)
    slow = quantiles(times, n=4)[2]  # a long run meets more of the machine's slow moments than a short probe
    return max(1, int(seconds / slow))


def autocast(precision: str, device: torch.device) -> torch.autocast:
    """bfloat16 matrix products for "bf16", none for "float32"."""
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=precision == "bf16")


def best_precision(device: torch.device, width: int, batch: int) -> str:
    """ "bf16" if this processor multiplies bfloat16 matrices faster than float32 ones, "float32" if not."""
    seconds = {}
    for name, dtype in (("float32", torch.float32), ("bf16", torch.bfloat16)):
        a, b = (
            torch.randn(batch, width, device=device, dtype=dtype),
            torch.randn(width, width, device=device, dtype=dtype),
        )
        times = []
        for _ in range(20):
            began = time.perf_counter()
            (a @ b).sum().item()
            times.append(time.perf_counter() - began)
        seconds[name] = min(times)
    return min(seconds, key=lambda name: seconds[name])


def parameters(module: nn.Module) -> int:
    """Number of learned weights."""
    return sum(weight.numel() for weight in module.parameters())


def named_state(optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """The optimiser's tensors by name, "<number of the weight>.<what>"."""
    state = optimizer.state_dict()["state"]
    return {f"{number}.{name}": value for number, group in state.items() for name, value in group.items()}
