"""The demo's collection: a handful of small files in real formats, made on the spot from a seed.

Everything is computed here or in the modules beside it (``scans``, ``images``, ``text`` and
``chess.sample``): nothing is downloaded, nothing belongs to anybody else. The same seed gives the same bytes.
"""

import gzip
import io
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import numpy.typing as npt
from PIL import Image

from pipelines.sample import images, scans, text

_Nifti1Image: Any = nibabel.Nifti1Image  # nibabel has no annotations for mypy to check

_README = """\
A small collection of unlike things, made by `aunn-data sample` with seed {seed}. All of it is computed; nothing in it
needs a licence. Take it as an example of what can be ingested, not as data about the world.

README.txt                    this text

scans/scroll_54keV.nii.gz     A papyrus rolled up in a plastic tube, as a computer tomograph would see it with X-rays
scans/scroll_78keV.nii.gz     of 54 and of 78 keV. NIfTI, {shape} voxels (z, y, x) of {voxel:g} micrometres,
                              int16; slope and intercept in the header turn stored values into attenuation per
                              centimetre. Both scans are on one grid and show one object; ink and mineral grains lose
                              more of their contrast at 78 keV than papyrus does, and each scan has its own blur and
                              noise. A phantom: a spiral sheet of two fibre layers with gaps, holes, places where the
                              layers part, ink on the inner face and grains of calcite. The figures of attenuation
                              are schematic.
images/landscape.png          A coast seen from above, PNG, RGB, 8 bits. Fractal noise, shaded.
images/heights.png            The heights of that land and sea floor in metres, PNG, grey, 16 bits.
images/mosaic.png             Voronoi cells in 17 colours, PNG with a palette.
images/still_life.jpg         Four balls on a table, JPEG, stored on its side; its EXIF orientation says so.
text/sonnets.txt              Three sonnets by Shakespeare (public domain), UTF-8.
text/what_is_an_aunn.md       A note on absolute-unit networks, Markdown.
text/elements.csv             The first 36 chemical elements with their atomic weights, CSV.
{chess}"""

_CHESS = """\
chess/games.pgn               Twelve games of {fewest} to {most} plies, PGN. Played by a program that looks one move
                              ahead, against itself; players, places and dates are made up.
"""
_NO_CHESS = """\
(chess/games.pgn              is left out, because python-chess is not installed: pip install 'aunn[chess]')
"""


def make(folder: Path, seed: int = 0, on_file: Callable[[Path], None] | None = None) -> list[Path]:
    """Writes the collection into ``folder`` and returns its files; ``on_file`` hears of each as it is written.

    Files of the same names are replaced. Without python-chess there are no games, and README.txt says so.
    """
    written = []
    for name, content in _contents(seed):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        written.append(path)
        if on_file:
            on_file(path)
    return written


def _contents(seed: int) -> Iterator[tuple[str, bytes]]:
    """(name below the folder, bytes) of each file, README.txt first."""
    chess, about_chess = _chess(seed)
    shape = " x ".join(map(str, scans.SHAPE))
    readme = _README.format(seed=seed, shape=shape, voxel=scans.VOXEL_MICROMETRES, chess=about_chess)
    yield "README.txt", readme.encode()
    yield from _scans(np.random.default_rng([seed, 1]))
    yield from _images(np.random.default_rng([seed, 2]))
    yield "text/sonnets.txt", text.SONNETS.encode()
    yield "text/what_is_an_aunn.md", text.NOTE.encode()
    yield "text/elements.csv", text.elements().encode()
    yield from chess


def _scans(rng: np.random.Generator) -> Iterator[tuple[str, bytes]]:
    fractions_MZYX = scans.fractions(rng)
    for scan in scans.SCANS:
        about = f"papyrus phantom, {scan.energy_kev} keV, 1/cm"
        data = _nifti(scans.stored(scan, fractions_MZYX, rng), scan.slope, scan.intercept, about)
        yield f"scans/scroll_{scan.energy_kev}keV.nii.gz", gzip.compress(data, mtime=0)


def _nifti(stored_ZYX: npt.NDArray[np.int16], slope: float, intercept: float, about: str) -> bytes:
    """NIfTI-1, x running fastest, the grid's middle at the origin, lengths in micrometres."""
    voxel, (depth, height, width) = scans.VOXEL_MICROMETRES, stored_ZYX.shape
    affine = np.diag([voxel, voxel, voxel, 1.0])
    affine[:3, 3] = [-voxel * (size - 1) / 2 for size in (width, height, depth)]
    image = _Nifti1Image(stored_ZYX.T, affine)
    image.header.set_xyzt_units("micron")
    image.header["descrip"] = about
    image.header.set_slope_inter(slope, intercept)  # once it is set, nibabel writes the values as they are
    data: bytes = image.to_bytes()
    return data


def _images(rng: np.random.Generator) -> Iterator[tuple[str, bytes]]:
    landscape, heights = images.landscape(rng)
    yield "images/landscape.png", _png(landscape)
    yield "images/heights.png", _png(heights)
    yield "images/mosaic.png", _png(images.mosaic(rng))
    yield "images/still_life.jpg", images.jpeg_on_its_side(images.still_life(rng))


def _png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def _chess(seed: int) -> tuple[list[tuple[str, bytes]], str]:
    """The games, if python-chess is there to play them, and what README.txt says of them."""
    try:
        from pipelines.chess import play
    except ImportError:
        return [], _NO_CHESS
    games = play.games(seed).encode()
    return [("chess/games.pgn", games)], _CHESS.format(fewest=play.FEWEST_PLIES, most=play.MOST_PLIES)
