"""What lets a long benchmark go on where it was killed: ``--work FOLDER``, which all that take hours have.

A *part* (a network's row, a peer's, a number of digits) that is over keeps its figures in ``FOLDER/<name>-<of>.json``,
where ``of`` is a fingerprint of all that they depend on, so that figures of other arguments, settings or data are never
taken for them. Beside it lies a folder of that name, with the parts that it is made of and the weights of what it
trains, saved every 20 processor seconds: ``kill -9`` loses these at most, and what goes on ends with the very weights
that it would have had. Processor seconds are counted on.

The code is not in the fingerprint: changed code wants another FOLDER. Without ``--work`` all goes into a temporary one.
"""

import hashlib
import json
import re
import sys
import tempfile
import time
from argparse import ArgumentParser
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from statistics import median
from typing import Any

import torch

from aunn_data.corpus import Corpus
from aunn_data.store import Folder
from aunn_model import checkpoint
from aunn_model.training import BatchOf, Settings, State, best_precision, step, train
from pipelines import runs

SAVE_SECONDS = 20.0
PROBED = 15  # steps

Found = dict[str, Any]


class Work:
    """A folder where parts keep their figures and trainings their weights; None keeps nothing."""

    def __init__(self, folder: Path | None):
        self.folder = folder

    def within(self, name: str, key: Any) -> "Work":
        """The folder of a part under way. ``key``, JSON, is all that its figures depend on."""
        if self.folder is None:
            return self
        fingerprint = hashlib.sha256(json.dumps([name, key], sort_keys=True).encode()).hexdigest()[:16]
        return Work(self.folder / f"{re.sub(r'[^a-zA-Z0-9]+', '-', name)}-{fingerprint}")

    def part(self, name: str, key: Any, compute: Callable[["Work"], Found]) -> Found:
        """Figures that are known, or else computed, in the part's own folder, and kept."""
        inner = self.within(name, key)
        if self.folder is None or inner.folder is None:
            return compute(inner)
        path = inner.folder.with_suffix(".json")
        if path.exists():
            _say(f"{name} is known from {self.folder}")
        else:
            self.keep(path.name, {"part": name, "of": key, "found": compute(inner)})
        known: Found = json.loads(path.read_text())["found"]
        return known

    def keep(self, name: str, found: Any) -> None:
        """Writes a JSON document whole or not at all."""
        if self.folder is not None:
            Folder(self.folder).put(name, json.dumps(found, indent=1).encode() + b"\n")

    def precision(self, width: int, batch: int) -> str:
        """What is fastest on this processor, measured once: it would not always come out the same."""
        key = {"width": width, "batch": batch}
        found = self.part("precision", key, lambda _: {"precision": best_precision(torch.device("cpu"), width, batch)})
        return str(found["precision"])


NOWHERE = Work(None)


class Training:
    """A state that is saved now and then: as it was saved last, or as it is given at first.

    ``notes``, JSON, are saved with it. ``seconds`` are those of the processor, without those spent on saving.
    """

    def __init__(self, work: Work, state: State, **notes: Any):
        self.folder, self.state, self.notes, self.over = work.folder, state, notes, False
        self._began, self._saved_at, self._saved_step = time.process_time(), 0.0, -1
        if self.folder is not None and (saved := checkpoint.found(self.folder)):
            checkpoint.load(saved[-1], state)
            said = json.loads((self.folder / f"notes-{state.step}.json").read_text())
            self.notes, self.over, self._saved_at = said["notes"], said["over"], said["seconds"]
            self._began, self._saved_step = self._began - self._saved_at, state.step
            _say(f"{self.folder.name} goes on at step {state.step:,}")

    @property
    def seconds(self) -> float:
        """Spent on it, those before a kill as well."""
        return time.process_time() - self._began

    def save(self) -> None:
        """To be called between steps: saves if it is time to."""
        seconds = self.seconds
        if self.folder is not None and seconds - self._saved_at >= SAVE_SECONDS:
            self._save(self.folder, seconds)

    def end(self) -> float:
        """Saves what has come to its end: it is ``over`` from now on. Returns the seconds that it took."""
        if not self.over:
            self.over, seconds = True, self.seconds
            if self.folder is not None:
                self._save(self.folder, seconds)
            self._saved_at = seconds
        return self._saved_at

    def _save(self, folder: Path, seconds: float) -> None:
        """The notes first, for a step that nobody reads of yet; where the step is saved already, they alone."""
        step = self.state.step
        Work(folder).keep(f"notes-{step}.json", {"seconds": seconds, "over": self.over, "notes": self.notes})
        if step != self._saved_step:
            checkpoint.save(folder, self.state, keep=1)
        for old in folder.glob("notes-*.json"):
            if old.stem != f"notes-{step}":
                old.unlink()
        self._saved_at, self._saved_step, self._began = seconds, step, time.process_time() - seconds


def trained(
    corpus: Corpus, settings: Settings, seconds: float, batches: Callable[[Settings], BatchOf], work: Work = NOWHERE
) -> tuple[State, float]:
    """A network after ``settings.steps``, or as many as fit into so many processor seconds; and how many it took."""
    if not settings.steps:
        key = {"settings": asdict(settings), "seconds": seconds}
        least = int(seconds > 0)
        found = work.part(
            "steps", key, lambda _: {"steps": max(least, round(seconds / pace(corpus, settings, batches)))}
        )
        settings = replace(settings, steps=found["steps"])
    state = runs.fresh(corpus, settings)
    training = Training(work, state)
    for _ in train(state, settings, batches(settings)):
        training.save()
    return state, training.end()


def pace(corpus: Corpus, settings: Settings, batches: Callable[[Settings], BatchOf]) -> float:
    """Processor seconds a step, the median of a few whose weights are thrown away."""
    batch_of, settings, times = batches(settings), replace(settings, steps=10**9), []
    state = runs.fresh(corpus, settings)
    for number in range(PROBED):
        began = time.process_time()
        step(state, settings, *batch_of(number))
        times.append(time.process_time() - began)
    return median(times)


def digest(*data: bytes) -> str:
    """What tells data apart from other data."""
    return hashlib.sha256(b"".join(hashlib.sha256(part).digest() for part in data)).hexdigest()


def add_option(parser: ArgumentParser) -> None:
    """``--work``."""
    parser.add_argument("--work", type=Path, metavar="FOLDER", help="kept: the same command again goes on from there")


@contextmanager
def working(folder: Path | None) -> Iterator[Work]:
    """In the folder that ``--work`` names, or in a temporary one."""
    if folder is not None:
        yield Work(folder)
        return
    with tempfile.TemporaryDirectory() as temporary:
        yield Work(Path(temporary))


def _say(what: str) -> None:
    print(what, file=sys.stderr, flush=True)
