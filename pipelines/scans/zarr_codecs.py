"""Zarr's decompressors with bounds: no chunk becomes more than its array's chunks may, none is read past its end.

zarr and numcodecs unpack whatever a stream says, and blosc trusts the lengths in its own header.
"""

import bz2
import lzma
import zlib
from dataclasses import replace
from typing import Any, Protocol

import numpy as np
import zstandard
from numcodecs.abc import Codec  # type: ignore[import-untyped]
from zarr.codecs import BloscCodec, GzipCodec, ShardingCodec, ZstdCodec

SLACK = 1 << 20  # bytes that filters may add to a chunk, beside doubling it
BLOSC_HEADER = 16


class _Stream(Protocol):
    """A decompressor of the standard library."""

    @property
    def eof(self) -> bool:
        """Has the stream ended?"""

    @property
    def unused_data(self) -> bytes:
        """What came after it."""

    def decompress(self, data: bytes, max_length: int) -> bytes:
        """At most so many bytes."""


STREAMS = {
    "gzip": lambda: zlib.decompressobj(wbits=31),
    "zlib": zlib.decompressobj,
    "bz2": bz2.BZ2Decompressor,
    "lzma": lzma.LZMADecompressor,
}


class Bounded(Codec):  # type: ignore[misc]
    """A v2 compressor whose decoder knows how big a chunk is."""

    codec_id = "bounded"

    def __init__(self, codec: Any, chunk_bytes: int):
        self.codec, self.most = codec, 2 * chunk_bytes + SLACK

    def encode(self, buf: Any) -> Any:
        """As the codec does."""
        return self.codec.encode(buf)

    def decode(self, buf: Any, out: Any = None) -> Any:
        """As the codec does. ValueError if it becomes too much."""
        unpacked = _unpacked(self.codec.codec_id, buf, self.most)
        return self.codec.decode(buf, out) if unpacked is None else np.frombuffer(unpacked, np.uint8)


class BoundedBlosc(BloscCodec):
    """Blosc of v3."""

    def _decode_sync(self, chunk_bytes: Any, chunk_spec: Any) -> Any:
        _unpacked("blosc", chunk_bytes.as_numpy_array(), _most(chunk_spec))
        return super()._decode_sync(chunk_bytes, chunk_spec)


class BoundedGzip(GzipCodec):
    """gzip of v3."""

    def _decode_sync(self, chunk_bytes: Any, chunk_spec: Any) -> Any:
        unpacked = _unpacked("gzip", chunk_bytes.as_numpy_array(), _most(chunk_spec))
        return chunk_spec.prototype.buffer.from_bytes(unpacked)


class BoundedZstd(ZstdCodec):
    """Zstandard of v3."""

    def _decode_sync(self, chunk_bytes: Any, chunk_spec: Any) -> Any:
        unpacked = _unpacked("zstd", chunk_bytes.as_numpy_array(), _most(chunk_spec))
        if unpacked is not None:
            return chunk_spec.prototype.buffer.from_bytes(unpacked)
        return super()._decode_sync(chunk_bytes, chunk_spec)


def bounded(codec: Any) -> Any:
    """A v3 codec, those within a shard included."""
    if isinstance(codec, ShardingCodec):
        return replace(codec, codecs=tuple(bounded(inner) for inner in codec.codecs))
    kinds: dict[type, Any] = {BloscCodec: BoundedBlosc, GzipCodec: BoundedGzip, ZstdCodec: BoundedZstd}
    return kinds[type(codec)].from_dict(codec.to_dict()) if type(codec) in kinds else codec


def _most(chunk_spec: Any) -> int:
    return 2 * int(np.prod(chunk_spec.shape, dtype=object)) * int(chunk_spec.dtype.item_size) + SLACK


def _unpacked(codec: str, data: Any, most: int) -> bytes | None:
    """What the data becomes; None where its own header says that it is small enough. ValueError if it is not."""
    data = memoryview(data).cast("B")
    if codec in STREAMS:
        return _streamed(STREAMS[codec], bytes(data), most)
    if codec == "blosc":
        size, packed = (int.from_bytes(data[at : at + 4], "little") for at in (4, 12))
        if len(data) < BLOSC_HEADER or packed != len(data):
            raise ValueError(f"blosc chunk of {packed} bytes in {len(data)}")
    elif codec == "lz4":
        size = int.from_bytes(data[:4], "little")
    elif codec == "zstd":
        size = zstandard.frame_content_size(data)
        if size < 0:  # it does not say
            return _at_most(zstandard.ZstdDecompressor().stream_reader(data, read_across_frames=True).read(most), most)
    else:
        return None
    if size > most:
        raise ValueError(f"a chunk that becomes {size} bytes, at most {most}")
    return None


def _at_most(data: bytes, most: int) -> bytes:
    if len(data) == most:
        raise ValueError(f"a chunk that becomes {most} bytes or more")
    return data


def _streamed(make: Any, data: bytes, most: int) -> bytes:
    parts: list[bytes] = []
    while data:
        stream: _Stream = make()
        parts.append(stream.decompress(data, most))
        most -= len(parts[-1])
        if not stream.eof:
            raise ValueError("a chunk that is cut short or becomes too much")
        data = stream.unused_data
    return parts[0] if len(parts) == 1 else b"".join(parts)
