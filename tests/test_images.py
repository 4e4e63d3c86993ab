"""What the image reader keeps, undoes and refuses."""

import base64
import struct
import zlib
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image, ImageOps

from aunn_data import header as headers
from aunn_data.errors import InputError
from aunn_data.geometry import Geometry
from aunn_data.header import Header
from aunn_data.record import Record
from pipelines.images import pillow
from pipelines.source import Source
from tests.format_contract import records_of

GREY = np.arange(48, dtype=np.uint8).reshape(6, 8) * 5


def png(width, height, depth, colour, data=b""):
    """A PNG of any depth and colour type; its pixel bytes are zeros unless given."""

    def chunk(kind, body):
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    start = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", start) + chunk(b"IDAT", zlib.compress(data)) + chunk(b"IEND", b"")


def made(elements, metadata=None, format="jpeg"):
    """A record that came from no file."""
    axes = ("channel", "y", "x")[-elements.ndim :]
    geometry = Geometry(elements.dtype.str, axes, elements.shape)
    return Record(Header("a", "a", "image", format, geometry, metadata or {}), elements)


@pytest.mark.parametrize("colour", [2, 4, 6])
def test_sixteen_bit_colour_is_refused(tmp_path, colour):
    """A PNG with 16-bit colour or alpha, which Pillow would cut to 8 bits, is refused and says so."""
    channels = {2: 3, 4: 2, 6: 4}[colour]
    (tmp_path / "deep.png").write_bytes(png(2, 3, 16, colour, bytes(3 * (1 + 2 * 2 * channels))))
    with pytest.raises(InputError, match="16-bit"):
        records_of(pillow, tmp_path / "deep.png")


def test_what_pillow_would_change_is_refused(tmp_path):
    """16-bit PPM, a second icon."""
    (tmp_path / "deep.ppm").write_bytes(b"P6 2 2 1023\n" + bytes(24))
    Image.new("RGBA", (32, 32)).save(tmp_path / "two.ico", sizes=[(16, 16), (32, 32)])
    for path in sorted(tmp_path.iterdir()):
        with pytest.raises(InputError, match="stored values"):
            records_of(pillow, path)


def test_a_bomb_is_refused_before_it_goes_off(tmp_path):
    """An image of 10^10 pixels in 100 bytes is refused."""
    (tmp_path / "bomb.png").write_bytes(png(100_000, 100_000, 8, 0))
    with pytest.raises(InputError, match="DecompressionBombError"):
        records_of(pillow, tmp_path / "bomb.png")


def test_a_wrong_checksum_is_refused(tmp_path):
    """A PNG whose pixels decode but whose checksum does not fit is refused: something in it was changed."""
    data = bytearray(png(2, 2, 8, 0, bytes(6)))
    data[-16 - 1] ^= 1  # the last byte of the checksum of IDAT, before IEND's four and eight
    data[-12 - 1] ^= 1
    (tmp_path / "changed.png").write_bytes(data)
    with pytest.raises(InputError, match="broken PNG"):
        records_of(pillow, tmp_path / "changed.png")


@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_is_kept_and_not_applied(tmp_path, orientation):
    """Whatever EXIF says of up and down, pixels lie as stored, and Pillow shows source and export alike."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    picture = Image.fromarray(GREY)
    Image.fromarray(GREY).save(tmp_path / "a.png", exif=exif)
    (record,) = records_of(pillow, tmp_path / "a.png")
    assert np.array_equal(record.elements, GREY)
    assert record.header.metadata["orientation"] == orientation
    written = pillow.write([record], tmp_path / "out.png")
    with Image.open(tmp_path / "a.png") as before, Image.open(written) as after:
        shown = [np.asarray(ImageOps.exif_transpose(found)).tolist() for found in (before, after)]
    assert shown[0] == shown[1]


def test_palette_and_transparency_come_back(tmp_path):
    """Palette pixels stay indices; palette, transparency and profile stand in the metadata and in the export."""
    picture = Image.fromarray(GREY % 3)
    picture.putpalette([1, 2, 3, 4, 5, 6, 7, 8, 9])
    picture.save(tmp_path / "a.png", transparency=b"\x00\x07\xff", icc_profile=b"profile")
    (record,) = records_of(pillow, tmp_path / "a.png")
    assert record.header.geometry.axes == ("y", "x")
    assert np.array_equal(record.elements, GREY % 3)
    assert base64.b64decode(record.header.metadata["palette"]) == bytes(range(1, 10))
    with Image.open(pillow.write([record], tmp_path / "b.png")) as again:
        assert again.info["transparency"] == b"\x00\x07\xff"
        assert again.info["icc_profile"] == b"profile"
        assert again.getpalette() == list(range(1, 10))


def test_small_grey_ranges_are_stored_values(tmp_path):
    """Pixels of 2 bits are 0 to 3, not what a screen shows; a predicted value above white is cut to it."""
    Image.fromarray(GREY % 4 * 85).save(tmp_path / "a.png", bits=2)
    (record,) = records_of(pillow, tmp_path / "a.png")
    assert np.array_equal(record.elements, GREY % 4)
    written = pillow.write([replace(record, elements=record.elements + 1)], tmp_path / "b.png")
    assert np.array_equal(records_of(pillow, written)[0].elements, np.minimum(GREY % 4 + 1, 3))


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


def test_an_index_without_colour_can_be_written(tmp_path):
    """A network that guesses an index beyond the palette gets it written, in black."""
    metadata = {"mode": "P", "palette": base64.b64encode(bytes(range(9))).decode()}
    written = pillow.write([made(GREY, metadata, "png")], tmp_path / "a.png")
    assert written.name == "a.png"
    assert np.array_equal(records_of(pillow, written)[0].elements, GREY)


def test_big_blocks_and_warnings_are_told(tmp_path):
    """What is too big for the header, and what Pillow warned of, is listed in ``left_out``; the pixels go in."""
    Image.fromarray(GREY).save(tmp_path / "a.png", icc_profile=bytes(100_000))
    (record,) = records_of(pillow, tmp_path / "a.png")
    assert record.header.metadata["left_out"] == ["icc_profile (133336 characters)"]
    Image.fromarray(GREY).save(tmp_path / "b.jpg", exif=b"Exif\0\0II*\0\x08\0\0\0\xff\xff")
    (record,) = records_of(pillow, tmp_path / "b.jpg")
    assert any("EXIF" in note for note in record.header.metadata["left_out"])


def test_a_digit_has_a_short_header(tmp_path):
    """The header of a 28x28 PNG stays below 900 bytes, so a digit takes 1024 addresses for it."""
    Image.new("L", (28, 28)).save(tmp_path / "digit.png")
    (record,) = records_of(pillow, tmp_path / "digit.png", "test/7/a-name-of-some-length-00001.png")
    assert len(headers.encode(record.header, payload=0, next=0)) < 512


def test_what_only_begins_like_an_image_is_none():
    """BM and P5 may begin a letter: what follows decides."""
    for line in (b"BMW sells cars, said the letter", b"P5 and other screws", b"GIF is a format"):
        assert not pillow.sniff(line, None)
