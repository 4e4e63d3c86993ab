"""What comes next: bytes chosen at addresses that nobody knows, all at once or fed back one step at a time.

Legend: N addresses of a place, U of them asked at once, V = 256.

``open_loop`` asks the network as it stands: what it says of one address does not hang on what was chosen at another.
``feed_back`` takes a gradient step on every byte that was chosen before the next one is asked for: the weights are the
only memory that there is, and all places share them.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from math import log

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from aunn_model.embedding import Embedding
from aunn_model.network import BYTES, Network
from aunn_model.reconstruction import together
from aunn_model.training import Settings, State, step

LAST = (1 << 63) - 1
COLDEST = 1e-6  # below it float32 would divide by 0

Pick = Callable[[Tensor], Tensor]
"""(n, V) log probabilities of a place's next n addresses -> (n,) int64 bytes; fewer than n: the place ends there."""


@dataclass(frozen=True)
class Choice:
    """How a byte is chosen: the likeliest one (of quantities the one expected), or at a ``temperature`` above 0 drawn
    from the ``top_k`` likeliest (0: all). What is drawn follows from ``seed`` and from where it stands, not from what
    else is asked for."""

    temperature: float = 0.0
    top_k: int = 0
    seed: int = 0


@dataclass(frozen=True)
class Place:
    """Where to go on: int64 addresses in the order in which they are to be asked, ``unit`` of them at once."""

    addresses_N: npt.NDArray[np.int64]
    pick: Pick
    unit: int = 1


@dataclass(frozen=True)
class Continued:
    """The uint8 bytes chosen at a place's addresses, or at the first of them if it ended early, and the float32 bits of
    entropy that the network had there."""

    bytes_N: npt.NDArray[np.uint8]
    entropy_N: npt.NDArray[np.float32]


class Drawn:
    """A Pick: each byte from its own log probabilities, by a Choice; ``number`` tells places at one ``start`` apart.

    Of ``quantities`` the greedy byte is the mean: what lies between two likely values is no unlikely one.
    """

    def __init__(self, choice: Choice, start: int = 0, number: int = 0, quantities: bool = False):
        self.choice, self.quantities = choice, quantities
        self._random = np.random.default_rng([choice.seed, start, number])

    def __call__(self, log_NV: Tensor) -> Tensor:
        """(n, V) log probabilities, of any V -> (n,) int64."""
        choice = self.choice
        if choice.temperature == 0 and self.quantities:
            mean_N = log_NV.exp() @ torch.arange(BYTES, dtype=log_NV.dtype, device=log_NV.device)
            return mean_N.round().long().clamp(max=BYTES - 1)
        if choice.temperature == 0 or choice.top_k == 1:
            return log_NV.argmax(1)
        hot_NV = (log_NV - log_NV.amax(1, keepdim=True)) / max(choice.temperature, COLDEST)
        if 0 < choice.top_k < hot_NV.shape[1]:
            least_N1 = hot_NV.topk(choice.top_k, dim=1).values[:, -1:]
            hot_NV = hot_NV.masked_fill(hot_NV < least_N1, -torch.inf)
        up_to_NV = hot_NV.softmax(1).cumsum(1)
        random_N = torch.from_numpy(self._random.random(len(log_NV), np.float32)).to(log_NV.device)
        whole_N = up_to_NV[:, -1]
        level_N = torch.minimum(random_N * whole_N, torch.nextafter(whole_N, torch.zeros_like(whole_N)))
        return (up_to_NV <= level_N[:, None]).sum(1)


def read_alike(embedding: Embedding, start: int, stop: int, like: int) -> None:
    """Has the addresses ``start:stop`` read as the one at ``like`` is: as if a record of its kind lay there."""
    starts_R, device = embedding.starts_R.cpu(), embedding.starts_R.device
    at_2 = torch.tensor([like, min(stop, LAST)])
    within, behind = (embedding.classes_R.cpu()[torch.searchsorted(starts_R, at_2, right=True) - 1]).tolist()
    before_R, after_R = starts_R < start, starts_R > stop
    new, classes = ([start, stop], [within, behind]) if stop <= LAST else ([start], [within])
    embedding.starts_R = torch.cat([starts_R[before_R], torch.tensor(new), starts_R[after_R]]).to(device)
    known_R = embedding.classes_R.cpu()
    embedding.classes_R = torch.cat([known_R[before_R], torch.tensor(classes), known_R[after_R]]).to(device)


@torch.no_grad()
def open_loop(
    network: Network, places: Sequence[Place], on_addresses: Callable[[int], object] = lambda count: None
) -> Iterator[tuple[int, Continued]]:
    """Yields (number of the place, what was chosen there) place by place, thousands of addresses asked at once."""
    device = next(network.parameters()).device
    for number, place in enumerate(places):
        kept, piece = _Kept(), max(1, together(device) // place.unit) * place.unit
        for start in range(0, len(place.addresses_N), piece):
            addresses_B = torch.from_numpy(place.addresses_N[start : start + piece]).to(device)
            whole = kept.take(place, network(addresses_B).log_softmax(1))
            on_addresses(len(addresses_B))
            if not whole:
                break
        yield number, kept.all()


def feed_back(
    state: State,
    settings: Settings,
    places: Sequence[Place],
    on_addresses: Callable[[int], object] = lambda count: None,
) -> Iterator[tuple[int, Continued]]:
    """Yields the same as places end. Each step asks the next addresses of all places, then learns what was chosen.

    ``state`` changes: begin it on a copy of the network. DivergedError if a loss is no number.
    """
    device = next(state.network.parameters()).device
    kept, going, asked = [_Kept() for _ in places], [k for k, p in enumerate(places) if len(p.addresses_N)], 0
    yield from ((k, kept[k].all()) for k in range(len(places)) if k not in going)
    while going:
        parts = [places[k].addresses_N[asked * (u := places[k].unit) : (asked + 1) * u] for k in going]
        addresses_B = torch.from_numpy(np.concatenate(parts)).to(device)
        with torch.no_grad():
            log_BV = state.best(addresses_B).log_softmax(1)
        ended, addresses, chosen = [], [], []
        for k, here, log_UV in zip(going, parts, log_BV.split([len(part) for part in parts]), strict=True):
            whole = kept[k].take(places[k], log_UV)
            if whole:
                addresses.append(torch.from_numpy(here))
                chosen.append(kept[k].bytes[-1])
            if not whole or (asked + 1) * places[k].unit >= len(places[k].addresses_N):
                ended.append(k)
        if addresses:
            step(state, settings, torch.cat(addresses).to(device), torch.cat(chosen))
        asked += 1
        going = [k for k in going if k not in ended]
        on_addresses(len(addresses_B))
        yield from ((k, kept[k].all()) for k in ended)


class _Kept:
    """What was chosen at a place so far."""

    def __init__(self) -> None:
        self.bytes: list[Tensor] = []
        self.entropy: list[Tensor] = []

    def take(self, place: Place, log_NV: Tensor) -> bool:
        """Has the place pick from (n, V) log probabilities; False if it ends here."""
        picked_N = place.pick(log_NV)
        kept_NV = log_NV[: len(picked_N)]
        self.bytes.append(picked_N.to(torch.uint8))
        self.entropy.append(-(kept_NV.exp() * kept_NV).sum(1) / log(2))
        return len(picked_N) == len(log_NV)

    def all(self) -> Continued:
        bytes_N = torch.cat([torch.empty(0, dtype=torch.uint8), *(part.cpu() for part in self.bytes)])
        entropy_N = torch.cat([torch.empty(0), *(part.float().cpu() for part in self.entropy)])
        return Continued(bytes_N.numpy(), entropy_N.numpy())
