"""Which addresses a record gets. The address space is the inductive bias: this file is where it is made.

A padded or morton record gets an aligned block of two equal halves, both a power of two no smaller than the padded
payload and the header: the header begins the lower half, the payload *is* the upper one. So one address bit says which
half, the bits below it are coordinates, the bits above number the records. Records of one shape in one batch get one
size of block, hence one period (a 28x28 digit: header 1024, payload 1024, record number = address >> 11). Padding
costs nothing: chunks that nobody writes do not exist. Packed records follow one another without a gap. A record that
shares the payload of an earlier one gets addresses for its header alone.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from aunn_data.geometry import Geometry, bits_for

SMALLEST_HALF = 1024
NONE: Mapping[int, int] = {}


class Places(NamedTuple):
    """(R,) addresses of records: where their headers and payloads start, and where each record ends."""

    header_start: list[int]
    payload_start: list[int]
    stop: list[int]


def place(records: Sequence[tuple[int, Geometry]], start: int, shared: Mapping[int, int] = NONE) -> Places:
    """The places of records, given as (header bytes, geometry), one after another from address ``start``.

    ``shared`` gives the payload's address of those (by their number here) that have one already.
    """
    halves, places = _halves(records), Places([], [], [])
    for number, (header_bytes, geometry) in enumerate(records):
        if number in shared:
            header, payload, start = start, shared[number], start + header_bytes
        elif geometry.layout == "packed":
            header, payload = start, start + header_bytes
            start = payload + geometry.extent
        else:
            half = halves[id(geometry)]
            header = aligned(start, 2 * half)
            payload, start = header + half, header + 2 * half
        places.header_start.append(header)
        places.payload_start.append(payload)
        places.stop.append(start)
    return places


def _halves(records: Sequence[tuple[int, Geometry]]) -> dict[int, int]:
    """The half of a record's block by the object of its geometry: records of one kind have the same."""
    objects = {id(geometry): geometry for _, geometry in records}
    longest: dict[int, int] = {}
    for header_bytes, geometry in records:
        if header_bytes > longest.get(id(geometry), 0):
            longest[id(geometry)] = header_bytes
    widest: dict[tuple[object, ...], int] = {}  # what the half of a kind's records must hold
    for number, geometry in objects.items():
        widest[geometry.kind] = max(longest[number], geometry.extent, widest.get(geometry.kind, SMALLEST_HALF))
    return {number: 1 << bits_for(widest[geometry.kind]) for number, geometry in objects.items()}


def aligned(address: int, boundary: int) -> int:
    """The first multiple of ``boundary`` at or after an address."""
    return -(-address // boundary) * boundary
