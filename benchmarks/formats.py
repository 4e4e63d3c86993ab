"""Every file of a folder: what goes in and what is refused, whether it comes back the same, how fast it is read.

    python -m benchmarks.formats FOLDER [--work DIR] [--json]

Each file is ingested, exported, and what was exported is ingested into a second corpus: *differences* are records whose
elements, marks or geometry are not the same there. *Read* is the rate of our readers alone, up to the last element in
memory, in bytes of the files; *library* is what a bare library takes to decode the same files, in the same run, turn
and turn about, the best of several rounds each. *Ratio* is the one by the other, *CPU ratio* the same in processor
seconds, which others on the machine disturb less. *Ingest* is the whole way onto the disk, one commit for all files of
the format. Exit code 1 if there is a difference.
"""

import argparse
import json
import shutil
import sys
import time
import warnings
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image
from tqdm import tqdm

from aunn_data.corpus import Corpus
from aunn_data.entries import Entry
from aunn_data.errors import InputError
from aunn_data.record import Records, Strips
from benchmarks.libraries import LIBRARIES, touch
from pipelines import formats
from pipelines.cli.common import table
from pipelines.export import export
from pipelines.ingest import ingest
from pipelines.parallel import Workers
from pipelines.records import leaves, records_of
from pipelines.source import Source
from pipelines.walk import walk

ROUNDS, MOST_ROUNDS = 3, 50  # the more the less they take: little files are read before a busy machine looks elsewhere
ROUNDS_SECONDS = 1.0


class Seconds(NamedTuple):
    """What a round took, by the clock and of the processor."""

    wall: float
    cpu: float


@dataclass
class Row:
    """One format: sources, records, refusals, records that came back different, seconds of reading all its sources."""

    format: str
    sources: list[Source] = field(default_factory=list)
    records: int = 0
    refused: int = 0
    differences: int = 0
    bytes: int = 0
    read: Seconds | None = None
    library: Seconds | None = None
    ingest: Seconds | None = None


def main() -> int:
    """The exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--work", type=Path, default=Path("bench/formats"))
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    shutil.rmtree(asked.work, ignore_errors=True)
    asked.work.mkdir(parents=True)
    rows: dict[str, Row] = defaultdict(lambda: Row(""))
    corpus = Corpus.create(asked.work / "corpus", 45)
    report = ingest([asked.folder], corpus, workers=Workers())
    differing = _differences(corpus, asked.work)
    of_source: dict[str, str] = {}
    for entry in corpus.entries:
        row = rows[entry.format]
        row.format = entry.format
        row.records += 1
        row.differences += entry.record in differing
        of_source[entry.source] = entry.format
    refused = [(str(path), str(error)) for path, error in report.refused]
    _sources(asked.folder, corpus, of_source, rows, [path for path, _ in refused])
    for row in tqdm(sorted(rows.values(), key=lambda row: row.format), file=sys.stderr, unit="format"):
        _timed(row, asked.work)
    _print(rows, refused, differing, asked.json)
    return 1 if differing else 0


def _differences(corpus: Corpus, work: Path) -> dict[str, str]:
    """Record -> what is not the same once it was exported and ingested again."""
    done = export(corpus, list(corpus.entries), work / "export")
    found = {source: f"not exported: {error}" for source, error in done.refused}
    again = Corpus.create(work / "again", 45)
    ingest([work / "export"], again, workers=Workers())
    by_source: dict[str, list[Entry]] = defaultdict(list)
    for entry in again.entries:
        by_source[entry.source.replace("::", "/")].append(entry)
    before: dict[str, list[Entry]] = defaultdict(list)
    for entry, path in done.files:
        before[path.relative_to(work / "export").as_posix()].append(entry)
    for name, entries in before.items():
        others = by_source.get(name, [])
        if len(others) != len(entries):
            found.update({e.record: f"{len(others)} records of {len(entries)} in {name}" for e in entries})
            continue
        for old, new in zip(entries, others, strict=True):
            if said := _unlike(old, new):
                found[old.record] = said
    return found


def _unlike(old: Entry, new: Entry) -> str:
    """What two records differ in."""
    names = ("sha256", "shape", "axes", "dtype", "missing_bytes", "geometry")
    return ", ".join(name for name in names if getattr(old, name) != getattr(new, name))


def _sources(folder: Path, corpus: Corpus, of_source: dict[str, str], rows: dict[str, Row], refused: list[str]) -> None:
    for given in walk([folder], corpus.name):
        for leaf in leaves(given) if isinstance(given, Source) else ():
            if isinstance(leaf, InputError):
                continue
            name = of_source.get(leaf.name) or _module_of(leaf)
            row = rows[name]
            row.format = name
            row.sources.append(leaf)
            row.bytes += leaf.size()
            row.refused += refused.count(leaf.label)


def _module_of(source: Source) -> str:
    """The format that a source without records would have had; of a module's several the one its suffix stands for."""
    try:
        named = formats.recognise(source).FORMATS
    except InputError:
        return "none"
    by_suffix = Image.registered_extensions().get(source.inner.suffix.lower(), "").lower()
    return by_suffix if by_suffix in named else named[0]


def _timed(row: Row, work: Path) -> None:
    good = [source for source in row.sources if row.format != "none"]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        bare, end = LIBRARIES.get(row.format), time.perf_counter() + ROUNDS_SECONDS
        ours, theirs = list[Seconds](), list[Seconds]()
        while len(ours) < ROUNDS or (time.perf_counter() < end and len(ours) < MOST_ROUNDS):
            ours.append(_seconds(_read_all, good))
            if bare:
                theirs.append(_seconds(partial(_decode_all, bare), good))
        row.read = _best(ours)
        row.library = _best(theirs) if bare else None
    shutil.rmtree(work / "one", ignore_errors=True)
    corpus = Corpus.create(work / "one", 45)
    row.ingest = _seconds(lambda sources: ingest([s.path for s in sources if s.depth == 0], corpus), good)


def _seconds(work: Callable[[list[Source]], object], sources: list[Source]) -> Seconds:
    start = Seconds(time.perf_counter(), time.process_time())
    work(sources)
    return Seconds(time.perf_counter() - start.wall, time.process_time() - start.cpu)


def _best(rounds: list[Seconds]) -> Seconds:
    return Seconds(min(found.wall for found in rounds), min(found.cpu for found in rounds))


def _read_all(sources: list[Source]) -> None:
    for source in sources:
        fresh = Source(source.path, source.name, source.options, source.files, format=source.format)
        try:
            for record in records_of(fresh):
                if isinstance(record, Records):
                    _touch_each(record.elements)
                elif not isinstance(record, InputError):
                    touch(record.elements)
        except InputError:
            pass


def _touch_each(elements: Sequence[Any]) -> None:
    """The elements of many records: one array of all, strips of one, or one array each."""
    if isinstance(elements, np.ndarray | Strips):
        touch(elements.flat if isinstance(elements, Strips) else elements)
        return
    for one in elements:
        touch(one)


def _decode_all(decode: Callable[[Source], object], sources: list[Source]) -> None:
    for source in sources:
        with suppress(Exception):  # a file that the library does not read costs it what it took to find out
            decode(source)


# ---- the table -----------------------------------------------------------------------------------------------------


def _rate(row: Row, seconds: Seconds | None) -> float | None:
    return round(row.bytes / seconds.wall / 1e6, 2) if seconds and row.bytes else None


COLUMNS = (
    *("format", "files", "records", "refused", "differences", "MB"),
    *("read MB/s", "library MB/s", "ratio", "CPU ratio", "ingest MB/s"),
)


def _line(row: Row) -> list[Any]:
    ratios: list[float | None] = [None, None]
    if row.library and row.read:
        ratios = [round(theirs / ours, 2) for theirs, ours in zip(row.library, row.read, strict=True)]
    rates = [_rate(row, row.read), _rate(row, row.library), *ratios, _rate(row, row.ingest)]
    size = round(row.bytes / 1e6, 2)
    return [row.format, len(row.sources), row.records, row.refused, row.differences, size, *rates]


def _print(rows: dict[str, Row], refused: Iterable[tuple[str, str]], differing: dict[str, str], as_json: bool) -> None:
    lines = [_line(row) for row in sorted(rows.values(), key=lambda row: row.format)]
    if as_json:
        named = [dict(zip(COLUMNS, line, strict=True)) for line in lines]
        print(json.dumps({"formats": named, "refused": list(refused), "differences": differing}, indent=2))
        return
    print(table(COLUMNS, [["–" if cell is None else cell for cell in line] for line in lines]))
    for path, error in refused:
        print(f"refused  {error}" if error.startswith(path) else f"refused  {path}: {error}")
    for record, said in differing.items():
        print(f"DIFFERENT  {record}: {said}")


if __name__ == "__main__":
    sys.exit(main())
