"""numpy's ``.npy`` and ``.npz``, never a pickle: https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html

An array in Fortran order has its axes reversed, so that what runs fastest in the file is the last axis.
"""

import warnings
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt
from numpy.lib import format as npy_format

from aunn_data.errors import InputError
from aunn_data.geometry import Geometry, fitted
from aunn_data.header import Header
from aunn_data.record import Record
from pipelines.source import Source
from pipelines.stored import element_bytes, marks_of, only, refusing, stored

MODALITY = "scan"
FORMATS = ("npy", "npz")

MAGIC, ZIP = b"\x93NUMPY", b"PK\x03\x04"
AXES = ("t", "z", "y", "x")
READ_HEADER = {
    (1, 0): npy_format.read_array_header_1_0,
    (2, 0): npy_format.read_array_header_2_0,
    (3, 0): npy_format.read_array_header_2_0,  # the same in UTF-8, which only names of fields need
}
REMEDY = "save it again with numpy.save: whole numbers, floats, complex numbers or bools, no objects"


def sniff(head: bytes, path: Path) -> bool:
    """By content: numpy's magic, or a zip archive whose members are all arrays."""
    if not head.startswith(ZIP):
        return head.startswith(MAGIC)
    name = head[30 : 30 + int.from_bytes(head[26:28], "little")]
    return name.endswith(b".npy") and _only_arrays(path)


def read(source: Source) -> Iterator[Record | InputError]:
    """One record of a .npy, one a member (``name::member``) of a .npz."""
    path, name = source.local(), source.name
    with refusing(path, "an array saved by numpy", REMEDY):
        archive = source.head.startswith(ZIP)
        if not archive:
            record = _record(name, name, "npy", *_array(source, path), {})
    if archive:
        yield from _members(path, name)
    else:
        yield record


def write(records: Sequence[Record], path: Path) -> Path:
    """The array, or all arrays of an archive, with the type and the order they had. The name gets its suffix."""
    format = records[0].header.format if records[0].header.format in FORMATS else "npy"
    if path.suffix.lower() != f".{format}":
        path = path.with_name(f"{path.name}.{format}")
    if format == "npy":
        with path.open("wb") as file:
            np.save(file, array_of(only(records, path)), allow_pickle=False)
        return path
    kept = records[0].header.metadata
    compression = zipfile.ZIP_DEFLATED if kept.get("compressed") else zipfile.ZIP_STORED
    with zipfile.ZipFile(path, "w", compression) as archive:
        for number, record in enumerate(records):
            # Without a time of its own, like numpy.savez: equal arrays make equal files.
            member = zipfile.ZipInfo(record.header.metadata.get("member", f"arr_{number}") + ".npy")
            member.compress_type = compression
            with archive.open(member, "w", force_zip64=True) as file:
                npy_format.write_array(file, array_of(record), allow_pickle=False)
    return path


def array_of(record: Record) -> npt.NDArray[Any]:
    """The array as it was before ``read`` took its parts and axes apart."""
    elements, metadata = np.asarray(record.elements), record.header.metadata
    if record.header.geometry.axes[0] == "component" and elements.dtype.kind == "f":
        pairs = np.ascontiguousarray(np.moveaxis(elements, 0, -1))
        elements = pairs.view(f"{elements.dtype.str[0]}c{2 * elements.dtype.itemsize}")[..., 0]
    if metadata.get("scalar"):
        return elements.reshape(())
    return elements.T if metadata.get("fortran_order") else elements


def _only_arrays(path: Path) -> bool:
    """False for an archive of other files as well; True where that is not to be seen (it is compressed, or cut)."""
    try:
        with zipfile.ZipFile(path) as archive:
            return all(name.endswith((".npy", "/")) for name in archive.namelist())
    except Exception:  # zipfile raises all kinds of things on bad bytes; the reader says which
        return True


def _array(source: Source, path: Path) -> tuple[npt.NDArray[Any], bool]:
    """The array of a .npy in storage order, and whether that is Fortran's."""
    size = source.length()
    with source.file() as file:
        shape, fortran, dtype = _header(file, path)
        offset = file.tell()
    _exactly(path, element_bytes(path, shape, dtype.itemsize, size - offset), size - offset)
    return stored(path, dtype, shape[::-1] if fortran else shape, offset, source.whole), fortran


def _members(path: Path, name: str) -> Iterator[Record | InputError]:
    """The arrays of an archive; in the place of one that is bad, its InputError."""
    with refusing(path, "an archive saved by numpy.savez", "save it again"), zipfile.ZipFile(path) as archive:
        for info in archive.infolist():
            member = info.filename.removesuffix(".npy")
            where = f"{path}::{member}"
            extra = {"member": member, **({"compressed": True} if info.compress_type != zipfile.ZIP_STORED else {})}
            try:
                with refusing(where, "an array saved by numpy", REMEDY):
                    found = _record(f"{name}::{member}", name, "npz", *_unpacked(archive, info, where), extra)
            except InputError as error:
                yield error
            else:
                yield found


def _unpacked(archive: zipfile.ZipFile, info: zipfile.ZipInfo, where: str) -> tuple[npt.NDArray[Any], bool]:
    with archive.open(info) as file:
        shape, fortran, dtype = _header(file, where)
        available = info.file_size - file.tell()
        needed = element_bytes(where, shape, dtype.itemsize, available)
        _exactly(where, needed, available)
        data = file.read(needed + 1)  # one more than there is: zipfile checks the CRC at the end
    _exactly(where, needed, len(data))
    return np.frombuffer(data, dtype).reshape(shape[::-1] if fortran else shape), fortran


def _header(file: IO[bytes], where: object) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Shape, Fortran order and type; InputError for a type that is no number."""
    version = npy_format.read_magic(file)
    if version not in READ_HEADER:
        raise InputError(where, expected="format version 1.0, 2.0 or 3.0", found=f"{version}", remedy=REMEDY)
    with warnings.catch_warnings():  # numpy warns of headers that Python 2 wrote, Python of odd escapes in them
        warnings.simplefilter("ignore")
        shape, fortran, dtype = READ_HEADER[version](file)
    if dtype.kind not in "biufc" or dtype.itemsize > (16 if dtype.kind == "c" else 8):
        raise InputError(where, expected="numbers or bools of at most 64 bits", found=f"{dtype}", remedy=REMEDY)
    return shape, fortran, dtype


def _exactly(where: object, needed: int, available: int) -> None:
    if needed != available:
        raise InputError(
            where,
            expected=f"the file to end after {needed} bytes of elements",
            found=f"{available} bytes",
            remedy="save every array in a file of its own, or all of them with numpy.savez",
        )


def _record(
    name: str, source: str, format: str, array: npt.NDArray[Any], fortran: bool, metadata: dict[str, Any]
) -> Record:
    """``array`` lies in storage order; of a Fortran array that is its transpose."""
    if array.ndim == 0:
        array, metadata = array.reshape(1), {**metadata, "scalar": True}
    elif fortran and array.ndim > 1:
        metadata = {**metadata, "fortran_order": True}
    axes: tuple[str, ...] = tuple(f"axis{k}" for k in range(array.ndim))
    if array.ndim <= len(AXES):
        axes = AXES[-array.ndim :]
    if array.dtype.kind == "c":
        parts = array.view(f"{array.dtype.str[0]}f{array.dtype.itemsize // 2}").reshape(*array.shape, 2)
        array, axes = np.moveaxis(parts, -1, 0), ("component", *axes)
    missing = marks_of(array)
    geometry = fitted(Geometry(array.dtype.str, axes, array.shape), array, missing)
    return Record(Header(name, source, MODALITY, format, geometry, metadata), array, missing)
