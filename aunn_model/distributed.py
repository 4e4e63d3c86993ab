"""Many devices, one process each, as ``torchrun`` starts them. With one process every function here does nothing.

What processes do together (report, save, stop) they agree upon with ``anyone``: their clocks and signals differ.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.distributed as dist
from torch import Tensor, nn


@contextmanager
def processes() -> Iterator[None]:
    """Joins the processes that torchrun started, if it did. One that fails ends alone: torchrun then ends the others.

    Small things are said over gloo between the processors; gradients and weights go over NCCL where there are GPUs.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield
        return
    if torch.cuda.is_available():
        torch.cuda.set_device(local_rank())
    dist.init_process_group("cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo")
    try:
        yield
    except KeyboardInterrupt:  # all stop after the same step: one of them says so
        if leads():
            raise
        raise SystemExit(130) from None
    dist.destroy_process_group()


def part() -> tuple[int, int]:
    """(number of this process, number of processes)."""
    together = dist.is_available() and dist.is_initialized()
    return (dist.get_rank(), dist.get_world_size()) if together else (0, 1)


def local_rank() -> int:
    """The number of this process on its machine, which is that of its GPU."""
    return int(os.environ.get("LOCAL_RANK", "0"))


def leads() -> bool:
    """Whether this is the process that prints, and writes what is written once."""
    return part()[0] == 0


def shards(shard: str) -> bool:
    """Whether a setting of that name has processes share the weights: not where there is one only."""
    return shard == "full" and part()[1] > 1


def most(value: float) -> float:
    """The largest of all processes' values."""
    if part()[1] == 1:
        return value
    said = torch.tensor(float(value), dtype=torch.float64)
    dist.all_reduce(said, dist.ReduceOp.MAX)
    return float(said)


def anyone(flag: bool) -> bool:
    """Whether any process says so."""
    return bool(most(flag))


def wait() -> None:
    """Until all processes are here."""
    anyone(False)


def mean(value: Tensor) -> Tensor:
    """The mean of all processes' values; no number if one of them is none."""
    if part()[1] == 1:
        return value
    total = value.detach().clone()
    dist.all_reduce(total)
    return total / part()[1]


def gathered(part_B: Tensor) -> Tensor:
    """The equal parts of all processes, one after another."""
    if part()[1] == 1:
        return part_B
    parts = [torch.empty_like(part_B) for _ in range(part()[1])]
    dist.all_gather(parts, part_B.contiguous())
    return torch.cat(parts)


def replicated(network: nn.Module) -> nn.Module:
    """The network as a step calls it: each process has all weights, and the mean of all gradients."""
    if part()[1] == 1:
        return network
    return nn.parallel.DistributedDataParallel(network, forward_sync_buffers=False)
