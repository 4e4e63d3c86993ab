"""gzip, bzip2, xz and Zstandard: streams of what is inside, several members or frames one after another as one.

A stream that is cut, damaged or grows beyond ``max_ratio`` is an error, never a shorter text.
"""

import bz2
import gzip
import io
import lzma
import os
import re
import shutil
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

import imagecodecs
import zstandard

from aunn_data.errors import InputError

FREE_BYTES = 1 << 26  # may come out of any file, whatever the ratio
COPY_BYTES = 1 << 22
STREAMED = 1 << 18  # bytes of a gzip file that are read as a stream: most who look at its beginning need no more
GZIP_MAGIC = b"\x1f\x8b\x08"
ZSTD_CHUNK = 1 << 11  # a block of 4 bytes may become 128 KiB: what one call gives stays below 64 MiB
MAGIC = re.compile(
    rb"(?P<gz>\x1f\x8b\x08)|(?P<bz2>BZh[1-9](?:1AY&SY|\x17rE8P\x90))|(?P<xz>\xfd7zXZ\0)"
    rb"|(?P<zst>\x28\xb5\x2f\xfd|[\x50-\x5f]\x2a\x4d\x18)"
)
SUFFIXES = {".gz": "gz", ".bz2": "bz2", ".xz": "xz", ".zst": "zst", ".tgz": "gz", ".tbz2": "bz2", ".txz": "xz"}
WITHOUT = {".tgz": ".tar", ".tbz2": ".tar", ".txz": ".tar"}


def codec_of(head: bytes) -> str | None:
    """gz, bz2, xz or zst, by the first bytes; None if it is not compressed."""
    match = MAGIC.match(head)
    return match.lastgroup if match else None


def inner_name(path: Path) -> Path:
    """The path without the suffix of its compression."""
    suffix = path.suffix.lower()
    return path.with_suffix(WITHOUT.get(suffix, "")) if suffix in SUFFIXES else path


def opened(file: IO[bytes], codec: str, compressed_bytes: int, max_ratio: float, label: str) -> IO[bytes]:
    """What is inside a compressed file, as a stream that raises InputError where that is damaged, cut or a bomb."""
    most = max(FREE_BYTES, int(compressed_bytes * max_ratio))
    return io.BufferedReader(_Checked(file, _OPEN[codec](file), most, max_ratio, label), 1 << 16)


def compress(path: Path, codec: str, to: Path) -> None:
    """Compresses a file, without a time in it, and removes the original."""
    packed = path.with_name(f"{path.name}.packed")
    with path.open("rb") as file, packed.open("wb") as raw, _PACK[codec](raw) as out:
        shutil.copyfileobj(file, out, COPY_BYTES)
    path.unlink()
    packed.replace(to)


class _Checked(io.RawIOBase):
    """A stream whose errors are ours and whose length is bounded."""

    def __init__(self, file: IO[bytes], stream: Any, most: int, max_ratio: float, label: str):
        self.file, self.stream, self.left, self.max_ratio, self.label = file, stream, most, max_ratio, label

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        try:
            data = self.stream.read(len(buffer))
        except (OSError, EOFError, ValueError, lzma.LZMAError, zstandard.ZstdError, zlib.error) as error:
            raise InputError(
                self.label,
                expected="a compressed file that is whole",
                found=f"{type(error).__name__}: {error}",
                remedy="restore it: what comes out of it would be cut short or wrong",
            ) from error
        self.left -= len(data)
        if self.left < 0:
            raise InputError(
                self.label,
                expected=f"at most {self.max_ratio:g} bytes from each compressed one",
                found="more",
                remedy="leave it out, or give --max-ratio if you trust it",
            )
        buffer[: len(data)] = data
        return len(data)

    def close(self) -> None:
        if not self.closed:
            self.stream.close()
            self.file.close()
        super().close()


class _Gzip:
    """gzip, of one member or several; a file of one is unpacked at once behind its beginning, in a fourth of the time.

    libdeflate, which does that, says nothing of what lies behind a member: only a file that is one member whole, as its
    last eight bytes tell, is unpacked so. All others are read as a stream, which also says what is wrong with a file.
    """

    def __init__(self, file: IO[bytes]):
        self.file, self.stream = file, gzip.GzipFile(fileobj=file, mode="rb")
        self.start = file.tell() if file.seekable() else 0
        self.at, self.whole, self.tried = 0, memoryview(b""), False

    def read(self, count: int) -> bytes | memoryview:
        if not self.tried:
            count = min(count, STREAMED)
            if self.at >= STREAMED:
                self.tried, self.whole = True, memoryview(one_member(self.file, start=self.start))
        data = self.whole[self.at : self.at + count] if self.whole else self.stream.read(count)
        self.at += len(data)
        return data

    def close(self) -> None:
        self.stream.close()


def one_member(file: IO[bytes], most: int = FREE_BYTES, start: int = 0) -> bytes:
    """What is in a gzip file of one member, unpacked; b"" if it is not that, not whole, or more than ``most`` bytes.

    ``start``: where the member begins.
    """
    if not file.seekable():
        return b""
    position = file.tell()
    data = b""
    if file.seek(0, os.SEEK_END) <= FREE_BYTES:
        file.seek(start)
        data = file.read()
    file.seek(position)
    crc, size = struct.unpack("<II", data[-8:].rjust(8, b"\0"))
    if size > most or data.find(GZIP_MAGIC, 1) != -1:
        return b""
    try:
        found = bytes(imagecodecs.gzip_decode(data, out=size))
    except RuntimeError:
        return b""
    return found if len(found) == size and imagecodecs.deflate_crc32(found) == crc else b""


class _Frames:
    """Zstandard frames one after another; python-zstandard's own reader says nothing where the last one is cut."""

    def __init__(self, file: IO[bytes]):
        self.file = file
        self.frame: zstandard.ZstdDecompressionObj | None = None
        self.ready, self.at, self.unused = b"", 0, b""

    def read(self, count: int) -> bytes:
        while self.at == len(self.ready):
            data = self.unused or self.file.read(ZSTD_CHUNK)
            self.unused = b""
            if not data:
                if self.frame is not None:
                    raise EOFError("the last frame is cut")
                return b""
            if self.frame is None:
                self.frame = zstandard.ZstdDecompressor(max_window_size=1 << 31).decompressobj()
            self.ready, self.at = self.frame.decompress(data), 0
            if self.frame.eof:
                self.unused, self.frame = self.frame.unused_data, None
        part = self.ready[self.at : self.at + count]
        self.at += len(part)
        return part

    def close(self) -> None:
        """Nothing is held."""


_PACK: dict[str, Callable[[IO[bytes]], Any]] = {
    "gz": lambda file: gzip.GzipFile("", "wb", 6, file, mtime=0),
    "bz2": lambda file: bz2.BZ2File(file, "wb"),
    "xz": lambda file: lzma.LZMAFile(file, "wb"),  # noqa: SIM115 (closed by who asked for it)
    "zst": lambda file: zstandard.ZstdCompressor().stream_writer(file, closefd=False),
}
_OPEN: dict[str, Callable[[IO[bytes]], Any]] = {
    "gz": _Gzip,
    "bz2": bz2.BZ2File,
    "xz": lzma.LZMAFile,
    "zst": _Frames,
}
