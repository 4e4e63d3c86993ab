"""Which pages of a TIFF are one scan, and what its axes are: the notes of OME, ImageJ, tifffile and MetaMorph.

Nothing is guessed: pages of which no note says what they are to one another lie along an axis called ``page``.
"""

import json
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import numpy as np
import numpy.typing as npt
from defusedxml import ElementTree

from pipelines.tiff.ifd import Ifd, Skeleton
from pipelines.tiff.pages import DEPTH, MASK, NEW_SUBFILE, PALETTE, PHOTOMETRIC, REDUCED, SAMPLES, Page

DESCRIPTION, X_RESOLUTION, Y_RESOLUTION, UIC2, BITS = 270, 282, 283, 33629, 258
OME_AXES = {"T": "t", "Z": "z", "C": "channel", "Y": "y", "X": "x"}
IMAGEJ_COUNTS = (("frames", "t"), ("slices", "z"), ("channels", "channel"))  # slowest first
MOST_PLANES = 1 << 24
MOST_OME_PLANES = 1 << 20  # of all images that one text names: it costs nothing to name more


@dataclass(frozen=True)
class Note:
    """Pages that are one record: the axes that they lie along, which page lies where, what is known of sizes."""

    axes: tuple[str, ...]
    numbers: npt.NDArray[np.int64]
    spacing: dict[str, float]
    units: dict[str, str]


def is_stack(skeleton: Skeleton) -> bool:
    """Do the first directories say that this is a scan rather than an image or several?"""
    first, *more = skeleton.chain(most=3)
    if skeleton.number(first, DEPTH, 1) > 1 or UIC2 in first.by_code or _noted(skeleton, first):
        return True
    full = [ifd for ifd in (first, *more) if not skeleton.number(ifd, NEW_SUBFILE, 0) & REDUCED]
    if len(full) < 2:
        return False
    one, other = ([skeleton.numbers(ifd, code) for code in (256, 257, 258, 339, 262)] for ifd in full[:2])
    return one == other and is_grey(skeleton, full[0])


def is_grey(skeleton: Skeleton, ifd: Ifd) -> bool:
    """Grey of more than one bit: pages that are bitmaps, have a palette or colours are pictures of a document."""
    if skeleton.number(ifd, SAMPLES, 1) != 1 or skeleton.number(ifd, BITS, 1) == 1:
        return False
    return skeleton.number(ifd, PHOTOMETRIC, 1) not in (PALETTE, MASK)


def _elements(skeleton: Skeleton, ifd: Ifd) -> int:
    """Samples of a page; 1 at least."""
    return max(1, math.prod(skeleton.number(ifd, code, 1) for code in (256, 257, SAMPLES, DEPTH)))


def _noted(skeleton: Skeleton, ifd: Ifd) -> bool:
    """Does a note say that there are several planes?"""
    description = skeleton.text(ifd, DESCRIPTION)
    if not description:
        return False
    if images := _imagej(description).get("images"):
        return images.isdecimal() and int(images) > 1
    shaped = _shaped(description)
    if shaped and math.prod(shaped[0]) > _elements(skeleton, ifd):
        return True
    notes = _ome(description, MOST_PLANES)
    return any(note.numbers.size > 1 for note in notes or ())


def planes_in(skeleton: Skeleton, ifd: Ifd) -> int:
    """How many planes lie behind a lone directory, one right after the other, as its note says; 1 where none does."""
    if UIC2 in ifd.by_code:
        return ifd.by_code[UIC2].count
    description = skeleton.text(ifd, DESCRIPTION)
    if images := _imagej(description).get("images"):
        return int(images) if images.isdecimal() and 0 < int(images) < MOST_PLANES else 1
    if (shaped := _shaped(description)) and shaped[2]:
        return max(1, math.prod(shaped[0]) // _elements(skeleton, ifd))
    return 1


def series_of(description: str, resolution: tuple[float, float], pages: Sequence[Page]) -> list[Note]:
    """The records that pages make, all pages in one of them. In order of their first pages."""
    if len(pages) == 1 and not description:
        return _unnoted([0], pages)
    found: list[Note] = []
    left = set(range(len(pages)))
    for note in _notes(description, resolution, pages):
        numbers = note.numbers
        alike = {pages[number].like for number in numbers.ravel().tolist()}
        if len(alike) == 1 and left.issuperset(numbers.ravel().tolist()):
            left.difference_update(numbers.ravel().tolist())
            found.append(_series(note, pages))
    for _, group in groupby(sorted(left, key=lambda n: (_reduced(pages[n]), n)), key=lambda n: _reduced(pages[n])):
        found.extend(_unnoted(list(group), pages))
    return sorted(found, key=lambda series: int(series.numbers.min()))


def _series(note: Note, pages: Sequence[Page]) -> Note:
    """Without axes of one, channels first, none called like one of the page's own."""
    own = pages[int(note.numbers.min())].layout.axes
    kept = [axis for axis, size in enumerate(note.numbers.shape) if size > 1]
    kept.sort(key=lambda axis: note.axes[axis] != "channel")
    numbers = note.numbers.transpose(*kept, *(a for a in range(note.numbers.ndim) if a not in kept))
    numbers = numbers.reshape([note.numbers.shape[axis] for axis in kept])
    names: list[str] = []
    for axis in kept:
        name = note.axes[axis]
        while name in (*own, *names):
            name += "_"
        names.append(name)
    return Note(tuple(names), numbers, note.spacing, note.units)


def _unnoted(numbers: list[int], pages: Sequence[Page]) -> list[Note]:
    """Equal pages lie along ``page``; unequal ones are a record each."""
    if len(numbers) > 1 and len({pages[number].like for number in numbers}) == 1:
        return [Note(("page",), np.array(numbers), {}, {})]
    return [Note((), np.array(number), {}, {}) for number in numbers]


def _reduced(page: Page) -> bool:
    return bool(page.layout.page.subfiletype & REDUCED)


def _notes(description: str, resolution: tuple[float, float], pages: Sequence[Page]) -> list[Note]:
    if (notes := _ome(description, len(pages))) is not None:
        return [note for note in notes if note.numbers.size]
    full = [number for number, page in enumerate(pages) if not _reduced(page)]
    if fields := _imagej(description):
        return _imagej_note(fields, resolution, full)
    if shaped := _shaped(description):
        return _shaped_note(shaped[0], shaped[1], full, pages)
    return []


# ---- OME-XML: https://docs.openmicroscopy.org/ome-model/latest/ome-tiff/specification.html -----------------------


def _ome(description: str, pages: int) -> list[Note] | None:
    """A note for each image, of the planes in this very file; None if the text is no OME-XML."""
    if "<OME" not in description[:4096]:
        return None
    try:
        root = ElementTree.fromstring(description.encode(), forbid_dtd=True)
        if _name(root) != "OME":
            return None
        own = root.get("UUID")
        found = [pixels for image in root if _name(image) == "Image" for pixels in image if _name(pixels) == "Pixels"]
        return _all_pixels(found, own, pages)
    except Exception:  # its text stays in the header; the pages are what they are without it
        return None


def _all_pixels(found: Sequence[Any], own: str | None, pages: int) -> list[Note]:
    notes, left = [], MOST_OME_PLANES
    for pixels in found:
        note, planes = _pixels(pixels, own, pages, left)
        notes.append(note)
        left -= planes
    return notes


def _pixels(pixels: Any, own: str | None, pages: int, most: int) -> tuple[Note, int]:
    """The note, and how many planes it names; ValueError if those are more than ``most``."""
    order = pixels.get("DimensionOrder", "XYCZT")
    letters = order[:1:-1]  # slowest first
    if sorted(order) != sorted("XYCZT") or not order.startswith("XY"):
        raise ValueError(order)
    channels = [int(channel.get("SamplesPerPixel", 1)) for channel in pixels if _name(channel) == "Channel"]
    sizes = {letter: int(pixels.get(f"Size{letter}", 1)) for letter in letters}
    sizes["C"] = max(1, sizes["C"] // (channels[0] if channels and channels[0] > 0 else 1))
    shape = tuple(sizes[letter] for letter in letters)
    if min(shape) < 1 or math.prod(shape) > most:
        raise ValueError(f"{shape}")
    numbers = np.full(math.prod(shape), -1, np.int64)
    for data in pixels:
        if _name(data) == "TiffData" and not _elsewhere(data, own):
            _place(data, numbers, letters, shape, pages)
    spacing, units = {}, {}
    for letter, key, unit in (("X", "PhysicalSizeX", "µm"), ("Y", "PhysicalSizeY", "µm"), ("Z", "PhysicalSizeZ", "µm")):
        spacing[letter.lower()], units[letter.lower()] = _size(pixels, key, unit)
    spacing["t"], units["t"] = _size(pixels, "TimeIncrement", "s")
    axes = tuple(OME_AXES[letter] for letter in letters)
    return Note(axes, _boxed(numbers.reshape(shape)), _known(spacing), _known(units)), len(numbers)


def _place(data: Any, numbers: npt.NDArray[np.int64], letters: str, shape: tuple[int, ...], pages: int) -> None:
    """Pages from ``IFD`` on are the planes from ``FirstZ``, ``FirstC``, ``FirstT`` on, in the order of dimensions."""
    first = np.ravel_multi_index([int(data.get(f"First{letter}", 0)) for letter in letters], shape)
    ifd = int(data.get("IFD", 0))
    count = int(data.get("PlaneCount", 1 if "IFD" in data.attrib else min(len(numbers) - first, pages - ifd)))
    if min(ifd, count) < 0 or first + count > len(numbers) or ifd + count > pages:
        raise ValueError(f"pages {ifd} to {ifd + count} of {pages}")
    numbers[first : first + count] = np.arange(ifd, ifd + count)


def _boxed(numbers: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """The part of the grid that is in this file; nothing if it is no box."""
    here = np.argwhere(numbers >= 0)
    if not len(here):
        return np.empty((0,) * numbers.ndim, np.int64)
    box = numbers[tuple(slice(low, high + 1) for low, high in zip(here.min(0), here.max(0), strict=True))]
    return box if (box >= 0).all() else np.empty((0,) * numbers.ndim, np.int64)


def _elsewhere(data: Any, own: str | None) -> bool:
    """Is the plane in another file of the same set? That one goes in by itself."""
    uuids = [child for child in data if _name(child) == "UUID"]
    return bool(uuids) and own is not None and (uuids[0].text or "").strip() != own


def _size(pixels: Any, key: str, unit: str) -> tuple[float, str]:
    value = float(pixels.get(key, "nan"))
    return value, pixels.get(key + "Unit", unit) if math.isfinite(value) else ""


def _known(found: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in found.items() if value and value == value}


def _name(element: Any) -> str:
    return str(element.tag).rpartition("}")[2]


# ---- ImageJ: lines of key=value; the resolution is in pixels a unit ------------------------------------------------


def _imagej(description: str) -> dict[str, str]:
    if not description.startswith("ImageJ="):
        return {}
    return dict(line.strip().split("=", 1) for line in description.splitlines() if "=" in line)


def _imagej_note(fields: dict[str, str], resolution: tuple[float, float], full: list[int]) -> list[Note]:
    sizes = [int(fields[key]) if fields.get(key, "").isdecimal() else 1 for key, _ in IMAGEJ_COUNTS]
    names = tuple(name for _, name in IMAGEJ_COUNTS)
    if math.prod(sizes) != len(full):  # what ImageJ leaves out is a plain stack
        sizes, names = [len(full)], ("page",)
    unit = fields.get("unit", "").replace("\\u00B5", "µ")
    spacing = {axis: 1 / value for axis, value in zip("xy", resolution, strict=True) if value > 0}
    spacing["z"], spacing["t"] = _number(fields.get("spacing")), _number(fields.get("finterval"))
    units = dict.fromkeys(("x", "y", "z"), "" if unit == "pixel" else unit) | {"t": fields.get("tunit", "s")}
    if not unit or unit == "pixel":  # then the resolution is no size
        spacing = {"z": spacing["z"], "t": spacing["t"]}
    return [Note(names, np.array(full).reshape(sizes), _known(spacing), _known(units))]


def _number(text: str | None) -> float:
    try:
        return float(text or "nan")
    except ValueError:
        return math.nan


# ---- tifffile's own note: {"shape": [7, 5, 167, 439], "axes": "TZYX"} ------------------------------------------------


def _shaped(description: str) -> tuple[tuple[int, ...], str, bool] | None:
    """Shape, axes (may be "") and whether a lone directory stands for all pages."""
    if not re.match(r'\{"shape": ?\[', description):
        return None
    try:
        fields = json.loads(description)
        shape = tuple(int(size) for size in fields["shape"])
        axes = fields.get("axes", "")
        axes = axes if isinstance(axes, str) and len(axes) == len(shape) == len(set(axes)) else ""
    except (ValueError, TypeError, KeyError, RecursionError):
        return None
    good = shape and min(shape) > 0 and math.prod(shape) < 1 << 62
    return (shape, axes, bool(fields.get("truncated"))) if good else None


def _shaped_note(shape: tuple[int, ...], axes: str, full: list[int], pages: Sequence[Page]) -> list[Note]:
    """The leading axes whose product is the number of pages."""
    for split in range(len(shape)):
        own = math.prod(size for size in shape[split:])
        if math.prod(shape[:split]) == len(full) and own * len(full) == math.prod(shape):
            if own != math.prod(pages[full[0]].shape):
                continue
            names = [_axis_name(letter) for letter in axes[:split]] or [f"axis{k}" for k in range(split)]
            if not axes and sum(size > 1 for size in shape[:split]) <= 1:
                names = ["page" if size > 1 else name for size, name in zip(shape, names, strict=False)]
            return [Note(tuple(names), np.array(full).reshape(shape[:split]), {}, {})] if split else []
    return []


def _axis_name(letter: str) -> str:
    names = {**OME_AXES, "Q": "page", "I": "page", "S": "channel"}
    return names.get(letter, letter.lower())


def resolution_of(skeleton: Skeleton, ifd: Ifd) -> tuple[float, float]:
    """Pixels a unit along x and y; 0 where the file does not say."""
    return _rational(skeleton, ifd, X_RESOLUTION), _rational(skeleton, ifd, Y_RESOLUTION)


def _rational(skeleton: Skeleton, ifd: Ifd, code: int) -> float:
    tag = ifd.by_code.get(code)
    if tag is None or tag.kind != 5 or tag.count != 1:
        return 0.0
    numerator, denominator = skeleton.values(tag)
    return numerator / denominator if denominator else 0.0


def planes_behind(page: Page, count: int, size: int) -> list[Page]:
    """The planes of a lone page: those that lie right behind it, without directories of their own.

    It alone if not even a second one fits there (its note is of the stack that it was cut from). ValueError if some do.
    """
    start = page.linear
    if start is None or start + 2 * page.bytes > size:
        return [page]
    if start + count * page.bytes > size:
        raise ValueError(f"{count} planes of {page.bytes} bytes after one another, in a file of {size}")
    starts = range(start, start + count * page.bytes, page.bytes)
    return [Page(page.ifd, page.layout, (at,), (page.bytes,), None, page.like) for at in starts]
