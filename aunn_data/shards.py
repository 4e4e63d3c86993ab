"""A shard of the byte list as Zarr's ``sharding_indexed`` codec has it: chunks, each a zstd frame, then their index.

Written here rather than by Zarr for three things that its writers do not give together: chunks that hold only zeros
are stored like all others (so that zero can be told from lost), a shard is one durable ``put``, and several are made
at once. Any Zarr v3 reader reads them; ``tests/test_shards.py`` compares with two.
"""

import threading

import google_crc32c
import numpy as np
import numpy.typing as npt
import zstandard

LEVEL = 3
CHUNK_BITS = 16

_ABSENT = 2**64 - 1
_local = threading.local()


def encode(data: npt.NDArray[np.uint8], written: npt.NDArray[np.bool_]) -> list[bytes]:
    """The file of a shard, in parts: of (shard,) bytes; (chunks,) says which chunks exist, all-zero ones included."""
    compressor, size = _compressor(), len(data) // len(written)
    index = np.full((len(written), 2), _ABSENT, "<u8")
    parts, offset = [], 0
    for number in np.flatnonzero(written).tolist():
        part = compressor.compress(data[number * size : (number + 1) * size].data)
        index[number] = offset, len(part)
        parts.append(part)
        offset += len(part)
    tail = index.tobytes()
    return [*parts, tail, google_crc32c.value(tail).to_bytes(4, "little")]


def _compressor() -> zstandard.ZstdCompressor:
    """One a thread: a context is expensive to make and cannot be shared."""
    if not hasattr(_local, "compressor"):
        _local.compressor = zstandard.ZstdCompressor(level=LEVEL, write_checksum=True, write_content_size=True)
    compressor: zstandard.ZstdCompressor = _local.compressor
    return compressor
