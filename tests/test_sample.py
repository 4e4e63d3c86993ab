"""The demo's collection: the same bytes for the same seed, in formats that their own libraries open."""

import csv
import io
import sys
from pathlib import Path

import chess.pgn
import nibabel
import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image, ImageOps

from aunn_data.record import Record
from pipelines.chess import pgn
from pipelines.sample import collection as sample
from pipelines.sample import scans as sample_scans
from pipelines.source import Source


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("sample")
    sample.make(made)
    return made


def stored(folder: Path, energy: int) -> npt.NDArray[np.float64]:
    scan = nibabel.load(folder / f"scans/scroll_{energy}keV.nii.gz")
    return np.asarray(scan.dataobj.get_unscaled()).astype(np.float64)


def linear_fit(values: npt.NDArray[np.float64], to: npt.NDArray[np.float64]) -> tuple[npt.NDArray[np.float64], float]:
    """The best linear map of ``values`` onto ``to``, and its R²."""
    slope, intercept = np.polyfit(values.ravel(), to.ravel(), 1)
    mapped = slope * values + intercept
    return mapped, 1 - ((to - mapped) ** 2).sum() / ((to - to.mean()) ** 2).sum()


def test_same_seed_same_bytes(folder: Path, tmp_path: Path) -> None:
    """Made again with the same seed every file has the same bytes; another seed changes what is random, and only it."""
    heard: list[Path] = []
    again = sample.make(tmp_path / "again", on_file=heard.append)
    other = sample.make(tmp_path / "other", seed=1)
    assert heard == again
    names = [path.relative_to(tmp_path / "again") for path in again]
    assert sorted(names) == sorted(p.relative_to(folder) for p in folder.rglob("*") if p.is_file())
    for name, first, second in zip(names, again, other, strict=True):
        assert first.read_bytes() == (folder / name).read_bytes(), name
        assert (first.read_bytes() == second.read_bytes()) == (name.parts[0] == "text"), name


def test_readme_names_every_file(folder: Path) -> None:
    """README.txt explains each file of the collection."""
    readme = (folder / "README.txt").read_text()
    for path in folder.rglob("*"):
        assert path.is_dir() or str(path.relative_to(folder)) in readme


def test_scans_share_a_grid(folder: Path) -> None:
    """Both scans are int16 on one grid of 40 micrometres, with the slope and intercept that they were given."""
    scans = [nibabel.load(folder / f"scans/scroll_{scan.energy_kev}keV.nii.gz") for scan in sample_scans.SCANS]
    for scan, made in zip(scans, sample_scans.SCANS, strict=True):
        assert scan.shape == sample_scans.SHAPE[::-1]
        assert scan.get_data_dtype() == np.int16
        assert (scan.dataobj.slope, scan.dataobj.inter) == pytest.approx((made.slope, made.intercept))
        assert scan.header.get_xyzt_units()[0] == "micron"
        assert np.array_equal(np.diag(scan.affine), [40, 40, 40, 1])
        assert np.array_equal(scan.affine, scans[0].affine)
        assert str(made.energy_kev) in scan.header["descrip"].item().decode()


def test_scans_are_no_linear_map_of_each_other(folder: Path) -> None:
    """The best line from one scan to the other misses the grains of calcite by far more than the noise of a voxel.

    Measured with seeds 0 to 3: R² 0.90 to 0.91 (0.96 to 0.97 without noise and blur), calcite 23 to 29 standard
    deviations of the noise off.
    """
    low, high = stored(folder, 54), stored(folder, 78)
    mapped, r_squared = linear_fit(low, high)
    assert 0.8 < r_squared < 0.93
    calcite = (low * sample_scans.SCANS[0].slope + sample_scans.SCANS[0].intercept) > 0.9
    noise = sample_scans.SCANS[1].noise / sample_scans.SCANS[1].slope
    assert calcite.sum() > 50
    assert (mapped - high)[calcite].mean() > 10 * noise


def test_noise_of_the_scans_is_their_own(folder: Path) -> None:
    """In the air outside the tube, where there is nothing to see, the two scans have nothing in common."""
    corner = np.s_[:12, :12, :]
    low, high = stored(folder, 54)[corner], stored(folder, 78)[corner]
    assert abs(np.corrcoef(low.ravel(), high.ravel())[0, 1]) < 0.06
    assert low.std() * sample_scans.SCANS[0].slope == pytest.approx(sample_scans.SCANS[0].noise, rel=0.15)


def test_fractions_of_materials() -> None:
    """No voxel holds more than itself of all materials together, nor less than nothing of any."""
    fractions_MZYX = sample_scans.fractions(np.random.default_rng(3))
    assert fractions_MZYX.shape == (len(sample_scans.MATERIALS), *sample_scans.SHAPE)
    assert fractions_MZYX.min() >= 0
    assert fractions_MZYX.sum(0).max() <= 1 + 1e-12
    assert (fractions_MZYX.max((1, 2, 3)) > 0.9).all()


@pytest.mark.parametrize(
    ("name", "kind", "mode", "size"),
    [
        ("landscape.png", "PNG", "RGB", (256, 192)),
        ("heights.png", "PNG", "I;16", (256, 192)),
        ("mosaic.png", "PNG", "P", (128, 96)),
        ("still_life.jpg", "JPEG", "RGB", (144, 108)),
    ],
)
def test_images(folder: Path, name: str, kind: str, mode: str, size: tuple[int, int]) -> None:
    """Pillow opens each image as the format and mode that README.txt tells."""
    with Image.open(folder / "images" / name) as image:
        assert (image.format, image.mode, image.size) == (kind, mode, size)
        assert len(np.unique(np.asarray(image))) > 10


def test_orientation_sets_the_still_life_upright(folder: Path) -> None:
    """Turned as its EXIF tag says, the JPEG stands upright, with the table, brighter and redder, below."""
    with Image.open(folder / "images/still_life.jpg") as image:
        upright = np.asarray(ImageOps.exif_transpose(image)).astype(int)
    assert upright.shape == (144, 108, 3)
    assert upright[-20:, :, 0].mean() > upright[:20, :, 0].mean() + 40


def test_texts(folder: Path) -> None:
    """The texts are UTF-8 with more than ASCII in it, and the table has 36 rows of four fields."""
    assert "’" in (folder / "text/sonnets.txt").read_bytes().decode()
    assert (folder / "text/what_is_an_aunn.md").read_text().startswith("# ")
    rows = list(csv.DictReader(io.StringIO((folder / "text/elements.csv").read_text())))
    assert len(rows) == 36
    assert rows[25] == {"number": "26", "symbol": "Fe", "name": "iron", "atomic_weight": "55.845"}


def test_games(folder: Path) -> None:
    """There are twelve legal games of 30 to 80 plies, all different, with the seven tags of the roster."""
    told = set()
    with (folder / "chess/games.pgn").open() as file:
        while game := chess.pgn.read_game(file):
            assert not game.errors
            assert list(game.headers) == chess.pgn.TAG_ROSTER
            assert "?" not in "".join(game.headers.values())
            moves = tuple(game.mainline_moves())
            assert 30 <= len(moves) <= 80
            told.add(moves)
    assert len(told) == 12


def test_games_come_out_as_they_went_in(folder: Path, tmp_path: Path) -> None:
    """Read as boards and written again, the games' file has the same bytes."""
    path = folder / "chess/games.pgn"
    games = [game for game in pgn.read(Source(path, "games.pgn")) if isinstance(game, Record)]
    assert pgn.write(games, tmp_path / "out.pgn").read_bytes() == path.read_bytes()


def test_without_python_chess(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without python-chess the games are left out, README.txt says why, and all the rest is there."""
    monkeypatch.delitem(sys.modules, "pipelines.chess.play", raising=False)
    monkeypatch.delattr("pipelines.chess.play", raising=False)
    monkeypatch.setitem(sys.modules, "chess", None)
    made = sample.make(tmp_path)
    assert not (tmp_path / "chess").exists()
    assert "pip install 'aunn[chess]'" in (tmp_path / "README.txt").read_text()
    assert len(made) == 10
