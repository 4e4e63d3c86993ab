"""What people would use instead: classical fills of unknown elements from the known ones of the same record.

All take (…) float64 values and a bool mask of unknown elements of one spatial grid, and return the filled values.
Distances count elements, as common inpainting does. ``by_frame`` runs them over axes that are not space (time,
channels), one frame at a time.
"""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
from scipy import ndimage, sparse
from scipy.sparse.linalg import cg

Values = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]

SPATIAL = frozenset("zyx")


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
    number = np.full(values.shape, -1, np.int64)
    count = int(unknown.sum())
    number[unknown] = np.arange(count)
    degree, known_sum = np.zeros(count), np.zeros(count)
    rows, columns = [], []
    for axis in range(values.ndim):
        for here, there in (((0, -1), (1, None)), ((1, None), (0, -1))):
            at = tuple(slice(*here) if k == axis else slice(None) for k in range(values.ndim))
            beside = tuple(slice(*there) if k == axis else slice(None) for k in range(values.ndim))
            mine, other = number[at], number[beside]
            asked = mine >= 0
            np.add.at(degree, mine[asked], 1)
            given = asked & (other < 0)
            np.add.at(known_sum, mine[given], values[beside][given])
            rows.append(mine[asked & ~given])
            columns.append(other[asked & ~given])
    row, column = np.concatenate(rows), np.concatenate(columns)
    links = sparse.coo_array((np.ones(len(row)), (row, column)), shape=(count, count)).tocsr()
    scale = sparse.diags_array(1 / np.maximum(degree, 1))  # Jacobi: the diagonal is known exactly
    start = nearest(values, unknown)[unknown]
    solved, _ = cg(sparse.diags_array(degree) - links, known_sum, x0=start, rtol=1e-6, maxiter=2000, M=scale)
    out = values.copy()
    out[unknown] = solved
    return out


FILLS: dict[str, Callable[[Values, Mask], Values]] = {"nearest": nearest, "linear": linear, "harmonic": harmonic}


def by_frame(fill: Callable[[Values, Mask], Values], values: Values, unknown: Mask, axes: tuple[str, ...]) -> Values:
    """``fill`` in each frame of the spatial axes (z, y, x, or all if none is named so) that has unknown elements."""
    spatial = [k for k, axis in enumerate(axes) if axis in SPATIAL] or list(range(len(axes)))
    others = [k for k in range(len(axes)) if k not in spatial]
    back = np.argsort([*others, *spatial])
    moved, mask = values.transpose(*others, *spatial).copy(), unknown.transpose(*others, *spatial)
    for frame in np.ndindex(*moved.shape[: len(others)]):
        gaps = mask[frame]
        if gaps.all():
            moved[frame] = values[~unknown].mean() if not unknown.all() else 0.0
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
