"""aunn-model condition."""

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import click
import numpy as np

from aunn_model import conditioning as changes
from aunn_model.reconstruction import predict
from aunn_model.training import CHOICES, Metrics, Settings
from pipelines import conditioning, snapshots
from pipelines.cli.common import bar, output_options, print_json, table
from pipelines.cli.model_evaluate import run_corpus_option, with_option
from pipelines.snapshots import Opened, Snapshot

PROMPT_STEPS, RECORD_STEPS = 20, 300
RATES = {"adam_lr": 0.001, "sgd_lr": 0.03}  # gentle: what was known before shall not be forgotten
MUON_SHARE = 0.3  # of the run's own rates
REHEARSE = "Addresses that the run knows to go into each batch, as a share of it, so that they are not forgotten."


@click.command()
@click.argument("run", type=click.Path(path_type=Path))
@click.option("--as", "name", help="Name of the snapshot; one of that name is replaced.")
@click.option("--text", help="Tell this text.")
@click.option("--file", type=click.Path(path_type=Path, exists=True, dir_okay=False), help="Tell the bytes of a file.")
@click.option("--record", "named", multiple=True, help="Tell a record that was ingested after the run. Repeatable.")
@click.option(
    "--at", type=click.IntRange(min=0), help="Where a text or file stands [default: after all that is known]."
)
@click.option("--steps", type=click.IntRange(min=1), help=f"[default: {PROMPT_STEPS}, of records {RECORD_STEPS}]")
@click.option("--seconds", type=click.FloatRange(min=0, min_open=True), help="About this long, instead of --steps.")
@click.option("--optimizer", type=click.Choice(CHOICES["optimizer"]), default="adamw", show_default=True)
@click.option("--lr", type=click.FloatRange(min=0, min_open=True), help="Learning rate [default: by optimizer].")
@click.option("--rehearse", type=click.FloatRange(0, 1), default=0.0, show_default=True, help=REHEARSE)
@click.option("--layers", default="", help="Change only these, such as entry,codes,trunk.0,exit [default: all].")
@with_option
@click.option(
    "--bytes", "count", type=click.IntRange(min=0), default=64, show_default=True, help="Predict what follows."
)
@click.option("--list", "listed", is_flag=True, help="Show the snapshots there are, and how alike their changes.")
@run_corpus_option
@output_options
def condition(
    run: Path,
    name: str | None,
    text: str | None,
    file: Path | None,
    named: tuple[str, ...],
    at: int | None,
    steps: int | None,
    seconds: float | None,
    optimizer: str,
    lr: float | None,
    rehearse: float,
    layers: str,
    with_: tuple[str, ...],
    count: int,
    listed: bool,
    corpus: str | None,
    as_json: bool,
    quiet: bool,
) -> None:
    """Tell a run something new by a few gradient steps, and predict what follows.

    The run's weights stay as they are: what the steps change is kept below RUN/conditions under the name --as, for
    `continue`, `reconstruct`, `evaluate` and `condition` to take with --with NAME, several of them to be stacked. The
    same command again finishes a telling that was stopped, with the change it would have had.

    \b
    Examples:
      aunn-model condition run --text "|c" --steps 1 --optimizer sgd --as c
      aunn-data ingest new-scan.nii.gz && aunn-model condition run --record new-scan.nii.gz --seconds 60 --as new
      aunn-model reconstruct run --with new --record new-scan.nii.gz --missing
      aunn-model condition run --list
    """
    if listed:
        _list(run, as_json)
        return
    if sum([text is not None, file is not None, bool(named)]) != 1 or not name:
        raise click.UsageError("say what to tell, --text, --file or --record, and a name for it, --as")
    known = snapshots.opened(run, with_, corpus)
    start = known.end if at is None else at
    if named:
        known, told = conditioning.records(known, named)
    elif file is not None:
        told = conditioning.prompt(file.name, file.read_bytes(), start)
    else:
        told = conditioning.prompt(str(text), str(text).encode(), start)
    settings = _settings(known.run.settings, optimizer, lr, steps or (RECORD_STEPS if named else PROMPT_STEPS))
    resumed_at = 0
    with bar(None, "step", quiet or as_json, "tell") as progress:

        def on_start(steps: int, done: int) -> None:
            nonlocal resumed_at
            resumed_at = done
            progress.reset(total=steps)
            progress.initial = progress.n = done  # steps of an earlier telling tell nothing of this one's speed
            progress.refresh()
            if done and not (quiet or as_json):
                click.echo(f"{name}: {steps:,} steps, resumed at step {done:,}", err=True)

        def on_metrics(metrics: Metrics) -> None:
            progress.set_postfix_str(f"{metrics.bits_per_byte:.3f} bits/byte")
            progress.update(metrics.step - progress.n)

        chosen = [layer for layer in layers.split(",") if layer]
        snapshot = conditioning.tell(
            run,
            known,
            told,
            snapshots.checked_name(name),
            settings,
            chosen,
            seconds,
            rehearse,
            on_start,
            on_metrics,
        )
    found = {
        **_said(run, snapshot),
        "resumed_at": resumed_at,
        "follows": _following(known, told, count) if count else None,
    }
    if as_json:
        print_json(found)
        return
    figures = snapshot.figures
    click.echo(
        f"{name}: {snapshot.settings['steps']:,} steps on {len(told.addresses_N):,} bytes at "
        f"{told.spans[0, 0]:,}:{told.spans[-1, 1]:,}, {figures['bits_per_byte_before']:.3f} -> "
        f"{figures['bits_per_byte_after']:.3f} bits/byte; what was known before "
        f"{figures['others_bits_per_byte_before']:.3f} -> {figures['others_bits_per_byte_after']:.3f}"
    )
    if count:
        click.echo(found["follows"]["text"])


def _settings(trained: Settings, optimizer: str, lr: float | None, steps: int) -> Settings:
    """The run's own, for a short one from where it ended."""
    rates: dict[str, Any] = dict(RATES)
    if optimizer == "muon":
        rates = {name: MUON_SHARE * getattr(trained, name) for name in ("muon_lr", "adam_lr")}
    if lr is not None:
        rates = dict.fromkeys(("muon_lr", "adam_lr", "sgd_lr"), lr)
    schedule = "constant" if steps == 1 else "linear"
    return replace(
        trained, **rates, optimizer=optimizer, steps=steps, schedule=schedule, warmup=0, ema=0.0, order="shuffled",
        streams=1, repeats=1,
    )  # fmt: skip


def _following(known: Opened, told: conditioning.Told, count: int) -> dict[str, Any]:
    """What the network now holds to stand after what it was told."""
    start = int(told.spans[-1, 1])
    found = predict(known.network, np.arange(start, start + count, dtype=np.int64))
    text = found.likeliest_N.tobytes().decode("utf-8", "backslashreplace")
    return {"start": start, "text": text, "entropy_bits_per_byte": float(found.entropy_N.mean())}


def _said(run: Path, snapshot: Snapshot) -> dict[str, Any]:
    size = sum(path.stat().st_size for path in (run / snapshots.CONDITIONS / snapshot.name).iterdir())
    return {"run": str(run), **asdict(snapshot), "bytes_on_disk": size}


def _list(run: Path, as_json: bool) -> None:
    found = [Snapshot.read(run, name) for name in snapshots.names(run)]
    alike = changes.cosines({snapshot.name: snapshot.change(run) for snapshot in found})
    if as_json:
        pairs = [{"a": a, "b": b, "cosine": cosine} for (a, b), cosine in alike.items()]
        print_json({"run": str(run), "snapshots": [_said(run, snapshot) for snapshot in found], "alike": pairs})
        return
    columns = ["snapshot", "told", "at", "on", "bits/byte", "now", "known", "now", "change", "KiB"]
    click.echo(table(columns, [_row(_said(run, snapshot)) for snapshot in found]))
    if alike:
        rows = [[a, b, f"{cosine:7.3f}"] for (a, b), cosine in alike.items()]
        click.echo("\n" + table(["change of", "and of", "cosine"], rows))


def _row(said: dict[str, Any]) -> list[str]:
    figures = said["figures"]
    bits = [f"{figures[f'{of}bits_per_byte_{when}']:9.3f}" for of in ("", "others_") for when in ("before", "after")]
    on = ", ".join(said["on"]) or said["checkpoint"]
    told, at = said["told"], f"{said['spans'][0][0]:,}"
    told = told if len(told) <= 24 else told[:23] + "…"
    return [said["name"], told, at, on, *bits, f"{figures['norm']:7.3f}", f"{said['bytes_on_disk'] / 1024:7.1f}"]
