"""MRC and CCP4 maps: the contract, mrcfile as the oracle, headers that lie."""

import base64
import struct
import warnings

import mrcfile
import numpy as np
import pytest

from aunn_data.errors import InputError
from pipelines.scans import mrc
from tests.format_contract import Example, FormatContract, records_of, refusals

VALUES = np.arange(60).reshape(3, 4, 5) * 3 - 50


def saved(path, values, order="<", extended=b"", **fields):
    """A map made by mrcfile, turned to a byte order, with an extended header and any header fields."""
    with warnings.catch_warnings(), mrcfile.new(path, overwrite=True) as file:
        warnings.simplefilter("ignore")  # of NaN
        file.set_data(values)
        file.set_extended_header(np.frombuffer(extended, "V1"))
        file.voxel_size = (1.5, 2.0, 2.5)
        for field, value in fields.items():
            file.header[field] = value
        header = np.array(file.header)
    if order == ">":
        header = header.astype(header.dtype.newbyteorder(">"))
        header["machst"] = [0x11, 0x11, 0, 0]
        path.write_bytes(header.tobytes() + extended + values.astype(values.dtype.newbyteorder(">")).tobytes())
    return path


def by_hand(path, mode, data, shape, order="<", extra=b""):
    """A map of a mode that mrcfile does not write."""
    block = bytearray(1024)
    struct.pack_into(f"{order}4i", block, 0, *shape[::-1], mode)
    struct.pack_into(f"{order}3i", block, 28, *shape[::-1])
    struct.pack_into(f"{order}3i", block, 64, 1, 2, 3)
    block[208:214] = b"MAP " + (b"DA" if order == "<" else b"\x11\x11")
    block[152 : 152 + len(extra)] = extra
    path.write_bytes(bytes(block) + data)
    return path


def example(name, values, *order, **fields):
    return Example(name, mrc, lambda path: saved(path, values, *order, **fields))


EXAMPLES = [
    example("i1.mrc", VALUES.astype("i1")),
    example("i2_big.map", VALUES.astype("i2"), ">", b"symmetry" * 10),
    example("holes.ccp4", np.where(VALUES % 7, VALUES, np.nan).astype("f4"), mapc=2, mapr=1, maps=3),
    example("complex.rec", (VALUES * (1 - 2j)).astype("c8")),
    example("u2.st", (VALUES + 50).astype("u2"), ispg=401, mz=1),
    example("half.mrcs", VALUES.astype("f2"), ispg=0),
    Example("integers.mrc", mrc, lambda p: by_hand(p, 3, VALUES.repeat(2).astype("<i2").tobytes(), (3, 4, 5))),
    Example("nibbles.mrc", mrc, lambda p: by_hand(p, 101, bytes(range(1, 37)), (3, 4, 5))),
    Example("colour.mrc", mrc, lambda p: by_hand(p, 16, bytes(range(180)), (3, 4, 5))),
    Example("scans/mrc/EMD-3197.map", mrc),
]


@pytest.mark.parametrize("example", EXAMPLES, ids=str)
class TestMrc(FormatContract):
    """The contract over every mode."""


@pytest.mark.parametrize("name", ["3pqr.ccp4.gz", "EMD-3197.map", "EMD-3197.map.bz2", "betaGal.mrc", "emd_3197.map.gz"])
def test_real_maps_are_what_mrcfile_reads(shared_data, name):
    """Values, type and voxel size are mrcfile's; axes are named by what runs fastest in the file."""
    (record,) = records_of(mrc, shared_data / "scans/mrc" / name)
    with mrcfile.open(shared_data / "scans/mrc" / name) as file:
        assert np.array_equal(record.elements, file.data)
        assert np.dtype(record.header.geometry.dtype) == file.data.dtype
        spacing = dict(zip(record.header.geometry.axes, record.header.geometry.spacing, strict=True))
        assert all(abs(spacing[axis] - file.voxel_size[axis]) < 1e-6 for axis in "xyz")
    assert record.header.geometry.axes == (("z", "x", "y") if "3pqr" in name else ("z", "y", "x"))


def test_both_headers_come_back_to_the_byte(tmp_path):
    """What was read is written again byte for byte, the extended header too, in either byte order."""
    for order in "<>":
        path = saved(tmp_path / "a.mrc", VALUES.astype("i2"), order, b"\x00tilt angles\xff", nxstart=-7)
        (record,) = records_of(mrc, path)
        assert np.array_equal(record.elements, VALUES)
        assert record.header.metadata["start"] == [-7, 0, 0]
        assert base64.b64decode(record.header.metadata["extended_header"]) == b"\x00tilt angles\xff"
        assert mrc.write([record], tmp_path / "b.mrc").read_bytes() == path.read_bytes()


def test_stacks_of_volumes_have_an_axis_more(tmp_path):
    """A space group from 401 on: MZ sections make a volume. Sections that do not divide into volumes are refused."""
    path = saved(tmp_path / "a.mrc", VALUES[:2].astype("f4"), ispg=401, mz=1)
    (record,) = records_of(mrc, path)
    assert (record.header.geometry.axes, record.elements.shape) == (("volume", "z", "y", "x"), (2, 1, 4, 5))
    with pytest.raises(InputError, match="stack of volumes"):
        records_of(mrc, saved(path, VALUES.astype("f4"), ispg=401, mz=2))


def test_nibbles_are_two_voxels_a_byte(tmp_path):
    """Mode 101: the first voxel in the lower half, rows of odd length padded; slices are those of the whole."""
    (record,) = records_of(mrc, by_hand(tmp_path / "a.mrc", 101, bytes(range(1, 37)), (3, 4, 5)))
    whole = record.elements[...]
    assert whole[0, 0].tolist() == [1, 0, 2, 0, 3]
    assert whole[2, 3].tolist() == [34 & 15, 34 >> 4, 35 & 15, 35 >> 4, 36 & 15]
    for key in (1, slice(1, 3), (0, 2), (slice(0, 2), slice(1, 3), slice(2, 5)), (..., 3), (1, ..., slice(1, 2))):
        assert np.array_equal(record.elements[key], whole[key])


def test_bytes_are_signed_unless_imod_says_otherwise(tmp_path):
    """Mode 0 is int8, as MRC2014 has it; with IMOD's stamp and no flag for signed bytes it is uint8."""
    data, stamp = bytes(range(200, 260 - 4)) + bytes(4), struct.pack("<i", 1146047817)
    for extra, dtype in ((b"", "|i1"), (stamp, "|u1"), (stamp + b"\1", "|i1")):
        (record,) = records_of(mrc, by_hand(tmp_path / "a.mrc", 0, data, (3, 4, 5), extra=extra))
        assert record.header.geometry.dtype == dtype
        assert np.asarray(record.elements).tobytes() == data


def test_a_wrong_stamp_gives_way_to_what_makes_sense(tmp_path):
    """A map whose machine stamp names the other byte order is read in the one that gives a header."""
    path = saved(tmp_path / "a.mrc", VALUES.astype("i2"))
    data = bytearray(path.read_bytes())
    for stamp in (b"\x11\x11\0\0", bytes(4)):
        data[212:216] = stamp
        path.write_bytes(data)
        assert np.array_equal(records_of(mrc, path)[0].elements, VALUES)


def test_old_maps_are_known_by_name_and_header(tmp_path):
    """Without "MAP " in it, a file of the right name with a header that could be one is a map; others are not."""
    path = saved(tmp_path / "a.rec", VALUES.astype("i2"), map=b"", mapc=0, mapr=0, maps=0)
    head = path.read_bytes()
    assert mrc.sniff(head, path)
    assert not mrc.sniff(head, path.with_suffix(".bin"))
    assert not mrc.sniff(b"\xff" * 4096, path)
    assert np.array_equal(records_of(mrc, path)[0].elements, VALUES)


@pytest.mark.parametrize(
    ("at", "values"),
    [(0, (-5, 4, 3)), (0, (0, 4, 3)), (0, (2**31 - 1,) * 3), (12, (5,)), (92, (-1,)), (92, (2**31 - 1,))],
)
def test_headers_that_lie_are_refused(tmp_path, at, values):
    """Sizes below one or beyond the file, unknown modes, extended headers that are not there: one InputError."""
    path = saved(tmp_path / "a.mrc", VALUES.astype("i2"))
    data = bytearray(path.read_bytes())
    struct.pack_into(f"<{len(values)}i", data, at, *values)
    path.write_bytes(data)
    assert len(refusals(mrc, path)) == 1
