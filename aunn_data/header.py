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
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from typing import Any

from aunn_data.errors import CorpusError
from aunn_data.geometry import Geometry

_PREAMBLE = "AUNN1 header={:010d} payload={:019d} extent={:019d} next={:019d}\n"
_PATTERN = re.compile(rb"AUNN1 header=(\d{10}) payload=(\d{19}) extent=(\d{19}) next=(\d{19})\n")
MAGIC = b"AUNN1 header="
PREAMBLE_BYTES = len(_PREAMBLE.format(0, 0, 0, 0))
NO_SHA256 = "0" * 64


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
        return self._stem + source_sha256.encode() + b'"}\n'

    @property
    def size(self) -> int:
        """Bytes of the whole header."""
        return PREAMBLE_BYTES + len(self._stem) + len(NO_SHA256) + len(b'"}\n')

    @cached_property
    def _stem(self) -> bytes:
        parts = (
            f'{{"format":{_json(self.format)},"geometry":{geometry_line(self.geometry)}',
            f'"metadata":{_json(self.metadata) if self.metadata else "{}"},"modality":{_json(self.modality)}',
            f'"record":{_json(self.record)},"source":{_json(self.source)},"source_sha256":"',
        )
        return ",".join(parts).encode()


@dataclass(frozen=True)
class Preamble:
    """The four numbers before the JSON: bytes of the header, payload address, payload extent, next header's address."""

    header: int
    payload: int
    extent: int
    next: int


def encode(header: Header, *, payload: int, next: int, source_sha256: str = NO_SHA256) -> bytes:
    """The header's bytes for a payload at address ``payload``."""
    if len(source_sha256) != len(NO_SHA256):  # the record was placed for a header of exactly this length
        raise ValueError(f"expected a SHA-256 in hexadecimal, found {source_sha256!r}")
    line = header.line(source_sha256)
    return _PREAMBLE.format(PREAMBLE_BYTES + len(line), payload, header.geometry.extent, next).encode() + line


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


@lru_cache(maxsize=4096)
def geometry_line(geometry: Geometry) -> str:
    """A geometry's canonical JSON; records of one shape share it."""
    return canonical(geometry.to_json())


def canonical(value: Any) -> str:
    """Canonical JSON: sorted keys, no blanks, Unicode as it is; no NaN."""
    return _json(value)


# json.dumps would make this encoder anew for every header.
_json = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode
