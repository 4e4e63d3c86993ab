"""The formats, in the order in which they are asked whether a file is theirs: content before name, plain text last.

A format is a module with five names::

    MODALITY: str                    "text", "image", "scan" or "chess"
    FORMATS: tuple[str, ...]         the values of a header's ``format`` that it reads and writes
    sniff(head, path) -> bool        is this file mine? ``head`` is its first HEAD_BYTES
    read(path, name) -> Iterator     its records, or an InputError in the place of one that cannot go in
    write(records, path) -> Path     the file again, from all its records in order; returns the path really written
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Protocol

from aunn_data.errors import InputError
from aunn_data.record import Record
from pipelines.chess import pgn
from pipelines.images import pillow
from pipelines.scans import nifti, npy
from pipelines.text import plain

HEAD_BYTES = 4096


class Format(Protocol):
    """What a format's module offers."""

    @property
    def MODALITY(self) -> str:
        """Text, image, scan or chess."""

    @property
    def FORMATS(self) -> tuple[str, ...]:
        """The values of a header's ``format`` that it reads and writes."""

    def sniff(self, head: bytes, path: Path) -> bool:
        """Is this file mine?"""

    def read(self, path: Path, name: str) -> Iterator[Record | InputError]:
        """Its records, or an InputError in the place of one that cannot go in."""

    def write(self, records: Sequence[Record], path: Path) -> Path:
        """The file again; returns the path really written."""


ALL: tuple[Format, ...] = (nifti, npy, pillow, pgn, plain)


def recognise(path: Path) -> Format:
    """The format of a file. Raises InputError if it cannot be read, is empty or is of no known format."""
    try:
        with path.open("rb") as file:
            head = file.read(HEAD_BYTES)
    except OSError as error:
        raise InputError(
            path,
            expected="a readable file",
            found=error.strerror or str(error),
            remedy="check the path and its permissions",
        ) from error
    if not head:
        raise InputError(path, expected="at least one byte", found="an empty file", remedy="leave it out or restore it")
    for format in ALL:
        if format.sniff(head, path):
            return format
    raise InputError(
        path,
        expected="text, an image, a NIfTI or .npy volume, or PGN",
        found=f"bytes that begin with {head[:8]!r}",
        remedy="convert it to one of these (docs/add-a-format.md tells how to add a format)",
    )


def named(name: str) -> Format:
    """The format that writes records whose header names it."""
    return next(format for format in ALL if name in format.FORMATS)
