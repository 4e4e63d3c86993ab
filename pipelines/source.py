"""A file, a folder or a member of an archive that is to be read: its name, its bytes uncompressed, where it may look.

What is compressed is read as a stream with ``open``, or unpacked once with ``local`` for readers that must jump. What
was unpacked lives as long as the source: lazy elements must hold on to it.
"""

import hashlib
import io
import os
import shutil
import tempfile
import weakref
from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from pathlib import Path
from typing import IO, Any, cast

from aunn_data.errors import InputError
from pipelines import compressed
from pipelines.options import Options

HEAD_BYTES = 4096
LITTLE_BYTES = 1 << 19  # a file of no more is read whole for its head, and not opened again by its reader
MOST_LAYERS = 3  # of compression or archives within one another
LITTLE_INSIDE_BYTES = 1 << 20  # what is in a little gzip file is unpacked for its head at once, if it is no more
COPY_BYTES = 1 << 22


@dataclass(frozen=True)
class Group:
    """Files of a folder that are one source.

    ``files`` are names below the folder; ``name`` is that of the file that is read first, or "" where the folder itself
    is the source. ``whole``: the folder ``name`` with all below it (``files`` may stay empty).
    """

    name: str
    files: tuple[str, ...] = ()
    whole: bool = False


class Scratch:
    """A folder for what is unpacked, made when needed, gone with the last source that holds it."""

    @cached_property
    def folder(self) -> Path:
        """The folder."""
        folder = tempfile.mkdtemp(prefix="aunn-")
        weakref.finalize(self, shutil.rmtree, folder, ignore_errors=True)
        return Path(folder)


@dataclass(frozen=True)
class Source:
    """What becomes one or more records that are named by ``name``.

    ``path`` is a file, or a folder where the format is one. ``files`` are all files that it is made of, if those are
    not ``path`` alone. ``sidecars`` are notes beside it that join its header; ``mask`` is a scan that is not 0 where
    elements are missing. ``format`` is that of a folder, where it is known already. ``label`` is what errors call it.
    ``as_it_lies``: its compression is the format's own affair.
    """

    path: Path
    name: str
    options: Options = field(default_factory=Options)
    files: tuple[Path, ...] = ()
    sidecars: tuple[Path, ...] = ()
    mask: Path | None = None
    format: str = ""
    label: str = ""
    as_it_lies: bool = False
    depth: int = 0
    scratch: Scratch = field(default_factory=Scratch, compare=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "label", self.label or str(self.path))

    def __getstate__(self) -> dict[str, Any]:
        """Without what was worked out: another process unpacks for itself."""
        return {field.name: getattr(self, field.name) for field in fields(self) if field.name != "scratch"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, scratch=Scratch())

    @property
    def parts(self) -> tuple[Path, ...]:
        """All files that it is made of, ``path`` first where that is a file."""
        return self.files or (self.path,)

    @property
    def head(self) -> bytes:
        """The first HEAD_BYTES, uncompressed; none of a folder. InputError if it cannot be read."""
        return self._beginning[1]

    @property
    def codecs(self) -> tuple[str, ...]:
        """The layers of compression, outermost first."""
        return self._beginning[0]

    @property
    def _beginning(self) -> tuple[tuple[str, ...], bytes]:
        """The layers of compression and the first bytes inside them; of a little file all bytes are kept meanwhile."""
        found = self.__dict__.get("_begun")
        if found is None:
            found = self.__dict__["_begun"] = self._begin()
        return cast(tuple[tuple[str, ...], bytes], found)

    def _begin(self) -> tuple[tuple[str, ...], bytes]:
        try:
            data, size = _first_bytes(self.path)
        except IsADirectoryError:
            return (), b""
        except OSError as error:
            raise unreadable(self.label, error) from error
        head, found = data[:HEAD_BYTES], tuple[str, ...]()
        codec = None if self.as_it_lies else compressed.codec_of(head)
        if len(data) == size:
            self.__dict__["_whole"] = data
            if codec == "gz" and (inside := compressed.one_member(io.BytesIO(data), LITTLE_INSIDE_BYTES)):
                self.__dict__["_inside"] = inside
                head, found, codec = inside[:HEAD_BYTES], ("gz",), compressed.codec_of(inside)
        while codec and len(found) <= MOST_LAYERS:
            found += (codec,)
            with self._layered(found) as layer:
                head = layer.read(HEAD_BYTES)
            codec = compressed.codec_of(head)
        return found, head

    def let_go(self) -> None:
        """Forgets the bytes of a little file, which are kept from the first look at it until it has been read."""
        self.__dict__.pop("_whole", None)
        self.__dict__.pop("_inside", None)

    @cached_property
    def inner(self) -> Path:
        """The path without the suffixes of its compression: what the file would be called."""
        path = self.path
        for _ in self.codecs:
            path = compressed.inner_name(path)
        return path

    def open(self) -> IO[bytes]:
        """A stream of its bytes, uncompressed. Reading raises InputError where the compressed file is damaged."""
        return self._layered(self.codecs)

    def local(self) -> Path:
        """A file of its bytes, uncompressed: the file itself where it is not compressed."""
        return self._unpacked if self.codecs else self.path

    def file(self) -> IO[bytes]:
        """The bytes of ``local``, to jump about in; those of a little file are in memory. InputError without it."""
        if not self.codecs:
            return self._stored()[0]
        return self._unpacked.open("rb")

    @property
    def whole(self) -> bytes | None:
        """The bytes of ``local`` where they are in memory already."""
        found: bytes | None = self.__dict__.get("_whole")
        return None if self.codecs else found

    def length(self) -> int:
        """Bytes of ``local``."""
        whole = self.whole
        return self.local().stat().st_size if whole is None else len(whole)

    def size(self) -> int:
        """Bytes on the disk, of all its files."""
        return sum(part.stat().st_size for part in self.parts if part.exists())

    def beside(self, name: str) -> Path:
        """A file that the header names, in the same folder or below it. InputError if it is not there or elsewhere."""
        folder = self.path if self.path.is_dir() else self.path.parent
        found = folder / name
        inside = os.path.realpath(found).startswith(os.path.join(os.path.realpath(folder), ""))
        if Path(name).is_absolute() or not inside or not found.is_file():
            raise InputError(
                self.label,
                expected="a data file in its own folder or below",
                found=f"a reference to {name!r}" + ("" if inside else ", which leads out"),
                remedy="put the file beside it; nothing else on this machine is read because a header says so",
            )
        return found

    def within(self, path: Path, name: str) -> "Source":
        """A file or folder that was unpacked from this one."""
        label = f"{self.label}::{name}"
        bare = replace(self, files=(), sidecars=(), mask=None, format="")
        return replace(bare, path=path, name=f"{self.name}::{name}", label=label, depth=self.depth + 1)

    @cached_property
    def sha256(self) -> str:
        """SHA-256 of the file as it lies there; of several, of the sorted lines "sha256  name" of all."""
        if not self.files:
            whole = self.__dict__.get("_whole")
            return _sha256(self.path) if whole is None else hashlib.sha256(whole).hexdigest()
        folder = self.path if self.path.is_dir() else self.path.parent
        lines = sorted(f"{_sha256(file)}  {file.relative_to(folder).as_posix()}\n" for file in self.files)
        return hashlib.sha256("".join(lines).encode()).hexdigest()

    def unpacked(self, most: int) -> bytes | None:
        """What is in a compressed file if that is less than ``most`` bytes; else None, and ``local`` has it."""
        if "_unpacked" in self.__dict__:
            return None
        inside: bytes | None = self.__dict__.get("_inside") if self.codecs == ("gz",) else None
        if inside is not None and len(inside) < most:
            return inside
        if self.codecs == ("gz",):
            with self._layered(()) as file:
                if data := compressed.one_member(file, min(most - 1, compressed.FREE_BYTES)):
                    return data
        with self.open() as file:
            data = file.read(most)
            if len(data) == most:
                self.__dict__["_unpacked"] = self._spooled(file, data)
                return None
        return data

    @cached_property
    def _unpacked(self) -> Path:
        with self.open() as file:
            return self._spooled(file)

    def _spooled(self, file: IO[bytes], beginning: bytes = b"") -> Path:
        handle, name = tempfile.mkstemp(dir=self.scratch.folder, suffix=f"-{self.inner.name[-80:]}")
        with os.fdopen(handle, "wb") as out:
            out.write(beginning)
            shutil.copyfileobj(file, out, COPY_BYTES)
        return Path(name)

    def _layered(self, codecs: Sequence[str]) -> IO[bytes]:
        inside = self.__dict__.get("_inside")
        if inside is not None and tuple(codecs) == ("gz",):
            return io.BytesIO(inside)
        stream, size = self._stored()
        for codec in codecs:
            stream = compressed.opened(stream, codec, size, self.options.limits.max_ratio, self.label)
        return stream

    def _stored(self) -> tuple[IO[bytes], int]:
        """The file as it lies there, and its size."""
        whole = self.__dict__.get("_whole")
        if whole is not None:
            return io.BytesIO(whole), len(whole)
        try:
            file = self.path.open("rb")
            return file, os.fstat(file.fileno()).st_size
        except OSError as error:
            raise unreadable(self.label, error) from error


def unreadable(label: object, error: OSError) -> InputError:
    """A file that the system does not give."""
    return InputError(
        label,
        expected="a readable file",
        found=error.strerror or str(error),
        remedy="check the path, its permissions and the disk",
    )


def _first_bytes(path: Path) -> tuple[bytes, int]:
    """The first HEAD_BYTES of a file, or all of a little one; and its size."""
    file = os.open(path, os.O_RDONLY)
    try:
        size = os.fstat(file).st_size
        return os.read(file, size if HEAD_BYTES < size <= LITTLE_BYTES else HEAD_BYTES), size
    finally:
        os.close(file)


def _sha256(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise unreadable(path, error) from error
