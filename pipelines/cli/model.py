"""aunn-model: the network from the command line. One file a verb; this one only gathers them."""

import click

from pipelines.cli.common import Verbs

VERBS = {
    "train": "Train on all bytes of the corpus that are not held out",
    "condition": "Tell a run something new by a few gradient steps, and predict what follows",
    "evaluate": "Say how well a run knows a holdout, beside what classical fills make of it",
    "reconstruct": "Fill a holdout, a region or a span of addresses with what the network predicts",
    "continue": "Say what comes next: after the corpus, after a record, or at any address below 2^63",
    "report": "Write one HTML page about a run: curves, figures beside the fills, slices to look at, calibration",
}


@click.group(
    cls=Verbs, stem="pipelines.cli.model", verbs=VERBS, context_settings={"help_option_names": ["-h", "--help"]}
)
@click.version_option(package_name="aunn")
def main() -> None:
    """Train a network that knows nothing but addresses, and ask it for what it never saw.

    \b
    A first run (aunn-data build-corpus makes the corpus and the holdout "default"):
      aunn-model train --corpus corpus --out run --seconds 120
      aunn-model reconstruct run --holdout default

    Exit codes: 0 done, 2 wrong usage or configuration, 3 corpus or run damaged.
    """


if __name__ == "__main__":
    main()
