"""What a run was told since: ``RUN/conditions/NAME/{change.json, change-….safetensors}``, and the run with these on it.

change.json names the file of the change and its SHA-256: when it is replaced, at once, so is the snapshot.

A snapshot is relative to one checkpoint, and to the snapshots that it was told on top of; the run's own weights are
never touched. Snapshots that were told apart from each other may be stacked: their changes add up.
"""

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load as tensors_of
from safetensors.torch import save as bytes_of

from aunn_data.corpus import Corpus
from aunn_data.errors import ConflictError, CorpusError, RequestError
from aunn_data.store import TEMPORARY, Folder
from aunn_model import checkpoint, conditioning
from aunn_model.conditioning import Change
from aunn_model.embedding import Embedding
from aunn_model.network import Network
from pipelines import runs
from pipelines.fields import end_of
from pipelines.holes import Check, Holdouts, checks_of
from pipelines.runs import Run

CONDITIONS = "conditions"

Span = tuple[int, int]


@dataclass(frozen=True)
class Snapshot:
    """What ``change.json`` says of a telling.

    ``spans`` are the addresses told; ``checkpoint`` and ``on`` the weights it changes: a checkpoint with the changes of
    other snapshots, by name, each with the SHA-256 of its change. ``version`` and ``fingerprint`` are those of the
    corpus with the records told, ``holdouts`` what was left out of these. ``figures``: bits per byte of what was told,
    and of what was known, before and after. ``files``: the change's file and its SHA-256, once it is written.
    """

    name: str
    told: str
    spans: tuple[Span, ...]
    checkpoint: str
    on: dict[str, str]
    version: int
    fingerprint: str
    holdouts: Holdouts
    settings: dict[str, Any]
    figures: dict[str, float]
    files: dict[str, str] = field(default_factory=dict)

    @classmethod
    def read(cls, folder: Path, name: str) -> "Snapshot":
        """The snapshot of a run. RequestError if there is none of that name, CorpusError if it is damaged."""
        path = folder / CONDITIONS / name / "change.json"
        if not path.exists():
            known = ", ".join(names(folder)) or "there are none"
            raise RequestError(
                name, expected=f"a snapshot: {known}", found="no such", remedy=f"`aunn-model condition {folder} --as`"
            )
        try:
            said = checkpoint.unsealed(path.read_text())
            for key in ("spans", "holdouts"):
                said[key] = tuple(map(tuple, said[key]))
            return cls(**{**said, "on": dict(said["on"])})
        except (ValueError, TypeError, KeyError) as error:
            raise _damaged(path, error) from error

    def write(self, folder: Path, change: Change) -> "Snapshot":
        """Writes the snapshot, with its ``files``. One of that name is replaced: at any moment a reader, or one that
        comes after a kill, finds the old one whole or the new one."""
        data = bytes_of({name: moved.cpu().contiguous() for name, moved in change.items()})
        digest = hashlib.sha256(data).hexdigest()
        file, home = f"change-{digest[:16]}.safetensors", folder / CONDITIONS / self.name
        store, written = Folder(home), replace(self, files={file: digest})
        store.put(file, data)
        store.put("change.json", json.dumps(checkpoint.sealed(asdict(written)), indent=2).encode() + b"\n")
        left = [*home.glob("change*.safetensors"), *home.glob(f"{TEMPORARY}*")]  # by the old one, and by the killed
        store.delete([path.name for path in left if path.name != file])
        return written

    @property
    def digest(self) -> str:
        """The SHA-256 of its change."""
        return next(iter(self.files.values()), "")

    def change(self, folder: Path) -> Change:
        """What it moves weights by. CorpusError if it is damaged, ConflictError if another has taken its place."""
        path = folder / CONDITIONS / self.name / next(iter(self.files), "")
        try:
            return dict(tensors_of(checkpoint.checked(path, {"files": self.files})))
        except (OSError, ValueError, KeyError, SafetensorError) as error:
            if Snapshot.read(folder, self.name).files != self.files:
                raise ConflictError(
                    path, expected="the snapshot", found="one told since", remedy="the same command again takes that"
                ) from error
            raise _damaged(path, error) from error


def names(folder: Path) -> list[str]:
    """The snapshots of a run, by name."""
    return sorted(path.parent.name for path in (folder / CONDITIONS).glob("[!.]*/change.json"))


def checked_name(name: str) -> str:
    """A name that a folder can have. RequestError if it is none."""
    if not re.fullmatch(r"\w[\w.-]{0,63}", name):
        raise RequestError(name, expected="letters, digits, - _ .", found="others", remedy="choose another name")
    return name


@dataclass(frozen=True)
class Opened:
    """A run with snapshots on it, ready to be asked.

    ``checkpoint`` and ``on`` are whose weights these are; ``end`` is the first address after all that is known, and
    ``learned`` after all that the run was trained on.
    """

    run: Run
    corpus: Corpus
    network: Network
    checks: list[Check]
    checkpoint: Path
    on: dict[str, str]
    end: int
    learned: int


def opened(folder: Path, names: Sequence[str] = (), where: str | None = None) -> Opened:
    """A run, the corpus that it knows of, ``where`` if it has moved, and its network with the changes of snapshots."""
    run, stack = Run.read(folder), _stack(folder, names)
    corpus, saved = run.open_corpus(where), _checkpoint(folder, stack)
    network = runs.load(folder, corpus, run, saved).best
    checks = checks_of(corpus, run.holdouts, run.settings.checks, run.settings.seed)
    learned = end_of(corpus)
    on = {snapshot.name: snapshot.digest for snapshot in stack}
    known = Opened(run, corpus, network, checks, saved, on, learned, learned)
    for snapshot in stack:
        newer = Corpus.open(corpus.name, snapshot.version)
        known = knowing(known, newer, snapshot.fingerprint, snapshot.holdouts, snapshot.spans)
        known = replace(known, end=max(known.end, *(stop for _, stop in snapshot.spans)))
        conditioning.apply(network, snapshot.change(folder))
    return known


def knowing(known: Opened, newer: Corpus, fingerprint: str, holdouts: Holdouts, told: Sequence[Span]) -> Opened:
    """A run as one of a newer version of its corpus, with the holdouts and checks of the records in the spans told.

    The network reads these records' addresses as they were handed out, and all others as before.
    """
    if fingerprint != newer.entries.fingerprint:
        raise RequestError(
            newer.name, expected=f"the records of version {newer.version}", found="others", remedy="restore the corpus"
        )
    settings, more = known.run.settings, tuple(held for held in holdouts if held not in known.run.holdouts)
    checks = [
        check
        for check in checks_of(newer, (*known.run.holdouts, *more), settings.checks, settings.seed)
        if any(start <= check.entry.payload_start < stop for start, stop in told)
    ]
    checks = [check for check in known.checks if check.entry not in [new.entry for new in checks]] + checks
    if newer.version <= known.corpus.version:
        return replace(known, run=replace(known.run, holdouts=known.run.holdouts + more), checks=checks)
    run = replace(known.run, version=newer.version, fingerprint=fingerprint, holdouts=known.run.holdouts + more)
    if isinstance(known.network.embedding, Embedding):
        known.network.embedding.read(runs.fields(newer, settings, run.address_bits, known.learned))
    return replace(known, run=run, corpus=newer, checks=checks, end=max(known.end, end_of(newer)))


def _stack(folder: Path, names: Sequence[str]) -> list[Snapshot]:
    """Snapshots after those that they were told on top of. RequestError if they are of several checkpoints, or if
    one below was told again since."""
    stack: dict[str, Snapshot] = {}
    for name in names:
        snapshot = Snapshot.read(folder, name)
        stack |= {below.name: below for below in _stack(folder, tuple(snapshot.on))} | {name: snapshot}
        if again := [below for below, digest in snapshot.on.items() if stack[below].digest != digest]:
            raise RequestError(
                name,
                expected=f"{', '.join(again)} as it was when {name} was told on top of it",
                found="told again since",
                remedy=f"tell {name} again",
            )
    if len(bases := sorted({snapshot.checkpoint for snapshot in stack.values()})) > 1:
        raise RequestError(
            ", ".join(stack), expected="snapshots of one checkpoint", found=", ".join(bases), remedy="tell one again"
        )
    return list(stack.values())


def _checkpoint(folder: Path, stack: Sequence[Snapshot]) -> Path:
    """The checkpoint that a stack changes; the run's best for none. RequestError if it is no longer there."""
    if not stack:
        return runs.best(folder)
    path = folder / stack[0].checkpoint
    if not path.exists():
        raise RequestError(
            path, expected="the weights that were told", found="gone, the run has gone on", remedy="tell it again"
        )
    return path


def _damaged(path: Path, error: Exception) -> CorpusError:
    return CorpusError(path, expected="a snapshot", found=str(error), remedy="remove it, and tell the run again")
