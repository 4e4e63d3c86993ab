"""A run's folder: what it was trained on and how, its checkpoints, its log.

``run.json`` (written once, before the first step), ``log.jsonl`` (a line of metrics a second), ``checkpoint-<step>/``.
"""

import dataclasses
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from aunn_data.corpus import Corpus
from aunn_data.errors import CorpusError, RequestError
from aunn_data.store import Folder
from aunn_model import checkpoint, distributed
from aunn_model.embedding import Digits, Embedding, Fields
from aunn_model.network import Network
from aunn_model.training import Settings, State, begin
from pipelines.fields import fields_of


@dataclass(frozen=True)
class Run:
    """What ``run.json`` says: the corpus and its version, the holdouts left out, the settings.

    ``fingerprint`` is that of the version's records ("" in runs of older releases): numbers of versions begin again
    when a registry is made again.
    """

    corpus: str
    version: int
    address_bits: int
    holdouts: tuple[tuple[str, str, str], ...]
    settings: Settings
    fingerprint: str = ""

    @classmethod
    def read(cls, folder: Path) -> "Run":
        """The run in a folder. RequestError if there is none, CorpusError if its file is damaged."""
        path = folder / "run.json"
        if not path.exists():
            raise RequestError(
                folder, expected="a run", found="no run.json there", remedy="`aunn-model train --out` makes one"
            )
        try:
            said = checkpoint.unsealed(path.read_text())
            settings = Settings(**said.pop("settings"))
            return cls(**{**said, "holdouts": tuple(map(tuple, said["holdouts"])), "settings": settings})
        except (ValueError, TypeError, KeyError) as error:
            raise CorpusError(
                path, expected="a run's description", found=str(error), remedy="restore it, or train again"
            ) from error

    def write(self, folder: Path) -> None:
        """Writes ``run.json`` whole or not at all."""
        Folder(folder).put("run.json", json.dumps(checkpoint.sealed(asdict(self)), indent=2).encode() + b"\n")

    def open_corpus(self, where: str | None = None) -> Corpus:
        """The corpus the run was trained on, at the version it was trained on; ``where`` if it has moved."""
        corpus = Corpus.open(where or self.corpus)
        if not self.fingerprint or corpus.entries.fingerprint != self.fingerprint:
            corpus = Corpus.open(corpus.name, self.version)
        if self.fingerprint not in ("", corpus.entries.fingerprint):
            raise RequestError(
                corpus.name,
                expected=f"the records of version {self.version} that the run was trained on",
                found="others",
                remedy="name the right corpus with --corpus",
            )
        if corpus.address_bits < self.address_bits:  # it may have been widened since: no byte moved
            raise RequestError(
                corpus.name,
                expected=f"the corpus of the run, with {self.address_bits} address bits or more",
                found=f"{corpus.address_bits}",
                remedy="name the right one with --corpus",
            )
        return corpus


def device() -> torch.device:
    """A GPU if torch sees one; of several, that of this process."""
    return torch.device(f"cuda:{distributed.local_rank()}" if torch.cuda.is_available() else "cpu")


def fresh(corpus: Corpus, settings: Settings, address_bits: int | None = None) -> State:
    """A network at step 0 that depends on the corpus' geometries, the settings and the seed alone.

    ``address_bits`` is the width the run was begun with, the corpus' own by default.
    """
    torch.manual_seed(settings.seed)
    network = Network(_embedding(corpus, settings, address_bits), settings.width, settings.layers, settings.trunk)
    if not distributed.shards(settings.shard):  # whose parts find their devices one layer after another
        network = network.to(device())
    return begin(network, settings)


def _embedding(corpus: Corpus, settings: Settings, address_bits: int | None) -> Embedding | Digits:
    if settings.features == "digits":
        return Digits()
    return Embedding(fields(corpus, settings, address_bits or corpus.address_bits), settings.codes)


def fields(corpus: Corpus, settings: Settings, address_bits: int, top: int | None = None) -> Fields:
    """How a network of these settings reads a corpus; ``top`` is where the addresses end that it learned."""
    coded = settings.codes > 0
    return fields_of(corpus, settings.octave_decay, address_bits, coded, settings.unit, top, settings.oblique)


def best(folder: Path) -> Path:
    """The checkpoint of a run that filled its checks best, or its newest. RequestError if there is none yet."""
    saved = checkpoint.best(folder)
    if saved is None:
        raise RequestError(folder, expected="a checkpoint", found="none yet", remedy="run `aunn-model train` again")
    return saved


def load(folder: Path, corpus: Corpus, run: Run, saved: Path | None = None) -> State:
    """A checkpoint of a run, by default its best."""
    state = fresh(corpus, run.settings, run.address_bits)
    restore(saved or best(folder), state)
    return state


def restore(path: Path, state: State) -> None:
    """Puts a checkpoint into a state; CorpusError if it is damaged."""
    try:
        checkpoint.load(path, state)
    except checkpoint.CheckpointError as error:
        raise CorpusError(
            path,
            expected="a checkpoint of this run",
            found=str(error),
            remedy="remove this checkpoint: the one before it, or a new training, takes its place",
        ) from error


def settings_of(table: dict[str, Any]) -> Settings:
    """Settings from a run.toml's keys, whose kinds are those of the defaults."""
    kinds: dict[str, Any] = {f.name: type(f.default) for f in dataclasses.fields(Settings)}
    return Settings(**{name: kinds[name](value) for name, value in table.items()})
