"""Row b: very many very small records go in, durable."""

from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np

from aunn_data.corpus import Corpus
from aunn_data.geometry import Geometry
from aunn_data.record import Records
from benchmarks.data import made, small
from benchmarks.measure import PEERS, Figures, Row, answer, child, compare, stored, timed
from pipelines.ingest import BATCH_RECORDS

BATCH = BATCH_RECORDS  # as ``aunn-data ingest`` commits them
DIGIT = Geometry("|u1", ("y", "x"), (28, 28))


def rows(work: Path, count: int, rounds: int) -> list[Row]:
    """Digits and lines, against those who make training sets."""
    found = []
    for kind in ("digits", "lines"):
        source = made(kind, work, count)
        writers = {"litdata": "litdata_small", "mds": "mds_small", "webdataset": "webdataset_small"}
        peers = {name: partial(_peer, function, source) for name, function in writers.items()}
        ours_ = partial(_ours, source)
        found += compare(f"append {count:,} {kind}", work, rounds, ours_, peers, f"b {kind}")[1]
    return found


def ours(source: str, out: str) -> Figures:
    """Makes a corpus of the records of a file. Making the records is timed, as it is for the others."""
    records = small(source)
    with timed() as timer:
        fill(Corpus.create(Path(out)), records)
    return {"seconds": timer.seconds, "stored": stored(Path(out))}


def fill(
    corpus: Corpus, records: list[Any], number: int = 0, on_batch: Callable[[int], object] = lambda count: None
) -> None:
    """Appends small records, arrays of digits or bytes, batch by batch; their names count from ``number``."""
    for first in range(0, len(records), BATCH):
        batch = _columns(number + first, records[first : first + BATCH])
        corpus.append(batch, ["0" * 64] * len(batch))
        on_batch(len(batch))


def _columns(number: int, data: list[Any]) -> Records:
    numbers = range(number, number + len(data))
    if isinstance(data[0], np.ndarray):
        return Records([f"digits#{n:08d}" for n in numbers], "digits", "image", "pnm", DIGIT, data)
    elements = [np.frombuffer(line, np.uint8) for line in data]
    geometries = [_bytes(len(line)) for line in data]
    return Records([f"lines#{n:08d}" for n in numbers], "lines", "text", "text", geometries, elements)


@cache
def _bytes(count: int) -> Geometry:
    return Geometry("|u1", ("byte",), (count,), "packed")


def _ours(source: Path, out: Path) -> Figures:
    return child("small", "ours", source, out)


def _peer(function: str, source: Path, out: Path) -> Figures:
    return child("peers", function, source, out, python=PEERS)


if __name__ == "__main__":
    answer(ours)
