"""What stands before every payload in the byte list: readable, self-describing, enough to find the next one.

A header is UTF-8: a preamble of exactly PREAMBLE_BYTES with four decimal fields of fixed width, one line of canonical
JSON (sorted keys, no blanks), a newline::

    AUNN1 header=0000000731 payload=0000000000001048576 extent=0000000000001048576 next=0000000000002097152
    {"format":"nifti1","geometry":{…},"metadata":{…},"modality":"scan","record":"brain.nii.gz","source":…,"source_sha256":…}

``header`` counts all bytes of the header; ``payload`` is the address of the first byte of the payload, ``extent`` its
padded length, ``next`` the address where the next header may stand. Nothing in a header depends on payload bytes but
the range that the geometry's mixed radix needs.
"""

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from json.encoder import encode_basestring
from typing import Any

from aunn_data.errors import CorpusError
from aunn_data.geometry import Geometry

_PREAMBLE = b"AUNN1 header=%010d payload=%019d extent=%019d next=%019d\n"
_PATTERN = re.compile(rb"AUNN1 header=(\d{10}) payload=(\d{19}) extent=(\d{19}) next=(\d{19})\n")
MAGIC = b"AUNN1 header="
PREAMBLE_BYTES = len(_PREAMBLE % (0, 0, 0, 0))
NO_SHA256 = "0" * 64
_END = b'"}\n'
_AROUND = PREAMBLE_BYTES + len(NO_SHA256) + len(_END)


@dataclass(frozen=True)
class Header:
    """What a record is: its name, where it came from, its geometry, and what its own format says beside the pixels.

    ``metadata`` holds JSON types only and belongs to the format's reader and writer. ``source_sha256`` is put in when
    the record is written (headers of format version 1 lack it: "").
    """

    record: str
    source: str
    modality: str
    format: str
    geometry: Geometry
    metadata: dict[str, Any] = field(default_factory=dict)
    source_sha256: str = field(default="", compare=False)

    def line(self, source_sha256: str = NO_SHA256) -> bytes:
        """The canonical JSON line, newline included; as long for one hash as for another."""
        return self._stem + source_sha256.encode() + _END

    @property
    def size(self) -> int:
        """Bytes of the whole header."""
        return size(self._stem)

    @property
    def _stem(self) -> bytes:
        columns = [self.record], [self.source], [self.modality], [self.format], [self.geometry], [self.metadata]
        return next(stems(*columns))


@dataclass(frozen=True)
class Preamble:
    """The four numbers before the JSON: bytes of the header, payload address, payload extent, next header's address."""

    header: int
    payload: int
    extent: int
    next: int


def encode(header: Header, *, payload: int, next: int, source_sha256: str = NO_SHA256) -> bytes:
    """The header's bytes for a payload at address ``payload``."""
    return assemble(header._stem, payload, header.geometry.extent, next, source_sha256)


def stems(
    record: Sequence[str],
    source: Sequence[str],
    modality: Sequence[str],
    format: Sequence[str],
    geometry: Sequence[Geometry],
    metadata: Sequence[dict[str, Any]],
) -> Iterator[bytes]:
    """Of headers as columns: each one's canonical JSON up to the source's hash."""
    for name, file, mode, form, shape, more in zip(record, source, modality, format, geometry, metadata, strict=True):
        yield (
            f'{{"format":{_text(form)},"geometry":{shape.line},"metadata":{_json(more) if more else "{}"}'
            f',"modality":{_text(mode)},"record":{encode_basestring(name)},"source":{_text(file)},"source_sha256":"'
        ).encode()


def size(stem: bytes) -> int:
    """Bytes of the whole header that begins so."""
    return len(stem) + _AROUND


def assemble(stem: bytes, payload: int, extent: int, next: int, source_sha256: str) -> bytes:
    """The bytes of a header: its stem, where its payload lies and how long that is, where the next header stands."""
    if len(source_sha256) != len(NO_SHA256):  # the record was placed for a header of exactly this length
        raise ValueError(f"expected a SHA-256 in hexadecimal, found {source_sha256!r}")
    preamble = _PREAMBLE % (len(stem) + _AROUND, payload, extent, next)
    return b"".join((preamble, stem, source_sha256.encode(), _END))


def decode_preamble(data: bytes, where: str) -> Preamble:
    """The preamble at the start of ``data``. Raises CorpusError if none is there."""
    match = _PATTERN.match(data)
    if not match:
        raise CorpusError(
            where,
            expected="a record's header (AUNN1 header=…)",
            found=repr(data[:16]),
            remedy="run `aunn-data verify`, restore the corpus from a copy",
        )
    return Preamble(*(int(group) for group in match.groups()))


def decode(data: bytes, where: str) -> Header:
    """Inverse of ``encode``. Raises CorpusError if the bytes are no header."""
    preamble = decode_preamble(data, where)
    try:
        fields = json.loads(data[PREAMBLE_BYTES : preamble.header])
        return Header(**{**fields, "geometry": Geometry.from_json(fields["geometry"])})
    except (ValueError, TypeError, KeyError) as error:
        raise CorpusError(
            where,
            expected="a header's JSON line",
            found=f"{type(error).__name__}: {error}",
            remedy="run `aunn-data verify`, restore the corpus from a copy",
        ) from error


def canonical(value: Any) -> str:
    """Canonical JSON: sorted keys, no blanks, Unicode as it is; no NaN."""
    return _json(value)


@lru_cache(maxsize=1024)
def _text(value: str) -> str:
    """A string as JSON; sources, modalities and formats are those of many records."""
    return encode_basestring(value)


# json.dumps would make this encoder anew for every header.
_json = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode
