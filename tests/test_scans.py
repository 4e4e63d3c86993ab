"""What the readers of volumes keep, name and refuse."""

import base64
import gzip
import io
import warnings
import zipfile
from dataclasses import replace

import nibabel
import numpy as np
import pytest

from aunn_data.errors import InputError
from aunn_data.geometry import Geometry
from aunn_data.header import Header
from aunn_data.record import Record
from pipelines import stored
from pipelines.scans import nifti, npy
from pipelines.source import Source
from tests.format_contract import records_of

VALUES = (np.arange(2 * 3 * 4 * 5) - 60).reshape(5, 4, 3, 2)  # x, y, z, t
AFFINE = np.array([[-2, 0, 0, 10], [0, 3, 0, -20], [0, 0, 4, 30], [0, 0, 0, 1]], float)


def saved(path, values, **fields):
    """A NIfTI-1 file with an affine, units and any header fields."""
    picture = nibabel.Nifti1Image(values, AFFINE)
    picture.header.set_xyzt_units("mm", "msec")
    for field, value in fields.items():
        picture.header[field] = value
    nibabel.save(picture, path)
    return path


def with_type(record, elements):
    """The record with other elements, as a mask or a map of it has them."""
    geometry = replace(record.header.geometry, dtype=elements.dtype.str, slope=1.0, intercept=0.0)
    return Record(replace(record.header, geometry=geometry), elements)


def bare(elements, axes, **geometry):
    """A record that came from no file."""
    return Record(
        Header("a", "a", "scan", "npy", Geometry(elements.dtype.str, axes, elements.shape, **geometry)), elements
    )


def test_geometry_says_what_the_numbers_mean(tmp_path):
    """Axes run as stored, slowest first; spacing and units go with them; slope, intercept and affine are the file's."""
    path = saved(tmp_path / "a.nii", VALUES.astype("<i2"), scl_slope=2, scl_inter=-3, pixdim=[1, 2, 3, 4, 0.5, 1, 1, 1])
    (record,) = records_of(nifti, path)
    geometry = record.header.geometry
    assert (geometry.axes, geometry.shape) == (("t", "z", "y", "x"), (2, 3, 4, 5))
    assert (geometry.spacing, geometry.units) == ((0.5, 4.0, 3.0, 2.0), ("ms", "mm", "mm", "mm"))
    assert (geometry.slope, geometry.intercept) == (2.0, -3.0)
    assert np.array_equal(geometry.affine, nibabel.load(path).affine)
    assert np.array_equal(record.elements, VALUES.T)  # not scaled


def test_no_slope_means_one(tmp_path):
    """A slope of 0 or NaN is no scaling, as the standard has it."""
    for slope in (0, np.nan):
        (record,) = records_of(nifti, saved(tmp_path / "a.nii", VALUES.astype("<i2"), scl_slope=slope, scl_inter=7))
        assert (record.header.geometry.slope, record.header.geometry.intercept) == (1.0, 0.0)


def test_the_very_bytes_come_back(tmp_path):
    """Header, extensions, gap and voxels are written as they were, compressed by the name; gzip has no time in it."""
    path = saved(tmp_path / "a.nii", VALUES.astype(">i2"), descrip=b"odd", intent_name=b"kept")
    picture = nibabel.load(path)
    picture.header.extensions.append(nibabel.nifti1.Nifti1Extension("comment", b"an extension"))
    nibabel.save(picture, path)
    records = records_of(nifti, path)
    assert nifti.write(records, tmp_path / "b.nii").read_bytes() == path.read_bytes()
    packed = nifti.write(records, tmp_path / "b.nii.gz").read_bytes()
    assert gzip.decompress(packed) == path.read_bytes()
    assert packed[4:8] == bytes(4)
    assert nifti.write(records, tmp_path / "b").name == "b.nii"


def test_big_volumes_are_mapped(tmp_path, monkeypatch):
    """A big volume is mapped, not read; a small one is read, for a mapping holds a file open."""
    path = saved(tmp_path / "a.nii", VALUES.astype("<i2"))
    np.save(tmp_path / "a.npy", VALUES)
    assert not any(isinstance(records_of(m, p)[0].elements, np.memmap) for m, p in ((nifti, path),))
    monkeypatch.setattr(stored, "MAPPED_BYTES", 100)
    assert isinstance(records_of(nifti, path)[0].elements, np.memmap)
    assert isinstance(records_of(npy, tmp_path / "a.npy")[0].elements, np.memmap)


def test_nan_is_missing(tmp_path):
    """NaN in a float volume is marked as missing and takes no part in the range of the digits."""
    values = np.where(VALUES % 7 == 0, np.nan, VALUES / 8).astype("<f4")
    np.save(tmp_path / "a.npy", values)
    for module, path in ((nifti, saved(tmp_path / "a.nii", values)), (npy, tmp_path / "a.npy")):
        (record,) = records_of(module, path)
        assert np.array_equal(record.missing, np.isnan(record.elements))
        assert record.header.geometry.missing_value is not None


def test_masks_and_maps_get_a_header_that_fits(tmp_path):
    """A mask or a float map in the place of a volume has its own type, the volume's place in space, and no scaling."""
    path = saved(tmp_path / "a.nii", VALUES.astype("<i2"), scl_slope=2, scl_inter=1, cal_max=50)
    (record,) = records_of(nifti, path)
    for elements in (VALUES.T > 0, (VALUES.T > 0).astype("u1"), (VALUES.T / 7).astype("<f4")):
        again = nibabel.load(nifti.write([with_type(record, elements)], tmp_path / "b.nii"))
        assert again.get_data_dtype() == (np.uint8 if elements.dtype == bool else elements.dtype)
        assert np.array_equal(np.asarray(again.dataobj), elements.T)
        assert np.array_equal(again.affine, AFFINE)
        assert (again.dataobj.slope, again.header["cal_max"]) == (1, 0)


def test_a_volume_from_elsewhere_can_be_written(tmp_path):
    """A record without a NIfTI header of its own gets one from its geometry: place, spacing, units, scaling."""
    affine = tuple(tuple(row) for row in AFFINE.tolist())
    record = bare(
        VALUES.T[0].astype("<u2"),
        ("z", "y", "x"),
        spacing=(4.0, 3.0, 2.0),
        units=("mm",) * 3,
        slope=0.5,
        intercept=1.0,
        affine=affine,
    )
    again = nibabel.load(nifti.write([record], tmp_path / "a.nii.gz"))
    assert np.array_equal(again.affine, AFFINE)
    assert again.header.get_zooms() == (2, 3, 4)
    assert again.header.get_xyzt_units()[0] == "mm"
    assert np.allclose(again.get_fdata(), record.elements.T * 0.5 + 1)
    long = nifti.write([bare(np.zeros(40_000, np.uint8), ("x",))], tmp_path / "long.nii")
    assert isinstance(nibabel.load(long), nibabel.Nifti2Image)


def test_parts_of_a_voxel_are_the_slowest_axis(tmp_path):
    """Colours become an axis of channels, complex numbers one of components; a map of channels is an axis more."""
    colours = np.zeros((5, 4, 3), [("R", "u1"), ("G", "u1"), ("B", "u1")])
    colours["G"] = 7
    (record,) = records_of(nifti, saved(tmp_path / "a.nii", colours))
    assert (record.header.geometry.axes, record.header.geometry.shape) == (("channel", "z", "y", "x"), (3, 3, 4, 5))
    assert record.elements[1].min() == 7
    map_of = with_type(record, np.asarray(record.elements).astype("<f4"))
    assert nibabel.load(nifti.write([map_of], tmp_path / "b.nii")).shape == (5, 4, 3, 3)
    (record,) = records_of(nifti, saved(tmp_path / "c.nii", (VALUES * 2j).astype("<c8")))
    assert record.header.geometry.axes == ("component", "t", "z", "y", "x")
    assert np.array_equal(record.elements[1], VALUES.T * 2)


def test_what_follows_the_voxels_is_told(tmp_path):
    """Bytes after the voxels are no part of the volume, and the header says that they were left out."""
    path = saved(tmp_path / "a.nii", VALUES.astype("<i2"))
    path.write_bytes(path.read_bytes() + b"tail")
    assert records_of(nifti, path)[0].header.metadata["left_out"] == "4 bytes after the voxels"


def test_odd_types_are_refused_with_a_way_out(tmp_path):
    """float128, no voxels and a bad vox_offset are told as such."""
    for at, value, what in ((70, 1536, "float128"), (42, 0, "shape"), (40, 9, "dim"), (110, 0, "vox_offset")):
        path = saved(tmp_path / "a.nii", VALUES.astype("<i2"))
        data = bytearray(path.read_bytes())
        data[at : at + 2] = value.to_bytes(2, "little")
        path.write_bytes(data)
        with pytest.raises(InputError, match=what):
            records_of(nifti, path)


def test_damaged_gzip_is_refused(tmp_path):
    """A .nii.gz cut short, or whose checksum does not fit, is refused; so is a shape that no such file can fill."""
    data = saved(tmp_path / "a.nii.gz", VALUES.astype("<i2")).read_bytes()
    huge = bytearray(gzip.decompress(data))
    huge[42:50] = (32767).to_bytes(2, "little") * 4
    for bad in (data[:-30], data[:-8] + b"\0" + data[-7:], gzip.compress(huge)):
        (tmp_path / "b.nii.gz").write_bytes(bad)
        with pytest.raises(InputError):
            records_of(nifti, tmp_path / "b.nii.gz")


def test_npy_comes_back_byte_for_byte(tmp_path):
    """Whatever numpy.save wrote, type and order and all, is written again to the byte."""
    for values in (VALUES, np.asfortranarray(VALUES.astype(">f4")), np.float16(3), VALUES > 0, VALUES[0, 0, 0] * 1j):
        np.save(tmp_path / "a.npy", values)
        written = npy.write(records_of(npy, tmp_path / "a.npy"), tmp_path / "b.npy")
        assert written.read_bytes() == (tmp_path / "a.npy").read_bytes()
        assert np.array_equal(np.load(written), values)


def test_stored_order_is_the_law(tmp_path):
    """What runs fastest in the file is the last axis, x: C order stays, Fortran order is reversed, and it says so."""
    for values, shape in ((VALUES, (5, 4, 3, 2)), (np.asfortranarray(VALUES), (2, 3, 4, 5))):
        np.save(tmp_path / "a.npy", values)
        (record,) = records_of(npy, tmp_path / "a.npy")
        assert (record.header.geometry.axes, record.elements.shape) == (("t", "z", "y", "x"), shape)
        assert record.header.metadata.get("fortran_order", False) == (shape != VALUES.shape)
        assert record.elements.flags.c_contiguous


def test_axes_of_any_number_have_names(tmp_path):
    """Up to four axes are t, z, y, x from the last; more are numbered; a last axis of 3 is still a volume's."""
    for shape, axes in (((3,), ("x",)), ((5, 5, 3), ("z", "y", "x")), ((1,) * 6, tuple(f"axis{k}" for k in range(6)))):
        np.save(tmp_path / "a.npy", np.zeros(shape))
        assert records_of(npy, tmp_path / "a.npy")[0].header.geometry.axes == axes


def test_every_version_of_npy_is_read(tmp_path):
    """3.0 has its header in UTF-8."""
    for version in ((1, 0), (2, 0), (3, 0)):
        with (tmp_path / "a.npy").open("wb") as file:
            np.lib.format.write_array(file, VALUES, version=version)
        assert np.array_equal(records_of(npy, tmp_path / "a.npy")[0].elements, VALUES)


def test_members_of_an_archive_are_records(tmp_path):
    """Each array of a .npz is a record, name::member; one that is bad is refused and the others go in."""
    np.savez_compressed(tmp_path / "a.npz", one=VALUES, two=np.array(["text"]), three=VALUES > 0)
    one, two, three = npy.read(Source(tmp_path / "a.npz", "x/a.npz"))
    assert [r.header.record for r in (one, three)] == ["x/a.npz::one", "x/a.npz::three"]
    assert isinstance(two, InputError)
    with np.load(npy.write([one, three], tmp_path / "b.npz")) as again:
        assert sorted(again) == ["one", "three"]
        assert np.array_equal(again["one"], VALUES)


def test_only_numbers_are_read(tmp_path):
    """Objects (pickles), dates, texts, structures are refused, nothing is unpickled; so are two arrays in one."""

    class Trap:
        def __reduce__(self):
            return pytest.fail, ("unpickled",)

    bad = [
        np.array([Trap()], object),
        np.array(["2020"], "M8[D]"),
        np.array(["a"]),
        np.zeros(3, "i4,f4"),
        np.zeros((0, 3)),
    ]
    if np.longdouble(1).itemsize > 8:
        bad.append(np.zeros(3, np.longdouble))
    for values in bad:
        np.save(tmp_path / "a.npy", values, allow_pickle=True)
        with pytest.raises(InputError):
            records_of(npy, tmp_path / "a.npy")
    twice = io.BytesIO()
    np.save(twice, VALUES)
    np.save(twice, VALUES)
    (tmp_path / "a.npy").write_bytes(twice.getvalue())
    with pytest.raises(InputError, match="savez"):
        records_of(npy, tmp_path / "a.npy")


def test_an_absurd_shape_takes_no_memory(tmp_path):
    """A header that promises 2^80 elements is refused by arithmetic, in a .npy and in a .npz."""
    header = b"{'descr': '<i2', 'fortran_order': False, 'shape': (1073741824, 1073741824, 1048576), }\n"
    data = b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + bytes(64)
    (tmp_path / "a.npy").write_bytes(data)
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.writestr("a.npy", data)
    for name in ("a.npy", "a.npz"):
        with pytest.raises(InputError, match="bytes for shape"):
            records_of(npy, tmp_path / name)


def test_a_header_that_python_2_wrote_is_read(tmp_path):
    """Long integers (5L) in an old header are no reason to refuse, nor to warn."""
    header = b"{'descr': '|u1', 'fortran_order': False, 'shape': (5L,), }\n"
    (tmp_path / "a.npy").write_bytes(b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + bytes(5))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert records_of(npy, tmp_path / "a.npy")[0].elements.shape == (5,)


def test_the_kept_header_is_the_whole_preface(tmp_path):
    """Metadata holds every byte before the voxels, as base64."""
    path = saved(tmp_path / "a.nii", VALUES.astype("<i2"))
    assert base64.b64decode(records_of(nifti, path)[0].header.metadata["header"]) == path.read_bytes()[:352]
