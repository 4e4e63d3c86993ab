"""The skeleton of a TIFF: its chain of directories (IFDs) and their tags, every offset checked against the file.

TIFF 6.0 (https://www.itu.int/itudoc/itu-t/com16/tiff-fx/docs/tiff6.pdf) and BigTIFF
(https://www.awaresystems.be/imaging/tiff/bigtiff.html). Only this small part is our own: decoders are lax where a file
is damaged, so what they are given is checked here first.
"""

import io
import os
import re
import struct
from collections.abc import Iterator
from typing import IO, Any, NamedTuple

from aunn_data.errors import InputError

MAGIC = re.compile(rb"II(?:\*\0|\+\0\x08\0\0\0)|MM(?:\0\*|\0\+\0\x08\0\0)", re.DOTALL)
REMEDY = "the file is cut short or damaged: restore it, or save it again with an image editor"

# type -> struct's letter, letters a value
KINDS = {1: "B", 2: "s", 3: "H", 4: "L", 5: "LL", 6: "b", 7: "B", 8: "h", 9: "l", 10: "ll", 11: "f", 12: "d", 13: "L"}
KINDS |= {16: "Q", 17: "q", 18: "Q"}
SIZES = {kind: struct.calcsize("=" + letters) for kind, letters in KINDS.items()}
ASCII, BYTES = 2, (1, 6, 7)

MOST_TAGS = 4096
MOST_KEPT = 4
SUB_IFDS = 330


class Tag(NamedTuple):
    """A tag of a directory. ``data`` are its raw bytes, or the offset where they lie in the file."""

    code: int
    kind: int
    count: int  # type: ignore[assignment]  # hides a tuple's own count, which nobody needs
    data: bytes | int

    @property
    def size(self) -> int:
        """Bytes of the value."""
        return self.count * SIZES[self.kind]


class Ifd(NamedTuple):
    """A directory: where it lies, its tags in order, and what of it could not be understood."""

    offset: int
    tags: tuple[Tag, ...]
    next: int
    odd: tuple[str, ...]
    by_code: dict[int, Tag]  # of a tag that is there twice, the first


class Skeleton:
    """A TIFF file open for reading. ``where`` is what errors call it."""

    def __init__(self, file: IO[bytes], where: object):
        self.file, self.where = file, where
        self._bytes = file.getvalue() if isinstance(file, io.BytesIO) else None
        self.size = len(self._bytes) if self._bytes is not None else os.fstat(file.fileno()).st_size
        head = self.read(0, 8)
        if not MAGIC.match(head):
            raise self.bad("a TIFF header", f"{head!r}")
        self.order = "<" if head.startswith(b"I") else ">"
        self.big = head[2:4] in (b"+\0", b"\0+")
        self.word = 8 if self.big else 4  # bytes of an offset
        self._first: dict[int, Ifd] = {}  # the first directories are asked for several times
        self._entry = struct.Struct(self.order + ("HHQ8s" if self.big else "HHL4s"))

    def bad(self, expected: str, found: str) -> InputError:
        """The file is not what it should be."""
        return InputError(self.where, expected=expected, found=found, remedy=REMEDY)

    @property
    def first(self) -> int:
        """Where the first directory lies."""
        at = 8 if self.big else 4
        return self._number(self.read(at, self.word))

    def chain(self, most: int | None = None) -> Iterator[Ifd]:
        """The directories in order, at most so many. InputError where the chain bites its tail or leads out."""
        offset, seen = self.first, set[int]()
        if not offset:
            raise self.bad("at least one image", "a TIFF without any")
        while offset and (most is None or len(seen) < most):
            if offset in seen:
                raise self.bad("a chain of directories that ends", f"one that comes back to offset {offset}")
            seen.add(offset)
            ifd = self.ifd(offset)
            yield ifd
            offset = ifd.next

    def ifd(self, offset: int) -> Ifd:
        """The directory at an offset. InputError if it does not lie in the file whole."""
        found = self._first.get(offset)
        if found is None:
            found = self._parsed(offset)
            if len(self._first) < MOST_KEPT:
                self._first[offset] = found
        return found

    def _parsed(self, offset: int) -> Ifd:
        width = 8 if self.big else 2
        count = self._number(self.read(offset, width))
        if not 0 < count <= MOST_TAGS:
            raise self.bad(f"a directory of 1 to {MOST_TAGS} tags at offset {offset}", f"{count} tags")
        data = self.read(offset + width, count * self._entry.size + self.word)
        tags, odd, word = [], [], self.word
        for code, kind, values, inline in self._entry.iter_unpack(data[:-word]):
            if kind not in SIZES:
                odd.append(f"tag {code} of unknown type {kind}")
                continue
            size = values * SIZES[kind]
            if size <= word:
                tags.append(Tag(code, kind, values, inline[:size]))
                continue
            place = self._number(inline)
            if place + size > self.size:
                raise self.bad(f"the {size} bytes of tag {code} at offset {place}", f"a file of {self.size} bytes")
            tags.append(Tag(code, kind, values, place))
        by_code = {tag.code: tag for tag in reversed(tags)}
        return Ifd(offset, tuple(tags), self._number(data[-self.word :]), tuple(odd), by_code)

    def raw(self, tag: Tag) -> bytes:
        """The bytes of a tag's value."""
        return tag.data if isinstance(tag.data, bytes) else self.read(tag.data, tag.size)

    def values(self, tag: Tag) -> tuple[Any, ...]:
        """The numbers of a tag; of text its bytes."""
        return self.unpacked(tag.kind, self.raw(tag))

    def unpacked(self, kind: int, raw: bytes) -> tuple[Any, ...]:
        """The numbers that raw bytes of a type spell."""
        if kind == ASCII:
            return (raw,)
        letters = KINDS[kind]
        return struct.unpack(f"{self.order}{len(raw) // struct.calcsize('=' + letters[0])}{letters[0]}", raw)

    def numbers(self, ifd: Ifd, code: int, default: tuple[int, ...] = ()) -> tuple[int, ...]:
        """The integers of a tag; the default where there is none. InputError if it is of another type."""
        tag = ifd.by_code.get(code)
        if tag is None:
            return default
        if KINDS[tag.kind] not in "BHLbhlQq":
            raise self.bad(f"integers in tag {code}", f"type {tag.kind}")
        return self.values(tag)

    def number(self, ifd: Ifd, code: int, default: int) -> int:
        """The first integer of a tag."""
        found = self.numbers(ifd, code)
        return found[0] if found else default

    def text(self, ifd: Ifd, code: int) -> str:
        """The text of a tag, as far as it can be read; empty where there is none."""
        tag = ifd.by_code.get(code)
        if tag is None or tag.kind not in (ASCII, *BYTES):
            return ""
        return self.raw(tag).split(b"\0")[0].decode("utf-8", "replace")

    def read(self, offset: int, size: int) -> bytes:
        """So many bytes of the file. InputError if it has not so many there."""
        if offset < 0 or offset + size > self.size:
            raise self.bad(f"{size} bytes at offset {offset}", f"a file of {self.size} bytes")
        if self._bytes is not None:
            return self._bytes[offset : offset + size]
        data = os.pread(self.file.fileno(), size, offset)
        if len(data) != size:
            raise self.bad(f"{size} bytes at offset {offset}", f"{len(data)}")
        return data

    def _number(self, data: bytes) -> int:
        return int.from_bytes(data, "little" if self.order == "<" else "big")
