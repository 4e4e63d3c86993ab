"""MRC2014 and CCP4 maps, image stacks and tilt series: https://www.ccpem.ac.uk/mrc_format/mrc2014.php

Axes are named by the header's MAPC, MAPR, MAPS (columns run fastest). Both headers are kept verbatim; nothing says
whether ORIGIN or NSTART places the volume, so there is no affine and both stand in the metadata.
"""

import base64
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from mrcfile.dtypes import HEADER_DTYPE

from aunn_data.errors import InputError
from aunn_data.geometry import Geometry
from aunn_data.record import Record
from pipelines.scans.voxels import check, lying, named, record_of, saving, voxels_of
from pipelines.source import Source
from pipelines.stored import only, refusing

MODALITY = "scan"
FORMATS = ("mrc",)

HEADER_BYTES = 1024
SUFFIXES = (".mrc", ".map", ".ccp4", ".rec", ".st", ".mrcs", ".ali", ".preali")
MODES = {0: "i1", 1: "i2", 2: "f4", 3: "i2", 4: "f4", 6: "u2", 12: "f2", 16: "u1", 101: "u1"}
PARTS = {3: ("component", 2), 4: ("component", 2), 16: ("channel", 3)}
NIBBLES = 101
STACKS = range(401, 631)  # space groups of stacks of volumes
STAMPS = {b"\x44\x44": "<", b"\x44\x41": "<", b"\x11\x11": ">"}
IMOD_STAMP, IMOD_SIGNED = 1146047817, 1  # in the extra space, at bytes 152 and 156: are bytes of mode 0 signed?
REMEDY = "restore the file, or repair its header with mrcfile"


def sniff(head: bytes, path: Path) -> bool:
    """By content: "MAP" at byte 208; files from before that by a name of theirs and a header that could be one."""
    if len(head) < HEADER_BYTES:
        return False
    if head[208:211] == b"MAP":
        return True
    return str(path).lower().endswith(SUFFIXES) and any(_plausible(head, order) for order in "<>")


def read(source: Source) -> Iterator[Record | InputError]:
    """One record: sections, rows and columns as stored; the parts of a complex or colour voxel slowest of all."""
    with refusing(source.label, "an MRC or CCP4 map", REMEDY):
        size = source.length()
        with source.file() as file:
            block = file.read(HEADER_BYTES)
            header, order = _parsed(source.label, block)
            extended = _extended(source, header, size)
            symmetry = file.read(extended)
        elements, trailing = _voxels(source, header, order, HEADER_BYTES + extended)
        geometry = _geometry(header, elements)
    metadata: dict[str, Any] = {"header": base64.b64encode(block).decode()}
    if symmetry:
        metadata["extended_header"] = base64.b64encode(symmetry).decode()
    for field, names in (("origin", ("x", "y", "z")), ("start", ("nxstart", "nystart", "nzstart"))):
        values = [(header["origin"][n] if field == "origin" else header[n]).item() for n in names]
        if all(map(math.isfinite, values)) and any(values):
            metadata[field] = values
    yield record_of(source, "mrc", geometry, elements, metadata, trailing)


def write(records: Sequence[Record], path: Path) -> Path:
    """The map with both its headers."""
    record = only(records, path)
    path = named(path, SUFFIXES)
    with refusing(path, "a volume that MRC can hold", "export it as .npy"):
        block = base64.b64decode(record.header.metadata["header"])
        data = _packed(record, *_parsed(str(path), block))
    with saving(path) as file:
        file.write(block)
        file.write(base64.b64decode(record.header.metadata.get("extended_header", "")))
        file.write(data.reshape(-1).view(np.uint8).data)
    return path


class Nibbles:
    """Array-like of uint8, (z, y, x): voxels of 4 bits, two in a byte, the first in its lower half, rows padded."""

    def __init__(self, packed: npt.NDArray[np.uint8], columns: int):
        self.packed, self.columns = packed, columns
        self.shape, self.dtype = (*packed.shape[:-1], columns), np.dtype(np.uint8)
        self.nbytes = math.prod(self.shape)

    def __len__(self) -> int:
        return len(self.packed)

    def __getitem__(self, key: Any) -> Any:
        keys = key if isinstance(key, tuple) else (key,)
        if Ellipsis in keys:
            keys = (
                keys[: keys.index(Ellipsis)]
                + (slice(None),) * (len(self.shape) + 1 - len(keys))
                + keys[keys.index(Ellipsis) + 1 :]
            )
        last = len(self.shape) - 1
        rows = np.asarray(self.packed[keys[:last]])
        voxels = np.stack([rows & 15, rows >> 4], -1).reshape(*rows.shape[:-1], -1)[..., : self.columns]
        return voxels[(..., *keys[last:])] if len(keys) > last else voxels


def _plausible(head: bytes, order: str) -> bool:
    nx, ny, nz, mode = np.frombuffer(head, f"{order}i4", 4).tolist()
    axes = np.frombuffer(head, f"{order}i4", 3, 64).tolist()
    return min(nx, ny, nz) > 0 and max(nx, ny, nz) < 1 << 20 and mode in MODES and sorted(axes) in ([0] * 3, [1, 2, 3])


def _parsed(where: str, block: bytes) -> tuple[Any, str]:
    """The header's fields and byte order: that of the machine stamp unless only the other one makes sense."""
    order = STAMPS.get(block[212:214], "<")
    if not _plausible(block, order) and _plausible(block, other := "><"[order == ">"]):
        order = other
    header = np.frombuffer(block, HEADER_DTYPE.newbyteorder(order), 1)[0].copy()
    if int(header["mode"]) not in MODES:
        raise InputError(
            where,
            expected=f"a mode of {', '.join(map(str, MODES))}",
            found=f"mode {int(header['mode'])}",
            remedy=REMEDY,
        )
    return header, order


def _extended(source: Source, header: Any, size: int) -> int:
    """Bytes of the extended header."""
    count = int(header["nsymbt"])
    if not 0 <= count <= size - HEADER_BYTES:
        raise InputError(
            source.label,
            expected=f"an extended header within the file's {size} bytes",
            found=f"NSYMBT {count}",
            remedy=REMEDY,
        )
    return count


def _shape(header: Any) -> tuple[int, ...]:
    """(volumes,) sections, rows, columns."""
    nx, ny, nz, mz = (int(header[name]) for name in ("nx", "ny", "nz", "mz"))
    if int(header["ispg"]) not in STACKS:
        return nz, ny, nx
    if mz < 1 or nz % mz:
        raise ValueError(f"a stack of volumes of {mz} sections each, {nz} in all")
    return nz // mz, mz, ny, nx


def _type(header: Any, order: str) -> np.dtype[Any]:
    """The type of a voxel's part. IMOD marks bytes as unsigned where MRC2014 has them signed."""
    mode = int(header["mode"])
    stamp, flags = np.frombuffer(header.tobytes(), f"{order}i4", 2, 152).tolist()
    if mode == 0 and stamp == IMOD_STAMP and not flags & IMOD_SIGNED:
        return np.dtype("u1")
    return np.dtype(order + MODES[mode])


def _voxels(source: Source, header: Any, order: str, offset: int) -> tuple[Any, int]:
    mode, shape, dtype = int(header["mode"]), _shape(header), _type(header, order)
    if mode == NIBBLES:
        check(source, shape, 0, 0)  # no negative sizes
        packed, trailing = lying(source, dtype, (*shape[:-1], (shape[-1] + 1) // 2), offset)
        return Nibbles(packed, shape[-1]), trailing
    if mode not in PARTS:
        return lying(source, dtype, shape, offset)
    elements, trailing = lying(source, dtype, (*shape, PARTS[mode][1]), offset)
    return np.moveaxis(elements, -1, 0), trailing


def _geometry(header: Any, elements: Any) -> Geometry:
    mode = int(header["mode"])
    numbers = tuple(int(header[name]) for name in ("maps", "mapr", "mapc"))
    names = ["xyz"[n - 1] for n in (numbers if sorted(numbers) == [1, 2, 3] else (3, 2, 1))]
    parts = [PARTS[mode][0]] if mode in PARTS else []
    volumes = ["volume"] * (len(elements.shape) - len(parts) - 3)
    sizes = {name: (float(header["cella"][name]), int(header[f"m{name}"])) for name in "xyz"}
    spacing = [cell / count if count > 0 else 0.0 for cell, count in (sizes[name] for name in names)]
    known = all(math.isfinite(step) and step > 0 for step in spacing)
    extra = len(parts) + len(volumes)
    return Geometry(
        dtype=np.dtype(elements.dtype).str,
        axes=(*parts, *volumes, *names),
        shape=elements.shape,
        spacing=(*[1.0] * extra, *spacing) if known else None,
        units=(*[""] * extra, *["Å"] * 3) if known else None,
    )


def _packed(record: Record, header: Any, order: str) -> npt.NDArray[Any]:
    """The voxels as the file has them."""
    mode = int(header["mode"])
    voxels = voxels_of(record, _type(header, order), mode in PARTS)
    if mode != NIBBLES:
        return voxels
    pairs = np.pad(voxels, [(0, 0)] * (voxels.ndim - 1) + [(0, voxels.shape[-1] % 2)])
    return np.asarray(pairs[..., ::2] | pairs[..., 1::2] << 4)
