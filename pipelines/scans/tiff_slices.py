"""A folder of numbered TIFF slices as one scan (z, y, x).

Slices are three files or more whose names differ in one number, the last one in them, without a gap: ``s_008.tif``,
``s_009.tif``, ``s_010.tif``; each one grey page, all of one size and type. Where a number is missing, a slice is
damaged or unlike the others, nothing is guessed: what lies before and behind are scans of their own, called
``folder::s_008.tif`` by their first slice. So are sets with several names. Numbers that say channel or time (``ch2``,
``t5``) make no slices.
"""

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

from aunn_data.errors import InputError
from aunn_data.geometry import Geometry, fitted
from aunn_data.header import Header
from aunn_data.record import Record
from pipelines.source import Group, Source
from pipelines.stored import marks_of
from pipelines.tiff.ifd import Skeleton
from pipelines.tiff.pages import Layout
from pipelines.tiff.slices import Slice, Slices, opened, write_slices
from pipelines.tiff.stacks import is_grey, is_stack

MODALITY = "scan"
FORMATS = ("tiff_slices",)

NAME = re.compile(r"(?P<before>.*?)(?P<number>\d+)(?P<after>\D*\.tiff?)", re.IGNORECASE)
NO_SLICES = re.compile(r"(?:^|[^a-z])(?:ch?|channel|w|t|time|frame|page)[_\-. ]*$", re.IGNORECASE)
FEWEST = 3
MOST_DIGITS = 18
HEAD = 132  # bytes in which a file says that it is DICOM


def sniff(head: bytes, path: Path) -> bool:
    """A folder with slices in it."""
    return not head and path.is_dir() and bool(runs(path, [found.name for found in path.iterdir()]))


def gather(folder: Path, files: Sequence[str], folders: Sequence[str]) -> Iterator[Group]:
    """All slices of a folder: it is their source."""
    if found := [name for run in runs(folder, files) for name in run]:
        yield Group("", tuple(found))


def read(source: Source) -> Iterator[Record | InputError]:
    """A record of the folder's name; of several runs one each, ``name::first slice``. A damaged slice is refused."""
    names = [file.name for file in source.files] or [found.name for found in source.path.iterdir()]
    found = [part for run in runs(source.path, names) for part in _parts(source, run)]
    for part in found:
        if isinstance(part, InputError):
            yield part
            continue
        try:
            name = f"{source.name}::{part[0].path.name}" if len(found) > 1 else source.name
            yield record_of(Slices(part, source), name, source, "tiff_slices")
        except InputError as error:
            yield error


def _parts(source: Source, run: Sequence[str]) -> Iterator[list[Slice] | InputError]:
    """A run as slices of one kind each, and what is wrong with those that are damaged."""
    layouts: dict[Any, Layout] = {}
    part: list[Slice] = []
    for name in run:
        try:
            slice = opened(source.path / name, source, layouts)
        except InputError as error:
            if part:
                yield part
            yield error
            part = []
            continue
        if part and slice.page.like != part[0].page.like:
            yield part
            part = []
        part.append(slice)
    if part:
        yield part


def record_of(
    slices: Slices,
    name: str,
    source: Source,
    format: str,
    more: dict[str, Any] | None = None,
    **geometry: Any,
) -> Record:
    """The record of slices, with what else the header says."""
    missing = marks_of(slices, slices.nothing)
    found = fitted(Geometry(slices.dtype.str, ("z", "y", "x"), slices.shape, **geometry), slices, missing)
    metadata = {**slices.metadata, **(more or {})}
    return Record(Header(name, source.name, MODALITY, format, found, metadata), slices, missing)


def write(records: Sequence[Record], path: Path) -> Path:
    """The folder of slices, each with its name and its tags."""
    for record in records:
        write_slices(record, path)
    return path


def runs(folder: Path, names: Iterable[str]) -> list[list[str]]:
    """The slices of a folder: names without a gap, files that do not contradict one another."""
    sets: dict[tuple[str, str], dict[int, list[str]]] = {}
    for name in names:
        if name.lower().endswith((".tif", ".tiff")) and (found := NAME.fullmatch(name)):
            before, number, after = found["before"], found["number"], found["after"]
            if len(number) <= MOST_DIGITS and not NO_SLICES.search(before):
                sets.setdefault((before, after), {}).setdefault(int(number), []).append(name)
    broken = (run for numbered in sets.values() for run in _unbroken(numbered))
    return sorted(part for run in broken for part in _alike(folder, run))


def _unbroken(numbered: dict[int, list[str]]) -> Iterator[list[str]]:
    """Names by ascending number, a list for each run without a gap. None if two files have one number."""
    if any(len(same) > 1 for same in numbered.values()):
        return
    run: list[str] = []
    for number in sorted(numbered):
        if run and number - 1 not in numbered:
            yield run
            run = []
        run.append(numbered[number][0])
    if run:
        yield run


def _alike(folder: Path, run: Sequence[str]) -> Iterator[list[str]]:
    """The parts of a run that are grey pages, most of them of one kind. A damaged file does not part them."""
    if len(run) < FEWEST:
        return
    kinds = {name: _kind(folder / name) for name in run}
    for other, group in groupby(run, key=lambda name: kinds[name] == ()):
        part = list(group)
        common = Counter(kinds[name] for name in part if kinds[name] is not None).most_common(1)
        if not other and len(part) >= FEWEST and common and 2 * common[0][1] > len(part):
            yield part


def _kind(path: Path) -> tuple[Any, ...] | None:
    """Size and type of a lone grey page; () of anything else, None where the file is damaged."""
    try:
        with path.open("rb") as file:
            head = file.read(HEAD)
            if head[128:132] == b"DICM":
                return ()
            skeleton = Skeleton(file, path)
            ifd, *more = skeleton.chain(most=2)
            if more or is_stack(skeleton) or not is_grey(skeleton, ifd):
                return ()
            return tuple(skeleton.numbers(ifd, code) for code in (256, 257, 258, 339))
    except (OSError, InputError):
        return None
