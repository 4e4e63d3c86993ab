"""Folders of TIFF slices, volumes of Volume Cartographer, surface patches."""

import json
import shutil

import numpy as np
import pytest
import tifffile

from aunn_data.errors import InputError
from pipelines import formats
from pipelines.scans import tiff_slices, tifxyz, volpkg
from pipelines.walk import walk
from tests.format_contract import Example, FormatContract, records_of, refusals, source_of

VOLUME = np.arange(5 * 12 * 13).reshape(5, 12, 13).astype("<u2")


def slices(folder, values=VOLUME, first=8, name="s_{:03}.tif", **options):
    """A file a slice, numbered from ``first``."""
    folder.mkdir(exist_ok=True)
    for number, value in enumerate(values, first):
        tifffile.imwrite(folder / name.format(number), value, metadata=None, photometric="minisblack", **options)


def package(folder, **changed):
    """A volume of a package."""
    slices(folder, VOLUME.astype(">u2"), 0, "{:02}.tif", byteorder=">")
    meta = {"type": "vol", "slices": 5, "width": 13, "height": 12, "voxelsize": 7.91, "uuid": "1", "name": "ü"}
    (folder / "meta.json").write_text(json.dumps({**meta, **changed}, indent=1), "utf-8")


EXAMPLES = [
    Example("plain", tiff_slices, slices),
    Example("scan", volpkg, package),
]
SHARED = [
    Example("scans/tifxyz/seed-z10304-pherc1218", tifxyz),
]


@pytest.mark.parametrize("example", EXAMPLES + SHARED, ids=str)
class TestFolders(FormatContract):
    """The contract over all of them."""


def test_slices_lie_in_the_order_of_their_numbers(tmp_path):
    """9 comes before 10; z is the slowest axis, and the record is called like the folder."""
    slices(tmp_path / "scan", name="s{}.tif")
    (record,) = records_of(tiff_slices, tmp_path / "scan", "scan")
    assert record.header.record == "scan"
    assert record.header.geometry.axes == ("z", "y", "x")
    assert np.array_equal(record.elements[...], VOLUME)
    assert record.header.metadata["slices"][:3] == ["s8.tif", "s9.tif", "s10.tif"]


def test_the_folder_comes_back_file_by_file(tmp_path):
    """Names, samples and tags of every slice."""
    slices(tmp_path / "scan", description="above")
    tifffile.imwrite(tmp_path / "scan" / "s_009.tif", VOLUME[1], metadata=None, description="other")
    records = records_of(tiff_slices, tmp_path / "scan")
    written = tiff_slices.write(records, tmp_path / "out")
    assert sorted(p.name for p in written.iterdir()) == sorted(p.name for p in (tmp_path / "scan").iterdir())
    for number, path in enumerate(sorted(written.iterdir())):
        with tifffile.TiffFile(path) as file:
            assert np.array_equal(file.asarray(), VOLUME[number])
            assert file.pages[0].description == ("other" if number == 1 else "above")


def test_compressed_floats_come_back(tmp_path):
    """Written as they were, names, compression and all."""
    slices(tmp_path / "scan", VOLUME / 7, compression="zlib", name="{}_x.TIFF", predictor=3)
    records = records_of(tiff_slices, tmp_path / "scan")
    again = records_of(tiff_slices, tiff_slices.write(records, tmp_path / "out"))
    assert again[0].header == records[0].header
    assert np.array_equal(again[0].elements[...], VOLUME / 7)


def test_a_gap_parts_two_scans(tmp_path):
    """Nobody guesses what lay between: the runs before and behind the gap are scans of their own."""
    slices(tmp_path / "scan", VOLUME[:3], 0)
    slices(tmp_path / "scan", VOLUME[:4], 10)
    records = records_of(tiff_slices, tmp_path / "scan", "scan")
    assert [record.header.record for record in records] == ["scan::s_000.tif", "scan::s_010.tif"]
    assert [record.elements.shape[0] for record in records] == [3, 4]


@pytest.mark.parametrize("name", ["a_ch{}.tif", "a_T{}.tif", "frame{}.tif", "a{}.png.tif.txt"])
def test_channels_and_times_are_no_slices(tmp_path, name):
    """Numbers that say something else make no z axis."""
    slices(tmp_path / "scan", name=name)
    assert len(list(walk([tmp_path / "scan"], ""))) == 5


def test_two_files_colours_and_stacks_are_no_slices(tmp_path):
    """Fewer than three, coloured ones and stacks go in one by one."""
    slices(tmp_path / "two", VOLUME[:2])
    slices(tmp_path / "unlike", [VOLUME[0, : 3 + k] for k in range(5)])
    slices(tmp_path / "stacks", [VOLUME] * 4)
    for name, count in (("two", 2), ("unlike", 5), ("stacks", 4)):
        assert len(list(walk([tmp_path / name], ""))) == count


def test_a_damaged_slice_is_refused_and_parts_the_scan(tmp_path):
    """The others go in, and the error names the slice."""
    slices(tmp_path / "scan", np.concatenate([VOLUME, VOLUME]))
    bad = tmp_path / "scan" / "s_012.tif"
    bad.write_bytes(bad.read_bytes()[:-50])
    found = list(tiff_slices.read(source_of(tmp_path / "scan")))
    assert [isinstance(part, InputError) for part in found] == [False, True, False]
    assert "s_012.tif" in str(found[1])
    assert [part.elements.shape[0] for part in found[::2]] == [4, 5]


def test_only_the_slices_asked_for_are_read(tmp_path):
    """A slice is opened when an index needs it."""
    slices(tmp_path / "scan", compression="zlib")
    (record,) = records_of(tiff_slices, tmp_path / "scan")
    for name in ("s_008.tif", "s_009.tif", "s_011.tif"):
        (tmp_path / "scan" / name).unlink()
    record.elements._slice.cache_clear()
    assert np.array_equal(record.elements[2, 3:5, ::2], VOLUME[2, 3:5, ::2])


def test_a_package_says_its_voxel_size(tmp_path):
    """Micrometres along every axis; meta.json stays as it is, and comes back so."""
    package(tmp_path / "scan")
    (record,) = records_of(volpkg, tmp_path / "scan")
    assert record.header.geometry.spacing == (7.91,) * 3
    assert record.header.geometry.units == ("µm",) * 3
    written = volpkg.write([record], tmp_path / "out")
    assert (written / "meta.json").read_bytes() == (tmp_path / "scan" / "meta.json").read_bytes()


@pytest.mark.parametrize(
    "changed", [{"slices": 6}, {"slices": "5"}, {"width": 12}, {"slices": 1 << 60}, {"height": None}]
)
def test_a_package_must_be_what_its_meta_says(tmp_path, changed):
    """Too few slices, or of another size: refused, once."""
    package(tmp_path / "scan", **changed)
    assert len(refusals(volpkg, tmp_path / "scan")) == 1


def test_a_missing_slice_of_a_package_is_named(tmp_path):
    """meta.json knows how many there must be."""
    package(tmp_path / "scan")
    (tmp_path / "scan" / "03.tif").unlink()
    [error] = refusals(volpkg, tmp_path / "scan")
    assert "no number 3" in error


def test_the_real_package(shared_data, tmp_path):
    """All 122 files and more: what tifffile reads, slice for slice."""
    folder = shared_data / "scans/volpkg/20170511164226"
    (record,) = records_of(volpkg, folder)
    files = sorted(folder.glob("*.tif"))
    assert record.header.geometry.shape == (len(files), 21, 300)
    assert record.header.geometry.spacing == (40.0,) * 3
    assert np.array_equal(record.elements[...], np.stack([tifffile.imread(file) for file in files]))
    written = volpkg.write([record], tmp_path / "out")
    assert np.array_equal(tifffile.imread(written / "007.tif"), tifffile.imread(folder / "007.tif"))


def test_points_that_are_none_are_missing(tmp_path, shared_data):
    """Where x, y and z are -1 there is no surface."""
    folder = tmp_path / "patch"
    shutil.copytree(shared_data / "scans/tifxyz/seed-z10304-pherc1218", folder)
    for name in tifxyz.NAMES:
        values = tifffile.imread(folder / name)
        values[2, 3] = -1
        values[4, 5] = -1 if name == "x.tif" else 7
        tifffile.imwrite(folder / name, values, metadata=None)
    (record,) = records_of(tifxyz, folder)
    assert record.header.geometry.axes == ("component", "y", "x")
    assert record.missing[:, 2, 3].all()
    assert not record.missing[:, 4, 5].any()
    assert np.array_equal(record.missing, np.broadcast_to((record.elements == -1).all(axis=0), record.missing.shape))


def test_other_folders_are_left_alone(tmp_path):
    """Text beside slices, a meta.json of something else."""
    slices(tmp_path / "scan")
    (tmp_path / "scan" / "notes.txt").write_text("above the slices")
    (tmp_path / "scan" / "meta.json").write_text('{"type": "seg"}')
    found = [formats.recognise(source).FORMATS[0] for source in walk([tmp_path / "scan"], "")]
    assert found[0] == "tiff_slices"
    assert len(found) == 3
