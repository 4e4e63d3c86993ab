"""aunn-data ingest."""

import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from typing import Any

import click

from aunn_data.corpus import Corpus
from aunn_data.entries import Entry
from aunn_data.errors import InputError
from aunn_data.geometry import LAYOUTS
from aunn_data.header import Header
from aunn_data.store import store_at
from pipelines import ingest as flow
from pipelines.cli.common import bar, corpus_option, output_options, print_json, size
from pipelines.options import Limits, Options
from pipelines.parallel import Workers
from pipelines.source import Source

MANY_REFUSALS, FEW_REFUSALS = 50, 5


class Window(click.ParamType[tuple[float, float]]):
    """LOW:HIGH, two numbers."""

    name = "LOW:HIGH"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[float, float]:
        """The two, low below high."""
        try:
            low, high = (float(part) for part in str(value).split(":"))
        except ValueError:
            low, high = 0.0, 0.0
        if not low < high or abs(low) + abs(high) == float("inf"):
            self.fail(f"expected LOW:HIGH, two numbers, the first one smaller; found {value!r}", param, ctx)
        return low, high


@click.command()
@click.argument("paths", nargs=-1, required=True, type=click.Path(path_type=Path))
@corpus_option
@click.option(
    "--layout",
    type=click.Choice(LAYOUTS),
    help="How elements lie in addresses [default: padded; of text packed].",
)
@click.option(
    "--chess",
    type=click.Choice(["boards", "pgn"]),
    default="boards",
    show_default=True,
    help="Payload of games: a 64-byte board a ply, or the game's text.",
)
@click.option(
    "--text-column",
    metavar="NAME",
    help="Column of JSON Lines and Parquet that is the text [default: text, content or contents].",
)
@click.option("--fill", type=float, metavar="VALUE", help="Elements of scans whose stored value it is are missing.")
@click.option(
    "--as", "as_type", type=click.Choice(["uint8"]), help="Put scans in with 8 bits; loses values, needs --window."
)
@click.option("--window", type=Window(), help="Physical values that become 0 and 255 with --as uint8.")
@click.option("--prefix", default="", help="Put before every record's name, e.g. 2024/.")
@click.option("--address-bits", type=int, help="Width of a new corpus' addresses, 20 to 63 [default: 38].")
@click.option("--workers", type=click.IntRange(1), help="Processes that read [default: one a core, one for little].")
@click.option(
    "--dask",
    metavar="ADDRESS",
    help="Read on this dask scheduler's workers, which see the same absolute paths; e.g. tcp://host:8786.",
)
@click.option("--dry-run", is_flag=True, help="Read everything, write nothing, say what would go in.")
@click.option(
    "--max-elements", type=int, default=Limits.max_elements, show_default=True, help="Most elements of one record."
)
@click.option(
    "--max-ratio", type=float, default=Limits.max_ratio, show_default=True, help="Most bytes from one compressed byte."
)
@click.option(
    "--max-members", type=int, default=Limits.max_members, show_default=True, help="Most members of one archive."
)
@click.option("--max-line", type=int, default=Limits.max_line, show_default=True, help="Most bytes of a line of JSON.")
@output_options
def ingest(
    paths: tuple[Path, ...],
    corpus: str,
    address_bits: int | None,
    workers: int | None,
    dask: str | None,
    dry_run: bool,
    as_json: bool,
    quiet: bool,
    **asked: Any,
) -> None:
    """Put files and folders into the corpus, making it if there is none.

    A record is named by its path below the folder that is given (its file name where a file is given). What the corpus
    has already stays as it is; what cannot go in is reported, never skipped in silence; the good files beside it go in.
    Compressed files and archives are unpacked; notes and masks beside an image or scan join it (see the README).
    Exit code 1: something was refused; stderr says what, why, and what to do.

    \b
    Example:
      aunn-data ingest scans/ notes.txt --corpus corpus
      aunn-data ingest scans/ --dry-run
      aunn-data ingest ct/ --as uint8 --window -1000:400
    """
    options = _options(**asked)
    with _opened(corpus, address_bits, dry_run) as opened:
        report = run(paths, opened, options, quiet or as_json, Workers(workers, dask), dry_run)
        if as_json:
            print_json(document(report, dry_run))
        else:
            _print(report, quiet, dry_run)
    sys.exit(1 if report.refused else 0)


def _options(as_type: str | None, **asked: Any) -> Options:
    if (as_type is None) != (asked["window"] is None):
        raise click.UsageError("--as uint8 and --window LOW:HIGH go together: 8 bits are never chosen for you")
    limits = Limits(**{field.name: asked.pop(field.name) for field in fields(Limits)})
    return Options(**asked, limits=limits)


@contextmanager
def _opened(corpus: str, address_bits: int | None, dry_run: bool) -> Iterator[Corpus]:
    """The corpus; for a dry run without one, an empty one that is gone afterwards."""
    if not dry_run:
        yield flow.open_or_create(corpus, address_bits)
    elif store_at(corpus).exists("zarr.json"):
        yield Corpus.open(corpus)
    else:
        with tempfile.TemporaryDirectory() as folder:
            yield Corpus.create(Path(folder, "corpus"))


def run(
    paths: tuple[Path, ...], corpus: Corpus, options: Options, quiet: bool, workers: Workers, dry_run: bool = False
) -> flow.Report:
    """The flow behind a progress bar of source bytes."""
    with bar(None, "B", quiet, "ingest") as progress:

        def reading(source: Source) -> None:
            progress.set_postfix_str(source.name[-40:])

        watch = flow.Watch(progress.reset, reading, progress.update)
        return flow.ingest(paths, corpus, options, workers, watch, dry_run)


def document(report: flow.Report, dry_run: bool = False) -> dict[str, object]:
    """The report as ``--json`` prints it."""

    def rows(pairs: list[tuple[Path, Entry]] | list[tuple[Path, Header]]) -> list[dict[str, str]]:
        return [{"record": e.record, "source": str(path), "modality": e.modality} for path, e in pairs]

    return {
        "corpus": report.corpus.name,
        "version": report.corpus.version,
        "dry_run": dry_run,
        "bytes": report.bytes,
        "ingested": rows(report.planned) if dry_run else rows(report.ingested),
        "unchanged": rows(report.unchanged),
        "refused": [{"source": str(path), "error": str(error)} for path, error in report.refused],
    }


def _refusals(errors: Sequence[InputError]) -> Iterator[str]:
    """A line for each; where they are very many, one line for all of a kind after the first few of it."""
    kinds = Counter((error.expected, error.remedy) for error in errors)
    told: Counter[tuple[str, str]] = Counter()
    for error in errors:
        kind = (error.expected, error.remedy)
        told[kind] += 1
        if len(errors) <= MANY_REFUSALS or told[kind] <= FEW_REFUSALS:
            yield "refused  " + _one_line(str(error))
    for kind, count in kinds.items() if len(errors) > MANY_REFUSALS else ():
        if count > FEW_REFUSALS:
            yield _one_line(f"refused  {count - FEW_REFUSALS:,} more: expected {kind[0]}; {kind[1]} (--json names all)")


def _one_line(text: str) -> str:
    """Names of files may hold line ends and what a terminal obeys."""
    return "".join(char if char.isprintable() else repr(char)[1:-1] for char in text)


def _print(report: flow.Report, quiet: bool, dry_run: bool) -> None:
    for line in _refusals([error for _, error in report.refused]):
        click.echo(line, err=True)
    if quiet:
        return
    made = [(e.modality, e.format, e.payload_bytes) for _, e in report.ingested]
    made += [(h.modality, h.format, h.geometry.payload_bytes) for _, h in report.planned]
    counts = Counter((modality, format) for modality, format, _ in made)
    for (modality, format), count in sorted(counts.items()):
        inside = sum(row[2] for row in made if row[:2] == (modality, format))
        click.echo(f"{count:>8,} {modality:<6} {format:<12} {size(inside)}")
    known, refused = f"{len(report.unchanged):,} known already", f"{len(report.refused):,} refused"
    if dry_run:
        click.echo(f"dry run, nothing is written: {len(made):,} records would go in, {known}, {refused}")
    else:
        where = f"{report.corpus.name} version {report.corpus.version}"
        click.echo(f"{where}: {len(made):,} records in, {known}, {refused}")
