"""aunn-data holdout."""

import click

from aunn_data.corpus import Corpus
from aunn_data.registry import Holdout
from pipelines.cli.common import corpus_option, output_options, print_json, table


@click.command()
@click.argument("name", required=False)
@click.option("--record", help="Name of the record.")
@click.option("--region", "regions", multiple=True, help="AXIS=START:STOP,…; axes left out are whole. Repeatable.")
@corpus_option
@output_options
def holdout(
    name: str | None, record: str | None, regions: tuple[str, ...], corpus: str, as_json: bool, quiet: bool
) -> None:
    """Keep regions of a record from every training under a NAME; without arguments list what is held out.

    \b
    Example:
      aunn-data holdout slab --record brain.nii.gz --region z=28:36 --region z=60:64,y=0:32
    """
    opened = Corpus.open(corpus)
    if name is None:
        _list(opened, as_json)
        return
    if not record or not regions:
        raise click.UsageError("a new holdout needs --record and at least one --region")
    entry = opened.entries.named(record)
    held = [
        Holdout(name, record, entry.geometry.parse_region(text, f"holdout {name!r} of {record}")) for text in regions
    ]
    added = opened.add_holdouts(held)
    count = sum(int((stop - start).sum()) for h in held for start, stop in [entry.spans(h.region).T])
    if as_json:
        print_json({"holdout": name, "record": record, "regions": list(regions), "added": added, "bytes": count})
    elif not quiet:
        click.echo(f"holdout {name}: {added:,} new regions of {record}, {count:,} bytes")


def _list(corpus: Corpus, as_json: bool) -> None:
    rows = [
        [h.holdout, h.record, corpus.entries.named(h.record).geometry.format_region(h.region)]
        for h in corpus.holdouts()
    ]
    if as_json:
        print_json({"holdouts": [dict(zip(("holdout", "record", "region"), row, strict=True)) for row in rows]})
    else:
        click.echo(table(["holdout", "record", "region"], rows))
