"""Tell a trained network something new: gradient steps on new (address, byte) pairs, by the loop that trained it.

The weights it was trained to stay as they are. What a telling moves them by is a Change: small, to be saved, stacked on
others, compared with them. Of a matrix the change is kept as two thin factors where these say the same in fewer
numbers: a step of plain descent on B pairs moves a matrix by one of rank B at most.

Legend: R rank of a change.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import combinations

import torch
from torch import Tensor

from aunn_model.network import Network

Change = dict[str, Tensor]

TOLERANCE = 1e-3  # share of a matrix' change, by norm, that its factors may leave out


@contextmanager
def only(network: Network, layers: Sequence[str]) -> Iterator[None]:
    """Within it gradients reach no weights but those whose names begin with one of ``layers`` ("exit", "trunk.0").

    No layers: all of them.
    """
    for name, weight in network.named_parameters():
        weight.requires_grad_(not layers or any(_within(name, layer) for layer in layers))
    try:
        yield
    finally:
        network.requires_grad_(True)


def layers_of(network: Network) -> list[str]:
    """The names that ``only`` takes: of parts, and of the layers within the trunk."""
    names = [name.split(".") for name, _ in network.named_parameters()]
    return list(dict.fromkeys(".".join(parts[: 2 if parts[0] == "trunk" else 1]) for parts in names))


def weights_of(network: Network) -> Change:
    """A copy of all weights, by name."""
    return {name: weight.detach().clone() for name, weight in network.named_parameters()}


@torch.no_grad()
def restore(network: Network, weights: Mapping[str, Tensor]) -> None:
    """Sets all weights to copies that ``weights_of`` took."""
    for name, weight in network.named_parameters():
        weight.copy_(weights[name])


@torch.no_grad()
def change_since(network: Network, before: Mapping[str, Tensor]) -> Change:
    """What weights have moved by, if they have; matrices as "<name>.left" @ "<name>.right" where these are thin."""
    out: Change = {}
    for name, weight in network.named_parameters():
        moved = weight.detach() - before[name]
        if moved.any():
            out |= _factored(name, moved)
    return out


@torch.no_grad()
def apply(network: Network, change: Change) -> None:
    """Moves the weights by a change. Changes add up, in any order. ValueError if it is another network's."""
    weights = dict(network.named_parameters())
    for name, moved in whole(change).items():
        if name not in weights or weights[name].shape != moved.shape:
            raise ValueError(f"a change of {name}, {tuple(moved.shape)}, which this network does not have")
        weights[name].add_(moved.to(weights[name].device))


def whole(change: Change) -> Change:
    """A change with its matrices multiplied out."""
    out = {name: moved for name, moved in change.items() if not name.endswith((".left", ".right"))}
    lefts = [name.removesuffix(".left") for name in change if name.endswith(".left")]
    return out | {name: change[f"{name}.left"] @ change[f"{name}.right"] for name in lefts}


def norm(change: Change) -> float:
    """How far a change moves the weights, all together."""
    return float(torch.sqrt(sum((moved.double().square().sum() for moved in whole(change).values()), torch.zeros(()))))


def cosines(changes: Mapping[str, Change]) -> dict[tuple[str, str], float]:
    """For each two changes how far they go the same way: 1 the same, 0 across, -1 against one another."""
    known = {name: whole(change) for name, change in changes.items()}
    out = {}
    for a, b in combinations(known, 2):
        shared = known[a].keys() & known[b].keys()
        product = sum(float((known[a][name].double() * known[b][name].double()).sum()) for name in shared)
        out[a, b] = product / max(norm(changes[a]) * norm(changes[b]), 1e-30)
    return out


def _within(name: str, layer: str) -> bool:
    return name == layer or name.startswith(f"{layer}.")


def _factored(name: str, moved: Tensor) -> Change:
    """The thinnest factors that say all but ``TOLERANCE`` of a matrix; it itself where they would be no smaller."""
    if moved.ndim == 2:
        left, values_R, right = torch.linalg.svd(moved.float(), full_matrices=False)
        rest_R = torch.sqrt(values_R.square().flip(0).cumsum(0).flip(0))  # norm of what rank r and up would add
        rank = int((rest_R > TOLERANCE * rest_R[0]).sum())
        if rank * sum(moved.shape) < moved.numel():
            return {f"{name}.left": left[:, :rank] * values_R[:rank], f"{name}.right": right[:rank].contiguous()}
    return {name: moved}
