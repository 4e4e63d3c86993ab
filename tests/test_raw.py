"""Raw numbers with a JSON note: ours, Vesuvius', vtk.js'."""

import gzip
import json

import numpy as np
import pytest

from pipelines import formats
from pipelines.scans import raw, vtkjs
from tests.format_contract import Example, FormatContract, records_of, refusals, source_of

VOLUME = np.arange(4 * 5 * 6).reshape(4, 5, 6)


def noted(path, values, before=b"", name="x.raw", **note):
    """A folder with numbers and our note."""
    path.mkdir()
    said = {"dtype": values.dtype.str, "shape": list(values.shape), **note}
    (path / name).write_bytes(before + values.tobytes())
    (path / f"{name}.json").write_text(json.dumps(said))


def vesuvius(path, values, **more):
    path.mkdir()
    slices, height, width = values.shape
    meta = {"slices": slices, "height": height, "width": width, "voxelsize": 3.24, "type": "vol", **more}
    (path / "scan.raw").write_bytes(values.tobytes())
    (path / "meta.json").write_text(json.dumps(meta))


def index(values, type="Int16Array", components=1, **data):
    """An index of vtk.js with one array."""
    extent = [end for size in values.shape[2::-1] for end in (0, size - 1)]
    reference = {"encode": "LittleEndian", "basepath": "data", "id": "abc"}
    told = {"numberOfComponents": components, "name": "a", "dataType": type, "size": values.size, "ref": reference}
    arrays = [{"data": {**told, **data}}]
    return {"vtkClass": "vtkImageData", "extent": extent, "spacing": [1, 2, 2.5], "pointData": {"arrays": arrays}}


def vtk(path, values, **data):
    (path / "data").mkdir(parents=True)
    (path / "data" / "abc.gz").write_bytes(gzip.compress(values.tobytes()))
    (path / "index.json").write_text(json.dumps(index(values, **data)))


NOISE = np.random.default_rng(0).integers(-9999, 9999, (5, 9, 11, 3), "<i2")
EXAMPLES = [
    Example("ours", raw, lambda p: noted(p, VOLUME.astype(">u2"), spacing=[3, 2, 1], units=["mm"] * 3, extra="kept")),
    Example("fortran", raw, lambda p: noted(p, VOLUME.astype("<f4"), b"before", order="F", offset=6, fill=7.0)),
    Example("channels", raw, lambda p: noted(p, VOLUME.astype("|i1"), axes=["y", "x", "channel"], name="a.b")),
    Example("vesuvius", raw, lambda p: vesuvius(p, VOLUME.astype("|u1"))),
    Example("deep", raw, lambda p: vesuvius(p, VOLUME.astype("<u2"), dtype="<u2")),
    Example("vtk", vtkjs, lambda p: vtk(p, NOISE[..., 0])),
    Example("vectors", vtkjs, lambda p: vtk(p, NOISE, components=3)),
]


@pytest.mark.parametrize("example", EXAMPLES, ids=str)
class TestRaw(FormatContract):
    """The contract over all of them."""


def test_fortran_order_reverses_shape_axes_and_spacing(tmp_path):
    """What runs fastest in the file is the last axis, as everywhere; the bytes are not moved."""
    values = VOLUME.astype("<i4")
    noted(tmp_path / "a", values.T, axes=["x", "y", "z"], order="F", spacing=[1, 2, 3], units=["a", "b", "c"])
    (tmp_path / "a" / "x.raw").write_bytes(values.tobytes())
    (record,) = records_of(raw, tmp_path / "a")
    geometry = record.header.geometry
    assert (geometry.axes, geometry.spacing, geometry.units) == (("z", "y", "x"), (3.0, 2.0, 1.0), ("c", "b", "a"))
    assert np.array_equal(record.elements, values)


def test_channels_come_first_and_fill_is_missing(tmp_path):
    """Spacing goes with the axis; what equals the fill value is marked."""
    noted(tmp_path / "a", VOLUME.astype("<i2"), axes=["y", "x", "channel"], spacing=[1, 2, 3], fill=7)
    (record,) = records_of(raw, tmp_path / "a")
    assert record.header.geometry.axes == ("channel", "y", "x")
    assert record.header.geometry.spacing == (3.0, 1.0, 2.0)
    assert np.array_equal(record.elements, np.moveaxis(VOLUME, -1, 0))
    assert np.array_equal(record.missing, np.moveaxis(VOLUME == 7, -1, 0))


def test_a_compressed_raw_file_beside_others(tmp_path):
    """The note names the file as it is called uncompressed; other files go in by themselves."""
    noted(tmp_path / "a", VOLUME.astype("<i2"))
    (tmp_path / "a" / "x.raw.gz").write_bytes(gzip.compress((tmp_path / "a" / "x.raw").read_bytes()))
    (tmp_path / "a" / "x.raw").unlink()
    (tmp_path / "a" / "notes.txt").write_text("a note")
    source = source_of(tmp_path / "a" / "x.raw.gz")
    assert formats.recognise(source) is raw
    (record,) = raw.read(source)
    assert np.array_equal(record.elements, VOLUME)


@pytest.mark.parametrize(
    "note",
    [
        {"shape": [4, 5, 7]},  # longer than the file
        {"shape": [4, 5, 5]},  # shorter
        {"shape": [1 << 20, 1 << 20, 1 << 20]},
        {"shape": [4, 5, -6]},
        {"shape": [4, 5, "6"]},
        {"shape": []},
        {"dtype": "O"},
        {"dtype": "<u2,<u2"},
        {"dtype": {"a": 1}},
        {"dtype": "V8"},
        {"axes": ["z", "z", "x"]},
        {"order": "A"},
        {"offset": 1},
        {"offset": -1},
        {"spacing": [1, 2]},
        {"spacing": [1, 2, "3"]},
        {"units": ["mm"]},
        {"fill": "none"},
    ],
)
def test_a_note_that_does_not_fit_is_refused(tmp_path, note):
    """Sizes must match exactly, and every word must be one that the format knows."""
    noted(tmp_path / "a", VOLUME.astype("<u2"), **note)
    assert len(refusals(raw, tmp_path / "a")) == 1


def test_vesuvius_without_a_type_is_bytes_or_refused(tmp_path):
    """Two bytes a voxel may be signed or not, either way round: nobody guesses."""
    vesuvius(tmp_path / "bytes", VOLUME.astype("|u1"))
    (record,) = records_of(raw, tmp_path / "bytes")
    assert record.header.geometry.spacing == (3.24,) * 3
    vesuvius(tmp_path / "words", VOLUME.astype("<u2"))
    [error] = refusals(raw, tmp_path / "words")
    assert "no dtype" in error


@pytest.mark.parametrize(
    "data",
    [
        {"size": 7},
        {"type": "Int32Array"},
        {"type": "StringArray"},
        {"components": 0},
        {"components": -3},
        {"ref": {"encode": "JSON", "basepath": "data", "id": "abc"}},
        {"ref": {"basepath": "..", "id": "secret"}},
        {"ref": {"basepath": "/etc", "id": "passwd"}},
        {"ref": {"basepath": "data", "id": "absent"}},
        {"ref": None},
    ],
)
def test_an_index_that_does_not_fit_is_refused(tmp_path, data):
    """Sizes, types, and files that are not there or lie elsewhere."""
    vtk(tmp_path / "a", VOLUME.astype("<i2"), **data)
    assert len(refusals(vtkjs, tmp_path / "a")) == 1


def test_the_real_image_of_vtk_js(shared_data, tmp_path):
    """Its numbers as they lie there, its spacing slowest first; written again it is the same."""
    folder = shared_data / "scans/raw_json/LIDC2.vti"
    (record,) = records_of(vtkjs, folder)
    assert record.header.geometry.shape == (133, 256, 256)
    assert record.header.geometry.spacing == (2.5, 1.40625, 1.40625)
    [file] = (folder / "data").iterdir()
    assert np.asarray(record.elements).tobytes() == gzip.decompress(file.read_bytes())
    written = vtkjs.write([record], tmp_path / "out")
    assert (written / "index.json").read_bytes() == (folder / "index.json").read_bytes()
    assert np.array_equal(records_of(vtkjs, written)[0].elements, record.elements)
