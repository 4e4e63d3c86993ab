"""Exact duplicates: files of equal bytes, read in the same way, have equal records; later ones share the payload."""

from collections.abc import Iterable, Sequence
from dataclasses import replace

import pyarrow as pa
import pyarrow.compute as pc

from aunn_data.batch import Sha256, resolved
from aunn_data.corpus import Corpus
from aunn_data.entries import Entry
from aunn_data.geometry import Geometry
from aunn_data.record import Record
from pipelines.source import Source


class Twins:
    """What a corpus and the batch that is coming together know of the sources of records."""

    def __init__(self, corpus: Corpus):
        self.corpus = corpus
        table = corpus.entries.table
        columns = {name: pc.cast(table[name], pa.string()) for name in ("source_sha256", "source")}
        first = pa.table(columns).group_by("source_sha256").aggregate([("source", "min")]).to_pydict()
        self.sources: dict[str, str] = dict(zip(first["source_sha256"], first["source_min"], strict=True))
        self.geometries = set(corpus.entries.table["geometry"].unique().to_pylist())
        self.coming: dict[str, str] = {}

    def other(self, source: str, geometries: Iterable[Geometry], sha256: Sha256) -> str | None:
        """Another source in the corpus of the same bytes, if there are records of one of these geometries at all: only
        then the hash of a big source is waited for."""
        if self.geometries.isdisjoint(geometry.text for geometry in geometries):
            return None
        other = self.sources.get(resolved(sha256))
        return None if other == source else other

    def shared(self, record: Record, sha256: Sha256) -> Record:
        """The record with its twin in the corpus, if it has one."""
        other = self.other(record.header.source, (record.header.geometry,), sha256)
        if other is None:
            return record
        name = other + record.header.record.removeprefix(record.header.source)
        entry = self.corpus.entries.named(name) if name in self.corpus.entries else None
        if entry is None or not self._alike(entry, record, resolved(sha256)):
            return record
        return replace(record, missing=None, twin=entry)

    def waits(self, source: Source, sha256: Sha256) -> bool:
        """Is an equal source part of the same batch? Then its record must be there first."""
        if not isinstance(sha256, str):
            return False
        return self.coming.setdefault(sha256, source.name) != source.name and sha256 not in self.sources

    def committed(self, entries: Sequence[Entry]) -> None:
        """These are in the corpus now."""
        sources = dict.fromkeys((entry.source_sha256, entry.source) for entry in entries)
        for sha256, source in sources:
            self.sources.setdefault(sha256, source)
            self.coming.pop(sha256, None)
        geometries = {id(entry.geometry): entry.geometry for entry in entries}
        self.geometries.update(geometry.text for geometry in geometries.values())

    def _alike(self, entry: Entry, record: Record, sha256: str) -> bool:
        """Were both read in the same way? The metadata tell of windows, fill values and masks too."""
        header = record.header
        same = (header.format, header.modality, header.geometry, sha256)
        if same != (entry.format, entry.modality, entry.geometry, entry.source_sha256):
            return False
        return self.corpus.header(entry).metadata == header.metadata
