"""Does the byte list hold what the registry says? Every header, every payload, against hashes and each other."""

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from aunn_data import header as headers
from aunn_data import payload
from aunn_data.corpus import Corpus
from aunn_data.errors import CorpusError
from aunn_data.header import Header
from aunn_data.registry import Entry


@dataclass(frozen=True)
class Fault:
    """Something wrong with the bytes of a record at addresses ``start:stop``."""

    record: str
    start: int
    stop: int
    fault: str


def verify(corpus: Corpus, on_record: Callable[[Entry], object] | None = None) -> list[Fault]:
    """All faults of a corpus; an empty list is a clean one."""
    faults, end = [], 0
    for entry in corpus.entries:
        if entry.header_start < end:
            faults.append(Fault(entry.record, entry.header_start, end, "its addresses were already another record's"))
        end = max(end, entry.stop)
        faults.extend(faults_of(corpus, entry))
        if on_record:
            on_record(entry)
    return faults


def faults_of(corpus: Corpus, entry: Entry) -> Iterator[Fault]:
    """The faults of one record."""
    header_stop = entry.header_start + entry.header_bytes
    try:
        data = corpus.read(entry.header_start, header_stop).tobytes()
        where = f"{corpus.path} at {entry.header_start}"
        preamble, header = headers.decode_preamble(data, where), headers.decode(data, where)
        if said := _contradiction(entry, preamble, header):
            yield Fault(entry.record, entry.header_start, header_stop, said)
    except CorpusError as error:
        yield Fault(entry.record, entry.header_start, header_stop, str(error))
    digest, marked = hashlib.sha256(), 0
    try:
        for start, block in corpus.blocks(entry):
            digest.update(payload.element_bytes(entry.geometry, block, start))
            if entry.missing_bytes:
                first = entry.payload_start + start
                marked += int(np.count_nonzero(corpus.read_missing(first, first + len(block))))
    except CorpusError as error:
        yield Fault(entry.record, entry.payload_start, entry.payload_stop, str(error))
        return
    if digest.hexdigest() != entry.sha256:
        yield Fault(
            entry.record, entry.payload_start, entry.payload_stop, "the payload's SHA-256 is not the registry's"
        )
    if marked != entry.missing_bytes:
        said = f"{marked} bytes marked missing, the registry says {entry.missing_bytes}"
        yield Fault(entry.record, entry.payload_start, entry.payload_stop, said)


def _contradiction(entry: Entry, preamble: headers.Preamble, header: Header) -> str | None:
    """What header and registry disagree on."""
    says = (preamble.header, preamble.payload, preamble.payload + preamble.extent, header.record, header.geometry)
    knows = (entry.header_bytes, entry.payload_start, entry.payload_stop, entry.record, entry.geometry)
    names = ("header length", "payload start", "payload stop", "record", "geometry")
    wrong = [name for name, a, b in zip(names, says, knows, strict=True) if a != b]
    return f"header and registry disagree on {', '.join(wrong)}" if wrong else None
