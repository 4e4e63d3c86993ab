"""Thirty held-out 4x6x6 blocks of a two-frame MRI, by the network and by what people would use instead.

The first frame of NIfTI's `example4d.nii.gz` (nibabel's test data, 128x96x24x2 int16) lacks the blocks; the second one
is whole. Prints one table of held-out PSNR in stored units, peak = max - min of the record; ``other_frame`` copies the
second frame's voxels, which no method that looks at one frame could do.

    python -m benchmarks.mri_blocks PATH/example4d.nii.gz --seconds 560
"""

import argparse
import tempfile
import tomllib
from pathlib import Path

import numpy as np

from aunn_data.corpus import Corpus
from aunn_data.registry import Holdout
from aunn_model.training import Settings
from pipelines.cli.model_evaluate import figures_table
from pipelines.figures import summary
from pipelines.ingest import ingest
from pipelines.reconstruct import reconstruct
from pipelines.targets import holdout_targets
from pipelines.train import train_run

BLOCKS, SIZE = 30, (4, 6, 6)


def prepare(source: Path, folder: Path, seed: int = 0, alone: bool = False) -> Corpus:
    """A corpus of the scan in ``folder``, the holdout "blocks" in its first frame; ``alone``: no other is used."""
    corpus = Corpus.create(folder)
    ingest([source], corpus)
    [entry] = corpus.entries
    rng, taken = np.random.default_rng(seed), np.zeros(entry.shape[1:], np.bool_)
    held: list[Holdout] = []
    while len(held) < BLOCKS:
        start = [int(rng.integers(size - edge + 1)) for size, edge in zip(taken.shape, SIZE, strict=True)]
        box = [(low, low + edge) for low, edge in zip(start, SIZE, strict=True)]
        cut = tuple(slice(*span) for span in box)
        if not taken[cut].any():
            taken[cut] = True
            held.append(Holdout("blocks", entry.record, ((0, 1), *box)))
    if alone:
        held.append(Holdout("other frames", entry.record, ((1, entry.shape[0]), *entry.geometry.whole[1:])))
    corpus.add_holdouts(held)
    return corpus


def main() -> None:
    """Trains and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path)
    parser.add_argument("--seconds", type=float, default=560)
    parser.add_argument("--seed", type=int, default=0, help="of the blocks and of the network")
    parser.add_argument("--alone", action="store_true", help="hold the second frame out as well")
    parser.add_argument("--settings", default="", help="other settings than the defaults, as TOML: 'pairs = 3'")
    asked = parser.parse_args()
    settings = Settings(**{**Settings().__dict__, "seed": asked.seed, **tomllib.loads(asked.settings)})
    with tempfile.TemporaryDirectory() as folder:
        corpus = prepare(asked.source, Path(folder) / "corpus", asked.seed, asked.alone)
        done = train_run(corpus, Path(folder) / "run", settings, asked.seconds)
        [target] = holdout_targets(corpus, "blocks")
        found = reconstruct(done.state.network, corpus, done.run, target)
    how = ", ".join([asked.settings or "defaults", *["alone"] * asked.alone])
    print(f"{done.state.step} steps in {done.state.seconds:.0f} s, seed {asked.seed}, {how}")
    print(figures_table(summary([found.figures])))


if __name__ == "__main__":
    main()
