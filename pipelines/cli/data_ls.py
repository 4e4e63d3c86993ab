"""aunn-data ls."""

from typing import Any

import click

from aunn_data.corpus import Corpus
from aunn_data.entries import Entry
from pipelines.cli.common import corpus_option, output_options, print_json, table


@click.command()
@corpus_option
@click.option("--version", type=int, help="Of an older version of the corpus.")
@output_options
def ls(corpus: str, version: int | None, as_json: bool, quiet: bool) -> None:
    """List the records in order of address.

    \b
    Example:
      aunn-data ls --corpus corpus --json
    """
    opened = Corpus.open(corpus, version)
    if as_json:
        print_json({"version": opened.version, "records": [_row(entry) for entry in opened.entries]})
        return
    rows = [
        [e.header_start, e.payload_start, e.payload_stop, e.format, e.dtype, "×".join(map(str, e.shape)), e.record]
        for e in opened.entries
    ]
    click.echo(table(["header", "payload", "stop", "format", "dtype", "shape", "record"], rows))


def _row(entry: Entry) -> dict[str, Any]:
    columns = entry.row()
    return {**columns, "geometry": entry.geometry.to_json()}
