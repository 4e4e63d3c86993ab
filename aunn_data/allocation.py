"""Which addresses a record gets. The address space is the inductive bias: this file is where it is made.

A padded or morton record gets an aligned block of two equal halves, both a power of two no smaller than the padded
payload and the header: the header begins the lower half, the payload *is* the upper one. So one address bit says which
half, the bits below it are coordinates, the bits above number the records. Records of one shape in one batch get one
size of block, hence one period (a 28x28 digit: header 1024, payload 1024, record number = address >> 11). Padding
costs nothing: chunks that nobody writes do not exist. Packed records follow one another without a gap.
"""

from collections.abc import Sequence
from typing import NamedTuple

from aunn_data.geometry import Geometry, bits_for

SMALLEST_HALF = 1024


class Place(NamedTuple):
    """Addresses of one record: where its header and its payload start, and where the record ends."""

    header_start: int
    payload_start: int
    stop: int


def place(records: Sequence[tuple[int, Geometry]], start: int) -> list[Place]:
    """The places of records, given as (header bytes, geometry), one after another from address ``start``."""
    widest: dict[tuple[object, ...], int] = {}  # what the half of a shape's records must hold
    for header_bytes, geometry in records:
        shape = geometry.kind
        widest[shape] = max(header_bytes, geometry.extent, widest.get(shape, SMALLEST_HALF))
    halves = {shape: 1 << bits_for(size) for shape, size in widest.items()}
    places = []
    for header_bytes, geometry in records:
        if geometry.layout == "packed":
            payload = start + header_bytes
            places.append(Place(start, payload, payload + geometry.extent))
        else:
            half = halves[geometry.kind]
            header = aligned(start, 2 * half)
            places.append(Place(header, header + half, header + 2 * half))
        start = places[-1].stop
    return places


def aligned(address: int, boundary: int) -> int:
    """The first multiple of ``boundary`` at or after an address."""
    return -(-address // boundary) * boundary
