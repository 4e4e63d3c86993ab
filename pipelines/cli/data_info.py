"""aunn-data info."""

import click

from aunn_data.corpus import Corpus
from pipelines.card import census
from pipelines.cli.common import corpus_option, output_options, print_json, size, table


@click.command()
@corpus_option
@output_options
def info(corpus: str, as_json: bool, quiet: bool) -> None:
    """Say what is in the corpus: version, width, records and bytes by modality, holdouts.

    \b
    Example:
      aunn-data info --corpus corpus
    """
    counted = census(Corpus.open(corpus))
    if as_json:
        print_json(counted)
        return
    click.echo(
        f"{counted['corpus']}: version {counted['version']}, format {counted['format_version']}, "
        f"2^{counted['address_bits']} addresses, {counted['addresses_used']:,} handed out"
    )
    rows = [
        [name, m["records"], m["payload_bytes"], size(m["payload_bytes"]), m["start"], m["stop"]]
        for name, m in counted["modalities"].items()
    ]
    click.echo(table(["modality", "records", "bytes", "", "from", "to"], rows))
    for name, h in counted["holdouts"].items():
        click.echo(f"holdout {name}: {h['regions']:,} regions in {h['records']:,} records, {h['bytes']:,} bytes")
