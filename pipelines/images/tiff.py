"""TIFF as images: one record a page, SubIFDs included; see ``tiff/reading.py`` for what its metadata says.

What is a stack of equal pages goes to ``scans/tiff.py``.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

from aunn_data.errors import InputError
from aunn_data.record import Record
from pipelines.images import pillow
from pipelines.source import Source
from pipelines.tiff import reading, writing
from pipelines.tiff.ifd import MAGIC

MODALITY = "image"
FORMATS = ("tiff",)


def sniff(head: bytes, path: Path) -> bool:
    """By magic number. A DICOM file may bear a TIFF's in its preamble and is none."""
    return MAGIC.match(head) is not None and head[128:132] != b"DICM"


def read(source: Source) -> Iterator[Record | InputError]:
    """A record ``name``, or ``name#1``, ``name#2``, … where there are several pages; ``name#1.1`` is a SubIFD's.

    A compressed file cannot be looked through before it is unpacked here: where it is a stack, it is read as a scan.
    """
    yield from reading.read(source, image=None if source.codecs else True)


def write(records: Sequence[Record], path: Path) -> Path:
    """A TIFF of equal samples, tags and pages, in strips; lossy compression becomes deflate."""
    if "mode" in records[0].header.metadata:  # records of corpora from before this reader say what Pillow said
        return pillow.write(records, path)
    return writing.write(records, path)
