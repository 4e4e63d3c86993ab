"""Which DICOM files are slices of one volume, and in what order.

Slices of one series, of one size, type and direction are one stack, sorted by place along their normal. Where several
lie at one place, they are frames of a t axis if one element of their headers, or the order of their numbers, tells them
apart at every place alike; else they stay apart. What does not say where it lies goes by its number. Nothing is filled
in: the header says where every slice lies.
"""

import io
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import pydicom
from pydicom.tag import Tag

from aunn_data.errors import InputError
from pipelines import compressed
from pipelines.scans.dicom_file import MAGIC, MAGIC_AT, has_magic, quiet
from pipelines.scans.dicom_geometry import SAME_MM, Plane, plane_of, same_directions
from pipelines.scans.dicom_values import value_in
from pipelines.source import HEAD_BYTES, Group, Source

SAME = (  # what the slices of a stack have in common
    "SeriesInstanceUID",
    "Rows",
    "Columns",
    "SamplesPerPixel",
    "BitsAllocated",
    "BitsStored",
    "HighBit",
    "PixelRepresentation",
    "PlanarConfiguration",
    "PhotometricInterpretation",
    "PixelSpacing",
)
TIMES = ("TemporalPositionIdentifier", "EchoTime", "DiffusionBValue", "TriggerTime", "AcquisitionNumber")
TAGS = [
    *(*SAME, *TIMES, "SOPInstanceUID", "ImageType", "InstanceNumber", "NumberOfFrames"),
    *("ImagePositionPatient", "ImageOrientationPatient", "SpacingBetweenSlices", "SliceThickness"),
]
SAME_TAGS = [Tag(keyword) for keyword in SAME]
MOST_PEEKED = 1 << 20  # bytes of a compressed file that are looked through for what is in TAGS
MOST_DIRECTIONS = 64  # of one series that a slice is compared with, latest first


class Slice(NamedTuple):
    """What the header of a single-frame file says that matters here. ``name`` is that of its file."""

    name: str
    instance: str
    same: tuple[str, ...]
    image_type: str
    number: int | None
    times: tuple[float, ...]
    plane: Plane

    @property
    def mosaic(self) -> bool:
        """Is it many slices in one picture? Then its position is not that of a slice."""
        return "MOSAIC" in self.image_type


class Stack(NamedTuple):
    """T times Z slices, t slower; the axes that are more than one, and what the times were told apart by."""

    slices: tuple[Slice, ...]
    axes: tuple[str, ...]
    shape: tuple[int, ...]
    by: str = ""


def gather(folder: Path, files: Sequence[str], folders: Sequence[str]) -> Iterator[Group]:
    """The stacks of two slices or more. If the folder holds one and nothing else, it is that."""
    slices = [slice for file in files if (slice := _slice_in(folder / file))]
    found = stacks(slices)
    if len(found) == 1 and len(found[0].slices) == len(files) and not folders:
        yield Group("", tuple(slice.name for slice in found[0].slices))
        return
    for stack in found:
        names = tuple(slice.name for slice in stack.slices)
        yield Group(min(names), names)


def _slice_in(path: Path) -> Slice | None:
    """The slice that a file holds; None of any other file, which will be told what it lacks when it is read."""
    try:
        with path.open("rb") as file:
            head, start = file.read(MAGIC_AT + 8), file
            if compressed.codec_of(head):
                with Source(path, path.name).open() as inside:
                    start = io.BytesIO(inside.read(MOST_PEEKED))  # type: ignore[assignment]
                head = start.read(MAGIC_AT + 8)
            if head[MAGIC_AT : MAGIC_AT + 4] != MAGIC:
                head += start.read(HEAD_BYTES - len(head))
            if not has_magic(head):
                return None
            start.seek(0)
            with quiet():
                dataset = pydicom.dcmread(start, stop_before_pixels=True, force=True, specific_tags=list(TAGS))
                return slice_of(dataset, path.name)
    except Exception:  # whatever pydicom raises on bad bytes: the file is refused when it is read by itself
        return None


def slice_of(dataset: Any, name: str) -> Slice | None:
    """The slice of a data set of one frame that names its series, else None."""
    series, rows, frames = (value_in(dataset, keyword) for keyword in ("SeriesInstanceUID", "Rows", "NumberOfFrames"))
    if not series or not rows or int(frames or 1) > 1:
        return None
    number = value_in(dataset, "InstanceNumber")
    return Slice(
        name,
        str(value_in(dataset, "SOPInstanceUID") or ""),
        (*(repr(getattr(dataset.get_item(tag), "value", "")) for tag in SAME_TAGS), str(dataset.original_encoding[1])),
        str(value_in(dataset, "ImageType") or ""),
        None if number in (None, "") else int(number),
        tuple(_float(value_in(dataset, keyword)) for keyword in TIMES),
        plane_of(dataset),
    )


def _float(value: Any) -> float:
    return float(value) if isinstance(value, float | int) else 0.0


def stacks(slices: Iterable[Slice]) -> list[Stack]:
    """All stacks of two slices or more; a copy of a slice, and what fits nowhere, is in none."""
    groups: dict[tuple[object, ...], list[list[Slice]]] = {}
    seen = set()
    for slice in slices:
        if slice.instance in seen:
            continue
        seen.add(slice.instance or slice.name)
        alike = groups.setdefault((*slice.same, slice.plane.place is None, slice.mosaic), [])
        for group in alike[-MOST_DIRECTIONS:]:
            if same_directions(group[0].plane, slice.plane):
                group.append(slice)
                break
        else:
            alike.append([slice])
    found = (stack for alike in groups.values() for group in alike for stack in _arranged(group))
    return [stack for stack in found if len(stack.slices) > 1]


def _arranged(slices: list[Slice]) -> list[Stack]:
    """Slices that differ in nothing but where and when they were taken."""
    if len(slices) < 2:
        return []
    if slices[0].plane.place is None or slices[0].mosaic:
        return _numbered(slices)
    places = _places(slices)
    if len(places) == len(slices):
        return [_one_each([place[0] for place in places])]
    if kinds := _apart(slices, lambda one: one.image_type):  # magnitude and phase are two volumes
        return kinds
    return _timed(slices, places)


def _numbered(slices: list[Slice]) -> list[Stack]:
    numbers = {slice.number for slice in slices}
    if len(numbers) < len(slices) or None in numbers:
        return []
    axis = "t" if slices[0].mosaic else "slice"
    ordered = tuple(sorted(slices, key=lambda one: one.number or 0))
    return [Stack(ordered, (axis,), (len(ordered),), "InstanceNumber")]


def _one_each(slices: Sequence[Slice]) -> Stack:
    return Stack(tuple(slices), ("z",), (len(slices),))


def _place(slice: Slice) -> float:
    return slice.plane.place or 0.0


def _places(slices: Sequence[Slice]) -> list[list[Slice]]:
    """The slices at each place, in the order of their places."""
    places: list[list[Slice]] = []
    for slice in sorted(slices, key=lambda one: (_place(one), one.name)):
        if places and _place(slice) - _place(places[-1][0]) < SAME_MM:
            places[-1].append(slice)
        else:
            places.append([slice])
    return places


def _apart(slices: Sequence[Slice], key: Callable[[Slice], Any]) -> list[Stack]:
    """The stacks of the slices that a key tells apart; none if it tells nothing."""
    kinds: dict[Any, list[Slice]] = {}
    for slice in slices:
        kinds.setdefault(key(slice), []).append(slice)
    return [stack for kind in kinds.values() for stack in _arranged(kind)] if len(kinds) > 1 else []


def _timed(slices: list[Slice], places: list[list[Slice]]) -> list[Stack]:
    """Several slices at a place: a t axis if it is sure and complete, else a stack each, else nothing."""
    keys: list[tuple[str, Callable[[Slice], Any]]] = [
        *((name, lambda one, k=k: one.times[k]) for k, name in enumerate(TIMES)),
        (" and ".join(TIMES), lambda one: one.times),
    ]
    for name, key in keys:
        orders = [sorted(place, key=key) for place in places]
        times = [tuple(map(key, order)) for order in orders]
        if len(set(times)) == 1 and len(set(times[0])) == len(times[0]):
            return [_stacked(orders, name)]
    if orders := _by_number(places):
        return [_stacked(orders, "InstanceNumber")]
    for _, key in keys:
        if all(len({key(slice) for slice in place}) == len(place) for place in places):
            return _apart(slices, key)
    return []


def _by_number(places: list[list[Slice]]) -> list[list[Slice]]:
    """Each place's slices by number, if those run volume by volume or place by place; else nothing."""
    numbers = {slice.number for place in places for slice in place}
    count = len(places[0])
    if None in numbers or len(numbers) < sum(map(len, places)) or any(len(place) != count for place in places):
        return []
    orders = [sorted(place, key=lambda one: one.number or 0) for place in places]
    volumes = [[order[k] for order in orders] for k in range(count)]
    return orders if _in_blocks(volumes) or _in_blocks(orders) else []


def _in_blocks(blocks: Sequence[Sequence[Slice]]) -> bool:
    """Does each block's numbers end before those of the next begin?"""
    spans = sorted((min(numbers), max(numbers)) for numbers in ([slice.number or 0 for slice in b] for b in blocks))
    return all(before[1] < after[0] for before, after in pairwise(spans))


def _stacked(orders: list[list[Slice]], by: str) -> Stack:
    """(Z, T) -> T volumes, one after another."""
    count = len(orders[0])
    slices = tuple(order[t] for t in range(count) for order in orders)
    if len(orders) == 1:
        return Stack(slices, ("t",), (count,), by)
    return Stack(slices, ("t", "z"), (count, len(orders)), by)


def arranged(slices: Sequence[Slice | None], label: str) -> Stack:
    """The one stack that all these files are. InputError if they are not (they were, when they were gathered)."""
    found = stacks(slice for slice in slices if slice)
    if len(found) != 1 or len(found[0].slices) != len(slices):
        raise InputError(
            label,
            expected=f"{len(slices)} slices of one series",
            found=f"{len(found)} stacks of {[len(stack.slices) for stack in found]}",
            remedy="leave the folder alone while it goes in, then run the same command again",
        )
    return found[0]
