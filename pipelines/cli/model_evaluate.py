"""aunn-model evaluate; and the table of figures that it shares with reconstruct."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click

from aunn_data.errors import RequestError
from pipelines import capacity as kept
from pipelines.cli.common import bar, output_options, print_json, table
from pipelines.figures import summary
from pipelines.reconstruct import Reconstruction, Reconstructor
from pipelines.snapshots import Opened, opened
from pipelines.targets import Target, holdout_targets

run_corpus_option = click.option(
    "--corpus",
    metavar="DIR|URL",
    envvar="AUNN_CORPUS",
    help="Folder of the corpus, if it has moved since the training.",
)
with_option = click.option(
    "--with", "with_", multiple=True, metavar="NAME", help="A snapshot of `condition` to put on the run. Repeatable."
)


@click.command()
@click.argument("run", type=click.Path(path_type=Path))
@click.option("--holdout", help="Name of the holdout.")
@click.option("--capacity", is_flag=True, help="How much of what it was trained on the network holds, for its size.")
@with_option
@run_corpus_option
@output_options
def evaluate(
    run: Path,
    holdout: str | None,
    capacity: bool,
    with_: tuple[str, ...],
    corpus: str | None,
    as_json: bool,
    quiet: bool,
) -> None:
    """Say how well a run knows a holdout, beside what classical fills make of it.

    With --capacity, how much of what it was trained on its weights hold, beside compressors.

    \b
    Examples:
      aunn-model evaluate run --holdout default
      aunn-model evaluate run --capacity
    """
    if not holdout and not capacity:
        raise RequestError("evaluate", expected="--holdout or --capacity", found="neither", remedy="name a holdout")
    known = opened(run, with_, corpus)
    found: dict[str, Any] = {"run": str(run)}
    lines = []
    if holdout:
        figures = judge(known, holdout_targets(known.corpus, holdout), quiet or as_json, "overwrite")
        found |= {"holdout": holdout, **summary(figures)}
        lines.append(figures_table(found))
    if capacity:
        found["capacity"] = kept.capacity(known.network, *kept.trained_on(known.corpus, known.run))
        lines.append(capacity_table(found["capacity"]))
    if as_json:
        print_json(found)
    else:
        click.echo("\n\n".join(lines))


def judge(
    known: Opened,
    targets: Sequence[Target],
    quiet: bool,
    observed: str,
    on_record: Callable[[Reconstruction], object] = lambda found: None,
) -> list[dict[str, Any]]:
    """The figures of each target, behind a bar of predicted bytes."""
    reconstruct = Reconstructor(known.network, known.corpus, known.run, known.checks)
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


def capacity_table(found: dict[str, Any]) -> str:
    """Bits a byte of the network at both widths of weights, and of the compressors, a line each."""
    rows = [
        [
            f"network, {found['weights']:,} weights in {name}",
            *(f"{found[name][key]:9.3f}" for key in ("bits_per_byte", "with_weights", "stored_per_weight_bit")),
        ]
        for name in kept.WIDTHS
    ]
    rows += [[name, "", f"{found[name]:9.3f}", ""] for name in ("xz -9", "zstd -19")]
    columns = [f"of {found['bytes']:,} bytes", "bits/byte", "with weights", "stored bits/weight bit"]
    return table(columns, rows)


def _db(value: float | None) -> str:
    return "" if value is None else f"{value:7.2f}"


def _share(value: float | None) -> str:
    return "" if value is None else f"{100 * value:9.1f} %"


def _bits(value: float | None) -> str:
    return "" if value is None else f"{value:9.3f}"
