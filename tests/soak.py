"""Strikes the commands at very many seeded moments: ``python -m tests.soak --points 1000 --seed 1``.

Prints the KIND:SEED of every failure, to be repeated with ``--only KIND:SEED``; exits with 1 if there is one.
"""

import argparse
import sys
import tempfile
from pathlib import Path

from tqdm import tqdm

from pipelines.cli.data import main as data
from tests.faults import why_not
from tests.killing import MODELS, VARIANTS, Bench, bench, check_point, points


def main() -> int:
    """The exit code."""
    asked = _arguments()
    if why_not():
        print(why_not(), file=sys.stderr)
        return 1
    chosen = [asked.only] if asked.only else points(asked.kinds, asked.points, asked.seed)
    failures = 0
    with tempfile.TemporaryDirectory(prefix="soak-") as folder, tqdm(chosen, unit="point", file=sys.stderr) as bar:
        benches: dict[str, Bench] = {}
        for kind, seed in bar:
            bar.set_postfix_str(f"{kind}:{seed}, {failures} failed")
            if kind not in benches:
                benches[kind] = bench(kind, Path(folder, kind))
            try:
                check_point(benches[kind], seed, Path(folder, "case"))
            except AssertionError as error:
                failures += 1
                bar.write(str(error))
    print(f"{len(chosen):,} points, {failures:,} failed", file=sys.stderr)
    return 1 if failures else 0


def _arguments() -> argparse.Namespace:
    there = [kind for kind in VARIANTS if kind in MODELS or kind in data.commands]
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description=__doc__)
    parser.add_argument("--points", type=int, default=1000, help="how many")
    parser.add_argument("--seed", type=int, default=0, help="of the points")
    parser.add_argument("--kinds", nargs="+", choices=there, default=there, help="which commands")
    parser.add_argument("--only", type=_point, metavar="KIND:SEED", help="one point, as a failure names it")
    return parser.parse_args()


def _point(text: str) -> tuple[str, int]:
    kind, _, seed = text.partition(":")
    if kind not in VARIANTS:
        raise argparse.ArgumentTypeError(f"expected one of {', '.join(VARIANTS)} before the colon, found {kind!r}")
    return kind, int(seed)


if __name__ == "__main__":
    sys.exit(main())
