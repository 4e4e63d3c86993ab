"""PNG: every depth and colour as stored, every chunk kept, animations frame by frame; what is damaged is refused."""

import base64
import struct
import zlib
from dataclasses import replace

import imagecodecs
import numpy as np
import pytest
from PIL import Image, ImageOps, PngImagePlugin

from aunn_data import header as headers
from aunn_data.errors import InputError
from aunn_data.geometry import Geometry
from aunn_data.header import Header
from aunn_data.record import Record
from pipelines.images import png
from pipelines.options import Limits, Options
from tests.format_contract import Example, FormatContract, records_of, refusals, source_of
from tests.test_formats import GREY, colour, exif, grey, indices

ALLOWED = {0: (1, 2, 4, 8, 16), 2: (8, 16), 3: (1, 2, 4, 8), 4: (8, 16), 6: (8, 16)}
DEPTHS = [(colour, depth) for colour, depths in ALLOWED.items() for depth in depths]
CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
RAMP = np.arange(48, dtype=np.uint8).reshape(6, 8) * 5


def chunk(kind, body=b""):
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def file(width, height, depth, colour, *chunks, interlaced=0):
    start = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, interlaced)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", start) + b"".join(chunks) + chunk(b"IEND")


def pixels(data):
    return chunk(b"IDAT", zlib.compress(data))


def samples(colour, depth):
    """(y, x, channel) random samples of 5 x 13 pixels."""
    return np.random.default_rng(depth * 9 + colour).integers(0, 1 << depth, (5, 13, CHANNELS[colour]))


def packed(values, depth):
    """Rows with filter 0, each packed bit by bit."""
    rows = b""
    for row in values:
        bits = "".join(f"{value:0{depth}b}" for value in row.ravel())
        bits += "0" * (-len(bits) % 8)
        rows += b"\0" + int(bits, 2).to_bytes(len(bits) // 8, "big")
    return rows


def interlaced(values, depth):
    """The seven passes of Adam7, written out by the letter of the specification."""
    starts = ((0, 0), (0, 4), (4, 0), (0, 2), (2, 0), (0, 1), (1, 0))
    steps = ((8, 8), (8, 8), (8, 4), (4, 4), (4, 2), (2, 2), (2, 1))
    passes = (values[y::dy, x::dx] for (y, x), (dy, dx) in zip(starts, steps, strict=True))
    return b"".join(packed(part, depth) for part in passes if part.size)


def made(colour, depth, laced=0):
    values = samples(colour, depth)
    palette = [chunk(b"PLTE", bytes(range(3 << depth)))] if colour == 3 and depth < 8 else []
    palette = palette or ([chunk(b"PLTE", bytes(768))] if colour == 3 else [])
    rows = interlaced(values, depth) if laced else packed(values, depth)
    return values, file(13, 5, depth, colour, *palette, pixels(rows), interlaced=laced)


def animation(*frames, first=True, depth=8, colour=0):
    """An APNG of (x, y, (y, x) samples); ``first``: the first picture is part of it."""
    parts, sequence = [chunk(b"acTL", struct.pack(">II", len(frames) - (not first), 3))], 0
    for number, (x, y, values) in enumerate(frames):
        if number or first:
            fields = (sequence, *values.shape[1::-1], x, y, 40 + number, 1000, number % 3, number % 2)
            parts.append(chunk(b"fcTL", struct.pack(">IIIIIHHBB", *fields)))
            sequence += 1
        data = zlib.compress(packed(values, depth))
        parts.append(chunk(b"fdAT", struct.pack(">I", sequence) + data) if number else chunk(b"IDAT", data))
        sequence += number > 0
    return file(frames[0][2].shape[1], frames[0][2].shape[0], depth, colour, *parts)


def saved(name, picture, records=1, **options):
    return Example(name, png, lambda path: picture.save(path, **options), records)


def raw(name, data, records=1):
    return Example(name, png, lambda path: path.write_bytes(data), records)


def texts():
    chunks = PngImagePlugin.PngInfo()
    chunks.add_text("Title", "Größe")
    chunks.add_itxt("Comment", "日本", "ja", "注")
    chunks.add_text("Long", "l" * 99, zip=True)
    chunks.add(b"prVt", b"\1\2", after_idat=True)
    return chunks


EXAMPLES = [
    saved("grey.png", grey(GREY, "L"), dpi=(300, 300), pnginfo=texts(), icc_profile=b"profile", exif=exif(6)),
    saved("bits.png", grey(GREY % 4 * 85, "L"), bits=2),
    saved("rgb.png", colour("RGB"), transparency=(1, 2, 3)),
    saved("indices.png", indices(), transparency=b"\x00\x80\xff\xff"),
    saved("moving.png", indices(), records=2, append_images=[indices(1)], save_all=True, duration=[40, 50]),
    raw("interlaced.png", made(3, 2, 1)[1]),
    raw("deep.png", made(6, 16)[1]),
    raw("apng.png", animation((0, 0, samples(0, 8)[..., 0]), (3, 2, RAMP[:2, :3]), first=False), 2),
]
REAL = [Example("images/pngsuite/basn3p02.png", png), Example("images/pillow/apng_mode_16bit.png", png, records=3)]


@pytest.mark.parametrize("example", EXAMPLES + REAL, ids=str)
class TestPng(FormatContract):
    """The contract over PNGs made here and real ones."""


@pytest.mark.parametrize("laced", [0, 1])
@pytest.mark.parametrize(("colour", "depth"), DEPTHS)
def test_every_depth_and_colour_is_read_as_stored(tmp_path, colour, depth, laced):
    """All fifteen combinations, interlaced or not, give the very samples, and are written as the same again."""
    values, data = made(colour, depth, laced)
    (tmp_path / "a.png").write_bytes(data)
    (record,) = records_of(png, tmp_path / "a.png")
    expected = np.moveaxis(values, -1, 0) if CHANNELS[colour] > 1 else values[..., 0]
    assert np.array_equal(record.elements, expected)
    assert record.elements.dtype.str == (">u2" if depth == 16 else "|b1" if (colour, depth) == (0, 1) else "|u1")
    png.write([record], tmp_path / "b.png")
    assert (tmp_path / "b.png").read_bytes()[:33] == data[:33]
    (again,) = records_of(png, tmp_path / "b.png")
    assert np.array_equal(again.elements, expected)
    assert again.header == record.header
    shown = [np.asarray(Image.open(tmp_path / name).convert("RGBA")).tolist() for name in ("a.png", "b.png")]
    assert shown[0] == shown[1]


@pytest.mark.parametrize("name", ["basn2c16", "basn4a16", "basn6a16", "rgb-alpha-16", "gray-16"])
def test_sixteen_bits_are_libpngs(shared_data, name):
    """Real 16-bit files have the samples that libpng gives."""
    path = shared_data / f"images/pngsuite/{name}.png"
    (record,) = records_of(png, path)
    expected = imagecodecs.png_decode(path.read_bytes())
    assert np.array_equal(record.elements, np.moveaxis(expected, -1, 0) if expected.ndim == 3 else expected)


def test_frames_are_as_they_lie_in_the_file(tmp_path):
    """A frame is its own part of the picture; place, time, disposal and blending stand beside it and come back."""
    frames = [(0, 0, RAMP), (2, 1, RAMP[:3, :4] + 1), (0, 5, RAMP[:1] + 2)]
    (tmp_path / "a.png").write_bytes(animation(*frames))
    records = records_of(png, tmp_path / "a.png", "a.png")
    assert [record.header.record for record in records] == ["a.png#1", "a.png#2", "a.png#3"]
    assert [record.elements.tolist() for record in records] == [values.tolist() for _, _, values in frames]
    where = {"x": 2, "y": 1, "delay": [41, 1000], "dispose": 1, "blend": 1}
    assert [records[1].header.metadata["frame"], records[0].header.metadata["loop"]] == [where, 3]
    png.write(records, tmp_path / "b.png")
    with Image.open(tmp_path / "a.png") as before, Image.open(tmp_path / "b.png") as after:
        assert before.n_frames == after.n_frames == 3
        for number in range(3):
            before.seek(number)
            after.seek(number)
            assert before.tobytes() == after.tobytes()
            assert before.info["duration"] == after.info["duration"]


def test_chunks_come_back_as_they_were(tmp_path):
    """Gamma, texts of all kinds, private chunks: the same bytes in the same order, before and after the pixels."""
    before = [(b"gAMA", b"\0\0\xb1\x8f"), (b"sBIT", b"\5"), (b"tEXt", b"Title\0Gr\xf6\xdfe")]
    before.append((b"zTXt", b"a\0\0" + zlib.compress(b"b")))
    after = [(b"iTXt", "b\0\0\0de\0ü\0ß".encode()), (b"tEXt", b"no separator"), (b"prVt", b"\1")]
    parts = [chunk(*pair) for pair in before] + [pixels(b"\0\7")] + [chunk(*pair) for pair in after]
    (tmp_path / "a.png").write_bytes(file(1, 1, 8, 0, *parts) + b"trailing")
    (record,) = records_of(png, tmp_path / "a.png")
    assert record.header.metadata["left_out"] == ["8 bytes after the end"]
    written = png.write([record], tmp_path / "b.png").read_bytes()
    start = written[33:].split(b"IDAT")
    assert start[0][:-4] == b"".join(parts[:4])
    assert start[1].endswith(b"".join(parts[5:]) + chunk(b"IEND"))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_is_kept_and_not_applied(tmp_path, orientation):
    """Whatever EXIF says of up and down, pixels lie as stored, and Pillow shows source and export alike."""
    block = Image.Exif()
    block[0x0112] = orientation
    Image.fromarray(RAMP).save(tmp_path / "a.png", exif=block)
    (record,) = records_of(png, tmp_path / "a.png")
    assert np.array_equal(record.elements, RAMP)
    assert record.header.metadata["orientation"] == orientation
    written = png.write([record], tmp_path / "out.png")
    with Image.open(tmp_path / "a.png") as before, Image.open(written) as after:
        shown = [np.asarray(ImageOps.exif_transpose(found)).tolist() for found in (before, after)]
    assert shown[0] == shown[1]


def test_palette_transparency_and_profile_come_back(tmp_path):
    """Palette pixels stay indices; palette, transparency and profile stand in the metadata and in the export."""
    picture = Image.fromarray(RAMP % 3)
    picture.putpalette([1, 2, 3, 4, 5, 6, 7, 8, 9])
    picture.save(tmp_path / "a.png", transparency=b"\x00\x07\xff", icc_profile=b"profile")
    (record,) = records_of(png, tmp_path / "a.png")
    assert record.header.geometry.axes == ("y", "x")
    assert np.array_equal(record.elements, RAMP % 3)
    assert base64.b64decode(record.header.metadata["palette"])[:9] == bytes(range(1, 10))
    with Image.open(png.write([record], tmp_path / "b.png")) as again:
        assert again.info["transparency"] == b"\x00\x07\xff"
        assert again.info["icc_profile"] == b"profile"
        assert again.getpalette()[:9] == list(range(1, 10))


def test_guesses_beyond_white_or_the_palette_can_be_written(tmp_path):
    """A predicted grey above white is white; a predicted index beyond the palette is written, in black."""
    Image.fromarray(RAMP % 4 * 85).save(tmp_path / "a.png", bits=2)
    (record,) = records_of(png, tmp_path / "a.png")
    png.write([replace(record, elements=record.elements + 1)], tmp_path / "b.png")
    assert np.array_equal(records_of(png, tmp_path / "b.png")[0].elements, np.minimum(RAMP % 4 + 1, 3))
    metadata = {"mode": "P", "bits": 2, "palette": base64.b64encode(bytes(range(9))).decode()}
    header = Header("a", "a", "image", "png", Geometry("|u1", ("y", "x"), RAMP.shape), metadata)
    png.write([Record(header, RAMP)], tmp_path / "c.png")
    assert np.array_equal(records_of(png, tmp_path / "c.png")[0].elements, RAMP)


WHOLE = animation((0, 0, RAMP), (0, 0, RAMP))
DAMAGED = {
    "a wrong checksum": file(1, 1, 8, 0, pixels(b"\0\7")[:-1] + b"x"),
    "without IEND": file(1, 1, 8, 0, pixels(b"\0\7"))[:-12],
    "which the file has not": file(1, 1, 8, 0, b"\x7f\xff\xff\xffIDAT"),
    "depth 3": file(1, 1, 3, 0, pixels(b"\0\7")),
    "a size of 0": file(0, 1, 8, 0, pixels(b"\0\7")),
    "a frame without pixels": file(1, 1, 8, 0),
    "Not enough image data": file(9, 9, 8, 0, pixels(b"\0" * 89)),
    "incorrect data check": file(1, 1, 8, 0, chunk(b"IDAT", zlib.compress(b"\0\7")[:-1] + b"x")),
    "cannot hold as many": file(1 << 30, 1 << 30, 16, 6, pixels(bytes(99))),
    "CgBI": file(1, 1, 8, 0, chunk(b"CgBI"), pixels(b"\0\7")),
    "pixels in two places": file(1, 2, 8, 0, pixels(b"\0\7"), chunk(b"tEXt", b"a\0b"), pixels(b"\0\7")),
    "of 3 announced": WHOLE.replace(chunk(b"acTL", struct.pack(">II", 2, 3)), chunk(b"acTL", struct.pack(">II", 3, 3))),
    "was due": animation((0, 0, RAMP), (0, 0, RAMP)).replace(chunk(b"IEND"), chunk(b"fdAT", bytes(9)) + chunk(b"IEND")),
    "beyond the picture": animation((0, 0, RAMP), (1, 0, RAMP)),
}


@pytest.mark.parametrize("fault", DAMAGED)
def test_what_is_damaged_is_refused(tmp_path, fault):
    """Each fault that decoders may pass over is named in the one error that refuses the file."""
    (tmp_path / "a.png").write_bytes(DAMAGED[fault])
    (error,) = refusals(png, tmp_path / "a.png")
    assert fault in error


def test_limits_are_the_users(tmp_path):
    """A picture beyond --max-elements or, when it is big, --max-ratio is refused before it is unpacked."""
    (tmp_path / "a.png").write_bytes(file(9000, 9000, 8, 0, pixels(bytes(9000 * 9001))))
    for limits, told in ((Limits(max_elements=1000), "at most 1000 el"), (Limits(max_ratio=99.0), "and 99 bytes")):
        source = replace(source_of(tmp_path / "a.png"), options=Options(limits=limits))
        with pytest.raises(InputError, match=told):
            list(png.read(source))


def test_a_big_map_in_a_small_file_goes_in(shared_data):
    """The 9216 x 5120 ink labels of 300 KB are no bomb."""
    (record,) = records_of(png, shared_data / "images/scroll/20230827161847_inklabels.png")
    assert record.elements.shape == (9216, 5120)


def test_a_digit_has_a_short_header(tmp_path):
    """The header of a 28x28 PNG stays below 512 bytes."""
    Image.new("L", (28, 28)).save(tmp_path / "digit.png")
    (record,) = records_of(png, tmp_path / "digit.png", "test/7/a-name-of-some-length-00001.png")
    assert len(headers.encode(record.header, payload=0, next=0)) < 512


def test_blocks_beyond_measure_are_told(tmp_path):
    """A block above 4 MiB is not kept, and that is said; one of 100 KB is."""
    parts = [chunk(b"prVt", bytes(5 << 20)), chunk(b"prVt", bytes(100_000)), pixels(b"\0\7")]
    (tmp_path / "a.png").write_bytes(file(1, 1, 8, 0, *parts))
    (record,) = records_of(png, tmp_path / "a.png")
    assert record.header.metadata["left_out"] == [f"prVt ({5 << 20} bytes)"]
    assert len(record.header.metadata["chunks"]) == 1
