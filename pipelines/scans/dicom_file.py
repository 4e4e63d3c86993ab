"""One DICOM file up to its pixel data, checked: https://dicom.nema.org/medical/dicom/current/output/html/part10.html

Legend: *before* is all bytes up to the value of the pixel data, *after* all bytes behind it; both are kept as they are,
so a file whose pixel data is not compressed is written byte for byte.
"""

import os
import struct
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any

import pydicom
from pydicom.datadict import dictionary_VR
from pydicom.filereader import read_file_meta_info
from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRLittleEndian

from aunn_data.errors import InputError
from pipelines.compressed import FREE_BYTES
from pipelines.scans.dicom_values import value_in
from pipelines.source import COPY_BYTES, Source
from pipelines.stored import refusing

MAGIC_AT, MAGIC = 128, b"DICM"
MOST_KEPT = 1 << 26  # bytes before and after the pixel data of one file
UNDEFINED = 0xFFFFFFFF
ITEM, DELIMITER = b"\xfe\xff\x00\xe0", b"\xfe\xff\xdd\xe0"
KEYWORDS = {0x7FE00008: "FloatPixelData", 0x7FE00009: "DoubleFloatPixelData", 0x7FE00010: "PixelData"}
LONG_VRS = (b"OB", b"OW", b"OF", b"OD", b"OL", b"OV", b"UN")
SHORT_VRS = b"AE AS AT CS DA DS DT FL FD IS LO LT PN SH SL SS ST TM UI UL US".split()
FIRST_GROUPS = (b"\2\0", b"\x08\0")  # of a file without preamble; of what follows one
TELLING = {0x00080010, 0x00080016, 0x00080060}  # recognition code, SOP class, modality: no other format has these
DEFLATED = DeflatedExplicitVRLittleEndian
INFLATED = ExplicitVRLittleEndian.encode().ljust(len(DEFLATED), b"\0")
REPAIR = "restore the file, or write it anew with pydicom"


@dataclass(frozen=True)
class Dicom:
    """A file's data set without its pixel data, and where that lies.

    ``path`` is a file of plain bytes (inflated, where the transfer syntax is deflated). ``start`` and ``length`` are
    the pixel data's value; ``encapsulated``: in items, compressed. ``big``: big-endian.
    """

    path: Path
    label: str
    dataset: Any
    syntax: str
    keyword: str
    vr: str
    big: bool
    start: int
    length: int
    encapsulated: bool

    def whole(self, keyword: str, default: int | None = None, least: int = 0, most: int = 1 << 31) -> int:
        """A whole number of the data set. InputError if it is none, or outside its range."""
        value = value_in(self.dataset, keyword)
        if value in (None, "") and default is not None:
            return default
        try:
            number = int(value)
        except (TypeError, ValueError):
            number = -1
        if not least <= number <= most:
            raise InputError(
                self.label, expected=f"{keyword} from {least} to {most}", found=f"{value!r}"[:80], remedy=REPAIR
            )
        return number


def has_magic(head: bytes) -> bool:
    """The preamble, DICM and an element of the first groups; or an older file that begins with such elements."""
    if head[MAGIC_AT : MAGIC_AT + 4] == MAGIC:
        group = head[MAGIC_AT + 4 : MAGIC_AT + 6]
        return len(group) < 2 or group in (b"\x02\0", b"\x08\0", b"\0\x08", b"\0\x02", b"\0\0")
    return head[:2] in FIRST_GROUPS and _is_naked(head)


def _is_naked(head: bytes) -> bool:
    """Do several elements follow one another that only a data set has? Strict: other files must not be claimed."""
    seen, known, at, last = set(), 0, 0, -1
    while at + 8 <= len(head):
        group, element, length = struct.unpack_from("<HHI", head, at)
        tag, vr, value_at = group << 16 | element, head[at + 4 : at + 6], at + 8
        if vr in SHORT_VRS:
            length = int.from_bytes(head[at + 6 : at + 8], "little")
        elif vr in (*LONG_VRS, b"SQ", b"UT"):
            length, value_at = int.from_bytes(head[at + 8 : at + 12], "little"), at + 12
        if tag <= last or length % 2 or length > 1 << 16:
            break
        explicit = value_at == at + 12 or vr in SHORT_VRS
        if element and not _fits(tag, vr if explicit else b""):
            break
        seen.add(tag)
        known += 1
        last, at = tag, value_at + length
    return known >= 3 and bool(seen & TELLING)


def _fits(tag: int, vr: bytes) -> bool:
    """Is this a tag of the dictionary, of this VR where the file says one?"""
    try:
        return not vr or vr == b"UN" or vr.decode() in dictionary_VR(tag).split(" or ")
    except KeyError:
        return False


@contextmanager
def quiet() -> Iterator[None]:
    """pydicom warns of values that break the rules; they are kept as they are, and nobody asked."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def opened(source: Source) -> Dicom:
    """The data set of a file, checked to have pixel data that is all there. InputError otherwise."""
    path, label = source.local(), source.label
    with refusing(label, "a DICOM file", REPAIR), quiet():
        if start := _deflated_from(path, source.head):
            path = _inflated(path, start, source)
        with path.open("rb") if start else source.file() as file:
            dicom = parsed(file, path, label)
        return replace(dicom, syntax=str(DEFLATED)) if start else dicom


def parsed(file: IO[bytes], path: Path, label: str, size: int | None = None) -> Dicom:
    """The data set of an open file of plain bytes; ``size`` None is the file's own."""
    size = file.seek(0, os.SEEK_END) if size is None else size
    file.seek(MAGIC_AT)
    headed = file.read(4) == MAGIC
    file.seek(0)
    dataset = pydicom.dcmread(file, stop_before_pixels=True, force=True)  # and stands there
    start = file.tell()
    if start > MOST_KEPT:
        raise InputError(
            label, expected=f"at most {MOST_KEPT} bytes before the pixel data", found="more", remedy=REPAIR
        )
    syntax = str(getattr(dataset, "file_meta", {}).get("TransferSyntaxUID", "") or "")
    big = not dataset.original_encoding[1]
    keyword, vr, value_at, length = _pixel_element(file, big)
    if not keyword:
        _no_pixels(label, dataset, headed)
    encapsulated = length == UNDEFINED
    value_bytes = _items(file, value_at, size, label) if encapsulated else length
    if value_at + value_bytes > size:
        raise InputError(
            label, expected=f"{value_bytes} bytes of pixel data", found=f"{size - value_at}", remedy="restore the file"
        )
    return Dicom(path, label, dataset, syntax, keyword, vr, big, value_at, value_bytes, encapsulated)


def _pixel_element(file: IO[bytes], big: bool) -> tuple[str, str, int, int]:
    """Keyword, VR, start and length of the pixel data that ``file`` stands at; no keyword if it does not."""
    at, order = file.tell(), "big" if big else "little"
    head = file.read(12)
    halves = [int.from_bytes(head[k : k + 2], order) for k in (0, 2)]  # type: ignore[arg-type]
    keyword = KEYWORDS.get(halves[0] << 16 | halves[1], "")
    if head[4:6] in LONG_VRS:
        return keyword, head[4:6].decode(), at + 12, int.from_bytes(head[8:12], order)  # type: ignore[arg-type]
    return keyword, "", at + 8, int.from_bytes(head[4:8], order)  # type: ignore[arg-type]


def _no_pixels(label: str, dataset: Any, headed: bool) -> None:
    kind = dataset.get("SOPClassUID") or getattr(dataset, "file_meta", {}).get("MediaStorageSOPClassUID")
    name = getattr(kind, "name", "") or "a data set" if headed or kind else "no data set"
    raise InputError(
        label,
        expected="a DICOM file with pixel data",
        found=f"{name} without any ({dataset.get('Modality') or 'no modality'})",
        remedy="leave it out: only images and volumes go in; if it had pixel data, it is cut short: restore it",
    )


def _items(file: IO[bytes], start: int, size: int, label: str) -> int:
    """Bytes of the items of encapsulated pixel data, its delimiter included. InputError if they do not end."""
    at = start
    while at + 8 <= size:
        file.seek(at)
        head = file.read(8)
        at += 8 + int.from_bytes(head[4:], "little")
        if head[:4] == DELIMITER:
            return at - start
        if head[:4] != ITEM:
            break
    raise InputError(
        label,
        expected="items of compressed pixel data up to their end",
        found=f"{size} bytes and no end",
        remedy="the file is cut short or damaged: restore it",
    )


def _deflated_from(path: Path, head: bytes) -> int:
    """Where the deflated data set begins, if the transfer syntax says that it is deflated; else 0."""
    if head[MAGIC_AT : MAGIC_AT + 4] != MAGIC or DEFLATED.encode() not in head:
        return 0
    return meta_end(head) if read_file_meta_info(path).get("TransferSyntaxUID") == DEFLATED else 0


def meta_end(head: bytes) -> int:
    """Where the data set begins behind the file meta information, by its group length."""
    return MAGIC_AT + 16 + int.from_bytes(head[MAGIC_AT + 12 : MAGIC_AT + 16], "little")


def deflated(data: bytes) -> bytes:
    """A file whose data set was inflated when it was read, deflated again."""
    start, stream = meta_end(data), zlib.compressobj(wbits=-zlib.MAX_WBITS)
    meta = data[:start].replace(INFLATED, DEFLATED.encode(), 1)
    body = stream.compress(data[start:]) + stream.flush()
    return meta + body + bytes(len(body) % 2)


def _inflated(path: Path, start: int, source: Source) -> Path:
    """A scratch file of the same data set, not deflated, behind file meta information of the same length."""
    most = max(FREE_BYTES, int(path.stat().st_size * source.options.limits.max_ratio))
    there = source.scratch.folder / f"inflated-{path.name[-80:]}"
    stream = zlib.decompressobj(-zlib.MAX_WBITS)
    with path.open("rb") as file, there.open("wb") as out:
        out.write(file.read(start).replace(DEFLATED.encode(), INFLATED, 1))
        data = file.read(COPY_BYTES)
        while data and not stream.eof:
            out.write(stream.decompress(data, COPY_BYTES))
            if out.tell() > most:
                raise InputError(source.label, expected=f"at most {most} bytes", found="more", remedy="--max-ratio")
            data = stream.unconsumed_tail or file.read(COPY_BYTES)
        out.write(stream.flush())
    if not stream.eof:
        raise InputError(
            source.label, expected="a deflated data set", found="no end of it", remedy="it is cut: restore it"
        )
    return there


def kept(dicom: Dicom, value_bytes: int) -> tuple[bytes, bytes]:
    """The bytes before the value of the pixel data, and those after its first ``value_bytes``."""
    with dicom.path.open("rb") as file:
        before = file.read(dicom.start)
        file.seek(dicom.start + value_bytes)
        after = file.read(MOST_KEPT + 1)
    if len(after) > MOST_KEPT:
        raise InputError(
            dicom.label,
            expected=f"{value_bytes} bytes of pixel data, as rows, columns and frames say",
            found=f"more than {MOST_KEPT} bytes after them",
            remedy=REPAIR,
        )
    return before, after
