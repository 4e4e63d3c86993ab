"""Zarr arrays: the contract, exact values and geometry beside zarr itself, sparse and broken stores, hostile ones."""

import json
import shutil

import numpy as np
import pytest
import zarr

from aunn_data.errors import InputError
from pipelines.scans import chunked, zarr_arrays
from tests.format_contract import Example, FormatContract, refusals, source_of

VOLUME = np.arange(60).reshape(3, 4, 5) * 5 - 100
HOLES = np.where(VOLUME % 15 == 0, np.nan, VOLUME)
AXES = [{"name": "z", "type": "space", "unit": "micrometer"}, {"name": "y"}, {"name": "x", "unit": "micrometer"}]


def array(values, **options):
    """Makes a store that is one array."""

    def make(path):
        made = zarr.create_array(path, shape=values.shape, dtype=values.dtype, **options)
        made[...] = values

    return make


def sparse(path, zarr_format=2, fill_value=None, dtype="<i2"):
    """4x4 of chunks 2x2, of which one alone, of ones, is stored."""
    made = zarr.create_array(
        path, shape=(4, 4), chunks=(2, 2), dtype=dtype, zarr_format=zarr_format, fill_value=fill_value
    )
    made[2:, :2] = np.ones((2, 2), dtype)


def image(path, zarr_format=3):
    """A group of an image of two scales, its labels, and an array beside them."""
    group = zarr.open_group(path, mode="w", zarr_format=zarr_format)
    scales = [
        {"path": f"s{level}", "coordinateTransformations": [{"type": "scale", "scale": [2.0 * (level + 1), 0.5, 1]}]}
        for level in range(2)
    ]
    changes = [{"type": "scale", "scale": [3, 1, 1]}, {"type": "translation", "translation": [1, 2, 3]}]
    scales = {"axes": AXES, "datasets": scales, "coordinateTransformations": changes}
    said = {"version": "0.5", "multiscales": [scales]}
    group.attrs.update({"ome": said} if zarr_format == 3 else said)
    group["s0"], group["s1"] = VOLUME.astype("<i2"), VOLUME[:, ::2, ::2].astype("<i2")
    labels = group.create_group("labels/nuclei")
    labels.attrs["multiscales"] = [{"axes": AXES, "datasets": [{"path": "0"}]}]
    labels["0"] = (VOLUME > 9).astype("u1")
    group["table/rows"] = np.arange(5.0)
    (path / "README.txt").write_text("made by hand\n")


def sharded(path):
    made = zarr.create_array(path, shape=(8, 6), dtype=">f4", chunks=(2, 2), shards=(4, 6), fill_value=np.nan)
    made[:3] = 1.5


EXAMPLES = [
    Example("three.zarr", zarr_arrays, array(VOLUME.astype("<i4"), chunks=(2, 3, 2))),
    Example("two.zarr", zarr_arrays, array(VOLUME.astype(">u2"), chunks=(2, 3, 2), zarr_format=2, order="F")),
    Example("holes.zarr", zarr_arrays, array(HOLES, chunks=(3, 4, 5), compressors=None)),
    Example("complex.zarr", zarr_arrays, array(HOLES * (1 + 2j), chunks=(2, 2, 5))),
    Example("sharded.zarr", zarr_arrays, sharded),
    Example("sparse.zarr", zarr_arrays, sparse),
    Example("scalar.zarr", zarr_arrays, array(np.float32(1.5).reshape(()))),
    Example("image.zarr", zarr_arrays, image, 3),
    Example("old_image.zarr", zarr_arrays, lambda path: image(path, 2), 3),
]
REAL = [
    Example("scans/zarr/simple_zarr_dataset_v2", zarr_arrays),
    Example("scans/zarr/zarr_java_ome_v0.4.zarr", zarr_arrays, records=2),
    Example("scans/zarr/zarr_java_ome_v0.5.zarr", zarr_arrays, records=2),
]


@pytest.mark.parametrize("example", EXAMPLES + REAL, ids=str)
class TestZarr(FormatContract): ...


def read(path, name="s"):
    """All that the reader gives, by record; errors by where they are."""
    found = list(zarr_arrays.read(source_of(path, name)))
    return {r.where if isinstance(r, InputError) else r.header.record: r for r in found}


@pytest.mark.parametrize(("version", "root"), [("v0.4", ".zattrs"), ("v0.5", "zarr.json")])
def test_an_ome_image_is_its_finest_scale_with_axes_and_steps(shared_data, version, root):
    """Values are zarr's own; axes, units and steps are those of the image; labels are a record; scale 1 is left out."""
    path = shared_data / f"scans/zarr/zarr_java_ome_{version}.zarr"
    found = read(path)
    assert list(found) == ["s", "s::labels/nuclei"]
    assert np.array_equal(np.asarray(found["s"].elements), zarr.open_array(path / "0", mode="r")[...])
    labels = zarr.open_array(path / "labels/nuclei/0", mode="r")[...]
    assert np.array_equal(np.asarray(found["s::labels/nuclei"].elements), labels)
    geometry = found["s"].header.geometry
    assert geometry.axes == ("t", "c", "z", "y", "x")
    assert geometry.spacing == (1, 1, 0.5, 0.5, 0.5)
    assert geometry.units == ("millisecond", "", "micrometer", "micrometer", "micrometer")
    assert found["s"].header.metadata["left_out"] == ["the lower scale 1"]
    assert found["s"].header.metadata["documents"][root] == json.loads((path / root).read_text())


def test_scales_of_a_dataset_and_of_its_image_multiply(tmp_path):
    """The steps are the product of both; other arrays of the store keep their own names and notes go along."""
    image(tmp_path / "i")
    found = read(tmp_path / "i")
    assert list(found) == ["s::labels/nuclei", "s", "s::table/rows"]
    assert found["s"].header.geometry.spacing == (6, 0.5, 1)
    assert found["s"].header.geometry.units == ("micrometer", "", "micrometer")
    assert found["s::labels/nuclei"].header.metadata["notes"] == {"README.txt": "made by hand\n"}
    shutil.rmtree(tmp_path / "i/s0")
    assert "s::s1" in read(tmp_path / "i")  # nothing is left out for a scale that is not there


def test_a_group_that_zarr_refuses_hides_no_array(shared_data):
    """A store whose group gives its version as a string goes in all the same."""
    path = shared_data / "scans/zarr/simple_zarr_dataset_v2"
    record = read(path)["s::color/1-1-1"]
    expected = zarr.open_array(path / "color/1-1-1", mode="r", zarr_format=2)[...]
    assert np.array_equal(np.asarray(record.elements), expected)


@pytest.mark.parametrize("big", [False, True])
def test_chunks_that_are_not_stored_are_missing_where_there_is_no_fill_value(tmp_path, monkeypatch, big):
    """Without a fill value they are missing, with one they are that; read at once or lazily."""
    monkeypatch.setattr(chunked, "AT_ONCE_BYTES", 0 if big else 1 << 25)
    sparse(tmp_path / "null")
    sparse(tmp_path / "nine", fill_value=9)
    sparse(tmp_path / "three", 3, 9)
    sparse(tmp_path / "nan", 3, np.nan, "<f4")
    stored = np.zeros((4, 4), bool)
    stored[2:, :2] = True
    for name in ("null", "nan"):
        record = read(tmp_path / name)["s"]
        assert np.array_equal(np.asarray(record.missing), ~stored)
        assert np.array_equal(np.asarray(record.elements)[stored], np.ones(4))
        assert record.header.geometry.place_values == (1,)
    for name in ("nine", "three"):
        record = read(tmp_path / name)["s"]
        assert record.missing is None
        assert np.array_equal(np.asarray(record.elements), np.where(stored, 1, 9))


def test_what_is_not_stored_is_never_read(tmp_path, monkeypatch):
    """A store that claims 2^36 elements of which two chunks exist is ready at once, and its empty regions are views."""
    made = zarr.create_array(tmp_path / "s", shape=(1 << 12, 1 << 12, 1 << 12), chunks=(64, 64, 64), dtype="i1")
    made[:64, :64, :64], made[-1, -1, -1] = 3, -5
    source = source_of(tmp_path / "s")
    monkeypatch.setattr(chunked, "FREE_BYTES", 1 << 36)
    [record] = zarr_arrays.read(source)
    assert record.header.geometry.offset == -5
    empty = record.elements[64:1024]
    assert empty.shape == (960, 1 << 12, 1 << 12)
    assert not any(empty.strides)
    assert record.elements[63:65, 63:65, 63:65].sum() == 3
    assert record.elements[-1, -2:, -2:].tolist() == [[0, 0], [0, -5]]


@pytest.mark.parametrize("big", [False, True])
def test_lazy_and_at_once_agree(tmp_path, monkeypatch, big):
    """Any box of any array is what zarr gives, whatever chunks are stored."""
    monkeypatch.setattr(chunked, "AT_ONCE_BYTES", 0 if big else 1 << 25)
    monkeypatch.setattr(chunked, "PIECE_BYTES", 64)
    monkeypatch.setattr(chunked, "PIECE_CHUNKS", 1)
    random = np.random.default_rng(5)
    made = zarr.create_array(tmp_path / "s", shape=(9, 10, 7), chunks=(2, 3, 4), dtype="<i4", fill_value=4)
    for _ in range(6):
        made[tuple(slice(k := int(random.integers(n)), k + 2) for n in made.shape)] = int(random.integers(1000))
    record, expected = read(tmp_path / "s")["s"], made[...]
    for _ in range(30):
        box = tuple(slice(*sorted(random.integers(0, n + 1, 2).tolist())) for n in made.shape)
        assert np.array_equal(record.elements[box], expected[box])
    assert record.header.geometry.offset == expected.min()


def test_the_fill_value_of_xarray_stands_for_missing_elements(tmp_path):
    """A _FillValue attribute, or a v2 fill value beside _ARRAY_DIMENSIONS, marks the elements equal to it."""
    values = np.array([[1, 2], [-1, 4]], "<i2")
    array(values, zarr_format=2, fill_value=-1, attributes={"_ARRAY_DIMENSIONS": ["lat", "lon"]})(tmp_path / "two")
    array(values, fill_value=0, attributes={"_FillValue": -1}, dimension_names=["lat", "lon"])(tmp_path / "three")
    array(values, fill_value=-1)(tmp_path / "plain")
    for name in ("two", "three"):
        record = read(tmp_path / name)["s"]
        assert np.asarray(record.missing).tolist() == [[False, False], [True, False]]
        assert record.header.geometry.axes == ("lat", "lon")
    assert read(tmp_path / "plain")["s"].missing is None


def test_chunks_in_folders_that_the_document_does_not_name_are_found(tmp_path):
    """Old stores nest their chunks without saying so; zarr alone reads nothing but fill values of them."""
    array(VOLUME, zarr_format=2, chunks=(2, 2, 2), chunk_key_encoding={"name": "v2", "separator": "/"})(tmp_path / "s")
    document = json.loads((tmp_path / "s/.zarray").read_text())
    del document["dimension_separator"]
    (tmp_path / "s/.zarray").write_text(json.dumps(document))
    record = read(tmp_path / "s")["s"]
    assert np.array_equal(np.asarray(record.elements), VOLUME)
    zarr_arrays.write([record], tmp_path / "out")
    assert np.array_equal(np.asarray(read(tmp_path / "out")["s"].elements), VOLUME)


def test_a_file_that_belongs_to_no_array_is_reported(tmp_path):
    """What is no chunk, no document and no short text is not lost in silence."""
    array(VOLUME)(tmp_path / "s")
    (tmp_path / "s/c/scan.bin").write_bytes(bytes(range(200, 256)))
    found = read(tmp_path / "s")
    assert len(found) == 2
    assert str(found[f"{tmp_path}/s::c/scan.bin"]).count("belongs to none") == 1


def spoilt(path, **changes):
    """Changes the document of an array."""
    document = json.loads((path / "zarr.json").read_text())
    (path / "zarr.json").write_text(json.dumps({**document, **changes}))


@pytest.mark.parametrize(
    "changes",
    [
        {"shape": [1 << 40, 1 << 40, 5]},
        {"shape": [1 << 20, 1 << 17, 1]},
        {"shape": [0, 4, 5]},
        {"shape": [-3, 4, 5]},
        {"shape": "three"},
        {"data_type": "string"},
        {"data_type": "int128"},
        {"codecs": [{"name": "bytes", "configuration": {"endian": "little"}}, {"name": "unheard_of"}]},
        {"chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [0, 1, 1]}}},
        {"chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [3, 4]}}},
        {"fill_value": "much"},
    ],
    ids=str,
)
def test_a_hostile_document_refuses_its_array_alone(tmp_path, changes):
    """Claims of petabytes, no elements, unknown types and codecs: one InputError, and the array beside it goes in."""
    for name in ("bad", "good"):
        array(VOLUME)(tmp_path / "s" / name)
    spoilt(tmp_path / "s/bad", **changes)
    (tmp_path / "s/zarr.json").write_text('{"zarr_format": 3, "node_type": "group"}')
    found = read(tmp_path / "s")
    assert sorted(found) == [f"{tmp_path}/s::bad", "s::good"]


@pytest.mark.parametrize("zarr_format", [2, 3])
@pytest.mark.parametrize("codec", ["gzip", "zstd", "blosc"])
def test_a_chunk_that_becomes_far_more_than_a_chunk_is_refused(tmp_path, codec, zarr_format):
    """A bomb in the place of a chunk is stopped by the array's own chunk size."""
    import numcodecs
    from zarr import codecs

    old = {"gzip": numcodecs.GZip(), "zstd": numcodecs.Zstd(), "blosc": numcodecs.Blosc()}[codec]
    new = {"gzip": codecs.GzipCodec(), "zstd": codecs.ZstdCodec(), "blosc": codecs.BloscCodec()}[codec]
    array(VOLUME.astype("i1"), chunks=(3, 4, 5), compressors=new if zarr_format == 3 else old, zarr_format=zarr_format)(
        tmp_path / "s"
    )
    assert np.array_equal(np.asarray(read(tmp_path / "s")["s"].elements), VOLUME.astype("i1"))
    [chunk] = [p for p in (tmp_path / "s").rglob("*") if p.is_file() and p.name[0] == "0"]
    chunk.write_bytes(old.encode(np.zeros(1 << 24, np.uint8)))
    [error] = refusals(zarr_arrays, tmp_path / "s")
    assert "chunks that its codecs decode" in error
    whole = old.encode(VOLUME.astype("i1"))
    chunk.write_bytes(bytes(whole[:-3]))
    assert len(refusals(zarr_arrays, tmp_path / "s")) == 1
