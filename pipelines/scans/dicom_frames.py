"""Which axes the frames of a DICOM file or the slices of a series are, and where they lie in the patient.

The frames of one file keep the order of the file.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from pipelines.scans.dicom_file import Dicom
from pipelines.scans.dicom_geometry import SAME_MM, Plane, Vector, numbers, placing, plane_of
from pipelines.scans.dicom_series import Stack
from pipelines.scans.dicom_values import value_in

VECTORS = {0x00540080: "z", 0x00540100: "t", 0x00181063: "t", 0x00181065: "t", 0x3004000C: "z"}
SLICES, DOSE_PLANES = 0x00540080, 0x3004000C
GROUPS = ("PlanePositionSequence", "PlaneOrientationSequence", "PixelMeasuresSequence")


class Placed(NamedTuple):
    """Axes of the frames and their sizes, spacing and affine of all axes but the channels, each frame's position."""

    axes: tuple[str, ...]
    shape: tuple[int, ...]
    spacing: tuple[float, ...] | None
    affine: tuple[tuple[float, ...], ...] | None
    positions: list[Vector | None]


def placed(dicom: Dicom, frames: int) -> Placed:
    """One frame, or several that say where they lie, or that are called z or t, or just frames."""
    if frames == 1 and "NumberOfFrames" not in dicom.dataset:
        return _single(dicom)
    planes = _planes(dicom, frames)
    if frames == 1:
        spacing, affine = placing(planes)
        return Placed((), (), spacing, affine, [])
    axes, shape = _by_position(planes)
    if not axes:
        return _unplaced(dicom, frames, planes[0])
    first_volume = planes if axes == ("z",) else _volume(planes, axes, shape)
    spacing, affine = placing(first_volume)
    if spacing and axes != ("z",):
        spacing = (1.0, *spacing) if axes[0] == "t" else (spacing[0], 1.0, *spacing[1:])
    return Placed(axes, shape, spacing, affine, [plane.position for plane in planes])


def _single(dicom: Dicom) -> Placed:
    spacing, affine = placing([plane_of(dicom.dataset)])
    mosaic = "MOSAIC" in str(value_in(dicom.dataset, "ImageType"))  # its position is not that of a slice
    return Placed((), (), spacing, None if mosaic else affine, [])


def stack_placed(stack: Stack) -> Placed:
    """The same for the slices of a series."""
    planes = [slice.plane for slice in stack.slices]
    spacing, affine = placing(planes[: stack.shape[-1]] if stack.axes[-1] == "z" else planes[:1])
    if spacing:
        spacing = (*[1.0] * (len(stack.axes) + 2 - len(spacing)), *spacing)
    known = stack.axes != ("slice",) and not stack.slices[0].mosaic
    return Placed(stack.axes, stack.shape, spacing, affine if known else None, [])


def _volume(planes: Sequence[Plane], axes: tuple[str, ...], shape: tuple[int, ...]) -> Sequence[Plane]:
    """The planes of the first time."""
    if axes == ("t",):
        return planes[:1]
    return planes[: shape[1]] if axes[0] == "t" else planes[:: shape[1]]


def _planes(dicom: Dicom, frames: int) -> list[Plane]:
    """The plane of every frame, as far as the file says; a dose is a list of distances along the normal."""
    dataset = dicom.dataset
    shared = _first(dataset, "SharedFunctionalGroupsSequence")
    per_frame = value_in(dataset, "PerFrameFunctionalGroupsSequence") or []
    if len(per_frame) == frames:
        return [plane_of(*_groups(item), *_groups(shared), dataset) for item in per_frame]
    plane, offsets = plane_of(*_groups(shared), dataset), numbers(dataset.get("GridFrameOffsetVector"), frames)
    if offsets and plane.position and plane.normal is not None:
        start = 0.0 if offsets[0] == 0 else plane.place or 0.0  # relative to the first plane, or absolute
        return [
            plane._replace(position=tuple(np.add(plane.position, plane.normal * (offset - start)).tolist()))
            for offset in offsets
        ]
    return [plane._replace(position=None)] * frames if frames > 1 else [plane]


def _groups(item: Any) -> list[Any]:
    return [group for name in GROUPS if item is not None and (group := _first(item, name)) is not None]


def _first(dataset: Any, name: str) -> Any:
    sequence = value_in(dataset, name) or []
    return sequence[0] if len(sequence) else None


def _by_position(planes: Sequence[Plane]) -> tuple[tuple[str, ...], tuple[int, ...]]:
    """z where no two frames lie at one place; z and t, in the order of the file, where places come again in turn."""
    if any(plane.place is None for plane in planes):
        return (), ()
    places = [round((plane.place or 0.0) / SAME_MM) for plane in planes]
    count, different = len(places), len(set(places))
    if different == count:
        return ("z",), (count,)
    if different == 1:
        return ("t",), (count,)
    times, rest = divmod(count, different)
    if not rest and places == places[:different] * times:
        return ("t", "z"), (times, different)
    if not rest and places == [place for place in places[::times] for _ in range(times)]:
        return ("z", "t"), (different, times)
    return (), ()


def _unplaced(dicom: Dicom, frames: int, plane: Plane) -> Placed:
    """Frames whose axis is what the file says they are counted by, if that is one thing."""
    pointer = dicom.dataset.get("FrameIncrementPointer")
    pointers = [int(tag) for tag in (pointer if hasattr(pointer, "append") else [pointer]) if tag]
    axis = VECTORS.get(_varying(dicom.dataset, pointers), "frame")
    spacing = None
    if plane.pixel_spacing:
        between = plane.thickness if axis == "z" and plane.thickness else 1.0
        spacing = (between, *plane.pixel_spacing)
    positions: list[Vector | None] = [] if plane.position is None else [plane.position]
    return Placed((axis,), (frames,), spacing, None, positions)


def _varying(dataset: Any, pointers: Sequence[int]) -> int:
    """The one of the vectors that frames are counted by that is not the same for all; 0 if there are several."""
    if len(pointers) == 1:
        return pointers[0]
    varying = []
    for pointer in pointers:
        value = dataset[pointer].value if pointer in dataset else None
        if value is not None and not isinstance(value, str) and hasattr(value, "__len__") and len(set(value)) > 1:
            varying.append(pointer)
    return varying[0] if len(varying) == 1 else 0
