"""Where slices lie in the patient: positions and directions of DICOM (LPS, mm) -> spacing and affine (RAS).

Legend: Z slices. A *place* is where a slice lies along the normal of its plane, in mm. The affine keeps the tilt of a
gantry as a shear; slices that do not lie evenly have positions in the header and neither spacing nor affine.
"""

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from pipelines.scans.dicom_values import value_in

SAME_MM = 1e-3  # positions nearer than this are one
EVEN = 0.01  # of the distance between slices: how far one may lie from where it should
TURNED = 1e-4  # directions that differ less are one
LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])

Vector = tuple[float, ...]


class Plane(NamedTuple):
    """A slice: position of its first pixel, directions of rows and columns, distances of rows and of columns, in mm."""

    position: Vector | None = None
    directions: Vector | None = None
    pixel_spacing: Vector | None = None
    thickness: float | None = None

    @property
    def place(self) -> float | None:
        """Along the normal; None if the data set does not say where it lies."""
        normal = self.normal
        return None if normal is None or self.position is None else float(np.dot(normal, self.position))

    @property
    def normal(self) -> Any:
        """The unit vector that the rows and columns stand on."""
        return None if self.directions is None else _normal(self.directions)


@lru_cache(maxsize=64)  # slices have their directions in common
def _normal(directions: Vector) -> Any:
    normal = np.cross(directions[:3], directions[3:])
    length = np.linalg.norm(normal)
    return normal / length if length > 0 else None


class Placing(NamedTuple):
    """What the geometry takes from the planes; (z, y, x) or (y, x)."""

    spacing: tuple[float, ...] | None
    affine: tuple[tuple[float, ...], ...] | None


def numbers(value: Any, count: int) -> Vector | None:
    """So many finite numbers of a data set, or None."""
    try:
        found = tuple(float(number) for number in value)
    except (TypeError, ValueError):
        return None
    return found if len(found) == count and all(map(math.isfinite, found)) else None


def plane_of(*parts: Any) -> Plane:
    """The plane that data sets say, the first that knows: a frame's own groups, the shared ones, the data set."""

    def first(keyword: str) -> Any:
        return next((value for part in parts if (value := value_in(part, keyword)) not in (None, "")), None)

    thickness = numbers([first("SpacingBetweenSlices") or first("SliceThickness")], 1)
    spacing = numbers(first("PixelSpacing"), 2)
    return Plane(
        numbers(first("ImagePositionPatient"), 3),
        numbers(first("ImageOrientationPatient"), 6),
        spacing if spacing and min(spacing) > 0 else None,
        abs(thickness[0]) or None if thickness else None,
    )


def same_directions(a: Plane, b: Plane) -> bool:
    """Do two planes lie parallel, their rows too?"""
    if a.directions is None or b.directions is None:
        return a.directions is b.directions
    return all(abs(x - y) <= TURNED for x, y in zip(a.directions, b.directions, strict=True))


def even_step(positions: Sequence[Vector]) -> Any:
    """The vector from one slice to the next; None if they do not lie evenly on a line."""
    given = np.asarray(positions, np.float64)
    step = (given[-1] - given[0]) / (len(given) - 1)
    distance = float(np.linalg.norm(step))
    off = np.abs(given - (given[0] + np.arange(len(given))[:, None] * step)).max()
    return step if distance > SAME_MM and off <= EVEN * distance + SAME_MM else None


def placing(planes: Sequence[Plane]) -> Placing:
    """Spacing and affine of Z slices in order, or of one; None where the file does not say, or they are not even."""
    first = planes[0]
    if first.pixel_spacing is None or any(plane.pixel_spacing != first.pixel_spacing for plane in planes):
        return Placing(None, None)
    if len(planes) == 1:
        normal = first.normal
        step = None if normal is None else normal * (first.thickness or 1.0)
        return Placing(first.pixel_spacing, _affine(first, step))
    positions = [plane.position for plane in planes if plane.position is not None]
    step = even_step(positions) if len(positions) == len(planes) else None
    if step is None or not all(same_directions(first, plane) for plane in planes):
        return Placing(None, None)
    return Placing((float(np.linalg.norm(step)), *first.pixel_spacing), _affine(first, step))


def _affine(first: Plane, step: Any) -> tuple[tuple[float, ...], ...] | None:
    if first.position is None or first.directions is None or first.pixel_spacing is None or step is None:
        return None
    affine = np.eye(4)
    affine[:3, 0] = np.multiply(first.directions[:3], first.pixel_spacing[1])
    affine[:3, 1] = np.multiply(first.directions[3:], first.pixel_spacing[0])
    affine[:3, 2], affine[:3, 3] = step, first.position
    return tuple(tuple(float(value) + 0.0 for value in row) for row in LPS_TO_RAS @ affine)
