"""aunn-model report."""

from pathlib import Path

import click

from pipelines import report as flow
from pipelines.cli.common import bar, output_options, print_json
from pipelines.cli.model_evaluate import run_corpus_option
from pipelines.runs import Run


@click.command()
@click.argument("run", type=click.Path(path_type=Path))
@click.option("--holdout", "holdouts", multiple=True, help="Only these holdouts; by default all that the run left out.")
@click.option("--out", type=click.Path(path_type=Path), help="The page [default: report.html in RUN].")
@run_corpus_option
@output_options
def report(
    run: Path, holdouts: tuple[str, ...], out: Path | None, corpus: str | None, as_json: bool, quiet: bool
) -> None:
    """Write one HTML page about a run: curves, figures beside the fills, slices to look at, calibration.

    \b
    Example:
      aunn-model report run
    """
    said = Run.read(run)
    opened = said.open_corpus(corpus)
    with bar(None, "record", quiet or as_json, "reconstruct") as progress:

        def on_target(done: int, of: int) -> None:
            progress.total = of
            progress.update(done - progress.n)

        path = flow.write(run, opened, said, out or run / "report.html", holdouts, on_target)
    if as_json:
        print_json({"run": str(run), "report": str(path)})
    elif not quiet:
        click.echo(f"{path}: open it in a browser")
