"""idx stacks: digits, labels, what a hostile header may claim."""

import gzip
import struct
import time
from dataclasses import replace

import numpy as np
import pytest

from aunn_data.errors import InputError
from pipelines.images import idx
from pipelines.options import Limits, Options
from pipelines.records import each
from pipelines.walk import walk
from tests.format_contract import Example, FormatContract, records_of, refusals, source_of

IMAGES, LABELS = "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"
DIGITS = np.arange(60).reshape(3, 4, 5)
HOLES = np.where(DIGITS == 30, np.nan, DIGITS / 7)


def idx_bytes(array):
    head = struct.pack(f">HBB{array.ndim}I", 0, idx.CODES[array.dtype.str], array.ndim, *array.shape)
    return head + array.tobytes()


def stack(name, array, records=1):
    return Example(name, idx, lambda path: path.write_bytes(idx_bytes(array)), records)


EXAMPLES = [
    stack(IMAGES, DIGITS.astype("|u1"), 3),
    stack(LABELS, DIGITS[0, 0].astype("|u1")),
    stack("signed.idx", DIGITS.astype("|i1"), 3),
    stack("short.idx", (DIGITS * 99).astype(">i2"), 3),
    stack("table.idx", (DIGITS[0] * 9999).astype(">i4")),
    stack("holes.idx", HOLES.astype(">f4"), 3),
    stack("double.idx", DIGITS.astype(">f8").reshape(1, 1, 3, 4, 5), 1),
]


@pytest.mark.parametrize("example", EXAMPLES, ids=str)
class TestIdx(FormatContract):
    """The contract over stacks of every type."""


def test_digits_are_the_bytes_of_the_file(shared_data):
    """10,000 real digits come in well under a second, equal to the file's own bytes, in one geometry, with labels."""
    path = shared_data / f"images/mnist/{IMAGES}.gz"
    start = time.perf_counter()
    records = records_of(idx, path)
    assert time.perf_counter() - start < 1
    raw = gzip.decompress(path.read_bytes())
    assert np.stack([record.elements for record in records]).tobytes() == raw[16:]
    assert {record.header.geometry.shape for record in records} == {(28, 28)}
    assert len({id(record.header.geometry) for record in records}) == 1
    labels = gzip.decompress(path.with_name(f"{LABELS}.gz").read_bytes())[8:]
    assert [record.header.metadata["label"] for record in records] == list(labels)
    (own,) = records_of(idx, path.with_name(f"{LABELS}.gz"))
    assert own.elements.tobytes() == labels
    assert own.header.geometry.axes == ("item",)


def test_images_and_labels_are_two_sources(tmp_path):
    """A walk gives the images with their labels, and the labels; the hash of the images covers the labels."""
    (tmp_path / IMAGES).write_bytes(idx_bytes(DIGITS.astype("|u1")))
    (tmp_path / LABELS).write_bytes(idx_bytes(np.array([7, 0, 9], "|u1")))
    images, labels = walk([tmp_path], "")
    assert (images.name, labels.name) == (IMAGES, LABELS)
    before = images.sha256
    assert [record.header.metadata for record in each(idx.read(images))] == [{"label": 7}, {"label": 0}, {"label": 9}]
    (tmp_path / LABELS).write_bytes(idx_bytes(np.array([7, 0, 8], "|u1")))
    assert next(walk([tmp_path], "")).sha256 != before


@pytest.mark.parametrize(
    "labels", [idx_bytes(np.zeros(2, "|u1")), idx_bytes(np.zeros(3, ">f4")), b"cut", idx_bytes(np.zeros(3, "|u1"))[:-1]]
)
def test_labels_that_do_not_fit_are_left_alone(tmp_path, labels):
    """Labels of another number or type, or damaged ones, do not stop the images and are not told as theirs."""
    (tmp_path / IMAGES).write_bytes(idx_bytes(DIGITS.astype("|u1")))
    (tmp_path / LABELS).write_bytes(labels)
    assert [record.header.metadata for record in records_of(idx, tmp_path / IMAGES)] == [{}, {}, {}]


def test_several_labels_an_item_are_a_list(tmp_path):
    """QMNIST has eight numbers for each digit."""
    (tmp_path / "qmnist-test-images-idx3-ubyte").write_bytes(idx_bytes(DIGITS.astype("|u1")))
    (tmp_path / "qmnist-test-labels-idx2-int").write_bytes(idx_bytes(DIGITS[:, 0].astype(">i4")))
    records = records_of(idx, tmp_path / "qmnist-test-images-idx3-ubyte")
    assert records[1].header.metadata == {"label": [20, 21, 22, 23, 24]}


def test_a_wrong_length_is_refused(tmp_path):
    """A header that claims petabytes, a byte too few and a byte too many are refused before anything is allocated."""
    whole = idx_bytes(DIGITS.astype("|u1"))
    for data in (struct.pack(">HBB3I", 0, 8, 3, *[2**32 - 1] * 3) + bytes(99), whole[:-1], whole + b"x"):
        (tmp_path / "a").write_bytes(data)
        (error,) = refusals(idx, tmp_path / "a")
        assert "bytes for shape" in error


def test_the_limit_of_elements_holds_for_an_item(tmp_path):
    """An item of more elements than the limit is refused."""
    (tmp_path / "a").write_bytes(idx_bytes(DIGITS.astype("|u1")))
    with pytest.raises(InputError, match="at most 19"):
        list(idx.read(replace(source_of(tmp_path / "a"), options=Options(limits=Limits(max_elements=19)))))
