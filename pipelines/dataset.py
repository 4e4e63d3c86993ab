"""A corpus as a torch IterableDataset, for training loops of one's own.

    dataset = CorpusDataset("corpus", seed=0, batch=8192)  # in memory; memory=2**30 streams within a gibibyte
    for addresses_B, bytes_B in DataLoader(dataset, batch_size=None): ...

Every batch is drawn once, in the order of the steps, whatever the number of workers: worker w of W draws the steps w,
w + W, …. Each worker holds, or streams, the whole corpus, so one is enough: a stream reads ahead by itself. Workers are
to be spawned (``multiprocessing_context="spawn"``), as the threads that read a corpus do not survive a fork.
"""

import hashlib
from collections.abc import Iterator
from itertools import count, islice
from multiprocessing import current_process
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import IterableDataset, get_worker_info

from aunn_data.corpus import Corpus
from aunn_data.errors import RequestError
from aunn_data.sampling import Sampler, trainable
from aunn_data.spans import Spans
from aunn_data.streaming import STRIP, Batch, Stream


class CorpusDataset(IterableDataset[tuple[Tensor, Tensor]]):
    """Yields (addresses_B int64, bytes_B uint8) from the step it stands at on, without end.

    ``memory`` in bytes makes it a block-shuffled stream with strips of ``strip``; None has all bytes in memory and
    shuffles exactly (``aunn_data.sampling`` says what each means). ``version`` is the corpus', the newest by default.
    Of each global batch a rank gets one of ``world_size`` equal parts; torch.distributed is asked if neither is given.
    """

    def __init__(
        self,
        corpus: str | Path,
        *,
        seed: int,
        batch: int,
        memory: int | None = None,
        strip: int = STRIP,
        version: int | None = None,
        rank: int | None = None,
        world_size: int | None = None,
    ):
        opened = Corpus.open(corpus, version)
        self.corpus, self.rank, self.world_size = opened.name, *_part(rank, world_size)
        if batch % self.world_size:
            raise RequestError(
                "batch",
                expected=f"a multiple of the {self.world_size} ranks",
                found=str(batch),
                remedy="give every rank a part of the same size",
            )
        self.step = 0
        self.law: dict[str, Any] = {
            "version": opened.version,
            "seed": seed,
            "batch": batch,
            "memory": memory,
            "strip": strip,
            "trainable": _digest(trainable(opened)),
        }

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        worker = get_worker_info()
        number, workers = (worker.id, worker.num_workers) if worker else (0, 1)
        part = self.law["batch"] // self.world_size
        mine = slice(self.rank * part, (self.rank + 1) * part)
        for addresses_B, bytes_B in self._batches(self.step + number, workers):
            self.step += workers  # before it is out of hand: a state taken while it is used begins with the next
            yield torch.from_numpy(addresses_B[mine]), torch.from_numpy(bytes_B[mine])

    def state_dict(self, step: int | None = None) -> dict[str, Any]:
        """The next step, and what the batches depend on.

        Spawned workers advance copies of their own; so with a plain DataLoader count the steps and give the next one.
        """
        return {"step": self.step if step is None else step, **self.law}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Goes on from a state. RequestError if it is that of other batches."""
        theirs = {name: value for name, value in state.items() if name != "step"}
        differing = [name for name in {**self.law, **theirs} if self.law.get(name) != theirs.get(name)]
        if differing or not isinstance(state.get("step"), int):
            raise RequestError(
                self.corpus,
                expected="the state of a dataset that draws the same batches",
                found=f"another {', another '.join(differing or ['step'])}",
                remedy="make the dataset as it was made when the state was taken",
            )
        self.step = state["step"]

    def _batches(self, start: int, workers: int) -> Iterator[Batch]:
        """The batches of the steps start, start + workers, …."""
        if type(current_process()).__name__ == "ForkProcess":
            raise RequestError(
                "DataLoader", expected="spawned workers", found="a fork", remedy='give multiprocessing_context="spawn"'
            )
        law = self.law
        corpus = Corpus.open(self.corpus, law["version"])
        spans_S = trainable(corpus)
        if _digest(spans_S) != law["trainable"]:
            raise RequestError(
                self.corpus, expected="the holdouts of before", found="others", remedy="make the dataset again"
            )
        if law["memory"] is not None:
            stream = Stream(
                corpus, law["seed"], memory=law["memory"], batch=law["batch"], strip=law["strip"], start=start
            )
            yield from islice(stream, 0, None, workers)
            return
        sampler, bytes_N = Sampler(spans_S, law["seed"]), corpus.gather(spans_S)
        for step in count(start, workers):
            ranks_B = sampler.ranks(step, law["batch"])
            yield sampler.addresses(ranks_B), bytes_N[ranks_B]


def _part(rank: int | None, world_size: int | None) -> tuple[int, int]:
    """(rank, world_size) as given, as torch.distributed has them, or (0, 1)."""
    if rank is None and world_size is None:
        distributed = torch.distributed
        if distributed.is_available() and distributed.is_initialized():
            return distributed.get_rank(), distributed.get_world_size()
        return 0, 1
    if rank is None or world_size is None or not 0 <= rank < world_size:
        raise RequestError(
            "rank",
            expected="a rank below world_size, or neither",
            found=f"rank={rank}, world_size={world_size}",
            remedy="give both",
        )
    return rank, world_size


def _digest(spans_S: Spans) -> str:
    """Names a set of addresses. RequestError if it is empty."""
    if not len(spans_S):
        raise RequestError(
            "corpus", expected="bytes to train on", found="none", remedy="ingest something that is not held out"
        )
    return hashlib.sha256(spans_S.astype("<i8").tobytes()).hexdigest()
