"""What learning rules beside backpropagation learn in equal time: by heart, and of what was held out.

    python -m benchmarks.rules --seconds 60 [--work FOLDER]
    python -m benchmarks.rules --seconds 60 --data FOLDER

The corpus is the project's own sample collection with six blocks of a scan held out, as in `make demo`; or, with
FOLDER (`benchmarks.cases` names its files), the blocks of the papyrus scan and a text beside it. Every rule trains the
same network from the same weights, on one thread, for as many steps as fit into the same processor seconds, which is
what ``--seconds`` are. Its learning rates are chosen by what is learned by heart: of short runs of an eighth of that
time, with Muon or AdamW at so many times the default rates, the two best are run for the whole time, and the better of
these is shown. All short runs are shown too: rates that are good for a while may be too high for longer.

*by heart* is bits per byte on 65,536 trained bytes spread evenly over all; *entropy* is what one distribution for all
of them would need, and 8 knowing nothing. *held-out* figures are the network's alone on the held-out blocks, beside the
harmonic fill's. Held-out bytes of text are not measured: an address tells nothing of them, whatever the rule.

With ``--work`` a killed benchmark goes on: each rule, and each run of one, is a part that is kept, and the weights of
the run under way are saved every 20 seconds.
"""

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from aunn_data import spans
from aunn_data.corpus import Corpus
from aunn_data.registry import Holdout
from aunn_data.sampling import trainable
from aunn_model.network import Network
from aunn_model.rules import RULES
from aunn_model.training import CHOICES, Settings, State, bits_per_byte, parameters
from benchmarks import cases
from benchmarks.resuming import Found, Work, add_option, digest, trained, working
from pipelines import runs
from pipelines.batches import Batches
from pipelines.figures import summary
from pipelines.ingest import ingest
from pipelines.reconstruct import reconstruct
from pipelines.runs import Run
from pipelines.sample import collection
from pipelines.targets import holdout_targets
from pipelines.train import deterministic

HELD, SCAN = "blocks", "scans/scroll_54keV.nii.gz"
BLOCKS = (
    *("z=2:10,y=24:44,x=50:70", "z=12:20,y=50:70,x=20:40", "z=20:28,y=70:90,x=56:76"),
    *("z=6:14,y=60:80,x=80:100", "z=18:26,y=20:40,x=64:84", "z=10:18,y=28:48,x=84:104"),
)
TEXT = "text/tinyshakespeare_input.txt"
SAMPLE = 1 << 16  # trained bytes that are asked for
LONG = 2  # of the short runs, for the whole time
TRIED = tuple((optimizer, times) for optimizer in ("muon", "adamw") for times in (0.1, 0.3, 1.0, 3.0))


@dataclass(frozen=True)
class Tried:
    """A run: an optimiser, its rates over the default ones, steps taken, and bits per byte by heart."""

    optimizer: str
    times: float
    steps: int
    bits_per_byte: float


@dataclass(frozen=True)
class Row:
    """A rule's figures, of held-out blocks the network's alone; ``tried``: its short runs and, last, the long ones."""

    rule: str
    optimizer: str
    times: float
    steps: int
    seconds: float
    addresses_per_second: float
    bits_per_byte: float
    held_out_psnr_db: float
    held_out_bits_per_byte: float
    harmonic_psnr_db: float
    tried: list[Tried]


def made(folder: Path) -> Corpus:
    """A corpus of the sample collection."""
    collection.make(folder / "things")
    corpus = Corpus.create(folder / "corpus")
    ingest([folder / "things"], corpus)
    geometry = corpus.entries.named(SCAN).geometry
    corpus.add_holdouts([Holdout(HELD, SCAN, geometry.parse_region(block, SCAN)) for block in BLOCKS])
    return corpus


def real(folder: Path, data: Path) -> Corpus:
    """A corpus of real papyrus and a real text."""
    corpus = cases.make("papyrus-blocks", data).corpus(folder)
    ingest([data / TEXT], corpus)
    return corpus


class Trial:
    """One corpus, and what all rules have in common."""

    def __init__(self, corpus: Corpus, settings: Settings):
        holdouts = corpus.holdouts()
        self.corpus, self.settings = corpus, settings
        self.batches = Batches(corpus, settings, torch.device("cpu"))
        held = [
            (h.holdout, h.record, corpus.entries.named(h.record).geometry.format_region(h.region)) for h in holdouts
        ]
        self.run = Run(corpus.name, corpus.version, corpus.address_bits, tuple(held), settings)
        self.targets = holdout_targets(corpus, holdouts[0].holdout)
        trained_N = spans.addresses(trainable(corpus))
        some_N = trained_N[:: -(-len(trained_N) // SAMPLE)].copy()
        self.addresses_N = torch.from_numpy(some_N)
        self.bytes_N = torch.from_numpy(corpus.gather(spans.of_addresses(some_N)))

    @property
    def entropy(self) -> float:
        """Bits per byte of the trained bytes by themselves."""
        share_V = np.bincount(self.bytes_N.numpy(), minlength=256) / len(self.bytes_N)
        return float(-(share_V[share_V > 0] * np.log2(share_V[share_V > 0])).sum())

    @property
    def key(self) -> dict[str, Any]:
        """What its figures depend on beside the rule and the seconds."""
        records = digest(*(f"{entry.record} {entry.sha256}".encode() for entry in self.corpus.entries))
        return {"records": records, "held": self.run.holdouts, "settings": asdict(self.settings)}

    def trained(self, rule: str, optimizer: str, times: float, seconds: float, work: Work) -> tuple[State, float]:
        """A network that has learned for so many processor seconds, or nearly, and how many they were."""
        settings = replace(self.settings, rule=rule, optimizer=optimizer)
        settings = replace(settings, muon_lr=times * settings.muon_lr, adam_lr=times * settings.adam_lr)
        with deterministic():
            return trained(self.corpus, settings, seconds, lambda _: self.batches, work)

    def by_heart(self, network: Network) -> float:
        """Bits per byte of the sample of trained bytes."""
        return bits_per_byte(network, self.addresses_N, self.bytes_N)

    def row(self, rule: str, seconds: float, work: Work) -> Row:
        """All figures of a rule."""
        found = work.part(rule, {**self.key, "seconds": seconds}, lambda work: asdict(self._best(rule, seconds, work)))
        return Row(**{**found, "tried": [Tried(**one) for one in found["tried"]]})

    def _best(self, rule: str, seconds: float, work: Work) -> Row:
        """The better one of long runs with the rates of the best short ones."""

        def short(optimizer: str, times: float, work: Work) -> Found:
            state, _ = self.trained(rule, optimizer, times, seconds / len(TRIED), work)
            return asdict(Tried(optimizer, times, state.step, self.by_heart(state.best)))

        def long(good: Tried, work: Work) -> Found:
            state, taken = self.trained(rule, good.optimizer, good.times, seconds, work)
            run = replace(good, steps=state.step, bits_per_byte=self.by_heart(state.best))
            return asdict(self._row(rule, run, state, taken))

        tried = [Tried(**work.part(f"short {rates[0]} {rates[1]}", rates, partial(short, *rates))) for rates in TRIED]
        good = sorted(tried, key=_by_heart)[:LONG]
        rows = [Row(**work.part(f"long {run.optimizer} {run.times}", asdict(run), partial(long, run))) for run in good]
        tried += [Tried(row.optimizer, row.times, row.steps, row.bits_per_byte) for row in rows]
        return replace(min(rows, key=_by_heart), tried=tried)

    def _row(self, rule: str, run: Tried, state: State, taken: float) -> Row:
        held = summary([reconstruct(state.best, self.corpus, self.run, target).figures for target in self.targets])
        return Row(
            rule,
            run.optimizer,
            run.times,
            run.steps,
            taken,
            run.steps * self.settings.batch / taken,
            run.bits_per_byte,
            held["peers"]["network"]["psnr_db"],
            held["bits_per_byte"],
            held["peers"]["harmonic"]["psnr_db"],
            [],
        )


def _by_heart(found: Tried | Row) -> float:
    return found.bits_per_byte


# ---- the table ------------------------------------------------------------------------------------------------------

HEAD = (
    "| rule | rates | steps | seconds | addresses/s | bits/byte by heart | held-out PSNR dB | held-out bits/byte |\n"
    "|---|---|---|---|---|---|---|---|"
)


def line(row: Row) -> str:
    """A line of the table."""
    speed = f"{row.steps:,} | {row.seconds:.0f} | {row.addresses_per_second:,.0f}"
    held = f"{row.held_out_psnr_db:.2f} | {row.held_out_bits_per_byte:.3f}"
    return f"| {row.rule} | {row.optimizer} × {row.times:g} | {speed} | {row.bits_per_byte:.3f} | {held} |"


def said(row: Row) -> str:
    """What was tried for a rule, in a line."""
    tried = [f"{one.optimizer} × {one.times:g}: {one.bits_per_byte:.3f}" for one in row.tried]
    return f"{row.rule}, bits/byte by heart: {', '.join(tried[:-LONG])}; of long runs {', '.join(tried[-LONG:])}"


def table(found: dict[str, Any], rows: Sequence[Row]) -> str:
    """All rules, and what to hold them against."""
    about = (
        f"{found['parameters']:,} weights ({found['layers']} layers of {found['width']}, {found['trunk']}), batch "
        f"{found['batch']:,}, {found['precision']}; {found['trained']:,} trained bytes, entropy "
        f"{found['entropy_bits_per_byte']:.3f}; harmonic fill {rows[0].harmonic_psnr_db:.2f} dB"
    )
    return "\n".join([HEAD, *map(line, rows), about])


def main(arguments: Sequence[str] | None = None) -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60, help="of each rule's long run, and of its short ones [60]")
    parser.add_argument("--data", type=Path, metavar="FOLDER", help="real files in the place of the sample collection")
    parser.add_argument("--rules", default=",".join(RULES), metavar="RULE,...", help="[all]")
    parser.add_argument("--width", type=int, default=128)
    parser.add_argument("--layers", type=int, default=Settings.layers)
    parser.add_argument("--trunk", choices=CHOICES["trunk"], default=Settings.trunk)
    parser.add_argument("--batch", type=int, default=512)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true", help="one JSON document instead of the table")
    add_option(parser)
    asked = parser.parse_args(arguments)
    rules = asked.rules.split(",")
    if unknown := sorted({*rules} - {*RULES}):
        parser.error(f"no such rules: {', '.join(unknown)}")
    torch.set_num_threads(1)
    os.environ["CUDA_VISIBLE_DEVICES"] = ""  # the seconds are a processor's
    shape = {name: getattr(asked, name) for name in ("width", "layers", "trunk", "batch", "seed")}
    with tempfile.TemporaryDirectory() as folder, working(asked.work) as work:
        precision = work.precision(asked.width, asked.batch)
        settings = replace(Settings(checks=0.0, precision=precision), **shape)
        corpus = real(Path(folder), asked.data) if asked.data else made(Path(folder))
        trial = Trial(corpus, settings)
        weights = parameters(runs.fresh(corpus, settings).network)
        rows = []
        for rule in rules:
            rows.append(trial.row(rule, asked.seconds, work))
            print(said(rows[-1]), file=sys.stderr, flush=True)
        found = {
            **shape,
            "precision": precision,
            "parameters": weights,
            "trained": trial.batches.size,
            "entropy_bits_per_byte": trial.entropy,
            "rules": [asdict(row) for row in rows],
        }
        work.keep("rules.json", found)
    print(json.dumps(found, indent=1) if asked.json else table(found, rows))


if __name__ == "__main__":
    main()
