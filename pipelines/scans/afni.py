"""AFNI's .HEAD and .BRIK: https://afni.nimh.nih.gov/pub/dist/doc/program_help/README.attributes.html

The header's text is kept verbatim. Written as NIfTI, which AFNI reads, with that text as a comment in it.
"""

import math
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from aunn_data.errors import InputError
from aunn_data.geometry import Geometry
from aunn_data.record import Record
from pipelines.scans import nifti
from pipelines.scans.voxels import MOST_HEADER_BYTES, Affine, affine_of, kept_text, lying, pairs, partner, record_of
from pipelines.source import Group, Source
from pipelines.stored import refusing

MODALITY = "scan"
FORMATS = ("afni",)

ATTRIBUTE = re.compile(r"^\s*type\s*=\s*(string|integer|float)-attribute\s*\n\s*name\s*=\s*(\S+)\s*\n", re.MULTILINE)
COUNT = re.compile(r"\s*count\s*=\s*(\d+)[ \t]*\n")
TYPES = {0: "u1", 1: "i2", 3: "f4", 5: "f4", 6: "u1"}  # byte, short, float, complex, RGB
PARTS = {5: ("component", 2), 6: ("channel", 3)}
ORDERS = {"LSB_FIRST": "<", "MSB_FIRST": ">"}
TIME_UNITS = {77001: "ms", 77002: "s", 77003: "Hz"}
LPS = (-1, -1, 1)
REMEDY = "restore it, or convert it with 3dAFNItoNIFTI"


def sniff(head: bytes, path: Path) -> bool:
    """By content: attributes as AFNI writes them."""
    match = ATTRIBUTE.match(head.decode("latin-1"))
    return bool(match and COUNT.match(head.decode("latin-1"), match.end()))


def gather(folder: Path, files: Sequence[str], folders: Sequence[str]) -> Iterator[Group]:
    """A .HEAD with its .BRIK."""
    for header, voxels in pairs(files, ".head", ".brik"):
        yield Group(header, (header, voxels))


def read(source: Source) -> Iterator[Record | InputError]:
    """One record: sub-bricks, if several, then voxels as stored; the parts of a complex or colour voxel slowest."""
    if nifti.sniff(source.head, source.inner):  # as this module writes it
        yield from nifti.read(source)
        return
    with refusing(source.label, "an AFNI header", REMEDY):
        with source.open() as file:
            text = file.read(MOST_HEADER_BYTES)
        found = attributes(text.decode("latin-1"))
        [kind] = set(found["BRICK_TYPES"])
        shape, dtype = _shape(found), np.dtype(_order(found, kind) + TYPES[kind])
        parts = PARTS.get(kind)
        elements, trailing = lying(partner(source, ".brik"), dtype, (*shape, *([parts[1]] if parts else [])), 0)
        if parts:
            elements = np.moveaxis(elements, -1, 0)
        geometry = _geometry(found, elements, parts)
    metadata: dict[str, Any] = kept_text(text)
    factors = _factors(found)
    if len(set(factors)) > 1:
        metadata["slopes"] = factors
    yield record_of(source, "afni", geometry, elements, metadata, trailing)


def write(records: Sequence[Record], path: Path) -> Path:
    """The volume as NIfTI."""
    return nifti.write(records, path)


def attributes(text: str) -> dict[str, Any]:
    """By name: a string, or a list of numbers. ValueError where one has not as many values as it says."""
    found: dict[str, Any] = {}
    starts = list(ATTRIBUTE.finditer(text))
    for match, after in zip(starts, [*(m.start() for m in starts[1:]), len(text)], strict=True):
        count = COUNT.match(text, match.end())
        if not count or match[2] in found:
            raise ValueError(f"attribute {match[2]} twice or without a count")
        value: Any = text[count.end() : after]
        if match[1] == "string":
            value = value.lstrip()[1 : int(count[1]) + 1].rstrip("~\n")
        else:
            value = list(map(int if match[1] == "integer" else float, value.split()))
            if len(value) != int(count[1]):
                raise ValueError(f"{len(value)} values of attribute {match[2]}, which says {count[1]}")
        found[match[2]] = value
    return found


def _shape(found: dict[str, Any]) -> tuple[int, ...]:
    bricks, sizes = found["DATASET_RANK"][1], found["DATASET_DIMENSIONS"][:3]
    if found["DATASET_RANK"][0] != 3 or len(sizes) != 3 or len(found["BRICK_TYPES"]) != bricks:
        raise ValueError(f"DATASET_RANK {found['DATASET_RANK'][:2]} and DATASET_DIMENSIONS {sizes}")
    return (*([bricks] if bricks != 1 else []), *reversed(sizes))


def _order(found: dict[str, Any], kind: int) -> str:
    """The byte order; a file that names none has that of the machine that wrote it, which nobody knows."""
    return "|" if TYPES[kind] == "u1" else ORDERS[found["BYTEORDER_STRING"]]


def _factors(found: dict[str, Any]) -> list[float]:
    """For each sub-brick what makes physical values of stored ones; 0 in the file is 1."""
    return [factor if math.isfinite(factor) and factor else 1.0 for factor in found.get("BRICK_FLOAT_FACS", [1.0])]


def _geometry(found: dict[str, Any], elements: Any, parts: tuple[str, int] | None) -> Geometry:
    names = [parts[0]] if parts else []
    steps, units = [1.0] * len(names), [""] * len(names)
    timed = found.get("TAXIS_NUMS")
    if elements.ndim - len(names) == 4:
        names.append("t" if timed else "brick")
        steps.append(float(found["TAXIS_FLOATS"][1]) if timed else 1.0)
        units.append(TIME_UNITS.get(timed[2], "") if timed else "")
    factors = _factors(found)
    return Geometry(
        dtype=elements.dtype.str,
        axes=(*names, "z", "y", "x"),
        shape=elements.shape,
        spacing=(*steps, *(abs(float(step)) for step in reversed(found["DELTA"][:3]))),
        units=(*units, "mm", "mm", "mm"),
        slope=factors[0] if len(set(factors)) == 1 else 1.0,
        affine=_affine(found),
    )


def _affine(found: dict[str, Any]) -> Affine | None:
    matrix = found.get("IJK_TO_DICOM_REAL", found.get("IJK_TO_DICOM", []))
    if len(matrix) != 12:
        return None
    return affine_of([matrix[k::4] for k in range(3)], matrix[3::4], LPS)
