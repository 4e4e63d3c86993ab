"""HEIC and AVIF: depth kept, what stands beside kept, a clear word where the extra is not installed."""

import io
import sys

import imagecodecs
import numpy as np
import pytest
from PIL import Image

from aunn_data.errors import InputError
from pipelines.images import heif
from tests.format_contract import Example, FormatContract, records_of, refusals

RAMP = (np.arange(32 * 48 * 3).reshape(32, 48, 3) * 7) % 1024
GREY = Image.fromarray((RAMP[..., 0] // 4).astype(np.uint8))
EXIF = Image.Exif()
EXIF[0x0112] = 6


def avif(bits):
    samples = (RAMP * (4 if bits == 12 else 1) // (4 if bits == 8 else 1)).astype(np.uint8 if bits == 8 else np.uint16)
    return samples, imagecodecs.avif_encode(samples, level=100, bitspersample=bits)


def heic(mode, values, **options):
    pillow_heif = pytest.importorskip("pillow_heif")
    made = pillow_heif.from_bytes(mode=mode, size=(values.shape[1], values.shape[0]), data=values.tobytes())
    out = io.BytesIO()
    made.save(out, quality=-1, chroma=444, matrix_coefficients=0, **options)
    return out.getvalue()


def raw(name, data, records=1, checked=True):
    return Example(name, heif, lambda path: path.write_bytes(data()), records, faithful=False, checked=checked)


def with_exif():
    out = io.BytesIO()
    Image.fromarray((RAMP // 4).astype(np.uint8)).save(out, "AVIF", exif=EXIF, icc_profile=b"profile")
    return out.getvalue()


def moving():
    out = io.BytesIO()
    GREY.convert("RGB").save(out, "AVIF", save_all=True, append_images=[GREY.rotate(180).convert("RGB")], duration=40)
    return out.getvalue()


EXAMPLES = [
    raw("ten.avif", lambda: avif(10)[1]),
    raw("turned.avif", with_exif),
    raw("moving.avif", moving, records=2, checked=False),
    raw("photo.heic", lambda: heic("RGB", (RAMP // 4).astype(np.uint8), exif=EXIF.tobytes())),
]


@pytest.mark.parametrize("example", EXAMPLES, ids=str)
class TestHeif(FormatContract):
    """The contract over AVIF and HEIC."""


@pytest.mark.parametrize("bits", [8, 10, 12])
def test_avif_keeps_its_depth(tmp_path, bits):
    """Samples of 8, 10 and 12 bits come as they went in, not stretched."""
    samples, data = avif(bits)
    (tmp_path / "a.avif").write_bytes(data)
    (record,) = records_of(heif, tmp_path / "a.avif")
    assert np.array_equal(record.elements, np.moveaxis(samples, -1, 0))
    assert record.header.metadata.get("bits", 8) == bits


@pytest.mark.parametrize("bits", [8, 10, 12])
def test_heic_keeps_its_depth(tmp_path, bits):
    """Samples of 8, 10 and 12 bits of a lossless HEIC come as they went in, not stretched."""
    scale = {8: 4, 10: 1, 12: 1}[bits]
    values = (RAMP // scale * (4 if bits == 12 else 1)).astype(np.uint8 if bits == 8 else np.uint16)
    (tmp_path / "a.heic").write_bytes(heic("RGB" if bits == 8 else f"RGB;{bits}", values))
    (record,) = records_of(heif, tmp_path / "a.heic")
    assert record.header.metadata.get("bits", 8) == bits
    assert np.array_equal(record.elements, np.moveaxis(values, -1, 0))


def test_without_the_extra_it_says_what_to_install(tmp_path, monkeypatch):
    """With no pillow-heif a HEIC is refused with the command that helps."""
    (tmp_path / "a.heic").write_bytes(heic("RGB", (RAMP // 4).astype(np.uint8)))
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    with pytest.raises(InputError, match=r"pip install 'aunn\[heif\]'"):
        records_of(heif, tmp_path / "a.heic")


def test_a_video_is_none(tmp_path):
    """An MP4 has the same first box with other brands."""
    assert not heif.sniff(b"\0\0\0\x18ftypisom\0\0\2\0isomiso2", tmp_path)
    assert heif.sniff(b"\0\0\0\x18ftypmif1\0\0\0\0mif1heic", tmp_path)


def test_garbage_behind_the_first_box_is_refused(tmp_path):
    """Only the brand is right."""
    for brand in (b"heic", b"avif"):
        (tmp_path / "a").write_bytes(b"\0\0\0\x18ftyp" + brand + b"\0\0\0\0mif1" + brand + b"x" * 999)
        assert len(refusals(heif, tmp_path / "a")) == 1
