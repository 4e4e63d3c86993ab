"""Rows c and d: bytes at random addresses of a corpus in memory; a shuffled epoch of one that memory does not hold."""

from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt

from aunn_data import spans
from aunn_data.corpus import Corpus
from aunn_data.documents import FORMAT_VERSION
from aunn_data.orders import RankTable
from aunn_data.resident import Resident
from aunn_data.sampling import covering, trainable
from aunn_data.streaming import Stream
from benchmarks.data import made, small
from benchmarks.measure import PEERS, Figures, Row, answer, child, compare, timed, warm
from benchmarks.small import fill
from pipelines.ingest import ingest

ADDRESSES, REPEATS = 1_000_000, 5
BATCH = 8192
SAMPLE = 1 << 16  # bytes of a peer's sample; ours are strips of ``streaming.STRIP`` bytes, shuffled within a window


# ---- c: in memory ----------------------------------------------------------------------------------------------------


def gather_rows(work: Path, gib: float, rounds: int) -> list[Row]:
    """A corpus of one volume, one span of addresses; and one of digits, where each row of each digit is a span."""
    found = []
    for name, source in (("a volume", made("volume", work, gib)), ("digits", made("digits", work, 100_000))):
        corpus = _corpus_of(source, work)
        child("sampling", "plain", corpus, work / "plain", work / "places.npy")
        warm(work / "plain")
        title = f"bytes at {ADDRESSES:,} random addresses of {name}"
        peer = partial(_memmap, work / "plain", work / "places.npy")
        found += compare(title, work, rounds, partial(_gather, corpus), {"np.memmap": peer}, f"c {name}")[1]
    return found


def gather(folder: str) -> Figures:
    """Address -> byte, where all trainable bytes lie in memory by address."""
    corpus = Corpus.open(Path(folder))
    table = RankTable(trainable(corpus))
    resident, addresses_B = Resident(corpus, table.spans), table.addresses(_ranks(table.size))
    seconds = []
    for _ in range(REPEATS):
        with timed() as timer:
            found = resident.gather(addresses_B)
        seconds.append(timer.seconds)
    return {"seconds": float(np.median(seconds)), "sum": int(found.sum(dtype=np.int64))}


def plain(folder: str, file: str, places: str) -> Figures:
    """The bytes that ``gather`` holds as a plain file, and the places of the same random addresses in it."""
    corpus = Corpus.open(Path(folder))
    spans_S = trainable(corpus)
    with timed() as timer:
        corpus.gather(spans_S).tofile(file)
        np.save(places, _ranks(spans.size(spans_S)))
    return {"seconds": timer.seconds}


def _ranks(size: int) -> npt.NDArray[np.int64]:
    return np.random.default_rng(0).integers(0, size, ADDRESSES)


def _gather(corpus: Path, out: Path) -> Figures:
    return child("sampling", "gather", corpus)


def _memmap(file: Path, places: Path, out: Path) -> Figures:
    return child("peers", "memmap", file, places, python=PEERS)


# ---- d: from disk ----------------------------------------------------------------------------------------------------


def epoch_rows(work: Path, gib: float, rounds: int) -> list[Row]:
    """One epoch, shuffled, with a quarter of the corpus as memory, against the shards in order and the peers."""
    source = made("volume", work, gib)
    corpus, sets = _corpus_of(source, work), {name: work / f"{source.stem}-{name}" for name in ("litdata", "mds")}
    for name, folder in sets.items():
        if not folder.exists():
            child("peers", f"{name}_samples", source, folder, SAMPLE, python=PEERS)
    return compare(
        f"a shuffled epoch of {gib:g} GiB in {gib * 256:g} MiB",
        work,
        rounds,
        lambda out: child("sampling", "epoch", corpus, round(gib * 2**28)),
        {
            "shards in order": lambda out: child("sampling", "in_order", corpus),
            **{
                f"{name}, {workers} workers": partial(_epoch, name, folder, workers)
                for name, folder in sets.items()
                for workers in (0, 2)
            },
        },
        "d",
    )[1]


def epoch(folder: str, memory: int) -> Figures:
    """As many bytes as an epoch has, in ``Stream``'s block-shuffled order; opening the corpus is not timed."""
    corpus = Corpus.open(Path(folder))
    left = spans.size(trainable(corpus))
    with timed() as timer:
        for addresses_B, _ in Stream(corpus, 0, memory=memory, batch=BATCH):
            left -= len(addresses_B)
            if left <= 0:
                break
    return {"seconds": timer.seconds}


def in_order(folder: str) -> Figures:
    """Shard after shard decoded into nothing; only those that hold something: the gaps of padding would flatter us."""
    corpus = Corpus.open(Path(folder))
    shards_S = covering(trainable(corpus), corpus.shard)
    with timed() as timer:
        for first, stop in shards_S.tolist():
            for start in range(first, stop, corpus.shard):
                corpus.read(start, start + corpus.shard)
    return {"seconds": timer.seconds, "addresses": spans.size(shards_S)}


def make(source: str, folder: str) -> Figures:
    """A corpus of a file: a volume, or digits one by one."""
    with timed() as timer:
        corpus = Corpus.create(Path(folder))
        if "digits" in source:
            fill(corpus, small(source))
        else:
            ingest([Path(source)], corpus)
    return {"seconds": timer.seconds}


def _corpus_of(source: Path, work: Path) -> Path:
    folder = work / f"{source.stem}-v{FORMAT_VERSION}"
    if not folder.exists():
        child("sampling", "make", source, work / "corpus-building")
        (work / "corpus-building").rename(folder)
    return folder


def _epoch(name: str, folder: Path, workers: int, out: Path) -> Figures:
    return child("peers", f"{name}_epoch", folder, out, workers, python=PEERS)


if __name__ == "__main__":
    answer(gather, plain, epoch, in_order, make)
