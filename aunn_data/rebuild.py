"""A lost registry made again from the byte list's own headers.

What headers carry comes back as it was; hashes and marks are counted again. What they do not carry is gone: the numbers
of older versions (the corpus starts again at version 1) and, if that table is lost as well, the holdouts.
"""

import hashlib
import secrets
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field

import numpy as np

from aunn_data import payload
from aunn_data.chain import Link, chain
from aunn_data.corpus import Corpus
from aunn_data.entries import Entry
from aunn_data.errors import CorpusError
from aunn_data.reading import Ascending
from aunn_data.registry import Holdout, Registry
from aunn_data.shards import shard_key


@dataclass
class Rebuilt:
    """The corpus with its new registry, where the old one's files are, and what was left out and why."""

    corpus: Corpus
    old: str
    holdouts: int
    left_out: list[tuple[str, int, str]] = field(default_factory=list)


def rebuild(where: str, on_record: Callable[[Entry], object] = lambda entry: None) -> Rebuilt:
    """Makes the registry of a corpus again. CorpusError if the byte list itself is damaged: mend that first.

    No writer may be at work.

    A record of a batch whose writer died before the commit looks like any other: it is left out if a shard of it is
    lacking or if a later record has its name (the same ingest, run again), and taken in otherwise.
    """
    corpus, left_out, entries = Corpus.without_registry(where), [], dict[str, Entry]()
    bytes_, known = Ascending(corpus), corpus.registry.surviving()
    for link in chain(corpus):
        if lacking := _lacking(corpus, link):
            if link.header.record in known:
                raise CorpusError(
                    f"{corpus.name} addresses {link.start}:{link.stop} of {link.header.record}",
                    expected="all shards of a record that was committed",
                    found=f"{lacking} lacking",
                    remedy="restore them from a copy first",
                )
            left_out.append((link.header.record, link.start, f"{lacking} of its shards were never written"))
            continue
        entry = _entry(bytes_, link)
        if before := entries.pop(entry.record, None):
            left_out.append((before.record, before.header_start, "written again later, so never committed"))
        entries[entry.record] = entry
        on_record(entry)
    old, holdouts = _replace(corpus, list(entries.values()))
    return Rebuilt(Corpus.open(where), old, holdouts, left_out)


def _lacking(corpus: Corpus, link: Link) -> int:
    """How many shards that a whole record has do not exist."""
    header = range(link.start // corpus.shard, (link.start + link.preamble.header - 1) // corpus.shard + 1)
    numbers, geometry = set(header), link.header.geometry
    for start, stop in payload.blocks(geometry, corpus.shard, link.preamble.payload):
        if payload.holds_elements(geometry, start, stop):
            numbers.add((link.preamble.payload + start) // corpus.shard)
    return sum(not corpus.store.exists(shard_key("bytes", number)) for number in numbers)


def _entry(bytes_: Ascending, link: Link) -> Entry:
    corpus, header, geometry = bytes_.corpus, link.header, link.header.geometry
    digest, missing_bytes = hashlib.sha256(), 0
    marked = set(corpus.shard_numbers("missing"))
    shared = link.preamble.payload < link.start
    read = corpus.read if shared else bytes_.read  # a payload that lies behind us
    for start, stop in payload.blocks(geometry, corpus.shard, link.preamble.payload):
        first, last = link.preamble.payload + start, link.preamble.payload + stop
        digest.update(payload.element_bytes(geometry, read(first, last), start))
        if first // corpus.shard in marked:
            missing_bytes += int(np.count_nonzero(corpus.read_missing(first, last)))
    return Entry(
        record=header.record,
        source=header.source,
        modality=header.modality,
        format=header.format,
        header_start=link.start,
        header_bytes=link.preamble.header,
        payload_start=link.preamble.payload,
        payload_stop=link.stop,
        stop=_stop(link),
        axes=geometry.axes,
        shape=geometry.shape,
        dtype=geometry.dtype,
        layout=geometry.layout,
        geometry=geometry,
        payload_bytes=geometry.payload_bytes,
        missing_bytes=missing_bytes,
        sha256=digest.hexdigest(),
        source_sha256=header.source_sha256,
    )


def _stop(link: Link) -> int:
    """Where the addresses end that the record was given."""
    if link.preamble.payload < link.start:
        return link.start + link.preamble.header
    packed = link.header.geometry.layout == "packed"
    return link.stop if packed else link.start + 2 * (link.preamble.payload - link.start)


def _replace(corpus: Corpus, entries: list[Entry]) -> tuple[str, int]:
    """Puts a new registry in the place of the old one, whose files stay beside it; returns their key."""
    store, name, left = corpus.store, secrets.token_hex(4), _registries(corpus)
    holdouts = _surviving_holdouts(left, {entry.record for entry in entries})
    end = max((corpus.shard_numbers("bytes")[-1:] or [-1])[0] + 1, 0) * corpus.shard
    end = max([end, *(registry.surviving_end() for registry in left)])
    new = Registry.create(store, f"registry-new-{name}")
    if end:
        new.reserve(lambda start: end)
    if entries:
        new.commit(entries, 0, "")
    new.add_holdouts(holdouts)
    store.move("registry", f"registry-old-{name}")
    store.move(new.key, "registry")
    return f"registry-old-{name}", len(holdouts)


def _registries(corpus: Corpus) -> list[Registry]:
    """The registry, if it is there, and those beside it: a rebuild may have been killed between its two moves."""
    keys = {item.key.partition("/")[0] for item in corpus.store.items("")}
    return [Registry(corpus.store, key, corpus.registry.checked) for key in sorted(keys) if key.startswith("registry")]


def _surviving_holdouts(registries: list[Registry], records: set[str]) -> list[tuple[Holdout, str]]:
    found = {}
    for registry in registries:
        with suppress(CorpusError):
            for row in registry.arrow("holdouts").to_pylist():
                region = tuple(zip(row["starts"], row["stops"], strict=True))
                found[Holdout(row["holdout"], row["record"], region)] = row["region"]
    return [(holdout, text) for holdout, text in found.items() if holdout.record in records]
