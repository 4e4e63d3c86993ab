"""A folder of Zarr arrays: its documents, its arrays, and the files in it that are neither.

Groups are not needed to find an array, so a broken one hides none. Documents are kept as JSON, or as their text where
they hold what JSON has not (NaN); what v3 repeats in the root (``consolidated_metadata``) is left out.
"""

import base64
import json
import math
import os
import posixpath
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import zarr
from zarr.storage import LocalStore, StorePath

from aunn_data.errors import InputError
from aunn_data.geometry import Region, slices
from pipelines.scans.chunked import FREE_BYTES, Grid, checked
from pipelines.scans.ome_zarr import Image, images
from pipelines.scans.zarr_codecs import Bounded, bounded
from pipelines.source import Source
from pipelines.stored import refusing

DOCUMENTS = frozenset({"zarr.json", ".zarray", ".zgroup", ".zattrs", ".zmetadata"})
KEPT = ("zarr.json", ".zgroup", ".zarray", ".zattrs")
MOST_DOCUMENT_BYTES = 1 << 24
MOST_NOTE_BYTES = 1 << 16  # of a text beside the arrays that joins a header
REMEDY = "restore the store from a copy"


class Store:
    """All that lies in the folder of a source. InputError if a group's document is damaged."""

    def __init__(self, source: Source):
        self.source, self.root = source, source.path
        self.arrays: list[str] = []
        self.documents: dict[str, dict[str, Any]] = {}  # of the groups: path of the group -> name -> document
        self.strangers: list[InputError] = []
        self._others: list[str] = []
        self._walk()
        self.images = {group: images(group, self.attributes(group)) for group in self.documents}
        self._image_at = {image.path: image for found in self.images.values() for image in found}

    def attributes(self, group: str) -> dict[str, Any]:
        """Of a group, v3 or v2."""
        documents = self.documents[group]
        found = _unpacked(documents.get("zarr.json", {})).get("attributes") or _unpacked(documents.get(".zattrs", {}))
        return found if isinstance(found, dict) else {}

    def image_of(self, path: str) -> Image:
        """The image whose first scale an array is; one that says nothing if there is none."""
        return self._image_at.get(path, Image(path))

    def documents_of(self, path: str) -> dict[str, Any]:
        """Those of an array and of the groups above it, by their path. InputError if one is damaged."""
        found = {}
        for above in _upwards(path)[::-1]:
            documents = self.documents.get(above) if above != path else self._documents(above)
            found.update({posixpath.join(above, name): document for name, document in (documents or {}).items()})
        return found

    def opened(self, path: str) -> "Opened":
        """An array, and which of its chunks are stored."""
        where, documents = self._where(path), self._documents(path)
        name = "zarr.json" if _is_array(documents.get("zarr.json")) else ".zarray"
        document = _unpacked(documents[name])
        attributes = document.get("attributes", {}) if name == "zarr.json" else _unpacked(documents.get(".zattrs", {}))
        array = opened(self.root, path, document, where)
        array.source = self.source
        array.attributes = attributes if isinstance(attributes, dict) else {}
        size = self.source.size() if array.nbytes > FREE_BYTES else 0
        checked(where, array.dtype, array.shape, size, self.source.options.limits)
        others = array.find_chunks(self.root / path, document)
        self.strangers += [self._stranger(posixpath.join(path, other)) for other in others]
        return array

    def notes(self) -> dict[str, str]:
        """The short texts in the folder, documents of groups without arrays among them; other files are strangers."""
        notes = {}
        for name in self._others:
            try:
                if (self.root / name).is_file() and (self.root / name).stat().st_size <= MOST_NOTE_BYTES:
                    notes[name] = (self.root / name).read_bytes().decode()
                    continue
            except (OSError, UnicodeDecodeError):
                pass
            self.strangers.append(self._stranger(name))
        return notes

    def _walk(self) -> None:
        most = self.source.options.limits.max_members
        for folder, below, files in os.walk(self.root):
            path = Path(folder).relative_to(self.root).as_posix()
            path = "" if path == "." else path
            if ".zarray" in files or ("zarr.json" in files and self._is_array(path)):
                self.arrays.append(path)
                below.clear()
                continue
            if not DOCUMENTS.isdisjoint(files):
                self.documents[path] = self._documents(path)
            links = [name for name in below if os.path.islink(os.path.join(folder, name))]
            self._others += [posixpath.join(path, name) for name in (*files, *links) if name not in DOCUMENTS]
            below.sort()
            if len(self.arrays) + len(self._others) > most:
                raise InputError(
                    self.source.label, expected=f"at most {most} arrays", found="more", remedy="raise max_members"
                )
        above = {group for array in self.arrays for group in _upwards(array)}
        for group in [group for group in self.documents if group not in above]:
            self._others += [posixpath.join(group, name) for name in self.documents.pop(group)]
        self.arrays.sort()
        self._others.sort()
        if not self.arrays:
            raise InputError(self.source.label, expected="a Zarr array", found="none in the folder", remedy=REMEDY)

    def _is_array(self, path: str) -> bool:
        try:
            return _is_array(self._documents(path)["zarr.json"])
        except InputError:
            return (self.root / path / "c").exists()

    def _documents(self, path: str) -> dict[str, Any]:
        found = {}
        for name in KEPT:
            file = self.root / path / name
            if file.is_file():
                found[name] = _kept(parsed_document(_text(file, self._where(path)), f"{self._where(path)}/{name}"))
        return found

    def _where(self, path: str) -> str:
        return f"{self.source.label}::{path}" if path else self.source.label

    def _stranger(self, name: str) -> InputError:
        return InputError(
            f"{self.source.label}::{name}",
            expected="a chunk or a document of an array",
            found="a file that belongs to none",
            remedy="ingest it by itself if it is wanted",
        )


@dataclass
class Opened:
    """An array as zarr reads it. Of a scalar, ``shape`` is (1,). ``stored`` are the places of the chunks that are."""

    array: Any
    where: str
    version: int
    attributes: dict[str, Any] = field(default_factory=dict)
    stored: Grid | None = None
    nested: bool = False
    source: Source | None = None  # held: what was unpacked lives as long

    def __post_init__(self) -> None:
        array = self.array
        self.dtype = np.dtype(array.dtype)
        self.shape: tuple[int, ...] = tuple(array.shape) or (1,)
        self.chunk: tuple[int, ...] = tuple(array.shards or array.chunks) or (1,)
        self.unknown_fill = array.metadata.fill_value is None
        self.fill = 0 if self.unknown_fill else array.metadata.fill_value

    @property
    def nbytes(self) -> int:
        """Bytes of all elements."""
        return math.prod(self.shape) * int(self.dtype.itemsize)

    @property
    def dimensions(self) -> Any:
        """Names of the axes, if there are any."""
        names = getattr(self.array.metadata, "dimension_names", None) or self.attributes.get("_ARRAY_DIMENSIONS")
        return names if isinstance(names, (list, tuple)) else ()

    @property
    def declared(self) -> Any:
        """The value that stands for a missing element, if the attributes say so and it is not NaN."""
        value = self.attributes.get("_FillValue")
        if value is None and self.version == 2 and "_ARRAY_DIMENSIONS" in self.attributes and not self.unknown_fill:
            value = self.fill
        try:
            if isinstance(value, str):  # v3 by xarray: a double, in base64
                value = np.frombuffer(base64.b64decode(value, validate=True), "<f8", 1)[0]
            converted = None if value is None else self.dtype.type(value)
        except (ValueError, TypeError, OverflowError):
            return None
        return converted if converted is not None and converted == value else None

    def read(self, region: Region) -> npt.NDArray[Any]:
        """The elements of a box."""
        with _quietly(), refusing(self.where, "chunks that its codecs decode", REMEDY):
            if not self.array.shape:
                return np.asarray(self.array[()], self.dtype).reshape(1)
            return np.asarray(self.array[slices(region)], self.dtype)

    def write(self, region: Region, values: npt.NDArray[Any]) -> None:
        """Stores the elements of a box."""
        with _quietly(), refusing(self.where, "elements that its codecs encode", "export it as .npy"):
            self.array[slices(region) if self.array.shape else ()] = values if self.array.shape else values[0]

    def find_chunks(self, folder: Path, document: dict[str, Any]) -> list[str]:
        """Finds the chunks that are stored; returns the names of files that are none."""
        names = [name for name in _files(folder) if name not in DOCUMENTS]
        files = [name for name in names if os.path.isfile(folder / name)]
        odd = (
            [name for name in names if not os.path.isfile(folder / name)] if len(files) < len(names) else []
        )  # a pipe never ends
        places, others = self._places(files)
        if not places and files and self.version == 2 and "dimension_separator" not in document:
            self.nested = True  # written by the old NestedDirectoryStore, which did not say so
            nested = {**document, "dimension_separator": "/"}
            self.array = opened(folder, "", nested, self.where).array
            places, others = self._places(files)
        self.stored = np.array(places, np.int64).reshape(-1, len(self.shape))
        return others + odd

    def _places(self, files: list[str]) -> tuple[list[tuple[int, ...]], list[str]]:
        encode, shape = self.array.metadata.encode_chunk_key, self.array.shape
        grid = [-(-size // edge) for size, edge in zip(self.shape, self.chunk, strict=True)]
        places, others = [], []
        for name in files:
            place = tuple(int(number) for number in re.findall(r"\d{1,18}", name)) if shape else ()
            inside = len(place) == len(shape) and all(n < most for n, most in zip(place, grid, strict=False))
            if inside and encode(place) == name:
                places.append(place or (0,))
            else:
                others.append(name)
        return places, others


def opened(root: Path, path: str, document: dict[str, Any], where: str, read_only: bool = True) -> Opened:
    """The array of a document below a root."""
    version = 3 if "node_type" in document else 2
    with _quietly(), refusing(where, "a Zarr array whose type and codecs are known", "store it again with zarr"):
        store = StorePath(LocalStore(root, read_only=read_only), path)
        whole = {**document, "zarr_format": version, **({"attributes": {}} if version == 3 else {})}
        with zarr.config.set({"array.write_empty_chunks": False}):
            array = zarr.Array.from_dict(store, whole)
            if min(array.shards or array.chunks, default=1) < 1:
                raise ValueError(f"chunks {array.chunks}")
            metadata: Any = array.metadata
            if version == 3:
                metadata = replace(metadata, codecs=tuple(bounded(codec) for codec in metadata.codecs))
            elif metadata.compressor is not None:
                size = math.prod(metadata.chunks) * np.dtype(array.dtype).itemsize
                metadata = replace(metadata, compressor=Bounded(metadata.compressor, size))
            return Opened(zarr.Array(zarr.AsyncArray(metadata, store)), where, version)


def parsed_document(text: str, where: str) -> dict[str, Any]:
    """A JSON object. InputError if it is none."""
    with refusing(where, "a JSON object", REMEDY):
        document = json.loads(text)
        if not isinstance(document, dict):
            raise TypeError(f"{type(document).__name__}")
        return document


def text_of(document: Any) -> str:
    """What to write for a document that was kept."""
    return document if isinstance(document, str) else json.dumps(document, indent=2, ensure_ascii=False)


def _kept(document: dict[str, Any]) -> Any:
    """The document as JSON, or as text where a header could not hold it."""
    document = {name: value for name, value in document.items() if name != "consolidated_metadata"}
    try:
        json.dumps(document, allow_nan=False, ensure_ascii=False).encode()
    except ValueError:
        return json.dumps(document)
    return document


def _unpacked(document: Any) -> dict[str, Any]:
    return parsed_document(document, "a document") if isinstance(document, str) else document


def _is_array(document: Any) -> bool:
    return document is not None and _unpacked(document).get("node_type") == "array"


def _text(file: Path, where: str) -> str:
    with refusing(where, "a document in UTF-8", REMEDY):
        if not file.is_file() or file.stat().st_size > MOST_DOCUMENT_BYTES:
            raise ValueError(f"{file.stat().st_size} bytes" if file.is_file() else "no regular file")
        return file.read_bytes().decode()


def _files(folder: Path) -> Iterator[str]:
    for below, folders, files in os.walk(folder):
        folders.sort()
        start = os.path.relpath(below, folder)
        for name in sorted(files):
            yield name if start == "." else posixpath.join(*start.split(os.sep), name)


def _upwards(path: str) -> list[str]:
    """The path and all above it, to the root."""
    found = [path]
    while path:
        path = posixpath.dirname(path)
        found.append(path)
    return found


@contextmanager
def _quietly() -> Iterator[None]:
    """zarr warns of types and codecs that not everyone knows."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
