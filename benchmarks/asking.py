"""How fast a network is asked, beside the matrix products of its own forward pass; and what feeding a byte back costs.

    python -m benchmarks.asking [--width 256,512] [--layers 4] [--codes 0,256] [--seconds 10] [--json]

==================  ==================================================================================================
products            the products of the forward pass alone, of the same shapes and precision: the bound
forward             the network: features, products, activations
reconstruct         ``aunn_model.reconstruction.predict``, as `aunn-model reconstruct` calls it: means, variances, …
open loop           ``aunn_model.continuation.open_loop``, as `aunn-model continue` calls it: the likeliest bytes
open loop, drawn    the same at temperature 1
==================  ==================================================================================================

All ask the same random addresses, in turns, so that what else the machine does hits them all; the best round counts.
*share* is the part of the bound that each reaches (asked for: 70 %). A *feed-back step* asks C addresses and learns
what was chosen there; *times a forward* is what it costs beside asking alone.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from aunn_data.corpus import Corpus
from aunn_model import continuation, reconstruction
from aunn_model.continuation import Choice, Drawn, Place
from aunn_model.network import Network
from aunn_model.training import Settings, begin
from benchmarks.engine import made
from pipelines import runs
from pipelines.continuation import feeding
from pipelines.train import deterministic

ADDRESSES = 1 << 16
SIZE = 1 << 20
GOAL = 0.7
TOGETHER = (1, 16, 256)  # continuations that are fed back in one step
FED = 16  # steps that are timed


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--width", default="256,512", help="of the layers [default: 256,512]")
    parser.add_argument("--layers", type=int, default=4, help="hidden matrices [default: 4]")
    parser.add_argument("--codes", default="0,256", help="parities [default: 0,256]")
    parser.add_argument("--seconds", type=float, default=10, help="for each network [default: 10]")
    parser.add_argument("--addresses", type=int, default=ADDRESSES, help="asked in a round [default: 65536]")
    parser.add_argument("--json", action="store_true", help="print JSON instead")
    asked = parser.parse_args()
    found = []
    with tempfile.TemporaryDirectory() as folder:
        corpus = made(Path(folder) / "corpus", SIZE)
        for width in map(int, asked.width.split(",")):
            for codes in map(int, asked.codes.split(",")):
                settings = Settings(width=width, layers=asked.layers, codes=codes, steps=1)
                found.append(measured(corpus, settings, asked.seconds, asked.addresses))
    print(json.dumps(found, indent=1) if asked.json else "\n\n".join(map(shown, found)))


def measured(corpus: Corpus, settings: Settings, seconds: float, count: int) -> dict[str, Any]:
    """All figures of one network; speeds are addresses a second."""
    network = runs.fresh(corpus, settings).network
    addresses_N = np.random.default_rng(0).integers(0, SIZE, count)
    best = timed(contenders(network, addresses_N), seconds)
    speeds = {name: count / taken for name, taken in best.items()}
    shares = {name: speed / speeds["products"] for name, speed in speeds.items()}
    with deterministic():
        fed = {str(together): feeding_cost(network, settings, together) for together in TOGETHER}
    return {
        "width": settings.width,
        "layers": settings.layers,
        "codes": settings.codes,
        "addresses_per_second": speeds,
        "share": shares,
        "feed_back_times_forward": fed,
    }


def contenders(network: Network, addresses_N: np.ndarray[Any, np.dtype[np.int64]]) -> dict[str, Callable[[], object]]:
    """What takes turns, by name."""
    chunks = torch.split(torch.from_numpy(addresses_N).to(runs.device()), reconstruction.together(runs.device()))

    def forward() -> None:
        for chunk_B in chunks:
            network(chunk_B)

    def open_loop(temperature: float) -> None:
        place = Place(addresses_N, Drawn(Choice(temperature)))
        for _ in continuation.open_loop(network, [place]):
            pass

    return {
        "products": products(network, [len(chunk_B) for chunk_B in chunks]),
        "forward": forward,
        "reconstruct": lambda: reconstruction.predict(network, addresses_N),
        "open loop": lambda: open_loop(0.0),
        "open loop, drawn": lambda: open_loop(1.0),
    }


def products(network: Network, sizes: list[int]) -> Callable[[], object]:
    """The products of a forward pass with nothing between them."""
    weights = [layer.weight.detach() for layer in network.modules() if isinstance(layer, nn.Linear)]
    inputs = {(size, w.shape[1]): torch.randn(size, w.shape[1], device=w.device) for size in sizes for w in weights}
    bias = {w.shape[0]: torch.zeros(w.shape[0], device=w.device) for w in weights}

    def run() -> None:
        for size in sizes:
            for weight in weights:
                torch.addmm(bias[weight.shape[0]], inputs[size, weight.shape[1]], weight.T)

    return run


@torch.no_grad()
def timed(each: dict[str, Callable[[], object]], seconds: float) -> dict[str, float]:
    """The least seconds of each, in turns."""
    best, began = dict.fromkeys(each, float("inf")), time.perf_counter()
    rounds = 0
    while rounds < 2 or time.perf_counter() - began < seconds:
        for name, run in each.items():
            best[name] = min(best[name], _seconds(run))
        rounds += 1
    return best


def feeding_cost(network: Network, settings: Settings, together: int) -> float:
    """How many times a step that feeds bytes back at so many places takes what asking there alone takes."""
    starts = np.random.default_rng(0).integers(0, SIZE, together)
    places = [Place(np.arange(start, start + FED, dtype=np.int64), Drawn(Choice())) for start in starts]
    steps = replace(feeding(settings), precision="float32")
    addresses_B = torch.from_numpy(starts).to(runs.device())

    def fed() -> None:
        for _ in continuation.feed_back(begin(deepcopy(network), steps), steps, places):
            pass

    def asked() -> None:
        with torch.no_grad():
            for _ in range(FED):
                network(addresses_B)

    return min(_seconds(fed) for _ in range(3)) / min(_seconds(asked) for _ in range(3))


def _seconds(run: Callable[[], object]) -> float:
    began = time.perf_counter()
    run()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - began


def shown(found: dict[str, Any]) -> str:
    """Figures of one network for people."""
    head = f"{found['layers']} layers of {found['width']}, {found['codes']} codes, {runs.device()}"
    rows = [
        f"{name:18} {speed:12,.0f} addresses/s  {100 * found['share'][name]:5.1f} % of the products"
        for name, speed in found["addresses_per_second"].items()
    ]
    fed = [
        f"feeding back at {together:>5} places: {times:.1f} times asking"
        for together, times in found["feed_back_times_forward"].items()
    ]
    asked = [found["share"][name] for name in ("reconstruct", "open loop")]
    verdict = f"asked for: {GOAL:.0%} in reconstruct and open loop: {'reached' if min(asked) >= GOAL else 'missed'}"
    return "\n".join([head, *rows, *fed, verdict])


if __name__ == "__main__":
    main()
