"""MINC 1 (netCDF) and 2 (HDF5), whose headers nibabel reads: https://en.wikibooks.org/wiki/MINC

Every attribute of the file stands in the metadata. Written as NIfTI with these as a comment in it.
"""

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import h5py
import nibabel
import numpy as np
from nibabel.externals import netcdf

from aunn_data.errors import InputError
from aunn_data.geometry import Geometry
from aunn_data.record import Record
from pipelines.scans import nifti
from pipelines.scans.voxels import Affine, affine_of, check, check_unpacked, record_of
from pipelines.source import Source
from pipelines.stored import MAPPED_BYTES, refusing

MODALITY = "scan"
FORMATS = ("minc",)

HDF5, NETCDF = b"\x89HDF", (b"CDF\x01", b"CDF\x02")
NETCDF_FILE: Any = netcdf.netcdf_file
MINC1: Any = nibabel.minc1.Minc1File
MINC2: Any = nibabel.minc2.Minc2File
IMAGE = "minc-2.0/image/0/image"
AXES = {"xspace": "x", "yspace": "y", "zspace": "z", "time": "t", "vector_dimension": "channel"}
UNITS = {"mm": "mm", "millimeters": "mm", "s": "s", "seconds": "s"}
REMEDY = "restore it, or convert it with mincconvert or mnc2nii"


class Lazy:
    """Array-like over a dataset, read slice by slice; the file, and what it was unpacked to, live as long."""

    def __init__(self, source: Source, dataset: h5py.Dataset):
        self.source, self.dataset = source, dataset
        self.shape, self.dtype, self.ndim, self.nbytes = dataset.shape, dataset.dtype, dataset.ndim, dataset.nbytes

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, key: Any) -> Any:
        with refusing(self.source.label, "voxels that are whole", REMEDY):
            return self.dataset[key]


def sniff(head: bytes, path: Path) -> bool:
    """By content: HDF5 with a group "minc-2.0", netCDF with MINC's dimensions."""
    if head.startswith(HDF5):
        return b"minc-2.0\0" in head
    return head.startswith(NETCDF) and any(name in head for name in (b"xspace", b"yspace", b"zspace"))


def read(source: Source) -> Iterator[Record | InputError]:
    """One record: the image as stored, its axes named by MINC's dimensions; vectors become the slowest axis."""
    if nifti.sniff(source.head, source.inner):  # as this module writes it
        yield from nifti.read(source)
        return
    with refusing(source.label, "a MINC file", REMEDY):
        if source.head.startswith(HDF5):
            minc, elements, attributes = _minc2(source)
        else:
            minc, elements, attributes = _minc1(source)
        names = [AXES.get(name, name) for name in minc._dim_names]
        slopes, intercepts = _scaling(minc)
        if names[-1] == "channel":
            elements = np.moveaxis(np.asarray(elements[...]), -1, 0)
        geometry = _geometry(minc, names, elements, slopes, intercepts)
    metadata: dict[str, Any] = {"attributes": attributes}
    if len(set(slopes)) > 1 or len(set(intercepts)) > 1:
        metadata |= {"slopes": slopes, "intercepts": intercepts}
    yield record_of(source, "minc", geometry, elements, metadata)


def write(records: Sequence[Record], path: Path) -> Path:
    """The volume as NIfTI."""
    return nifti.write(records, path)


def _minc1(source: Source) -> tuple[Any, Any, dict[str, Any]]:
    path = source.local()
    with NETCDF_FILE(path, mmap=False) as file:
        minc = MINC1(file)
        dtype = minc.get_data_dtype()
        elements = np.asarray(minc._image.data)
        check(source, elements.shape, dtype.itemsize, path.stat().st_size)
        attributes = {"": _json(file._attributes)}
        attributes |= {name: _json(variable._attributes) for name, variable in file.variables.items()}
    return minc, elements.view(dtype), attributes


def _minc2(source: Source) -> tuple[Any, Any, dict[str, Any]]:
    file = h5py.File(source.local(), "r", locking=False)
    _check_links(source, file, IMAGE)
    dataset = file[IMAGE]
    if dataset.is_virtual or dataset.external:
        raise ValueError("voxels in another file")
    if dataset.dtype.kind not in "iuf":
        raise ValueError(f"voxels of type {dataset.dtype}")
    check_unpacked(source, dataset.shape, dataset.dtype.itemsize, source.length())
    minc = MINC2(file)
    attributes = {f"dimensions/{name}": _json(vars(dim)) for name, dim in zip(minc._dim_names, minc._dims, strict=True)}
    names: list[bytes] = []
    group = file["minc-2.0"].id
    h5py.h5o.visit(group, names.append)
    for name in (name.decode("utf-8", "surrogateescape") for name in names):
        if name not in attributes:
            attributes[name] = _attributes(file, f"minc-2.0/{name}")
    small = dataset.nbytes < MAPPED_BYTES
    return minc, dataset[...] if small else Lazy(source, dataset), attributes


def _check_links(source: Source, file: h5py.File, path: str) -> None:
    """Nothing on the way leads to another file, or to what would."""
    *above, _ = names = path.split("/")
    groups = ["/".join(above[:depth]) for depth in range(len(names))]
    for group, name in zip(groups, names, strict=True):
        if not _is_own(file, f"{group}/{name}"):
            raise ValueError(f"{name} that is no part of the file itself")
    for group in (groups[-1], "minc-2.0/dimensions"):
        if not all(_is_own(file, f"{group}/{name}") for name in file[group]):
            raise ValueError(f"a link in /{group} that leads elsewhere")


def _is_own(file: h5py.File, path: str) -> bool:
    return bool(file.id.links.get_info(path.encode("utf-8", "surrogateescape")).type == h5py.h5l.TYPE_HARD)


def _attributes(file: h5py.File, path: str) -> dict[str, Any]:
    """All attributes of an object; plain ones without the several objects that h5py makes of each."""
    there, found = h5py.h5o.open(file.id, path.encode("utf-8", "surrogateescape")), {}
    for number in range(h5py.h5a.get_num_attrs(there)):
        attribute = h5py.h5a.open(there, index=number)
        name, dtype, shape = attribute.name.decode("utf-8", "surrogateescape"), attribute.dtype, attribute.shape
        if shape is None or dtype.kind not in "iufS" or dtype.subdtype is not None:
            found[name] = file[path].attrs[name]
            continue
        value = np.zeros(shape, dtype)
        attribute.read(value)
        found[name] = value[()]
    return _json(found)


def _json(attributes: Any) -> dict[str, Any]:
    """Attributes as JSON types; NaN and infinities as words."""
    return {str(name): _plain(value) for name, value in attributes.items()}


def _plain(value: Any) -> Any:
    if isinstance(value, np.ndarray | np.generic):
        value = value.tolist()
    if isinstance(value, bytes):
        return value.decode("latin-1")
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return repr(value)
    return value if isinstance(value, str | int | float) else str(type(value).__name__)


def _scaling(minc: Any) -> tuple[list[float], list[float]]:
    """What makes physical values of stored ones, one for the volume or one a slice; nothing for floats."""
    if np.dtype(minc.get_data_dtype()).kind == "f":
        return [1.0], [0.0]
    dimensions = list(minc._get_dimensions(minc._image_max))
    if dimensions != list(minc._dim_names)[: len(dimensions)] or len(dimensions) > 2:
        raise ValueError(f"image-max by {dimensions}")
    get = minc._get_array if dimensions else minc._get_scalar
    highest, lowest = (np.asarray(get(v), float).reshape(-1) for v in (minc._image_max, minc._image_min))
    low, high = minc._get_valid_range()
    with np.errstate(all="ignore"):
        slopes = (highest - lowest) / (high - low)
        intercepts = lowest - low * slopes
    if not np.isfinite([slopes, intercepts]).all():
        return [1.0], [0.0]
    return slopes.tolist(), intercepts.tolist()


def _geometry(minc: Any, names: list[str], elements: Any, slopes: list[float], intercepts: list[float]) -> Geometry:
    spacing = dict(zip(names, map(float, minc.get_zooms()), strict=True))
    units = {
        name: UNITS.get(_plain(getattr(dim, "units", "")), "") for name, dim in zip(names, minc._dims, strict=True)
    }
    axes = (names[-1], *names[:-1]) if names[-1] == "channel" else tuple(names)
    return Geometry(
        dtype=np.dtype(elements.dtype).str,
        axes=axes,
        shape=elements.shape,
        spacing=tuple(spacing[axis] for axis in axes) if all(map(math.isfinite, spacing.values())) else None,
        units=tuple(units[axis] for axis in axes),
        slope=slopes[0] if len(set(slopes)) == 1 else 1.0,
        intercept=intercepts[0] if len(set(intercepts)) == 1 else 0.0,
        affine=_affine(minc, names),
    )


def _affine(minc: Any, names: list[str]) -> Affine | None:
    """nibabel's, whose columns go with the dimensions' order, by x, y and z."""
    spatial = [name for name in names if name in "xyz"]
    if sorted(spatial) != ["x", "y", "z"]:
        return None
    affine = minc.get_affine()
    return affine_of([affine[:3, spatial.index(axis)] for axis in "xyz"], affine[:3, 3], (1, 1, 1))
