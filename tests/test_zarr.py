"""Zarr arrays: the contract, exact values and geometry beside zarr itself, sparse and broken stores, hostile ones."""

import json
import shutil

import numpy as np
import pytest
import zarr

from aunn_data.errors import InputError
from pipelines.scans import chunked, zarr_arrays
from pipelines.walk import walk
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
