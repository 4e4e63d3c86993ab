"""aunn-data build-corpus."""

import sys
from pathlib import Path

import click

from pipelines import build_corpus as flow
from pipelines.cli.common import bar, corpus_option, output_options, print_json
from pipelines.cli.data_ingest import document


@click.command("build-corpus")
@click.argument("config", required=False, type=click.Path(path_type=Path))
@corpus_option
@output_options
@click.pass_context
def build_corpus(ctx: click.Context, config: Path | None, corpus: str, as_json: bool, quiet: bool) -> None:
    """Finish the corpus: ingest what CONFIG names, check every record, hold regions out, write its card.

    Without CONFIG (a corpus.toml) it finishes what `ingest` has gathered. Default holdouts are added where there are
    none. The card is CORPUS.md for people and corpus.json for programs, both in the corpus' folder.

    \b
    Example of a corpus.toml (paths are relative to it; every key but path is optional):
      corpus = "corpus"
      address_bits = 38
      [[source]]
      path = "scans"
      layout = "padded"
      [[source]]
      path = "games"
      chess = "pgn"
      prefix = "games/"
      [[holdout]]
      name = "slab"
      record = "scroll_54keV.nii.gz"
      region = ["z=12:14"]
    \b
    Example:
      aunn-data build-corpus corpus.toml
    """
    named = ctx.get_parameter_source("corpus") in (
        click.core.ParameterSource.COMMANDLINE,
        click.core.ParameterSource.ENVIRONMENT,
    )
    with bar(None, "record", quiet or as_json, "build") as progress:
        built = flow.build(config, corpus, named, progress.update)
    refused = [error for report in built.reports for _, error in report.refused]
    for error in refused:
        click.echo(f"refused  {error}", err=True)
    if as_json:
        print_json({**built.card, "sources": [document(report) for report in built.reports]})
    elif not quiet:
        click.echo(f"{built.corpus.name}/CORPUS.md: {len(built.corpus.entries):,} records, all verified")
        for name, h in built.card["holdouts"].items():
            click.echo(f"holdout {name}: {h['regions']:,} regions in {h['records']:,} records, {h['bytes']:,} bytes")
    sys.exit(1 if refused else 0)
