"""A phantom for the demo: a small rolled papyrus in a plastic tube, scanned by X-rays of 54 and of 78 keV.

Legend: Z, Y, X voxels of 40 micrometres; s = arc length along the sheet, in voxels; lengths are in voxels.

The object. One sheet is wound into a spiral of about eight turns whose centre, crush and pitch change slowly along z.
It has two layers of fibres, as papyrus has: the inner one runs along the sheet, the outer one along z, each with
strips of its own density. In places the two layers part (delamination), in places there is a hole. Ink lies on the
inner face; grains of calcite lie anywhere in the roll.

The physics. A voxel's linear attenuation is the sum of its materials' volume fractions times their attenuation
(per cm, narrow beam of one energy), after tables of mass attenuation remembered to two digits and densities that are
plausible, so: schematic. Papyrus and plastic are light and lose little from 54 to 78 keV (Compton scattering); calcite
and the lead of the ink lose almost half (photoelectric absorption), so neither scan is a linear map of the other.

The scanner. Each scan blurs the object a little and adds its own noise, of a variance that grows with the attenuation
as photon counting makes it, correlated over about a voxel as reconstruction leaves it. Values are stored as int16.
Nothing here is made to suit one way of filling gaps or another.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.ndimage import gaussian_filter, map_coordinates

SHAPE = (32, 112, 112)
VOXEL_MICROMETRES = 40.0
MATERIALS = ("papyrus", "ink", "calcite", "plastic")

_PITCH = 5.6  # from one turn to the next
_HALF_THICKNESS = 1.35
_TURNS = (0.9, 7.6)  # where the sheet begins and ends
_TUBE = (52.0, 55.0)
_GRAINS = 45

Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Scan:
    """What one scan sees and how it stores it. ``per_cm``: attenuation of each of MATERIALS; noise in the same unit."""

    energy_kev: int
    per_cm: tuple[float, float, float, float]
    blur: float
    noise: float
    slope: float
    intercept: float


# papyrus 1.0 g/cm3; ink: the same with 30 mg/cm3 of lead; calcite 2.7 g/cm3; polypropylene 0.9 g/cm3
SCANS = (
    Scan(54, (0.200, 0.398, 1.240, 0.185), blur=0.55, noise=0.012, slope=2.0e-4, intercept=-0.10),
    Scan(78, (0.175, 0.252, 0.690, 0.163), blur=0.65, noise=0.009, slope=1.5e-4, intercept=-0.08),
)


def fractions(rng: np.random.Generator) -> Array:
    """Volume fraction of each of MATERIALS in every voxel: (4, Z, Y, X), at most 1 together; the rest is air."""
    radius, turn = _spiral(rng)
    winding = np.round(turn)
    depth = (turn - winding) * _PITCH  # from the middle of the sheet, outwards
    angle = 2 * np.pi * (winding + _angle())
    length = _PITCH * angle**2 / (4 * np.pi)  # along an Archimedean spiral
    first, last = (np.pi * _PITCH * turns**2 for turns in _TURNS)
    inside = _soft(length - first) * _soft(last - length)
    sheet, face = _sheet(rng, depth, length)
    ink = _ink(rng, length) * face * inside
    plastic = _soft(_tube_radius() - _TUBE[0]) * _soft(_TUBE[1] - _tube_radius())
    calcite = _grains(rng, radius) * (1 - plastic)
    ink = ink * (1 - plastic - calcite)
    papyrus = np.minimum(sheet * inside, 1) * (1 - plastic - calcite - ink)
    return np.stack([papyrus, ink, calcite, plastic])


def stored(scan: Scan, fractions_MZYX: Array, rng: np.random.Generator) -> npt.NDArray[np.int16]:
    """The values that one scan stores, (Z, Y, X) int16."""
    per_cm: Array = np.tensordot(np.array(scan.per_cm), fractions_MZYX, 1)
    seen: Array = gaussian_filter(per_cm, scan.blur)
    grain = gaussian_filter(rng.standard_normal(SHAPE), 0.45)
    noise: Array = grain / grain.std() * scan.noise * np.sqrt(1 + seen / scan.per_cm[0])
    return np.rint((seen + noise - scan.intercept) / scan.slope).astype(np.int16)


def _spiral(rng: np.random.Generator) -> tuple[Array, Array]:
    """Radius within the crushed roll, and the winding coordinate: the sheet's middle lies where it is an integer."""
    z, y, x = np.ogrid[: SHAPE[0], : SHAPE[1], : SHAPE[2]]
    along = z / SHAPE[0]
    first, second = rng.uniform(0, 2 * np.pi, 2)
    y = y - SHAPE[1] / 2 + 0.5 - 1.5 * np.sin(2.2 * along + first)
    x = x - SHAPE[2] / 2 + 0.5 - 1.5 * np.cos(1.7 * along + second)
    angle = np.arctan2(y, x)
    crush = 1 + 0.07 * np.cos(2 * (angle - first - 0.5 * along)) + 0.02 * np.cos(3 * (angle - second) + along)
    radius = np.hypot(y, x) * crush
    waves = 2.4 * _smooth(rng, SHAPE, (14, 11, 11)) + 0.9 * _smooth(rng, SHAPE, (8, 5, 5))
    waves = waves * np.clip(radius / 20, 0.2, 1)
    return radius, (radius + waves) / _PITCH - _angle()


def _angle() -> Array:
    """Angle about the grid's middle in turns, [0, 1). Only its own jump by one must agree with the winding."""
    y, x = np.ogrid[: SHAPE[1], : SHAPE[2]]
    turns = np.arctan2(y - SHAPE[1] / 2 + 0.5, x - SHAPE[2] / 2 + 0.5) / (2 * np.pi)
    return np.broadcast_to(turns % 1.0, SHAPE)


def _sheet(rng: np.random.Generator, depth: Array, length: Array) -> tuple[Array, Array]:
    """Fraction of papyrus, and of the thin zone on the inner face where ink can lie."""
    longest = int(length.max()) + 2
    at = _at(length)
    parted = 1.3 * at(np.clip(_smooth(rng, (longest, SHAPE[0]), (14, 9)) - 0.8, 0, 1))
    whole = _soft(2.0 * (2.1 - at(_smooth(rng, (longest, SHAPE[0]), (6, 5)))))
    half = _HALF_THICKNESS * (1 + 0.12 * at(_smooth(rng, (longest, SHAPE[0]), (10, 10))))
    along_z = at(_strips(rng, longest, SHAPE[0], axis=0))
    along_s = at(_strips(rng, longest, SHAPE[0], axis=1))
    inner = _soft(depth + half + parted) * _soft(-depth - parted) * along_s
    outer = _soft(half + parted - depth) * _soft(depth - parted) * along_z
    face = _soft(depth + half + parted + 0.7) * _soft(-depth - half - parted + 0.6)
    return (inner + outer) * whole, face * whole


def _strips(rng: np.random.Generator, longest: int, height: int, axis: int) -> Array:
    """Density of one layer of fibres over (s, z): it changes fast along ``axis`` and hardly across."""
    sigma = (1.1, 25.0) if axis == 0 else (40.0, 1.1)
    return np.clip(0.86 + 0.13 * _smooth(rng, (longest, height), sigma), 0.3, 1.15)


def _ink(rng: np.random.Generator, length: Array) -> Array:
    """Strokes on the unrolled sheet: short lines of two voxels' width, some heavier than others."""
    longest = int(length.max()) + 2
    page = np.zeros((longest, SHAPE[0]))
    for _ in range(longest // 14):
        s, z, heading = rng.uniform(0, longest), rng.uniform(3, SHAPE[0] - 3), rng.uniform(0, np.pi)
        steps = np.arange(0, rng.uniform(4, 12), 0.5)
        bend = heading + rng.uniform(-0.15, 0.15) * steps
        rows = np.rint(s + np.cumsum(np.cos(bend)) * 0.5).astype(int)
        columns = np.rint(z + np.cumsum(np.sin(bend)) * 0.5).astype(int)
        kept = (rows >= 0) & (rows < longest) & (columns >= 0) & (columns < SHAPE[0])
        page[rows[kept], columns[kept]] = rng.uniform(0.6, 1)
    ink: Array = _at(length)(np.clip(2.2 * gaussian_filter(page, 0.8), 0, 1))
    return ink


def _grains(rng: np.random.Generator, radius: Array) -> Array:
    """Balls of calcite, anywhere in the roll."""
    z, y, x = np.ogrid[: SHAPE[0], : SHAPE[1], : SHAPE[2]]
    grains = np.zeros(SHAPE)
    places = np.argwhere(radius < _PITCH * _TURNS[1])
    for place in places[rng.integers(0, len(places), _GRAINS)]:
        centre = place + rng.uniform(-0.5, 0.5, 3)
        distance = np.sqrt((z - centre[0]) ** 2 + (y - centre[1]) ** 2 + (x - centre[2]) ** 2)
        grains = np.maximum(grains, _soft(rng.gamma(4.0, 0.28) - distance))
    return grains


def _tube_radius() -> Array:
    y, x = np.ogrid[: SHAPE[1], : SHAPE[2]]
    return np.broadcast_to(np.hypot(y - SHAPE[1] / 2 + 0.5, x - SHAPE[2] / 2 + 0.5), SHAPE)


def _at(length: Array) -> Callable[[Array], Array]:
    """Reads a field over (s, z) at every voxel."""
    z = np.broadcast_to(np.arange(SHAPE[0], dtype=np.float64)[:, None, None], SHAPE)
    places = np.stack([np.clip(length, 0, None), z])
    return lambda field_SZ: map_coordinates(field_SZ, places, order=1, mode="nearest")


def _soft(distance: Array) -> Array:
    """Fraction of a voxel on the positive side of a surface that lies ``distance`` from its middle."""
    return np.clip(distance + 0.5, 0, 1)


def _smooth(rng: np.random.Generator, shape: tuple[int, ...], sigma: tuple[float, ...]) -> Array:
    """Smooth noise, mean 0, standard deviation 1, that changes over about ``sigma`` voxels."""
    noise = gaussian_filter(rng.standard_normal(shape), sigma)
    smooth: Array = (noise - noise.mean()) / noise.std()
    return smooth
