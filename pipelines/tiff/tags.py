"""A directory's tags as JSON and back: all of them verbatim, but those that only say where and how the pixels lie.

A tag is ``[code, type, value]``: text as it is (without its final NUL), bytes as base64, numbers as a list, a directory
(EXIF, GPS) as a list of tags. What is none of these (text that is no UTF-8, numbers that are none) is ``[base64]``.
"""

import base64
import math
import struct
from collections.abc import Iterable, Sequence
from typing import Any

from pipelines.tiff.ifd import ASCII, BYTES, KINDS, SIZES, SUB_IFDS, Ifd, Skeleton, Tag

Json = list[Any]

# Made anew by the writer: size, bits, compression's own, strips, tiles, predictor, JPEG's pieces, JPEG's subsampling.
LAYOUT = {256, 257, 258, 266, 273, 277, 278, 279, 284, 288, 289, 292, 293, 317, 322, 323, 324, 325, SUB_IFDS, 339, 347}
LAYOUT |= {*range(512, 522), 530, 32997, 32998}
POINTERS = {34665, 34853, 40965}  # EXIF, GPS, interoperability
IFD_KINDS = (4, 13, 16, 18)
MOST_BYTES = 1 << 22  # of one tag
ABSENT: list[Any] = [0, None]


def tags_of(skeleton: Skeleton, ifd: Ifd, depth: int = 0) -> tuple[list[Json], list[str]]:
    """The tags that are kept, and what was left out."""
    found: list[Json] = []
    left_out = list(ifd.odd)
    for tag in ifd.tags:
        if tag.code in LAYOUT and not depth:
            continue
        if tag.size > MOST_BYTES:
            left_out.append(f"tag {tag.code} ({tag.size} bytes)")
        elif tag.code in POINTERS and tag.kind in IFD_KINDS and tag.count == 1 and depth < 2:
            inner, odd = _inner(skeleton, skeleton.values(tag)[0], depth)
            found.append([tag.code, tag.kind, inner])
            left_out.extend(odd)
        else:
            found.append([tag.code, tag.kind, _json(skeleton, tag)])
    return sorted(found, key=lambda tag: int(tag[0])), left_out


def raw_of(tag: Json, order: str) -> bytes:
    """The bytes of a tag's value. ValueError if it is no value of its type."""
    _, kind, value = tag
    if isinstance(value, str):
        return value.encode() + b"\0" if kind == ASCII else base64.b64decode(value)
    if len(value) == 1 and isinstance(value[0], str):
        return base64.b64decode(value[0])
    letter = KINDS[kind][0]
    return struct.pack(f"{order}{len(value)}{letter}", *value)


def differences(first: Sequence[Json], tags: Sequence[Json]) -> list[Json]:
    """What a page's tags say other than the first page's: all tags of each code that differs."""
    if first == tags:
        return []
    before, after = _grouped(first), _grouped(tags)
    absent = [[code, *ABSENT] for code in before if code not in after]
    return [*absent, *(tag for code, group in after.items() if before.get(code) != group for tag in group)]


def applied(first: Sequence[Json], found: Iterable[Json]) -> list[Json]:
    """Inverse of ``differences``."""
    changed = list(found)
    codes = {tag[0] for tag in changed}
    kept = [tag for tag in first if tag[0] not in codes]
    return sorted([*kept, *(tag for tag in changed if tag[1:] != ABSENT)], key=lambda tag: int(tag[0]))


def value_in(tags: Iterable[Json], code: int, default: Any = None) -> Any:
    """The value of the first tag of a code."""
    return next((tag[2] for tag in tags if tag[0] == code), default)


def number_in(tags: Iterable[Json], code: int, default: int) -> int:
    """The first integer of a tag."""
    value = value_in(tags, code)
    return value[0] if isinstance(value, list) and value and isinstance(value[0], int) else default


def _inner(skeleton: Skeleton, offset: int, depth: int) -> tuple[list[Json], list[str]]:
    try:
        return tags_of(skeleton, skeleton.ifd(offset), depth + 1)
    except Exception as error:  # a damaged EXIF block is no reason to refuse the pixels
        return [], [f"a directory at offset {offset}: {error}".splitlines()[0]]


def _json(skeleton: Skeleton, tag: Tag) -> Any:
    raw = skeleton.raw(tag)
    if tag.kind in BYTES:
        return base64.b64encode(raw).decode()
    if tag.kind == ASCII:
        try:
            text = raw.decode()
        except UnicodeDecodeError:
            text = ""
        return text[:-1] if text.endswith("\0") else [base64.b64encode(raw).decode()]
    values = skeleton.unpacked(tag.kind, raw)
    if not all(math.isfinite(value) for value in values):
        return [base64.b64encode(raw).decode()]
    return list(values)


def count_of(kind: int, raw: bytes) -> int:
    """How many values of a type there are in so many bytes."""
    return len(raw) // SIZES[kind]


def _grouped(tags: Iterable[Json]) -> dict[int, list[Json]]:
    groups: dict[int, list[Json]] = {}
    for tag in tags:
        groups.setdefault(tag[0], []).append(tag)
    return groups
