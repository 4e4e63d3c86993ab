"""How well networks that are given addresses alone know a text, and what comes after it, beside models of characters.

    python -m benchmarks.shakespeare --data FOLDER [--seconds 60] [--tail 20000] [--json] [--picture shakespeare.png]
    python -m benchmarks.shakespeare --text FILE --only "shuffled;serial" --windows 16,64

Of the text (TinyShakespeare, or FILE) all learn the first 85 %; the next 5 % choose how the rest is told, and the first
``--tail`` characters of the last 10 % are asked, of everybody the same. Each network trains for so many processor
seconds, on one thread, by the product's own loop.

*by heart*: bits per character of 65,536 trained ones, spread evenly; *with weights*: the same of weights rounded to
bfloat16, and these, shared out to all that is trained. *as is*: of the tail, by a network that never saw it. *told 16*
(dynamic evaluation): 16 addresses are asked and scored, then one step is taken on them, then the next 16 are asked.
Optimiser, rate and which layers learn are chosen for each network and window, on what is kept for choosing. What it is
beside: n-grams which go on counting in the tail or do not, compressors of the tail behind all that is trained, and two
causal transformers, each trained for as many seconds, as is or with a step on each 64 characters.

With ``--work FOLDER`` a killed benchmark goes on: each network, each window that it is told by and each peer is a part
that is kept, and the weights of networks are saved every 20 seconds; a transformer is trained from the start again.
``benchmarks.by_heart`` says how much is known of more and more characters.

Legend: N characters.
"""

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from copy import deepcopy
from dataclasses import asdict, dataclass, replace
from functools import partial
from itertools import product
from math import inf, log
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure

from aunn_model import conditioning
from aunn_model.network import Network
from aunn_model.training import (
    DivergedError,
    Settings,
    begin,
    bits_per_byte,
    parameters,
    step,
)
from benchmarks import character_models as models
from benchmarks.resuming import NOWHERE, Work, add_option, working
from benchmarks.texts import SOURCE, Pairs, Text, by_heart, epochs, ingested, learn

ORDERS = range(1, 7)
UNTRAINED, PEERS = "untrained", "peers"
BY_HEART = "units of 8"  # what learns it by heart: a code for every eight characters, which a batch has whole
NETWORKS: dict[str, dict[str, Any]] = {
    UNTRAINED: {},
    "shuffled": {},
    "windows": {"order": "windows"},
    "serial": {"order": "serial"},
    "serial, 2048 streams": {"order": "serial", "streams": 2048},
    "serial, 4 steps on each": {"order": "serial", "repeats": 4},
    "serial, small batches": {"order": "serial", "batch": 64, "muon_lr": 0.01, "adam_lr": 0.001},
    "annealed": {"order": "annealed"},
    "codes": {"codes": 512},
    "digits": {"features": "digits"},
    "small": {"width": 32, "layers": 2},
    BY_HEART: {
        "codes": 4096,
        "unit": 8,
        "order": "windows",
        "window": 8,
        "width": 512,
        "layers": 1,
        "batch": 8000,
        "oblique": 0,
        "muon_lr": 0.05,
        "adam_lr": 0.03,
        "weight_decay": 0.0,
        "value_weight": 0.0,
        "ema": 0.0,
    },
}
WINDOWS = (256, 64, 16, 1)
TELLINGS = (
    *product(("sgd",), (0.001, 0.01, 0.1), ("", "exit")),
    *product(("adamw",), (0.00001, 0.0001, 0.001, 0.01), ("", "exit")),
)
LENGTH, STEPS = 4096, 500  # characters and steps at most, by which a telling is chosen
TRANSFORMERS = ((64, 2), (128, 3))  # widths and layers
TRANSFORMER_RATES = (0.003, 0.01, 0.03, 0.1, 0.3)


@dataclass(frozen=True)
class Telling:
    """Dynamic evaluation by steps on so many addresses: how they are taken, and bits per character where this was
    chosen and of the tail."""

    window: int
    optimizer: str
    rate: float
    layers: str
    chosen_bits: float
    bits: float


@dataclass(frozen=True)
class Row:
    """A network's figures, in bits per character."""

    network: str
    steps: int
    epochs: float
    seconds: float
    weights: int
    by_heart: float
    with_weights: float
    as_is: float
    told: list[Telling]


@dataclass(frozen=True)
class Peer:
    """What another model makes of the tail, in bits per character; ``told``: as it goes on learning there."""

    peer: str
    as_is: float
    told: float | None = None
    note: str = ""


def told(network: Network, pairs: Pairs, window: int, optimizer: str, rate: float, layers: str) -> float:
    """Bits per character of dynamic evaluation: each window is asked, then a step taken on it; all on a copy.

    Infinite if the steps break the weights.
    """
    settings = Settings(
        optimizer=optimizer,
        sgd_lr=rate,
        adam_lr=rate,
        weight_decay=0.0,
        schedule="constant",
        warmup=0,
        ema=0.0,
        value_weight=0.0,
        precision="float32",
    )
    network, nats = deepcopy(network), 0.0
    with conditioning.only(network, [layers] if layers else []):
        state = begin(network, settings)
        try:
            for addresses_B, bytes_B in zip(*(torch.split(part, window) for part in pairs), strict=True):
                nats += float(step(state, settings, addresses_B, bytes_B)) * len(bytes_B)  # as it was before the step
        except DivergedError:
            return inf
    return nats / log(2) / len(pairs[0])


def best_told(network: Network, text: Text, window: int, tail: Pairs) -> Telling:
    """The tail told by the telling that does best on what is kept for choosing."""
    length = min(LENGTH, STEPS * window)
    kept = text.pairs(text.learned, min(text.learned + length, text.tail))
    tried = {telling: told(network, kept, window, *telling) for telling in TELLINGS}
    best = min(tried, key=lambda telling: tried[telling])
    return Telling(window, *best, tried[best], told(network, tail, window, *best))


def measured(
    text: Text, name: str, settings: Settings, seconds: float, windows: Sequence[int], length: int, work: Work = NOWHERE
) -> Row:
    """All figures of a network."""
    key = {**text.key, "settings": asdict(settings), "seconds": seconds, "windows": windows, "tail": length}

    def compute(work: Work) -> dict[str, Any]:
        state, taken = learn(text, settings, 0 if name == UNTRAINED else seconds, work)
        network, tail = state.best, text.pairs(text.tail, text.tail + length)
        tellings = []
        for window in windows:
            telling = partial(best_told, network, text, window, tail)
            tellings.append(work.part(f"told {window}", TELLINGS, lambda _, telling=telling: asdict(telling())))
        figures = *by_heart(text, network), bits_per_byte(network, *tail)
        row = Row(name, state.step, epochs(text, settings, state), taken, parameters(network), *figures, tellings)
        return asdict(row)

    found = work.part(name, {**key, "tellings": TELLINGS}, compute)
    return Row(**{**found, "told": [Telling(**telling) for telling in found["told"]]})


def peers(text: Text, seconds: float, length: int, seed: int, work: Work = NOWHERE) -> Iterator[Peer]:
    """Models that are told the characters before, of the same part, asked the same tail."""
    asked: dict[str, Callable[[str], Peer]] = {}
    for order in ORDERS:
        asked[f"{order}-gram"] = partial(_ngram, text, length, order)
    for name, compress in models.COMPRESSORS.items():
        asked[name] = partial(_compressed, text, length, compress)
    for width, layers in TRANSFORMERS:
        ask = partial(_transformer, text, length, width, layers, seconds, seed)
        asked[f"transformer, {layers} layers of {width}"] = ask
    for name, ask in asked.items():
        key = {**text.key, "tail": length, "seconds": seconds, "seed": seed}
        yield Peer(**work.part(name, key, lambda _, name=name, ask=ask: asdict(ask(name))))


def _ngram(text: Text, length: int, order: int, name: str) -> Peer:
    cut_N, known = text.known_and(text.tail, length).numpy(), text.learned
    fixed, counting = (
        float(-np.log2(models.ngram(cut_N, np.arange(len(cut_N)) < until, order)[known:]).mean())
        for until in (known, len(cut_N))
    )
    return Peer(name, fixed, counting)


def _compressed(text: Text, length: int, compress: Callable[[bytes], bytes], name: str) -> Peer:
    cut_N, known = text.known_and(text.tail, length).numpy(), text.learned
    whole = models.compressed(compress, text.bytes_N.numpy().tobytes())
    bits = models.compressed(compress, cut_N[known:].tobytes(), cut_N[:known].tobytes())
    return Peer(name, bits, note=f"{whole:.2f} of the whole text by itself")


def _transformer(text: Text, length: int, width: int, layers: int, seconds: float, seed: int, name: str) -> Peer:
    torch.manual_seed(seed)
    network = models.Transformer(width, layers)
    steps = models.learn(network, text.bytes_N[: text.learned], seconds, seed)
    note = f"{parameters(network):,} weights, {steps:,} steps"
    return Peer(name, *_transformed(network, text, length), note)


def _transformed(network: models.Transformer, text: Text, length: int) -> tuple[float, float]:
    """A transformer as is, and with steps of a rate that is chosen as for the others."""
    choosing = text.known_and(text.learned, min(LENGTH, text.tail - text.learned))
    asked, known = text.known_and(text.tail, length), text.learned
    rate = min(TRANSFORMER_RATES, key=lambda rate: models.told(deepcopy(network), choosing, known, rate))
    with torch.no_grad():
        as_is = models.told(network, asked, known)
    return as_is, models.told(deepcopy(network), asked, known, rate)


def about(text: Text, length: int) -> dict[str, Any]:
    """What the figures are of, and the bits of a character that is trained on, by how often each is."""
    share_V = np.bincount(text.bytes_N[: text.learned], minlength=256) / text.learned
    entropy = float(-(share_V[share_V > 0] * np.log2(share_V[share_V > 0])).sum())
    asked = len(text.pairs(text.tail, text.tail + length)[0])
    return {"characters": len(text.bytes_N), "learned": text.learned, "entropy": entropy, "tail": asked}


# ---- what is printed ------------------------------------------------------------------------------------------------


def table(found: dict[str, Any]) -> str:
    """All networks, then all others."""
    windows = found["windows"]
    counts, figures = ("steps", "epochs", "seconds", "weights"), ("by_heart", "with_weights", "as_is")
    head = ["network", *counts, *(name.replace("_", " ") for name in figures), *(f"told {w}" for w in windows)]
    out = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    for row in found["networks"]:
        bits = [*(row[name] for name in figures), *(one["bits"] for one in row["told"])]
        cells = [row["network"], *(f"{row[name]:,.{name == 'epochs':d}f}" for name in counts)]
        out.append(f"| {' | '.join(cells + [f'{value:.3f}' for value in bits])} |")
    out.append(f"Entropy of the characters that are trained on: {found['entropy']:.3f} bits.")
    out += ["", "| beside | as is | told | |", "|---|---|---|---|"]
    for peer in found["peers"]:
        counting = "" if peer["told"] is None else f"{peer['told']:.3f}"
        out.append(f"| {peer['peer']} | {peer['as_is']:.3f} | {counting} | {peer['note']} |")
    return "\n".join(out)


def chosen(row: Row) -> str:
    """A network, and how it was told, in a line."""
    tellings = [f"{one.window}: {one.optimizer} {one.rate:g} {one.layers or 'all'} {one.bits:.3f}" for one in row.told]
    known = f"{row.steps:,} steps, by heart {row.by_heart:.3f}, as is {row.as_is:.3f}"
    return f"{row.network}: {known}; told {', '.join(tellings)}"


def draw(found: dict[str, Any], path: Path) -> None:
    """A bar for each network and each other model: the tail as is, and told at best."""
    names, as_is, best = [], [], []
    for row in found["networks"]:
        names.append(row["network"])
        as_is.append(row["as_is"])
        best.append(min([one["bits"] for one in row["told"]], default=row["as_is"]))
    for peer in found["peers"]:
        names.append(peer["peer"])
        as_is.append(peer["as_is"])
        best.append(peer["as_is"] if peer["told"] is None else peer["told"])
    figure = Figure(figsize=(9, 0.32 * len(names) + 1.2), layout="constrained")
    axes = figure.subplots()
    axes.barh(names, as_is, color="0.8", label="as is")
    axes.barh(names, best, height=0.45, color=["C0"] * len(found["networks"]) + ["C1"] * len(found["peers"]))
    axes.invert_yaxis()
    axes.axvline(8, color="0.5", lw=1, ls=":")
    axes.set(xlabel="bits per character of the tail: grey as is, coloured told as it goes", xlim=(0, 10))
    figure.savefig(path, dpi=110, facecolor="white")


def main(arguments: Sequence[str] | None = None) -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--data", type=Path, metavar="FOLDER", help=f"where {SOURCE} lies")
    source.add_argument("--text", type=Path, metavar="FILE", help="another text")
    parser.add_argument("--seconds", type=float, default=60, help="of the processor, for each network [60]")
    parser.add_argument("--tail", type=int, default=20_000, help="characters of the tail that are asked [20000]")
    parser.add_argument("--windows", default=",".join(map(str, WINDOWS)), help="characters a step [%(default)s]")
    parser.add_argument("--only", metavar="NETWORK;...", help=f"[all of {'; '.join([PEERS, *NETWORKS])}]")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true", help="one JSON document instead of the tables")
    parser.add_argument("--picture", type=Path, help="a PNG with bars")
    add_option(parser)
    asked = parser.parse_args(arguments)
    names = asked.only.split(";") if asked.only else [PEERS, *NETWORKS]
    if unknown := sorted({*names} - {PEERS, *NETWORKS}):
        parser.error(f"no such networks: {', '.join(unknown)}")
    torch.set_num_threads(1)
    os.environ["CUDA_VISIBLE_DEVICES"] = ""  # the seconds are a processor's
    windows = [int(window) for window in asked.windows.split(",")]
    with tempfile.TemporaryDirectory() as folder, working(asked.work) as work:
        precision = work.precision(Settings.width, Settings.batch)
        plain = Settings(seed=asked.seed, checks=0.0, precision=precision)
        text = ingested(Path(folder), (asked.text or asked.data / SOURCE).read_bytes())
        found = {"seconds": asked.seconds, "precision": precision, "windows": windows, **about(text, asked.tail)}
        found |= {"networks": [], "peers": []}
        for peer in peers(text, asked.seconds, asked.tail, asked.seed, work) if PEERS in names else []:
            found["peers"].append(asdict(peer))
            print(peer, file=sys.stderr, flush=True)
        for name in [name for name in names if name != PEERS]:
            row = measured(text, name, replace(plain, **NETWORKS[name]), asked.seconds, windows, asked.tail, work)
            found["networks"].append(asdict(row))
            print(chosen(row), file=sys.stderr, flush=True)
        work.keep("shakespeare.json", found)
    if asked.picture:
        draw(found, asked.picture)
    print(json.dumps(found, indent=1) if asked.json else table(found))


if __name__ == "__main__":
    main()
