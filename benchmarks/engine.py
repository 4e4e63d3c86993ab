"""How fast we train, beside the loop that one would write after reading the toy that all this began with.

    python -m benchmarks.engine --batch 2048,8192 --seconds 20

Everybody trains the same perceptron (64 binary digits in, ReLU layers, 256 logits out) with AdamW on the same bytes:

=================  ===================================================================================================
ours               ``aunn_model.training.step`` on ``pipelines.batches``, as `aunn-model train` calls them
ours, muon         the same with the default optimiser
ours, compiled     the same as ours behind torch.compile; needs a C++ compiler
plain loop         float32, torch.randperm, digits computed for a batch at once
toy loop           float32, a DataLoader over a Dataset that turns one index after another into 64 digits
=================  ===================================================================================================

They take turns, so that what else the machine does hits them all; the median of the rounds counts. *peak* is what this
machine reaches in matrix products alone, the best of several shapes of this width; *share* is what part of it a whole
step is, counting 6 operations a weight and address without the gradient of the digits, which nobody needs. *limit* is
how much faster than the plain loop a step would be that took no longer than its products at the higher peak.
"""

import argparse
import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import replace
from itertools import count, pairwise
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.profiler import ProfilerActivity, profile, record_function
from torch.utils.data import DataLoader, Dataset

from aunn_data import spans
from aunn_data.corpus import Corpus
from aunn_data.geometry import Geometry
from aunn_data.header import NO_SHA256, Header
from aunn_data.record import Record
from aunn_data.sampling import trainable
from aunn_model.embedding import Digits
from aunn_model.network import Network
from aunn_model.training import Settings, State, begin, best_precision, step
from pipelines import runs
from pipelines.batches import Batches
from pipelines.train import deterministic

BITS = 64
SIZE = 1 << 20  # bytes to train on
ROUNDS = 5
PROFILED = 8  # steps
GOALS = {"cpu": (3.0, 0.5), "cuda": (10.0, 0.6)}  # times the plain loop; share of the peak
PARTS = {  # of a step, as the profiler names them
    "batch": ("part: batch",),
    "embedding": ("part: embedding",),
    "matrix products": ("aten::mm", "aten::addmm"),
    "casts and copies": ("aten::_to_copy",),
    "loss": ("aten::cross_entropy_loss", "*LogSoftmaxBackward0", "*NllLossBackward0"),
    "optimiser": ("Optimizer.step#AdamW.step", "Optimizer.step#Muon.step"),
}

Steps = Iterator[object]


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--width", help="of the layers, such as 512,4096 [default: 512, on a GPU 4096 too]")
    parser.add_argument("--layers", type=int, default=7, help="hidden matrices, beside entry and exit [default: 7]")
    parser.add_argument("--batch", default="2048,8192", help="addresses a step [default: 2048,8192]")
    parser.add_argument("--seconds", type=float, default=20, help="for each contender and batch [default: 20]")
    parser.add_argument("--size", type=int, default=SIZE, help="bytes to train on [default: 2^20]")
    parser.add_argument("--no-compile", action="store_true", help="leave torch.compile out")
    parser.add_argument("--json", action="store_true", help="print JSON instead")
    asked = parser.parse_args()
    widths = asked.width or ("512,4096" if runs.device().type == "cuda" else "512")
    found = []
    with tempfile.TemporaryDirectory() as folder:
        corpus = made(Path(folder) / "corpus", asked.size)
        for width in map(int, widths.split(",")):
            peaks = {str(dtype)[6:]: peak(width, dtype, runs.device()) for dtype in (torch.float32, torch.bfloat16)}
            for batch in map(int, asked.batch.split(",")):
                settings = settings_of(width, asked.layers, batch)
                found.append(measured(corpus, settings, peaks, asked.seconds, not asked.no_compile))
    print(json.dumps(found, indent=1) if asked.json else "\n\n".join(map(shown, found)))


def made(folder: Path, size: int) -> Corpus:
    """A corpus of one record of random bytes."""
    corpus = Corpus.create(folder, address_bits=40)
    elements = np.random.default_rng(0).integers(0, 256, size, np.uint8)
    header = Header("random", "random", "text", "text", Geometry("|u1", ("byte",), (size,), "packed"))
    corpus.append([Record(header, elements)], [NO_SHA256])
    return corpus


def settings_of(width: int, layers: int, batch: int) -> Settings:
    """The toy's network and ours alike, in the precision that training would choose."""
    precision = best_precision(runs.device(), width, batch)
    plain = Settings(trunk="plain", features="digits", optimizer="adamw", steps=10**9, ema=0, fine_share=0, checks=0)
    return replace(plain, width=width, layers=layers, batch=batch, adam_lr=1e-3, precision=precision)


def measured(
    corpus: Corpus, settings: Settings, peaks: dict[str, float], seconds: float, compiled: bool
) -> dict[str, Any]:
    """All figures of one width and batch; speeds are addresses a second, peaks operations a second."""
    device = runs.device()
    contenders: dict[str, Steps] = {
        "ours": ours(corpus, settings),
        "ours, muon": ours(corpus, replace(settings, optimizer="muon")),
        "plain loop": plain_loop(corpus, settings, device),
        "toy loop": toy_loop(corpus, settings, device),
    }
    said: dict[str, Any] = {}
    if compiled:
        said = warmed(corpus, settings, contenders)
    speeds = {name: settings.batch / pace for name, pace in paces(contenders, seconds, device).items()}
    each = operations(settings)
    used = peaks["bfloat16" if settings.precision == "bf16" else "float32"]
    return {
        "device": device.type,
        "threads": torch.get_num_threads(),
        "width": settings.width,
        "layers": settings.layers,
        "batch": settings.batch,
        "precision": settings.precision,
        "peak": peaks,
        "addresses_per_second": speeds,
        "ratio": {name: speeds["ours"] / speed for name, speed in speeds.items() if name != "ours"},
        "share": {
            name: speed * each / (used if name.startswith("ours") else peaks["float32"])
            for name, speed in speeds.items()
        },
        "limit": max(peaks.values()) / (speeds["plain loop"] * each),
        "parts": parts(corpus, settings),
        "compile": said or {"said": "not asked for"},
    }


def operations(settings: Settings) -> int:
    """Operations of a step on one address: forward, backward to the weights, and to all activations but the digits."""
    width = settings.width
    matrices = BITS * width + settings.layers * width**2 + width * 256
    return 6 * matrices - 2 * BITS * width


# ---- contenders: each yields after a step ------------------------------------------------------------------------


def state_of(settings: Settings) -> State:
    """Our network at step 0."""
    torch.manual_seed(0)
    network = Network(Digits(BITS), settings.width, settings.layers, settings.trunk)
    return begin(network.to(runs.device()), settings)


def ours(corpus: Corpus, settings: Settings, wrap: Callable[[nn.Module], nn.Module] | None = None) -> Steps:
    """Our steps on our batches."""
    state, batches = state_of(settings), Batches(corpus, settings, runs.device())
    if wrap:
        state.forward = wrap(state.network)
    for number in count():
        with deterministic():
            step(state, settings, *batches(number))
        yield


def plain_loop(corpus: Corpus, settings: Settings, device: torch.device) -> Steps:
    """The same network in a loop without any care but whole batches."""
    network, optimizer = perceptron(settings, device)
    addresses_N, bytes_N = (tensor.to(device) for tensor in data(corpus))
    shifts_K = torch.arange(BITS, device=device)
    while True:
        for index_B in torch.randperm(len(addresses_N), device=device).split(settings.batch):
            digits_BK = (addresses_N[index_B][:, None] >> shifts_K & 1).float()
            descend(network, optimizer, digits_BK, bytes_N[index_B])
            yield


class OneByOne(Dataset[tuple[Tensor, Tensor]]):
    """An index -> its 64 digits and its byte, one at a time, as the toy has it."""

    def __init__(self, addresses_N: Tensor, bytes_N: Tensor):
        self.addresses, self.bytes = addresses_N, bytes_N

    def __len__(self) -> int:
        return len(self.addresses)

    def __getitem__(self, number: int) -> tuple[Tensor, Tensor]:
        digits = [float(digit) for digit in f"{int(self.addresses[number]):0{BITS}b}"]
        return torch.tensor(digits), self.bytes[number]


def toy_loop(corpus: Corpus, settings: Settings, device: torch.device) -> Steps:
    """The same, its digits made one by one."""
    network, optimizer = perceptron(settings, device)
    loader = DataLoader(OneByOne(*data(corpus)), batch_size=settings.batch, shuffle=True)
    while True:
        for digits_BK, bytes_B in loader:
            descend(network, optimizer, digits_BK.to(device), bytes_B.to(device))
            yield


def perceptron(settings: Settings, device: torch.device) -> tuple[nn.Module, torch.optim.Optimizer]:
    """The toy's network and optimiser, in torch's own words."""
    sizes = [BITS] + [settings.width] * (settings.layers + 1)
    hidden = [part for pair in pairwise(sizes) for part in (nn.Linear(*pair), nn.ReLU())]
    network = nn.Sequential(*hidden, nn.Linear(settings.width, 256)).to(device)
    return network, torch.optim.AdamW(network.parameters(), lr=settings.adam_lr)


def data(corpus: Corpus) -> tuple[Tensor, Tensor]:
    """(N,) all trainable addresses and bytes."""
    spans_S = trainable(corpus)
    return torch.from_numpy(spans.addresses(spans_S)), torch.from_numpy(corpus.gather(spans_S)).long()


def descend(network: nn.Module, optimizer: torch.optim.Optimizer, digits_BK: Tensor, bytes_B: Tensor) -> None:
    """One step of the plain kind."""
    optimizer.zero_grad()
    loss = functional.cross_entropy(network(digits_BK), bytes_B)
    torch.autograd.backward(loss)
    optimizer.step()


# ---- measuring ---------------------------------------------------------------------------------------------------


def paces(contenders: dict[str, Steps], seconds: float, device: torch.device) -> dict[str, float]:
    """Median seconds a step; all take turns in every round, the first steps of each uncounted."""
    found: dict[str, list[float]] = {name: [] for name in contenders}
    for steps in contenders.values():
        run(steps, 0, device)
    for _ in range(ROUNDS):
        for name, steps in contenders.items():
            found[name].append(run(steps, seconds / ROUNDS, device))
    return {name: median(times) for name, times in found.items()}


def run(steps: Steps, seconds: float, device: torch.device) -> float:
    """Seconds a step, of as many whole steps as begin within ``seconds``, one at least."""
    done, began = 0, time.perf_counter()
    while done == 0 or time.perf_counter() - began < seconds:
        next(steps)
        done += 1
    finished(device)
    return (time.perf_counter() - began) / done


def finished(device: torch.device) -> None:
    """Waits until the device has done all it was asked."""
    if device.type == "cuda":
        torch.cuda.synchronize()


def peak(width: int, dtype: torch.dtype, device: torch.device) -> float:
    """Operations a second of the fastest product of a (rows, width) and a (width, width) matrix."""
    best = 0.0
    for rows in {width, 2048, 8192, 4 * width}:
        a, b = (torch.randn(n, width, device=device, dtype=dtype) for n in (rows, width))
        times = []
        for _ in range(8):
            began = time.perf_counter()
            torch.mm(a, b)
            finished(device)
            times.append(time.perf_counter() - began)
        best = max(best, 2 * rows * width**2 / min(times))
    return best


def warmed(corpus: Corpus, settings: Settings, contenders: dict[str, Steps]) -> dict[str, Any]:
    """Adds our steps behind torch.compile to the contenders; says how long three took first, or why it cannot be."""
    if not shutil.which(os.environ.get("CXX", "c++")):
        return {"said": "no compiler"}
    steps, began = ours(corpus, settings, lambda network: torch.compile(network)), time.perf_counter()
    try:
        for _ in range(3):
            next(steps)
    except Exception as error:  # whatever compilers and their caches throw
        return {"said": f"failed: {str(error).splitlines()[0]}"}
    contenders["ours, compiled"] = steps
    return {"said": "compiled", "warm_up_seconds": time.perf_counter() - began}


def parts(corpus: Corpus, settings: Settings) -> dict[str, float]:
    """Shares of our step's time; products and casts lie within others, so that the shares need not sum up to 1."""
    state, batches = state_of(settings), Batches(corpus, settings, runs.device())
    cuda = runs.device().type == "cuda"
    marks: list[Any] = []
    state.network.embedding.register_forward_pre_hook(
        lambda *_: marks.append(record_function("part: embedding").__enter__())
    )
    state.network.embedding.register_forward_hook(lambda *_: marks.pop().__exit__(None, None, None))
    kinds = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if cuda else [])]
    for profiler in (nullcontext(), profile(activities=kinds)):
        with profiler as found, deterministic():
            for number in range(PROFILED):
                with record_function("whole"):
                    with record_function("part: batch"):
                        batch = batches(number)
                    step(state, settings, *batch)
            finished(runs.device())
    times: dict[str, float] = {}
    for event in found.key_averages():
        key = event.key.replace("autograd::engine::evaluate_function: ", "*")
        times[key] = times.get(key, 0.0) + (event.device_time_total if cuda else event.cpu_time_total)
    return {part: sum(times.get(name, 0.0) for name in names) / times["whole"] for part, names in PARTS.items()}


def shown(found: dict[str, Any]) -> str:
    """The figures as lines of text."""
    peaks, speeds = found["peak"], found["addresses_per_second"]
    lines = [
        f"{found['device']}, {found['threads']} threads: {found['layers'] + 1} layers of {found['width']}, "
        f"batch {found['batch']:,}, ours in {found['precision']}",
        "peak of matrix products: " + ", ".join(f"{name} {value / 1e9:,.0f} GFLOP/s" for name, value in peaks.items()),
    ]
    for name, speed in speeds.items():
        ratio = "" if name == "ours" else f"  ours is {found['ratio'][name]:.2f} times as fast"
        lines.append(f"{name:15} {speed:12,.0f} addresses/s  {100 * found['share'][name]:5.1f} % of peak{ratio}")
    times, share = GOALS[found["device"]]
    reached = "yes" if found["ratio"]["plain loop"] >= times else "no"
    lines.append(f"to reach: {times:.0f} times the plain loop: {reached}; limit {found['limit']:.2f} times")
    lines.append(f"to reach: {share:.0%} of peak: {'yes' if found['share']['ours'] >= share else 'no'}")
    lines.append("of our step: " + ", ".join(f"{name} {100 * value:.0f} %" for name, value in found["parts"].items()))
    said = found["compile"]
    warm = f", warm-up {said['warm_up_seconds']:.0f} s" if "warm_up_seconds" in said else ""
    lines.append(f"torch.compile: {said['said']}{warm}")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
