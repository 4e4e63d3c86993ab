"""The formats, in the order in which they are asked whether a source is theirs: content before name, plain text last.

A format is a module with five names::

    MODALITY: str                     "text", "image", "scan" or "chess"
    FORMATS: tuple[str, ...]          the values of a header's ``format`` that it reads and writes
    sniff(head, path) -> bool         is this mine? ``head`` is the first HEAD_BYTES, uncompressed, ``path`` without .gz
    read(source) -> Iterator          its records, many small ones as columns (``Records``), or an InputError in the
                                      place of one that cannot go in
    write(records, path) -> Path      the file again, from all its records in order; returns the path really written

and, where it is a folder or several files, a sixth::

    gather(folder, files, folders)    the groups of files in a folder that belong together

and, where one file may hold very many records that take long to read, two more::

    pieces(source), read_piece(source, piece)    what several processes can read at once
"""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

from aunn_data.errors import InputError, RequestError
from aunn_data.record import Record, Records
from pipelines.chess import pgn
from pipelines.images import coded, gif, heif, idx, pillow, png, pnm, tiff
from pipelines.scans import (
    afni,
    dicom,
    hdf5,
    metaimage,
    mgh,
    minc,
    mrc,
    nifti,
    npy,
    nrrd,
    parrec,
    raw,
    tiff_slices,
    tifxyz,
    volpkg,
    vtkjs,
    zarr_arrays,
)
from pipelines.scans import tiff as tiff_stack
from pipelines.source import HEAD_BYTES as HEAD_BYTES
from pipelines.source import Group, Source
from pipelines.text import jsonl, parquet, plain, warc


class Format(Protocol):
    """What a format's module offers."""

    @property
    def MODALITY(self) -> str:
        """Text, image, scan or chess."""

    @property
    def FORMATS(self) -> tuple[str, ...]:
        """The values of a header's ``format`` that it reads and writes."""

    def sniff(self, head: bytes, path: Path) -> bool:
        """Is this source mine?"""

    def read(self, source: Source) -> Iterator[Record | Records | InputError]:
        """Its records, many small ones as columns; an InputError in the place of one that cannot go in."""

    def write(self, records: Sequence[Record], path: Path) -> Path:
        """The file again; returns the path really written."""


class Gathering(Format, Protocol):
    """What a format offers that may be several files."""

    def gather(self, folder: Path, files: Sequence[str], folders: Sequence[str]) -> Iterator[Group]:
        """The groups among the files and folders of a folder."""


class Cuttable(Format, Protocol):
    """What a format offers that can be cut into pieces, each to be read by itself."""

    __name__: str

    def pieces(self, source: Source) -> Iterator[Any]:
        """The pieces of a source in order, each with what it takes to read it."""

    def read_piece(self, source: Source, piece: Any) -> Iterator[Record | InputError]:
        """The records of one piece."""


ALL: tuple[Format, ...] = (
    dicom,
    nifti,
    mrc,
    nrrd,
    metaimage,
    mgh,
    afni,
    parrec,
    minc,
    npy,
    png,
    gif,
    pnm,
    heif,
    coded,
    tiff_stack,
    tiff,
    raw,
    pillow,
    pgn,
    idx,
    hdf5,
    zarr_arrays,
    volpkg,
    tifxyz,
    vtkjs,
    tiff_slices,
    parquet,
    warc,
    jsonl,
    plain,
)
FOLDERS: tuple[Format, ...] = (dicom, raw, zarr_arrays, volpkg, tifxyz, vtkjs, tiff_slices)  # in the order of ALL
# The first bytes that files of a format may have: it is asked about no others. One that is not here looks elsewhere.
STARTS: tuple[tuple[Format, bytes], ...] = (
    (nrrd, b"N"),
    (mgh, b"\0"),
    (afni, b"t \t\n\r\x0b\x0c\x1c\x1d\x1e\x1f\x85\xa0"),
    (minc, b"\x89C"),
    (npy, b"\x93P"),
    (png, b"\x89"),
    (gif, b"G"),
    (pnm, b"P"),
    (coded, b"\0\xffq"),
    (tiff_stack, b"IM"),
    (tiff, b"IM"),
    (idx, b"\0"),
    (parquet, b"P"),
    (warc, b"W"),
)
GATHERING: tuple[Gathering, ...] = (
    dicom,
    zarr_arrays,
    idx,
    nifti,
    nrrd,
    metaimage,
    afni,
    parrec,
    volpkg,
    tifxyz,
    vtkjs,
    raw,
    tiff_slices,
)
CUTTABLE: tuple[Cuttable, ...] = (pgn,)


def _asked(first: int) -> tuple[Format, ...]:
    """The formats of files that begin with this byte."""
    others = [format for format, starts in STARTS if first not in starts]
    return tuple(format for format in ALL if format not in others)


_ASKED = tuple(_asked(first) for first in range(256))


def recognise(source: Source) -> Format:
    """The format of a source. Raises InputError if it cannot be read, is empty or is of no known format."""
    if source.format:
        return named(source.format)
    head = source.head
    if not head and not os.path.isdir(source.path):
        raise InputError(
            source.label, expected="at least one byte", found="an empty file", remedy="leave it out or restore it"
        )
    path = source.inner if source.codecs else source.path
    for format in _ASKED[head[0]] if head else FOLDERS:
        if format.sniff(head, path):
            return format
    raise InputError(
        source.label,
        expected="text, an image, a scan or PGN",
        found=f"bytes that begin with {head[:8]!r}",
        remedy="convert it to a format that the README names (docs/add-a-format.md tells how to add one)",
    )


def named(name: str) -> Format:
    """The format that writes records whose header names it."""
    for format in ALL:
        if name in format.FORMATS:
            return format
    raise RequestError(
        name,
        expected="a format of this release: " + ", ".join(name for format in ALL for name in format.FORMATS),
        found="another one",
        remedy="export it with --as npy, or with the release that ingested it",
    )
