"""HDF5: the contract, what goes in of all that a file may hold, what is refused, hostile files."""

import h5py
import numpy as np
import pytest

from pipelines.scans import hdf5
from tests.format_contract import Example, FormatContract

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
    made["again"], made["soft"] = data, h5py.SoftLink("/entry/data")


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
