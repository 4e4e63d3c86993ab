"""How much of a text networks know by heart when it is longer and longer and the processor seconds stay the same.

    python -m benchmarks.by_heart --data FOLDER [--characters 60000,120000,240000,480000] [--seconds 60] [--json]
                                  [--networks "shuffled;codes;digits;units of 8"] [--seed 0] [--work FOLDER]

Each network (of those that ``benchmarks.shakespeare`` names) learns the first so many characters of TinyShakespeare, or
of a ``--text FILE``, and at last the first 85 % of it. *by heart*: bits per character of 65,536 of them, spread evenly;
*with weights*: the same of weights rounded to bfloat16, and these, shared out to all that was learned. With ``--work``
a killed benchmark goes on: each line is a part that is kept, and its network is saved every 20 seconds.
"""

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch

from aunn_model.training import Settings, parameters
from benchmarks.resuming import NOWHERE, Found, Work, add_option, working
from benchmarks.shakespeare import BY_HEART, NETWORKS
from benchmarks.texts import SOURCE, Text, by_heart, epochs, ingested, learn

CHARACTERS, NAMES = (60_000, 120_000, 240_000, 480_000), ("shuffled", "codes", "digits", BY_HEART)


@dataclass(frozen=True)
class Row:
    """How well a network knows so many characters, in bits of each."""

    characters: int
    network: str
    steps: int
    epochs: float
    seconds: float
    weights: int
    by_heart: float
    with_weights: float


def row(text: Text, name: str, settings: Settings, seconds: float, work: Work = NOWHERE) -> Row:
    """One network that learns all that the text has for it."""

    def compute(work: Work) -> Found:
        state, taken = learn(text, settings, seconds, work)
        counts = state.step, epochs(text, settings, state), taken, parameters(state.best)
        return asdict(Row(text.learned, name, *counts, *by_heart(text, state.best)))

    key = {**text.key, "settings": asdict(settings), "seconds": seconds}
    return Row(**work.part(f"{name}, {text.learned} characters", key, compute))


def table(rows: Sequence[Row]) -> str:
    """A line a network and number of characters."""
    head = "| characters | network | steps | epochs | seconds | weights | by heart | with weights |"
    lines = [
        f"| {r.characters:,} | {r.network} | {r.steps:,} | {r.epochs:,.1f} | {r.seconds:.0f} | {r.weights:,} "
        f"| {r.by_heart:.3f} | {r.with_weights:.3f} |"
        for r in rows
    ]
    return "\n".join([head, "|---" * 8 + "|", *lines])


def main(arguments: Sequence[str] | None = None) -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--data", type=Path, metavar="FOLDER", help=f"where {SOURCE} lies")
    source.add_argument("--text", type=Path, metavar="FILE", help="another text")
    parser.add_argument("--characters", default=",".join(map(str, CHARACTERS)), help="[%(default)s], then all of them")
    parser.add_argument("--networks", default=";".join(NAMES), metavar="NETWORK;...", help="[%(default)s]")
    parser.add_argument("--seconds", type=float, default=60, help="of the processor, for each line [60]")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true", help="one JSON document instead of the table")
    add_option(parser)
    asked = parser.parse_args(arguments)
    names = asked.networks.split(";")
    if unknown := sorted({*names} - {*NETWORKS}):
        parser.error(f"no such networks: {', '.join(unknown)}")
    torch.set_num_threads(1)
    os.environ["CUDA_VISIBLE_DEVICES"] = ""  # the seconds are a processor's
    rows = []
    with tempfile.TemporaryDirectory() as folder, working(asked.work) as work:
        text = ingested(Path(folder), (asked.text or asked.data / SOURCE).read_bytes())
        plain = Settings(seed=asked.seed, checks=0.0, precision=work.precision(Settings.width, Settings.batch))
        shorter = [int(number) for number in asked.characters.split(",")]
        for number in [*(number for number in shorter if number < text.learned), text.learned]:
            for name in names:
                settings = replace(plain, **NETWORKS[name])
                rows.append(row(replace(text, learned=number), name, settings, asked.seconds, work))
                print(rows[-1], file=sys.stderr, flush=True)
        found = [asdict(found) for found in rows]
        work.keep("by-heart.json", found)
    print(json.dumps(found, indent=1) if asked.json else table(rows))


if __name__ == "__main__":
    main()
