"""The published toy, 100,000 random triplets, `|bbb|aaa|ccc|…`: learned by heart from addresses alone, and asked on.

    python -m benchmarks.toy [--json] [--picture toy.png] [--epochs 18] [--seconds S] [--triplets 100000] [--ablation]
                             [--work FOLDER]

The text is ingested and trained on as any other, by settings that a run.toml takes, until every character is right;
then the original recipe (8 layers of 512, ReLU, float32, AdamW, the 64 digits of an address) for as much processor
time, on one thread. An epoch is every address once; accuracy is of all characters, after each. What the network says
beyond the text, and after being told `|c`, is ``benchmarks.toy_asked``. ``--ablation`` changes one setting at a time,
on a small toy of 12,500 triplets. With ``--work`` a killed benchmark goes on: ours, the original and each change of one
setting are parts that are kept, and within each, training goes on from weights that are saved every 20 seconds.

Legend: N characters, B batch.
"""

import argparse
import json
import string
import sys
import tempfile
from collections.abc import Iterator
from copy import deepcopy
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from aunn_data.corpus import Corpus
from aunn_data.orders import Shuffled
from aunn_model.embedding import Digits
from aunn_model.training import Settings, State, autocast, train
from benchmarks.resuming import NOWHERE, Training, Work, add_option, digest, working
from benchmarks.toy_asked import SPAN, TRIALS, asked, draw
from pipelines import runs
from pipelines.batches import Batches
from pipelines.ingest import ingest
from pipelines.options import Options

CPU = torch.device("cpu")
EPOCHS = 18
OURS = Settings(
    width=512,
    layers=1,
    codes=512,
    unit=4,
    oblique=0,
    batch=8000,
    order="windows",
    window=4,
    value_weight=0.0,
    adam_lr=0.03,
    muon_lr=0.05,
    weight_decay=0.0,
    ema=0.0,
    checks=0.0,
)
SMALL = replace(OURS, width=128, codes=256, batch=1000)
ABLATION: dict[str, dict[str, Any]] = {
    "ours, small": {},
    "digits for codes": {"features": "digits", "codes": 0},
    "waves for codes": {"codes": 0},
    "64 codes": {"codes": 64},
    "128 codes": {"codes": 128},
    "512 codes": {"codes": 512},
    "a code for each address": {"unit": 1},
    "characters shuffled singly": {"order": "shuffled"},
    "adamw on all, 0.002": {"optimizer": "adamw", "adam_lr": 0.002},
    "adamw on all, 0.005": {"optimizer": "adamw", "adam_lr": 0.005},
    "adamw on all, 0.01": {"optimizer": "adamw", "adam_lr": 0.01},
    "adamw beside muon 0.01": {"adam_lr": 0.01},
    "muon 0.02": {"muon_lr": 0.02},
    "muon 0.1": {"muon_lr": 0.1},
    "batch 250": {"batch": 250},
    "batch 4000": {"batch": 4000},
    "constant rates": {"schedule": "constant"},
    "two layers": {"layers": 2},
    "three layers": {"layers": 3},
    "residual pairs": {"layers": 2, "trunk": "residual"},
    "float32": {"precision": "float32"},
}


@dataclass(frozen=True)
class Toy:
    """A corpus with the text; where it stands, addresses_N (int64, ascending), and its bytes_N (uint8)."""

    corpus: Corpus
    addresses: Tensor
    bytes: Tensor

    @property
    def digest(self) -> str:
        """What tells it apart from other toys."""
        return digest(self.bytes.numpy().tobytes())


@dataclass(frozen=True)
class Curve:
    """How training went: accuracy of all characters at the end, and after each epoch."""

    accuracy: float
    epochs: int
    processor_seconds: float
    by_epoch: list[float]


def toy(folder: Path, triplets: int, seed: int = 0) -> Toy:
    """The text, ingested padded: packed, it would begin anywhere, and not at a multiple of four."""
    letters = np.random.default_rng(seed).choice(list(string.ascii_lowercase), triplets)
    text = "".join(f"|{letter * 3}" for letter in letters)
    (folder / "things").mkdir()
    (folder / "things" / "toy.txt").write_text(text)
    corpus = Corpus.create(folder / "corpus")
    ingest([folder / "things"], corpus, Options(layout="padded"))
    start = corpus.entries.named("toy.txt").payload_start
    span = start, start + len(text)
    return Toy(corpus, torch.arange(*span), torch.from_numpy(corpus.read(*span)))


def learn(
    made: Toy, settings: Settings, epochs: int = EPOCHS, seconds: float = float("inf"), work: Work = NOWHERE
) -> tuple[State, Curve]:
    """Trains until every character is right, the planned epochs are over, or the processor seconds are."""
    size = len(made.addresses)
    precision = settings.precision
    if precision == "auto":
        precision = work.precision(settings.width, settings.batch)
    settings = replace(settings, steps=-(-epochs * size // settings.batch), precision=precision)
    span = np.array([[int(made.addresses[0]), int(made.addresses[-1]) + 1]])
    batches = Batches(made.corpus, settings, CPU, within=span)
    state = runs.fresh(made.corpus, settings)
    training = Training(work, state, by_epoch=[])
    by_epoch: list[float] = training.notes["by_epoch"]
    found = 0.0
    for metrics in () if training.over else train(state, settings, batches, every=-(-size // settings.batch)):
        over = metrics.step * settings.batch >= (len(by_epoch) + 1) * size or metrics.step == settings.steps
        if over:
            found = accuracy(state.best, made, precision)
            by_epoch.append(round(found, 6))
            print(f"epoch {len(by_epoch)}: {100 * found:.3f} %", file=sys.stderr)
        if training.seconds >= seconds or (over and found == 1):
            break
        training.save()
    spent = training.end()
    return state, Curve(accuracy(state.best, made, precision), len(by_epoch), round(spent, 1), by_epoch)


def original(width: int = 512, layers: int = 8) -> nn.Sequential:
    """The network of the original: 64 digits (the highest is the sign of an int64), ReLU, torch's own beginnings."""
    parts: list[nn.Module] = [Digits(64), nn.Linear(64, width), nn.ReLU()]
    for _ in range(layers - 1):
        parts += [nn.Linear(width, width), nn.ReLU()]
    return nn.Sequential(*parts, nn.Linear(width, 256))


def learn_originally(
    made: Toy, seconds: float, network: nn.Sequential, batch: int = 2048, seed: int = 0, work: Work = NOWHERE
) -> Curve:
    """The loop of the original for so many processor seconds: AdamW 0.001, float32, characters shuffled."""
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-3)
    size, order = len(made.addresses), Shuffled(len(made.addresses), seed)
    state = State(network, {"adamw": optimizer})
    training = Training(work, state, by_epoch=[])
    by_epoch: list[float] = training.notes["by_epoch"]
    while not training.over and training.seconds < seconds:
        ranks_B = torch.from_numpy(order.at(state.step * batch, batch, batch))
        optimizer.zero_grad()
        functional.cross_entropy(network(made.addresses[ranks_B]), made.bytes[ranks_B].long()).backward()
        optimizer.step()
        state.step += 1
        if state.step * batch >= (len(by_epoch) + 1) * size:
            by_epoch.append(round(accuracy(network, made), 6))
        training.save()
    spent = training.end()
    return Curve(accuracy(network, made), -(-state.step * batch // size), round(spent, 1), by_epoch)


@torch.no_grad()
def accuracy(network: nn.Module, made: Toy, precision: str = "float32") -> float:
    """The share of characters that the network says right."""
    right = 0
    for addresses_B, bytes_B in zip(torch.split(made.addresses, 8192), torch.split(made.bytes, 8192), strict=True):
        with autocast(precision, CPU):
            right += int((network(addresses_B).argmax(1) == bytes_B).sum())
    return right / len(made.addresses)


def ablation(made: Toy, seed: int, work: Work = NOWHERE) -> Iterator[dict[str, Any]]:
    """Our settings on a small toy with one thing changed at a time."""
    for name, change in ABLATION.items():
        settings = replace(SMALL, seed=seed, **change)
        key = {"text": made.digest, "settings": asdict(settings), "epochs": EPOCHS, "span": SPAN}
        yield {"change": name, **work.part(name, key, partial(_changed, made, settings))}


def _changed(made: Toy, settings: Settings, work: Work) -> dict[str, Any]:
    state, found = learn(made, settings, work=work)
    beyond = asked(state.best, made.corpus)
    return {**asdict(found), "well_formed_after_end": beyond["well_formed_after_end"]}


def compare(
    made: Toy,
    settings: Settings,
    epochs: int,
    seconds: float,
    first: nn.Sequential,
    trials: int = TRIALS,
    span: int = SPAN,
    work: Work = NOWHERE,
) -> dict[str, Any]:
    """Our figures, what the network says beyond, and under "original" those of the original for as many seconds."""

    def ours(work: Work) -> dict[str, Any]:
        state, found = learn(made, settings, epochs, seconds, work)
        return {**asdict(found), **asked(deepcopy(state.best), made.corpus, trials, span)}

    def others(work: Work) -> dict[str, Any]:
        return asdict(learn_originally(made, found["processor_seconds"], first, work=work))

    key = {"text": made.digest, "settings": asdict(settings), "epochs": epochs, "seconds": seconds}
    found = work.part("ours", {**key, "trials": trials, "span": span}, ours)
    key = {"text": made.digest, "seed": settings.seed, "seconds": found["processor_seconds"], "network": str(first)}
    original = work.part("original", key, others)
    return {"characters": len(made.addresses), **found, "settings": asdict(settings), "original": original}


def _line(name: str, found: dict[str, Any]) -> str:
    """A line of the table: accuracy at the end and after epochs 5 and 10, epochs, processor seconds, well-formed."""
    by_epoch = [f"{100 * share:.2f}" for share in found["by_epoch"]]
    at = [by_epoch[epoch - 1] if len(by_epoch) >= epoch else "" for epoch in (5, 10)]
    after = f"{100 * found['well_formed_after_end']:.2f}" if "well_formed_after_end" in found else ""
    whole = f"{100 * found['accuracy']:.4f}"
    return f"| {name} | {whole} | {at[0]} | {at[1]} | {found['epochs']} | {found['processor_seconds']:.1f} | {after} |"


def _table(rows: dict[str, dict[str, Any]]) -> str:
    """Rows by name."""
    head = "| | accuracy % | epoch 5 | epoch 10 | epochs | processor seconds | well-formed after the end % |"
    return "\n".join([head, "|---|---|---|---|---|---|---|", *(_line(name, found) for name, found in rows.items())])


def main() -> None:
    """Trains, asks and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--triplets", type=int)
    parser.add_argument("--epochs", type=int, default=EPOCHS, help="planned; it ends when all is right")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="processor seconds, at most")
    parser.add_argument("--seed", type=int, default=0, help="of text, codes and weights")
    parser.add_argument("--picture", type=Path, help="a PNG of the curves, the continuation, letters, conditioning")
    parser.add_argument("--ablation", action="store_true")
    add_option(parser)
    given = parser.parse_args()
    torch.set_num_threads(1)
    triplets = given.triplets or (12_500 if given.ablation else 100_000)
    with tempfile.TemporaryDirectory() as folder, working(given.work) as work:
        made = toy(Path(folder), triplets, given.seed)
        if given.ablation:
            rows = {found["change"]: found for found in ablation(made, given.seed, work)}
            work.keep("ablation.json", list(rows.values()))
            print(json.dumps(list(rows.values())) if given.json else _table(rows))
            return
        torch.manual_seed(given.seed)
        settings = replace(OURS, seed=given.seed)
        found = compare(made, settings, given.epochs, given.seconds, original(), work=work)
        work.keep("toy.json", found)
    if given.picture:
        draw(found, given.picture)
    if given.json:
        print(json.dumps(found))
        return
    print(_table({"ours": found, "original": found["original"]}))
    print(found["continuation"])
    shares = [name for name in found if name.startswith(("well_formed", "conditioned", "letters_off"))]
    for name in shares:
        print(f"{name} {100 * found[name]:.2f} %")


if __name__ == "__main__":
    main()
