"""A shard of the byte list as Zarr's ``sharding_indexed`` codec has it: chunks, each a zstd frame, then their index.

Written here rather than by Zarr for three things that its writers do not give together: chunks that hold only zeros
are stored like all others (so that zero can be told from lost), a shard is one durable ``put``, and several are made
at once. Any Zarr v3 reader reads them; ``tests/test_shards.py`` compares with two.
"""

import threading
from collections.abc import Sequence

import google_crc32c
import numpy as np
import numpy.typing as npt
import zstandard

LEVEL = 3
FAST_LEVEL = 1  # for shards of noise, which level 3 makes no smaller
CHUNK_BITS = 16

_ABSENT = 2**64 - 1
_SAMPLE, _WORTH = 8, 64  # chunks that are tried, of at least so many
_local = threading.local()


def shard_key(array: str, number: int) -> str:
    """The key of a shard of the array ``bytes`` or ``missing``."""
    return f"{array}/c/{number}"


def encode(data: npt.NDArray[np.uint8], written: npt.NDArray[np.bool_]) -> list[bytes]:
    """The file of a shard, in parts: of (shard,) bytes; (chunks,) says which chunks exist, all-zero ones included."""
    size, numbers = len(data) // len(written), np.flatnonzero(written).tolist()
    chunks = [data[n * size : (n + 1) * size].data for n in numbers]
    return file_of(frames(chunks, level_for(chunks)), numbers, len(written))


def level_for(chunks: Sequence[memoryview]) -> int:
    """The faster level if it makes a sample of the chunks as small, to a hundredth."""
    sample = chunks[:: len(chunks) // _SAMPLE] if len(chunks) >= _WORTH else []
    fast, slow = (sum(map(len, frames(sample, level))) for level in (FAST_LEVEL, LEVEL))
    return FAST_LEVEL if sample and fast <= 1.01 * slow else LEVEL


def frames(chunks: Sequence[memoryview], level: int) -> list[bytes]:
    """Each chunk compressed."""
    return list(map(_compressor(level).compress, chunks))


def file_of(frames: Sequence[bytes], numbers: Sequence[int], count: int) -> list[bytes]:
    """The file of a shard of ``count`` chunks, in parts: those chunks that exist, and their index."""
    index = np.full((count, 2), _ABSENT, "<u8")
    lengths = np.array([len(frame) for frame in frames], np.uint64)
    index[numbers, 0] = np.cumsum(lengths) - lengths
    index[numbers, 1] = lengths
    tail = index.tobytes()
    return [*frames, tail, google_crc32c.value(tail).to_bytes(4, "little")]


def _compressor(level: int) -> zstandard.ZstdCompressor:
    """One a thread: a context is expensive to make and cannot be shared."""
    made: dict[int, zstandard.ZstdCompressor] = _local.__dict__.setdefault("compressors", {})
    if level not in made:
        made[level] = zstandard.ZstdCompressor(level=level, write_checksum=True, write_content_size=True)
    return made[level]
