"""aunn-data sample."""

from pathlib import Path

import click

from pipelines.cli.common import output_options, print_json
from pipelines.sample import collection as flow


@click.command()
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--seed", default=0, show_default=True, help="Another seed, another collection.")
@output_options
def sample(folder: Path, seed: int, as_json: bool, quiet: bool) -> None:
    """Make a small mixed collection in real formats: two scans of one phantom, images, text, chess games.

    The README.txt in it says what each file is and how it was made.

    \b
    Example:
      aunn-data sample things
    """
    say = (lambda path: None) if quiet or as_json else (lambda path: click.echo(path))
    files = flow.make(folder, seed, say)
    if as_json:
        print_json({"folder": str(folder), "files": [str(path) for path in files]})
