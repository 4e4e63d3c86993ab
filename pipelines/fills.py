"""What people would use instead: classical fills of unknown elements from the known ones of the same record.

All take (…) float64 values and a bool mask of unknown elements of one spatial grid, and return the filled values.
Distances count elements, as common inpainting does. ``by_frame`` runs them over axes that are not space (time,
channels), one frame at a time.
"""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage, sparse
from scipy.sparse.linalg import cg

from pipelines import spectral
from pipelines.holes import SPATIAL

Values = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]

MOST_BENT = 1 << 20  # unknown elements that a biharmonic fill is made of: its system is slow to solve
MOST_WAVES = 1 << 22  # elements of a frame whose spectrum is measured: some 300 transforms of it


def nearest(values: Values, unknown: Mask) -> Values:
    """The value of the nearest known element."""
    index = ndimage.distance_transform_edt(unknown, return_distances=False, return_indices=True)
    return np.asarray(values[tuple(index)])


def linear(values: Values, unknown: Mask) -> Values:
    """Linear between the known neighbours along the first axis (the slices), the nearer one at the ends."""
    out, slices = values.copy(), np.arange(len(values))
    columns = np.argwhere(unknown.any(axis=0) & ~unknown.all(axis=0))
    for column in map(tuple, columns):
        gap = unknown[(slice(None), *column)]
        line = (slice(None), *column)
        out[line][gap] = np.interp(slices[gap], slices[~gap], values[line][~gap])
    never = unknown & unknown.all(axis=0)
    return nearest(out, never) if never.any() else out


def harmonic(values: Values, unknown: Mask) -> Values:
    """Laplace's equation with the known elements as boundary: every unknown is the mean of its face neighbours."""
    rows = _laplacian(unknown)
    inside = rows[:, unknown.reshape(-1)]
    return _solved(values, unknown, inside, -rows @ np.where(unknown, 0, values).reshape(-1), nearest(values, unknown))


def biharmonic(values: Values, unknown: Mask) -> Values:
    """The least sum of squared Laplacians: value and slope go on into the unknown, as a bent plate would."""
    rows = _laplacian(ndimage.binary_dilation(unknown))
    inside = rows[:, unknown.reshape(-1)]
    right = -inside.T @ (rows @ np.where(unknown, 0, values).reshape(-1))
    return _solved(values, unknown, inside.T @ inside, right, harmonic(values, unknown))


def _laplacian(where: Mask) -> Any:
    """Sparse (elements of ``where``, all elements): the number of an element's face neighbours, -1 for each of them."""
    number = np.arange(where.size).reshape(where.shape)
    rows, columns = [], []
    for axis in range(where.ndim):
        for here, there in (((0, -1), (1, None)), ((1, None), (0, -1))):
            at = tuple(slice(*here) if k == axis else slice(None) for k in range(where.ndim))
            beside = tuple(slice(*there) if k == axis else slice(None) for k in range(where.ndim))
            asked = where[at]
            rows.append(number[at][asked])
            columns.append(number[beside][asked])
    row, column = np.concatenate(rows), np.concatenate(columns)
    ranks = np.cumsum(where.reshape(-1)) - 1
    links = sparse.csr_array((np.ones(len(row)), (ranks[row], column)), shape=(int(where.sum()), where.size))
    own: Any = sparse.csr_array(
        (links.sum(axis=1), (np.arange(links.shape[0]), np.flatnonzero(where))), shape=links.shape
    )
    return own - links


def _solved(values: Values, unknown: Mask, matrix: Any, right: Any, start: Values) -> Values:
    """The unknown elements from a symmetric system, by conjugate gradients from a first guess."""
    scale = sparse.diags_array(1 / np.maximum(matrix.diagonal(), 1e-12))  # Jacobi: the diagonal is known exactly
    solved, _ = cg(matrix, right, x0=start[unknown], rtol=1e-6, maxiter=2000, M=scale)
    out = values.copy()
    out[unknown] = solved
    return out


def by_spectrum(values: Values, unknown: Mask) -> Values:
    """The best linear guess for a texture of the spectrum that is known: ``pipelines.spectral``."""
    first = biharmonic if int(unknown.sum()) <= MOST_BENT else harmonic
    return spectral.filled(values, unknown, first(values, unknown))


FILLS: dict[str, Callable[[Values, Mask], Values]] = {
    "nearest": nearest,
    "linear": linear,
    "harmonic": harmonic,
    "biharmonic": biharmonic,
    "spectral": by_spectrum,
}

LOCAL = frozenset({"nearest", "linear", "harmonic", "biharmonic"})  # they carry what is at the edge of a hole into it


def by_frame(
    fill: Callable[[Values, Mask], Values],
    values: Values,
    unknown: Mask,
    axes: tuple[str, ...],
    whole: float | None = None,
) -> Values:
    """``fill`` in each frame of the spatial axes (z, y, x, or all if none is named so) that has unknown elements.

    A frame without any known element becomes ``whole``, by default the mean of the others.
    """
    spatial = [k for k, axis in enumerate(axes) if axis in SPATIAL] or list(range(len(axes)))
    others = [k for k in range(len(axes)) if k not in spatial]
    back = np.argsort([*others, *spatial])
    moved, mask = values.transpose(*others, *spatial).copy(), unknown.transpose(*others, *spatial)
    for frame in np.ndindex(*moved.shape[: len(others)]):
        gaps = mask[frame]
        if gaps.all():
            mean = values[~unknown].mean() if not unknown.all() else 0.0
            moved[frame] = mean if whole is None else whole
        elif gaps.any():
            moved[frame] = fill(moved[frame], gaps)
    return moved.transpose(*back)


def other_frame(values: Values, unknown: Mask, axes: tuple[str, ...]) -> Values | None:
    """The same place in the nearest frame of time where it is known; None without a time axis that could give it."""
    if "t" not in axes or values.shape[axes.index("t")] < 2:
        return None
    time = axes.index("t")
    out, gaps = np.moveaxis(values.copy(), time, 0), np.moveaxis(unknown, time, 0)
    for frame in np.flatnonzero(gaps.reshape(len(gaps), -1).any(axis=1)):
        open_gaps = gaps[frame].copy()
        for other in sorted(range(len(out)), key=lambda f: (abs(f - frame), f)):
            known = open_gaps & ~gaps[other]
            out[frame][known] = np.moveaxis(values, time, 0)[other][known]
            open_gaps &= ~known
        if open_gaps.any():
            return None
    return np.moveaxis(out, 0, time)


def fitted_frame(values: Values, unknown: Mask, axes: tuple[str, ...]) -> Values | None:
    """``other_frame`` through the straight line that fits best where both frames are known: another contrast."""
    copied = other_frame(values, unknown, axes)
    if copied is None:
        return None
    time, out = axes.index("t"), values.copy()
    frames, gaps, found, copies = (np.moveaxis(array, time, 0) for array in (values, unknown, out, copied))
    for frame in np.flatnonzero(gaps.reshape(len(gaps), -1).any(axis=1)):
        for other in sorted((f for f in range(len(out)) if f != frame), key=lambda f: (abs(f - frame), f)):
            both = ~(gaps[frame] | gaps[other])
            if both.sum() > 1 and np.ptp(frames[other][both]):
                slope, height = np.polyfit(frames[other][both], frames[frame][both], 1)
                found[frame][gaps[frame]] = slope * copies[frame][gaps[frame]] + height
                break
        else:
            return None
    return out


def distance(unknown: Mask, axes: tuple[str, ...]) -> Values:
    """How many elements away the nearest known one of the same frame is; 0 where an element is known itself."""

    def apart(values: Values, gaps: Mask) -> Values:
        return np.asarray(ndimage.distance_transform_edt(gaps))

    far = np.where(unknown, float(max(unknown.shape)), 0.0)
    return by_frame(apart, far, unknown, axes, whole=float(max(unknown.shape)))


def every(values: Values, unknown: Mask, axes: tuple[str, ...]) -> dict[str, Values]:
    """All fills of one record by name, those that its axes and size allow."""
    edges = [size for size, axis in zip(values.shape, axes, strict=True) if axis in SPATIAL] or list(values.shape)
    slow = {"biharmonic": int(unknown.sum()) > MOST_BENT, "spectral": math.prod(edges) > MOST_WAVES}
    found = {name: by_frame(fill, values, unknown, axes) for name, fill in FILLS.items() if not slow.get(name)}
    others = {"other_frame": other_frame(values, unknown, axes), "fitted_frame": fitted_frame(values, unknown, axes)}
    return found | {name: other for name, other in others.items() if other is not None}
