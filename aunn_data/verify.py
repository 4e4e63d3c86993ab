"""Does the byte list hold what the registry says? Every header, every payload, against hashes and each other.

``verify`` reads all that is committed. With ``deep`` also what lies between: padding must be zero, every older version
of every table readable, no address given to two batches, and the headers alone must tell what the registry tells.
"""

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from aunn_data import header as headers
from aunn_data import payload, spans
from aunn_data.chain import chain
from aunn_data.corpus import Corpus
from aunn_data.entries import Entry
from aunn_data.errors import CorpusError
from aunn_data.header import Header
from aunn_data.reading import Ascending
from aunn_data.registry import Registry

_PART = 1 << 20  # bytes that take as long to decode as a read takes to begin


@dataclass(frozen=True)
class Fault:
    """Something wrong with the bytes of a record at addresses ``start:stop``."""

    record: str
    start: int
    stop: int
    fault: str


def verify(
    corpus: Corpus, on_record: Callable[[Entry], object] = lambda entry: None, deep: bool = False
) -> list[Fault]:
    """All faults of a corpus; an empty list is a clean one."""
    faults, names, end, bytes_ = list(_registry_faults(corpus.registry, deep)), set[str](), 0, Ascending(corpus)
    for entry in corpus.entries:
        if entry.record in names:
            faults.append(Fault(entry.record, entry.header_start, entry.stop, "another record has its name"))
        names.add(entry.record)
        if entry.header_start < end:
            faults.append(Fault(entry.record, entry.header_start, end, "its addresses were already another record's"))
        end = max(end, entry.stop)
        faults.extend(faults_of(bytes_, entry, deep))
        on_record(entry)
    if deep:
        faults.extend(_reservation_faults(corpus))
        faults.extend(_chain_faults(corpus))
    return faults


def faults_without_registry(corpus: Corpus, said: str) -> list[Fault]:
    """The faults of a corpus (``Corpus.without_registry``) whose registry cannot be read, for the reason ``said``:
    every record that the byte list's own headers tell of and the readable rest of the registry does not.
    """
    surviving = corpus.registry.surviving()
    return [Fault("registry", 0, corpus.size, said)] + [
        Fault(link.header.record, link.start, link.stop, "its row in the registry is lost")
        for link in chain(corpus)
        if link.header.record not in surviving
    ]


def faults_of(bytes_: Ascending, entry: Entry, deep: bool) -> Iterator[Fault]:
    """The faults of one record."""
    corpus, header_stop = bytes_.corpus, entry.header_start + entry.header_bytes
    try:
        data = bytes_.read(entry.header_start, header_stop).tobytes()
        where = f"{corpus.name} at {entry.header_start}"
        preamble, header = headers.decode_preamble(data, where), headers.decode(data, where)
        if said := _contradiction(entry, preamble, header):
            yield Fault(entry.record, entry.header_start, header_stop, said)
    except CorpusError as error:
        yield Fault(entry.record, entry.header_start, header_stop, str(error))
    if entry.is_shared:
        yield from _twin_faults(corpus, entry)
        return
    digest, marked, padding = hashlib.sha256(), 0, 0
    for start, stop in payload.blocks(entry.geometry, corpus.shard, entry.payload_start):
        first, last = entry.payload_start + start, entry.payload_start + stop
        try:
            block = bytes_.read(first, last) if deep else _elements(bytes_, entry, start, stop)
            inside = payload.element_bytes(entry.geometry, block, start)
            if entry.missing_bytes:
                marked += int(np.count_nonzero(corpus.read_missing(first, last)))
        except CorpusError as error:
            yield Fault(entry.record, first, last, str(error))
            return
        digest.update(inside)
        if deep:
            padding += int(np.count_nonzero(block)) - int(np.count_nonzero(np.frombuffer(inside, np.uint8)))
    for wrong, said in (
        (digest.hexdigest() != entry.sha256, "the payload's SHA-256 is not the registry's"),
        (marked != entry.missing_bytes, f"{marked} bytes marked missing, the registry says {entry.missing_bytes}"),
        (padding != 0, f"{padding} bytes of padding are not zero"),
    ):
        if wrong:
            yield Fault(entry.record, entry.payload_start, entry.payload_stop, said)


def _twin_faults(corpus: Corpus, entry: Entry) -> Iterator[Fault]:
    """A shared payload is read with the record that it was written for; here, that this record is one that holds it."""
    owner = corpus.entries.at(entry.payload_start)
    names = ("payload_start", "payload_stop", "geometry", "sha256", "missing_bytes")
    if owner is None or any(getattr(owner, name) != getattr(entry, name) for name in names):
        said = "the payload that it shares is none of its kind"
        yield Fault(entry.record, entry.payload_start, entry.payload_stop, said)


def _elements(bytes_: Ascending, entry: Entry, start: int, stop: int) -> npt.NDArray[np.uint8]:
    """A block of the payload; of a whole shard most of which is padding only the parts with elements are read."""
    shard, first = bytes_.corpus.shard, entry.payload_start
    held_S = payload.held(entry.geometry, start, stop, _PART) if stop - start == shard >= 2 * _PART else None
    if held_S is None or 2 * spans.size(held_S) > shard:
        return bytes_.read(first + start, first + stop)
    block = np.zeros(stop - start, np.uint8)
    for low, high in held_S.tolist():
        block[low - start : high - start] = bytes_.corpus.read(first + low, first + high)
    return block


def _contradiction(entry: Entry, preamble: headers.Preamble, header: Header) -> str | None:
    """What header and registry disagree on."""
    geometry = header.geometry
    pairs = {
        "header length": (preamble.header, entry.header_bytes),
        "payload start": (preamble.payload, entry.payload_start),
        "payload stop": (preamble.payload + preamble.extent, entry.payload_stop),
        "record": (header.record, entry.record),
        "source": (header.source, entry.source),
        "modality": (header.modality, entry.modality),
        "format": (header.format, entry.format),
        "geometry": (geometry, entry.geometry),
        "axes": (geometry.axes, entry.axes),
        "shape": (geometry.shape, entry.shape),
        "dtype": (geometry.dtype, entry.dtype),
        "layout": (geometry.layout, entry.layout),
        "payload bytes": (geometry.payload_bytes, entry.payload_bytes),
        "source's SHA-256": (header.source_sha256 or entry.source_sha256, entry.source_sha256),
    }
    wrong = [name for name, (said, known) in pairs.items() if said != known]
    return f"header and registry disagree on {', '.join(wrong)}" if wrong else None


def _registry_faults(registry: Registry, deep: bool) -> Iterator[Fault]:
    """Versions of the tables, all or the newest, that cannot be read any more."""
    for name in ("records", "reservations", "holdouts"):
        try:
            newest = registry.newest(name)
        except CorpusError as error:
            yield Fault(f"registry/{name}", 0, 0, str(error))
            continue
        for version in range(0 if deep else newest, newest + 1):
            try:
                registry.arrow(name, version)
            except CorpusError as error:
                yield Fault(f"registry/{name} version {version}", 0, 0, str(error))


def _reservation_faults(corpus: Corpus) -> Iterator[Fault]:
    """Batches that share addresses, and records or shards that no batch was given."""
    shards = list(corpus.shard_numbers("bytes"))  # first: what a writer lays down from now on was given before that
    try:
        given = corpus.registry.reservations()
    except CorpusError:
        return  # told already
    for before, after in pairwise(given):
        if after.start < before.stop:
            yield Fault("registry/reservations", after.start, before.stop, "addresses handed out twice")
    starts, stops = (np.array([getattr(r, end) for r in given], np.int64) for end in ("start", "stop"))

    def outside(low: int, high: int) -> bool:
        number = int(np.searchsorted(starts, low, side="right")) - 1
        return number < 0 or high > stops[number]

    for entry in corpus.entries:
        if outside(entry.header_start, entry.stop):
            yield Fault(entry.record, entry.header_start, entry.stop, "no batch was given its addresses")
    for number in shards:
        low, high = number * corpus.shard, (number + 1) * corpus.shard
        if outside(low, high):
            yield Fault(f"shard {number}", low, high, "no batch was given its addresses")


def _chain_faults(corpus: Corpus) -> Iterator[Fault]:
    """Records that the registry lists and the way from header to header misses."""
    try:
        found = {(link.header.record, link.start) for link in chain(corpus)}
    except CorpusError as error:
        yield Fault("headers", 0, corpus.size, str(error))
        return
    for entry in corpus.entries:
        if (entry.record, entry.header_start) not in found:
            yield Fault(entry.record, entry.header_start, entry.stop, "not reached from header to header")
