"""The header of NIfTI-1, NIfTI-2 and Analyze 7.5, to geometry and back: https://nifti.nimh.nih.gov/nifti-1, …/nifti-2.

Legend: the *preface* is all that stands before the voxels: header, extensions, padding. It is kept verbatim.
"""

import logging
import math
import struct
from typing import Any, NamedTuple, cast

import nibabel
import numpy as np

from aunn_data.errors import InputError
from aunn_data.geometry import Geometry
from aunn_data.header import Header

AXES = ("w", "v", "u", "t", "z", "y", "x")
UNITS = {"unknown": "", "meter": "m", "micron": "um", "sec": "s", "msec": "ms", "usec": "us", "hz": "Hz"}
_CODED: Any = nibabel.nifti1.unit_codes
CODED_UNITS = frozenset(map(str, _CODED.keys()))
LABELS = {unit: label for label, unit in UNITS.items()}
LONGEST = 540  # bytes of the longer of the two headers
REPAIR = "repair the header with nibabel, or restore the file"


class Kind(NamedTuple):
    """What the first four bytes, ``sizeof_hdr``, tell; ``magic_at`` is where the magic stands."""

    format: str
    byte_order: str
    magic_at: int
    header: Any


KINDS = {
    b"\x5c\x01\x00\x00": Kind("nifti1", "<", 344, nibabel.Nifti1Header),
    b"\x00\x00\x01\x5c": Kind("nifti1", ">", 344, nibabel.Nifti1Header),
    b"\x1c\x02\x00\x00": Kind("nifti2", "<", 4, nibabel.Nifti2Header),
    b"\x00\x00\x02\x1c": Kind("nifti2", ">", 4, nibabel.Nifti2Header),
}
SINGLE, PAIR = (b"n+1", b"n+2"), (b"ni1", b"ni2")
ANALYZE: Any = nibabel.spm2analyze.Spm2AnalyzeHeader  # as SPM reads it: with a scale factor and an origin
EXTENSION = struct.Struct("=4sii")  # there is one; its bytes, these and a multiple of 16; its code
COMMENT = 6


class Type(NamedTuple):
    """How a voxel is stored: numpy's type of one part, and the axis and number of its parts if it has several."""

    part: str
    axis: str = ""
    parts: int = 1


TYPES = {  # datatype code -> type; float128 and complex256 are the compiler's own and no two agree on them
    2: Type("u1"),
    4: Type("i2"),
    8: Type("i4"),
    16: Type("f4"),
    32: Type("f4", "component", 2),
    64: Type("f8"),
    128: Type("u1", "channel", 3),
    256: Type("i1"),
    512: Type("u2"),
    768: Type("u4"),
    1024: Type("i8"),
    1280: Type("u8"),
    1792: Type("f8", "component", 2),
    2304: Type("u1", "channel", 4),
}
CODES = {type: code for code, type in TYPES.items()}
HELD_BY = {"b1": "u1", "f2": "f4"}  # types that NIfTI lacks -> the narrowest of its own that holds their values


def magic(head: bytes) -> bytes:
    """The three letters that say single file or pair; nothing if no header begins here, or one of Analyze's."""
    kind = KINDS.get(head[:4])
    found = head[kind.magic_at : kind.magic_at + 3] if kind else b""
    return found if found in (*SINGLE, *PAIR) else b""


def format_of(preface: bytes) -> str:
    """nifti1, nifti2 or analyze."""
    return KINDS[preface[:4]].format if magic(preface) else "analyze"


def parsed(preface: bytes) -> Any:
    """nibabel's header of the bytes, unchecked and unrepaired."""
    kind = KINDS[preface[:4]].header if magic(preface) else ANALYZE
    return kind(preface[: kind.sizeof_hdr], KINDS[preface[:4]].byte_order, check=False)


def voxels_at(preface: bytes, where: object) -> int:
    """Where the voxels begin: in the same file, behind the header, or in the file beside it."""
    header = parsed(preface)
    smallest, offset = len(header.binaryblock) if magic(preface) in SINGLE else 0, float(header["vox_offset"])
    if not smallest <= offset < 1 << 40:
        raise InputError(
            where, expected=f"voxels from byte {smallest} on", found=f"vox_offset {offset:g}", remedy=REPAIR
        )
    return int(offset)


def layout(header: Any, where: object) -> tuple[Type, tuple[int, ...]]:
    """How the voxels lie: their type, and the shape in the order of storage, parts last."""
    code, axes = int(header["datatype"]), int(header["dim"][0])
    if code not in TYPES:
        raise InputError(
            where,
            expected="whole numbers, float32/64, complex64/128, RGB24 or RGBA32",
            found=f"datatype {code} ({nibabel.nifti1.data_type_codes.label.get(code, 'unknown')})",
            remedy="convert the voxels to one of these",
        )
    if not 1 <= axes <= len(AXES):
        raise InputError(where, expected="1 to 7 dimensions", found=f"dim[0] = {axes}", remedy=REPAIR)
    type, shape = TYPES[code], tuple(int(size) for size in reversed(header.get_data_shape()))
    return type, (*shape, type.parts) if type.axis else shape


def geometry_of(header: Any, type: Type, shape: tuple[int, ...]) -> Geometry:
    """The geometry of elements whose parts, if any, have become the slowest axis."""
    parts = [type.axis] if type.axis else []
    names = AXES[len(AXES) + len(parts) - len(shape) :]
    spacing = [float(zoom) for zoom in reversed(header.get_zooms())]
    space, time = (UNITS.get(unit, unit if unit in CODED_UNITS else "") for unit in _units(header))
    units = [space if name in "xyz" else time if name == "t" else "" for name in names]
    slope, intercept = _scaling(header)
    return Geometry(
        dtype=np.dtype(header.endianness + type.part).str,
        axes=(*parts, *names),
        shape=shape,
        spacing=(*[1.0 for _ in parts], *spacing) if all(map(math.isfinite, spacing)) else None,
        units=(*["" for _ in parts], *units),
        slope=1.0 if slope is None else slope,
        intercept=intercept or 0.0,
        affine=_affine(header),
    )


def _scaling(header: Any) -> tuple[float | None, float | None]:
    """None where there is none. Of Analyze what SPM says outright, not what it guesses from the range."""
    if isinstance(header, ANALYZE) and not (math.isfinite(header["scl_slope"]) and header["scl_slope"]):
        return None, None
    return cast(tuple[float | None, float | None], header.get_slope_inter())


def _units(header: Any) -> tuple[str, str]:
    if isinstance(header, ANALYZE):
        return header["vox_units"].item().decode("latin-1"), "unknown"
    try:
        return cast(tuple[str, str], header.get_xyzt_units())
    except KeyError:  # a code that the standard does not know
        return "unknown", "unknown"


def _affine(header: Any) -> tuple[tuple[float, ...], ...] | None:
    """As nibabel gives it, which repairs what is commonly wrong with headers; None if it is not finite."""
    quiet = logging.Logger("nifti")
    quiet.addHandler(logging.NullHandler())
    repaired = header.copy()
    repaired.check_fix(logger=quiet)
    affine = repaired.get_best_affine()
    return tuple(tuple(map(float, row)) for row in affine) if np.isfinite(affine).all() else None


def preface_for(header: Header, kept: bytes) -> tuple[bytes, Type]:
    """The bytes before the voxels of a record, and the type of its voxels.

    ``kept`` (the preface it came with, or nothing) stays as it is while type and shape are its own; where a mask or a
    map of another type takes its place, the type changes and scaling and display range, which meant the old, go. Half
    of a pair becomes a single file's. Headers of other formats become a comment (an extension of NIfTI's).
    """
    type, shape = _wanted(header.geometry)
    own = header.format in ("nifti1", "nifti2")
    made = parsed(kept) if kept and own else _fresh(header, shape)
    if int(made["datatype"]) != CODES[type]:
        made["datatype"], made["bitpix"] = CODES[type], np.dtype(type.part).itemsize * 8 * type.parts
        if kept and own:
            made["scl_slope"], made["scl_inter"], made["cal_min"], made["cal_max"] = 1, 0, 0, 0
    if made.get_data_shape() != shape:
        made.set_data_shape(shape)
    tail = kept[len(made.binaryblock) :] if own else _comment(kept, made.endianness)
    tail = tail or bytes(4)  # four zeros: no extension follows
    if not own or magic(kept) in PAIR:
        tail += bytes(-(len(made.binaryblock) + len(tail)) % 16)
        made["magic"] = made["magic"].item().replace(b"ni", b"n+")
        made["vox_offset"] = len(made.binaryblock) + len(tail)
    block: bytes = made.binaryblock
    return block + tail, type


def _comment(text: bytes, byte_order: str) -> bytes:
    """An extension with what is to be kept; nothing of nothing."""
    if not text:
        return b""
    size = -(-(len(text) + 8) // 16) * 16
    flag = EXTENSION.format.replace("=", byte_order)
    return struct.pack(flag, b"\1\0\0\0", size, COMMENT) + text + bytes(size - 8 - len(text))


def _wanted(geometry: Geometry) -> tuple[Type, tuple[int, ...]]:
    """The type of a voxel, and the shape, x first. Parts that make no colour or complex number are one more axis."""
    part = np.dtype(geometry.dtype).str[1:]
    part = HELD_BY.get(part, part)
    type = Type(part, geometry.axes[0], geometry.shape[0])
    if type in CODES and len(geometry.shape) > 1:
        return type, geometry.shape[:0:-1]
    if Type(part) not in CODES:
        raise ValueError(f"elements of type {geometry.dtype}")
    return Type(part), geometry.shape[::-1]


def _fresh(header: Header, shape: tuple[int, ...]) -> Any:
    """A header for a record that came from no NIfTI file. float32 until ``preface_for`` says otherwise.

    NIfTI-2 where an axis is too long for NIfTI-1, or a number is none of its 32 bits.
    """
    geometry = header.geometry
    numbers = np.array([geometry.slope, geometry.intercept, *(geometry.spacing or ()), *sum(geometry.affine or (), ())])
    exact = np.array_equal(numbers, numbers.astype(np.float32))
    big = header.format == "nifti2" or max(shape) > np.iinfo(np.int16).max or not exact
    order = ">" if np.dtype(geometry.dtype).str[0] == ">" else "<"
    [kind] = [k for k in KINDS.values() if k.byte_order == order and k.format == ("nifti2" if big else "nifti1")]
    made = kind.header(endianness=order)
    made.set_data_shape(shape)
    made["vox_offset"] = len(made.binaryblock) + 4
    made["scl_slope"], made["scl_inter"] = geometry.slope, geometry.intercept
    if geometry.spacing:
        made.set_zooms(geometry.spacing[::-1][: len(shape)])
    if geometry.units:
        units = dict(zip(geometry.axes, geometry.units, strict=True))
        labels = (LABELS.get(unit, unit) for unit in (units.get("x", ""), units.get("t", "")))
        made.set_xyzt_units(*(label if label in CODED_UNITS else "unknown" for label in labels))
    if geometry.affine:
        made.set_sform(np.array(geometry.affine), code="aligned")
    return made
