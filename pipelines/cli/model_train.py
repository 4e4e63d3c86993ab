"""aunn-model train."""

from pathlib import Path
from typing import Any

import click

from aunn_data.corpus import Corpus
from aunn_data.errors import RequestError
from aunn_model import distributed
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
@click.option("--tensorboard", is_flag=True, help="Write TensorBoard's event files too, into OUT/tensorboard.")
@output_options
def train(
    corpus: str,
    out: Path,
    config: Path | None,
    seconds: float | None,
    steps: int | None,
    seed: int | None,
    version: int | None,
    tensorboard: bool,
    as_json: bool,
    quiet: bool,
) -> None:
    """Train on all bytes of the corpus that are not held out.

    The same command again finishes a run that was stopped, with the weights it would have had.

    \b
    A run.toml with every setting and its default:
      width = 256             # of the hidden matrices
      layers = 4              # hidden matrices
      trunk = "plain"         # perceptron, or "residual": pairs of layers
      features = "waves"      # along the axes, or binary "digits"
      codes = 0               # parities that tell records apart, for learning by heart
      unit = 1                # addresses of a list that codes do not tell apart
      rule = "backpropagation"  # or "feedback_alignment", "forward_gradient",
                              # "predictive_coding", "delta"
      batch = 2048            # addresses a step
      steps = 0               # of the run; 0: --steps or --seconds says
      seed = 0                # of the weights and the order of the batches
      order = "shuffled"      # or "windows", "serial", "annealed"
      window = 256            # addresses that stay together, of "windows"
      streams = 1             # places read at once, of "serial" and "annealed"
      repeats = 1             # steps on each batch
      value_weight = 20.0     # of the squared error of expected bytes that are quantities
      fine_share = 0.2        # of a batch, for finer digits; 0: as they come
      optimizer = "muon"      # or "adamw", "sgd"
      muon_lr = 0.06          # learning rate of the hidden matrices
      adam_lr = 0.01          # of all other weights
      sgd_lr = 0.1            # of all weights with "sgd"
      weight_decay = 0.01     # of what muon steps; of all with "adamw"
      schedule = "linear"     # to 0; "cosine"; "wsd": flat, then to 0; "constant"
      warmup = 50             # steps in which the rates rise
      cooldown = 0.2          # share of the steps in which "wsd" falls
      clip = 0.0              # largest norm of a gradient; 0: any
      ema = 0.05              # horizon of averaged weights, in runs; 0: none
      checks = 0.05           # share of what lies beside holes, left out too
      octave_decay = 0.5      # gain of a wave over that of twice its length
      oblique = 128           # waves in random directions; 0: along the axes only
      keep = 2                # newest checkpoints, beside the best
      precision = "auto"      # or "bf16", "float32"
      shard = "none"          # or "full": a part of all weights on each device
    \b
    Example:
      aunn-model train --corpus corpus --out run --seconds 120
    \b
    On several devices, each with its part of every batch (shard = "full": and of every weight):
      torchrun --nproc-per-node 4 --no-python aunn-model train --corpus corpus --out run
    """
    with distributed.processes():
        _train(corpus, out, config, seconds, steps, seed, version, tensorboard, as_json, quiet)


def _train(
    corpus: str,
    out: Path,
    config: Path | None,
    seconds: float | None,
    steps: int | None,
    seed: int | None,
    version: int | None,
    tensorboard: bool,
    as_json: bool,
    quiet: bool,
) -> None:
    as_json, quiet = as_json and distributed.leads(), quiet or not distributed.leads()
    settings = flow.read_settings(config, steps=steps, seed=seed)
    if steps and seconds:
        raise RequestError("train", expected="--seconds or --steps", found="both", remedy="leave one out")
    if not settings.steps and seconds is None:
        seconds = 120.0
    with bar(None, "step", quiet or as_json, "train") as progress:

        def on_start(run: Run, state: State, size: int) -> None:
            progress.reset(total=run.settings.steps)
            progress.initial = progress.n = state.step  # steps of an earlier run tell nothing of this one's speed
            progress.refresh()
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

        opened = Corpus.open(corpus, version)
        done = flow.train_run(opened, out, settings, seconds, on_start, on_metrics, tensorboard)
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
        "checks": done.checks,
        "resumed_at": done.resumed_at,
        "parameters": parameters(state.network),
        "precision": done.run.settings.precision,
    }
