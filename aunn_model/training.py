"""The training loop, one page, read top to bottom.

Legend: N trainable addresses, B batch, V = 256. Loss is cross-entropy; over ln 2 it is bits per byte. A step is a pure
function of (weights, optimiser state, seed, step): resumed or not, the run ends with the same weights.
"""

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from statistics import quantiles
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from aunn_model import distributed
from aunn_model.network import BYTES, Network
from aunn_model.rules import RULES
from aunn_model.rules.backpropagation import backpropagation
from aunn_model.rules.lesson import Lesson

PROBE_STEPS = 15

BatchOf = Callable[[int], tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class Settings:
    """What a run is made of; a run.toml has these keys. 0 switches clipping, averaging and checks off.

    width, layers: of the hidden matrices. trunk: "residual" pairs or a "plain" perceptron. features: "waves", of which
    ``oblique`` run in random directions, or binary "digits". codes: number of parities that tell records, and in lists
    every ``unit`` addresses, apart. rule: how weights learn of the loss (``aunn_model.rules``). order: how training
    goes through the addresses (``pipelines.batches``), with ``window`` addresses that stay together and ``streams``
    places that are read at once; ``repeats`` steps on each batch. fine_share: of a batch, for digits of elements behind
    the coarsest. schedule: of the learning rates after ``warmup`` steps, "linear" or "cosine" to 0, "wsd": constant,
    linear to 0 over the last ``cooldown`` of the steps, or "constant". clip: largest norm of a gradient. ema: horizon
    of averaged weights as a share of all steps. checks: share of the elements of records with holes that are left out
    too, to see how well the holes are filled. keep: newest checkpoints. shard: of many devices each holds all weights
    ("none") or a part of each ("full").
    """

    width: int = 256
    layers: int = 4
    trunk: str = "plain"
    features: str = "waves"
    codes: int = 0
    unit: int = 1
    rule: str = "backpropagation"
    batch: int = 2048
    steps: int = 0
    seed: int = 0
    order: str = "shuffled"
    window: int = 256
    streams: int = 1
    repeats: int = 1
    fine_share: float = 0.2
    value_weight: float = 20.0
    optimizer: str = "muon"
    muon_lr: float = 0.06
    adam_lr: float = 0.01
    sgd_lr: float = 0.1
    weight_decay: float = 0.01
    schedule: str = "linear"
    warmup: int = 50
    cooldown: float = 0.2
    clip: float = 0.0
    ema: float = 0.05
    checks: float = 0.05
    octave_decay: float = 0.5
    oblique: int = 128
    keep: int = 2
    precision: str = "auto"
    shard: str = "none"


CHOICES = {
    "trunk": ("residual", "plain"),
    "features": ("waves", "digits"),
    "rule": tuple(RULES),
    "order": ("shuffled", "windows", "serial", "annealed"),
    "optimizer": ("muon", "adamw", "sgd"),
    "schedule": ("linear", "cosine", "wsd", "constant"),
    "precision": ("auto", "bf16", "float32"),
    "shard": ("none", "full"),
}


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
    """Everything that a checkpoint holds: network, optimisers, averaged weights, steps done, seconds spent."""

    network: Network
    optimizers: dict[str, torch.optim.Optimizer]
    average: AveragedModel | None = None
    step: int = 0
    seconds: float = 0.0
    sharded: bool = False  # over many devices; else each has all weights
    forward: nn.Module = field(init=False)  # the network as a step calls it: compiled, or for many devices

    def __post_init__(self) -> None:
        self.forward = self.network if self.sharded else distributed.replicated(self.network)

    @property
    def best(self) -> Network:
        """The network to ask: with averaged weights where there are any."""
        return self.network if self.average is None else cast(Network, self.average.module)


class DivergedError(FloatingPointError):
    """A loss that is no number. ``addresses_B`` are those of the step's batch where it is none."""

    def __init__(self, step: int, addresses_B: Tensor, of: int):
        self.step, self.addresses_B, self.all = step, addresses_B.cpu().numpy(), len(addresses_B) == of
        super().__init__(f"no finite loss at step {step}, addresses {self.span[0]:,} to {self.span[1]:,}")

    @property
    def span(self) -> tuple[int, int]:
        """The first of the addresses and the one behind the last."""
        return int(self.addresses_B.min()), int(self.addresses_B.max()) + 1


def begin(network: Network, settings: Settings) -> State:
    """A state at step 0: Muon on the hidden matrices and AdamW on the rest, or AdamW or SGD on all.

    Weights that ask for no gradient stay as they are.
    """
    average = None
    if settings.ema:
        rate = 1 - min(1.0, 1 / max(1.0, settings.ema * settings.steps))
        average = AveragedModel(network, multi_avg_fn=get_ema_multi_avg_fn(rate))  # type: ignore[no-untyped-call]
    sharded = distributed.shards(settings.shard)
    if sharded:
        from aunn_model.sharding import shard

        for module in (network, *([average.module] if average else [])):
            shard(module)
    return State(network, _optimizers(network, settings), average, sharded=sharded)


def _optimizers(network: Network, settings: Settings) -> dict[str, torch.optim.Optimizer]:
    learned = [weight for weight in network.parameters() if weight.requires_grad]
    if settings.optimizer == "sgd":
        return {"sgd": torch.optim.SGD(learned, lr=settings.sgd_lr)}
    hidden = [weight for weight in network.hidden_matrices() if weight.requires_grad and settings.optimizer == "muon"]
    ids = {id(weight) for weight in hidden}
    rest = [weight for weight in learned if id(weight) not in ids]
    decay = 0.0 if hidden else settings.weight_decay
    out: dict[str, torch.optim.Optimizer] = {}
    if rest:
        out["adamw"] = torch.optim.AdamW(rest, settings.adam_lr, betas=(0.9, 0.99), weight_decay=decay, fused=True)
    if hidden:
        out["muon"] = torch.optim.Muon(hidden, lr=settings.muon_lr, weight_decay=settings.weight_decay)
    return out


def train(
    state: State, settings: Settings, batch_of: BatchOf, report_every: float = 1.0, every: int = 0
) -> Iterator[Metrics]:
    """Trains to ``settings.steps``, yielding Metrics every ``report_every`` seconds, ``every`` steps, and last.

    ``batch_of(step)`` gives (addresses_B int64, bytes_B uint8). Between two yields the state is whole: the caller may
    save it, or stop. DivergedError at the first loss that is no number, and before weights that are none are yielded.
    """
    began, since, losses = time.perf_counter() - state.seconds, time.perf_counter(), []
    while state.step < settings.steps:
        addresses_B, bytes_B = batch_of(state.step)
        losses.append(step(state, settings, addresses_B, bytes_B))
        now = time.perf_counter()
        due = distributed.anyone(now - since >= report_every) or state.step == settings.steps
        if due or (every and state.step % every == 0):
            if not all(bool(torch.isfinite(weight).all()) for weight in state.network.parameters()):
                raise DivergedError(state.step, addresses_B, len(addresses_B))  # nobody saves these
            bits = float(torch.stack(losses).mean()) / math.log(2)
            state.seconds = time.perf_counter() - began
            speed = len(losses) * len(addresses_B) * distributed.part()[1] / (time.perf_counter() - since)
            yield Metrics(state.step, state.seconds, bits, speed, settings.muon_lr * schedule(state.step - 1, settings))
            since, losses = time.perf_counter(), []
            began = since - state.seconds  # what the caller did between is not training time


def step(state: State, settings: Settings, addresses_B: Tensor, bytes_B: Tensor) -> Tensor:
    """One step; returns the loss in nats. DivergedError, with the weights as they were, if it is no number.

    Of many devices each takes its part of the batch; loss, gradients and error are those of the whole.
    """
    scale = schedule(state.step, settings)
    rates = {"muon": settings.muon_lr, "adamw": settings.adam_lr, "sgd": settings.sgd_lr}
    for name, optimizer in state.optimizers.items():
        for group in optimizer.param_groups:
            group["lr"] = rates[name] * scale
        optimizer.zero_grad()
    logits_BV = _learn(state, settings, addresses_B, bytes_B).detach()
    mean_loss = distributed.mean(functional.cross_entropy(logits_BV, bytes_B.long()))
    if not math.isfinite(mean_loss):
        wrong_B = ~torch.isfinite(functional.cross_entropy(logits_BV, bytes_B.long(), reduction="none"))
        wrong_B, addresses_B = distributed.gathered(wrong_B), distributed.gathered(addresses_B)
        wrong_B |= ~wrong_B.any()  # finite losses may have a sum that is not
        raise DivergedError(state.step, addresses_B[wrong_B], len(addresses_B))
    if settings.clip:
        nn.utils.clip_grad_norm_(state.network.parameters(), settings.clip)
    for optimizer in state.optimizers.values():
        optimizer.step()
    if state.average is not None:
        state.average.update_parameters(state.network)
    state.step += 1
    return mean_loss


def _learn(state: State, settings: Settings, addresses_B: Tensor, bytes_B: Tensor) -> Tensor:
    """The gradients of a step, by the run's rule; returns (B, V) logits."""

    def loss(logits_BV: Tensor) -> Tensor:
        off = _squared_error(state.network, logits_BV, addresses_B, bytes_B)
        return functional.cross_entropy(logits_BV, bytes_B.long()) + settings.value_weight * off

    precision = partial(autocast, settings.precision, addresses_B.device)
    lesson = Lesson(addresses_B, loss, settings.seed, state.step, precision)
    if settings.rule == "backpropagation":  # through what makes the mean of all devices' gradients on its way
        return backpropagation(state.forward, lesson)
    logits_BV = RULES[settings.rule](state.network, lesson)
    for weight in state.network.parameters():
        if weight.grad is not None:
            weight.grad = distributed.mean(weight.grad)
    return logits_BV


def _squared_error(network: Network, logits_BV: Tensor, addresses_B: Tensor, bytes_B: Tensor) -> Tensor:
    """Mean squared error of the expected byte, of 255 squared, where bytes are digits of quantities.

    Cross-entropy alone takes 256 unrelated classes for what is a value: it does not know that 119 is near 120.
    """
    off_B = logits_BV.softmax(1) @ torch.arange(BYTES, dtype=torch.float32, device=logits_BV.device) - bytes_B
    return ((off_B / 255).square() * network.embedding.quantities(addresses_B)).mean()


def schedule(step: int, settings: Settings) -> float:
    """The factor on the learning rates at a step: up over the warm-up, then down to nearly 0 at the last."""
    warmup = min(settings.warmup, settings.steps // 5)
    up = (step + 1) / (warmup + 1)
    left = (settings.steps - step) / max(1, settings.steps - warmup)
    if settings.schedule == "cosine":
        return min(up, 0.5 - 0.5 * math.cos(math.pi * min(1.0, left)))
    if settings.schedule == "constant":
        return min(1.0, up)
    return min(1.0, up, left / settings.cooldown if settings.schedule == "wsd" else left)


def steps_within(seconds: float, state: State, settings: Settings, batch_of: BatchOf) -> int:
    """How many steps fit: a few are timed on a network whose weights and optimisers are thrown away."""
    settings, times = replace(settings, steps=10**9), []
    for number in range(PROBE_STEPS):
        began = time.perf_counter()
        step(state, settings, *batch_of(number))
        times.append(time.perf_counter() - began)
    slow = quantiles(times, n=4)[2]  # a long run meets more of the machine's slow moments than a short probe
    return max(1, int(seconds / distributed.most(slow)))


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


@torch.no_grad()
def bits_per_byte(network: nn.Module, addresses_B: Tensor, bytes_B: Tensor, chunk: int = 8192) -> float:
    """Mean surprise of a network at (B,) bytes, in bits."""
    nats = 0.0
    for start in range(0, len(addresses_B), chunk):
        addresses_C, bytes_C = addresses_B[start : start + chunk], bytes_B[start : start + chunk]
        nats += float(functional.cross_entropy(network(addresses_C), bytes_C.long(), reduction="sum"))
    return nats / len(addresses_B) / math.log(2)


def parameters(module: nn.Module) -> int:
    """Number of learned weights."""
    return sum(weight.numel() for weight in module.parameters())


def named_state(optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """The optimiser's tensors by name, "<number of the weight>.<what>"."""
    state = optimizer.state_dict()["state"]
    return {f"{number}.{name}": value for number, group in state.items() for name, value in group.items()}
