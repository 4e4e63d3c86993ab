"""TIFF as scans: stacks of equal pages, OME-TIFF, ImageJ's and MetaMorph's stacks, pages that are volumes.

Axes, spacing and units are those of OME-XML or ImageJ's note; pages without a note lie along the axis ``page``. Of an
OME-TIFF that is one of several files, the planes in it are read. See ``tiff/reading.py`` for what its metadata says.
"""

import io
from collections.abc import Iterator, Sequence
from pathlib import Path

from aunn_data.errors import InputError
from aunn_data.record import Record
from pipelines.source import HEAD_BYTES, Source
from pipelines.tiff import reading, writing
from pipelines.tiff.ifd import MAGIC, Skeleton
from pipelines.tiff.stacks import is_stack

MODALITY = "scan"
FORMATS = ("tiff_stack",)


def sniff(head: bytes, path: Path) -> bool:
    """By magic number, and what the first directories say; these may lie anywhere in the file."""
    if not MAGIC.match(head) or head[128:132] == b"DICM":
        return False
    if len(head) == HEAD_BYTES:
        try:
            with path.open("rb", 0) as file:
                if file.read(len(head)) == head:
                    return is_stack(Skeleton(file, path))
        except (OSError, InputError):
            pass
    try:  # all of a little file; of a compressed one its head at least
        return is_stack(Skeleton(io.BytesIO(head), path))
    except InputError:
        return False


def read(source: Source) -> Iterator[Record | InputError]:
    """A record ``name``, or ``name#1``, ``name#2``, … where there are several stacks or pages unlike them."""
    yield from reading.read(source, image=False)


def write(records: Sequence[Record], path: Path) -> Path:
    """A TIFF of equal samples, tags and pages, in strips; lossy compression becomes deflate."""
    return writing.write(records, path)
