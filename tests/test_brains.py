"""Volumes that nibabel reads besides NIfTI files: pairs, Analyze, MGH, AFNI, PAR/REC, MINC; nibabel is the oracle."""

import base64
import gzip
import re
import shutil

import h5py
import nibabel
import numpy as np
import pytest
from nibabel.externals.netcdf import netcdf_file

from aunn_data.errors import InputError
from aunn_data.geometry import Geometry
from aunn_data.header import Header
from aunn_data.record import Record
from pipelines.scans import afni, mgh, minc, nifti, parrec
from pipelines.walk import walk
from tests.format_contract import Example, FormatContract, records_of, refusals

VALUES = np.arange(60).reshape(5, 4, 3) * 5 - 100  # x, y, z
AFFINE = np.array([[-2, 0, 0, 10], [0, 3, 0, -20], [0, 0, 4, 30], [0, 0, 0, 1]], float)
SHORTS = VALUES.astype("<i2")
OTHER = "scans/other/"


def pair(kind):
    """Writes a .hdr and an .img; ``path`` is the .hdr."""

    def make(path, values=SHORTS):
        picture = kind(values, AFFINE)
        nibabel.save(picture, path.with_suffix(".img"))
        path.with_suffix(".mat").unlink(missing_ok=True)  # SPM's, which holds nothing more

    return make


def mgz(dtype, frames=(), **fields):
    """Writes an .mgh or .mgz, with something after the footer."""

    def make(path):
        values = VALUES.astype(dtype) if not frames else np.stack([VALUES, VALUES + 1], -1).astype(dtype)
        picture = nibabel.MGHImage(values, AFFINE)
        for field, value in fields.items():
            picture.header[field] = value
        nibabel.save(picture, path)
        data = gzip.decompress(path.read_bytes()) if path.suffix == ".mgz" else path.read_bytes()
        path.write_bytes(gzip.compress(data + b"tags") if path.suffix == ".mgz" else data + b"tags")

    return make


def head(path, brick, text="", order="LSB_FIRST", kinds=(1,), factors=(0,), sizes=(5, 4, 3)):
    """Writes a .HEAD and a .BRIK."""

    def attribute(type, name, values):
        count, value = len(values), " ".join(map(str, values)) if type != "string" else f"'{values}"
        return f"\ntype = {type}-attribute\nname = {name}\ncount = {count}\n{value}\n"

    path.write_text(
        attribute("string", "BYTEORDER_STRING", order + "~")
        + attribute("integer", "DATASET_RANK", (3, len(kinds)))
        + attribute("integer", "DATASET_DIMENSIONS", sizes)
        + attribute("integer", "BRICK_TYPES", kinds)
        + attribute("float", "BRICK_FLOAT_FACS", factors)
        + attribute("float", "DELTA", (2, 3, 4))
        + attribute("float", "IJK_TO_DICOM_REAL", (2, 0, 0, 5, 0, 3, 0, 6, 0, 0, 4, 7))
        + text
    )
    path.with_suffix(".BRIK").write_bytes(brick)
    return path


def minc1(path):
    """Writes a MINC 1 file with a slope for each slice."""
    with netcdf_file(path, "w") as file:
        for name, size in (("zspace", 3), ("yspace", 4), ("xspace", 5)):
            file.createDimension(name, size)
            dimension = file.createVariable(name, "i", ())
            dimension.step, dimension.start, dimension.units, dimension.spacing = 2.0, -3.0, "mm", "regular__"
        image = file.createVariable("image", "h", ("zspace", "yspace", "xspace"))
        image.signtype, image.valid_range = "signed__", np.array([-1000.0, 1000.0])
        image[:] = VALUES.T
        for name, value in (("image-max", [10.0, 20.0, 30.0]), ("image-min", [-10.0, -20.0, -30.0])):
            file.createVariable(name, "d", ("zspace",))[:] = value
    return path


def foreign(name, module, make):
    return Example(name, module, make, faithful=False)


TIMES = """
type = integer-attribute
name = TAXIS_NUMS
count = 3
 2 0 77002

type = float-attribute
name = TAXIS_FLOATS
count = 2
 0 2.5
"""
EXAMPLES = [
    foreign("pair.hdr", nifti, pair(nibabel.Nifti1Pair)),
    foreign("two.hdr", nifti, lambda p: pair(nibabel.Nifti2Pair)(p, VALUES.astype(">f4"))),
    foreign("analyze.hdr", nifti, pair(nibabel.AnalyzeImage)),
    foreign("spm.hdr", nifti, pair(nibabel.Spm99AnalyzeImage)),
    Example("u1.mgh", mgh, mgz("u1")),
    Example("frames.mgh", mgh, mgz(">f4", (2,))),
    Example("zipped.mgz", mgh, mgz(">i2")),
    foreign("short+orig.HEAD", afni, lambda p: head(p, VALUES.astype("<i2").tobytes("F"))),
    foreign("two.HEAD", afni, lambda p: head(p, np.arange(120).astype(">f4"), TIMES, "MSB_FIRST", (3, 3), (0, 2))),
    foreign("complex.HEAD", afni, lambda p: head(p, np.arange(60).astype("<c8"), kinds=(5,))),
    foreign("colour.HEAD", afni, lambda p: head(p, bytes(range(180)), kinds=(6,))),
    foreign("one.mnc", minc, minc1),
    Example(OTHER + "small.mnc", minc, faithful=False, checked=False),
]


@pytest.mark.parametrize("example", EXAMPLES, ids=str)
class TestBrains(FormatContract):
    """The contract over all of them."""


class TestParRec(FormatContract):
    """The contract over a real recording, cut down to two volumes of its slices."""

    @pytest.fixture
    def example(self, shared_data):
        name = OTHER + "phantom_EPI_asc_CLEAR_2_1"
        return Example(f"{name}.PAR", parrec, faithful=False, checked=False, companions=(f"{name}.REC",))


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # nibabel leaves a .REC open
@pytest.mark.parametrize(
    ("module", "name"),
    [
        (mgh, "wm.mgz"),
        (afni, "example4d+orig.HEAD"),
        (parrec, "phantom_EPI_asc_CLEAR_2_1.PAR"),
        (minc, "small.mnc"),
    ],
)
def test_real_files_are_what_nibabel_reads(shared_data, tmp_path, module, name):
    """Stored values scaled as the header says are nibabel's; so are affine and spacing; an export says the same."""
    (record,) = records_of(module, shared_data / OTHER / name)
    geometry, picture = record.header.geometry, nibabel.load(shared_data / OTHER / name)
    turn = "".join(geometry.axes) == "zyx" and module is minc  # nibabel keeps MINC's order, slowest first
    slope = np.array(record.header.metadata.get("slopes", geometry.slope)).reshape(-1, 1, 1)
    intercept = np.array(record.header.metadata.get("intercepts", geometry.intercept)).reshape(-1, 1, 1)
    values = np.asarray(record.elements)
    scaled = values if module is mgh else values * slope + intercept
    expected = np.asarray(picture.dataobj) if turn else np.asarray(picture.dataobj).T
    assert np.array_equal(scaled, expected) if module is mgh else np.allclose(scaled, expected)
    columns = [2, 1, 0, 3] if turn else [0, 1, 2, 3]
    assert np.array_equal(geometry.affine, picture.affine[:, columns])
    zooms = [float(zoom) for zoom in picture.header.get_zooms()]
    assert list(geometry.spacing) == (zooms if turn else zooms[::-1])
    again = nibabel.load(module.write([record], tmp_path / name.replace(".mgz", ".mgh")))
    assert np.array_equal(np.asarray(again.dataobj.get_unscaled()), np.asarray(record.elements).T)
    assert np.array_equal(again.affine, geometry.affine)


def test_pairs_are_one_source(tmp_path, shared_data):
    """Headers and voxels that belong together are one source, compressed voxels too; ENVI's .hdr is none of them."""
    pair(nibabel.Nifti1Pair)(tmp_path / "a.hdr")
    for name in ("example4d+orig.HEAD", "example4d+orig.BRIK.gz"):
        shutil.copyfile(shared_data / OTHER / name, tmp_path / name)
    (tmp_path / "envi.hdr").write_text("ENVI\nsamples = 3\n")
    (tmp_path / "envi.img").write_bytes(bytes(9))
    found = {source.name: [part.name for part in source.files] for source in walk([tmp_path], "")}
    assert found["a.hdr"] == ["a.hdr", "a.img"]
    assert found["example4d+orig.HEAD"] == ["example4d+orig.HEAD", "example4d+orig.BRIK.gz"]
    assert found["envi.hdr"] == []


@pytest.mark.parametrize("kind", [nibabel.Nifti1Pair, nibabel.Nifti2Pair, nibabel.Spm99AnalyzeImage])
def test_a_pair_is_written_as_one_file(tmp_path, kind):
    """Values, type and affine are nibabel's of the pair, before and after; every byte of its header is kept."""
    pair(kind)(tmp_path / "a.hdr")
    records = records_of(nifti, tmp_path / "a.hdr")
    picture, written = nibabel.load(tmp_path / "a.img"), nifti.write(records, tmp_path / "b.hdr")
    assert written.name == "b.hdr.nii"
    for image in (picture, nibabel.load(written)):
        assert np.array_equal(image.dataobj.get_unscaled(), np.asarray(records[0].elements).T)
        assert np.array_equal(image.affine, records[0].header.geometry.affine)
        assert image.get_data_dtype() == np.int16
    assert base64.b64decode(records[0].header.metadata["header"]) == (tmp_path / "a.hdr").read_bytes()


def test_half_a_pair_is_refused(tmp_path):
    """A header without voxels, voxels given without their header, voxels cut short: one InputError each."""
    pair(nibabel.Nifti1Pair)(tmp_path / "a.hdr")
    with pytest.raises(InputError, match="by its \\.hdr"):
        records_of(nifti, tmp_path / "a.img")
    (tmp_path / "a.img").write_bytes(bytes(10))
    with pytest.raises(InputError, match="bytes for shape"):
        records_of(nifti, tmp_path / "a.hdr")
    (tmp_path / "a.img").unlink()
    with pytest.raises(InputError, match=r"a \.img file beside it"):
        records_of(nifti, tmp_path / "a.hdr")


def test_mgh_comes_back_to_the_byte(tmp_path):
    """Header, voxels, footer and tags are written as they were; frames are an axis with TR between them."""
    mgz(">i2", (2,), tr=2000.0)(tmp_path / "a.mgh")
    records = records_of(mgh, tmp_path / "a.mgh")
    assert records[0].header.geometry.axes == ("t", "z", "y", "x")
    assert records[0].header.geometry.spacing[0] == 2000.0
    assert base64.b64decode(records[0].header.metadata["footer"]).endswith(b"tags")
    assert mgh.write(records, tmp_path / "b.mgh").read_bytes() == (tmp_path / "a.mgh").read_bytes()


def test_factors_of_sub_bricks_are_told(tmp_path):
    """One factor is the slope; different ones stand in the metadata, 0 meaning 1; stored values stay."""
    for factors, slope, told in (((0, 0), 1.0, None), ((2, 2), 2.0, None), ((0, 2), 1.0, [1.0, 2.0])):
        path = head(tmp_path / "a.HEAD", np.arange(120).astype("<i2"), kinds=(1, 1), factors=factors)
        (record,) = records_of(afni, path)
        assert (record.header.geometry.slope, record.header.metadata.get("slopes")) == (slope, told)
        assert np.array_equal(np.ravel(record.elements), np.arange(120))
        assert record.header.geometry.affine == ((-2, 0, 0, -5), (0, -3, 0, -6), (0, 0, 4, 7), (0, 0, 0, 1))


def test_what_the_header_said_is_a_comment_of_the_nifti_file(tmp_path):
    """The text of an AFNI header is found again in the file that it is exported to."""
    (record,) = records_of(afni, head(tmp_path / "a.HEAD", VALUES.astype("<i2").tobytes("F")))
    written = nibabel.load(afni.write([record], tmp_path / "a.HEAD"))
    assert "IJK_TO_DICOM_REAL" in written.header.extensions[0].get_content().decode()


def test_recordings_without_whole_volumes_go_in_image_by_image(tmp_path, shared_data):
    """Slices sorted by slice first are (z, t); a recording that broke off is a stack of images, none left out."""
    name = shared_data / OTHER / "phantom_EPI_asc_CLEAR_2_1.PAR"
    text, values = name.read_text("latin-1"), np.fromfile(name.with_suffix(".REC"), "<u2").reshape(27, 64, 64)
    lines = [line for line in text.splitlines() if line[:3].strip().isdigit()]
    top = text[: text.index(lines[0])]

    def recorded(order):
        chosen = [lines[k].split() for k in order]
        for number, words in enumerate(chosen):
            words[6] = str(number)
        (tmp_path / "a.PAR").write_text(top + "\n".join(map(" ".join, chosen)) + "\n", "latin-1")
        values[list(order)].tofile(tmp_path / "a.REC")
        return records_of(parrec, tmp_path / "a.PAR")[0]

    by_slice = recorded([volume * 9 + z for z in range(9) for volume in range(3)])
    assert by_slice.header.geometry.axes == ("z", "t", "y", "x")
    assert np.array_equal(by_slice.elements[:, 1], values[9:18])
    cut = recorded(range(20))
    assert cut.header.geometry.axes == ("image", "y", "x")
    assert np.array_equal(cut.elements, values[:20])


def test_a_recording_of_billions_of_slices_is_refused_at_once(tmp_path, shared_data):
    """No list of all the slices that a PAR header promises is made."""
    for suffix in (".PAR", ".REC"):
        shutil.copyfile(shared_data / OTHER / f"phantom_EPI_asc_CLEAR_2_1{suffix}", tmp_path / f"a{suffix}")
    text = (tmp_path / "a.PAR").read_text("latin-1")
    promised = re.sub(r"(slices/locations +: +)9", r"\g<1>2147483647", text)
    (tmp_path / "a.PAR").write_text(promised, "latin-1")
    with pytest.raises(InputError, match="2147483647 slices"):
        records_of(parrec, tmp_path / "a.PAR")


def test_numbers_that_are_none_are_not_known(tmp_path):
    """Infinite factors and steps leave slope and spacing unset; the voxels go in."""
    path = head(tmp_path / "a.HEAD", bytes(120), factors=("1e400",))
    path.write_text(path.read_text().replace("2 3 4", "nan 3 4"))
    (record,) = records_of(afni, path)
    assert (record.header.geometry.slope, record.header.geometry.spacing) == (1.0, None)


def test_minc_of_both_kinds_is_scaled_slice_by_slice(tmp_path):
    """Slopes and intercepts of the slices make nibabel's values; attributes stand in the metadata."""
    (record,) = records_of(minc, minc1(tmp_path / "a.mnc"))
    slopes, intercepts = (np.array(record.header.metadata[name]) for name in ("slopes", "intercepts"))
    scaled = np.asarray(record.elements) * slopes[:, None, None] + intercepts[:, None, None]
    assert np.allclose(scaled, nibabel.load(tmp_path / "a.mnc").get_fdata())
    assert np.array_equal(record.elements, VALUES.T)
    assert record.header.metadata["attributes"]["xspace"]["units"] == "mm"
    assert record.header.geometry.dtype == ">i2"


def test_minc_reads_nothing_from_other_files(tmp_path, shared_data):
    """External links, external voxels, and shapes that no such file can hold are refused."""
    (tmp_path / "voxels.raw").write_bytes(bytes(1 << 16))
    for change in ("link", "external", "huge"):
        path = tmp_path / f"{change}.mnc"
        shutil.copyfile(shared_data / OTHER / "small.mnc", path)
        with h5py.File(path, "a") as file:
            group = file["minc-2.0/image/0"]
            attributes = dict(group["image"].attrs)
            del group["image"]
            if change == "link":
                group["image"] = h5py.ExternalLink(str(tmp_path / "external.mnc"), "/image")
            elif change == "external":
                group.create_dataset("image", (18, 28, 29), "i2", external=[(str(tmp_path / "voxels.raw"), 0, 1 << 16)])
            else:
                group.create_dataset("image", (1 << 20, 1 << 20, 1 << 10), "i2", chunks=(1, 64, 64))
            if change != "link":
                group["image"].attrs.update(attributes)
        assert len(refusals(minc, path)) == 1


@pytest.mark.parametrize(
    "change",
    [
        {"sizes": (-5, 4, 3)},
        {"sizes": (5, 4, 0)},
        {"sizes": (1 << 40, 1 << 40, 1 << 40)},
        {"kinds": (1, 3)},
        {"kinds": (9,)},
        {"kinds": ()},
        {"order": "NATIVE"},
        {"text": "\ntype = integer-attribute\nname = BRICK_TYPES\ncount = 1\n 1\n"},
        {"text": "\ntype = integer-attribute\nname = MORE\ncount = 3\n 1 2\n"},
    ],
    ids=str,
)
def test_afni_headers_that_lie_are_refused(tmp_path, change):
    """Sizes, types and counts that cannot be: one InputError of one line."""
    [error] = refusals(afni, head(tmp_path / "a.HEAD", bytes(120), **change))
    assert "\n" not in error


def test_any_volume_of_space_can_be_a_nifti_file(tmp_path):
    """Axes in another order are turned, numbers that are none of 32 bits make NIfTI-2, units without a code none."""
    values = np.arange(60, dtype=">u2").reshape(3, 4, 5)
    spacing, affine = (
        (0.1, 0.2, 0.3),
        ((0.2, 0.0, 0.0, 1.0), (0.0, 0.1, 0.0, 2.0), (0.0, 0.0, 0.3, 3.0), (0.0,) * 3 + (1.0,)),
    )
    geometry = Geometry(">u2", ("z", "x", "y"), (3, 4, 5), spacing=spacing, units=("Å",) * 3, affine=affine)
    written = nifti.write([Record(Header("a", "a", "scan", "nifti1", geometry), values)], tmp_path / "a.nii")
    again = nibabel.load(written)
    assert isinstance(again, nibabel.Nifti2Image)
    assert np.array_equal(again.dataobj, np.transpose(values, (1, 2, 0)))
    assert np.array_equal(again.affine, affine)
    assert again.header.get_zooms() == (0.2, 0.3, 0.1)
