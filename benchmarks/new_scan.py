"""A new scan told to a network that knows others, beside a network trained on it alone for the same seconds.

    python -m benchmarks.new_scan [--seconds 30] [--before 120] [--known 78keV.nii.gz --new 54keV.nii.gz] [--json]
                                  [--work FOLDER]

By default the two energies of the sample collection's papyrus phantom. Of the new scan blocks are held out, for both.
*told*: the run of the other scan conditioned on the new one (n = 1) for so many seconds, as `aunn-model condition
--record` does; *alone*: a corpus of the new scan, trained for as long. PSNR of the held-out blocks by the network alone
and pooled with the fills (as `aunn-model reconstruct` writes them), beside the best single fill.

With ``--work`` a killed benchmark goes on: both ways are parts that are kept, and a run that was begun is finished from
its last checkpoint, as `aunn-model train` finishes it; telling begins again.
"""

import argparse
import json
import shutil
import sys
import tempfile
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from aunn_data.corpus import Corpus
from aunn_data.registry import Holdout
from aunn_model.training import Settings
from benchmarks.cases import blocks, boxes
from benchmarks.resuming import Found, Work, add_option, digest, working
from pipelines import conditioning, snapshots
from pipelines.figures import summary
from pipelines.ingest import ingest
from pipelines.reconstruct import Reconstructor
from pipelines.sample.collection import make
from pipelines.snapshots import Opened
from pipelines.targets import holdout_targets
from pipelines.train import train_run

KNOWN, NEW = "scroll_78keV.nii.gz", "scroll_54keV.nii.gz"
BLOCK, COUNT = (6, 16, 16), 12


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=30, help="on the new scan, told or alone [default: 30]")
    parser.add_argument("--before", type=float, default=120, help="on the known scan [default: 120]")
    parser.add_argument("--known", type=Path, help="a scan that the run is trained on [default: of the sample]")
    parser.add_argument("--new", type=Path, help="one of its shape, of which blocks are held out")
    parser.add_argument("--codes", type=int, default=0)
    parser.add_argument("--seed", type=int, default=0, help="of blocks, weights and batches")
    parser.add_argument("--json", action="store_true", help="print JSON instead")
    add_option(parser)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, working(asked.work) as work:
        known, new = asked.known, asked.new
        if known is None or new is None:
            make(Path(folder) / "sample")
            known, new = (Path(folder) / "sample" / "scans" / name for name in (KNOWN, NEW))
        settings = Settings(codes=asked.codes, seed=asked.seed)
        found = compared(work.folder or Path(folder), known, new, settings, asked.before, asked.seconds)
        work.keep("new-scan.json", found)
    print(json.dumps(found, indent=1) if asked.json else shown(found))


def compared(
    folder: Path, known: Path, new: Path, settings: Settings, before: float, seconds: float
) -> dict[str, dict[str, Any]]:
    """Figures of both ways, by name."""
    work, scans = Work(folder), [(path.name, digest(path.read_bytes())) for path in (known, new)]
    key = {"new": scans[1], "settings": asdict(settings), "seconds": seconds}

    def told(work: Work) -> Found:
        return _told(work.folder or folder, known, new, settings, before, seconds)

    def alone(work: Work) -> Found:
        return _alone(work.folder or folder, new, settings, seconds)

    return {
        "told": work.part("told", {**key, "known": scans[0], "before": before}, told),
        "alone": work.part("alone", key, alone),
    }


def _told(folder: Path, known: Path, new: Path, settings: Settings, before: float, seconds: float) -> Found:
    corpus = holding(folder, [known])
    _say(f"training on {known.name}, {before:.0f} s")
    train_run(corpus, folder / "run", settings, before)
    with_new(corpus, folder, new, settings.seed)
    opened, told = conditioning.records(snapshots.opened(folder / "run"), [new.name])
    gentle = replace(settings, muon_lr=settings.muon_lr / 3, adam_lr=settings.adam_lr / 3, warmup=0, ema=0.0, steps=1)
    _say(f"told of {new.name}, {seconds:.0f} s")
    snapshot = conditioning.tell(folder / "run", opened, told, "new", gentle, seconds=seconds)
    return {**figures(opened), "steps": snapshot.settings["steps"]}


def _alone(folder: Path, new: Path, settings: Settings, seconds: float) -> Found:
    corpus = with_new(holding(folder, []), folder, new, settings.seed)
    _say(f"alone on {new.name}, {seconds:.0f} s")
    done = train_run(corpus, folder / "run", settings, seconds)
    return {**figures(snapshots.opened(folder / "run")), "steps": done.state.step}


def holding(folder: Path, files: list[Path]) -> Corpus:
    """A new corpus with these files in a folder, in the place of one that is there."""
    shutil.rmtree(folder / "corpus", ignore_errors=True)
    corpus = Corpus.create(folder / "corpus")
    if files:
        ingest(files, corpus)
    return corpus


def with_new(corpus: Corpus, folder: Path, new: Path, seed: int) -> Corpus:
    """The corpus with the new scan in it, blocks of which are held out."""
    shutil.copyfile(new, folder / new.name)
    ingest([folder / new.name], corpus)
    shape = corpus.entries.named(new.name).shape
    size = tuple(min(edge, length // 3) for edge, length in zip(BLOCK, shape, strict=True))
    corpus.add_holdouts([Holdout("blocks", new.name, region) for region in boxes(blocks(shape, size, COUNT, seed))])
    return corpus


def figures(opened: Opened) -> dict[str, Any]:
    """PSNR in dB of the held-out blocks: pooled, by the network alone, by the best fill."""
    reconstruct = Reconstructor(opened.network, opened.corpus, opened.run, opened.checks)
    told = summary([reconstruct(target).figures for target in holdout_targets(opened.corpus, "blocks")])
    peers = {name: float(np.nan_to_num(found["psnr_db"] or 0)) for name, found in told["peers"].items()}
    network = peers.pop("network")
    best = max(peers, key=lambda name: peers[name])
    return {"pooled_db": told["psnr_db"], "network_db": network, "best_fill": best, "best_fill_db": peers[best]}


def shown(found: dict[str, dict[str, Any]]) -> str:
    """A table."""
    head = "| | steps | network dB | pooled dB | best fill dB |\n|---|---|---|---|---|"
    rows = [
        f"| {name} | {row['steps']:,} | {row['network_db']:.2f} | {row['pooled_db']:.2f} | "
        f"{row['best_fill_db']:.2f} {row['best_fill']} |"
        for name, row in found.items()
    ]
    return "\n".join([head, *rows])


def _say(what: str) -> None:
    print(what, file=sys.stderr)


if __name__ == "__main__":
    main()
