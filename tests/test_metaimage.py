"""MetaImage, .mha and .mhd: the contract, the values and places that the headers spell, headers that lie."""

import zlib

import numpy as np
import pytest

from aunn_data.errors import InputError
from pipelines.options import Limits, Options
from pipelines.scans import metaimage
from pipelines.source import Source
from pipelines.walk import walk
from tests.format_contract import Example, FormatContract, records_of, refusals

VALUES = (np.arange(60).reshape(3, 4, 5) * 3 - 50).astype("<i2")  # z, y, x
RAW = VALUES.tobytes()
SPACE = "TransformMatrix = 0 1 0 1 0 0 0 0 1\nOffset = 5 -6 7\nElementSpacing = 2 3 4\n"
THIRDS = {f"s{k}.raw": RAW[k * 40 : k * 40 + 40] for k in range(3)}


def fields(size="5 4 3", type="MET_SHORT", more=""):
    return f"ObjectType = Image\nNDims = {len(size.split())}\nDimSize = {size}\nElementType = {type}\n{more}"


def attached(path, header, data=RAW):
    path.write_bytes(f"{header}ElementDataFile = LOCAL\n".encode() + data)
    return path


def detached(path, data_file, parts, more=""):
    for name, data in parts.items():
        (path.parent / name).write_bytes(data)
    path.write_text(f"{fields(more=more)}ElementDataFile = {data_file}\n")
    return path


def packed(path, values=VALUES):
    data = zlib.compress(values.tobytes())
    return attached(path, fields(more=f"CompressedData = True\nCompressedDataSize = {len(data)}\n"), data)


def example(name, header, data=RAW, faithful=True):
    return Example(name, metaimage, lambda path: attached(path, header, data), faithful=faithful)


HOLES = np.where(VALUES % 7, VALUES / 8, np.nan)
BIG = fields(more=SPACE + "BinaryData = True\nBinaryDataByteOrderMSB = True\nComment = ü = kept\n")
TEXT = " ".join(map(str, VALUES.ravel())).encode()
EXAMPLES = [
    example("big.mha", BIG, VALUES.byteswap().tobytes()),
    example("holes.mha", fields(type="MET_DOUBLE"), HOLES.tobytes()),
    example("channels.mha", fields("5 4", "MET_UCHAR_ARRAY", "ElementNumberOfChannels = 3\n"), bytes(range(60))),
    example("text.mha", fields(more="BinaryData = False\n"), TEXT),
    example("skip.mha", fields(more="HeaderSize = 3\n"), b"abc" + RAW, False),
    Example("packed.mha", metaimage, packed),
    Example("one.mhd", metaimage, lambda p: detached(p, "one.raw", {"one.raw": RAW}), faithful=False),
    Example("list.mhd", metaimage, lambda p: detached(p, "LIST\ns0.raw\ns1.raw\ns2.raw", THIRDS), faithful=False),
    Example("pattern.mhd", metaimage, lambda p: detached(p, "s%d.raw 0 2 1", THIRDS), faithful=False),
]


@pytest.mark.parametrize("example", EXAMPLES, ids=str)
class TestMetaImage(FormatContract):
    """The contract over the ways in which elements can lie."""


def test_a_real_file_holds_what_zlib_gives(shared_data):
    """The voxels are the inflated bytes; the header's lines are kept; the affine is ITK's, turned to RAS+."""
    path = shared_data / "scans/other/mha.mha"
    (record,) = records_of(metaimage, path)
    text, data = path.read_bytes().split(b"LOCAL\n", 1)
    assert np.asarray(record.elements).tobytes() == zlib.decompress(data)
    assert (record.elements.shape, record.elements.dtype) == ((37, 64, 64), np.int16)
    assert record.header.metadata["header"].encode() == text + b"LOCAL\n"
    expected = [[-3.4375, 0, 0, 108.281], [0, 3.4375, 0, -82.3795], [0, 0, 3.8, -47.8356], [0, 0, 0, 1]]
    assert np.allclose(record.header.geometry.affine, expected)


def test_rows_of_the_matrix_are_the_directions_of_the_axes(tmp_path):
    """Axis i steps along row i of TransformMatrix by its spacing; left and posterior become right and anterior."""
    (record,) = records_of(metaimage, attached(tmp_path / "a.mha", fields(more=SPACE)))
    geometry = record.header.geometry
    assert (geometry.axes, geometry.spacing) == (("z", "y", "x"), (4.0, 3.0, 2.0))
    assert geometry.affine == ((0, -3, 0, -5), (-2, 0, 0, 6), (0, 0, 4, 7), (0, 0, 0, 1))


def test_channels_come_first(tmp_path):
    """Channels lie together in the file and are the slowest axis of the record."""
    header = fields("5 4", "MET_SHORT", "ElementNumberOfChannels = 3\n")
    path = attached(tmp_path / "a.mha", header)
    records = records_of(metaimage, path)
    assert records[0].header.geometry.axes == ("channel", "y", "x")
    assert np.array_equal(records[0].elements, np.moveaxis(VALUES.ravel().reshape(4, 5, 3), -1, 0))
    assert metaimage.write(records, tmp_path / "b.mha").read_bytes() == path.read_bytes()


def test_slope_and_offset_are_told_not_applied(tmp_path):
    """ElementToIntensityFunction stands in the geometry."""
    more = "ElementToIntensityFunctionSlope = 0.5\nElementToIntensityFunctionOffset = -3\n"
    (record,) = records_of(metaimage, attached(tmp_path / "a.mha", fields(more=more)))
    assert (record.header.geometry.slope, record.header.geometry.intercept) == (0.5, -3.0)
    assert np.array_equal(record.elements, VALUES)


def test_the_data_files_go_in_with_their_header(tmp_path):
    """In a folder a .mhd and all its files are one source, below it too; data at the end of a longer file are found."""
    (tmp_path / "d").mkdir()
    parts = {f"d/{name}": b"skip" + data for name, data in THIRDS.items()}
    path = detached(tmp_path / "a.mhd", "d/s%d.raw 0 2 1", parts, "HeaderSize = -1\n")
    [source] = walk([tmp_path], "")
    assert [part.name for part in source.files] == ["a.mhd", "s0.raw", "s1.raw", "s2.raw"]
    records = records_of(metaimage, path)
    assert np.array_equal(records[0].elements, VALUES)
    assert np.array_equal(records_of(metaimage, metaimage.write(records, tmp_path / "b.mhd"))[0].elements, VALUES)


@pytest.mark.parametrize(
    "header",
    [
        fields("-5 4 3"),
        fields("5 4 0"),
        fields("4294967296 4294967296 4294967296"),
        fields(type="MET_STRING"),
        fields(type="MET_OTHER"),
        fields(more="ElementNumberOfChannels = -1\n"),
        fields(more="ElementNumberOfChannels = 4000000000\n"),
        fields(more="HeaderSize = 99999999999999999999\n"),
        fields(more="HeaderSize = -2\n"),
        fields(more="CompressedData = perhaps\n"),
        fields(more="CompressedData = True\n"),
        fields(more="DimSize = 5 4 3\n"),
        fields(more="TransformMatrix = one two\nOffset = 0 0 0\nElementSpacing = 1 1 1\n"),
        fields(more="ElementDataFile = ../secret.raw\n"),
        fields(more="ElementDataFile = /etc/passwd\n"),
        fields(more="ElementDataFile = s%d.raw 0 1000000000 1\n"),
        fields(more="ElementDataFile = LIST 9\n"),
        fields(more="no equals sign\n"),
    ],
    ids=repr,
)
def test_headers_that_lie_are_refused(tmp_path, header):
    """Sizes, types, skips and file names that cannot be: one InputError of one line, and nothing is allocated."""
    [error] = refusals(metaimage, attached(tmp_path / "a.mha", header))
    assert "\n" not in error


def test_bombs_and_cut_streams_are_refused(tmp_path):
    """zlib that grows beyond the ratio is refused before it grows; a stream that is cut or damaged is refused."""
    zeros = np.zeros((128, 1024, 1024), "u1")
    header = fields("1024 1024 128", "MET_UCHAR", "CompressedData = True\n")
    path = attached(tmp_path / "a.mha", header, zlib.compress(zeros))
    with pytest.raises(InputError, match="bytes for shape"):
        next(metaimage.read(Source(path, "a", Options(limits=Limits(max_ratio=10)))))
    whole = packed(path).read_bytes()
    for data in (whole[:-1], whole[:-4] + b"\0\0\0\0"):
        path.write_bytes(data)
        with pytest.raises(InputError, match="zlib"):
            records_of(metaimage, path)
