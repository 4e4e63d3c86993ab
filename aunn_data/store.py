"""Where a corpus lies: a folder, or a prefix of an object store.

A file here is written once, whole, and is durable when ``put`` returns: in a folder by fsync of the file, rename, fsync
of the folder; in an object store by its answer.

Keys are paths below the root with ``/`` between their parts. Zarr and Delta Lake get the same place in their own terms.
"""

import os
import secrets
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlsplit

import obstore
import zarr.storage
from obstore.exceptions import AlreadyExistsError, BaseError

from aunn_data.errors import RequestError, StoreError

TEMPORARY = ".tmp-"  # how the name of a file begins that is not whole yet
Data = bytes | Sequence[bytes]
"""A file's bytes, whole or in parts."""

_PARTS = 1024  # that one system call takes
_SCHEMES = {"s3", "s3a", "gs", "az", "abfs", "abfss"}


@dataclass(frozen=True)
class Item:
    """A file of a store: its key, its size in bytes, when it was last written."""

    key: str
    size: int
    modified: datetime


class Store(Protocol):
    """What a corpus needs of the place where it lies."""

    remote: bool
    """Does every look cost a request?"""

    @property
    def name(self) -> str:
        """What the user calls it: a path or a URL that opens it again."""

    def zarr(self) -> Any:
        """The same place as a Zarr store."""

    def table(self, key: str) -> tuple[str, dict[str, str]]:
        """A Delta table's URI below it and the options that delta-rs needs."""

    def exists(self, key: str) -> bool:
        """Is there a file of this key?"""

    def get(self, key: str) -> bytes:
        """A file's bytes. FileNotFoundError if there is none."""

    def put(self, key: str, data: Data, new: bool = False) -> bool:
        """Writes a file whole or not at all; durable on return. With ``new`` an existing one stays: False then."""

    def settle(self, keys: list[str]) -> None:
        """Makes files durable that another library wrote."""

    def items(self, prefix: str) -> Iterator[Item]:
        """The files below a prefix."""

    def delete(self, keys: list[str]) -> None:
        """Removes files; those that are gone already are no error."""

    def move(self, source: str, target: str) -> None:
        """Gives the files below a prefix another one."""


def store_at(where: str | Path) -> Store:
    """The store of a path or a URL. RequestError for a URL of an unknown kind."""
    text = str(where)
    scheme = urlsplit(text).scheme if "://" in text else ""
    if scheme in ("", "file"):
        return Folder(Path(text.removeprefix("file://")))
    if scheme not in _SCHEMES:
        raise RequestError(
            text, expected="a folder or a URL of " + ", ".join(sorted(_SCHEMES)), found=scheme, remedy="name another"
        )
    return Bucket(text.rstrip("/"))


class Folder:
    """A folder of a local file system."""

    remote = False

    def __init__(self, path: Path):
        self.path = path
        self._made: set[Path] = set()

    @property
    def name(self) -> str:
        return str(self.path)

    def zarr(self) -> Any:
        return zarr.storage.LocalStore(self.path, read_only=True)

    def table(self, key: str) -> tuple[str, dict[str, str]]:
        return str((self.path / key).absolute()), {}

    def exists(self, key: str) -> bool:
        return (self.path / key).exists()

    def get(self, key: str) -> bytes:
        with _refusals(self, key, absent=True):
            return (self.path / key).read_bytes()

    def put(self, key: str, data: Data, new: bool = False) -> bool:
        path = self.path / key
        temporary = path.with_name(f"{TEMPORARY}{secrets.token_hex(8)}")
        with _refusals(self, key):
            self._make(path.parent)
            try:
                _write(temporary, data)
                if new:
                    os.link(temporary, path)
                else:
                    os.rename(temporary, path)
                _sync(path.parent)
            except FileExistsError:
                return False
            finally:
                with suppress(OSError):  # renamed, or the disk refuses this as well
                    temporary.unlink(missing_ok=True)
        return True

    def settle(self, keys: list[str]) -> None:
        paths = [self.path / key for key in keys]
        with _refusals(self, ", ".join(keys)):
            for path in dict.fromkeys([*paths, *(path.parent for path in paths)]):  # in one order, for tests
                _sync(path)

    def items(self, prefix: str) -> Iterator[Item]:
        for found, _, files in os.walk(self.path / prefix):
            for file in files:
                path = Path(found, file)
                with suppress(FileNotFoundError):
                    told = path.stat()
                    modified = datetime.fromtimestamp(told.st_mtime, UTC)
                    yield Item(path.relative_to(self.path).as_posix(), told.st_size, modified)

    def delete(self, keys: list[str]) -> None:
        paths = [self.path / key for key in keys]
        with _refusals(self, "files that nobody needs"):
            for path in paths:
                path.unlink(missing_ok=True)
            for folder in {path.parent for path in paths if path.parent.exists()}:
                _sync(folder)

    def move(self, source: str, target: str) -> None:
        with _refusals(self, source), suppress(FileNotFoundError):
            os.rename(self.path / source, self.path / target)
            _sync(self.path)

    def _make(self, folder: Path) -> None:
        """A folder and those above it, each one's name durable: who made it may have been killed before that."""
        if folder in self._made:
            return
        if self.path in folder.parents or not folder.parent.exists():
            self._make(folder.parent)
        folder.mkdir(exist_ok=True)
        _sync(folder.parent)
        self._made.add(folder)


class Bucket:
    """A prefix of an object store; credentials and endpoint come from the environment, as its own tools take them."""

    remote = True

    def __init__(self, url: str):
        self.url = url
        with _refusals(self, ""):
            client: Any = {"allow_http": _endpoint().startswith("http://")}
            self._objects: Any = obstore.store.from_url(url, client_options=client)

    @property
    def name(self) -> str:
        return self.url

    def zarr(self) -> Any:
        return zarr.storage.ObjectStore(self._objects, read_only=True)

    def table(self, key: str) -> tuple[str, dict[str, str]]:
        options = {"aws_conditional_put": "etag"} if self.url.startswith("s3") else {}
        if _endpoint():
            options |= {"aws_endpoint": _endpoint(), "aws_allow_http": str(_endpoint().startswith("http://")).lower()}
        return f"{self.url}/{key}", options

    def exists(self, key: str) -> bool:
        with _refusals(self, key, absent=True):
            try:
                obstore.head(self._objects, key)
            except FileNotFoundError:
                return False
            return True

    def get(self, key: str) -> bytes:
        with _refusals(self, key, absent=True):
            return bytes(obstore.get(self._objects, key).bytes())

    def put(self, key: str, data: Data, new: bool = False) -> bool:
        data = data if isinstance(data, bytes) else b"".join(data)
        with _refusals(self, key):
            try:
                # One request for a file: a multipart upload could not be made conditional.
                obstore.put(self._objects, key, data, mode="create" if new else "overwrite", use_multipart=False)
            except AlreadyExistsError:
                return self._has(key, data)  # the client asks again where an answer was lost, and finds our own object
            except BaseError:
                if not self._has(key, data):
                    raise
        return True

    def _has(self, key: str, data: bytes) -> bool:
        with suppress(FileNotFoundError, BaseError):
            return bytes(obstore.get(self._objects, key).bytes()) == data
        return False

    def settle(self, keys: list[str]) -> None:
        """An object is durable once the store has answered."""

    def items(self, prefix: str) -> Iterator[Item]:
        with _refusals(self, prefix):
            for batch in obstore.list(self._objects, prefix):
                yield from (Item(found["path"], found["size"], found["last_modified"]) for found in batch)

    def delete(self, keys: list[str]) -> None:
        with _refusals(self, "files that nobody needs"):
            for key in keys:
                with suppress(FileNotFoundError):
                    obstore.delete(self._objects, key)

    def move(self, source: str, target: str) -> None:
        with _refusals(self, source):
            # A table is there once its log is: the log comes last.
            for item in sorted(self.items(source), key=lambda item: "/_delta_log/" in item.key):
                obstore.copy(self._objects, item.key, target + item.key.removeprefix(source))
                obstore.delete(self._objects, item.key)


def _endpoint() -> str:
    return os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL", "")


def _write(path: Path, data: Data) -> None:
    left = [memoryview(part) for part in ([data] if isinstance(data, bytes) else data)]
    left.reverse()
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
    try:
        while left:
            written = os.writev(descriptor, left[: -_PARTS - 1 : -1])
            while left and written >= len(left[-1]):
                written -= len(left.pop())
            if written:  # a write may be short
                left[-1] = left[-1][written:]
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def _refusals(store: Store, key: str, absent: bool = False) -> Iterator[None]:
    """What the disk or the object store refuses, as one error; with ``absent`` FileNotFoundError stays what it is."""
    try:
        yield
    except (OSError, BaseError) as error:
        if absent and isinstance(error, FileNotFoundError):
            raise
        raise refused(f"{store.name}/{key}", error) from error


def refused(where: str, error: Exception) -> StoreError:
    """The StoreError of what a disk, an object store or a library above them raised."""
    said = getattr(error, "strerror", None) or f"{type(error).__name__}: {error}".split("Debug source:")[0]
    return StoreError(
        where,
        expected="the disk or object store to do as asked",
        found=said[:500],
        remedy="nothing committed is lost: make room or mend it, then the same command again goes on",
    )
