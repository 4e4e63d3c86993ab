"""DICOM files and series: the contract, exact oracles by pydicom, which slices are one volume, hostile files."""

import gzip
import shutil
import struct
import warnings
from contextlib import suppress

import imagecodecs
import numpy as np
import pydicom
import pytest
from pydicom import uid
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.sequence import Sequence

from aunn_data.errors import InputError
from aunn_data.record import Record
from pipelines import formats
from pipelines.options import Limits, Options
from pipelines.scans import dicom
from pipelines.scans.dicom_header import ABOUT
from pipelines.scans.dicom_series import TIMES
from pipelines.scans.dicom_values import value_in, word_in
from pipelines.source import Source
from pipelines.walk import walk
from tests.format_contract import Example, FormatContract, refusals, source_of

WORDS = (np.arange(30).reshape(5, 6) * 37 - 400).astype("<i2")
COLOUR = (np.arange(5 * 6 * 3) * 37 % 256).astype("u1").reshape(5, 6, 3)
EXPLICIT, IMPLICIT, BIG = uid.ExplicitVRLittleEndian, uid.ImplicitVRLittleEndian, uid.ExplicitVRBigEndian
HEAD = [1, 0, 0, 0, 1, 0]


def dataset(pixels, syntax=EXPLICIT, data=None, bits=None, samples=1, **elements):
    """A data set with these pixels, (y, x), (F, y, x) with NumberOfFrames, or what ``samples`` says."""
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = syntax
    made = FileDataset(None, {}, file_meta=meta, preamble=bytes(128))
    made.SOPClassUID = meta.MediaStorageSOPClassUID = uid.MRImageStorage
    made.SOPInstanceUID = meta.MediaStorageSOPInstanceUID = elements.pop("SOPInstanceUID", "1.2.3")
    made.Modality, made.PatientName = "MR", "A^B"
    size = pixels.shape[-2:] if samples == 1 else pixels.shape[-3:-1]
    made.Rows, made.Columns = elements.pop("size", size)
    made.SamplesPerPixel, made.PhotometricInterpretation = samples, "MONOCHROME2" if samples == 1 else "RGB"
    if samples > 1:
        made.PlanarConfiguration = 0
    made.BitsAllocated = made.BitsStored = bits or 8 * pixels.dtype.itemsize
    made.HighBit, made.PixelRepresentation = made.BitsStored - 1, int(pixels.dtype.kind == "i")
    for keyword, value in elements.items():
        setattr(made, keyword, value)
    data = pixels.astype(pixels.dtype.newbyteorder(">" if syntax == BIG else "<")).tobytes() if data is None else data
    made.PixelData = data + bytes(len(data) % 2)
    made["PixelData"].VR = "OB" if syntax.is_encapsulated or made.BitsAllocated <= 8 else "OW"
    return made


def saved(path, made):
    pydicom.dcmwrite(path, made, enforce_file_format=True)
    return path


def file(name, pixels, faithful=True, **options):
    return Example(name, dicom, lambda path: saved(path, dataset(pixels, **options)), faithful=faithful)


def compressed(name, pixels, syntax, *streams, **options):
    return file(name, pixels, False, syntax=syntax, data=encapsulate(list(streams)), **options)


def slices(folder, places, numbers=None, **elements):
    """A series: a file for each place along z, with the pixels of its number; lists among ``elements`` are one each."""
    folder.mkdir(exist_ok=True)
    for k, place in enumerate(places):
        own = {keyword: value[k] if isinstance(value, tuple) else value for keyword, value in elements.items()}
        if place is not None:
            own |= {"ImagePositionPatient": [*(place if isinstance(place, tuple) else (-10, -20, place))]}
            own |= {"ImageOrientationPatient": own.get("ImageOrientationPatient", HEAD), "PixelSpacing": [2, 3]}
        number = numbers[k] if numbers else k + 1
        own = {"SeriesInstanceUID": "1.2.9", "InstanceNumber": number, "SOPInstanceUID": f"1.2.3.{k}"} | own
        saved(folder / f"IM{k:02}", dataset(WORDS + k, **own))
    return folder


def read(path, name="a/name"):
    [record] = dicom.read(source_of(path, name))
    return record


def tilted(path):
    slices(path, [(0, k, 2 * k) for k in range(2)])


SEG = (np.arange(2 * 5 * 7).reshape(2, 5, 7) % 3 == 0).astype("u1")
LOSSLESS = imagecodecs.jpeg_encode(WORDS.astype("u2"), lossless=True, bitspersample=16)
EXAMPLES = [
    file("words.dcm", WORDS, PixelSpacing=[2, 3], RescaleSlope=2, RescaleIntercept=-7),
    file("implicit", WORDS, syntax=IMPLICIT),
    file("big.dcm", WORDS, syntax=BIG),
    file("deflated.dcm", WORDS.repeat(20, 0), syntax=uid.DeflatedExplicitVRLittleEndian),
    file("odd.dcm", COLOUR[:, :5, 0]),
    file("rgb.dcm", COLOUR, samples=3),
    file("planes.dcm", COLOUR, data=np.moveaxis(COLOUR, -1, 0).tobytes(), samples=3, PlanarConfiguration=1),
    file(
        "half.dcm", COLOUR, data=COLOUR[..., 0].repeat(2).tobytes(), samples=3, PhotometricInterpretation="YBR_FULL_422"
    ),
    file("bits.dcm", SEG, data=np.packbits(SEG, bitorder="little").tobytes(), bits=1, NumberOfFrames=2),
    file("padded.dcm", WORDS, PixelPaddingValue=-400),
    file("cine.dcm", COLOUR[..., 0].reshape(5, 2, 3), NumberOfFrames=5, FrameIncrementPointer=0x00181063),
    compressed("jpeg.dcm", COLOUR, uid.JPEGBaseline8Bit, imagecodecs.jpeg_encode(COLOUR), samples=3),
    compressed("lossless.dcm", WORDS, uid.JPEGLosslessSV1, LOSSLESS),
    Example("scans/dicom/pydicom/MR_small_RLE.dcm", dicom, faithful=False),
]
REAL = [
    "693_J2KR CT_small JPEG2000 MR_small MR_small_RLE MR_small_bigendian OBXXXX1A_rle_2frame emri_small",
    "examples_palette examples_rgb_color liver_1frame rtdose",
]


@pytest.mark.parametrize("example", EXAMPLES, ids=str)
class TestDicom(FormatContract):
    """The contract over single files."""


SERIES = [
    Example("even", dicom, lambda path: slices(path, [1, 3, 5])),
    Example("tilted", dicom, tilted),
    Example("times", dicom, lambda path: slices(path, [1, 1, 3, 3], EchoTime=(2, 9, 9, 2))),
]


@pytest.mark.parametrize("example", SERIES, ids=str)
class TestSeries(FormatContract):
    """The contract over series; a damaged slice leaves the series, so these two are asked of every source."""

    def test_cut_short_it_is_refused_in_one_line(self, example, path):
        """A slice that is cut is refused by itself; the others go in."""
        cut = path / "IM00"
        cut.write_bytes(cut.read_bytes()[:400])
        errors, went_in = [], 0
        for source in walk([path], ""):
            try:
                went_in += len(list(formats.recognise(source).read(source)))
            except InputError as error:
                errors.append(str(error))
        assert len(errors) == 1
        assert "IM00" in errors[0]
        assert went_in >= 1

    def test_damaged_it_raises_nothing_but_input_errors(self, example, path):
        """Any byte of a slice changed: it is refused or read, alone or in its series."""
        hurt = path / "IM01"
        data = hurt.read_bytes()
        for position in range(128, len(data), 23):
            hurt.write_bytes(data[:position] + bytes([data[position] ^ 0x5A]) + data[position + 1 :])
            for source in walk([path], ""):
                with suppress(InputError):
                    for record in formats.recognise(source).read(source):
                        assert record.elements[...].shape == record.header.geometry.shape


@pytest.mark.filterwarnings("ignore:Invalid value for VR UI")  # pydicom's, of an identifier that the file has
@pytest.mark.parametrize("name", " ".join(REAL).split())
def test_real_files_have_pydicoms_values_and_come_back(shared_data, tmp_path, name):
    """Values are pydicom's; written back they and all other elements are the same, not compressed the same bytes."""
    path = shared_data / f"scans/dicom/pydicom/{name}.dcm"
    record, known = read(path), pydicom.dcmread(path)
    values = known.pixel_array if known.SamplesPerPixel == 1 else np.moveaxis(known.pixel_array, -1, 0)
    assert record.elements.dtype == values.dtype
    assert np.array_equal(record.elements, values.reshape(record.elements.shape))
    written = dicom.write([Record(record.header, record.elements[...])], tmp_path / path.name)
    if not known.file_meta.TransferSyntaxUID.is_encapsulated:
        assert written.read_bytes() == path.read_bytes()
    back = pydicom.dcmread(written)
    assert np.array_equal(back.pixel_array, known.pixel_array)
    assert all(back[e.tag] == e for e in known if e.tag.element and e.keyword != "PixelData")


@pytest.mark.parametrize("series", ["N2D_series", "philips_ct_S2020"])
def test_a_real_series_is_one_volume_that_lies_where_its_slices_lie(shared_data, tmp_path, series):
    """Every slice stands at its place; the affine says where; the files come back byte for byte."""
    folder = shared_data / "scans/dicom" / series
    [source] = walk([folder], "")
    [record] = dicom.read(source)
    known = sorted((pydicom.dcmread(file) for file in folder.iterdir()), key=lambda d: d.InstanceNumber)
    assert np.array_equal(record.elements, [d.pixel_array for d in known])
    affine = np.array(record.header.geometry.affine)
    for z, slice in enumerate(known):
        assert np.allclose((affine @ [0, 0, z, 1])[:3], np.array(slice.ImagePositionPatient) * [-1, -1, 1], atol=2e-2)
    written = dicom.write([Record(record.header, record.elements[...])], tmp_path / "out")
    assert {p.name: p.read_bytes() for p in written.iterdir()} == {p.name: p.read_bytes() for p in folder.iterdir()}


def test_mosaics_are_kept_and_say_so(shared_data):
    """Mosaics of a series are a t axis of pictures; the header tells how many slices are in each, no affine lies."""
    record = read(shared_data / "scans/dicom/siemens_mosaic")
    assert record.header.geometry.axes == ("t", "y", "x")
    assert record.header.geometry.affine is None
    assert "MOSAIC" in record.header.metadata["about"]["ImageType"]
    assert record.header.metadata["about"]["NumberOfImagesInMosaic"] == 48


KEYWORDS = (*ABOUT, *TIMES, "Rows", "NumberOfFrames", "InstanceNumber", "ImagePositionPatient", "RescaleSlope")


@pytest.mark.parametrize("name", ["CT_small", "MR_small", "MR_small_bigendian", "emri_small", "rtdose", "liver_1frame"])
def test_values_straight_from_their_bytes_are_pydicoms(shared_data, name):
    """Numbers and words of a real data set, and how they are spelt, are what pydicom makes of them."""
    path = shared_data / f"scans/dicom/pydicom/{name}.dcm"
    ours, theirs = pydicom.dcmread(path), pydicom.dcmread(path)
    assert [word_in(ours, keyword) for keyword in KEYWORDS] == [str(theirs.get(keyword) or "") for keyword in KEYWORDS]
    for keyword in KEYWORDS:
        assert (value_in(ours, keyword) or None) == (theirs.get(keyword) or None), keyword


@pytest.mark.parametrize(
    ("keyword", "raw"),
    [
        ("SliceThickness", b"0.0 "),
        ("SliceThickness", b" 1.5"),
        ("SliceThickness", b"1e-3"),
        ("SliceThickness", b""),
        ("PixelSpacing", b"0.50\\.5 "),
        ("PixelSpacing", b"0.50\\ 1"),
        ("InstanceNumber", b"+07 "),
        ("InstanceNumber", b"7.0 "),
        ("Modality", b"CT"),
        ("ImageType", b"ORIGINAL\\PRIMARY\\M "),
        ("ImageType", b"ORIGINAL\\ PRIMARY"),
        ("ImageType", b"M\\\\N "),
        ("Rows", b"\x00\x01"),
        ("Rows", b"\x00\x01\x02\x01"),
        ("SOPClassUID", b"1.2.840\0"),
        ("Units", b"b\xe9t "),
    ],
)
def test_odd_values_are_pydicoms_too(keyword, raw):
    """Padding, blanks, emptiness, several values, what breaks the rules: nothing is another value than pydicom's."""
    tag, vr = pydicom.tag.Tag(keyword), pydicom.datadict.dictionary_VR(keyword)

    def made():
        return Dataset({tag: pydicom.dataelem.RawDataElement(tag, vr, len(raw), raw, 0, False, True)})

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert word_in(made(), keyword) == str(made().get(keyword) or "")
        assert (value_in(made(), keyword) or None) == (made().get(keyword) or None)


def test_no_pixels_is_one_clear_error(shared_data):
    """An ECG is refused by its name."""
    with pytest.raises(InputError, match="expected a DICOM file with pixel data; found 12-lead ECG"):
        read(shared_data / "scans/dicom/pydicom/waveform_ecg.dcm")


def test_a_gantry_tilt_is_a_shear(tmp_path):
    """Slices that lie aslant keep their own direction in the affine; nothing is resampled."""
    tilted(tmp_path / "s")
    geometry = read(tmp_path / "s").header.geometry
    assert geometry.affine == ((-3, 0, 0, 0), (0, -2, -1, 0), (0, 0, 2, 0), (0, 0, 0, 1))
    assert geometry.spacing == (5**0.5, 2, 3)


def test_slices_go_by_place_not_by_number_or_name(tmp_path):
    """The lowest place along the normal comes first."""
    record = read(slices(tmp_path / "s", [5, 1, 3]))
    assert np.array_equal(record.elements, [WORDS + 1, WORDS + 2, WORDS])
    assert record.header.metadata["positions"] == [[-10, -20, 1], [-10, -20, 3], [-10, -20, 5]]
    assert record.header.metadata["files"] == ["IM01", "IM02", "IM00"]


def test_a_missing_slice_is_told_not_filled(tmp_path):
    """Uneven places have positions in the header, and neither spacing nor affine."""
    header = read(slices(tmp_path / "s", [1, 2, 4, 5])).header
    assert (header.geometry.spacing, header.geometry.affine) == (None, None)
    assert "uneven" in header.metadata


def test_without_places_slices_go_by_number(tmp_path):
    """No position: the order of InstanceNumber, an axis that claims no place."""
    record = read(slices(tmp_path / "s", [None] * 3, numbers=[3, 1, 2]))
    assert record.header.geometry.axes == ("slice", "y", "x")
    assert np.array_equal(record.elements, [WORDS + 1, WORDS + 2, WORDS])


def test_echoes_at_every_place_are_a_t_axis(tmp_path):
    """Two slices at each place that EchoTime tells apart: (t, z, y, x) in the order of the echoes."""
    record = read(slices(tmp_path / "s", [1, 1, 3, 3], EchoTime=(2, 9, 9, 2)))
    assert record.header.geometry.axes == ("t", "z", "y", "x")
    assert np.array_equal(record.elements, [[WORDS, WORDS + 3], [WORDS + 1, WORDS + 2]])
    assert np.array_equal(record.elements[1:2, :, 2:3], record.elements[...][1:2, :, 2:3])
    assert record.header.metadata["ordered_by"] == "EchoTime"


def test_an_echo_that_lacks_a_slice_stays_apart(tmp_path):
    """Not every place has both echoes: two volumes, none of them guessed at."""
    slices(tmp_path / "s", [1, 1, 3, 3, 5], EchoTime=(2, 9, 2, 9, 2))
    assert [(s.name, len(s.files)) for s in walk([tmp_path / "s"], "")] == [("IM00", 3), ("IM01", 2)]


def test_what_nothing_tells_apart_stays_files(tmp_path):
    """Two slices at one place with equal headers and tangled numbers are not put in an order."""
    slices(tmp_path / "s", [1, 1, 3, 3], numbers=[1, 1, 1, 1])
    assert [len(source.files) for source in walk([tmp_path / "s"], "")] == [0] * 4


def test_magnitude_and_phase_are_two_volumes(tmp_path):
    """ImageType parts slices at one place."""
    slices(tmp_path / "s", [1, 1, 3, 3], ImageType=("M", "P", "M", "P"))
    assert [(s.name, len(s.files)) for s in walk([tmp_path / "s"], "")] == [("IM00", 2), ("IM01", 2)]


def test_mixed_series_other_files_and_copies_are_kept_apart(tmp_path):
    """Two series, a text and the copy of a slice in one folder: two groups by their first names, two files."""
    folder = slices(tmp_path / "s", [1, 2, 1, 2], SeriesInstanceUID=("1.1", "1.1", "1.2", "1.2"))
    (folder / "notes.txt").write_text("notes")
    shutil.copy(folder / "IM00", folder / "copy")
    found = {source.name: len(source.files) for source in walk([folder], "")}
    assert found == {"IM00": 2, "IM02": 2, "copy": 0, "notes.txt": 0}


def test_one_slice_given_by_itself_is_a_file(tmp_path):
    """A series of one is named by its own path."""
    slices(tmp_path / "s", [1])
    assert [(s.name, s.files) for s in walk([tmp_path / "s"], "")] == [("IM00", ())]


def test_scaling_that_differs_by_slice_is_in_the_header(tmp_path):
    """Equal slopes go into the geometry, different ones slice by slice into the metadata."""
    header = read(slices(tmp_path / "s", [1, 2], RescaleSlope=(2, 3), RescaleIntercept=0)).header
    assert (header.geometry.slope, header.metadata["slopes"]) == (1.0, [2.0, 3.0])


def test_declared_padding_is_missing(tmp_path):
    """Elements with the PixelPaddingValue are missing; their values stay."""
    record = read(saved(tmp_path / "p.dcm", dataset(WORDS, PixelPaddingValue=-400)))
    assert np.array_equal(record.missing[...], WORDS == -400)
    assert np.array_equal(record.elements, WORDS)


def test_frames_that_say_where_they_lie_are_volumes(tmp_path):
    """Enhanced: positions that come again in turn are (t, z), each its own place z; the affine is that of a volume."""
    groups = []
    for place in (0, 4, 0, 4):
        item, plane, turn, measures = Dataset(), Dataset(), Dataset(), Dataset()
        plane.ImagePositionPatient, turn.ImageOrientationPatient = [0, 0, place], HEAD
        measures.PixelSpacing = [2, 3]
        item.PlanePositionSequence, item.PlaneOrientationSequence = Sequence([plane]), Sequence([turn])
        item.PixelMeasuresSequence = Sequence([measures])
        groups.append(item)
    frames = np.stack([WORDS] * 4)
    made = dataset(frames, NumberOfFrames=4, PerFrameFunctionalGroupsSequence=Sequence(groups))
    geometry = read(saved(tmp_path / "e.dcm", made)).header.geometry
    assert (geometry.axes, geometry.shape) == (("t", "z", "y", "x"), (2, 2, 5, 6))
    assert geometry.spacing == (1, 4, 2, 3)
    assert geometry.affine == ((-3, 0, 0, 0), (0, -2, 0, 0), (0, 0, 4, 0), (0, 0, 0, 1))


TWELVE = (np.arange(16 * 16).reshape(16, 16) * 15).astype("u2")


@pytest.mark.parametrize(
    ("syntax", "pixels", "stream"),
    [
        (
            uid.JPEGLossless,
            COLOUR,
            imagecodecs.jpeg_encode(COLOUR, lossless=True, colorspace="RGB", outcolorspace="RGB"),
        ),
        (uid.JPEGLSLossless, WORDS.astype("u2"), imagecodecs.jpegls_encode(WORDS.astype("u2"))),
        (uid.JPEG2000Lossless, WORDS.astype("u2"), imagecodecs.jpeg2k_encode(WORDS.astype("u2"), codecformat="j2k")),
        (uid.JPEG2000Lossless, COLOUR, imagecodecs.jpeg2k_encode(COLOUR, codecformat="j2k", mct=True)),
    ],
)
def test_lossless_codecs_give_the_values_that_went_in(tmp_path, syntax, pixels, stream):
    """JPEG lossless, JPEG-LS and JPEG 2000 decode exactly."""
    samples = pixels.shape[2] if pixels.ndim == 3 else 1
    made = dataset(pixels, syntax, encapsulate([stream]), samples=samples)
    record = read(saved(tmp_path / "c.dcm", made))
    assert np.array_equal(record.elements, np.moveaxis(pixels, -1, 0) if samples > 1 else pixels)


def test_twelve_bit_jpeg_goes_in(tmp_path):
    """Extended JPEG of 12 bits, near its source."""
    stream = imagecodecs.jpeg_encode(TWELVE, bitspersample=12, level=100)
    made = dataset(TWELVE, uid.JPEGExtended12Bit, encapsulate([stream]), BitsStored=12, HighBit=11)
    assert abs(read(saved(tmp_path / "c.dcm", made)).elements.astype(int) - TWELVE).max() < 9


def test_old_files_without_a_preamble_are_known_by_their_elements(tmp_path):
    """Implicit, explicit and with a group length; what only looks like it is not claimed."""
    for syntax in (EXPLICIT, IMPLICIT):
        path = tmp_path / "old"
        made = dataset(WORDS)
        pydicom.dcmwrite(path, Dataset(made), implicit_vr=syntax == IMPLICIT, little_endian=True, force_encoding=True)
        assert formats.recognise(Source(path, "old")) is dicom
        assert np.array_equal(read(path).elements, WORDS)
        assert dicom.write([read(path)], tmp_path / "new").read_bytes() == path.read_bytes()
    for head in (b"\x08\0\x05\0CS\x0a\0ISO_IR 100", b"\x08\0\x08\0\x08\0\0\0" * 40, b"DICM" * 200, bytes(500)):
        assert not dicom.sniff(head, tmp_path / "x")


@pytest.mark.parametrize(
    ("elements", "message"),
    [
        ({"size": (65535, 65535), "NumberOfFrames": 1 << 30}, "elements|bytes"),
        ({"size": (9, 6)}, "108|bytes"),
        ({"BitsAllocated": 12}, "12"),
        ({"size": (0, 6)}, "Rows"),
        ({"NumberOfFrames": -1}, "NumberOfFrames"),
        ({"SamplesPerPixel": 3}, "180|bytes"),
    ],
)
def test_sizes_that_the_file_cannot_hold_are_refused(tmp_path, elements, message):
    """Nothing is allocated for what a header only claims."""
    path = saved(tmp_path / "h.dcm", dataset(WORDS, **elements))
    with pytest.raises(InputError, match=message):
        read(path)


def test_a_compressed_frame_of_another_size_is_refused_before_it_is_decoded(tmp_path):
    """A codestream's size is compared with the data set's."""
    stream = imagecodecs.jpeg2k_encode(np.zeros((64, 64), "u2"), codecformat="j2k")
    for syntax, data in ((uid.JPEG2000Lossless, stream), (uid.JPEGLosslessSV1, LOSSLESS)):
        made = dataset(WORDS, syntax, encapsulate([data]), size=(7, 7))
        with pytest.raises(InputError, match="rows and columns"):
            read(saved(tmp_path / "h.dcm", made))


@pytest.mark.parametrize("frames", [2, 1 << 20])
def test_too_few_compressed_frames_are_refused(tmp_path, frames):
    """One frame where the data set says more."""
    made = dataset(WORDS, uid.JPEGLosslessSV1, encapsulate([LOSSLESS]), NumberOfFrames=frames)
    assert len(refusals(dicom, saved(tmp_path / "h.dcm", made))) == 1


def test_offsets_out_of_range_are_refused(tmp_path):
    """A basic offset table that points behind the file."""
    data = bytearray(encapsulate([LOSSLESS, LOSSLESS]))
    struct.pack_into("<I", data, 12, 1 << 30)
    made = dataset(WORDS, uid.JPEGLosslessSV1, bytes(data), NumberOfFrames=2)
    assert len(refusals(dicom, saved(tmp_path / "h.dcm", made))) == 1


def test_a_cut_codestream_in_a_whole_file_is_refused(tmp_path):
    """Decoders that make up the rest are not asked."""
    j2k = imagecodecs.jpeg2k_encode(np.arange(4096).reshape(64, 64).astype("u2"), codecformat="j2k")
    for syntax, stream, pixels in (
        (uid.JPEG2000Lossless, j2k, np.zeros((64, 64), "u2")),
        (uid.JPEGLosslessSV1, LOSSLESS, WORDS),
    ):
        made = dataset(pixels, syntax, encapsulate([stream[: len(stream) // 2]]))
        with pytest.raises(InputError):
            read(saved(tmp_path / "h.dcm", made))


def test_sequences_nested_without_end_are_refused(tmp_path):
    """A hundred thousand sequences in one another: an InputError, or the image, soon."""
    path = saved(tmp_path / "h.dcm", dataset(WORDS))
    data, at = path.read_bytes(), path.read_bytes().index(b"\x28\0\x02\0US")
    nest = b"\x08\0\x40\x11SQ\0\0\xff\xff\xff\xff\xfe\xff\0\xe0\xff\xff\xff\xff" * 100_000
    path.write_bytes(data[:at] + nest + data[at:])
    assert len(refusals(dicom, path)) == 1


def test_limits_hold(tmp_path):
    """No more elements than the options allow."""
    path = saved(tmp_path / "h.dcm", dataset(WORDS))
    with pytest.raises(InputError, match="--max-elements"):
        next(dicom.read(Source(path, "n", Options(limits=Limits(max_elements=29)))))


def test_pixels_of_an_unknown_compression_are_not_taken_for_plain_ones(tmp_path):
    """A transfer syntax that nobody knows, and more bytes than the pixels have."""
    made = dataset(WORDS, uid.JPEGLosslessSV1, encapsulate([LOSSLESS]))
    made.file_meta.TransferSyntaxUID = "1.2.3.4"
    pydicom.dcmwrite(tmp_path / "h.dcm", made, implicit_vr=False, little_endian=True, force_encoding=True)
    with pytest.raises(InputError, match=r"transfer syntax 1\.2\.3\.4"):
        read(tmp_path / "h.dcm")


def test_bytes_in_big_endian_words_are_swapped(tmp_path):
    """8-bit pixels as OW, big-endian, an odd number of them: in their own order, and back byte for byte."""
    pixels = COLOUR[:, :5, 0]
    words = np.frombuffer(pixels.tobytes() + b"\0", "u1").reshape(-1, 2)[:, ::-1].tobytes()
    made = dataset(pixels, BIG, words)
    made["PixelData"].VR = "OW"
    record = read(saved(tmp_path / "w.dcm", made))
    assert np.array_equal(record.elements, pixels)
    written = dicom.write([Record(record.header, record.elements)], tmp_path / "back.dcm")
    assert written.read_bytes() == (tmp_path / "w.dcm").read_bytes()


def test_compressed_slices_make_a_series(tmp_path):
    """Slices in .gz, and slices with compressed pixels, are one volume that writes under plain names."""
    folder = slices(tmp_path / "s", [1, 2])
    for file in sorted(folder.iterdir()):
        made = pydicom.dcmread(file)
        made.compress(uid.RLELossless, generate_instance_uid=False)
        made.save_as(file)
        file.with_suffix(".gz").write_bytes(gzip.compress(file.read_bytes()))
        file.unlink()
    record = read(folder)
    assert np.array_equal(record.elements, [WORDS, WORDS + 1])
    written = dicom.write([Record(record.header, record.elements[...])], tmp_path / "out")
    assert np.array_equal(pydicom.dcmread(written / "IM01").pixel_array, WORDS + 1)


def test_a_map_of_another_type_is_written_in_its_place(tmp_path):
    """A mask and a float map of a volume are DICOM that pydicom opens."""
    record = read(saved(tmp_path / "w.dcm", dataset(WORDS)))
    for values in (WORDS > 0, WORDS / np.float32(3)):
        back = pydicom.dcmread(dicom.write([Record(record.header, values)], tmp_path / "m.dcm"))
        assert np.array_equal(back.pixel_array, values)
        assert back.PatientName == "A^B"
