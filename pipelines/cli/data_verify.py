"""aunn-data verify."""

import sys
from dataclasses import asdict
from pathlib import Path

import click

from aunn_data import verify as checks
from aunn_data.corpus import Corpus
from aunn_data.errors import CorpusError
from pipelines.cli.common import bar, corpus_option, output_options, print_json, size


@click.command()
@corpus_option
@click.option("--version", type=int, help="An older version of the corpus.")
@output_options
def verify(corpus: Path, version: int | None, as_json: bool, quiet: bool) -> None:
    """Read every header and payload back and compare them with the registry's hashes; exit 3 if anything differs.

    \b
    Example:
      aunn-data verify --corpus corpus
    """
    opened = Corpus.open(corpus, version)
    with bar(len(opened.entries), "record", quiet or as_json, "verify") as progress:
        faults = checks.verify(opened, lambda entry: progress.update())
    inside = sum(opened.entries.table["payload_bytes"].to_pylist())
    for fault in faults:
        click.echo(f"fault    {fault.record} at {fault.start}:{fault.stop}: {fault.fault}", err=True)
    if as_json:
        document = {"ok": not faults, "records": len(opened.entries), "bytes": inside}
        print_json({**document, "faults": [asdict(fault) for fault in faults]})
    elif not quiet:
        state = "clean" if not faults else f"{len(faults):,} faults"
        click.echo(f"{corpus} version {opened.version}: {len(opened.entries):,} records, {size(inside)}, {state}")
    sys.exit(CorpusError.exit_code if faults else 0)
