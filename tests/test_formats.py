"""The contract of formats, over one small example of everything that each format can hold, and over real files."""

import nibabel
import numpy as np
import pytest
from PIL import Image

from pipelines import formats
from pipelines.images import pillow
from pipelines.scans import nifti, npy
from pipelines.source import Source
from pipelines.text import plain
from tests.format_contract import Example, FormatContract

GREY = np.add.outer(np.arange(6), np.arange(5)).astype(np.uint8) * 7
VOLUME = np.arange(60).reshape(3, 4, 5) * 5 - 100
HOLES = np.where(VOLUME % 15 == 0, np.nan, VOLUME)


def text(name, data):
    return Example(name, plain, lambda path: path.write_bytes(data), checked=False)


def colour(mode):
    """A picture of many values in every channel of a mode."""
    bands = len(Image.new(mode, (1, 1)).getbands())
    values = (np.arange(6 * 5 * bands) * 37 % 256).astype(np.uint8)
    return Image.frombytes(mode, (5, 6), values.tobytes())


def grey(values, mode):
    """A picture of one channel."""
    return Image.frombytes(mode, values.shape[::-1], values.tobytes())


def indices(shift=0):
    """A picture of palette indices."""
    picture = Image.fromarray((GREY + shift) % 4)
    picture.putpalette([0, 0, 0, 255, 0, 0, 0, 255, 0, 9, 9, 9])
    return picture


def image(name, picture, faithful=True, records=1, checked=True, **options):
    return Example(name, pillow, lambda path: picture.save(path, **options), records, faithful, checked)


def exif(orientation):
    """An EXIF block with an orientation and a text."""
    block = Image.Exif()
    block[0x0112], block[0x010F] = orientation, "Maker"
    return block.tobytes()


def volume(name, array, version=1, **fields):
    """A NIfTI file with the array's own type and byte order."""

    def make(path):
        kind = nibabel.Nifti2Header if version == 2 else nibabel.Nifti1Header
        header = kind(endianness="<" if array.dtype.isnative else ">")
        header.set_data_dtype(array.dtype)
        picture = (nibabel.Nifti2Image if version == 2 else nibabel.Nifti1Image)(array, np.diag([2, 3, 4, 1]), header)
        picture.header.set_xyzt_units("mm", "sec")
        for field, value in fields.items():
            picture.header[field] = value
        nibabel.save(picture, path)

    return Example(name, nifti, make)


def array(name, values):
    return Example(name, npy, lambda path: np.save(path, values))


RGB24 = np.dtype([("R", "u1"), ("G", "u1"), ("B", "u1")])
EXAMPLES = [
    text("ascii.txt", b"What's in a name?\n"),
    text("cut.txt", b"x" * 4095 + "ü and so on".encode()),  # HEAD_BYTES end amid the ü
    text("mark.txt", "\ufeffmarked".encode()),
    text("utf16.txt", "sechzehn".encode("utf-16")),
    text("latin1.txt", "Vögel füttern, Bäume fällen\n".encode("latin-1") * 9),
    image("rgb.bmp", colour("RGB")),
    image("indices.bmp", indices()),
    image("photo.jpg", colour("RGB").resize((40, 30)), False, exif=exif(3), dpi=(72, 72), icc_profile=b"profile"),
    image("cmyk.jpg", colour("CMYK").resize((40, 30)), False),
    image("rgba.webp", colour("RGBA"), lossless=True, exact=True),
    image(
        "moving.webp", colour("RGB"), True, 2, append_images=[colour("RGB").rotate(90)], save_all=True, lossless=True
    ),
    image("rgb.pcx", colour("RGB"), False),
    image("rgb.sgi", colour("RGB"), False),
    image("icon.ico", colour("RGBA").resize((16, 16)), False),
    volume("u1.nii", VOLUME.clip(0, 255).astype("u1"), scl_slope=2.0, scl_inter=-1),
    volume("i2_big.nii", VOLUME.astype(">i2")),
    volume("time.nii.gz", VOLUME.astype("<i4").reshape(3, 4, 5, 1)),
    volume("holes.nii.gz", HOLES.astype("<f4"), scl_slope=np.nan),
    volume("two.nii", HOLES.astype("<f8"), version=2),
    volume("complex.nii", (VOLUME * (1 + 2j)).astype("<c8")),
    volume("rgb.nii.gz", np.ascontiguousarray(VOLUME.astype("u1").repeat(3, 2)).view(RGB24)[..., 0:5]),
    array("c.npy", VOLUME.astype("<i2")),
    array("fortran.npy", np.asfortranarray(VOLUME.astype(">u4"))),
    array("holes.npy", HOLES),
    array("half.npy", HOLES.astype("<f2")),
    array("complex.npy", np.asfortranarray(VOLUME * 1j)),
    array("bool.npy", VOLUME > 3),
    array("scalar.npy", np.float32(1.5)),
    array("five.npy", VOLUME.astype("<i8").reshape(1, 3, 4, 5, 1)),
    Example("some.npz", npy, lambda p: np.savez(p, a=VOLUME, **{"b/c": np.asfortranarray(HOLES)}), 2),
    Example("squeezed.npz", npy, lambda p: np.savez_compressed(p, VOLUME)),
]
REAL = [
    Example("text/mars_german.latin1.txt", plain, checked=False),
    Example("text/encodings/SHIFT_JIS__ude_1.txt", plain, checked=False),
    Example("images/pillow/hopper.jpg", pillow, faithful=False),
    Example("images/exif/Canon_40D.jpg", pillow, faithful=False),
    Example("images/pillow/frozenpond.mpo", pillow, records=2, faithful=False),
    Example("scans/nifti/anatomical.nii", nifti),
    Example("scans/nifti/standard.nii.gz", nifti),
    Example("scans/nifti/functional.nii", nifti),
]


@pytest.mark.parametrize("example", EXAMPLES + REAL, ids=str)
class TestFormats(FormatContract):
    """The contract over all of them."""


@pytest.mark.parametrize(("format", "starts"), formats.STARTS, ids=[format.FORMATS[0] for format, _ in formats.STARTS])
def test_no_format_claims_what_begins_otherwise(shared_data, format, starts):
    """The first bytes that a format is asked about are all that it knows: with another one nothing is its own."""
    paths = [path for path in sorted(shared_data.glob("*/**/*.*"))[::3] if path.is_file()]
    heads = [(Source(path, path.name).head, path) for path in paths]
    others = [byte for byte in range(256) if byte not in starts]
    for head, path in heads:
        assert not any(format.sniff(bytes([byte]) + head[1:], path) for byte in others[:: len(others) // 8])
