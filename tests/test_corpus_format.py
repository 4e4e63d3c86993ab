"""docs/corpus-format.md is enough: a reader written from it alone, without our packages, reads what we wrote."""

import json
import math
import re

import numpy as np
import zarr
from deltalake import DeltaTable
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from aunn_data.corpus import Corpus
from tests.corpora import append, text, volume

PREAMBLE = re.compile(rb"AUNN1 header=(\d{10}) payload=(\d{19}) extent=(\d{19}) next=(\d{19})\n")


def bits(n):
    b = 0
    while 2**b < n:
        b += 1
    return b


def offset(geometry, index):
    """Part 6.2, one element at a time."""
    shape, layout = geometry["shape"], geometry["layout"]
    if layout == "packed":
        return sum(i * math.prod(shape[k + 1 :]) for k, i in enumerate(index))
    if layout == "padded":
        return sum(i * math.prod(2 ** bits(n) for n in shape[k + 1 :]) for k, i in enumerate(index))
    position, out, turn = 0, 0, 0
    while any(turn < bits(n) for n in shape):
        for k in reversed(range(len(shape))):
            if turn < bits(shape[k]):
                out |= (index[k] >> turn & 1) << position
                position += 1
        turn += 1
    return out


def element(geometry, digits, missing):
    """Part 6.1, backwards."""
    dtype = np.dtype(geometry["dtype"])
    integer = geometry.get("offset", 0)
    integer += sum(d * w for d, w in zip(digits, geometry.get("place_values", [1]), strict=True))
    if missing and geometry.get("missing_value") is not None:
        integer = geometry["missing_value"]
    if dtype.kind in "bui":
        return np.array(integer, dtype)
    width = dtype.itemsize * 8
    pattern = integer ^ (1 << width - 1) if integer >> width - 1 else integer ^ ((1 << width) - 1)
    return np.array(pattern, f"<u{dtype.itemsize}").view(f"<f{dtype.itemsize}").astype(dtype)


def read_all(path):
    """{record: elements} and the headers, from Zarr and Delta alone."""
    group = zarr.open_group(path, mode="r")
    assert group.attrs["format"] == "aunn-corpus"
    assert group.attrs["format_version"] == 2
    out = {}
    for row in DeltaTable(str(path / "registry" / "records")).to_pyarrow_table().to_pylist():
        data = group["bytes"][row["header_start"] : row["header_start"] + row["header_bytes"]].tobytes()
        header, payload, extent, _ = map(int, PREAMBLE.match(data).groups())
        assert (header, payload, payload + extent) == (row["header_bytes"], row["payload_start"], row["payload_stop"])
        said = json.loads(data[104:])
        geometry = said["geometry"]
        assert geometry == json.loads(row["geometry"])
        planes = len(geometry.get("place_values", [1]))
        if geometry["layout"] == "packed":
            plane_extent, whole = math.prod(geometry["shape"]), planes * math.prod(geometry["shape"])
        else:
            plane_extent = 2 ** sum(map(bits, geometry["shape"]))
            whole = plane_extent * 2 ** bits(planes)
        assert whole == extent
        stored, marks = group["bytes"][payload : payload + extent], group["missing"][payload : payload + extent]
        values = np.empty(geometry["shape"], geometry["dtype"])
        for index in np.ndindex(*geometry["shape"]):
            at = offset(geometry, index)
            digits = [int(stored[p * plane_extent + at]) for p in range(planes)]
            values[index] = element(geometry, digits, bool(marks[at]))
        out[said["record"]] = values
    return out


@given(
    st.sampled_from(["|u1", "|b1", "|i1", "<i2", ">u2", "<i4", "<u8", ">f4", "<f8"]).flatmap(
        lambda dtype: hnp.arrays(np.dtype(dtype), hnp.array_shapes(min_dims=2, max_dims=4, max_side=6))
    ),
    st.sampled_from(["padded", "packed", "morton"]),
    st.data(),
)
@settings(deadline=None, max_examples=25)
def test_a_reader_written_from_the_document_reads_every_value(tmp_path_factory, elements, layout, data):
    """Any dtype, layout and marks: the second implementation finds the very bits that we stored."""
    path = tmp_path_factory.mktemp("second") / "corpus"
    missing = data.draw(st.none() | hnp.arrays(np.bool_, elements.shape))
    append(Corpus.create(path, 30), volume("a.npy", elements, layout, missing), text("b.txt", b"plain words"))
    found = read_all(path)
    assert found["a.npy"].tobytes() == elements.tobytes()
    assert found["b.txt"].tobytes() == b"plain words"
