"""aunn-model evaluate; and the table of figures that it shares with reconstruct."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click

from aunn_data.corpus import Corpus
from pipelines import runs
from pipelines.cli.common import bar, output_options, print_json, table
from pipelines.figures import summary
from pipelines.reconstruct import Reconstruction, Reconstructor
from pipelines.targets import Target, holdout_targets

run_corpus_option = click.option(
    "--corpus",
    metavar="DIR|URL",
    envvar="AUNN_CORPUS",
    help="Folder of the corpus, if it has moved since the training.",
)


@click.command()
@click.argument("run", type=click.Path(path_type=Path))
@click.option("--holdout", required=True, help="Name of the holdout.")
@run_corpus_option
@output_options
def evaluate(run: Path, holdout: str, corpus: str | None, as_json: bool, quiet: bool) -> None:
    """Say how well a run knows a holdout, beside what classical fills make of it.

    \b
    Example:
      aunn-model evaluate run --holdout default
    """
    opened = runs.Run.read(run).open_corpus(corpus)
    figures = judge(run, opened, holdout_targets(opened, holdout), quiet or as_json, "overwrite")
    found = {"run": str(run), "holdout": holdout, **summary(figures)}
    if as_json:
        print_json(found)
    else:
        click.echo(figures_table(found))


def judge(
    run: Path,
    corpus: Corpus,
    targets: Sequence[Target],
    quiet: bool,
    observed: str,
    on_record: Callable[[Reconstruction], object] = lambda found: None,
) -> list[dict[str, Any]]:
    """The figures of each target, behind a bar of predicted bytes."""
    said = runs.Run.read(run)
    reconstruct = Reconstructor(runs.load(run, corpus, said).best, corpus, said)
    figures = []
    total = sum(int(t.mask.sum()) * t.entry.geometry.planes for t in targets)
    with bar(total, "byte", quiet, "predict") as progress:
        for target in targets:
            found = reconstruct(target, observed, progress.update)
            on_record(found)
            figures.append(found.figures)
    seen = [f["record"] for f in figures if f["seen"]]
    if seen:
        click.echo(
            f"note: the run was trained on some of these bytes of {', '.join(seen[:3])}: memory, not inference",
            err=True,
        )
    return figures


def figures_table(found: dict[str, Any]) -> str:
    """Ours and the classical fills, a line each."""
    peers = dict(found["peers"])
    network = [_share(found["byte_accuracy"]), _bits(found["bits_per_byte"])]
    rows = [["network", _db(found["psnr_db"]), *network]]
    if alone := peers.pop("network", None):
        rows = [
            ["network with fills", _db(found["psnr_db"]), "", _bits(found["pooled_bits_per_byte"])],
            ["network alone", _db(alone["psnr_db"]), *network],
        ]
    rows += [[name, _db(p["psnr_db"]), _share(p["byte_accuracy"]), ""] for name, p in peers.items()]
    return table(["method", "PSNR dB", "bytes right", "bits/byte"], rows)


def _db(value: float | None) -> str:
    return "" if value is None else f"{value:7.2f}"


def _share(value: float | None) -> str:
    return "" if value is None else f"{100 * value:9.1f} %"


def _bits(value: float | None) -> str:
    return "" if value is None else f"{value:9.3f}"
