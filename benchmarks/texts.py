"""A text in a corpus, most of it trained on, and networks that learn it from addresses alone.

Legend: N characters.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from aunn_data.corpus import Corpus
from aunn_data.registry import Holdout
from aunn_model.network import Network
from aunn_model.training import Settings, State, bits_per_byte, parameters
from benchmarks.resuming import NOWHERE, Work, digest, trained
from pipelines.batches import Batches
from pipelines.capacity import rounded
from pipelines.ingest import ingest
from pipelines.options import Options

SOURCE, NAME = "text/tinyshakespeare_input.txt", "text.txt"
LEARNED, CHOSEN = 0.85, 0.9  # where each ends, as shares of the text
SAMPLE = 1 << 16  # trained characters that are asked for

Pairs = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class Text:
    """A corpus with a text of which two parts are held out; its bytes_N (uint8), the address of the first, and how many
    are ``learned``."""

    corpus: Corpus
    start: int
    bytes_N: Tensor
    learned: int

    @property
    def tail(self) -> int:
        """The number of the first character of the tail."""
        return int(CHOSEN * len(self.bytes_N))

    def pairs(self, start: int, stop: int, every: int = 1) -> Pairs:
        """(N,) addresses and bytes of some characters."""
        numbers_N = torch.arange(start, min(stop, len(self.bytes_N)), every)
        return self.start + numbers_N, self.bytes_N[numbers_N]

    def known_and(self, start: int, length: int) -> Tensor:
        """What is trained on, and right behind it other characters."""
        return torch.cat([self.bytes_N[: self.learned], self.bytes_N[start : start + length]])

    @property
    def key(self) -> dict[str, Any]:
        """What tells it apart from other texts."""
        return {"text": digest(self.bytes_N.numpy().tobytes()), "learned": self.learned}


def ingested(folder: Path, text: bytes) -> Text:
    """The text in a corpus; what is for choosing and the tail are held out, so that nothing trains on them."""
    (folder / "things").mkdir()
    (folder / "things" / NAME).write_bytes(text)
    corpus = Corpus.create(folder / "corpus")
    ingest([folder / "things"], corpus, Options(layout="padded"))
    start = corpus.entries.named(NAME).payload_start
    bytes_N = torch.from_numpy(corpus.read(start, start + len(text)))
    made = Text(corpus, start, bytes_N, int(LEARNED * len(text)))
    corpus.add_holdouts(
        [
            Holdout("choosing", NAME, ((made.learned, made.tail),)),
            Holdout("tail", NAME, ((made.tail, len(text)),)),
        ]
    )
    return made


def learn(text: Text, settings: Settings, seconds: float, work: Work = NOWHERE) -> tuple[State, float]:
    """A network after so many processor seconds, or nearly, or ``settings.steps``; and how many they were."""
    span = np.array([[text.start, text.start + text.learned]])
    return trained(
        text.corpus, settings, seconds, lambda s: Batches(text.corpus, s, torch.device("cpu"), within=span), work
    )


def by_heart(text: Text, network: Network) -> tuple[float, float]:
    """Bits per character of what is trained on, and with weights."""
    known, weights = text.pairs(0, text.learned, -(-text.learned // SAMPLE)), 16 * parameters(network)
    return bits_per_byte(network, *known), bits_per_byte(rounded(network), *known) + weights / text.learned


def epochs(text: Text, settings: Settings, state: State) -> float:
    """How often a network has seen each character."""
    return state.step * settings.batch / settings.repeats / text.learned
