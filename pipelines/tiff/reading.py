"""A TIFF -> records: pages as images, or as scans what its notes say belongs together.

Metadata: ``tags`` are all tags but those that only say how the pixels lie (see ``tags``), of a scan those of its first
page; ``pages`` what later pages say else, as [tags, number of pages] in the order of the grid. ``first_page`` and
``page_steps`` (or ``page_numbers``) say which page lies where in the grid of ``page_axes``. ``bits`` a sample, where
the type has more; ``planar``, ``big`` (BigTIFF), ``byte_order`` where not little; ``parent`` the page of which this is
a SubIFD. ``palette`` (base64, 8 bits a colour) and ``orientation`` (not applied) repeat tags. ``left_out`` lists what
was left out.
"""

import base64
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from aunn_data.errors import InputError
from aunn_data.geometry import Geometry, fitted
from aunn_data.header import Header
from aunn_data.record import Record
from pipelines.source import Source
from pipelines.stored import marks_of, refusing
from pipelines.tiff.ifd import SUB_IFDS, Ifd, Skeleton
from pipelines.tiff.pages import (
    COLOUR_MAP,
    FREE_BYTES,
    GDAL_NODATA,
    PAGE,
    PALETTE,
    REMEDY,
    Page,
    Pages,
)
from pipelines.tiff.planes import Components, elements_of
from pipelines.tiff.stacks import DESCRIPTION, Note, is_stack, planes_behind, planes_in, resolution_of, series_of
from pipelines.tiff.tags import Json, differences, number_in, tags_of

ORIENTATION = 274
MOST_PAGES = 1 << 22


@dataclass(frozen=True)
class Place:
    """Where a record's pages stand: its number for its name, and the page whose SubIFD it is (0: none)."""

    name: str
    parent: int = 0


def read(source: Source, image: bool | None = None) -> Iterator[Record | InputError]:
    """The records of a TIFF: of modality image, a page each, or scan. None: as its notes say."""
    path = source.local()
    with source.file() as file, refusing(path, "a TIFF", REMEDY):
        skeleton = Skeleton(file, path)
        if image is None:
            image = not is_stack(skeleton)
        reader = _Reader(source, path, skeleton)
        yield from reader.images() if image else reader.scans()


class _Reader:
    def __init__(self, source: Source, path: Path, skeleton: Skeleton):
        self.source, self.path, self.skeleton = source, path, skeleton
        self.pages = Pages(skeleton, path, source.options.limits)
        self.claimed = 0  # bytes of all pages so far

    def images(self) -> Iterator[Record | InputError]:
        """A record a page, SubIFDs after the page that they belong to. Ends at the first bad one."""
        found = list(self._all())
        for number, (place, ifd) in enumerate(found):
            name = place.name if len(found) > 1 else ""
            try:
                page = self._page(ifd, f"{self.path}{name}")
                note = series_of(self._note(ifd), resolution_of(self.skeleton, ifd), [page])[0]
                if note.numbers.ndim:
                    note = Note((), np.array(0), note.spacing, note.units)
                with refusing(f"{self.path}{name}", PAGE, REMEDY):
                    yield self._record(note, [page], name, {"parent": place.parent} if place.parent else {}, "image")
            except InputError as error:
                if not number:
                    raise
                yield error
                return

    def scans(self) -> Iterator[Record | InputError]:
        """A record for each set of pages that belong together."""
        ifds = list(self._chain())
        pages = [self._page(ifd, f"{self.path}#{number}") for number, ifd in enumerate(ifds, 1)]
        if len(pages) == 1 and (count := planes_in(self.skeleton, ifds[0])) > 1:
            pages = planes_behind(pages[0], count, self.skeleton.size)
        note, resolution = self._note(ifds[0]), resolution_of(self.skeleton, ifds[0])
        series = series_of(note, resolution, pages)
        for number, found in enumerate(series, 1):
            name = f"#{number}" if len(series) > 1 else ""
            yield self._record(found, pages, name, _places(found.numbers), "scan")

    def _note(self, ifd: Ifd) -> str:
        return self.skeleton.text(ifd, DESCRIPTION)

    def _chain(self) -> Iterator[Ifd]:
        for number, ifd in enumerate(self.skeleton.chain()):
            if number >= MOST_PAGES:
                raise self.skeleton.bad(f"at most {MOST_PAGES} pages", "more")
            yield ifd

    def _all(self) -> Iterator[tuple[Place, Ifd]]:
        """All directories, with those below them. A chain that breaks amid is an error of its own."""
        for number, ifd in enumerate(self._chain(), 1):
            yield Place(f"#{number}"), ifd
            for below, offset in enumerate(self.skeleton.numbers(ifd, SUB_IFDS), 1):
                yield Place(f"#{number}.{below}", number), self.skeleton.ifd(offset)

    def _page(self, ifd: Ifd, where: str) -> Page:
        page = self.pages.page(ifd, where)
        self.claimed += page.bytes
        most = int(self.skeleton.size * self.source.options.limits.max_ratio) + FREE_BYTES
        if self.claimed > most:
            raise self.skeleton.bad(f"pages in a file of {self.skeleton.size} bytes", f"{self.claimed} bytes of them")
        return page

    def _record(self, note: Note, pages: Sequence[Page], name: str, places: dict[str, Any], modality: str) -> Record:
        """A record of some pages."""
        numbers = note.numbers.ravel().tolist()
        first = pages[numbers[0]]
        where = f"{self.path}{name}"
        elements = elements_of(self.path, pages, note.numbers, self.source, where, self.skeleton.read)
        axes = (*note.axes, *first.layout.axes)
        if "channel" in first.layout.axes and note.axes:
            axes = ("channel", *note.axes, *first.layout.axes[1:])
        if elements.dtype.kind == "c":
            elements, axes = Components(elements), ("component", *axes)
        nothing = first.layout.page.nodata if GDAL_NODATA in first.layout.page.tags else None
        missing = marks_of(elements, nothing)
        metadata = {**self._metadata(pages, numbers, first), **places}
        if modality == "scan":
            metadata["page_axes"] = list(note.axes)
        geometry = Geometry(elements.dtype.str, axes, tuple(elements.shape), **_sizes(note, axes))
        geometry = fitted(geometry, elements, missing)
        format = "tiff" if modality == "image" else "tiff_stack"
        source = self.source.name
        return Record(Header(source + name, source, modality, format, geometry, metadata), elements, missing)

    def _metadata(self, pages: Sequence[Page], numbers: Sequence[int], first: Page) -> dict[str, Any]:
        said: dict[int, list[Json]] = {}
        left_out: list[str] = []
        for number in numbers:
            ifd = pages[number].ifd
            if ifd.offset not in said:
                said[ifd.offset], odd = tags_of(self.skeleton, ifd)
                left_out.extend(odd)
        below = sum(len(self.skeleton.numbers(pages[number].ifd, SUB_IFDS)) for number in numbers)
        if below and len(numbers) > 1:
            left_out.append(f"{below} images in SubIFDs")
        found = said_by([said[pages[number].ifd.offset] for number in numbers])
        found.update(layout_of(self.skeleton, first, found["tags"]))
        return {**found, "left_out": sorted(set(left_out))} if left_out else found


def said_by(tags: Sequence[list[Json]]) -> dict[str, Any]:
    """The tags of pages as metadata: all of the first page, and what others say else."""
    if len(tags) == 1:
        return {"tags": tags[0]}
    runs = [[other, len(list(group))] for other, group in groupby(differences(tags[0], page) for page in tags)]
    return {"tags": tags[0], **({"pages": runs} if any(other for other, _ in runs) else {})}


def layout_of(skeleton: Skeleton, first: Page, tags: Sequence[Json]) -> dict[str, Any]:
    """What the writer must know of the layout, and what others like to know."""
    page, dtype = first.layout.page, first.layout.dtype
    colours = skeleton.numbers(first.ifd, COLOUR_MAP)
    found: dict[str, Any] = {}
    if dtype.kind == "u" and page.bitspersample < 8 * dtype.itemsize:
        found["bits"] = int(page.bitspersample)
    if first.layout.shaped[0] > 1:
        found["planar"] = True
    if skeleton.big:
        found["big"] = True
    if skeleton.order == ">":
        found["byte_order"] = ">"
    if page.photometric == PALETTE and colours:
        table = np.array(colours, np.uint16).reshape(3, -1).T >> 8
        found["palette"] = base64.b64encode(table.astype(np.uint8).tobytes()).decode()
    if 1 < (orientation := number_in(tags, ORIENTATION, 1)) <= 8:
        found["orientation"] = orientation
    return found


def _sizes(note: Note, axes: Sequence[str]) -> dict[str, Any]:
    """Spacing and units of the axes; none where nothing is known of any."""
    if not set(note.spacing) & set(axes):
        return {}
    return {
        "spacing": tuple(float(note.spacing.get(axis, 1.0)) for axis in axes),
        "units": tuple(note.units.get(axis, "") if axis in note.spacing else "" for axis in axes),
    }


def _places(numbers: npt.NDArray[np.int64]) -> dict[str, Any]:
    """Which page lies where in the grid: the first, and the steps along its axes; a list where steps are uneven."""
    if not numbers.ndim:
        return {"first_page": int(numbers)} if int(numbers) else {}
    origin = (0,) * numbers.ndim
    first, steps, even = int(numbers[origin]), [], np.zeros((), np.int64)
    for axis, size in enumerate(numbers.shape):
        after = tuple(int(size > 1 and k == axis) for k in range(numbers.ndim))
        steps.append(int(numbers[after]) - first)
        even = even[..., None] + np.arange(size) * steps[-1]
    if not np.array_equal(even + first, numbers):
        return {"page_numbers": numbers.ravel().tolist()}
    plain = np.cumprod((1, *numbers.shape[:0:-1]))[::-1].tolist()
    return {**({"first_page": first} if first else {}), **({"page_steps": steps} if steps != plain else {})}
