"""A corpus into a network: gather what is trainable, train, checkpoint, go on where a run was stopped."""

import json
import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from aunn_data.corpus import Corpus
from aunn_data.errors import RequestError
from aunn_data.sampling import Sampler, trainable
from aunn_model import checkpoint
from aunn_model.training import Metrics, Settings, State, best_precision, steps_within, train
from pipelines import runs
from pipelines.config import read_toml
from pipelines.runs import Run

CHECKPOINT_SECONDS = 60.0
LEAST = {"width": 1, "pairs": 1, "batch": 1, "steps": 0, "warmup": 0, "muon_lr": 0, "adam_lr": 0, "weight_decay": 0}


@dataclass(frozen=True)
class Trained:
    """A run that has reached its last step, or was stopped before (``steps`` says where)."""

    run: Run
    state: State
    metrics: Metrics | None
    resumed_at: int


def train_run(
    corpus: Corpus,
    folder: Path,
    settings: Settings,
    seconds: float | None = None,
    on_start: Callable[[Run, State, int], object] = lambda run, state, size: None,
    on_metrics: Callable[[Metrics], object] = lambda metrics: None,
) -> Trained:
    """Trains a new run in ``folder``, or finishes the one that is there.

    With ``seconds`` the number of steps is planned from a measurement and then kept: a resumed run ends with the same
    weights as one that was never stopped. ``on_start`` gets the run, its state and the number of trainable addresses.
    """
    batches = Batches(corpus, settings)
    with _deterministic():
        run = _begin_or_resume(corpus, folder, settings, seconds, batches)
        batches.settings = run.settings
        state = runs.fresh(corpus, run.settings, run.address_bits)
        if saved := checkpoint.found(folder):
            runs.restore(saved[-1], state)
        resumed_at, saved_at, metrics = state.step, state.seconds, None
        on_start(run, state, batches.sampler.size)
        with (folder / "log.jsonl").open("a") as log, _stop_signals() as stop:
            for metrics in train(state, run.settings, batches):
                log.write(json.dumps(metrics.__dict__) + "\n")
                log.flush()
                on_metrics(metrics)
                if stop.is_set() or state.seconds - saved_at >= CHECKPOINT_SECONDS:
                    checkpoint.save(folder, state)
                    saved_at = state.seconds
                if stop.is_set():
                    raise KeyboardInterrupt
        if state.step > resumed_at:
            checkpoint.save(folder, state)
    return Trained(run, state, metrics or _last_metrics(folder), resumed_at)


class Batches:
    """step -> (addresses_B, bytes_B) on the training device, where all trainable bytes lie."""

    def __init__(self, corpus: Corpus, settings: Settings):
        self.settings = settings
        self.sampler = Sampler(trainable(corpus), settings.seed)
        if not self.sampler.size:
            raise RequestError(
                corpus.name, expected="bytes to train on", found="none", remedy="ingest something that is not held out"
            )
        self.device = runs.device()
        self.bytes_N = torch.from_numpy(corpus.gather(self.sampler.spans)).to(self.device)

    def __call__(self, step: int) -> tuple[Tensor, Tensor]:
        """The batch of a step: a pure function of corpus, holdouts, seed and step."""
        ranks_B = self.sampler.ranks(step, self.settings.batch)
        addresses_B = torch.from_numpy(self.sampler.addresses(ranks_B)).to(self.device)
        return addresses_B, self.bytes_N[torch.from_numpy(ranks_B).to(self.device)].long()


def read_settings(path: Path | None, **overrides: Any) -> Settings:
    """Settings from a run.toml (every key known, of its kind) with the command line's on top."""
    table: dict[str, Any] = {}
    if path is not None:
        kinds = {f.name: (int, float) if isinstance(f.default, float) else type(f.default) for f in fields(Settings)}
        table = read_toml(path, {**kinds, "precision": ("auto", "bf16", "float32")})
    table |= {name: value for name, value in overrides.items() if value is not None}
    for name, least in LEAST.items():
        if table.get(name, least) < least:
            raise RequestError(name, expected=f"{least} or more", found=str(table[name]), remedy="change the value")
    return runs.settings_of(table)


def _begin_or_resume(corpus: Corpus, folder: Path, settings: Settings, seconds: float | None, batches: Batches) -> Run:
    geometry_of = {entry.record: entry.geometry for entry in corpus.entries}
    holdouts = tuple(
        (h.holdout, h.record, geometry_of[h.record].format_region(h.region))
        for h in corpus.holdouts()
        if h.record in geometry_of
    )
    if settings.precision == "auto":
        settings = replace(settings, precision=best_precision(runs.device(), settings.width, settings.batch))
    if (folder / "run.json").exists():
        return _same(Run.read(folder), corpus, holdouts, settings, seconds, folder)
    if seconds is not None:
        planned = steps_within(seconds, runs.fresh(corpus, settings), settings, batches)
        settings = replace(settings, steps=planned)
    run = Run(
        _absolute(corpus.name), corpus.version, corpus.address_bits, holdouts, settings, corpus.entries.fingerprint
    )
    run.write(folder)
    return run


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


def _last_metrics(folder: Path) -> Metrics | None:
    lines = (folder / "log.jsonl").read_text().splitlines() if (folder / "log.jsonl").exists() else []
    return Metrics(**json.loads(lines[-1])) if lines else None


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
def _deterministic() -> Iterator[None]:
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # without it cuBLAS refuses to be deterministic
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before)
