"""JPEG 2000, JPEG XL, QOI and deep JPEG: full depth, what stands beside, damage."""

import io
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
from PIL import Image

from pipelines.images import coded, pillow
from tests.format_contract import Example, FormatContract, records_of, refusals, source_of

DEEP = (np.arange(24 * 32 * 3).reshape(24, 32, 3) * 37 % 4096).astype(np.uint16)
BYTES = (DEEP >> 4).astype(np.uint8)


def jpeg2000():
    return bytes(imagecodecs.jpeg2k_encode(DEEP, level=0, bitspersample=12, codecformat="jp2"))


def lossless():
    return bytes(imagecodecs.jpeg8_encode(DEEP, bitspersample=12, lossless=True))


def example(name, data):
    return Example(name, coded, lambda path: path.write_bytes(data()), faithful=False)


EXAMPLES = [
    example("twelve.jp2", jpeg2000),
    example("grey.j2k", lambda: bytes(imagecodecs.jpeg2k_encode(BYTES[..., 0], level=0, codecformat="j2k"))),
    example("deep.jxl", lambda: bytes(imagecodecs.jpegxl_encode(DEEP, lossless=True))),
    example("some.qoi", lambda: bytes(imagecodecs.qoi_encode(BYTES))),
    example("lossless.jpg", lossless),
]


@pytest.mark.parametrize("example", EXAMPLES, ids=str)
class TestCoded(FormatContract):
    """The contract over all of them."""


@pytest.mark.parametrize(("name", "expected"), [("twelve.jp2", DEEP), ("deep.jxl", DEEP), ("some.qoi", BYTES)])
def test_samples_are_those_that_went_in(tmp_path, name, expected):
    """Lossless files of 8 and 12 bits have the very numbers that were put in."""
    next(each for each in EXAMPLES if each.name == name).make(tmp_path / name)
    (record,) = records_of(coded, tmp_path / name)
    assert np.array_equal(record.elements, np.moveaxis(expected, -1, 0))
    assert record.header.metadata.get("bits") == (12 if name == "twelve.jp2" else None)


def test_lossless_and_twelve_bit_jpegs_keep_their_depth(tmp_path):
    """What Pillow does not read, or would cut, comes as the decoder gives it."""
    for name, data in (("a.jpg", lossless()), ("b.jpg", bytes(imagecodecs.jpeg8_encode(DEEP, bitspersample=12)))):
        (tmp_path / name).write_bytes(data)
        (record,) = records_of(coded, tmp_path / name)
        assert np.array_equal(record.elements, np.moveaxis(imagecodecs.jpeg8_decode(data), -1, 0))
        assert record.header.metadata["bits"] == 12


def test_a_deep_jpeg_behind_a_long_profile_is_found(tmp_path):
    """Where the frame stands behind 5 KB of other segments, the reader still sees that it has 12 bits."""
    data = lossless()
    (tmp_path / "a.jpg").write_bytes(data[:2] + b"\xff\xe2" + (5002).to_bytes(2) + bytes(5000) + data[2:])
    (record,) = pillow.read(source_of(tmp_path / "a.jpg"))
    assert np.array_equal(record.elements, np.moveaxis(imagecodecs.jpeg8_decode(data), -1, 0))


def test_a_common_jpeg_stays_with_pillow(tmp_path):
    """8 bits with a DCT, also progressive, are not ours."""
    for options in ({}, {"progressive": True}):
        out = io.BytesIO()
        Image.fromarray(BYTES).save(out, "JPEG", **options)
        assert not coded.sniff(out.getvalue()[:4096], Path("a"))
        assert pillow.sniff(out.getvalue()[:4096], Path("a"))


def test_boxes_are_kept(tmp_path):
    """What a JP2 says beside its pixels is in the metadata."""
    (tmp_path / "a.jp2").write_bytes(jpeg2000() + b"\0\0\0\x0cxml <a/>")
    (record,) = records_of(coded, tmp_path / "a.jp2")
    assert [kind for kind, _ in record.header.metadata["boxes"]] == ["jp2h", "xml "]


@pytest.mark.parametrize("name", ["twelve.jp2", "deep.jxl", "some.qoi"])
def test_a_header_that_claims_too_much_is_refused(tmp_path, name):
    """Two thousand million pixels in a small file are refused before they are unpacked."""
    next(each for each in EXAMPLES if each.name == name).make(tmp_path / name)
    data = bytearray((tmp_path / name).read_bytes())
    if name == "some.qoi":
        data[4:12] = b"\0\1\0\0\0\1\0\0"
    elif name == "twelve.jp2":
        at = data.index(b"\xff\x4f\xff\x51") + 8
        data[at : at + 8] = b"\0\1\0\0\0\1\0\0"
    else:
        at = data.index(b"\xff\x0a") + 2
        data[at : at + 9] = b"\xfe" * 9
    (tmp_path / name).write_bytes(data)
    (error,) = refusals(coded, tmp_path / name)
    assert "bytes from each compressed one" in error
