"""Holes of records: what is held out or missing; and *checks*, regions like them that are known but left out as well.

Nobody may look into a hole to see how well it was filled. So the run leaves out of its training a small share of what
it could see, of the same shape as the holes: each hole moved to known places of its record; where it fits nowhere, the
same part of whole records alike; where holes are scattered, single elements between them. On the checks the run learns
when it was best, how to weigh the network and the classical fills, and how far either is to be trusted.

Legend: S spans, n elements of a mask.
"""

from collections.abc import Container, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from aunn_data import spans
from aunn_data.corpus import Corpus
from aunn_data.entries import Entry
from aunn_data.geometry import slices
from aunn_data.spans import Spans

Mask = npt.NDArray[np.bool_]
Box = tuple[slice, ...]
Holdouts = Sequence[tuple[str, str, str]]  # name, record, region

SPATIAL = frozenset("zyx")
LARGEST = 1 << 28  # elements of a record that checks are laid in
SCATTERED = 1024  # holes of a record that are more than this are not moved one by one
TRIES = 200
ROUNDS = 8  # times, at most, that a hole is moved: the more checks, the better they speak for the holes
ALIKE = 64  # records, at most, in which one pattern of holes is repeated


@dataclass(frozen=True)
class Check:
    """Known elements of a record (True in ``mask``) that the run was not trained on."""

    entry: Entry
    mask: Mask


def holes_of(corpus: Corpus, entry: Entry, holdouts: Holdouts) -> Mask:
    """Which elements of a record are held out or missing."""
    return held_of(entry, holdouts) | missing_of(corpus, entry)


def held_of(entry: Entry, holdouts: Holdouts) -> Mask:
    """Which elements of a record are held out."""
    mask = np.zeros(entry.shape, np.bool_)
    for _, record, region in holdouts:
        if record == entry.record:
            mask[slices(entry.geometry.parse_region(region, record))] = True
    return mask


def missing_of(corpus: Corpus, entry: Entry) -> Mask:
    """Which elements of a record its source lacks."""
    missing = corpus.record(entry).missing if entry.missing_bytes else None
    return np.zeros(entry.shape, np.bool_) if missing is None else np.asarray(missing)


def addresses_of(entry: Entry, mask: Mask) -> npt.NDArray[np.int64]:
    """(P * n,) addresses of the elements of a mask, digit plane after digit plane."""
    geometry = entry.geometry
    offset_n = np.zeros(int(mask.sum()), np.int64)
    for axis, index in enumerate(np.nonzero(mask)):
        offset_n += geometry.axis_offset(axis, index.astype(np.int64))
    planes_P = np.arange(geometry.planes, dtype=np.int64)[:, None] * geometry.plane_extent
    return np.asarray(entry.payload_start + planes_P + offset_n).reshape(-1)


def spans_of(checks: Iterable[Check]) -> Spans:
    """(S, 2) addresses of checks."""
    return spans.union(*(spans.of_addresses(np.sort(addresses_of(check.entry, check.mask))) for check in checks))


def checks_of(corpus: Corpus, holdouts: Holdouts, share: float, seed: int) -> list[Check]:
    """The checks of a corpus with these holdouts: of each record with holes about ``share`` of its known elements.

    A pure function of its arguments, in the order of the records. [] if there are no holes, or the share is 0.
    """
    if not share:
        return []
    holdouts = [(name, payload_of(corpus, record), region) for name, record, region in holdouts]
    held = {record for _, record, _ in holdouts}
    rng, found = np.random.default_rng([seed, 0xC4EC]), []
    holed = [e for e in corpus.entries if (e.record in held or e.missing_bytes) and not e.is_shared]
    repeated: set[tuple[object, bytes]] = set()
    for entry in holed:
        if entry.geometry.elements > LARGEST:
            continue
        holes = holes_of(corpus, entry, holdouts)
        if not _fits(holes, entry.axes, rng):
            kind = (entry.geometry.kind, np.packbits(holes).tobytes())
            if kind in repeated:
                continue
            if alike := _repeated(corpus, entry, holes, held, share, rng):
                repeated.add(kind)
                found += alike
                continue
        mask = _moved(holes, entry.axes, share, rng)
        if mask.any():
            found.append(Check(entry, mask))
    return found


def payload_of(corpus: Corpus, record: str) -> str:
    """The record that holds the payload: exact duplicates share one, and what is held out of one is a hole of all."""
    owner = corpus.entries.at(corpus.entries.named(record).payload_start)
    return owner.record if owner else record


def whole_like(corpus: Corpus, entry: Entry, held: Container[str]) -> list[Entry]:
    """The records of the same kind and format that lack nothing, are none of ``held`` and no other's duplicate."""
    return [
        other
        for other in corpus.entries
        if other.geometry.kind == entry.geometry.kind
        and (other.modality, other.format) == (entry.modality, entry.format)
        and not (other.record in held or other.missing_bytes or other.is_shared)
    ]


def _repeated(
    corpus: Corpus, entry: Entry, holes: Mask, held: set[str], share: float, rng: np.random.Generator
) -> list[Check]:
    """The same holes in some of the whole records of the same kind."""
    whole = whole_like(corpus, entry, held)
    count = min(ALIKE, len(whole) // 4, max(1, round(share * len(whole))))
    return [Check(whole[k], holes) for k in sorted(rng.choice(len(whole), count, replace=False))]


def _flat(holes: Mask, axes: Sequence[str]) -> tuple[list[int], Mask, Mask]:
    """The axes of space (all, if none is), the holes without times or channels of which nothing is known, and these
    in space alone: of any time or channel."""
    spatial = [k for k, axis in enumerate(axes) if axis in SPATIAL] or list(range(holes.ndim))
    others = tuple(k for k in range(holes.ndim) if k not in spatial)
    partial = holes & ~holes.all(axis=tuple(spatial), keepdims=True)
    return spatial, partial, np.asarray(partial.any(axis=others))


def _fits(holes: Mask, axes: Sequence[str], rng: np.random.Generator) -> bool:
    """Is there room for one of the holes, whole, beside all of them?"""
    _, _, flat = _flat(holes, axes)
    parts, count = ndimage.label(flat)
    shapes = (tuple(edge.stop - edge.start for edge in box) for box in ndimage.find_objects(parts))
    return count > SCATTERED or any(_room(flat, shape, rng) is not None for shape in shapes)


def _moved(holes: Mask, axes: Sequence[str], share: float, rng: np.random.Generator) -> Mask:
    """The holes moved to where everything is known, as many as make up the share; or single elements between them."""
    spatial, partial, flat = _flat(holes, axes)
    out, others = np.zeros_like(holes), (1,) * (holes.ndim - len(spatial))
    budget = share * int((~holes).sum())
    parts, count = ndimage.label(flat)
    whole = np.moveaxis(out, spatial, range(len(spatial)))  # a view: space first, then time, channels
    inside = np.moveaxis(partial, spatial, range(len(spatial)))
    if count > SCATTERED:
        frames = inside.any(axis=tuple(range(flat.ndim)))
        whole[...] = ((rng.random(flat.shape) < share) & ~flat).reshape(flat.shape + others) & frames
        return out
    taken, boxes = flat.copy(), ndimage.find_objects(parts)
    for number in np.concatenate([rng.permutation(count) for _ in range(ROUNDS)]):
        here = parts[boxes[number]] == number + 1
        piece = inside[boxes[number]] & here.reshape(here.shape + others)
        piece = _cropped(piece, flat.ndim, budget)
        place = _room(taken, piece.shape[: flat.ndim], rng)
        if place is not None and piece.any():
            whole[place] |= piece
            taken[place] = True
            budget -= int(piece.sum())
        if budget <= 0:
            break
    return out


def _cropped(piece: Mask, dims: int, budget: float) -> Mask:
    """The middle of a hole that is too large: its longest edge is halved until it is small enough."""
    while int(piece.sum()) > max(1.0, budget):
        axis = int(np.argmax(piece.shape[:dims]))
        if (size := piece.shape[axis]) == 1:
            break
        piece = np.moveaxis(np.moveaxis(piece, axis, 0)[size // 4 : size // 4 + (size + 1) // 2], 0, axis)
    return piece


def _room(taken: Mask, shape: tuple[int, ...], rng: np.random.Generator) -> Box | None:
    """A random place for a box of ``shape`` that touches nothing taken; None if none was found."""
    for _ in range(TRIES):
        start = [int(rng.integers(size - edge + 1)) for size, edge in zip(taken.shape, shape, strict=True)]
        around = tuple(slice(max(0, low - 1), low + edge + 1) for low, edge in zip(start, shape, strict=True))
        if not taken[around].any():
            return tuple(slice(low, low + edge) for low, edge in zip(start, shape, strict=True))
    return None
