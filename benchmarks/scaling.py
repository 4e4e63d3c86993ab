"""Row g: does anything cost more a byte, or more a record, the more there is?

* *full*: volumes of 2^20 to 2^30 bytes at as many addresses;
* *sparse*: volumes whose axes of 2^n + 1 are padded to 2^(n+1), so that one address in ten or twenty is a byte, at 2^21
  to 2^33 addresses;
* *records*: 10^3 to 10^6 short texts.

Every figure is divided by what it grows with; one that more than doubles from some size to another ten times as big or
more is marked: a straight line is the most that anything may cost.
"""

import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tqdm import tqdm

from aunn_data.corpus import Corpus
from aunn_data.sampling import Sampler, trainable
from aunn_data.verify import verify
from benchmarks.lookup import many
from benchmarks.measure import FailedError, Figures, answer, child, timed
from benchmarks.small import BATCH as SMALL_BATCH
from benchmarks.small import fill
from pipelines.ingest import ingest

FULL, SPARSE = range(20, 31, 2), range(21, 34, 3)  # address bits
SHORT = 28  # address bits up to which the best of three counts: the short ones are noisy
RECORDS = (1_000, 10_000, 100_000, 1_000_000)
STEPS, BATCH = 100, 8192
DECADE, MOST_GROWTH = 10, 2.0


@dataclass(frozen=True)
class Series:
    """One figure at all sizes: (size, seconds a unit), and whether it bends upward. ``error`` if a size gave none."""

    figure: str
    unit: str
    points: Sequence[tuple[int, float]]
    error: str = ""

    @property
    def bends(self) -> bool:
        """Does a unit cost more than twice what it did at a tenth of the size or less?"""
        return any(
            later > MOST_GROWTH * earlier
            for size, later in self.points
            for before, earlier in self.points
            if size >= DECADE * before
        )


def series(work: Path, most_records: int) -> list[Series]:
    """All figures at all sizes."""
    points = [("full", 1 << bits) for bits in FULL] + [("sparse", 1 << bits) for bits in SPARSE]
    points += [("records", count) for count in RECORDS if count <= most_records]
    found: dict[tuple[str, str], list[tuple[int, float]]] = {}
    failed = []
    for kind, size in tqdm(points, "scaling", leave=False, disable=None):
        try:
            for key, seconds in child("scaling", kind, many(work, size) if kind == "records" else work, size).items():
                if "/" in key:
                    figure, unit = key.split("/")
                    found.setdefault((f"{kind}: {figure}", unit), []).append((size, seconds))
        except FailedError as error:
            failed.append(Series(f"{kind}: {size}", "", [], str(error)))
    return [Series(figure, unit, sizes) for (figure, unit), sizes in found.items()] + failed


def full(work: str, size: int) -> Figures:
    """A volume of this many bytes, all of whose axes are powers of two: keys are figure/unit, values seconds a unit."""
    return _of_bytes(Path(work), size, (size >> 18, 512, 512))


def sparse(work: str, extent: int) -> Figures:
    """A volume that takes this many addresses, its fastest axis 2049 bytes long."""
    bits, more = divmod(extent.bit_length() - 1 - 12, 4)
    slower = [bits + (axis < more) for axis in range(4)]
    return _of_bytes(Path(work), extent, (*((1 << n - 1) + 1 for n in slower), (1 << 11) + 1))


def records(folder: str, count: int) -> Figures:
    """A corpus of this many records that is there already."""
    with timed() as opening:
        corpus = Corpus.open(Path(folder))
    addresses_B = np.random.default_rng(0).integers(0, corpus.entries[count - 1].stop, 1_000_000)
    with timed() as first:
        corpus.entries.numbers_at(addresses_B[:1])
    with timed() as lookup:
        corpus.entries.numbers_at(addresses_B)
    with timed() as name:
        corpus.entries.named(f"lines#{count - 1:08d}")
    with timed() as sampler:
        spans_S = trainable(corpus)
    with timed() as verifying:
        verify(corpus)
    with tempfile.TemporaryDirectory(dir=Path(folder).parent) as copy:
        grown = Corpus.open(shutil.copytree(folder, Path(copy) / "corpus"))
        fill(grown, [b"one more"] * SMALL_BATCH, count)
        with timed() as appending:  # the second batch: what an ingest pays again and again
            fill(grown, [b"one more"] * SMALL_BATCH, count + SMALL_BATCH)
    return {
        "append/new record": appending.seconds / SMALL_BATCH,
        "open/record": opening.seconds / count,
        "first lookup/record": first.seconds / count,
        "lookup/address": lookup.seconds / len(addresses_B),
        "first name/record": name.seconds / count,
        "trainable/record": sampler.seconds / count,
        "sample/address": _sample(Sampler(spans_S, 0)),
        "verify/record": verifying.seconds / count,
    }


def _of_bytes(work: Path, extent: int, shape: tuple[int, ...]) -> Figures:
    with tempfile.TemporaryDirectory(dir=work) as folder:
        source = Path(folder) / "volume.npy"
        elements = np.lib.format.open_memmap(source, "w+", np.uint8, shape)
        noise = np.random.default_rng(0).integers(0, 40, shape[1:], np.uint8)
        for z in range(shape[0]):
            elements[z] = noise + np.uint8(z % 256)
        rounds = 3 if extent <= 1 << SHORT else 1
        every = [_one_volume(source, Path(folder) / f"corpus{n}", elements.size) for n in range(rounds)]
        return {key: min(figures[key] for figures in every) for key in every[0]}


def _one_volume(source: Path, folder: Path, size: int) -> Figures:
    with timed() as ingesting:
        ingest([source], Corpus.create(folder))
    with timed() as opening:
        corpus = Corpus.open(folder)
    with timed() as verifying:
        faults = verify(corpus)
    if faults:
        raise SystemExit(str(faults[0]))
    with timed() as planning:
        spans_S = trainable(corpus)
    with timed() as gathering:
        corpus.gather(spans_S)
    sample = _sample(Sampler(spans_S, 0))
    shutil.rmtree(folder)
    return {
        "ingest/byte": ingesting.seconds / size,
        "open/corpus": opening.seconds,
        "verify/byte": verifying.seconds / size,
        "trainable/span": planning.seconds / len(spans_S),
        "gather/byte": gathering.seconds / size,
        "sample/address": sample,
    }


def _sample(sampler: Sampler) -> float:
    with timed() as timer:
        for step in range(STEPS):
            sampler.addresses(sampler.ranks(step, BATCH))
    return timer.seconds / (STEPS * BATCH)


if __name__ == "__main__":
    answer(full, sparse, records)
