"""What to reconstruct: which elements of which records, by holdout, region, span, or because the source lacks them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from aunn_data.corpus import Corpus
from aunn_data.entries import Entry
from aunn_data.errors import RequestError
from aunn_data.geometry import slices
from pipelines.holes import SPATIAL, Mask, missing_of


@dataclass(frozen=True)
class Target:
    """A record and which of its elements are asked for."""

    entry: Entry
    mask: Mask


def holdout_targets(corpus: Corpus, name: str) -> list[Target]:
    """The held-out regions of one name, by record. RequestError if there are none."""
    regions: dict[str, list[Any]] = {}
    for held in corpus.holdouts():
        if held.holdout == name and held.record in corpus.entries:
            regions.setdefault(held.record, []).append(held.region)
    if not regions:
        known = sorted({held.holdout for held in corpus.holdouts()})
        raise RequestError(
            name, expected=f"a holdout: {', '.join(known) or 'there are none'}", found="no such", remedy="choose one"
        )
    return [_target(corpus.entries.named(record), found) for record, found in regions.items()]


def region_targets(corpus: Corpus, record: str, texts: Sequence[str]) -> list[Target]:
    """Regions (``z=8:12,y=0:64``) of one record."""
    entry = corpus.entries.named(record)
    return [_target(entry, [entry.geometry.parse_region(text, record) for text in texts])]


def span_targets(corpus: Corpus, start: int, stop: int) -> list[Target]:
    """The elements that have a byte at addresses ``start:stop``. RequestError if none has."""
    targets = []
    for entry in corpus.entries:
        if not entry.is_shared and entry.payload_start < stop and start < entry.payload_stop:
            geometry, mask = entry.geometry, np.zeros(entry.shape, np.bool_)
            at = geometry.offsets(geometry.whole) + entry.payload_start
            for plane in range(geometry.planes):
                here = at + plane * geometry.plane_extent
                mask |= (here >= start) & (here < stop)
            if mask.any():
                targets.append(Target(entry, mask))
    if not targets:
        raise RequestError(
            f"span {start}:{stop}",
            expected="addresses that hold elements of a record",
            found="headers, padding or nothing",
            remedy="`aunn-data ls` lists what lies where",
        )
    return targets


def missing_targets(corpus: Corpus, record: str | None = None) -> list[Target]:
    """The elements that the source of a record, or of every record, lacks. RequestError if there are none."""
    entries = [corpus.entries.named(record)] if record else corpus.entries
    found = [Target(entry, missing_of(corpus, entry)) for entry in entries if entry.missing_bytes]
    if not found:
        raise RequestError(
            record or corpus.name, expected="missing elements", found="none", remedy="name a holdout, region or span"
        )
    return found


def preview(target: Target, stride: int) -> Target:
    """Every ``stride``-th element of a target along each axis of space (of a list, along each axis)."""
    axes = target.entry.axes
    spatial = [axis for axis in axes if axis in SPATIAL] or axes
    every = np.zeros_like(target.mask)
    every[tuple(slice(None, None, stride if axis in spatial else 1) for axis in axes)] = True
    return Target(target.entry, target.mask & every)


def _target(entry: Entry, regions: Sequence[Any]) -> Target:
    mask = np.zeros(entry.shape, np.bool_)
    for region in regions:
        mask[slices(region)] = True
    return Target(entry, mask)
