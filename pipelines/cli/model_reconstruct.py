"""aunn-model reconstruct."""

import json
from pathlib import Path

import click

from aunn_data.corpus import Corpus
from pipelines import targets
from pipelines.cli.common import output_options, parse_span, print_json
from pipelines.cli.model_evaluate import figures_table, judge, run_corpus_option, with_option
from pipelines.figures import summary
from pipelines.picture import draw
from pipelines.reconstruct import OBSERVED, Reconstruction
from pipelines.restored import picture_name, write, write_preview
from pipelines.snapshots import opened
from pipelines.targets import Target

MOST_PICTURES = 24


@click.command()
@click.argument("run", type=click.Path(path_type=Path))
@click.option("--holdout", help="Reconstruct a holdout of this name.")
@click.option("--record", help="Reconstruct regions of this record.")
@click.option("--region", "regions", multiple=True, help="AXIS=START:STOP,… of --record; axes left out are whole.")
@click.option("--span", callback=lambda ctx, param, value: value and parse_span(value), help="Addresses START:STOP.")
@click.option("--missing", is_flag=True, help="Reconstruct what the source of --record, or of every record, lacks.")
@click.option(
    "--observed",
    type=click.Choice(OBSERVED),
    default="refuse",
    show_default=True,
    help="What to do with elements that were measured, and trained on: keep them, or overwrite them from memory.",
)
@click.option("--stride", type=click.IntRange(min=2), help="Only a coarse preview: every Nth element along each axis.")
@click.option("--out", type=click.Path(path_type=Path), default=Path("reconstruction"), show_default=True)
@with_option
@run_corpus_option
@output_options
def reconstruct(
    run: Path,
    holdout: str | None,
    record: str | None,
    regions: tuple[str, ...],
    span: tuple[int, int] | None,
    missing: bool,
    observed: str,
    stride: int | None,
    out: Path,
    with_: tuple[str, ...],
    corpus: str | None,
    as_json: bool,
    quiet: bool,
) -> None:
    """Fill a holdout, a region or a span of addresses with what the network predicts.

    For each record: the record in its own format with the prediction in place, a mask (1 = predicted), a map of the
    uncertainty (half the 90 % interval, of symbols bits), a picture; and one report.json with the figures beside those
    of classical fills. What was measured is never overwritten unless asked for.

    \b
    Examples:
      aunn-model reconstruct run --holdout default --out restored
      aunn-model reconstruct run --record brain.nii.gz --region z=8:12,y=0:64,x=:
      aunn-model reconstruct run --missing --stride 8 --out first-look
    """
    known = opened(run, with_, corpus)
    asked = _targets(known.corpus, holdout, record, regions, span, missing)
    asked = [targets.preview(target, stride) for target in asked] if stride else asked
    files: list[Path] = []

    def on_record(found: Reconstruction) -> None:
        if stride:
            files.append(write_preview(found, out, stride))
            return
        written = write(found, out)
        files.extend(written)
        if len(files) <= 4 * MOST_PICTURES:
            files.append(draw(found, written[0].with_name(picture_name(found.target.entry))))

    figures = judge(known, asked, quiet or as_json, observed, on_record)
    found = {"run": str(run), "holdout": holdout, **summary(figures), "files": [str(path) for path in files]}
    report = out / "report.json"
    report.write_text(json.dumps(found, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    found["files"].append(str(report))
    if as_json:
        print_json(found)
        return
    click.echo(figures_table(found))
    if not quiet:
        shown = [path for path in files if path.name.endswith((".picture.png", ".preview.png"))]
        click.echo(f"{len(files) + 1} files below {out}" + (f"; look at {shown[0]}" if shown else ""))


def _targets(
    corpus: Corpus,
    holdout: str | None,
    record: str | None,
    regions: tuple[str, ...],
    span: tuple[int, int] | None,
    missing: bool,
) -> list[Target]:
    if sum([holdout is not None, record is not None and not missing, span is not None, missing]) != 1:
        raise click.UsageError("name what to reconstruct: --holdout, --record with --region, --span or --missing")
    if missing:
        return targets.missing_targets(corpus, record)
    if holdout is not None:
        return targets.holdout_targets(corpus, holdout)
    if span is not None:
        return targets.span_targets(corpus, *span)
    if not regions:
        raise click.UsageError("--record needs at least one --region")
    assert record is not None
    return targets.region_targets(corpus, record, regions)
