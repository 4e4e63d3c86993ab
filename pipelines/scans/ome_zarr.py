"""What OME-Zarr says of images of several scales, 0.1 to 0.5: https://ngff.openmicroscopy.org

A translation stays where it stands, among the attributes: a geometry has no place for it without an orientation.
"""

import posixpath
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Image:
    """The path of its first and finest scale, those of the ``lower`` ones, and what the axes of the first mean.

    Paths begin at the root of the store. ``spacing`` is in ``units``; None where none is given.
    """

    path: str
    lower: tuple[str, ...] = ()
    axes: tuple[Any, ...] = ()
    units: tuple[str, ...] = ()
    spacing: tuple[float, ...] | None = None


def images(group: str, attributes: dict[str, Any]) -> list[Image]:
    """The images that a group's attributes name. What is not as it should be counts as not said."""
    found = []
    for scales in _dicts(_dict(attributes.get("ome", attributes)).get("multiscales")):
        paths = [(path, scale) for scale in _dicts(scales.get("datasets")) if (path := _path(group, scale.get("path")))]
        if not paths:
            continue
        described = [axis if isinstance(axis, dict) else {"name": axis} for axis in _list(scales.get("axes"))]
        units = tuple(unit if isinstance(unit := axis.get("unit"), str) else "" for axis in described)
        lower = tuple(path for path, _ in paths[1:])
        spacing = _spacing(paths[0][1], scales)
        found.append(Image(paths[0][0], lower, tuple(axis.get("name") for axis in described), units, spacing))
    return found


def _spacing(*levels: dict[str, Any]) -> tuple[float, ...] | None:
    """The product of the scales that a dataset and its image give; None if none does, or one is no scale."""
    product: list[float] | None = None
    for level in levels:
        for change in _dicts(level.get("coordinateTransformations")):
            if change.get("type") != "scale":
                continue
            scale = _list(change.get("scale"))
            product = product or [1.0] * len(scale)
            if len(product) != len(scale) or not all(_is_step(step) for step in scale):
                return None
            product = [float(a) * b for a, b in zip(scale, product, strict=True)]
    return tuple(product) if product and all(_is_step(step) for step in product) else None


def _path(group: str, path: Any) -> str | None:
    if not isinstance(path, str) or not path:
        return None
    joined = posixpath.normpath(posixpath.join(group, path))
    return None if joined.startswith(("/", "..")) else "" if joined == "." else joined


def _is_step(step: Any) -> bool:
    return isinstance(step, (int, float)) and not isinstance(step, bool) and 0 < step < 1e300


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _dict(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _dicts(value: Any) -> list[dict[str, Any]]:
    return [each for each in _list(value) if isinstance(each, dict)]
