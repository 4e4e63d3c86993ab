"""What lies below the paths given, in a fixed order: single files, and files and folders that are one thing together.

A format that is more than one file says so with ``gather`` (see formats.py); it is asked for every folder. A note that
is called like the one image or scan beside it is its sidecar and joins its header: see SIDECARS. What is called
``NAME.missing.EXT`` beside ``NAME.EXT`` is a scan of the same shape that is not 0 where the other one is missing.
"""

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

from aunn_data.errors import InputError
from pipelines import compressed, formats
from pipelines.options import Options
from pipelines.source import Group, Source, unreadable

SIDECARS = {".json": ("image", "scan"), ".txt": ("image",), ".bval": ("scan",), ".bvec": ("scan",)}
MASK = ".missing"
MOST_SIDECAR_BYTES = 1 << 16
MOST_TIMES = 16  # that one folder goes in by links: folders that link to one another make n! paths
_Identity = tuple[int, int]  # device and inode


def walk(
    paths: Sequence[Path], corpus: str | Path, options: Options | None = None, parent: Source | None = None
) -> Iterator[Source | InputError]:
    """All sources below the paths, named by their path below the folder given; the corpus is left out.

    ``parent`` is the archive that was unpacked there.
    """
    options = options or Options()
    left_out = _identity(Path(corpus))
    for folder, files in groupby(paths, key=lambda path: None if path.is_dir() else path.parent):
        if folder is not None:
            yield from _Walk(folder, left_out, options, parent).files(folder, [path.name for path in files])
            continue
        for path in files:
            yield from _Walk(path, left_out, options, parent).folder(path)


class _Waiting(NamedTuple):
    """A folder to be walked, what folders it lies in, and whether a link led there."""

    folder: Path
    above: frozenset[_Identity | None]
    by_link: bool


class _Walk:
    """The way through one path."""

    def __init__(self, root: Path, left_out: "_Identity | None", options: Options, parent: Source | None):
        self.root, self.left_out, self.options, self.parent = root, left_out, options, parent
        self.taken: set[Path] = set()  # by groups
        self.times: Counter[_Identity | None] = Counter()  # that a folder went in by links

    def files(self, folder: Path, given: list[str]) -> Iterator[Source | InputError]:
        """Files given one by one: with all that belongs to them; a group is taken whole where all of it is given."""
        try:
            there, folders = _listed(folder)
        except OSError:
            there, folders = [], []
        asked = set(given)
        for group, format in self._groups(folder, there, folders):
            if group.name in asked or (group.files and asked.issuperset(group.files)):
                yield self._source(folder / group.name, self._name(folder / group.name), _paths(folder, group), format)
            else:
                self.taken.difference_update(folder / file for file in group.files)
        stems = {_stem(name) for name in given}
        notes = [f for f in there if (Path(f).suffix.lower() in SIDECARS or MASK in f) and _base(f) in stems]
        for source in self._singles(folder, self._left(folder, sorted({*notes, *given}))):
            if not isinstance(source, Source) or source.path.name in asked:
                yield source

    def folder(self, folder: Path) -> Iterator[Source | InputError]:
        """All that lies in a folder and below it, groups first; however deep it goes."""
        waiting = [_Waiting(folder, frozenset(), False)]
        while waiting:
            folder, above, by_link = waiting.pop()
            this = _identity(folder)
            by_link = by_link or (bool(above) and folder.is_symlink())
            if this in above or (by_link and self.times[this] >= MOST_TIMES):
                found = "a link to one above it" if this in above else f"links to it in {MOST_TIMES} other places"
                yield InputError(folder, expected="a folder", found=found, remedy="leave the link out")
            elif this is None or this != self.left_out:
                self.times[this] += by_link
                below: list[str] = []
                yield from self._in_folder(folder, below)
                inside = above | {this} if below else above
                waiting.extend(_Waiting(folder / name, inside, by_link) for name in reversed(below))

    def _in_folder(self, folder: Path, below: list[str]) -> Iterator[Source | InputError]:
        """What lies in one folder; the names of those in it go to ``below``, unless all of it is one group."""
        try:
            files, folders = _listed(folder)
            for group, format in self._groups(folder, files, folders):
                yield self._source(folder / group.name, self._name(folder / group.name), _paths(folder, group), format)
                if group.whole:
                    return
            yield from self._singles(folder, self._left(folder, files))
        except OSError as error:  # not to be listed, or its path is longer than the system takes
            yield unreadable(folder, error)
            return
        below.extend(folders)

    def _left(self, folder: Path, files: list[str]) -> list[str]:
        return [file for file in files if folder / file not in self.taken]

    def _groups(self, folder: Path, files: list[str], folders: list[str]) -> Iterator[tuple[Group, str]]:
        """The groups of all formats, of files that no other has taken; of a whole folder also whose it is.

        Nobody is shown a pipe, which may never end.
        """
        regular = [file for file in files if (folder / file).is_file()]
        for module in formats.GATHERING:
            for group in module.gather(folder, self._left(folder, regular), folders):
                self.taken.update(folder / file for file in group.files)
                yield group, "" if group.name else module.FORMATS[0]

    def _singles(self, folder: Path, files: list[str]) -> Iterator[Source | InputError]:
        notes = _sidecars(folder, files)
        masks = _masks(folder, files)
        joined = {note for beside in notes.values() for note in beside} | set(masks.values())
        for file in files:
            if file not in joined:
                source = self._single(folder / file, self._name(folder / file))
                if isinstance(source, Source):
                    source = replace(
                        source,
                        sidecars=tuple(folder / note for note in notes.get(file, ())),
                        mask=folder / masks[file] if file in masks else None,
                    )
                yield source

    def _name(self, path: Path) -> str:
        if path != self.root:
            return path.relative_to(self.root).as_posix()
        return self.parent.inner.stem if self.parent else Path(os.path.abspath(path)).name

    def _single(self, path: Path, name: str) -> Source | InputError:
        if path.exists() and not path.is_file():
            return InputError(path, expected="a regular file", found="a device, pipe or socket", remedy="leave it out")
        return self._source(path, name)

    def _source(self, path: Path, name: str, files: tuple[Path, ...] = (), format: str = "") -> Source | InputError:
        try:
            (self.options.prefix + name).encode()
        except UnicodeEncodeError:
            return InputError(
                repr(os.fsencode(path))[2:-1], expected="a name in UTF-8", found="other bytes", remedy="rename the file"
            )
        if self.parent:
            return replace(self.parent.within(path, name), files=files, format=format)
        return Source(path, self.options.prefix + name, self.options, files, format=format)


def _listed(folder: Path) -> tuple[list[str], list[str]]:
    """Names of files and of folders, links to folders included, each sorted."""
    with os.scandir(folder) as found:
        entries = sorted((entry.name, _is_folder(entry)) for entry in found)
    return [name for name, is_dir in entries if not is_dir], [name for name, is_dir in entries if is_dir]


def _is_folder(entry: "os.DirEntry[str]") -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself: reported by its own name, like every file that cannot be read
        return False


def _identity(folder: Path) -> _Identity | None:
    """What tells a folder from others, whatever path leads to it; None if there is none."""
    try:
        found = os.stat(folder)
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _paths(folder: Path, group: Group) -> tuple[Path, ...]:
    if not group.whole:
        return tuple(folder / file for file in group.files)
    return tuple(sorted(path for path in (folder / group.name).rglob("*") if path.is_file()))


def _sidecars(folder: Path, files: list[str]) -> dict[str, list[str]]:
    """For each image or scan the notes that are called like it, if nothing else is called so."""
    stems: dict[str, list[str]] = {}
    for file in files:
        stems.setdefault(_stem(file), []).append(file)
    found = {}
    for same in stems.values():
        notes = [file for file in same if Path(file).suffix.lower() in SIDECARS]
        others = [file for file in same if file not in notes]
        if notes and len(others) == 1 and (modality := _modality(folder / others[0])):
            found[others[0]] = [
                note for note in notes if modality in SIDECARS[Path(note).suffix.lower()] and _is_note(folder / note)
            ]
    return found


def _masks(folder: Path, files: list[str]) -> dict[str, str]:
    """The mask beside each scan that has one."""
    found = {}
    for mask in files:
        stem = _stem(mask)
        if stem.endswith(MASK):
            of = [file for file in files if _stem(file) == stem.removesuffix(MASK)]
            scans = [file for file in (*of, mask) if _modality(folder / file) == "scan"]
            if len(scans) == 2 and mask in scans:
                found[scans[0]] = mask
    return found


def _stem(file: str) -> str:
    return compressed.inner_name(Path(file)).stem


def _is_note(path: Path) -> bool:
    try:
        fits = path.is_file() and path.stat().st_size <= MOST_SIDECAR_BYTES
        return fits and bool(path.read_bytes().decode())
    except (OSError, UnicodeDecodeError):
        return False


def _base(file: str) -> str:
    """What a note or mask, by its name, may belong to."""
    return _stem(file).removesuffix(MASK)


def _modality(path: Path) -> str:
    try:
        return formats.recognise(Source(path, path.name)).MODALITY if path.is_file() else ""
    except InputError:
        return ""
