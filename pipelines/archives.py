"""Zip and tar archives: unpacked below a folder, safely, so that what is in them is found like any other file.

Names that lead out, links, devices, encrypted members and bombs are refused one by one; the other members go in.
"""

import io
import stat
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path, PurePosixPath
from typing import IO, NamedTuple

from aunn_data.errors import InputError
from pipelines.compressed import FREE_BYTES
from pipelines.source import COPY_BYTES, Source

ZIP = (b"PK\x03\x04", b"PK\x05\x06")
TAR_MAGIC = slice(257, 262)
MOST_ENDS = 3
MOST_DEPTH = 3  # archives within one another
DEEPEST = 40  # folders within one another


class _Member(NamedTuple):
    name: str
    fault: str  # why it cannot go in, or ""
    open: Callable[[], IO[bytes] | None]


def is_archive(head: bytes) -> bool:
    """A zip, or a tar of our century, by the first bytes inside any compression."""
    return head.startswith(ZIP) or head[TAR_MAGIC] == b"ustar"


def unpack(source: Source, folder: Path) -> Iterator[InputError]:
    """Unpacks all members below ``folder``; yields the InputErrors of what is left out."""
    limits = source.options.limits
    left, count = max(FREE_BYTES, int(source.path.stat().st_size * limits.max_ratio)), 0
    try:
        for member in _zip(source) if source.head.startswith(ZIP) else _tar(source):
            count += 1
            if count > limits.max_members:
                yield _refused(source, f"at most {limits.max_members:,} members", "more", "--max-members")
                return
            if fault := member.fault or _bad_name(member.name, folder):
                yield _refused(source, "members that are files below the archive", f"{fault}: {member.name!r}")
                continue
            try:
                left -= _copied(member, folder, left)
            except InputError:  # the stream that all members come from
                raise
            except Exception as error:  # whatever zipfile, tarfile and the decoders behind them raise on bad bytes
                said = error.strerror if isinstance(error, OSError) else None  # without the path of our scratch
                yield _refused(source, f"{member.name} to unpack", said or f"{type(error).__name__}: {error}")
            if left < 0:
                yield _refused(source, f"at most {limits.max_ratio:g} bytes from each of it", "more", "--max-ratio")
                return
    except InputError as error:
        yield error
    except Exception as error:
        yield _refused(source, "an archive that is whole", f"{type(error).__name__}: {error}")


def _zip(source: Source) -> Iterator[_Member]:
    with zipfile.ZipFile(source.local()) as archive:
        for info in archive.infolist():
            kind = stat.S_IFMT(info.external_attr >> 16)
            if not info.is_dir():
                fault = "encrypted" if info.flag_bits & 1 else ""
                fault = fault or ("" if kind in (0, stat.S_IFREG) else "a link or device")
                yield _Member(info.filename, fault, partial(archive.open, info))


def _tar(source: Source) -> Iterator[_Member]:
    with source.open() as file, tarfile.open(fileobj=_Ending(file, source), mode="r|") as archive:
        for info in archive:
            if not info.isdir():
                yield _Member(
                    info.name, "" if info.isfile() else "a link or device", partial(archive.extractfile, info)
                )


class _Ending(io.RawIOBase):
    """A file whose end is an error once met: tarfile looks block by block for the end of a member of 2^60 bytes."""

    def __init__(self, file: IO[bytes], source: Source):
        self.file, self.source, self.met = file, source, 0

    def read(self, count: int = -1) -> bytes:
        data = self.file.read(count)
        self.met += not data
        if self.met > MOST_ENDS:
            raise _refused(self.source, "an archive that is whole", "one that ends within a member")
        return data


def _bad_name(name: str, folder: Path) -> str:
    path = PurePosixPath(name.replace("\\", "/"))
    if path.is_absolute() or ".." in path.parts or not path.parts or "\0" in name or name[1:2] == ":":
        return "a name that leads out"
    if len(path.parts) > DEEPEST or any(len(part.encode(errors="replace")) > 255 for part in path.parts):
        return "a name too long"
    return "two members of one name" if (folder / name).exists() else ""


def _copied(member: _Member, folder: Path, left: int) -> int:
    """Unpacks one member and returns its size; stops soon after ``left`` bytes."""
    path, done = folder / member.name, 0
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with path.open("xb") as out, member.open() or io.BytesIO() as file:
            while done <= left and (data := file.read(COPY_BYTES)):
                out.write(data)
                done += len(data)
    except BaseException:
        path.unlink(missing_ok=True)
        raise
    if done > left:
        path.unlink()
    return done


def _refused(source: Source, expected: str, found: str, option: str = "") -> InputError:
    remedy = f"leave it out, or give {option} if you trust it" if option else "unpack it by hand if you trust it"
    return InputError(source.label, expected=expected, found=found, remedy=remedy)
