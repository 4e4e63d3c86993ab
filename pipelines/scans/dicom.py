"""DICOM: one file, or the slices of a series that lie in one folder: https://dicom.nema.org/medical/dicom/current/output/html/

Values as stored (see dicom_pixels), the affine in RAS, every byte that is not pixel data in the header. Written back,
a file that was not compressed is the same byte for byte; one that was is Explicit VR Little Endian with equal values.
"""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from aunn_data.errors import InputError
from aunn_data.geometry import Geometry, fitted
from aunn_data.header import Header
from aunn_data.record import Record
from pipelines.scans.dicom_file import REPAIR, has_magic, opened, quiet
from pipelines.scans.dicom_frames import Placed, placed, stack_placed
from pipelines.scans.dicom_header import about, of_stack, packed, padding, scaling, unpacked
from pipelines.scans.dicom_pixels import frames_of, layout_of
from pipelines.scans.dicom_series import arranged, slice_of
from pipelines.scans.dicom_series import gather as gather
from pipelines.scans.dicom_slices import Slices, padding_marks
from pipelines.scans.dicom_writing import written_file
from pipelines.source import Source
from pipelines.stored import marks_of, only, refusing

MODALITY = "scan"
FORMATS = ("dicom",)


def sniff(head: bytes, path: Path) -> bool:
    """By content: DICM behind a preamble, or elements that only a data set has; a folder by its first file."""
    if head:
        return has_magic(head)
    if not path.is_dir():
        return False
    with os.scandir(path) as found:
        first = min((entry.name for entry in found if entry.is_file()), default=None)
    try:
        return first is not None and has_magic(Source(path / first, first).head)
    except InputError:
        return False


def read(source: Source) -> Iterator[Record | InputError]:
    """One record: a file's frames, or all slices of a series. Channels first, then t, z, y, x as there are."""
    with refusing(source.label, "a DICOM file whose elements can be read", REPAIR), quiet():
        record = _series(source) if source.files else _file(source)
    yield record


def write(records: Sequence[Record], path: Path) -> Path:
    """The file, or a folder of the files of a series under their own names."""
    record = only(records, path)
    metadata = record.header.metadata
    with refusing(path, "pixels that DICOM can hold", "export it as .npy"), quiet():
        parts = unpacked(metadata)
        if "files" not in metadata:
            path.write_bytes(written_file(*parts[0], frames_last(record), metadata.get("transfer_syntax", "")))
            return path
        path.mkdir()
        slices = frames_last(record)
        slices = slices.reshape(len(parts), -1, *slices.shape[1:])
        for name, part, frames in zip(metadata["files"], parts, slices, strict=True):
            (path / Path(name).name).write_bytes(written_file(*part, frames, metadata.get("transfer_syntax", "")))
    return path


def frames_last(record: Record) -> npt.NDArray[Any]:
    """(F, y, x), or (F, y, x, C) of a record with channels."""
    axes, elements = record.header.geometry.axes, np.asarray(record.elements[...])
    if "channel" in axes:
        elements = np.moveaxis(elements, axes.index("channel"), -1)
    size = elements.shape[-3:] if "channel" in axes else elements.shape[-2:]
    return elements.reshape(-1, *size)


def _file(source: Source) -> Record:
    """The record of one file."""
    dicom = opened(source)
    layout = layout_of(dicom)
    frames = frames_of(dicom, layout, source)
    place = placed(dicom, layout.frames)
    if layout.samples > 1:
        frames = np.moveaxis(frames, 1 if layout.planar else -1, 0)
    elements = frames.reshape(*frames.shape[:-3], *place.shape, *frames.shape[-2:])
    metadata = about([dicom]) | {"dataset": packed([(dicom, layout)], source.label)}
    if any(place.positions):
        metadata["positions"] = [position and list(position) for position in place.positions]
    return _record(source, elements, place, scaling(dicom.dataset, layout.frames), padding(dicom, layout), metadata)


def _series(source: Source) -> Record:
    """The record of a series: the headers are read now, the pixels when they are asked for."""
    parts, facts = [], []
    folder = f"{source.label}/" if source.path.is_dir() else source.label.removesuffix(source.path.name)
    for path in source.files:
        part = Source(path, path.name, source.options, label=folder + path.name, scratch=source.scratch)
        dicom = opened(part)
        with refusing(part.label, "a slice of a series", REPAIR):
            parts.append((part, dicom, layout_of(dicom)))
            facts.append(slice_of(dicom.dataset, path.name))
        part.let_go()
    stack = arranged(facts, source.label)
    by_name = {part.name: (part, dicom, layout) for part, dicom, layout in parts}
    ordered = [by_name[slice.name] for slice in stack.slices]
    elements = Slices(source, ordered, stack.shape).elements
    scales = [scale for _, dicom, _ in ordered for scale in scaling(dicom.dataset, 1)]
    pads = {padding(dicom, layout) for _, dicom, layout in ordered}
    metadata = about([dicom for _, dicom, _ in ordered]) | of_stack(stack)
    metadata["files"] = [part.inner.name for part, _, _ in ordered]
    metadata["dataset"] = packed([(dicom, layout) for _, dicom, layout in ordered], source.label)
    return _record(source, elements, stack_placed(stack), scales, pads.pop() if len(pads) == 1 else None, metadata)


def _record(
    source: Source,
    elements: Any,
    place: Placed,
    scales: list[tuple[float, float]],
    pad: tuple[int, int] | None,
    metadata: dict[str, Any],
) -> Record:
    axes, spacing = (*place.axes, "y", "x"), place.spacing
    units = ["mm" if axis in ("z", "y", "x") and spacing else "" for axis in axes]
    if len(elements.shape) > len(axes):
        axes, units, spacing = ("channel", *axes), ["", *units], spacing and (1.0, *spacing)
    slope, intercept = scales[0]
    if len(set(scales)) > 1:
        metadata |= {"slopes": [a for a, _ in scales], "intercepts": [b for _, b in scales]}
        slope, intercept = 1.0, 0.0
    geometry = Geometry(
        elements.dtype.str,
        axes,
        tuple(elements.shape),
        spacing=spacing,
        units=tuple(units) if any(units) else None,
        slope=slope,
        intercept=intercept,
        affine=place.affine,
    )
    missing = padding_marks(elements, pad) if pad else marks_of(elements)
    header = Header(source.name, source.name, MODALITY, "dicom", fitted(geometry, elements, missing), metadata)
    return Record(header, elements, missing)
