"""A volume of a Volume Cartographer package: ``volumes/<id>/`` with meta.json and one TIFF a slice, 000.tif, 001.tif, …

https://github.com/educelab/volume-cartographer. ``voxelsize`` is in µm along every axis. Metadata: ``meta`` is
meta.json as it is; of the slices what ``tiff_slices`` says. A slice that is missing or unlike the others refuses the
volume: meta.json says how many there must be. The package's config.json goes in as a file of its own.
"""

import json
import math
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from aunn_data.errors import InputError
from aunn_data.record import Record
from pipelines.scans.tiff_slices import record_of
from pipelines.source import Group, Source, unreadable
from pipelines.stored import only
from pipelines.tiff.pages import Layout
from pipelines.tiff.slices import Slices, opened, same, write_slices

MODALITY = "scan"
FORMATS = ("volpkg",)

META = "meta.json"
SLICE = re.compile(r"\d+\.tiff?", re.IGNORECASE)
MOST_META_BYTES = 1 << 20
REMEDY = "restore meta.json and the slices from the package"


def sniff(head: bytes, path: Path) -> bool:
    """A folder whose meta.json says that it is a volume."""
    if head or not path.is_dir() or not _is_volume(path):
        return False
    return any(SLICE.fullmatch(found.name) for found in path.iterdir())


def gather(folder: Path, files: Sequence[str], folders: Sequence[str]) -> Iterator[Group]:
    """meta.json and all numbered slices."""
    if META in files and _is_volume(folder):
        slices = tuple(file for file in files if SLICE.fullmatch(file))
        if slices:
            yield Group("", (META, *slices))


def read(source: Source) -> Iterator[Record | InputError]:
    """One record (z, y, x), its spacing the voxel size."""
    text = text_of(source.path / META)
    meta = _parsed(text)
    names = [file.name for file in source.files] or [found.name for found in source.path.iterdir()]
    there = [name for name in names if SLICE.fullmatch(name)]
    numbered = {int(Path(name).stem): name for name in there}
    count = meta.get("slices")
    if not numbered or not count == len(there) == len(numbered) == max(numbered) + 1:
        absent = next((number for number in range(len(numbered)) if number not in numbered), len(numbered))
        raise InputError(
            source.label,
            expected=f"{count} slices, numbered from 0, as meta.json says",
            found=f"{len(there)}, and no number {absent}",
            remedy=REMEDY,
        )
    layouts: dict[Any, Layout] = {}
    slices = [opened(source.path / numbered[number], source, layouts) for number in sorted(numbered)]
    same(slices)
    size = tuple(meta.get(key) for key in ("height", "width"))
    if size != slices[0].page.shape:
        found = f"slices of {slices[0].page.shape}"
        raise InputError(source.label, expected=f"slices of (height, width) {size}", found=found, remedy=REMEDY)
    voxel = meta.get("voxelsize")
    sizes: dict[str, Any] = {}
    if isinstance(voxel, int | float) and math.isfinite(voxel) and voxel > 0:
        sizes = {"spacing": (float(voxel),) * 3, "units": ("µm",) * 3}
    yield record_of(Slices(slices, source), source.name, source, "volpkg", more={"meta": text}, **sizes)


def write(records: Sequence[Record], path: Path) -> Path:
    """The folder of slices with its meta.json."""
    record = only(records, path)
    write_slices(record, path)
    if meta := record.header.metadata.get("meta"):
        (path / META).write_bytes(meta.encode())
    return path


def text_of(path: Path) -> str:
    """A small JSON file as it is. InputError if it cannot be read as text."""
    try:
        with path.open("rb") as file:
            data = file.read(MOST_META_BYTES + 1)
        if len(data) > MOST_META_BYTES:
            raise InputError(path, expected="a small JSON file", found=f"over {MOST_META_BYTES} bytes", remedy=REMEDY)
        return data.decode()
    except OSError as error:
        raise unreadable(path, error) from error
    except UnicodeDecodeError as error:
        raise InputError(path, expected="JSON in UTF-8", found="other bytes", remedy="restore the file") from error


def _parsed(text: str) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _is_volume(folder: Path) -> bool:
    try:
        meta = _parsed(text_of(folder / META))
    except InputError:
        return False
    return meta.get("type") == "vol" and {"slices", "width", "height"} <= set(meta)
