"""aunn-model: the network from the command line. One file a verb; this one only gathers them."""

import click

from pipelines.cli.common import Verbs
from pipelines.cli.model_evaluate import evaluate
from pipelines.cli.model_reconstruct import reconstruct
from pipelines.cli.model_train import train


@click.group(cls=Verbs, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="aunn")
def main() -> None:
    """Train a network that knows nothing but addresses, and ask it for what it never saw.

    \b
    A first run (aunn-data build-corpus makes the corpus and the holdout "default"):
      aunn-model train --corpus corpus --out run --seconds 120
      aunn-model reconstruct run --holdout default

    Exit codes: 0 done, 2 wrong usage or configuration, 3 corpus or run damaged.
    """


for verb in (train, evaluate, reconstruct):
    main.add_command(verb)


if __name__ == "__main__":
    main()
