"""A corpus into a network: gather what is trainable, train, checkpoint, go on where a run was stopped."""

import math
import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from aunn_data.corpus import Corpus
from aunn_data.errors import RequestError
from aunn_model import checkpoint, distributed
from aunn_model.training import (
    CHOICES,
    DivergedError,
    Metrics,
    Settings,
    State,
    best_precision,
    steps_within,
    train,
)
from pipelines import runs
from pipelines.batches import Batches
from pipelines.checkup import Checkup
from pipelines.config import read_toml
from pipelines.holes import checks_of, spans_of
from pipelines.metrics import Found, Log
from pipelines.runs import Run

CHECKPOINT_SECONDS = 60.0
POSITIVE = ("width", "layers", "unit", "batch", "window", "streams", "repeats", "keep", "cooldown")
SHARES = ("fine_share", "ema", "checks", "cooldown")


@dataclass(frozen=True)
class Trained:
    """A run that has reached its last step; ``checks`` are the last figures of what was left out beside the holes."""

    run: Run
    state: State
    metrics: Metrics | None
    resumed_at: int
    checks: Found


def train_run(
    corpus: Corpus,
    folder: Path,
    settings: Settings,
    seconds: float | None = None,
    on_start: Callable[[Run, State, int], object] = lambda run, state, size: None,
    on_metrics: Callable[[Metrics], object] = lambda metrics: None,
    tensorboard: bool = False,
) -> Trained:
    """Trains a new run in ``folder``, or finishes the one that is there.

    With ``seconds`` the number of steps is planned from a measurement and then kept: a resumed run ends with the same
    weights as one that was never stopped. ``on_start`` gets the run, its state and the number of trainable addresses.
    """
    with deterministic():
        run, batches, checkup = _begin_or_resume(corpus, folder, settings, seconds)
        state = runs.fresh(corpus, run.settings, run.address_bits)
        if saved := checkpoint.found(folder):
            runs.restore(saved[-1], state)
        resumed_at = state.step
        on_start(run, state, batches.size)
        every = checkup.every
        with (
            Log(folder, resumed_at, tensorboard) as log,
            saving(state, run.settings.steps) as save_if_due,
            _diverging(corpus, folder),
        ):
            for metrics in train(state, run.settings, batches, every=every):
                last = state.step == run.settings.steps
                found = checkup(state.best) if state.step % every == 0 or last else {}
                figure = checkup.figure(found) if found else None
                better = figure is not None and figure < log.best
                log.write(metrics, found)
                on_metrics(metrics)
                log.best = min(log.best, math.inf if figure is None else figure)
                save_if_due(partial(checkpoint.save, folder, state, run.settings.keep, figure), better or last)
    return Trained(run, state, log.last, resumed_at, log.checks)


def read_settings(path: Path | None, **overrides: Any) -> Settings:
    """Settings from a run.toml (every key known, of its kind) with the command line's on top."""
    table: dict[str, Any] = {}
    if path is not None:
        kinds = {f.name: (int, float) if isinstance(f.default, float) else type(f.default) for f in fields(Settings)}
        table = read_toml(path, {**kinds, **CHOICES})
    table |= {name: value for name, value in overrides.items() if value is not None}
    for name, value in table.items():
        if not isinstance(value, str) and (value < 0 or (value == 0 and name in POSITIVE)) and name != "seed":
            least = "above 0" if name in POSITIVE else "0 or more"
            raise RequestError(name, expected=least, found=str(value), remedy="change the value")
        if name in SHARES and value > 1:
            raise RequestError(name, expected="a share, 1 at most", found=str(value), remedy="change the value")
    settings = runs.settings_of(table)
    if settings.shard != "none" and settings.rule != "backpropagation":  # others ask layers for more than their outputs
        raise RequestError(
            "rule",
            expected=f'"backpropagation" with shard = "{settings.shard}"',
            found=f'"{settings.rule}"',
            remedy='set shard = "none": each device then holds all weights',
        )
    return settings


def _begin_or_resume(
    corpus: Corpus, folder: Path, settings: Settings, seconds: float | None
) -> tuple[Run, Batches, Checkup]:
    geometry_of = {entry.record: entry.geometry for entry in corpus.entries}
    holdouts = tuple(
        (h.holdout, h.record, geometry_of[h.record].format_region(h.region))
        for h in corpus.holdouts()
        if h.record in geometry_of
    )
    if settings.precision == "auto":
        fastest = best_precision(runs.device(), settings.width, settings.batch)
        settings = replace(settings, precision="float32" if distributed.anyone(fastest == "float32") else fastest)
    run, part = None, distributed.part()
    if (folder / "run.json").exists():
        run = _same(Run.read(folder), corpus, holdouts, settings, seconds, folder)
        settings = run.settings
    checks = checks_of(corpus, holdouts, settings.checks, settings.seed)
    batches = Batches(corpus, settings, runs.device(), spans_of(checks), part)
    if run is None and seconds is not None:
        planned = steps_within(seconds, runs.fresh(corpus, settings), settings, batches)
        settings = replace(settings, steps=planned)
        batches = Batches(corpus, settings, runs.device(), spans_of(checks), part)  # an order may depend on the steps
    if run is None:
        name, fingerprint = _absolute(corpus.name), corpus.entries.fingerprint
        run = Run(name, corpus.version, corpus.address_bits, holdouts, settings, fingerprint)
        distributed.wait()  # all have seen that there is none
        if distributed.leads():
            run.write(folder)
    return run, batches, Checkup(corpus, checks, settings)


def _same(
    run: Run,
    corpus: Corpus,
    holdouts: tuple[tuple[str, str, str], ...],
    settings: Settings,
    seconds: float | None,
    folder: Path,
) -> Run:
    """The run that is there, if it is the one that was asked for. RequestError if anything differs."""
    asked = replace(settings, steps=run.settings.steps if seconds is not None else settings.steps)
    asked = replace(asked, precision=run.settings.precision)
    run = replace(run, settings=replace(run.settings, shard=asked.shard))  # as many devices as there are now
    differing = [name for name in asked.__dict__ if getattr(asked, name) != getattr(run.settings, name)]
    for name, here, there in (
        (
            "corpus version",
            corpus.entries.fingerprint if run.fingerprint else corpus.version,
            run.fingerprint or run.version,
        ),
        ("holdouts", holdouts, run.holdouts),
    ):
        if here != there:
            differing.append(name)
    if differing:
        older = f"go on with --version {run.version}, or " if "corpus version" in differing else ""
        raise RequestError(
            folder,
            expected="the run that is there already, to finish it",
            found=f"another {', another '.join(differing)}",
            remedy=f"{older}use another --out for another run",
        )
    return run


def _absolute(where: str) -> str:
    return where if "://" in where else str(Path(where).resolve())


@contextmanager
def _diverging(corpus: Corpus, folder: Path) -> Iterator[None]:
    """A loss that is no number, as an error that says which addresses and records it was."""
    try:
        yield
    except DivergedError as error:
        start, stop = error.span
        names = sorted({entry.record for address in error.addresses_B if (entry := corpus.entries.at(int(address)))})
        where = "its whole batch, so the step before broke the weights:" if error.all else "of its batch"
        where = f"{where} addresses {start}:{stop} ({', '.join(names[:3]) or 'headers'})"
        raise RequestError(
            folder,
            expected="a finite loss",
            found=f"none at step {error.step:,}, {where}",
            remedy="lower muon_lr and adam_lr, or set clip = 1, in another --out; the checkpoints before it are kept",
        ) from error


@contextmanager
def saving(state: State, steps: int) -> Iterator[Callable[..., None]]:
    """What to call after each report of ``train`` with what saves the state, which it does every CHECKPOINT_SECONDS.

    It does too if told to ``anyway``, and when Ctrl-C or SIGTERM has come: then KeyboardInterrupt ends the training,
    unless it is at its last step.
    """
    saved_at = state.seconds
    with _stop_signals() as stop:

        def save_if_due(save: Callable[[], object], anyway: bool = False) -> None:
            nonlocal saved_at
            stopped = distributed.anyone(stop.is_set())
            if stopped or distributed.anyone(anyway or state.seconds - saved_at >= CHECKPOINT_SECONDS):
                save()
                saved_at = state.seconds
            if stopped and state.step < steps:
                raise KeyboardInterrupt

        yield save_if_due


@contextmanager
def _stop_signals() -> Iterator[threading.Event]:
    """An event that Ctrl-C and SIGTERM set instead of breaking into the middle of a step."""
    stop = threading.Event()
    if threading.current_thread() is not threading.main_thread():  # only the main one may set handlers
        yield stop
        return
    before = {number: signal.signal(number, lambda *_: stop.set()) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def deterministic() -> Iterator[None]:
    """Within it torch does the same sums in the same order every time, or refuses."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # without it cuBLAS refuses to be deterministic
    fill: Any = torch.utils.deterministic
    before = torch.get_deterministic_debug_mode(), fill.fill_uninitialized_memory
    torch.set_deterministic_debug_mode("error")  # the other way to say it imports torch's compiler, for seconds
    fill.fill_uninitialized_memory = False  # which nobody reads: filling it takes 4 % of a step
    try:
        yield
    finally:
        torch.set_deterministic_debug_mode(before[0])
        fill.fill_uninitialized_memory = before[1]
