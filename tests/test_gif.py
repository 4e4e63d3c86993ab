"""GIF: frames as they lie in the file, every block kept; what is cut or short of pixels is refused."""

import struct

import numpy as np
import pytest
from PIL import Image

from pipelines.images import gif, gif_blocks
from tests.format_contract import Example, FormatContract, records_of, refusals, source_of
from tests.test_formats import GREY, indices

RAMP = np.arange(48, dtype=np.uint8).reshape(6, 8)


def coded(values):
    """An LZW stream of 9-bit codes, with a clear code often enough that they never grow."""
    codes = [256]
    for at, value in enumerate(np.ravel(values).tolist()):
        codes += [256, value] if at and at % 200 == 0 else [value]
    bits = sum(code << 9 * at for at, code in enumerate([*codes, 257]))
    return b"\x08" + gif_blocks.split(bits.to_bytes(-(-9 * (len(codes) + 1) // 8), "little"))


def picture(values, x=0, y=0, colours=b"", data=None):
    flags = 0x80 | 7 if colours else 0
    return struct.pack("<BHHHHB", 0x2C, x, y, *values.shape[::-1], flags) + colours + (data or coded(values))


def control(flags, delay, transparent):
    return b"\x21\xf9\x04" + struct.pack("<BHB", flags, delay, transparent) + b"\0"


def file(*parts, colours=bytes(range(192))):
    flags = 0x80 | 5 if colours else 0
    return b"GIF89a" + struct.pack("<HHBBB", 8, 6, flags, 3, 49) + colours + b"".join(parts) + b";"


LOOP = b"\x21\xff\x0bNETSCAPE2.0\x03\x01\x05\x00\x00"
NOTES = b"\x21\xfe\x05hello\x00\x21\xff\x0bXMP DataXMP\x03abc\x00"
LOCAL = bytes(range(255, -1, -1)) * 3
MOVING = file(
    LOOP,
    NOTES,
    control(0x04, 7, 0),
    picture(RAMP),
    control(0x0D, 9, 5),
    picture(RAMP[:2, :3] + 200, 4, 3, LOCAL),
    NOTES,
)


def saved(name, records=1, **options):
    return Example(name, gif, lambda path: indices().save(path, **options), records)


EXAMPLES = [
    saved("indices.gif"),
    saved("interlaced.gif", interlace=1, comment=b"hello"),
    saved("moving.gif", 2, append_images=[indices(1)], save_all=True, duration=40, loop=0),
    Example("parts.gif", gif, lambda path: path.write_bytes(MOVING), 2),
    Example("grey.gif", gif, lambda path: path.write_bytes(file(picture(GREY), colours=b""))),
]
REAL = [Example("images/no_time_for_that_tiny.gif", gif, records=24)]


@pytest.mark.parametrize("example", EXAMPLES + REAL, ids=str)
class TestGif(FormatContract):
    """The contract over GIFs made here and a real one."""


def test_frames_are_as_they_lie_in_the_file(tmp_path):
    """A frame is the indices of its own part, with its own palette; place, time and disposal stand beside it."""
    (tmp_path / "a.gif").write_bytes(MOVING)
    first, second = records_of(gif, tmp_path / "a.gif", "x/a.gif")
    assert [first.header.record, second.header.record] == ["x/a.gif#1", "x/a.gif#2"]
    assert np.array_equal(first.elements, RAMP)
    assert np.array_equal(second.elements, RAMP[:2, :3] + 200)
    assert second.header.metadata["frame"] == {"x": 4, "y": 3, "dispose": 3, "own_palette": True}
    assert [second.header.metadata[key] for key in ("duration", "transparency")] == [90, 5]
    assert [first.header.metadata[key] for key in ("duration", "loop")] == [70, 5]
    assert first.header.metadata["extensions"][1] == ["comment", "hello"]


def test_all_but_the_code_comes_back_to_the_byte(tmp_path):
    """Written again, a file differs in nothing but how its pixels are coded."""
    (tmp_path / "a.gif").write_bytes(MOVING)
    gif.write(records_of(gif, tmp_path / "a.gif"), tmp_path / "b.gif")
    before, after = (gif_blocks.parsed((tmp_path / name).read_bytes()) for name in ("a.gif", "b.gif"))
    for frame in (*before.frames, *after.frames):
        frame.coded = b""
    assert before == after


@pytest.mark.parametrize("name", ["newtonscradle", "pillow/iss634", "pillow/dispose_bgnd", "pillow/dispose_prev"])
def test_a_viewer_shows_the_export_like_the_source(shared_data, tmp_path, name):
    """Local palettes, offsets and disposal: Pillow composes the same pictures of the export."""
    path = shared_data / f"images/{name}.gif"
    written = gif.write(records_of(gif, path), tmp_path / "a.gif")
    with Image.open(path) as before, Image.open(written) as after:
        assert before.n_frames == after.n_frames
        for number in range(before.n_frames):
            before.seek(number)
            after.seek(number)
            assert before.convert("RGBA").tobytes() == after.convert("RGBA").tobytes()
            assert before.info.get("duration") == after.info.get("duration")


def test_an_index_without_colour_can_be_written(tmp_path):
    """A network that guesses an index beyond the palette gets it written, in black."""
    indices().save(tmp_path / "a.gif")
    (record,) = records_of(gif, tmp_path / "a.gif")
    guessed = type(record)(record.header, np.asarray(record.elements) + 100)
    (again,) = records_of(gif, gif.write([guessed], tmp_path / "b.gif"))
    assert np.array_equal(again.elements, guessed.elements)


DAMAGED = {
    "without a trailer": MOVING[:-1],
    "image file is truncated": file(picture(RAMP, data=coded(RAMP[:3]))),
    "where a block was due": file(b"\x99"),
    "no picture": file(),
    "a picture of 0 x 6": file(picture(RAMP[:, :0], data=coded(RAMP))),
    "each compressed one": file(struct.pack("<BHHHHB", 0x2C, 0, 0, 65535, 65535, 0) + coded(RAMP)),
}


@pytest.mark.parametrize("fault", DAMAGED)
def test_what_is_damaged_is_refused(tmp_path, fault):
    """Each fault that viewers pass over is named in the one error that refuses the file."""
    (tmp_path / "a.gif").write_bytes(DAMAGED[fault])
    (error,) = refusals(gif, tmp_path / "a.gif")
    assert fault in error


def test_a_bad_frame_leaves_those_before_it(tmp_path):
    """The second frame lacks pixels: the first goes in, the second is refused."""
    (tmp_path / "a.gif").write_bytes(file(picture(RAMP), picture(RAMP, data=coded(RAMP[:2]))))
    found = list(gif.read(source_of(tmp_path / "a.gif")))
    assert [type(each).__name__ for each in found] == ["Record", "InputError"]
