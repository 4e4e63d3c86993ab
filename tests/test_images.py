"""What the image reader keeps, undoes and refuses."""

import base64
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from aunn_data.errors import InputError
from aunn_data.geometry import Geometry
from aunn_data.header import Header
from aunn_data.record import Record
from pipelines.images import bombs, pillow
from pipelines.options import Limits, Options
from tests.format_contract import records_of, source_of

GREY = np.arange(48, dtype=np.uint8).reshape(6, 8) * 5


def made(elements, metadata=None, format="jpeg"):
    """A record that came from no file."""
    axes = ("channel", "y", "x")[-elements.ndim :]
    geometry = Geometry(elements.dtype.str, axes, elements.shape)
    return Record(Header("a", "a", "image", format, geometry, metadata or {}), elements)


def test_a_lossy_source_is_exported_as_what_it_is(tmp_path):
    """A JPEG's pixels go into a PNG (CMYK: a TIFF), and the name says so."""
    for mode, name in (("RGB", "a.jpg.png"), ("CMYK", "a.jpg.tiff")):
        Image.new(mode, (9, 9), 77).save(tmp_path / "a.jpg")
        assert pillow.write(records_of(pillow, tmp_path / "a.jpg"), tmp_path / "a.jpg").name == name


def test_a_mask_and_a_map_can_be_written(tmp_path):
    """Arrays that came from no image file become grey PNG, bitmap or float TIFF; three float channels have no place."""
    assert pillow.write([made(GREY)], tmp_path / "mask.png").name == "mask.png"
    assert pillow.write([made(GREY > 9)], tmp_path / "photo.jpg").name == "photo.jpg.png"
    assert pillow.write([made(GREY.astype("<f4") / 7)], tmp_path / "map.tiff").name == "map.tiff"
    assert pillow.write([made(np.stack([GREY] * 3))], tmp_path / "rgb").name == "rgb.png"
    with pytest.raises(InputError, match="3 channels"):
        pillow.write([made(np.zeros((3, 4, 5), np.float32))], tmp_path / "no.png")


def test_every_size_of_an_icon_is_a_record(tmp_path):
    """An icon of three sizes is three records; written, they are pages."""
    Image.radial_gradient("L").convert("RGBA").save(tmp_path / "a.ico", sizes=[(16, 16), (32, 32), (48, 48)])
    records = records_of(pillow, tmp_path / "a.ico", "a.ico")
    assert sorted(record.elements.shape for record in records) == [(4, 16, 16), (4, 32, 32), (4, 48, 48)]
    assert [record.header.record for record in records] == ["a.ico#1", "a.ico#2", "a.ico#3"]
    with Image.open(pillow.write(records, tmp_path / "b.ico")) as written:
        assert written.n_frames == 3


def test_segments_of_a_jpeg_are_kept(tmp_path):
    """IPTC, Adobe's and whatever else stands in a JPEG is in the metadata, to the byte."""
    Image.fromarray(GREY).save(tmp_path / "a.jpg")
    data = (tmp_path / "a.jpg").read_bytes()
    segment = b"Photoshop 3.0\0" + bytes(range(40))
    (tmp_path / "a.jpg").write_bytes(data[:2] + b"\xff\xed" + (len(segment) + 2).to_bytes(2) + segment + data[2:])
    (record,) = records_of(pillow, tmp_path / "a.jpg")
    assert record.header.metadata["segments"] == [["APP13", base64.b64encode(segment).decode()]]


def test_the_limits_are_the_users_not_pillows(tmp_path, monkeypatch):
    """Pillow's own limit of pixels does not hold; --max-elements does, and --max-ratio for what is big."""
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    monkeypatch.setattr(bombs, "FREE_BYTES", 1 << 16)
    Image.new("RGB", (600, 500)).save(tmp_path / "a.webp", lossless=True)
    source = source_of(tmp_path / "a.webp")
    with pytest.raises(InputError, match="bytes from each"):
        list(pillow.read(source))
    (record,) = pillow.read(replace(source, options=Options(limits=Limits(max_ratio=1e9))))
    assert record.elements.shape == (3, 500, 600)


def test_big_blocks_and_warnings_are_told(tmp_path):
    """What is too big for the header, and what Pillow warned of, is listed in ``left_out``; the pixels go in."""
    Image.fromarray(GREY).save(tmp_path / "a.webp", icc_profile=bytes(5 << 20))
    (record,) = records_of(pillow, tmp_path / "a.webp")
    assert record.header.metadata["left_out"] == [f"icc_profile ({5 << 20} bytes)"]
    Image.fromarray(GREY).save(tmp_path / "b.jpg", exif=b"Exif\0\0II*\0\x08\0\0\0\xff\xff")
    (record,) = records_of(pillow, tmp_path / "b.jpg")
    assert any("EXIF" in note for note in record.header.metadata["left_out"])


def test_what_only_begins_like_an_image_is_none():
    """BM may begin a letter: what follows decides."""
    for line in (b"BMW sells cars, said the letter", b"GIF is a format"):
        assert not pillow.sniff(line, Path("a"))


def test_a_targa_is_known_by_its_name(tmp_path):
    """A TGA has no magic number: called so it goes in, called otherwise it is nobody's."""
    picture = Image.fromarray(GREY).convert("RGB")
    for name, options in (("a.tga", {}), ("b.tga", {"compression": "tga_rle"})):
        picture.save(tmp_path / name, **options)
        (record,) = records_of(pillow, tmp_path / name)
        assert np.array_equal(record.elements, np.stack([GREY] * 3))
        assert pillow.sniff((tmp_path / name).read_bytes(), tmp_path / name)
        assert not pillow.sniff((tmp_path / name).read_bytes(), tmp_path / "a.bin")
