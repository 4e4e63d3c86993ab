"""What the image reader keeps, undoes and refuses."""

import numpy as np
import pytest
from PIL import Image

from aunn_data.errors import InputError
from aunn_data.geometry import Geometry
from aunn_data.header import Header
from aunn_data.record import Record
from pipelines.images import pillow
from tests.format_contract import records_of

GREY = np.arange(48, dtype=np.uint8).reshape(6, 8) * 5


def made(elements, metadata=None, format="jpeg"):
    """A record that came from no file."""
    axes = ("channel", "y", "x")[-elements.ndim :]
    geometry = Geometry(elements.dtype.str, axes, elements.shape)
    return Record(Header("a", "a", "image", format, geometry, metadata or {}), elements)


def test_what_pillow_would_change_is_refused(tmp_path):
    """A second icon."""
    Image.new("RGBA", (32, 32)).save(tmp_path / "two.ico", sizes=[(16, 16), (32, 32)])
    for path in sorted(tmp_path.iterdir()):
        with pytest.raises(InputError, match="stored values"):
            records_of(pillow, path)


def test_frames_are_records(tmp_path):
    """Each frame is a record, name#1, name#2, …; those of one palette are indices all the way."""
    frames = [Image.fromarray((GREY + k) % 3) for k in range(3)]
    for frame in frames:
        frame.putpalette(bytes(range(12)))
    frames[0].save(tmp_path / "a.gif", append_images=frames[1:], duration=50, palette=bytes(range(12)))
    records = records_of(pillow, tmp_path / "a.gif", "x/a.gif")
    assert [record.header.record for record in records] == ["x/a.gif#1", "x/a.gif#2", "x/a.gif#3"]
    assert {record.header.source for record in records} == {"x/a.gif"}
    assert [record.elements.tolist() for record in records] == [((GREY + k) % 3).tolist() for k in range(3)]


def test_frames_that_no_format_holds_keep_their_pixels(tmp_path):
    """Frames of unlike modes, one with a transparent index, go into a TIFF: it keeps all but that transparency."""
    frames = [Image.fromarray((GREY + k) % 4) for k in range(2)]
    for frame in frames:
        frame.putpalette(bytes(range(frame.getpixel((0, 0)), 12 + frame.getpixel((0, 0)))))
        frame.info["transparency"] = 1
    frames[0].save(tmp_path / "a.gif", append_images=frames[1:], duration=50)
    records = records_of(pillow, tmp_path / "a.gif")
    assert [record.header.metadata["mode"] for record in records] == ["P", "RGBA"]
    written = pillow.write(records, tmp_path / "a.gif")
    assert written.name == "a.gif.tiff"
    for before, after in zip(records, records_of(pillow, written), strict=True):
        assert np.array_equal(before.elements, after.elements)


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
        assert not pillow.sniff(line, None)
