"""Files of one page each as one array: read a slice at a time, written as the same files again."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from aunn_data.errors import InputError
from aunn_data.record import Record
from pipelines.source import Source, unreadable
from pipelines.stored import refusing
from pipelines.tiff import writing
from pipelines.tiff.ifd import Skeleton
from pipelines.tiff.pages import GDAL_NODATA, Layout, Page, Pages
from pipelines.tiff.planes import LOADED_BYTES, boxed, elements_of
from pipelines.tiff.reading import layout_of, said_by
from pipelines.tiff.tags import Json, applied, tags_of

REMEDY = "restore the slice, or move those that belong together to a folder of their own"
KEPT_SLICES = 4  # decoded or mapped at a time, or LOADED_BYTES of them if that is more


@dataclass(frozen=True)
class Slice:
    """A file of one page: how it is decoded, what its tags say, what the writer must know, what was left out."""

    path: Path
    page: Page
    tags: list[Json]
    layout: dict[str, Any]
    odd: tuple[str, ...]


def opened(path: Path, source: Source, layouts: dict[Any, Layout]) -> Slice:
    """The slice in a file. InputError if it is damaged or holds more than one page."""
    try:
        file = path.open("rb")
    except OSError as error:
        raise unreadable(path, error) from error
    with file, refusing(path, "a slice", REMEDY):
        skeleton = Skeleton(file, path)
        ifd, *more = skeleton.chain(most=2)
        if more:
            raise skeleton.bad("one page", "several")
        page = Pages(skeleton, path, source.options.limits, layouts).page(ifd, path)
        if len(page.shape) != 2:
            raise skeleton.bad("a grey page", f"axes {', '.join(page.layout.axes)}")
        tags, odd = tags_of(skeleton, ifd)
        return Slice(path, page, tags, layout_of(skeleton, page, tags), tuple(odd))


def same(slices: Sequence[Slice]) -> None:
    """InputError if one of the slices has another shape or type than the first."""
    first = slices[0]
    for other in slices:
        if other.page.like != first.page.like:
            expected = f"a slice of {_kind(first.page)} like {first.path.name}"
            raise InputError(other.path, expected=expected, found=_kind(other.page), remedy=REMEDY)


class Slices:
    """Array-like of slices of one kind: (slice, *page). ``metadata`` is what their names and tags say."""

    def __init__(self, slices: Sequence[Slice], source: Source):
        self.slices, self.source = slices, source
        first = slices[0].page
        self.shape, self.dtype = (len(slices), *first.shape), first.layout.dtype
        self.nothing = first.layout.page.nodata if GDAL_NODATA in first.layout.page.tags else None
        self._slice = lru_cache(maxsize=max(KEPT_SLICES, LOADED_BYTES // max(1, first.bytes)))(self._elements)

    @property
    def metadata(self) -> dict[str, Any]:
        """Names and tags of the slices."""
        names = [slice.path.name for slice in self.slices]
        found = {"slices": names, **said_by([slice.tags for slice in self.slices]), **self.slices[0].layout}
        odd = sorted({note for slice in self.slices for note in slice.odd})
        return {**found, "left_out": odd} if odd else found

    def __getitem__(self, key: Any) -> npt.NDArray[Any]:
        bounds, cut = boxed(key, self.shape)
        numbers = range(*bounds[0])
        out = np.empty((len(numbers), *(len(range(*bound)) for bound in bounds[1:])), self.dtype)
        inner = tuple(slice(*bound) for bound in bounds[1:])
        for into, number in zip(out, numbers, strict=True):
            into[...] = self._slice(number)[inner]
        picked: npt.NDArray[Any] = out[cut]
        return picked

    def _elements(self, number: int) -> Any:
        slice = self.slices[number]
        return elements_of(slice.path, [slice.page], np.array(0), self.source, slice.path)


def _kind(page: Page) -> str:
    return f"{'×'.join(map(str, page.shape))} samples of type {page.layout.dtype.str}"


def write_slices(record: Record, folder: Path) -> None:
    """A file for each index of the first axis, called as it was."""
    metadata = record.header.metadata
    names = metadata.get("slices", [])
    count = record.elements.shape[0]
    if len(names) != count:
        names = [f"{number:0{len(str(count - 1))}d}.tif" for number in range(count)]
    first = metadata.get("tags", [])
    others = [tags for tags, run in metadata.get("pages", []) for _ in range(run)]
    kept: dict[str, Any] = {key: metadata[key] for key in ("bits", "big", "byte_order") if key in metadata}
    geometry = replace(
        record.header.geometry,
        axes=record.header.geometry.axes[1:],
        shape=tuple(record.elements.shape[1:]),
        spacing=None,
        units=None,
    )
    folder.mkdir(parents=True, exist_ok=True)
    for number, name in enumerate(names):
        tags = applied(first, others[number]) if number < len(others) else first
        header = replace(record.header, geometry=geometry, metadata={**kept, "tags": tags})
        writing.write([Record(header, record.elements[number])], folder / Path(name).name)
