"""aunn-data: the corpus from the command line. One file a verb; this one only gathers them."""

import click

from pipelines.cli.common import Verbs
from pipelines.cli.data_build import build_corpus
from pipelines.cli.data_export import export
from pipelines.cli.data_gc import gc
from pipelines.cli.data_holdout import holdout
from pipelines.cli.data_info import info
from pipelines.cli.data_ingest import ingest
from pipelines.cli.data_lookup import lookup
from pipelines.cli.data_ls import ls
from pipelines.cli.data_read import read
from pipelines.cli.data_sample import sample
from pipelines.cli.data_sql import sql
from pipelines.cli.data_verify import verify


@click.group(cls=Verbs, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="aunn")
def main() -> None:
    """One addressable list of bytes for text, images, scans and chess games.

    \b
    A first corpus:
      aunn-data sample things
      aunn-data ingest things
      aunn-data build-corpus
      aunn-data ls

    Exit codes: 0 done, 1 some inputs refused, 2 wrong usage or configuration, 3 corpus damaged,
    4 another writer was faster or the disk refused: try again.
    """


for verb in (sample, ingest, build_corpus, info, ls, lookup, read, export, verify, holdout, gc, sql):
    main.add_command(verb)


if __name__ == "__main__":
    main()
