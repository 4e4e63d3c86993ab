"""aunn-model train."""

from pathlib import Path
from typing import Any

import click

from aunn_data.corpus import Corpus
from aunn_data.errors import RequestError
from aunn_model.training import Metrics, State, parameters
from pipelines import train as flow
from pipelines.cli.common import bar, corpus_option, output_options, print_json
from pipelines.runs import Run


@click.command()
@corpus_option
@click.option(
    "--out", type=click.Path(path_type=Path), required=True, help="Folder of the run; an unfinished one goes on."
)
@click.option("--config", type=click.Path(path_type=Path), help="A run.toml with settings.")
@click.option("--seconds", type=click.FloatRange(min=0, min_open=True), help="Train about this long [default: 120].")
@click.option("--steps", type=click.IntRange(min=1), help="Train this many steps instead.")
@click.option("--seed", type=int, help="Of the weights and the order of the batches [default: 0].")
@click.option("--version", type=int, help="Train on an older version of the corpus.")
@output_options
def train(
    corpus: str,
    out: Path,
    config: Path | None,
    seconds: float | None,
    steps: int | None,
    seed: int | None,
    version: int | None,
    as_json: bool,
    quiet: bool,
) -> None:
    """Train on all bytes of the corpus that are not held out.

    The same command again finishes a run that was stopped, with the weights it would have had.

    \b
    Example of a run.toml (these are the defaults):
      width = 256           # of the network
      layers = 4            # of hidden matrices
      batch = 2048          # addresses a step
      muon_lr = 0.06
      adam_lr = 0.01
      octave_decay = 0.7    # gain of a wave over that of twice its length
    \b
    Example:
      aunn-model train --corpus corpus --out run --seconds 120
    """
    settings = flow.read_settings(config, steps=steps, seed=seed)
    if steps and seconds:
        raise RequestError("train", expected="--seconds or --steps", found="both", remedy="leave one out")
    if not settings.steps and seconds is None:
        seconds = 120.0
    with bar(None, "step", quiet or as_json, "train") as progress:

        def on_start(run: Run, state: State, size: int) -> None:
            progress.reset(total=run.settings.steps)
            progress.update(state.step)
            if not (quiet or as_json):
                resumed = f", resumed at step {state.step:,}" if state.step else ""
                click.echo(
                    f"{size:,} trainable bytes, {parameters(state.network):,} weights, {run.settings.steps:,} steps of "
                    f"{run.settings.batch:,}, {run.settings.precision}{resumed}",
                    err=True,
                )

        def on_metrics(metrics: Metrics) -> None:
            progress.set_postfix_str(f"{metrics.bits_per_byte:.3f} bits/byte, {metrics.addresses_per_second:,.0f}/s")
            progress.update(metrics.step - progress.n)

        done = flow.train_run(Corpus.open(corpus, version), out, settings, seconds, on_start, on_metrics)
    found = document(out, done)
    if as_json:
        print_json(found)
    elif not quiet:
        click.echo(
            f"{out}: {found['steps']:,} steps in {found['seconds']:.0f} s, {found['bits_per_byte']:.3f} bits/byte, "
            f"{found['addresses_per_second']:,.0f} addresses/s"
        )


def document(out: Path, done: flow.Trained) -> dict[str, Any]:
    """What ``--json`` prints."""
    metrics, state = done.metrics, done.state
    return {
        "run": str(out),
        "version": done.run.version,
        "steps": state.step,
        "seconds": state.seconds,
        "addresses_per_second": state.step * done.run.settings.batch / max(state.seconds, 1e-9),
        "bits_per_byte": metrics and metrics.bits_per_byte,
        "resumed_at": done.resumed_at,
        "parameters": parameters(state.network),
        "precision": done.run.settings.precision,
    }
