"""Files and folders into a corpus: walk, recognise, read, commit in batches; nothing is skipped unreported."""

import gc
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path

from aunn_data.batch import Sha256, resolved
from aunn_data.corpus import Corpus
from aunn_data.documents import ADDRESS_BITS
from aunn_data.entries import Entry
from aunn_data.errors import ConflictError, InputError
from aunn_data.geometry import Geometry
from aunn_data.header import Header
from aunn_data.record import Record, Records
from aunn_data.store import store_at
from pipelines.asked import wishes
from pipelines.options import Options
from pipelines.parallel import ALONE, Read, Workers, read_all
from pipelines.records import Found
from pipelines.scans import zarr_arrays
from pipelines.source import Source
from pipelines.twins import Twins
from pipelines.walk import walk

BATCH_BYTES = 1 << 28  # a batch is committed once its elements take this much memory …
BATCH_RECORDS = 1 << 14  # … or it has this many records
ATTEMPTS = 10  # for one batch, where other writers ingest the same files
MANIFOLD = zarr_arrays.FORMATS  # a source may hold more records than the one of its name: labels beside an image
CHESS_FORMATS = {"boards": "pgn-boards", "pgn": "pgn"}  # payload of games -> a header's format


@dataclass
class Report:
    """What became of every source; ``planned`` is what a dry run would have ingested."""

    corpus: Corpus
    ingested: list[tuple[Path, Entry]] = field(default_factory=list)
    unchanged: list[tuple[Path, Entry]] = field(default_factory=list)
    refused: list[tuple[Path, InputError]] = field(default_factory=list)
    planned: list[tuple[Path, Header]] = field(default_factory=list)

    @property
    def bytes(self) -> int:
        """Payload bytes that went in."""
        return sum(entry.payload_bytes for _, entry in self.ingested)


@dataclass(frozen=True)
class Watch:
    """Who looks on: called with all source bytes that there are, each source that is read, source bytes done."""

    planned: Callable[[int], object] = lambda total: None
    reading: Callable[[Source], object] = lambda source: None
    done: Callable[[int], object] = lambda count: None


_Waiting = tuple[Source, Record | Records, Sha256]


def open_or_create(where: str | Path, address_bits: int | None) -> Corpus:
    """The corpus of a folder or URL, made if there is none, widened if more address bits are asked for than it has."""
    there = store_at(where).exists("zarr.json")
    corpus = Corpus.open(where) if there else Corpus.create(where, address_bits or ADDRESS_BITS)
    return corpus if address_bits in (None, corpus.address_bits) else corpus.widen(address_bits)


def ingest(
    paths: Sequence[Path],
    corpus: Corpus,
    options: Options | None = None,
    workers: Workers = ALONE,
    watch: Watch | None = None,
    dry_run: bool = False,
) -> Report:
    """Ingests files and folders. Bad ones land in the report; good ones beside them go in; known ones stay as they are.

    A dry run reads everything and writes nothing.
    """
    report, watch = Report(corpus), watch or Watch()
    batch = _Batch(report, watch, dry_run)
    if workers.dask:  # its workers may have another folder to work in
        paths = [path.absolute() for path in paths]
    given = list(walk(paths, corpus.name, options))
    total = sum(source.size() for source in given if isinstance(source, Source))
    watch.planned(total)
    with _without_long_pauses(), workers.pool(total, len(given)) as pool:
        for reading in read_all(given, pool, lambda name: _source_of(name, report)):
            if isinstance(reading, InputError):
                report.refused.append((Path(reading.where), reading))
            elif isinstance(reading, Source):
                batch.source_bytes += reading.size()
            else:
                watch.reading(reading.source)
                _add_new(reading, batch)
        batch.commit()
    if not dry_run:
        corpus.registry.settle()  # what is unchanged as well
    return report


@contextmanager
def _without_long_pauses() -> Iterator[None]:
    """Small records are objects by the ten thousand: for each heap of them Python would look through all that is there
    already, libraries included, for cycles that nobody needs any more; so it looks through the new ones only."""
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


def _add_new(reading: Read, batch: "_Batch") -> None:
    try:
        for record in _new_records(reading, batch.report):
            batch.add(reading.source, record, reading.sha256)
    except InputError as error:
        batch.report.refused.append((_path(reading.source.label), error))


def _new_records(reading: Read, report: Report) -> Iterator[Record | Records]:
    """The records of a source that the corpus lacks; the rest goes to the report."""
    source, label = reading.source, _path(reading.source.label)
    if known := _known(source.name, report):
        sha256 = resolved(reading.sha256)
        # Of one record: so it was not even read if somebody else was to read it.
        if known.source_sha256 == sha256 and known.format not in MANIFOLD:
            _check_same(source, known, sha256, report.corpus)
            report.unchanged.append((label, known))
            return
    for found in _looked_at(reading.found, report, source.options):
        if isinstance(found, InputError):
            report.refused.append((label, found))
        elif isinstance(found, Records):
            yield found
        elif known := _known(found.header.record, report):
            _check_same(source, known, resolved(reading.sha256), report.corpus, _laid_out(found, source.options))
            report.unchanged.append((label, known))
        else:
            yield _laid_out(found, source.options)


def _looked_at(reading: Iterable[Found], report: Report, options: Options) -> Iterator[Found]:
    """Columns stay so if there is nothing to be said of a record of them: none is known, none is laid out anew."""
    for found in reading:
        if isinstance(found, Records) and (options.layout or report.corpus.entries.taken(found.record)):
            yield from found
        else:
            yield found


@lru_cache(maxsize=1024)
def _path(label: str) -> Path:
    """A path is dear to make, and many records are those of one source."""
    return Path(label)


def _source_of(name: str, report: Report) -> str | None:
    known = _known(name, report)
    return known.source_sha256 if known and known.format not in MANIFOLD else None


def _check_same(source: Source, known: Entry, sha256: str, corpus: Corpus, found: Record | None = None) -> None:
    """InputError unless the record that is there was made from the same file in the same way as the one ``found``."""
    other_elements = found is not None and found.header.geometry != known.geometry
    if known.source_sha256 != sha256 or other_elements or _differs(known, source, corpus):
        other = f"other options ({known.layout}, {known.format})"
        raise InputError(
            source.label,
            expected=f"the content that record {known.record!r} was made from",
            found="another content" if known.source_sha256 != sha256 else other,
            remedy="committed bytes never change: ingest this one under another name with --prefix",
        )


def _known(record: str, report: Report) -> Entry | None:
    entries = report.corpus.entries
    return entries.named(record) if record in entries else None


def _differs(known: Entry, source: Source, corpus: Corpus) -> bool:
    """Was the record ingested with other options than these?"""
    options = source.options
    other_layout = _asked_otherwise(known.geometry, options)
    if known.modality == "chess":
        return other_layout or known.format != CHESS_FORMATS[options.chess]
    asked = wishes(source) if known.modality == "scan" else {}
    if known.modality == "scan" and (asked or known.missing_bytes or known.dtype == "|u1"):
        metadata = corpus.header(known).metadata
        return other_layout or {key: metadata[key] for key in ("fill", "window", "mask") if key in metadata} != asked
    return other_layout


def _asked_otherwise(geometry: Geometry, options: Options) -> bool:
    """Was another layout asked for? Of one axis Morton's order is none."""
    one_axis = len(geometry.shape) == 1
    return options.layout not in (None, geometry.layout) and not (one_axis and options.layout == "morton")


def _laid_out(record: Record, options: Options) -> Record:
    geometry = record.header.geometry
    if options.layout is None or not _asked_otherwise(geometry, options):
        return record
    header = replace(record.header, geometry=replace(geometry, layout=options.layout))
    return replace(record, header=header)


def _count(found: Record | Records) -> int:
    return len(found) if isinstance(found, Records) else 1


def _sha256s(waiting: Iterable[_Waiting]) -> list[Sha256]:
    """One for each record; of columns, whose source has been read to its end or nearly, waited for once."""
    found: list[Sha256] = []
    for _, some, sha256 in waiting:
        found += [resolved(sha256)] * len(some) if isinstance(some, Records) else [sha256]
    return found


def _each(waiting: Iterable[_Waiting]) -> Iterator[tuple[Source, Record, Sha256]]:
    """One by one."""
    for source, found, sha256 in waiting:
        for record in found if isinstance(found, Records) else (found,):
            yield source, record, sha256


class _Batch:
    """Records that wait to be committed together; an exact duplicate of another source's shares its payload."""

    def __init__(self, report: Report, watch: Watch, dry_run: bool):
        self.report, self.watch, self.dry_run = report, watch, dry_run
        self.twins = Twins(report.corpus)
        self.records: list[_Waiting] = []
        self.later: list[_Waiting] = []  # of sources that lie in this very batch as well
        self.names: dict[str, Source] = {}
        self.memory = self.source_bytes = 0

    def add(self, source: Source, found: Record | Records, sha256: Sha256) -> None:
        if isinstance(found, Record):
            self._add_one(source, found, sha256)
            return
        while len(found):
            room = BATCH_RECORDS - len(self.names)
            some, found = (found, found[:0]) if len(found) <= room else (found[:room], found[room:])
            self._add_columns(source, some, sha256)

    def _add_columns(self, source: Source, records: Records, sha256: Sha256) -> None:
        """One by one only where names are taken in this batch, or the corpus has a twin of one."""
        names = dict.fromkeys(records.record, source)
        apart = len(names) == len(records) and self.names.keys().isdisjoint(names)
        if not apart or self.twins.other(source.name, records.geometry, sha256):
            for record in records:
                self._add_one(source, record, sha256)
            return
        self.names.update(names)
        waits = self.twins.waits(source, sha256)
        (self.later if waits else self.records).append((source, records, sha256))
        self._took(sum(geometry.payload_bytes for geometry in records.geometry))

    def _add_one(self, source: Source, record: Record, sha256: Sha256) -> None:
        name = record.header.record
        if name in self.names:
            raise InputError(
                source.label,
                expected=f"one source for record {name!r}",
                found=f"{self.names[name].label} of the same name",
                remedy="ingest one of them with --prefix",
            )
        self.names[name] = source
        waits = self.twins.waits(source, sha256)
        (self.later if waits else self.records).append((source, self.twins.shared(record, sha256), sha256))
        self._took(record.header.geometry.payload_bytes)

    def _took(self, payload_bytes: int) -> None:
        self.memory += payload_bytes
        if len(self.names) >= BATCH_RECORDS or self.memory >= BATCH_BYTES:
            self.commit()

    def commit(self) -> None:
        if self.dry_run:
            waiting = _each(self.records + self.later)
            self.report.planned.extend((_path(source.label), record.header) for source, record, _ in waiting)
        else:
            self._append(self.records)
            self._append([(source, self.twins.shared(r, sha256), sha256) for source, r, sha256 in _each(self.later)])
        self.watch.done(self.source_bytes)
        self.records, self.later, self.names, self.memory, self.source_bytes = [], [], {}, 0, 0

    def _append(self, records: Sequence[_Waiting], attempt: int = 1) -> None:
        """One commit; if a record turns out bad or too big while it is written, halves find it and let the rest in."""
        if not records:
            return
        try:
            entries = self.report.corpus.append(Records.of([r for _, r, _ in records]), _sha256s(records))
        except InputError as error:
            records = list(_each(records))
            if len(records) == 1:
                self.report.refused.append((_path(records[0][0].label), error))
                return
            middle = len(records) // 2
            self._append(records[:middle])
            self._append(records[middle:])
        except ConflictError:
            if attempt == ATTEMPTS:
                raise
            self.report.corpus.refresh()
            self._append(list(self._still_new(records)), attempt + 1)
        else:
            sources = (source for source, found, _ in records for _ in range(_count(found)))
            self.report.ingested.extend((_path(s.label), e) for s, e in zip(sources, entries, strict=True))
            self.twins.committed(entries)

    def _still_new(self, records: Sequence[_Waiting]) -> Iterator[_Waiting]:
        """The records that no other writer has put in meanwhile; the others go to the report."""
        for source, record, sha256 in _each(records):
            known = _known(record.header.record, self.report)
            if known is None:
                yield source, record, sha256
                continue
            try:
                _check_same(source, known, resolved(sha256), self.report.corpus, record)
                self.report.unchanged.append((_path(source.label), known))
            except InputError as error:
                self.report.refused.append((_path(source.label), error))
