"""The published toy: 100,000 random triplets, `|bbb|aaa|ccc|…`, learned by heart from their addresses alone.

    python -m benchmarks.toy [--json] [--epochs 20] [--seconds S] [--triplets 100000] [--ablation]

Trains our recipe until every character is right, then the original one (8 layers of 512, ReLU, float32, AdamW, the 64
digits of an address) for as much processor time, on one thread. An epoch is every address once. Accuracy by epoch is of
the batches as they came, before they were learned from; the last one, ``accuracy``, is of all characters, afterwards.
``--ablation`` changes one thing of our recipe at a time, on a small toy of 12,500 triplets.

Legend: N characters, B batch, K = 64 digits, P parities, F features, W width, V = 256 possible bytes.
"""

import argparse
import hashlib
import json
import string
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from aunn_data.corpus import Corpus
from aunn_data.geometry import Geometry
from aunn_data.header import Header
from aunn_data.orders import Shuffled
from aunn_data.record import Record
from aunn_model.training import autocast, best_precision

DIGITS, BYTES = 64, 256
GROUP_BITS, LOW = 2, 3  # a bar and three letters are four addresses, told apart by three signs …
LOW_GAIN = 3.0  # … louder than a parity
OCTAVES = 24  # of waves
ALMOST = 0.998  # of the characters of an epoch right before they were learned: all may be by now, so all are checked
CPU = torch.device("cpu")


@dataclass(frozen=True)
class Recipe:
    """How a network is made and trained. Learning rates fall linearly to 0 over ``epochs`` unless they are constant.

    ``features``: "parities", "waves" (sine and cosine), or "digits" alone. ``layers``: hidden ones. ``muon``: on the
    "hidden" matrices, the "entry too", "none". ``together``: the characters of a group are always in one batch.
    """

    features: str = "parities"
    parities: int = 512
    width: int = 512
    layers: int = 2
    activation: str = "silu"
    scaled: bool = True  # weights that keep the size of activations, nothing said at first; else torch's own
    muon: str = "hidden"
    muon_lr: float = 0.05
    adam_lr: float = 0.01
    constant: bool = False
    batch: int = 8192
    epochs: int = 20
    precision: str = "auto"
    together: bool = True
    seed: int = 0


OURS = Recipe()
ORIGINAL = Recipe(
    features="digits",
    layers=8,
    activation="relu",
    scaled=False,
    muon="none",
    adam_lr=1e-3,
    constant=True,
    batch=2048,
    epochs=500,
    precision="float32",
    together=False,
)
SMALL = replace(OURS, parities=256, width=128, batch=1024, epochs=15)
ABLATION: dict[str, dict[str, Any]] = {
    "ours, small": {},
    "features: digits": {"features": "digits"},
    "features: waves": {"features": "waves"},
    "features: 64 parities": {"parities": 64},
    "features: 128 parities": {"parities": 128},
    "features: 512 parities": {"parities": 512},
    "adamw on all, 0.002": {"muon": "none", "adam_lr": 0.002},
    "adamw on all, 0.005": {"muon": "none", "adam_lr": 0.005},
    "adamw on all, 0.01": {"muon": "none", "adam_lr": 0.01},
    "muon on the entry too": {"muon": "entry too"},
    "muon at 0.02": {"muon_lr": 0.02},
    "muon at 0.1": {"muon_lr": 0.1},
    "batch 256": {"batch": 256},
    "batch 2048": {"batch": 2048},
    "batch 4096": {"batch": 4096},
    "schedule: constant": {"constant": True},
    "weights begin as torch's": {"scaled": False},
    "one layer": {"layers": 1},
    "one layer of 192": {"layers": 1, "width": 192},
    "three layers": {"layers": 3},
    "relu": {"activation": "relu"},
    "float32": {"precision": "float32"},
    "groups not together": {"together": False},
}


@dataclass(frozen=True)
class Toy:
    """addresses_N (int64, ascending) of the text in a corpus, bytes_N (int64) that stand there."""

    addresses: Tensor
    bytes: Tensor


@dataclass(frozen=True)
class Curve:
    """How training went; ``accuracy`` of all characters at the end, ``by_epoch`` as they came."""

    accuracy: float
    epochs: int
    processor_seconds: float
    by_epoch: list[float]


def toy(folder: Path, triplets: int, seed: int = 0) -> Toy:
    """The text as a record of a corpus, padded: packed, it would begin anywhere, and not at a multiple of four."""
    letters = np.random.default_rng(seed).choice(list(string.ascii_lowercase), triplets)
    text = "".join(f"|{letter * 3}" for letter in letters).encode()
    geometry = Geometry("|u1", ("byte",), (len(text),), "padded")
    header = Header("toy.txt", "toy.txt", "text", "text", geometry, {"encoding": "utf-8"})
    corpus = Corpus.create(folder / "corpus")
    [entry] = corpus.append([Record(header, np.frombuffer(text, np.uint8))], [hashlib.sha256(text).hexdigest()])
    span = entry.payload_start, entry.payload_start + len(text)
    return Toy(torch.arange(*span), torch.from_numpy(corpus.read(*span)).long())


class Features(nn.Module):
    """(B,) addresses -> (B, F), fixed. As digits, neighbours look nearly alike, and random labels are hard to tell.

    A parity is the XOR of a random half of the digits above the lowest two, as +1 or -1: two groups differ in about
    half of all parities, so each looks like nothing else, and its four characters look alike. With them come the two
    lowest digits and their product, loud: where a group begins is learned first.
    """

    def __init__(self, recipe: Recipe):
        super().__init__()
        self.kind = recipe.features
        masks_KP = np.random.default_rng(recipe.seed).integers(0, 2, (DIGITS, recipe.parities))
        masks_KP[:GROUP_BITS] = 0
        self.register_buffer("masks_KP", torch.from_numpy(masks_KP).bfloat16())  # counts up to 256 are exact
        self.masks_KP: Tensor
        self.features = {"digits": DIGITS, "parities": recipe.parities + LOW, "waves": 2 * OCTAVES + LOW}[self.kind]

    def forward(self, addresses_B: Tensor) -> Tensor:
        """(B,) int64 -> (B, F) float32."""
        digits_BK = addresses_B[:, None] >> torch.arange(DIGITS) & 1
        signs_BK = 1 - 2 * digits_BK
        if self.kind == "digits":
            return signs_BK.float()
        if self.kind == "waves":
            turns = addresses_B[:, None].double() / 2.0 ** torch.arange(GROUP_BITS, GROUP_BITS + OCTAVES)
            high_BP = 2**0.5 * torch.cat([(2 * torch.pi * turns).sin(), (2 * torch.pi * turns).cos()], dim=1)
        else:
            high_BP = 1 - 2 * ((digits_BK.bfloat16() @ self.masks_KP).to(torch.uint8) & 1).bfloat16()
        low_BL = torch.stack([signs_BK[:, 0], signs_BK[:, 1], signs_BK[:, 0] * signs_BK[:, 1]], dim=1)
        return torch.cat([high_BP, LOW_GAIN * low_BL], dim=1).float()


class Entry(nn.Module):
    """The first layer, in two products: rounded in one, the characters of a group would come out a little unlike."""

    def __init__(self, features: int, width: int):
        super().__init__()
        self.high, self.low = nn.Linear(features - LOW, width), nn.Linear(LOW, width, bias=False)
        nn.init.kaiming_normal_(self.high.weight, nonlinearity="relu")
        nn.init.zeros_(self.high.bias)
        nn.init.zeros_(self.low.weight)  # alike until they prove not to be

    def forward(self, features_BF: Tensor) -> Tensor:
        """(B, F) -> (B, W)."""
        out: Tensor = self.high(features_BF[:, :-LOW]) + self.low(features_BF[:, -LOW:])
        return out


def perceptron(recipe: Recipe) -> nn.Sequential:
    """Features of an address, plain hidden layers, 256 logits."""
    features, activation = Features(recipe), {"silu": nn.SiLU, "relu": nn.ReLU}[recipe.activation]
    split = recipe.scaled and recipe.features != "digits"
    entry = (Entry if split else nn.Linear)(features.features, recipe.width)
    hidden = [nn.Linear(recipe.width, recipe.width) for _ in range(recipe.layers - 1)]
    last = nn.Linear(recipe.width, BYTES)
    if recipe.scaled:
        for layer in hidden:
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
            nn.init.zeros_(layer.bias)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
    layers = [part for layer in hidden for part in (layer, activation())]
    return nn.Sequential(features, entry, activation(), *layers, last)


def optimizers(network: nn.Sequential, recipe: Recipe) -> list[torch.optim.Optimizer]:
    """Muon on the matrices between hidden layers, AdamW on the rest; or AdamW on all."""
    matrices = [layer.weight for layer in list(network)[3:-1] if isinstance(layer, nn.Linear)]
    if recipe.muon == "entry too":
        matrices += [weight for weight in network[1].parameters() if weight.ndim == 2 and weight.shape[1] > LOW]
    if recipe.muon == "none" or not matrices:
        return [_adamw(list(network.parameters()), recipe)]
    rest = [weight for weight in network.parameters() if all(weight is not matrix for matrix in matrices)]
    return [_adamw(rest, recipe), torch.optim.Muon(matrices, recipe.muon_lr, weight_decay=0.0)]


def _adamw(weights: list[nn.Parameter], recipe: Recipe) -> torch.optim.Optimizer:
    return torch.optim.AdamW(weights, recipe.adam_lr, betas=(0.9, 0.99), weight_decay=0.0, fused=True)


def learn(toy: Toy, recipe: Recipe, seconds: float = float("inf")) -> tuple[nn.Sequential, Curve]:
    """Trains until every character is right, the epochs of the recipe are over, or the processor seconds are."""
    began, by_epoch = time.process_time(), list[float]()
    torch.manual_seed(recipe.seed)
    if recipe.precision == "auto":
        recipe = replace(recipe, precision=best_precision(CPU, recipe.width, recipe.batch))
    network, size = perceptron(recipe), len(toy.addresses)
    right = taken = done = 0
    for count, correct in _steps(toy, recipe, network):
        right, taken, done = right + correct, taken + count, done + count
        if over := done >= (len(by_epoch) + 1) * size:
            by_epoch.append(round(right / taken, 6))
            print(f"epoch {len(by_epoch)}: {100 * by_epoch[-1]:.3f} %", file=sys.stderr)
            right = taken = 0
        spent = time.process_time() - began
        if spent >= seconds or (over and by_epoch[-1] > ALMOST and accuracy(network, toy, recipe) == 1):
            break
    spent = time.process_time() - began
    return network, Curve(accuracy(network, toy, recipe), len(by_epoch) + (taken > 0), round(spent, 1), by_epoch)


def _steps(toy: Toy, recipe: Recipe, network: nn.Sequential) -> Iterator[tuple[int, int]]:
    """Trains; after each step how many characters it had, and of how many the network knew the right one before."""
    unit = 1 << GROUP_BITS if recipe.together else 1  # what is shuffled: characters, or groups whole
    size, order = len(toy.addresses), Shuffled(len(toy.addresses) // unit, recipe.seed)
    steps, used = -(-recipe.epochs * size // recipe.batch), optimizers(network, recipe)
    rates = [optimizer.param_groups[0]["lr"] for optimizer in used]
    for step in range(steps):
        count = recipe.batch // unit
        units = torch.from_numpy(order.at(step * count, count, count))
        ranks_B = (units[:, None] * unit + torch.arange(unit)).reshape(-1)
        scale = min(1.0, 50 * (step + 1) / steps) * (1.0 if recipe.constant else 1 - step / steps)
        for optimizer, rate in zip(used, rates, strict=True):
            optimizer.param_groups[0]["lr"] = rate * scale
            optimizer.zero_grad()
        logits_BV = _logits(network, toy.addresses[ranks_B], recipe)
        torch.autograd.backward(functional.cross_entropy(logits_BV, toy.bytes[ranks_B]))
        for optimizer in used:
            optimizer.step()
        yield recipe.batch, int((logits_BV.argmax(1) == toy.bytes[ranks_B]).sum())


def _logits(network: nn.Sequential, addresses_B: Tensor, recipe: Recipe) -> Tensor:
    with autocast(recipe.precision, CPU):
        logits_BV: Tensor = network(addresses_B).float()
        return logits_BV


@torch.no_grad()
def accuracy(network: nn.Sequential, toy: Toy, recipe: Recipe) -> float:
    """The share of characters that the network says right."""
    right = sum(
        int((_logits(network, addresses_B, recipe).argmax(1) == bytes_B).sum())
        for addresses_B, bytes_B in zip(torch.split(toy.addresses, 8192), torch.split(toy.bytes, 8192), strict=True)
    )
    return right / len(toy.addresses)


def compare(toy: Toy, ours: Recipe, seconds: float, original: Recipe = ORIGINAL) -> dict[str, Any]:
    """Our figures, and under "original" those of the original recipe after the same processor seconds."""
    _, found = learn(toy, ours, seconds)
    _, other = learn(toy, original, found.processor_seconds)
    return {"characters": len(toy.addresses), **asdict(found), "recipe": asdict(ours), "original": asdict(other)}


def ablation(toy: Toy, seed: int) -> Iterator[dict[str, Any]]:
    """Our recipe on a small toy with one thing changed at a time."""
    for name, change in ABLATION.items():
        _, found = learn(toy, replace(SMALL, seed=seed, **change))
        yield {"change": name, **asdict(found)}


def _line(name: str, found: dict[str, Any]) -> str:
    """A line of the table: accuracy at the end and after epochs 5 and 10, epochs, processor seconds."""
    by_epoch = [f"{100 * accuracy:.2f}" for accuracy in found["by_epoch"]]
    at = [by_epoch[epoch - 1] if len(by_epoch) >= epoch else "" for epoch in (5, 10)]
    whole = f"{100 * found['accuracy']:.4f}"
    return f"| {name} | {whole} | {at[0]} | {at[1]} | {found['epochs']} | {found['processor_seconds']:.1f} |"


def _table(rows: dict[str, dict[str, Any]]) -> str:
    """Rows by name."""
    head = "| | accuracy % | epoch 5 | epoch 10 | epochs | processor seconds |\n|---|---|---|---|---|---|"
    return "\n".join([head, *(_line(name, found) for name, found in rows.items())])


def main() -> None:
    """Trains and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--triplets", type=int)
    parser.add_argument("--epochs", type=int, default=OURS.epochs, help="planned; it ends when all is right")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="processor seconds, at most")
    parser.add_argument("--seed", type=int, default=0, help="of text, features and weights")
    parser.add_argument("--ablation", action="store_true")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    triplets = asked.triplets or (12_500 if asked.ablation else 100_000)
    with tempfile.TemporaryDirectory() as folder:
        made = toy(Path(folder), triplets, asked.seed)
    if asked.ablation:
        rows = {found["change"]: found for found in ablation(made, asked.seed)}
        print(json.dumps(list(rows.values())) if asked.json else _table(rows))
        return
    found = compare(made, replace(OURS, epochs=asked.epochs, seed=asked.seed), asked.seconds)
    print(json.dumps(found) if asked.json else _table({"ours": found, "original": found["original"]}))


if __name__ == "__main__":
    main()
