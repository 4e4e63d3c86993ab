"""NRRD, attached and detached: the contract, pynrrd as the oracle, headers that lie."""

import gzip
import math

import nrrd as pynrrd
import numpy as np
import pytest

from aunn_data.errors import InputError
from pipelines import stored
from pipelines.options import Limits, Options
from pipelines.scans import nrrd, voxels
from pipelines.source import Source
from pipelines.walk import walk
from tests.format_contract import Example, FormatContract, records_of, refusals, source_of

VALUES = (np.arange(60).reshape(5, 4, 3) * 3 - 50).astype("<i2")  # x, y, z
SPACE = "space: left-posterior-superior\nspace directions: (2,0,0) (0,3,0) (0,0,4)\nspace origin: (5,-6,7)\n"


def saved(path, values, encoding="raw", **header):
    """A file made by pynrrd."""
    pynrrd.write(str(path), values, {"encoding": encoding, **header}, **header.pop("options", {}))
    return path


def text(path, fields, data=b"", version=4, end="\n"):
    """A file by hand."""
    path.write_bytes(f"NRRD000{version}\n{fields}{end}".encode() + data)
    return path


def fields(sizes="5 4 3", type="short", encoding="raw", more="endian: little\n"):
    return f"type: {type}\ndimension: {len(sizes.split())}\nsizes: {sizes}\nencoding: {encoding}\n{more}"


def detached(path, data_file, parts, **options):
    """A header with its data files beside it."""
    for name, data in parts.items():
        (path.parent / name).write_bytes(data)
    return text(path, fields(**options) + f"data file: {data_file}\n", end="")


def example(name, values, *encoding, **header):
    return Example(name, nrrd, lambda path: saved(path, values, *encoding, **header))


RAW = VALUES.tobytes("F")
THIRDS = {f"s{k}.raw": RAW[k * 40 : k * 40 + 40] for k in range(3)}
HOLES = np.where(VALUES % 7, VALUES / 8, np.nan)
COMMENTED = fields(more="# a comment\nendian: big\n" + SPACE + "kinds: domain domain domain\nkey with space:=v: = ü\n")
EXAMPLES = [
    example("raw.nrrd", VALUES),
    example("gzip.nrrd", VALUES.astype(">u4"), "gzip"),
    example("bzip2.nrrd", HOLES, "bzip2"),
    example("ascii.nrrd", HOLES.astype("f4"), "ASCII"),
    Example("commented.nrrd", nrrd, lambda p: text(p, COMMENTED, VALUES.byteswap().tobytes("F"), 5)),
    Example("hex.nrrd", nrrd, lambda p: text(p, fields(encoding="hex"), RAW.hex(" ", 7).encode())),
    Example(
        "dos.nrrd",
        nrrd,
        lambda p: p.write_bytes(b"NRRD0001\r\n" + fields().replace("\n", "\r\n").encode() + b"\r\n" + RAW),
    ),
    example("rgb.nrrd", np.arange(60, dtype="u1").reshape(3, 5, 4), kinds=["RGB-color", "domain", "domain"]),
    Example("one.nhdr", nrrd, lambda p: detached(p, "one.raw", {"one.raw": RAW}), faithful=False),
    Example("list.nhdr", nrrd, lambda p: detached(p, "LIST\ns0.raw\ns1.raw\ns2.raw", THIRDS), faithful=False),
    Example("pattern.nhdr", nrrd, lambda p: detached(p, "s%d.raw 0 2 1", THIRDS), faithful=False),
    Example("scans/nrrd/BallBinary30x30x30_gz.nrrd", nrrd),
    Example("scans/nrrd/test_simple4d_raw.nrrd", nrrd, faithful=False),
]


@pytest.mark.parametrize("example", EXAMPLES, ids=str)
class TestNrrd(FormatContract):
    """The contract over every encoding."""


REAL = ["BallBinary30x30x30.nhdr", "BallBinary30x30x30.nrrd", "BallBinary30x30x30_gz.nrrd", "FLAIR.nrrd"]


@pytest.mark.parametrize("name", REAL)
def test_real_files_are_what_pynrrd_reads(shared_data, name):
    """Values and type are pynrrd's, slowest axis first; the affine is its directions and origin, turned to RAS+."""
    path = shared_data / "scans/nrrd" / name
    (record,) = records_of(nrrd, path)
    values, header = pynrrd.read(str(path))
    assert np.array_equal(record.elements, values.T)
    assert np.dtype(record.header.geometry.dtype) == values.dtype
    expected = np.diag([-1.0, -1, 1]) @ np.column_stack([header["space directions"].T, header["space origin"]])
    assert np.allclose(np.array(record.header.geometry.affine)[:3], expected, atol=0)
    assert (path.read_bytes()).startswith(record.header.metadata["header"].encode())


def test_the_data_file_goes_in_with_its_header(shared_data):
    """In a folder a detached header and its data file are one source; the file of data alone is no other."""
    found = list(walk([shared_data / "scans/nrrd"], ""))
    assert [s.name for s in found if "BallBinary30x30x30.n" in s.name] == REAL[:2]
    assert not any(source.name.endswith(".raw") for source in found)
    [source] = [source for source in found if source.name.endswith(".nhdr")]
    assert [path.name for path in source.files] == ["BallBinary30x30x30.nhdr", "BallBinary30x30x30.raw"]


def test_an_attached_file_comes_back_to_the_byte(tmp_path):
    """Comments, key/value pairs, order of fields and data in the file's own byte order are written as they were."""
    path = text(tmp_path / "a.nrrd", COMMENTED, VALUES.byteswap().tobytes("F"))
    records = records_of(nrrd, path)
    assert np.array_equal(records[0].elements, VALUES.T)
    assert nrrd.write(records, tmp_path / "b.nrrd").read_bytes() == path.read_bytes()


def test_geometry_says_where_the_samples_lie(tmp_path):
    """Directions make spacing and affine, by the space's own axes; units go with the axes; no origin, no affine."""
    for space, signs in (("LPS", (-1, -1, 1)), ("right-anterior-superior", (1, 1, 1)), ("LAS", (-1, 1, 1))):
        more = SPACE.replace("left-posterior-superior", space) + 'space units: "mm" "mm" "mm"\nendian: little\n'
        (record,) = records_of(nrrd, text(tmp_path / "a.nrrd", fields(more=more), RAW))
        geometry = record.header.geometry
        assert (geometry.axes, geometry.spacing, geometry.units) == (("z", "y", "x"), (4.0, 3.0, 2.0), ("mm",) * 3)
        x, y, z = signs
        assert geometry.affine == ((2 * x, 0, 0, 5 * x), (0, 3 * y, 0, -6 * y), (0, 0, 4 * z, 7 * z), (0, 0, 0, 1))
    for more in (SPACE.replace("left-posterior-superior", "scanner-xyz"), SPACE.rsplit("space origin", 1)[0]):
        (record,) = records_of(nrrd, text(tmp_path / "a.nrrd", fields(more=more + "endian: little\n"), RAW))
        assert record.header.geometry.affine is None


def test_channels_come_first(tmp_path):
    """An axis of colours, vectors or a list that runs fastest becomes the slowest; time and a slowest list stay."""
    cases = [
        ("vector domain domain", ("channel", "y", "x"), True),
        ("complex domain domain", ("component", "y", "x"), True),
        ("list domain domain", ("list", "y", "x"), True),
        ("domain domain time", ("t", "y", "x"), False),
        ("domain domain list", ("list", "y", "x"), False),
        ("domain 3-vector domain", ("channel", "y", "x"), None),
    ]
    for kinds, axes, moved in cases:
        path = text(tmp_path / "a.nrrd", fields(more=f"endian: little\nkinds: {kinds}\n"), RAW)
        records = records_of(nrrd, path)
        assert records[0].header.geometry.axes == axes
        as_stored = VALUES.T if moved is False else np.moveaxis(VALUES.T, -1 if moved else 1, 0)
        assert np.array_equal(records[0].elements, as_stored)
        assert nrrd.write(records, tmp_path / "b.nrrd").read_bytes() == path.read_bytes()


def test_skips_are_skipped(tmp_path):
    """Lines and bytes before the data of a file; -1 counts from its end; bytes after inflating."""
    cases = [
        ("raw", "line skip: 2\nbyte skip: 3\n", b"one\ntwo\nabc" + RAW),
        ("raw", "byteskip: -1\n", b"anything" + RAW),
        ("gzip", "byte skip: 5\n", gzip.compress(b"abcde" + RAW)),
        ("gzip", "lineskip: 1\n", b"line\n" + gzip.compress(RAW)),
    ]
    for encoding, skip, data in cases:
        path = text(tmp_path / "a.nrrd", fields(encoding=encoding, more="endian: little\n" + skip), data)
        records = records_of(nrrd, path)
        assert np.array_equal(records[0].elements, VALUES.T)
        again = records_of(nrrd, nrrd.write(records, tmp_path / "b.nrrd"))
        assert np.array_equal(again[0].elements, VALUES.T)


def test_big_volumes_stay_on_the_disk(tmp_path, monkeypatch):
    """What is big is mapped, where it lies or where it was inflated to; the scratch goes with the source."""
    monkeypatch.setattr(stored, "MAPPED_BYTES", 100)
    monkeypatch.setattr(voxels, "SMALL_BYTES", 100)
    for encoding in ("raw", "gzip"):
        source = source_of(saved(tmp_path / f"{encoding}.nrrd", VALUES, encoding))
        (record,) = nrrd.read(source)
        assert isinstance(record.elements, np.memmap)
        assert np.array_equal(record.elements, VALUES.T)


def test_compressed_data_files_are_unpacked_once(tmp_path):
    """A data file whose encoding the header names, and a raw one that somebody compressed, both give the samples."""
    for encoding in ("gzip", "raw"):
        path = detached(tmp_path / "a.nhdr", "a.raw.gz", {"a.raw.gz": gzip.compress(RAW)}, encoding=encoding)
        assert np.array_equal(records_of(nrrd, path)[0].elements, VALUES.T)


def test_references_that_lead_out_are_refused(tmp_path):
    """Absolute paths, paths upwards, links to elsewhere and files that are not there: an InputError that says so."""
    (tmp_path / "secret.raw").write_bytes(RAW)
    home = tmp_path / "home"
    home.mkdir()
    (home / "link.raw").symlink_to(tmp_path / "secret.raw")
    for name in ("../secret.raw", str(tmp_path / "secret.raw"), "link.raw", "absent.raw", "../../../etc/passwd"):
        path = detached(home / "a.nhdr", name, {})
        assert source_of(path).files == ()
        with pytest.raises(InputError, match="in its own folder or below"):
            records_of(nrrd, path)
    below = home / "below"
    below.mkdir()
    path = detached(home / "a.nhdr", "below/s.raw", {"below/s.raw": RAW})
    assert [source.name for source in walk([home], "") if "raw" not in source.name] == ["a.nhdr"]
    assert np.array_equal(records_of(nrrd, path)[0].elements, VALUES.T)


@pytest.mark.parametrize(
    "header",
    [
        fields(sizes="-5 4 3"),
        fields(sizes="5 4 0"),
        fields(sizes="4294967296 4294967296 4294967296"),
        fields(sizes="5 4 4"),
        fields(sizes=" ".join(["1"] * 17)),
        fields(more=""),
        fields(type="block"),
        fields(type="object"),
        fields(encoding="zrl"),
        fields(more="endian: little\nbyte skip: -2\n"),
        fields(more="endian: little\nbyte skip: 99999999999999999999\n"),
        fields(more="endian: little\nline skip: 99999999999999999999\n"),
        fields(more="endian: little\nendian: big\n"),
        fields(more="endian: little\nspace directions: (((((\n"),
        fields(more="endian: little\ndata file: s%d.raw 0 1000000000 1\n"),
        fields(more="endian: little\ndata file: s%d.raw 0 2 0\n"),
        fields(more="endian: little\ndata file: s%99d.raw 0 2 1\n"),
        fields(more="endian: little\ndata file: LIST 7\ns0.raw\n"),
        fields(encoding="gzip", sizes="1000000 1000 1000"),
        "no fields\n",
    ],
    ids=repr,
)
def test_headers_that_lie_are_refused(tmp_path, header):
    """Sizes, types, skips and file names that cannot be: one InputError of one line, and nothing is allocated."""
    [error] = refusals(nrrd, text(tmp_path / "a.nrrd", header, RAW))
    assert "\n" not in error


def test_numbers_that_do_not_fit_are_refused(tmp_path):
    """ASCII data of another count, out of the type's range or no numbers; more than there should be is told."""
    for data in (b"1 2 3", b"1 2 3 x", b"1 2 3 70000", b"1 2 3 1.5", b""):
        assert len(refusals(nrrd, text(tmp_path / "a.nrrd", fields("4", encoding="text"), data))) == 1
    (record,) = records_of(nrrd, text(tmp_path / "a.nrrd", fields("4", encoding="text"), b"1,2,\n3 , -4 5"))
    assert record.elements.tolist() == [1, 2, 3, -4]
    assert record.header.metadata["left_out"] == "2 bytes after the voxels"


def test_bombs_are_refused(tmp_path):
    """Gzip that grows beyond the ratio, and volumes of more elements than allowed, are refused before they grow."""
    data = gzip.compress(bytes(1 << 27))
    path = text(tmp_path / "a.nrrd", fields(sizes=f"{1 << 26}", encoding="gzip"), data)
    options = Options(limits=Limits(max_ratio=10))
    with pytest.raises(InputError, match="bytes for shape"):
        next(nrrd.read(Source(path, "a", options)))
    path = text(tmp_path / "a.nrrd", fields(), RAW)
    with pytest.raises(InputError, match="at most 59 elements"):
        next(nrrd.read(Source(path, "a", Options(limits=Limits(max_elements=math.prod((5, 4, 3)) - 1)))))
