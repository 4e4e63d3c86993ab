"""aunn-data gc."""

import re
from datetime import timedelta

import click

from aunn_data.collect import collect
from aunn_data.corpus import Corpus
from pipelines.cli.common import corpus_option, output_options, print_json, size

_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}


def parse_age(ctx: click.Context, parameter: click.Parameter, text: str) -> timedelta:
    """``90s``, ``10m``, ``2h``, ``1d`` -> timedelta. A usage error for anything else."""
    match = re.fullmatch(r"(\d{1,5})([smhd])", text)
    if not match:
        raise click.BadParameter(f"expected a number up to 99999 and s, m, h or d (12h); found {text!r}")
    return timedelta(**{_UNITS[match[2]]: int(match[1])})


@click.command()
@corpus_option
@click.option(
    "--older-than",
    callback=parse_age,
    default="1d",
    show_default=True,
    metavar="AGE",
    help="How long a writer may take for one batch before it counts as dead: 90s, 10m, 2h, 1d.",
)
@click.option("--dry-run", is_flag=True, help="Say what would go and remove nothing.")
@output_options
def gc(corpus: str, older_than: timedelta, dry_run: bool, as_json: bool, quiet: bool) -> None:
    """Remove what writers that died have left: shards and files that nobody lists or can still commit.

    All versions stay. A writer that is at work longer than --older-than loses its batch, ends with exit code 4, and
    puts it in when it is run again.

    \b
    Example:
      aunn-data gc --corpus corpus --older-than 2h
    """
    done = collect(Corpus.open(corpus), older_than, dry_run)
    if as_json:
        print_json({"dry_run": dry_run, "batches": done.batches, "files": done.files, "bytes": done.bytes})
        return
    for file in [] if quiet else done.files:
        click.echo(f"{'would go' if dry_run else 'removed'}  {file}")
    if not quiet:
        click.echo(f"{len(done.batches):,} batches abandoned, {len(done.files):,} files, {size(done.bytes)}")
