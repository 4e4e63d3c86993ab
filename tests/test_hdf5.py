"""HDF5: the contract, what goes in of all that a file may hold, what is refused, hostile files."""

import h5py
import numpy as np
import pytest

from aunn_data.errors import InputError
from pipelines.scans import chunked, hdf5
from tests.format_contract import Example, FormatContract, refusals, source_of

VOLUME = np.arange(60).reshape(3, 4, 5) * 5 - 100
HOLES = np.where(VOLUME % 15 == 0, np.nan, VOLUME)


def file(name, fill, records=1, checked=True, **options):
    """Makes a file that ``fill`` fills."""

    def make(path):
        with h5py.File(path, "w", **options) as made:
            fill(made)

    return Example(name, hdf5, make, records, checked=checked)


def one(values, **options):
    return lambda made: made.create_dataset("volume", data=values, **options)


def rich(made):
    """Groups, attributes of all kinds, texts, links, types."""
    made.attrs["title"] = "Größe"
    made.attrs["table"] = np.array([[1.5, np.nan], [3, 4]])
    made.attrs.create("fixed", np.array([b"ab", b"c\xff"], "S4"))
    made.attrs["none"] = h5py.Empty("f4")
    entry = made.create_group("entry")
    entry.attrs["flag"] = True
    entry["name"], entry["names"] = "a scan", ["x", "µ"]
    entry["name"].attrs["size"] = np.uint8(3)
    data = entry.create_dataset("data", data=VOLUME.astype(">i2"), chunks=(2, 2, 5), compression="gzip", shuffle=True)
    data.attrs["_FillValue"] = np.array([-100], ">i2")
    data.attrs["element_size_um"] = [2.0, 0.5, 0.5]
    entry["complex"], entry["bool"], entry["one"] = HOLES * (1 + 1j), VOLUME > 3, np.float32(1.5)
    entry["colour"] = np.zeros(3, h5py.enum_dtype({"red": 0, "blue": 7}, "i1"))
    made["empty group/inner"] = made.create_group("other")
    made["same"], made["soft"] = data, h5py.SoftLink("/entry/data")


def netcdf(made):
    """Two scales and a variable over them, as NetCDF-4 has them."""
    made["y"], made["x"] = np.arange(3.0), np.arange(4.0)
    made["t2m"] = np.arange(12, dtype="<f4").reshape(3, 4)
    for axis, name in enumerate("yx"):
        made[name].make_scale(name)
        made["t2m"].dims[axis].attach_scale(made[name])


def sparse(made):
    dataset = made.create_dataset("volume", (8, 8), "<i4", chunks=(2, 4), fillvalue=7)
    dataset[2:4, 4:] = VOLUME[0, :2, :4]


EXAMPLES = [
    file("plain.h5", one(VOLUME.astype("<u2"))),
    file("bytes.hdf5", one(VOLUME.clip(0, 255).astype("u1"), chunks=(1, 4, 5), compression="gzip", fletcher32=True)),
    file("holes.h5", one(HOLES, chunks=(2, 4, 5), compression="lzf", maxshape=(None, 4, 5))),
    file("matlab.mat", one(VOLUME), userblock_size=512),
    file("rich.h5", rich, 5),
    file("climate.nc", netcdf, 3),
    file("sparse.h5", sparse),
    file("new.h5", one(VOLUME), libver="latest"),
]


@pytest.mark.parametrize("example", EXAMPLES, ids=str)
class TestHdf5(FormatContract): ...


def read(path, name="s"):
    """All that the reader gives, by record; errors by where they are."""
    found = list(hdf5.read(source_of(path, name)))
    return {r.where.split("::")[1] if isinstance(r, InputError) else r.header.record: r for r in found}


def made(path, fill, **options):
    file(path.name, fill, **options).make(path)
    return read(path)


@pytest.mark.parametrize("big", [False, True])
def test_values_types_and_marks_are_those_of_the_file(tmp_path, monkeypatch, big):
    """Read at once or lazily: values and byte order as stored, declared fill values marked, steps as attributes say."""
    monkeypatch.setattr(chunked, "AT_ONCE_BYTES", 0 if big else 1 << 25)
    found = made(tmp_path / "r.h5", rich)
    assert list(found) == [f"s::/entry/{name}" for name in ("bool", "colour", "complex", "data", "one")]
    data = found["s::/entry/data"]
    assert data.header.geometry.dtype == ">i2"
    assert data.header.geometry.spacing == (2.0, 0.5, 0.5)
    assert np.array_equal(np.asarray(data.elements), VOLUME)
    assert np.array_equal(np.asarray(data.missing), VOLUME == -100)
    parts = found["s::/entry/complex"]
    assert np.array_equal(np.asarray(parts.elements), np.stack([HOLES, HOLES]), equal_nan=True)
    assert np.array_equal(np.asarray(parts.missing), np.isnan(np.stack([HOLES, HOLES])))


def test_written_again_it_holds_all_that_it_held(tmp_path):
    """Attributes, texts, enumerations, soft and hard links of the written file are those of the first, for h5py too."""
    records = made(tmp_path / "r.h5", rich)
    hdf5.write(list(records.values()), tmp_path / "w.h5")
    with h5py.File(tmp_path / "w.h5") as file:
        assert file.attrs["title"] == "Größe"
        assert file.attrs["fixed"].tolist() == [b"ab", b"c\xff"]
        assert np.array_equal(file.attrs["table"], [[1.5, np.nan], [3, 4]], equal_nan=True)
        assert file["entry/names"].asstr()[...].tolist() == ["x", "µ"]
        assert file["entry/name"].attrs["size"] == 3
        assert h5py.check_enum_dtype(file["entry/colour"].dtype) == {"red": 0, "blue": 7}
        assert file["same"] == file["entry/data"]
        assert file.get("soft", getlink=True).path == "/entry/data"
        assert file["empty group/inner"] == file["other"]


def test_netcdf_axes_are_named_by_their_scales(tmp_path):
    """A variable's axes are called like the scales attached to them, which are attached again when it is written."""
    records = made(tmp_path / "c.nc", netcdf)
    assert records["s::/t2m"].header.geometry.axes == ("y", "x")
    hdf5.write(list(records.values()), tmp_path / "w.nc")
    with h5py.File(tmp_path / "w.nc") as file:
        assert file["t2m"].dims[1][0] == file["x"]


def test_chunks_that_were_never_written_are_the_fill_value_and_cost_nothing(tmp_path, monkeypatch):
    """2^32 elements of one written chunk are ready at once; an empty region is a view of one element."""

    def fill(file):
        dataset = file.create_dataset("v", (1 << 12, 1 << 10, 1 << 10), "<i2", chunks=(16, 64, 64), fillvalue=7)
        dataset[100, :3, :3] = -1

    monkeypatch.setattr(chunked, "FREE_BYTES", 1 << 34)
    record = made(tmp_path / "s.h5", fill)["s::/v"]
    assert (record.header.geometry.offset, record.missing) == (-1, None)
    assert record.elements[100, :4, 2].tolist() == [-1, -1, -1, 7]
    assert not any(record.elements[112:].strides)
    assert record.elements[112:].flat[0] == 7


def test_what_is_no_number_or_elsewhere_is_refused_by_name(tmp_path):
    """Tables, references, big claims and all that lies in other files: an InputError each, and the rest goes in."""
    (tmp_path / "secret").write_bytes(bytes(64))
    file("other.h5", one(VOLUME)).make(tmp_path / "other.h5")

    def fill(file):
        file["good"] = VOLUME
        file["table"] = np.zeros(3, [("a", "i4"), ("b", "f8")])
        file["reference"] = file["good"].ref
        file["void"] = np.void(b"abc")
        file["none"] = np.zeros((0, 3))
        file["null"] = h5py.Empty("f4")
        file["link"] = h5py.ExternalLink("other.h5", "/volume")
        file.create_dataset("huge", (1 << 30, 1 << 30), "i1", chunks=(1024, 1024), compression="gzip")
        file.create_dataset("outside", (64,), "u1", external=[(str(tmp_path / "secret"), 0, 64)])
        layout = h5py.VirtualLayout(VOLUME.shape, "i8")
        layout[...] = h5py.VirtualSource(tmp_path / "other.h5", "volume", VOLUME.shape)
        file.create_virtual_dataset("virtual", layout)

    found = made(tmp_path / "bad.h5", fill)
    refused = {"/table", "/reference", "/void", "/none", "/null", "/link", "/huge", "/outside", "/virtual"}
    assert set(found) == {"s::/good"} | refused
    assert all("another" in str(found[name]) or "file itself" in str(found[name]) for name in ("/link", "/outside"))


def test_links_in_a_circle_end(tmp_path):
    """Groups that hold one another are walked once; deep ones are refused."""

    def circle(file):
        file["a/v"] = VOLUME
        file["a/b/back"], file["a/soft"] = file["a"], h5py.SoftLink("/a")

    assert list(made(tmp_path / "c.h5", circle)) == ["s::/a/v"]
    file("deep.h5", lambda file: file.create_group("/".join("x" * 500))).make(tmp_path / "deep.h5")
    [error] = refusals(hdf5, tmp_path / "deep.h5")
    assert "groups deep" in error


def test_a_filter_that_is_not_there_is_named(tmp_path):
    """A dataset whose filter HDF5 lacks is refused with the filter's number."""
    file("f.h5", one(VOLUME, chunks=(1, 4, 5), compression="gzip")).make(tmp_path / "f.h5")
    data = (tmp_path / "f.h5").read_bytes()
    at = data.index(b"deflate") - 8
    (tmp_path / "f.h5").write_bytes(data[:at] + (32001).to_bytes(2, "little") + data[at + 2 :])
    [error] = refusals(hdf5, tmp_path / "f.h5")
    assert "filter 32001" in error
