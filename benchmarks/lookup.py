"""Rows e and f: which record holds an address, and opening a corpus, with as many records as one may ever have."""

from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from aunn_data.corpus import Corpus
from aunn_data.documents import FORMAT_VERSION
from benchmarks.measure import PEERS, Figures, Row, answer, child, compare, timed
from benchmarks.small import BATCH, fill

ADDRESSES, REPEATS = 1_000_000, 5


def many(work: Path, count: int) -> Path:
    """A corpus of ``count`` short texts, committed batch by batch as an ingest does; made if it is not there."""
    path = work / f"records-{count}-v{FORMAT_VERSION}"
    if not path.exists():
        building = work / "records-building"
        child("lookup", "make", building, count)
        building.rename(path)
    return path


def lookup_rows(work: Path, count: int, rounds: int) -> list[Row]:
    """Addresses of all records, against a database's joins on ranges over the registry's own Parquet files."""
    corpus, addresses = many(work, count), work / "addresses.npy"
    child("lookup", "addresses", corpus, addresses)
    title = f"{ADDRESSES:,} addresses to {count:,} records"
    peers = {f"duckdb {join}": partial(_join, corpus, addresses, join) for join in ("asof", "between")}
    return compare(title, work, rounds, partial(_lookup, corpus, addresses), peers, "e")[1]


def open_rows(work: Path, count: int, rounds: int) -> list[Row]:
    """Opening alone, then one address, then one name. Nobody does the same, so there are only limits."""
    corpus, found = many(work, count), []
    for what in ("open", "open, one address", "open, one name"):
        title = f"{what}, {count:,} records"
        figures, _ = compare(title, work, rounds, partial(_open, corpus, what), {}, "f")
        found.append(Row(title, "", figures.get("seconds"), None, "f", our_peak=figures.get("peak_bytes")))
    return found


def make(folder: str, count: int) -> Figures:
    """The corpus of ``many``."""
    with timed() as timer:
        corpus = Corpus.create(Path(folder))
        with tqdm(total=count, desc="records", disable=None) as bar:
            fill(corpus, [b"text %08d\n" % number for number in range(count)], on_batch=bar.update)
    return {"seconds": timer.seconds}


def addresses(folder: str, file: str) -> Figures:
    """Random addresses below the last record's end."""
    with timed() as timer:
        np.save(file, _addresses(Corpus.open(Path(folder))))
    return {"seconds": timer.seconds}


def lookup(folder: str, file: str) -> Figures:
    """The number of the record of each address, the corpus open already."""
    corpus, addresses_B = Corpus.open(Path(folder)), np.load(file, allow_pickle=False)
    seconds = []
    for _ in range(REPEATS):
        with timed() as timer:
            numbers_B = corpus.entries.numbers_at(addresses_B)
        seconds.append(timer.seconds)
    return {"seconds": float(np.median(seconds)), "sum": int(numbers_B[numbers_B >= 0].sum())}


def opening(folder: str, what: str) -> Figures:
    """Opens and asks for one record in the middle."""
    with timed() as timer:
        corpus = Corpus.open(Path(folder))
        count = len(corpus.entries)
        if what == "open, one address":
            corpus.entries.at(BATCH)
        elif what == "open, one name":
            corpus.entries.named(f"lines#{count // 2:08d}")
    return {"seconds": timer.seconds}


def _addresses(corpus: Corpus) -> npt.NDArray[np.int64]:
    last = corpus.entries[len(corpus.entries) - 1].stop
    return np.random.default_rng(0).integers(0, last, ADDRESSES)


def _lookup(corpus: Path, file: Path, out: Path) -> Figures:
    return child("lookup", "lookup", corpus, file)


def _join(corpus: Path, file: Path, join: str, out: Path) -> Figures:
    return child("peers", "duckdb", corpus / "registry/records", file, join, python=PEERS)


def _open(corpus: Path, what: str, out: Path) -> Figures:
    return child("lookup", "opening", corpus, what)


if __name__ == "__main__":
    answer(make, addresses, lookup, opening)
