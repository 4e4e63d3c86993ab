"""aunn-data sql."""

import json
import math
from datetime import date, datetime, time
from decimal import Decimal

import click

from aunn_data.corpus import Corpus
from pipelines.cli.common import corpus_option, output_options, print_json, table


@click.command()
@click.argument("statement")
@corpus_option
@click.option("--version", type=int, help="The records of an older version of the corpus.")
@output_options
def sql(statement: str, corpus: str, version: int | None, as_json: bool, quiet: bool) -> None:
    """Ask the registry: SQL over the tables records, holdouts and reservations (DuckDB).

    From Python: pipelines.sql.query(Corpus.open("corpus"), "SELECT …") gives an Arrow table.

    \b
    Example:
      aunn-data sql "SELECT modality, count(*), sum(payload_bytes) FROM records GROUP BY 1"
    """
    from pipelines.sql import query  # DuckDB takes a while to load and no other verb needs it

    found = query(Corpus.open(corpus, version), statement)
    rows = [{name: _plain(value) for name, value in row.items()} for row in found.to_pylist()]
    if as_json:
        print_json({"columns": found.column_names, "rows": rows})
    else:
        click.echo(table(found.column_names, [[_shown(value) for value in row.values()] for row in rows]))


def _plain(value: object) -> object:
    """A value as JSON has it: sums of 64-bit integers are wider in DuckDB, times become ISO 8601, bytes hexadecimal."""
    if isinstance(value, dict):
        return {str(name): _plain(inside) for name, inside in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inside) for inside in value]
    if isinstance(value, Decimal):
        return int(value) if value == value.to_integral_value() else float(value)
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, date | datetime | time):
        return value.isoformat()
    if isinstance(value, bytes):
        return value.hex()
    return value if isinstance(value, str | int | None) else str(value)


def _shown(value: object) -> object:
    if value is None:
        return ""
    return json.dumps(value, ensure_ascii=False) if isinstance(value, list | dict) else value
