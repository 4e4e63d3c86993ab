"""Coordinate networks, the neural peers of `benchmarks.reconstruction`: place in, values out, squared error, Adam.

Legend: N elements, B batch, D coordinates of a place, C values of an element (its colours), T = D - space: time, if
the network is told it.

Coordinates count elements from the middle of the grid, over half of its longest edge: within [-1, 1], and a step along
any axis is as long as along any other. Time steps are as long as those in space. Values go to [-1, 1] by the least and
the greatest known one. The learning rate falls with a cosine to 0 at the end of the time. The order of the batches and
the first weights follow from the seed; how many steps fit into the seconds does not.
"""

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise, product

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional

from pipelines.fills import SPATIAL

Values = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]

BATCH, CHUNK = 4096, 32768


# ---- networks -------------------------------------------------------------------------------------------------------


class Siren(nn.Module):
    """Sines all the way, weights as Sitzmann et al. 2020 draw them (https://arxiv.org/abs/2006.09661), omega 30."""

    rate = 5e-4

    def __init__(self, space: int, times: int, values: int, extent: int, omega: float = 30, width: int = 256):
        super().__init__()
        sizes = [space + times, width, width, width]
        self.hidden = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(sizes))
        self.out, self.omega = nn.Linear(width, values), omega
        for number, layer in enumerate([*self.hidden, self.out]):
            bound = 1 / layer.in_features if number == 0 else math.sqrt(6 / layer.in_features) / omega
            nn.init.uniform_(layer.weight, -bound, bound)

    def forward(self, place_BD: Tensor) -> Tensor:
        """(B, C) values."""
        for layer in self.hidden:
            place_BD = torch.sin(self.omega * layer(place_BD))
        return self.out(place_BD)


class Fourier(nn.Module):
    """sin and cos of Gaussian frequencies into a ReLU network: Tancik et al. 2020 (https://arxiv.org/abs/2006.10739).

    ``scale`` is the spread of the frequencies, in waves over half of the longest edge.
    """

    rate = 1e-3

    def __init__(self, space: int, times: int, values: int, extent: int, scale: float = 4, width: int = 256):
        super().__init__()
        self.register_buffer("waves_DF", torch.randn(space + times, width // 2) * scale * 2 * math.pi)
        self.layers = perceptron(width, values, width)

    def forward(self, place_BD: Tensor) -> Tensor:
        """(B, C) values."""
        phase_BF = place_BD @ self.waves_DF
        return self.layers(torch.cat([phase_BF.sin(), phase_BF.cos()], dim=1))


class HashGrid(nn.Module):
    """Learned features on grids of growing resolution, interpolated linearly: Müller et al. 2022, Instant-NGP
    (https://arxiv.org/abs/2201.05989).

    Twelve levels from 8 cells along the longest edge to one an element, two features each; a level of more corners than
    its table has rows is hashed into it. Time goes to the network beside the features, in frames, as that paper does
    with what is no place.
    """

    rate = 5e-3
    primes = (1, 2654435761, 805459861)

    def __init__(self, space: int, times: int, values: int, extent: int, levels: int = 12, rows: int = 1 << 17):
        super().__init__()
        growth = max(extent / 8, 1) ** (1 / (levels - 1))
        self.cells = [round(8 * growth**level) for level in range(levels)]
        self.space, self.extent, self.corners = space, extent, list(product((0, 1), repeat=space))
        sizes = [min(rows, (cells + 1) ** space) for cells in self.cells]
        self.tables = nn.ParameterList(torch.empty(size, 2).uniform_(-1e-4, 1e-4) for size in sizes)
        self.layers = perceptron(2 * levels + times, values, 64)

    def forward(self, place_BD: Tensor) -> Tensor:
        """(B, C) values."""
        unit_BD = (place_BD[:, : self.space] + 1) / 2
        features = [
            self.level(table, unit_BD * cells, cells) for table, cells in zip(self.tables, self.cells, strict=True)
        ]
        times_BT = place_BD[:, self.space :] * ((self.extent - 1) / 2)
        return self.layers(torch.cat([*features, times_BT], dim=1))

    def level(self, table: Tensor, at_BD: Tensor, cells: int) -> Tensor:
        """(B, 2) features of one level, of the corners of each cell by how near they are."""
        low_BD = at_BD.floor().clamp(0, cells - 1)
        within_BD, low_BD = at_BD - low_BD, low_BD.long()
        rows, weights = [], []
        for corner in self.corners:
            up_D = torch.tensor(corner)
            rows.append(self.row(low_BD + up_D, cells, len(table)))
            weights.append(torch.where(up_D == 1, within_BD, 1 - within_BD).prod(dim=1))
        found_BK2 = functional.embedding(torch.stack(rows, dim=1), table)
        return (found_BK2 * torch.stack(weights, dim=1)[..., None]).sum(dim=1)

    def row(self, corner_BD: Tensor, cells: int, rows: int) -> Tensor:
        """(B,) which row of a table belongs to a corner: its own where there are enough, else a hash."""
        if (cells + 1) ** self.space <= rows:
            return sum(corner_BD[:, k] * (cells + 1) ** k for k in range(self.space))
        hashed_B = torch.zeros(len(corner_BD), dtype=torch.int64)
        for k in range(self.space):
            hashed_B = hashed_B ^ (corner_BD[:, k] * self.primes[k])
        return hashed_B % rows


def perceptron(inputs: int, outputs: int, width: int) -> nn.Sequential:
    """Two hidden ReLU layers."""
    return nn.Sequential(
        nn.Linear(inputs, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, outputs)
    )


# ---- fitting --------------------------------------------------------------------------------------------------------


@dataclass
class Limit:
    """How long to train: seconds, or a number of steps; and how long it was."""

    seconds: float = math.inf
    steps: int = 0
    seconds_taken: float = 0.0
    steps_taken: int = 0

    def shares(self) -> Iterator[float]:
        """For one step after the other the share of the training that is behind it."""
        began, share, self.steps_taken = time.perf_counter(), 0.0, 0
        while share < 1:
            yield share
            self.steps_taken += 1
            self.seconds_taken = time.perf_counter() - began
            share = self.steps_taken / self.steps if self.steps else self.seconds_taken / self.seconds


def fit(
    make: Callable[..., nn.Module],
    given: Values,
    known: Mask,
    asked: Mask,
    axes: tuple[str, ...],
    limit: Limit,
    seed: int = 0,
    frames: bool = False,
) -> Values:
    """``given`` with what is asked for filled by a network that was trained on what is known.

    ``make(space, times, values, extent)`` makes the network. It sees the frames in which something is asked for; with
    ``frames`` all of them, the time being a coordinate.
    """
    torch.manual_seed(seed)
    rng = torch.Generator().manual_seed(seed)
    order, space = _grid_first(axes)
    values, known_, asked_ = (array.transpose(order) for array in (given, known, asked))
    others = values.shape[:1] if "t" in axes else ()
    shape, channels = values.shape[: len(others) + space], values.shape[len(others) + space :]
    known_, asked_ = known_.reshape(*shape, -1).all(axis=-1), asked_.reshape(*shape, -1).any(axis=-1)
    if others and not frames:
        known_ = known_ & asked_.reshape(len(asked_), -1).any(axis=1).reshape(-1, *[1] * space)
    told = others if frames else ()
    extent = max(shape[len(others) :])
    low, high = values[known_].min(), values[known_].max()
    places_ND = _places(known_, len(others), bool(told), extent)
    values_NC = (
        torch.from_numpy(values[known_].reshape(len(places_ND), -1) - low).float() * (2 / max(high - low, 1e-9)) - 1
    )
    network = make(space, len(told), math.prod(channels), extent)
    _train(network, places_ND, values_NC, limit, rng)
    filled = values.copy()
    with torch.no_grad():
        found = torch.cat([network(part) for part in _places(asked_, len(others), bool(told), extent).split(CHUNK)])
    filled[asked_] = (((found.double() + 1) / 2) * (high - low) + low).numpy().reshape(-1, *channels)
    return filled.transpose(np.argsort(order))


def _train(network: nn.Module, places_ND: Tensor, values_NC: Tensor, limit: Limit, rng: torch.Generator) -> None:
    optimizer = torch.optim.Adam(network.parameters(), lr=network.rate, fused=True)
    for share in limit.shares():
        for group in optimizer.param_groups:
            group["lr"] = network.rate * (1 + math.cos(math.pi * share)) / 2
        batch_B = torch.randint(len(places_ND), (BATCH,), generator=rng)
        loss = functional.mse_loss(network(places_ND[batch_B]), values_NC[batch_B])
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        optimizer.step()


def _grid_first(axes: tuple[str, ...]) -> tuple[list[int], int]:
    """The order time, space, colours of the axes, and how many are of space."""
    space = [k for k, axis in enumerate(axes) if axis in SPATIAL]
    times = [k for k, axis in enumerate(axes) if axis == "t"]
    rest = [k for k in range(len(axes)) if k not in (*times, *space)]
    return [*times, *space, *rest], len(space)


def _places(mask: Mask, frames: int, told: bool, extent: int) -> Tensor:
    """(N, D) float32 coordinates of the elements of a mask: space, and the time behind it if it is told."""
    middle = [(size - 1) / 2 for size in mask.shape]
    found_ND = (np.argwhere(mask) - middle) * (2 / max(extent - 1, 1))
    columns = [*range(frames, mask.ndim), *range(frames if told else 0)]
    return torch.from_numpy(np.ascontiguousarray(found_ND[:, columns], np.float32))
