"""Netpbm pictures of every kind and depth, raw and plain, one or several in a file."""

import numpy as np
import pytest
from PIL import Image

from pipelines.images import pnm
from tests.format_contract import Example, FormatContract, records_of, refusals

GREY = (np.add.outer(np.arange(6), np.arange(13)) * 7).astype(np.uint8)
FLOATS = np.where(GREY == 14, np.nan, GREY / 7)


def raw(name, data, records=1, checked=True):
    return Example(name, pnm, lambda path: path.write_bytes(data), records, checked=checked)


PAM = b"P7\nWIDTH 13\nHEIGHT 6\n# four\nDEPTH 5\nMAXVAL 1023\nTUPLTYPE BANDS\nENDHDR\n"
EXAMPLES = [
    raw("bitmap.pbm", b"P4\n# made\n13 6\n" + np.packbits(GREY > 40, axis=1).tobytes()),
    raw("plain.pbm", b"P1 3 2 10 1\n# x\n011", checked=False),
    raw("plain.ppm", b"P3 2 1 700\n1 2 3 # a\n4 5 699\n", checked=False),
    raw("ten.pgm", b"P5 13 6 1023\n" + GREY.astype(">u2").tobytes()),
    raw("fifteen.ppm", b"P6\n# four bits\n13 6 15\n" + (GREY % 16).repeat(3).tobytes()),
    raw("deep.ppm", b"P6 13 6 65535\n" + (GREY.astype("u2") * 300).repeat(3).astype(">u2").tobytes()),
    raw("bands.pam", PAM + GREY.repeat(5).astype(">u2").tobytes()),
    raw("map.pfm", b"Pf\n13 6\n-2.5\n" + FLOATS.astype("<f4").tobytes()),
    raw("colour.pfm", b"PF\n13 6\n1.0\n" + GREY.repeat(3).astype(">f4").tobytes()),
    raw("two.pgm", (b"P5 13 6 255\n" + GREY.tobytes()) * 2, records=2, checked=False),
]


# Pillow stretches or cuts the samples of these, or does not know them.
ALTERED = ("plain.ppm", "ten.pgm", "fifteen.ppm", "deep.ppm", "bands.pam", "colour.pfm")


@pytest.mark.parametrize("example", EXAMPLES, ids=str)
class TestPnm(FormatContract):
    """The contract over all kinds."""


@pytest.mark.parametrize("example", [e for e in EXAMPLES if e.name not in ALTERED], ids=str)
def test_pillow_shows_the_same(tmp_path, example):
    """What Pillow reads of a file without cutting or stretching is what we read."""
    example.make(tmp_path / example.name)
    with Image.open(tmp_path / example.name) as picture:
        shown = np.asarray(picture)
    shown = np.moveaxis(shown, -1, 0) if shown.ndim == 3 else shown
    assert np.array_equal(
        records_of(pnm, tmp_path / example.name)[0].elements, shown, equal_nan=shown.dtype.kind == "f"
    )


def test_samples_are_the_files_own(tmp_path):
    """16-bit colour and five channels of ten bits have the very numbers that were put in."""
    for name, channels, step in (("deep.ppm", 3, 300), ("bands.pam", 5, 1)):
        next(example for example in EXAMPLES if example.name == name).make(tmp_path / name)
        (record,) = records_of(pnm, tmp_path / name)
        assert np.array_equal(record.elements, np.stack([GREY.astype("u2") * step] * channels))
        assert record.elements.dtype.str == ">u2"


def test_a_real_sixteen_bit_pgm(shared_data):
    """A real file is two bytes a sample, as its header says."""
    path = shared_data / "images/pillow/hopper_16bit.pgm"
    (record,) = records_of(pnm, path)
    assert record.elements.tobytes() == path.read_bytes()[-2 * 128 * 128 :]


@pytest.mark.parametrize(
    "data",
    [
        b"P5 99999 99999 255\n" + bytes(50),
        b"P6 2 2 70000\n" + bytes(24),
        b"P2 2 1 9\n1 10\n",
        b"P2 2 1 9\n1 2 3\n",
        b"P1 2 2 0 1 2 0",
        b"P4 0 5\n" + bytes(9),
        b"Pf 2 1 0\n" + bytes(8),
        b"P7\nWIDTH 2\nENDHDR\n" + bytes(8),
        b"P5 2 1 255\nabP5 2 2 255\nabc",
    ],
)
def test_what_does_not_add_up_is_refused(tmp_path, data):
    """Too few bytes, samples above the largest, other digits, sizes of zero, a second picture that is cut."""
    (tmp_path / "a.pnm").write_bytes(data)
    assert len(refusals(pnm, tmp_path / "a.pnm")) == 1


def test_what_only_begins_like_a_picture_is_none():
    """P5 may begin a letter: what follows decides."""
    for line in (b"P5 and other screws", b"P1 2 3 people came", b"P6 12 13 and more", b"Pf 1 2 x", b"P7 is a paper"):
        assert not pnm.sniff(line, None)
