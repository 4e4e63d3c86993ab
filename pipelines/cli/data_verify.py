"""aunn-data verify."""

import sys
from dataclasses import asdict

import click

from aunn_data import verify as checks
from aunn_data.corpus import Corpus
from aunn_data.errors import CorpusError
from aunn_data.rebuild import rebuild
from aunn_data.verify import Fault
from pipelines.cli.common import bar, corpus_option, output_options, print_json, size


@click.command()
@corpus_option
@click.option("--version", type=int, help="An older version of the corpus.")
@click.option("--deep", is_flag=True, help="Also padding, every version of every table, and the way between headers.")
@click.option(
    "--rebuild-registry",
    is_flag=True,
    help="First make a lost registry again from the headers in the byte list; the old one's files stay beside it.",
)
@output_options
def verify(corpus: str, version: int | None, deep: bool, rebuild_registry: bool, as_json: bool, quiet: bool) -> None:
    """Read every header and payload back and compare it with the registry's hashes; exit 3 where it differs.

    A rebuilt registry begins again at version 1: runs that were trained before are told so with --version 1.

    \b
    Example:
      aunn-data verify --corpus corpus --deep
    """
    if rebuild_registry:
        _rebuild(corpus, quiet or as_json)
    try:
        opened = Corpus.open(corpus, version)
    except CorpusError as error:
        _end(corpus, checks.faults_without_registry(Corpus.without_registry(corpus), str(error)), 0, 0, as_json)
    with bar(len(opened.entries), "record", quiet or as_json, "verify") as progress:
        faults = checks.verify(opened, lambda entry: progress.update(), deep)
    inside = sum(opened.entries.table["payload_bytes"].to_pylist())
    if not faults and not as_json and not quiet:
        click.echo(f"{corpus} version {opened.version}: {len(opened.entries):,} records, {size(inside)}, clean")
    _end(corpus, faults, len(opened.entries), inside, as_json)


def _end(corpus: str, faults: list[Fault], records: int, inside: int, as_json: bool) -> None:
    for fault in faults:
        click.echo(f"fault    {fault.record} at {fault.start}:{fault.stop}: {fault.fault}", err=True)
    if as_json:
        document = {"ok": not faults, "records": records, "bytes": inside}
        print_json({**document, "faults": [asdict(fault) for fault in faults]})
    elif faults:
        click.echo(f"{corpus}: {len(faults):,} faults", err=True)
    sys.exit(CorpusError.exit_code if faults else 0)


def _rebuild(corpus: str, quiet: bool) -> None:
    with bar(None, "record", quiet, "rebuild") as progress:
        done = rebuild(corpus, lambda entry: progress.update())
    for record, start, why in done.left_out:
        click.echo(f"left out {record} at {start}: {why}", err=True)
    if not quiet:
        click.echo(
            f"{corpus}: registry made again with {len(done.corpus.entries):,} records and {done.holdouts:,} held-out "
            f"regions; the old one's files are in {done.old}",
            err=True,
        )
