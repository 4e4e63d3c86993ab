"""TIFF as images and as scans: what comes out is what tifffile gives, in the contract and in hostile files."""

import gzip
import re
import struct

import numpy as np
import pytest
import tifffile
from PIL import Image

from aunn_data.errors import InputError
from pipelines import formats
from pipelines.images import tiff as image_tiff
from pipelines.scans import tiff as scan_tiff
from pipelines.source import Source
from pipelines.tiff.ifd import Skeleton
from pipelines.tiff.plain import plain_of
from pipelines.tiff.planes import Planes, boxed
from tests.format_contract import Example, FormatContract, records_of, refusals, source_of

GREY = np.add.outer(np.arange(20), np.arange(18)).astype(np.uint8) * 7
STACK = np.arange(4 * 20 * 18).reshape(4, 20, 18)
COLOUR = np.stack([GREY, GREY.T[:18, :18].repeat(2, 0)[:20], GREY[::-1]], -1)
HOLES = np.where(STACK % 15 == 0, np.nan, STACK / 7)
REAL = np.float32([[1.5, -2], [np.inf, 3]]).repeat(8, 0)


def made(name, values, module=image_tiff, records=1, faithful=True, checked=True, **options):
    """A file that tifffile writes."""
    options = {"photometric": "minisblack", **options}
    return Example(name, module, lambda path: tifffile.imwrite(path, values, **options), records, faithful, checked)


def pages(path, arrays, **options):
    """A file of several pages of which no note says what they are."""
    with tifffile.TiffWriter(path) as writer:
        for array in arrays:
            writer.write(array, metadata=None, contiguous=False, **options)


def unlike(name, arrays, module, records, **options):
    return Example(name, module, lambda path: pages(path, arrays, **options), records)


def below(path):
    """A page with two smaller ones in SubIFDs."""
    with tifffile.TiffWriter(path) as writer:
        writer.write(COLOUR, photometric="rgb", subifds=2, metadata=None)
        writer.write(COLOUR[::2, ::2], photometric="rgb", subfiletype=1, metadata=None)
        writer.write(COLOUR[::4, ::4], photometric="rgb", subfiletype=1, metadata=None)


OME = {"axes": "TCZYX", "PhysicalSizeX": 0.5, "PhysicalSizeY": 0.25, "PhysicalSizeYUnit": "nm", "TimeIncrement": 2}
PALETTE = np.arange(3 * 256, dtype=np.uint16).reshape(3, 256) * 85
EXAMPLES = [
    made("grey.tif", GREY, metadata=None, description="a µ".encode(), resolution=(300, 300)),
    made("rgb.tif", COLOUR, photometric="rgb", extratags=[(274, 3, 1, 6, True), (65000, 12, 2, (1.5, 2.0), True)]),
    made("planar.tif", np.moveaxis(COLOUR, -1, 0), photometric="rgb", planarconfig="separate", compression="lzw"),
    made("deep.tif", COLOUR.astype(">u2") * 200, photometric="rgb", byteorder=">", compression="deflate"),
    made("cmyk.tif", np.dstack([COLOUR, GREY]), photometric="separated", tile=(16, 16), compression="zstd"),
    made(
        "alpha.tif",
        np.dstack([COLOUR, GREY]),
        photometric="rgb",
        extrasamples=["assocalpha"],
        predictor=True,
        compression="packbits",
    ),
    made("palette.tif", GREY, photometric="palette", colormap=PALETTE),
    made("bits.tif", GREY > 40, compression="packbits"),
    made("signed.tif", (GREY.astype("i2") - 70).astype("i1"), metadata=None),
    made("half.tif", REAL.astype("f2"), compression="lzma"),
    made("complex.tif", (GREY * (1 + 2j)).astype("c8")),
    made("long.tif", GREY.astype("<u8") << 40, bigtiff=True),
    made("nodata.tif", GREY.astype("<i2"), extratags=[(42113, 2, 0, "14", True)]),
    unlike("unlike.tif", [GREY, COLOUR, GREY[:7] * 1.5], image_tiff, 3),
    unlike("letters.tif", [COLOUR, COLOUR], image_tiff, 2, photometric="rgb"),
    Example("below.tif", image_tiff, below, 3),
    unlike("equal.tif", list(STACK.astype("u2")), scan_tiff, 1, compression="lzw"),
    made("shaped.tif", STACK.astype("u4").reshape(2, 2, 20, 18), scan_tiff),
    made("named.tif", STACK.astype(">f4"), scan_tiff, metadata={"axes": "TYX"}, byteorder=">"),
    made("holes.tif", HOLES.astype("f4"), scan_tiff, compression="deflate", predictor=3),
    made("truncated.tif", STACK.astype("u2"), scan_tiff, metadata={"axes": "ZYX", "truncate": True}),
    made("volume.tif", np.tile(STACK.astype("u2"), (4, 1, 1)), scan_tiff, volumetric=True, tile=(16, 16, 16)),
    made("ome.tif", STACK.astype("u2").reshape(2, 2, 1, 20, 18), scan_tiff, ome=True, metadata=OME),
    made(
        "imagej.tif",
        STACK.astype("u2").reshape(2, 1, 2, 20, 18),
        scan_tiff,
        imagej=True,
        resolution=(4, 2),
        metadata={"axes": "TZCYX", "unit": "um", "spacing": 3.0, "finterval": 0.5},
    ),
    made("colours.tif", np.stack([COLOUR, COLOUR[::-1]]), scan_tiff, imagej=True, photometric="rgb"),
]
SHARED = [
    Example("images/multipage.tif", scan_tiff),
    Example("images/pillow/multipage.tiff", image_tiff, records=3),
    Example("images/pillow/12bit.cropped.tif", image_tiff),
    Example("images/pillow/16bit.MM.deflate.tif", image_tiff),
    Example("images/pillow/hopper_bigtiff.tif", image_tiff),
    Example("images/pillow/hopper_lzma.tif", image_tiff),
    Example("images/pillow/tiff_16bit_RGBa.tiff", image_tiff),
    Example("images/pillow/tiff_strip_cmyk_jpeg.tif", image_tiff, faithful=False),
    Example("images/pillow/tiff_tiled_planar_lzw.tiff", image_tiff),
]


@pytest.mark.parametrize("example", EXAMPLES + SHARED, ids=str)
class TestTiff(FormatContract):
    """The contract over all of them."""


@pytest.mark.parametrize(
    "name",
    ["images/exif/*.tiff", "images/pillow/*.tif*", "images/tensorstore/*.tiff", "images/*.tif", "scans/tiff/*.tif"],
)
def test_real_files_hold_what_tifffile_reads(shared_data, tmp_path, name):
    """Sample for sample, before and after they were written."""
    for path in sorted(shared_data.glob(name)):
        with tifffile.TiffFile(path) as file:
            expected = [page.asarray().ravel() for page in file.pages]
        source = Source(path, "a")
        module = formats.recognise(source)
        records = list(module.read(source))
        again = list(module.read(Source(module.write(records, tmp_path / path.name), "a")))
        for found in (records, again):
            values = np.concatenate([_chunky(record).ravel() for record in found])
            assert np.array_equal(values, np.concatenate(expected), equal_nan=True), path


def _chunky(record):
    """The samples in the order of a file."""
    elements = np.asarray(record.elements[...])
    chunky = record.header.geometry.axes[0] == "channel" and not record.header.metadata.get("planar")
    return np.moveaxis(elements, 0, -1) if chunky else elements


def test_ome_says_axes_spacing_and_units(tmp_path):
    """Channels come first; what is not known of an axis is 1 without a unit."""
    values = STACK.astype("u2").reshape(2, 2, 1, 20, 18)
    tifffile.imwrite(tmp_path / "a.tif", values, ome=True, photometric="minisblack", metadata=OME)
    (record,) = records_of(scan_tiff, tmp_path / "a.tif")
    geometry = record.header.geometry
    assert geometry.axes == ("channel", "t", "y", "x")
    assert geometry.spacing == (1.0, 2.0, 0.25, 0.5)
    assert geometry.units == ("", "s", "nm", "µm")
    assert np.array_equal(record.elements, values[:, :, 0].swapaxes(0, 1))


def test_ome_images_of_other_sizes_and_types_keep_theirs(tmp_path):
    """A stack, a coloured picture and a stack of floats in one file: three records, all as tifffile reads them."""
    stacks = (STACK.astype("u2"), np.arange(45, dtype="u1").reshape(3, 5, 3), np.linspace(0, 1, 48).reshape(2, 4, 6))
    with tifffile.TiffWriter(tmp_path / "a.ome.tif") as file:
        for values, axes in zip(stacks, ("ZYX", "YXS", "CYX"), strict=True):
            photometric = "rgb" if axes == "YXS" else "minisblack"
            file.write(values, photometric=photometric, metadata={"axes": axes})
    found = records_of(scan_tiff, tmp_path / "a.ome.tif")
    for record, values in zip(found, stacks, strict=True):
        elements = np.asarray(record.elements)
        values = np.moveaxis(values, -1, 0) if values.shape[-1] == 3 else values
        assert elements.dtype == values.dtype
        assert np.array_equal(elements, values)


def test_uncompressed_ycbcr_comes_back_in_full_resolution(tmp_path):
    """Without the tag that says so, readers take the colours for subsampled."""
    picture = np.arange(60, dtype=np.uint8).reshape(4, 5, 3)
    Image.fromarray(picture, "YCbCr").save(tmp_path / "a.tif")
    image_tiff.write(records_of(image_tiff, tmp_path / "a.tif"), tmp_path / "b.tif")
    assert np.array_equal(tifffile.imread(tmp_path / "b.tif"), tifffile.imread(tmp_path / "a.tif"))


def test_imagej_says_axes_spacing_and_units(tmp_path):
    """The resolution is in pixels a unit."""
    values = STACK.astype("u2").reshape(1, 4, 1, 20, 18)
    told = {"axes": "TZCYX", "unit": "um", "spacing": 3.0}
    tifffile.imwrite(tmp_path / "a.tif", values, imagej=True, resolution=(4, 2), metadata=told)
    (record,) = records_of(scan_tiff, tmp_path / "a.tif")
    assert record.header.geometry.axes == ("z", "y", "x")
    assert record.header.geometry.spacing == (3.0, 0.5, 0.25)
    assert record.header.geometry.units == ("um", "um", "um")


def test_pages_of_which_nothing_is_said_lie_along_page(tmp_path):
    """Equal grey pages are one scan; nobody guesses that they are slices."""
    pages(tmp_path / "a.tif", STACK.astype("u2"))
    (record,) = records_of(scan_tiff, tmp_path / "a.tif")
    assert record.header.geometry.axes == ("page", "y", "x")
    assert np.array_equal(record.elements, STACK)


def test_an_ome_file_of_a_set_gives_its_own_planes(tmp_path):
    """Planes that lie in another file are not looked for."""
    told = {"axes": "ZYX"}
    tifffile.imwrite(tmp_path / "a.tif", STACK.astype("u2"), ome=True, photometric="minisblack", metadata=told)
    with tifffile.TiffFile(tmp_path / "a.tif") as file:
        text = file.pages[0].description
    uuid = re.search('UUID="(urn:uuid:[^"]+)"', text)[1]
    own = text.replace('SizeZ="4"', 'SizeZ="8"').replace(
        '<TiffData IFD="0" PlaneCount="4"/>',
        f'<TiffData FirstZ="4" IFD="0" PlaneCount="4"><UUID FileName="a.tif">{uuid}</UUID></TiffData>'
        '<TiffData FirstZ="0" IFD="0" PlaneCount="4"><UUID FileName="../b.tif">urn:uuid:2</UUID></TiffData>',
    )
    assert "b.tif" in own
    tifffile.tiffcomment(tmp_path / "a.tif", own.encode())
    (record,) = records_of(scan_tiff, tmp_path / "a.tif")
    assert record.header.geometry.axes == ("z", "y", "x")
    assert np.array_equal(record.elements, STACK)


def test_xml_that_defines_entities_is_not_followed(tmp_path):
    """A billion laughs stay text; the pages are a plain stack."""
    bomb = (
        '<!DOCTYPE a [<!ENTITY b "bbbbbbbb">]><OME xmlns="x"><Image><Pixels DimensionOrder="XYZCT"/></Image>&b;</OME>'
    )
    with tifffile.TiffWriter(tmp_path / "a.tif") as writer:
        for page in STACK.astype("u2"):
            writer.write(page, metadata=None, contiguous=False, description=bomb)
    (record,) = records_of(scan_tiff, tmp_path / "a.tif")
    assert record.header.geometry.axes == ("page", "y", "x")


def test_a_compressed_stack_is_a_scan(tmp_path):
    """What lies behind the head of a .gz is seen once it is unpacked."""
    noise = np.random.default_rng(0).integers(0, 60000, (3, 60, 70), np.uint16)
    pages(tmp_path / "a.tif", noise)
    (tmp_path / "b.tif.gz").write_bytes(gzip.compress((tmp_path / "a.tif").read_bytes()))
    module = formats.recognise(source_of(tmp_path / "b.tif.gz"))
    (record,) = records_of(module, tmp_path / "b.tif.gz")
    assert (record.header.modality, record.header.format) == ("scan", "tiff_stack")
    assert np.array_equal(record.elements, noise)


def test_big_stacks_are_read_where_they_are_asked_for(tmp_path, monkeypatch):
    """A slice decodes the strips or tiles that it needs and no other, and gives what numpy would."""
    monkeypatch.setattr("pipelines.tiff.planes.LOADED_BYTES", 0)
    values = np.arange(3 * 200 * 180 * 3).reshape(3, 200, 180, 3).astype("u2")
    tifffile.imwrite(tmp_path / "a.tif", values, tile=(64, 48), compression="lzw", photometric="rgb", imagej=False)
    (record,) = records_of(scan_tiff, tmp_path / "a.tif")
    whole = np.moveaxis(values, -1, 0)
    read = []
    planes = record.elements.array
    assert isinstance(planes, Planes)
    decoded = planes.decoder.segment
    planes.decoder.segment = lambda *key: read.append(key) or decoded(*key)
    assert np.array_equal(record.elements[1, 2, 70:120, 5], whole[1, 2, 70:120, 5])
    assert {page for page, _ in read} == {2}
    assert len(read) == 4
    for key in np.index_exp[..., 3], np.index_exp[:, 1:3, ::7, 10:40:3], np.index_exp[2], np.index_exp[0, -1, 5:5]:
        assert np.array_equal(record.elements[key], whole[key])


def test_an_uncompressed_stack_is_mapped(tmp_path):
    """No copy in memory, whatever lies between its pages."""
    pages(tmp_path / "a.tif", np.zeros((3, 600, 700), np.uint16))
    (record,) = records_of(scan_tiff, tmp_path / "a.tif")
    base = record.elements
    while isinstance(base, np.ndarray) and not isinstance(base, np.memmap):
        base = base.base
    assert isinstance(base, np.memmap)


TOLD = {
    "grey": (np.arange(35, dtype="u2").reshape(7, 5), {}),
    "signed": (np.arange(35, dtype="i4").reshape(7, 5), {}),
    "floats": (np.arange(35, dtype="f4").reshape(7, 5), {}),
    "halves": (np.arange(35, dtype="f2").reshape(7, 5), {}),
    "big-endian": (np.arange(35, dtype=">u2").reshape(7, 5), {"byteorder": ">"}),
    "BigTIFF": (np.arange(35, dtype="u8").reshape(7, 5), {"bigtiff": True}),
    "strips": (np.arange(35, dtype="u2").reshape(7, 5), {"rowsperstrip": 2}),
    "colours": (np.arange(105, dtype="u1").reshape(7, 5, 3), {"photometric": "rgb"}),
    "alpha": (np.arange(140, dtype="u1").reshape(7, 5, 4), {"photometric": "rgb", "extrasamples": ["unassalpha"]}),
    "planar": (np.arange(105, dtype="u2").reshape(3, 7, 5), {"photometric": "rgb", "planarconfig": "separate"}),
    "white is 0": (np.arange(35, dtype="u1").reshape(7, 5), {"photometric": "miniswhite"}),
    "reduced": (np.arange(35, dtype="u1").reshape(7, 5), {"subfiletype": 1}),
}


@pytest.mark.parametrize("kind", TOLD)
def test_a_page_told_at_once_is_tifffiles(tmp_path, kind):
    """What is said of pages that need no decoding is what tifffile says of them, and their samples begin there."""
    values, options = TOLD[kind]
    tifffile.imwrite(tmp_path / "a.tif", values, **options)
    with tifffile.TiffFile(tmp_path / "a.tif") as tiff, (tmp_path / "a.tif").open("rb") as file:
        skeleton, page = Skeleton(file, "a.tif"), tiff.pages.first
        plain = plain_of(skeleton, next(skeleton.chain()))
        assert plain is not None
        for name in plain._fields[3:-2]:
            if name not in ("sampleformat", "extrasamples"):
                assert getattr(plain, name) == getattr(page, name), name
        assert (plain.start, plain.shaped) == (page.dataoffsets[0], page.shaped)
        assert (plain.extrasamples, plain.dtype) == (tuple(page.extrasamples), page.dtype.newbyteorder(tiff.byteorder))


@pytest.mark.parametrize(
    "options", [{"compression": "zlib"}, {"tile": (16, 16)}, {"predictor": 2, "compression": "lzw"}]
)
def test_a_page_that_must_be_decoded_is_left_to_tifffile(tmp_path, options):
    """Nothing is told of it at once."""
    tifffile.imwrite(tmp_path / "a.tif", np.arange(35, dtype="u2").reshape(7, 5), **options)
    with (tmp_path / "a.tif").open("rb") as file:
        skeleton = Skeleton(file, "a.tif")
        assert plain_of(skeleton, next(skeleton.chain())) is None


@pytest.mark.parametrize("options", [{}, {"rowsperstrip": 2}, {"tile": (16, 16)}])
def test_decoded_samples_keep_the_byte_order_of_the_file(tmp_path, options):
    """Compressed or not, elements are of the type that the file says."""
    values = np.arange(35, dtype=">u2").reshape(7, 5)
    tifffile.imwrite(tmp_path / "a.tif", values, byteorder=">", compression="zlib", **options)
    (record,) = records_of(image_tiff, tmp_path / "a.tif")
    assert record.elements.dtype.str == record.header.geometry.dtype == ">u2"
    assert np.array_equal(record.elements, values)


def test_indices_are_those_of_numpy():
    """boxed gives bounds and the cut for slices, integers and an ellipsis."""
    whole = np.arange(60).reshape(3, 4, 5)
    for key in np.index_exp[..., 2], np.index_exp[1], np.index_exp[:, -1, 1:4:2], np.index_exp[...], np.index_exp[2:1]:
        bounds, cut = boxed(key if len(key) > 1 else key[0], whole.shape)
        assert np.array_equal(whole[tuple(slice(*bound) for bound in bounds)][cut], whole[key])


# ---- hostile -----------------------------------------------------------------------------------------------------


def little(path, entries, behind=b"", next=0):
    """A TIFF of one directory at 8 with these (code, type, count, value)."""
    body = struct.pack("<H", len(entries)) + b"".join(struct.pack("<HHLL", *entry) for entry in entries)
    path.write_bytes(b"II*\0" + struct.pack("<L", 8) + body + struct.pack("<L", next) + behind)
    return path


PLAIN = [
    (256, 4, 1, 4),
    (257, 4, 1, 4),
    (258, 3, 1, 8),
    (273, 4, 1, 8),
    (277, 3, 1, 1),
    (278, 4, 1, 4),
    (279, 4, 1, 16),
]


def changed(**tags):
    """PLAIN with other values; None leaves the tag out."""
    named = {int(code[1:]): value for code, value in tags.items()}
    return [(c, k, n, named.get(c, v)) for c, k, n, v in PLAIN if named.get(c, v) is not None] + [
        (c, 4, 1, v) for c, v in sorted(named.items()) if c not in {entry[0] for entry in PLAIN}
    ]


@pytest.mark.parametrize(
    ("tags", "next"),
    [
        ({}, 8),  # a chain that bites its tail
        ({}, 1 << 30),  # that leads out
        ({"t256": 1 << 30, "t257": 1 << 30}, 0),  # an exabyte
        ({"t256": 1 << 30, "t257": 1 << 20, "t259": 8}, 0),  # a petabyte, compressed
        ({"t256": 0}, 0),
        ({"t273": 1 << 20}, 0),  # strips that lie elsewhere
        ({"t279": 15}, 0),  # too short
        ({"t279": 0}, 0),  # never written
        ({"t273": None}, 0),
        ({"t278": 2}, 0),  # half of the strips
        ({"t278": 0}, 0),
        ({"t277": 60000}, 0),
        ({"t258": 11}, 0),
        ({"t259": 12345}, 0),  # nobody's compression
        ({"t317": 77}, 0),
        ({"t339": 9}, 0),
        ({"t322": 0, "t323": 0}, 0),
    ],
)
def test_hostile_headers_are_refused(tmp_path, tags, next):
    """One InputError of one line, soon and without the memory that the header asks for."""
    path = little(tmp_path / "a.tif", changed(**tags), bytes(64), next)
    errors = refusals(formats.recognise(source_of(path)), path)
    assert len(errors) == 1
    assert "expected" in errors[0]


def test_the_plain_one_is_read(tmp_path):
    """What the hostile ones were made of is an image."""
    assert refusals(image_tiff, little(tmp_path / "a.tif", changed(), bytes(64))) == []


def test_good_pages_before_a_bad_one_go_in(tmp_path):
    """Pages of a document up to the one whose pixels do not decode, which is named."""
    with tifffile.TiffWriter(tmp_path / "a.tif") as writer:
        for size in (8, 9, 10):
            writer.write(np.zeros((size, 8), np.uint8), metadata=None, contiguous=False, compression="zlib")
    with tifffile.TiffFile(tmp_path / "a.tif") as file:
        start = file.pages[1].dataoffsets[0]
    data = bytearray((tmp_path / "a.tif").read_bytes())
    data[start : start + 4] = b"\xff" * 4
    (tmp_path / "a.tif").write_bytes(data)
    first, second = image_tiff.read(source_of(tmp_path / "a.tif"))
    assert not isinstance(first, InputError)
    assert "#2" in str(second)


def test_many_directories_that_share_a_strip_do_not_multiply(tmp_path):
    """Pages that claim a thousand times the file are refused before they are decoded."""
    entry = [(256, 4, 1, 1 << 14), (257, 4, 1, 1 << 14), (258, 3, 1, 8), (259, 3, 1, 8), (273, 4, 1, 8), (279, 4, 1, 8)]
    size = 2 + 12 * len(entry) + 4
    body = b""
    for number in range(400):
        following = 8 + size * (number + 1) if number < 399 else 0
        body += struct.pack("<H", len(entry)) + b"".join(struct.pack("<HHLL", *e) for e in entry)
        body += struct.pack("<L", following)
    (tmp_path / "a.tif").write_bytes(b"II*\0" + struct.pack("<L", 8) + body)
    assert len(refusals(scan_tiff, tmp_path / "a.tif")) == 1


def test_a_dicom_file_with_the_magic_of_a_tiff_is_none():
    """Its preamble may say anything."""
    head = b"II*\0" + bytes(124) + b"DICM"
    assert not image_tiff.sniff(head, None)
    assert not scan_tiff.sniff(head, None)
    assert not image_tiff.sniff(b"II. Teil", None)


def test_records_from_elsewhere_become_tiffs(tmp_path):
    """A map of floats and a record that Pillow once read, of an older corpus, are written too."""
    from tests.test_images import made as picture

    written = image_tiff.write([picture(REAL, format="tiff")], tmp_path / "map.tiff")
    assert np.array_equal(tifffile.imread(written), REAL)
    old = picture(GREY, {"mode": "L"}, "tiff")
    with Image.open(image_tiff.write([old], tmp_path / "old.tif")) as again:
        assert np.array_equal(np.asarray(again), GREY)
