"""aunn-data ingest."""

import sys
from collections import Counter
from pathlib import Path
from typing import Literal

import click

from aunn_data.corpus import Corpus
from aunn_data.entries import Entry
from aunn_data.geometry import LAYOUTS, Layout
from pipelines import ingest as flow
from pipelines.cli.common import bar, corpus_option, output_options, print_json, size
from pipelines.options import Options
from pipelines.source import Source


@click.command()
@click.argument("paths", nargs=-1, required=True, type=click.Path(path_type=Path))
@corpus_option
@click.option("--layout", type=click.Choice(LAYOUTS), help="How elements lie (default: padded, text packed).")
@click.option(
    "--chess",
    type=click.Choice(["boards", "pgn"]),
    default="boards",
    show_default=True,
    help="Payload of games: a 64-byte board a ply, or the game's text.",
)
@click.option("--prefix", default="", help="Put before every record's name, e.g. 2024/.")
@click.option("--address-bits", type=int, help="Width of a new corpus' addresses, 20 to 63 [default: 38].")
@output_options
def ingest(
    paths: tuple[Path, ...],
    corpus: str,
    layout: Layout | None,
    chess: Literal["boards", "pgn"],
    prefix: str,
    address_bits: int | None,
    as_json: bool,
    quiet: bool,
) -> None:
    """Put files and folders into the corpus, making it if there is none.

    A record is named by its path below the folder that is given (its file name where a file is given). What the corpus
    has already stays as it is; what cannot go in is reported, never skipped in silence; the good files beside it go in.

    \b
    Example:
      aunn-data ingest scans/ notes.txt --corpus corpus
    """
    opened = flow.open_or_create(corpus, address_bits)
    options = Options(layout, chess, prefix)
    report = run(paths, opened, options, quiet or as_json)
    if as_json:
        print_json(document(report))
    else:
        _print(report, quiet)
    sys.exit(1 if report.refused else 0)


def run(paths: tuple[Path, ...], corpus: Corpus, options: Options, quiet: bool) -> flow.Report:
    """The flow behind a progress bar of source bytes."""
    with bar(None, "B", quiet, "ingest") as progress:

        def on_source(source: Source) -> None:
            progress.set_postfix_str(source.name[-40:])

        return flow.ingest(paths, corpus, options, progress.reset, on_source, progress.update)


def document(report: flow.Report) -> dict[str, object]:
    """The report as ``--json`` prints it."""

    def rows(pairs: list[tuple[Path, Entry]]) -> list[dict[str, str]]:
        return [{"record": e.record, "source": str(path), "modality": e.modality} for path, e in pairs]

    return {
        "corpus": report.corpus.name,
        "version": report.corpus.version,
        "bytes": report.bytes,
        "ingested": rows(report.ingested),
        "unchanged": rows(report.unchanged),
        "refused": [{"source": str(path), "error": str(error)} for path, error in report.refused],
    }


def _print(report: flow.Report, quiet: bool) -> None:
    for _, error in report.refused:
        click.echo(f"refused  {error}", err=True)
    if quiet:
        return
    for format, count in sorted(Counter(entry.format for _, entry in report.ingested).items()):
        inside = sum(e.payload_bytes for _, e in report.ingested if e.format == format)
        click.echo(f"{count:>8,} {format:<12} {size(inside)}")
    click.echo(
        f"{report.corpus.name} version {report.corpus.version}: {len(report.ingested):,} records in, "
        f"{len(report.unchanged):,} known already, {len(report.refused):,} refused"
    )
