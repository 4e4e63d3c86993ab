"""HDF5 (NetCDF-4, MATLAB 7.3, Imaris and others are HDF5): https://support.hdfgroup.org/documentation/hdf5/latest/

Every dataset of numbers is a record, ``name::/path``, its axes as they are stored. Attributes and small datasets of
strings stand in the headers. Compound, reference and other types are refused one by one, and so is all that lies in
another file (external links, external and virtual datasets): nothing is read because a file says so.

Elements are missing where they are NaN or equal to the attribute ``_FillValue`` or ``missing_value``. Those of chunks
that were never written are HDF5's own fill value, as for any other reader. Written again, filters other than gzip, lzf,
shuffle and fletcher32 are left out.
"""

import base64
import math
import posixpath
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt

from aunn_data.errors import InputError
from aunn_data.geometry import Geometry, Region, slices
from aunn_data.header import Header
from aunn_data.record import Record
from pipelines.scans import hdf5_attributes as attributes
from pipelines.scans.chunked import PIECE_BYTES, Chunked, Marks, axis_names, checked, recorded, whole_of
from pipelines.source import Source
from pipelines.stored import refusing

MODALITY = "scan"
FORMATS = ("hdf5",)

MAGIC = b"\x89HDF\r\n\x1a\n"
STARTS = (0, 512, 1024, 2048)  # of the magic: what stands before is the user's
CACHE_BYTES = 1 << 25
MOST_DEPTH = 64  # of groups within one another
MOST_USER_BYTES = 1 << 16
REMEDY = "restore the file from a copy"
ELSEWHERE = "copy all into one file; nothing else on this machine is read because a file says so"


def sniff(head: bytes, path: Path) -> bool:
    """By content: the magic, perhaps after a block of the user's."""
    return any(head.startswith(MAGIC, start) for start in STARTS)


def read(source: Source) -> Iterator[Record | InputError]:
    """One record a dataset of numbers; in the place of any other thing that holds data, an InputError."""
    with refusing(source.label, "an HDF5 file", REMEDY):
        file = h5py.File(source.local(), "r", locking=False, rdcc_nbytes=CACHE_BYTES, rdcc_nslots=10007)
        found = _Found(source)
        found.walk(file)
        beside = found.beside(file)
    for path in found.datasets:
        try:
            with refusing(f"{source.label}::{path}", "a dataset whose type and filters are known", REMEDY):
                record = _record(source, file[path], path, found, beside)
        except InputError as error:
            yield error
        else:
            beside = {}  # it went with the first record
            yield record
    yield from found.refused


def write(records: Sequence[Record], path: Path) -> Path:
    """The file again: all datasets, groups, attributes and links."""
    user = next((base64.b64decode(kept["user"]) for kept in map(_kept, records) if "user" in kept), b"")
    with h5py.File(path, "w", userblock_size=len(user), track_order=False) as file:
        for kept in map(_kept, records):
            for name, values in kept.get("groups", {}).items():
                attributes.set_attributes(file.require_group(name), values)
            for name, value in kept.get("texts", {}).items():
                attributes.set_text(file, name, value["value"])
                attributes.set_attributes(file[name], value["attributes"])
        for record in records:
            _write_dataset(file, record)
        for kept in map(_kept, records):
            _write_relations(file, kept)
    if user:
        with path.open("r+b") as out:
            out.write(user)
    return path


@dataclass
class _Boxes:
    """Reads boxes of a dataset; holds on to its file, and to the source, which may have unpacked it."""

    source: Source
    file: Any
    dataset: Any
    where: str
    dtype: np.dtype[Any]

    def __call__(self, region: Region) -> npt.NDArray[Any]:
        with refusing(self.where, "chunks that HDF5 decodes", REMEDY):
            values = self.dataset[slices(region) if self.dataset.shape else ()]
            return np.asarray(values, self.dtype).reshape([stop - start for start, stop in region])


@dataclass
class _Found:
    """What is in a file: the paths of its datasets, its groups, the links, what is refused."""

    source: Source
    datasets: list[str] = field(default_factory=list)
    groups: dict[str, Any] = field(default_factory=dict)
    texts: dict[str, Any] = field(default_factory=dict)
    links: dict[str, str] = field(default_factory=dict)
    refused: list[InputError] = field(default_factory=list)
    seen: dict[Any, str] = field(default_factory=dict)  # address of an object -> its first path

    def walk(self, group: Any, path: str = "/", depth: int = 0) -> None:
        """All below a group, each object once."""
        self.groups[path] = attributes.attributes(group)
        self.seen[_address(group)] = path
        if depth > MOST_DEPTH or len(self.seen) > self.source.options.limits.max_members:
            raise InputError(
                self.source.label,
                expected=f"at most {self.source.options.limits.max_members} objects, {MOST_DEPTH} groups deep",
                found="more",
                remedy="raise max_members if you trust it",
            )
        for name in sorted(group):
            if name == attributes.utf8(name):
                self._object(group, name, posixpath.join(path, name), depth)
            else:
                self._refuse(path, "names in UTF-8", repr(name), "rename it (h5copy)")

    def beside(self, file: Any) -> dict[str, Any]:
        """What no dataset stands below, for the header of the first record."""
        above = {parent for path in self.datasets for parent in _above(path)}
        found: dict[str, Any] = {"links": self.links, "texts": self.texts}
        found["groups"] = {path: values for path, values in self.groups.items() if path not in above}
        if 0 < file.userblock_size <= MOST_USER_BYTES:
            with self.source.local().open("rb") as raw:
                found["user"] = base64.b64encode(raw.read(file.userblock_size)).decode()
        return {name: value for name, value in found.items() if value}

    def _object(self, group: Any, name: str, path: str, depth: int) -> None:
        link = group.get(name, getlink=True)
        if isinstance(link, h5py.SoftLink):
            self.links[path] = attributes.utf8(link.path)
            return
        if not isinstance(link, h5py.HardLink):
            self._refuse(path, "data in the file itself", "a link to another file", ELSEWHERE)
            return
        there = group[name]
        if first := self.seen.get(_address(there)):
            self.links[path] = f"={first}"
        elif isinstance(there, h5py.Group):
            self.walk(there, path, depth + 1)
        elif isinstance(there, h5py.Dataset):
            self.seen[_address(there)] = path
            text = attributes.text(there)
            if text is None:
                self.datasets.append(path)
            else:
                self.texts[path] = {"value": text, "attributes": attributes.attributes(there)}

    def _refuse(self, path: str, expected: str, found: str, remedy: str) -> None:
        self.refused.append(InputError(f"{self.source.label}::{path}", expected=expected, found=found, remedy=remedy))


def _record(source: Source, dataset: Any, path: str, found: _Found, beside: dict[str, Any]) -> Record:
    where = f"{source.label}::{path}"
    _check(where, dataset, source)
    dtype, shape = np.dtype(dataset.dtype.str), tuple(dataset.shape) or (1,)
    own = attributes.attributes(dataset)
    scales = _scales(dataset)
    metadata: dict[str, Any] = {"path": path, "attributes": own, "storage": attributes.storage(dataset)}
    if not dataset.shape:
        metadata["scalar"] = True
    if any(scales):
        metadata["scales"] = scales
    groups = {above: found.groups[above] for above in _above(path)}
    metadata.update({**beside, "groups": {**groups, **beside.get("groups", {})}})
    axes = axis_names(_names(dataset, scales), len(shape))
    spacing = _spacing(own, len(shape))
    units = ("micrometer",) * len(shape) if spacing else None
    geometry = Geometry(dtype.str, axes, shape, spacing=spacing, units=units)
    header = Header(f"{source.name}::{path}", source.name, MODALITY, "hdf5", geometry, metadata)
    return recorded(header, Marks(_elements(source, dataset, where, dtype, shape), _declared(dataset, dtype)))


def _check(where: str, dataset: Any, source: Source) -> None:
    """InputError for what is not here, not numbers, or too much."""
    if dataset.is_virtual or dataset.external:
        found = "a virtual dataset" if dataset.is_virtual else "a dataset with external storage"
        raise InputError(where, expected="data in the file itself", found=found, remedy=ELSEWHERE)
    if dataset.shape is None:
        raise InputError(where, expected="at least one element", found="an empty dataset", remedy="leave it out")
    checked(where, dataset.dtype, tuple(dataset.shape), dataset.id.get_storage_size(), source.options.limits)
    properties = dataset.id.get_create_plist()
    for number in range(properties.get_nfilters()):
        code, _, _, name = properties.get_filter(number)
        if not h5py.h5z.filter_avail(code):
            named = name.decode("ascii", "replace").splitlines()[:1]
            found = f"filter {code} {named}"
            raise InputError(where, expected="filters of HDF5 itself", found=found, remedy="h5repack -f GZIP=4")


def _elements(source: Source, dataset: Any, where: str, dtype: np.dtype[Any], shape: tuple[int, ...]) -> Chunked:
    read = _Boxes(source, dataset.file, dataset, where, dtype)
    fill = dataset.fillvalue if dataset.fillvalue is not None else 0
    if dataset.chunks is None:
        row = (*[1] * (len(shape) - 1), shape[-1])
        empty = dataset.id.get_storage_size() == 0
        stored = np.empty((0, len(shape)), np.int64) if empty else None
        return Chunked(shape, dtype, shape if empty else row, read, stored, fill)
    grid = math.prod(-(-size // edge) for size, edge in zip(shape, dataset.chunks, strict=True))
    stored = None
    if dataset.id.get_num_chunks() < grid:
        offsets: list[tuple[int, ...]] = []
        dataset.id.chunk_iter(lambda chunk: offsets.append(chunk.chunk_offset))
        stored = np.array(offsets, np.int64).reshape(-1, len(shape)) // np.array(dataset.chunks, np.int64)
    return Chunked(shape, dtype, dataset.chunks, read, stored, fill)


def _declared(dataset: Any, dtype: np.dtype[Any]) -> Any:
    """The value that stands for missing elements, if an attribute says so and it is not NaN."""
    for name in ("_FillValue", "missing_value"):
        if name in dataset.attrs and (value := np.asarray(dataset.attrs[name])).size == 1 and value.dtype.kind in "iuf":
            converted = value.reshape(()).astype(dtype) if np.isfinite(value).all() else value
            if dtype.kind != "c" and converted == value:
                return converted[()]
    return None


def _scales(dataset: Any) -> list[list[str]]:
    """The paths of the scales that NetCDF gives each axis; none if they cannot be told."""
    if "DIMENSION_LIST" not in dataset.attrs:
        return []
    try:
        return [[axis[n].name for n in range(len(axis))] for axis in dataset.dims]
    except Exception:  # h5py raises whatever a damaged reference makes of it
        return []


def _names(dataset: Any, scales: list[list[str]]) -> list[str]:
    if scales:
        return [posixpath.basename(axis[0]) if axis else "" for axis in scales]
    return [axis.label for axis in dataset.dims] if "DIMENSION_LABELS" in dataset.attrs else []


def _spacing(own: dict[str, Any], count: int) -> tuple[float, ...] | None:
    """What Fiji and ilastik write beside a volume: the size of an element in micrometers."""
    kept = own.get("element_size_um", {}).get("value")
    if (
        not isinstance(kept, list)
        or len(kept) != count
        or not all(isinstance(step, float) and step > 0 for step in kept)
    ):
        return None
    return tuple(kept)


def _write_dataset(file: Any, record: Record) -> None:
    kept, elements = _kept(record), whole_of(record)
    dtype = np.dtype(getattr(elements, "dtype", record.header.geometry.dtype))
    shape = () if kept.get("scalar") else tuple(elements.shape)
    dataset = file.create_dataset(kept["path"], shape, **attributes.created(kept.get("storage", {}), dtype))
    if kept.get("scalar"):
        dataset[()] = np.asarray(elements[:1])[0]
    else:
        row = dataset.chunks or (*[1] * (len(shape) - 1), shape[-1])
        for region in Chunked(shape, dtype, row, lambda region: np.empty(0)).pieces(None, PIECE_BYTES):
            values = np.asarray(elements[slices(region)])
            if dataset.chunks is None or values.tobytes() != np.full(values.shape, dataset.fillvalue, dtype).tobytes():
                dataset[slices(region)] = values
    attributes.set_attributes(dataset, kept.get("attributes", {}))


def _write_relations(file: Any, kept: dict[str, Any]) -> None:
    for name, target in kept.get("links", {}).items():
        if not target.startswith("="):
            file[name] = h5py.SoftLink(target)
        elif target[1:] in file:
            file[name] = file[target[1:]]
    for axis, paths in enumerate(kept.get("scales", ())):
        for path in paths:
            if path in file:
                file[kept["path"]].dims[axis].attach_scale(file[path])


def _kept(record: Record) -> dict[str, Any]:
    return record.header.metadata


def _above(path: str) -> list[str]:
    found = []
    while path != "/":
        path = posixpath.dirname(path)
        found.append(path)
    return found


def _address(there: Any) -> tuple[Any, ...]:
    info = h5py.h5o.get_info(there.id)
    return info.fileno, info.addr
