"""aunn-data export."""

import sys
from pathlib import Path

import click

from aunn_data.corpus import Corpus
from pipelines import export as flow
from pipelines.cli.common import bar, corpus_option, output_options, print_json
from pipelines.exchange import KINDS


@click.command()
@click.argument("records", nargs=-1)
@corpus_option
@click.option(
    "--out", type=click.Path(path_type=Path), default=Path("export"), show_default=True, help="Folder to fill."
)
@click.option(
    "--as", "as_format", type=click.Choice(list(KINDS)), help="Another format: one file a record, its suffix added."
)
@click.option("--overwrite", is_flag=True, help="Replace files that are there already.")
@click.option("--version", type=int, help="The corpus as it was at this version [default: the newest].")
@output_options
def export(
    records: tuple[str, ...],
    corpus: str,
    out: Path,
    as_format: str | None,
    overwrite: bool,
    version: int | None,
    as_json: bool,
    quiet: bool,
) -> None:
    """Write records (all by default) back as files of their own format, those of one source into one file.

    RECORDS are names as `aunn-data ls` prints them. What cannot be written without loss in its own format comes back in
    another, with its suffix added: photo.jpg as photo.jpg.png. What came compressed is compressed again; members of
    archives come back below a folder of the archive's name.

    \b
    Example:
      aunn-data export brain.nii.gz --out restored --corpus corpus
      aunn-data export 'games.pgn#7' --as npy
    """
    opened = Corpus.open(corpus, version)
    entries = sorted((opened.entries.named(r) for r in records), key=lambda e: e.header_start)
    chosen = entries if records else list(opened.entries)
    with bar(len(chosen), "record", quiet or as_json, "export") as progress:
        if as_format:
            done = flow.export_as(opened, chosen, out, as_format, overwrite, lambda entry: progress.update())
        else:
            done = flow.export(opened, chosen, out, overwrite, lambda entry: progress.update())
    for _, error in done.refused:
        click.echo(f"refused  {error}", err=True)
    if as_json:
        print_json(
            {
                "files": [{"record": e.record, "path": str(path)} for e, path in done.files],
                "refused": [{"source": source, "error": str(error)} for source, error in done.refused],
            }
        )
    elif not quiet:
        click.echo(f"{len(done.files):,} records in {len({path for _, path in done.files}):,} files below {out}")
    sys.exit(max((error.exit_code for _, error in done.refused), default=0))
