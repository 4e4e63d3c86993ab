"""What lies on a disk: compressed, archived, with notes and masks beside it, or made to do harm."""

import bz2
import gzip
import hashlib
import io
import json
import lzma
import os
import socket
import stat
import tarfile
import zipfile

import imagecodecs
import nibabel
import nrrd
import numpy as np
import pytest
import tifffile
import zarr
import zstandard
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from aunn_data.corpus import Corpus
from aunn_data.errors import InputError
from aunn_data.verify import verify
from pipelines import compressed, parallel
from pipelines.export import export, export_as
from pipelines.ingest import ingest
from pipelines.options import Limits, Options
from pipelines.parallel import Workers
from pipelines.records import records_of
from pipelines.source import Source
from tests import crashing

TEXT = "".join(f"line {k} of a text that goes on\n" for k in range(4000)).encode()
PACK = {
    "gz": lambda data: gzip.compress(data, mtime=0),
    "bz2": bz2.compress,
    "xz": lzma.compress,
    "zst": lambda data: zstandard.ZstdCompressor().compress(data),
}


def ingested(paths, tmp_path, options=None, workers=parallel.ALONE):
    """A new corpus with the paths in it, and the report."""
    corpus = Corpus.create(tmp_path / "corpus", 34)
    return corpus, ingest(paths, corpus, options, workers)


def names(corpus):
    return [entry.record for entry in corpus.entries]


def errors(report):
    return [str(error) for _, error in report.refused]


def test_a_little_file_is_read_once_and_let_go(tmp_path):
    """Its bytes are those of the first look, for its reader and for its hash; nothing of them stays afterwards."""
    path = tmp_path / "a.txt"
    path.write_bytes(TEXT)
    source = Source(path, "a")
    assert source.head == TEXT[: len(source.head)]
    path.write_bytes(TEXT[::-1])
    sha256 = source.sha256
    (record,) = records_of(source)
    assert record.elements.tobytes() == TEXT
    assert sha256 == hashlib.sha256(TEXT).hexdigest()
    assert source.whole is None
    with source.open() as file:
        assert file.read() == TEXT[::-1]


def zipped(path, members, mode=None):
    """A zip with these members; ``mode`` is the Unix mode of all."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            info = zipfile.ZipInfo(name)
            info.compress_type = zipfile.ZIP_DEFLATED
            info.external_attr = (mode or stat.S_IFREG | 0o644) << 16
            archive.writestr(info, data)
    return path


def drained(path, limits):
    """How many bytes come out of a file."""
    with Source(path, "b", Options(limits=limits)).open() as file:
        return sum(len(part) for part in iter(lambda: file.read(1 << 20), b""))


# ---- compressed ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("codec", PACK)
def test_a_compressed_file_goes_in_as_what_it_holds_and_comes_back_compressed(codec, tmp_path):
    """The payload is the text inside; the exported file bears the same name and holds the same text."""
    path = tmp_path / f"a.txt.{codec}"
    path.write_bytes(PACK[codec](TEXT))
    corpus, report = ingested([path], tmp_path)
    assert errors(report) == []
    assert corpus.elements(corpus.entries.named(path.name)).tobytes() == TEXT
    [(_, written)] = export(corpus, list(corpus.entries), tmp_path / "out").files
    assert written.name == path.name
    with Source(written, "").open() as file:
        assert file.read() == TEXT
    assert Source(written, "").codecs == (codec,)


LONG = np.random.default_rng(0).integers(0, 64, 3 * compressed.STREAMED, np.uint8).tobytes()


@pytest.mark.parametrize(
    ("change", "found"),
    [
        (lambda one: one, LONG),
        (lambda one: one + one, LONG + LONG),
        (lambda one: one + gzip.compress(b"more"), LONG + b"more"),
        (lambda one: one + bytes(512), LONG),
        (lambda one: one + b"what is behind", None),
        (lambda one: one[:-1], None),
        (lambda one: one[: len(one) // 2] + bytes(9) + one[len(one) // 2 + 9 :], None),
        (lambda one: one[:-8] + bytes(4) + one[-4:], None),
    ],
)
def test_a_long_gzip_file_gives_all_its_members_and_nothing_else(change, found, tmp_path):
    """libdeflate unpacks its end, and alone would take no notice of what lies behind the first member."""
    path = tmp_path / "a"
    path.write_bytes(change(gzip.compress(LONG, 1)))
    with Source(path, "a").open() as file:
        if found is None:
            with pytest.raises(InputError, match="compressed file that is whole"):
                file.read()
        else:
            assert file.read() == found


@pytest.mark.parametrize("codec", PACK)
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_several_frames_are_one_stream_and_a_cut_anywhere_is_an_error(codec, tmp_path, data):
    """Two members one after another give both texts; without its last bytes the stream raises, never ends early."""
    frames = [PACK[codec](TEXT[:50000]), PACK[codec](TEXT[50000:])]
    path = tmp_path / "a"
    path.write_bytes(b"".join(frames))
    with Source(path, "a").open() as file:
        assert file.read() == TEXT
    keep = data.draw(st.integers(len(frames[0]) + 20, len(b"".join(frames)) - 1))
    path.write_bytes(b"".join(frames)[:keep])
    with pytest.raises(InputError, match="compressed file that is whole"), Source(path, "a").open() as file:
        file.read()


@pytest.mark.parametrize("codec", PACK)
def test_a_bomb_is_refused_before_it_fills_the_disk(codec, tmp_path):
    """200 MiB of nothing from a small file are more than its ratio allows; with --max-ratio they may come out."""
    path = tmp_path / "bomb"
    path.write_bytes(PACK[codec](bytes(200 << 20)))
    with pytest.raises(InputError, match="--max-ratio"):
        drained(path, Limits(max_ratio=100))
    assert drained(path, Limits(max_ratio=1e9)) == 200 << 20


# ---- archives ------------------------------------------------------------------------------------------------------


def test_members_of_archives_are_records_of_their_own(tmp_path):
    """Zip, tar.gz and a zip in a zip: each member goes in by its own format, named ARCHIVE::MEMBER."""
    buffer = io.BytesIO()
    np.save(buffer, np.arange(24.0).reshape(2, 3, 4))
    zipped(tmp_path / "in.zip", {"deep.txt": TEXT})
    zipped(
        tmp_path / "a.zip", {"b/c.txt": TEXT, "v.npy": buffer.getvalue(), "in.zip": (tmp_path / "in.zip").read_bytes()}
    )
    with tarfile.open(tmp_path / "t.tar.gz", "w:gz") as archive:
        archive.add(tmp_path / "in.zip", "x/in.zip")
    corpus, report = ingested([tmp_path / "a.zip", tmp_path / "t.tar.gz"], tmp_path)
    assert errors(report) == []
    assert sorted(names(corpus)) == [
        "a.zip::b/c.txt",
        "a.zip::in.zip::deep.txt",
        "a.zip::v.npy",
        "t.tar.gz::x/in.zip::deep.txt",
    ]
    assert {corpus.elements(e).tobytes() for e in corpus.entries if e.modality == "text"} == {TEXT}
    done = export(corpus, list(corpus.entries), tmp_path / "out")
    assert (tmp_path / "out/a.zip/b/c.txt").read_bytes() == TEXT
    assert not done.refused
    again = ingest([tmp_path / "a.zip", tmp_path / "t.tar.gz"], corpus)
    assert (len(again.unchanged), len(again.ingested)) == (4, 0)


@pytest.mark.parametrize("name", ["../out.txt", "/etc/out.txt", "a/../../out.txt", "C:/out.txt", "..\\out.txt"])
def test_a_member_whose_name_leads_out_is_refused_and_the_others_go_in(name, tmp_path):
    """Nothing is written outside the folder that is unpacked to."""
    home = tmp_path / "home"
    home.mkdir()
    zipped(home / "a.zip", {name: b"out", "in.txt": TEXT})
    with tarfile.open(home / "b.tar", "w") as archive:
        for member, data in ((name, b"out"), ("in.txt", TEXT)):
            info = tarfile.TarInfo(member)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    corpus, report = ingested([home], tmp_path)
    assert names(corpus) == ["a.zip::in.txt", "b.tar::in.txt"]
    assert len(report.refused) == 2
    assert all("leads out" in error for error in errors(report))


def test_links_and_devices_in_archives_are_refused(tmp_path):
    """A symbolic link in a zip or tar is never followed."""
    zipped(tmp_path / "a.zip", {"link": b"/etc/passwd"}, mode=stat.S_IFLNK | 0o777)
    with tarfile.open(tmp_path / "b.tar", "w") as archive:
        for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE):
            info = tarfile.TarInfo(f"member{kind!r}")
            info.type, info.linkname = kind, "/etc/passwd"
            archive.addfile(info)
    corpus, report = ingested([tmp_path / "a.zip", tmp_path / "b.tar"], tmp_path)
    assert names(corpus) == []
    assert len(report.refused) == 5


def test_too_many_members_and_archives_too_deep_are_refused(tmp_path):
    """A million tiny members, a zip of zips of zips: one clear error, what came before goes in."""
    zipped(tmp_path / "many.zip", {f"{k}.txt": b"tiny" for k in range(50)})
    data = TEXT
    for _ in range(6):
        data = zipped(tmp_path / "deep.zip", {"deeper.zip": data}).read_bytes()
    corpus, report = ingested(
        [tmp_path / "many.zip", tmp_path / "deep.zip"], tmp_path, Options(limits=Limits(max_members=20))
    )
    assert len(corpus.entries) == 20
    assert len(report.refused) == 2
    assert "within one another" in errors(report)[0]
    assert "--max-members" in errors(report)[1]


def test_a_damaged_archive_gives_what_is_whole_and_says_what_is_not(tmp_path):
    """A flipped byte in one member refuses that member; a cut tar gives the members before the cut."""
    path = zipped(tmp_path / "a.zip", {"one.txt": os.urandom(5000).hex().encode(), "two.txt": TEXT})
    data = bytearray(path.read_bytes())
    data[3000] ^= 1
    path.write_bytes(data)
    with tarfile.open(tmp_path / "b.tar.gz", "w:gz") as archive:
        for name, size in (("one.txt", 3000), ("two.txt", 400000)):
            info = tarfile.TarInfo(name)
            info.size = size
            archive.addfile(info, io.BytesIO(os.urandom(size // 2).hex().encode()))
    (tmp_path / "b.tar.gz").write_bytes((tmp_path / "b.tar.gz").read_bytes()[:-50000])
    corpus, report = ingested([path, tmp_path / "b.tar.gz"], tmp_path)
    assert names(corpus) == ["a.zip::two.txt", "b.tar.gz::one.txt"]
    assert len(report.refused) == 2


# ---- beside --------------------------------------------------------------------------------------------------------


def test_files_given_one_by_one_bring_what_belongs_to_them(tmp_path):
    """A picture given alone has its caption; a caption given alone is a text; all slices of a series are one scan."""
    for number in range(4):
        tifffile.imwrite(tmp_path / f"slice{number}.tif", np.full((5, 6), number, np.uint16))
    Image.fromarray(np.arange(20, dtype=np.uint8).reshape(4, 5)).save(tmp_path / "p.png")
    (tmp_path / "p.txt").write_text("a cat, asleep\n")
    corpus, report = ingested([tmp_path / "p.png", *sorted(tmp_path.glob("slice*"))], tmp_path)
    assert errors(report) == []
    assert [(entry.modality, entry.shape) for entry in corpus.entries] == [("scan", (4, 5, 6)), ("image", (4, 5))]
    assert ".txt" in corpus.header(corpus.entries.named("p.png")).metadata["sidecars"]
    ingest([tmp_path / "p.txt", tmp_path / "slice1.tif"], corpus)
    assert names(corpus)[2:] == ["p.txt", "slice1.tif"]


def test_a_folder_that_is_one_scan_has_the_archives_name_within_it(tmp_path):
    """Slices at the root of a zip: the record's name holds, whatever folder they were unpacked to."""
    slices = {}
    for number in range(4):
        tifffile.imwrite(buffer := io.BytesIO(), np.full((5, 6), number, np.uint16))
        slices[f"slice{number}.tif"] = buffer.getvalue()
    zipped(tmp_path / "z.zip", slices)
    corpus, _ = ingested([tmp_path / "z.zip"], tmp_path)
    assert names(corpus) == ["z.zip::z"]
    assert len(ingest([tmp_path / "z.zip"], corpus).unchanged) == 1


def test_notes_beside_an_image_or_a_scan_join_its_header_and_come_back(tmp_path):
    """A caption and a .json beside a picture, BIDS' .json and .bval beside a scan; beside texts they are texts."""
    home = tmp_path / "home"
    home.mkdir()
    Image.fromarray(np.arange(20, dtype=np.uint8).reshape(4, 5)).save(home / "p.png")
    (home / "p.txt").write_text("a cat, asleep\n")
    (home / "p.json").write_text('{"label": 3}')
    nibabel.save(nibabel.Nifti1Image(np.arange(24, dtype=np.int16).reshape(2, 3, 4), np.eye(4)), home / "s.nii.gz")
    (home / "s.json").write_text('{"RepetitionTime": 2.0}')
    (home / "s.bval").write_text("0 1000\n")
    (home / "t.txt").write_text("text\n")
    (home / "t.json").write_text("[1]")
    corpus, report = ingested([home], tmp_path)
    assert errors(report) == []
    assert names(corpus) == ["p.png", "s.nii.gz", "t.json", "t.txt"]
    assert corpus.header(corpus.entries.named("p.png")).metadata["sidecars"] == {
        ".json": '{"label": 3}',
        ".txt": "a cat, asleep\n",
    }
    assert set(corpus.header(corpus.entries.named("s.nii.gz")).metadata["sidecars"]) == {".json", ".bval"}
    export(corpus, list(corpus.entries), tmp_path / "out")
    assert {p.name for p in (tmp_path / "out").iterdir()} == {p.name for p in home.iterdir()}
    for name in ("p.txt", "p.json", "s.json", "s.bval", "t.txt", "t.json"):
        assert (tmp_path / "out" / name).read_bytes() == (home / name).read_bytes()


def test_a_mask_beside_a_scan_a_fill_value_and_nan_mark_what_is_missing(tmp_path):
    """Where NAME.missing.npy is not 0, where the value is --fill, and where NaN stands: all of these are missing."""
    values = np.arange(60, dtype=np.float32).reshape(3, 4, 5)
    values[0, 0, 0] = np.nan
    mask = np.zeros(values.shape, np.uint8)
    mask[1] = 7
    np.save(tmp_path / "a.npy", values)
    np.save(tmp_path / "a.missing.npy", mask)
    corpus, report = ingested([tmp_path / "a.npy"], tmp_path, Options(fill=59.0))
    assert errors(report) == []
    [entry] = corpus.entries
    assert (corpus.missing(entry) == (np.isnan(values) | (mask > 0) | (values == 59))).all()
    assert (np.nan_to_num(corpus.elements(entry)) == np.nan_to_num(values)).all()
    assert verify(corpus) == []
    export(corpus, [entry], tmp_path / "out")
    again = Corpus.create(tmp_path / "again", 34)
    ingest([tmp_path / "out/a.npy"], again)
    assert (again.missing(again.entries[0]) == corpus.missing(entry)).all()


def test_a_mask_of_another_shape_refuses_the_scan(tmp_path):
    """Nothing is guessed about which elements it means."""
    np.save(tmp_path / "a.npy", np.zeros((3, 4, 5), np.uint8))
    np.save(tmp_path / "a.missing.npy", np.zeros((3, 4), np.uint8))
    corpus, report = ingested([tmp_path / "a.npy"], tmp_path)
    assert names(corpus) == []
    assert "mask (3, 4)" in errors(report)[0]


def test_a_window_makes_eight_bits_that_say_what_they_were(tmp_path):
    """--as uint8 --window: linear between the bounds, clipped outside; slope and intercept give the values back."""
    volume = np.arange(-2000, 2000, 10, dtype=np.int16).reshape(10, 8, 5)
    image = nibabel.Nifti1Image(volume, np.eye(4))
    image.header.set_slope_inter(2.0, 100.0)
    nibabel.save(image, tmp_path / "ct.nii")
    corpus, report = ingested([tmp_path / "ct.nii"], tmp_path, Options(window=(-1000.0, 400.0)))
    [entry] = corpus.entries
    assert (errors(report), entry.dtype) == ([], "|u1")
    physical = volume.transpose() * 2.0 + 100
    expected = np.rint((physical.clip(-1000, 400) + 1000) / 1400 * 255)
    assert (corpus.elements(entry) == expected).all()
    back = corpus.elements(entry) * entry.geometry.slope + entry.geometry.intercept
    assert np.abs(back - physical.clip(-1000, 400)).max() <= 1400 / 255 / 2 + 1e-9
    assert corpus.header(entry).metadata["window"] == [-1000.0, 400.0]
    [(_, written)] = export(corpus, [entry], tmp_path / "out").files
    assert np.allclose(nibabel.load(written).get_fdata().transpose(), back, atol=1e-3)
    assert "other options" in errors(ingest([tmp_path / "ct.nii"], corpus))[0]
    assert len(ingest([tmp_path / "ct.nii"], corpus, Options(window=(-1000.0, 400.0))).unchanged) == 1


# ---- odd files -----------------------------------------------------------------------------------------------------


def test_pipes_sockets_broken_and_cyclic_links_are_reported_and_nothing_hangs(tmp_path):
    """Each is one line of the report; a link to a folder beside is followed, one to a folder above is not."""
    home = tmp_path / "home"
    (home / "sub").mkdir(parents=True)
    (home / "sub/a.txt").write_bytes(TEXT)
    (tmp_path / "other").mkdir()
    (tmp_path / "other/b.txt").write_bytes(TEXT + b"b")
    os.mkfifo(home / "pipe")
    (home / "broken").symlink_to(home / "nowhere")
    (home / "sub/up").symlink_to(home)
    (home / "beside").symlink_to(tmp_path / "other")
    with socket.socket(socket.AF_UNIX) as server:
        os.chdir(home)
        server.bind("socket")
        corpus, report = ingested([home], tmp_path)
    assert names(corpus) == ["beside/b.txt", "sub/a.txt"]
    assert sorted(os.path.basename(str(path)) for path, _ in report.refused) == ["broken", "pipe", "socket", "up"]


# ---- in parallel ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def heap(tmp_path_factory):
    """A folder of many small files of three kinds, one of them bad."""
    home = tmp_path_factory.mktemp("heap")
    rng = np.random.default_rng(0)
    for number in range(60):
        folder = home / str(number % 5)
        folder.mkdir(exist_ok=True)
        (folder / f"t{number}.txt").write_text(f"text {number}\n" * 40)
        np.save(folder / f"v{number}.npy", rng.integers(0, 999, (6, 7, 8)).astype(np.int16))
    zipped(home / "0/z.zip", {f"m{k}.txt": TEXT[k:] for k in range(3)})
    (home / "3/bad.npy").write_bytes(b"\x93NUMPY\x01\x00v\x00nonsense")
    return home


def rows(corpus):
    return [entry.row() for entry in corpus.entries]


def test_processes_give_the_same_corpus_as_one(heap, tmp_path, monkeypatch):
    """With two workers the same records stand at the same addresses, and the same file is refused."""
    monkeypatch.setattr(parallel, "TASK_SOURCES", 16)
    alone, said = ingested([heap], tmp_path)
    (tmp_path / "two").mkdir()
    both, report = ingested([heap], tmp_path / "two", workers=Workers(2))
    assert errors(report) == errors(said)
    assert len(said.refused) == 1
    assert rows(both) == rows(alone)
    assert verify(both) == []
    again = ingest([heap], both, workers=Workers(2))
    assert (len(again.ingested), len(again.unchanged)) == (0, len(alone.entries))


def test_a_reader_that_crashes_its_process_costs_that_file_alone(heap, tmp_path, monkeypatch):
    """A worker that dies of one file (a fault in a decoder): that file is refused by name, all others go in."""
    monkeypatch.setattr(parallel, "TASK_SOURCES", 16)
    monkeypatch.setattr(parallel, "_read_small", crashing.read_small)
    corpus, report = ingested([heap], tmp_path, workers=Workers(2))
    assert len(report.refused) == 2
    assert any("t7.txt" in error and "crash" in error for error in errors(report))
    assert len(corpus.entries) == 122


def test_what_is_big_is_read_here_and_what_comes_back_is_bounded(heap, tmp_path, monkeypatch):
    """However small the limits on what workers get and give back, the corpus is the same."""
    alone, _ = ingested([heap], tmp_path)
    monkeypatch.setattr(parallel, "TASK_BYTES", 1000)
    monkeypatch.setattr(parallel, "RETURN_BYTES", 700)
    (tmp_path / "two").mkdir()
    both, _ = ingested([heap], tmp_path / "two", workers=Workers(2))
    assert rows(both) == rows(alone)


def test_a_file_of_many_games_is_read_in_pieces(tmp_path, monkeypatch):
    """Pieces of one file go to the workers; records and refusals come back in the file's order."""
    monkeypatch.setattr(parallel, "CUT_BYTES", 1000)
    games = [f'[Event "{k}"]\n\n1. e4 e5 2. Nf3 {"Nc6" if k % 50 else "Ke4"} *\n\n' for k in range(600)]
    (tmp_path / "games.pgn").write_text("".join(games))
    alone, said = ingested([tmp_path / "games.pgn"], tmp_path)
    (tmp_path / "two").mkdir()
    both, report = ingested([tmp_path / "games.pgn"], tmp_path / "two", workers=Workers(2))
    assert rows(both) == rows(alone)
    assert errors(report) == errors(said)
    assert (len(alone.entries), len(said.refused)) == (588, 12)


def test_a_dry_run_writes_nothing_and_says_the_same(heap, tmp_path):
    """The records that would go in are those that go in."""
    corpus = Corpus.create(tmp_path / "corpus", 34)
    before = sorted(p for p in (tmp_path / "corpus").rglob("*"))
    planned = ingest([heap], corpus, dry_run=True)
    assert sorted(p for p in (tmp_path / "corpus").rglob("*")) == before
    done = ingest([heap], corpus)
    assert [(p, h.record) for p, h in planned.planned] == [(p, e.record) for p, e in done.ingested]
    assert json.dumps(errors(planned)) == json.dumps(errors(done))


# ---- other formats -------------------------------------------------------------------------------------------------


def test_a_compressed_file_and_the_plain_one_beside_it_both_come_back(tmp_path):
    """Writing a.txt.gz leaves the a.txt that was written before it alone."""
    (tmp_path / "home").mkdir()
    (tmp_path / "home/a.txt").write_bytes(b"another text\n")
    (tmp_path / "home/a.txt.gz").write_bytes(gzip.compress(TEXT))
    corpus, _ = ingested([tmp_path / "home"], tmp_path)
    export(corpus, list(corpus.entries), tmp_path / "out")
    assert (tmp_path / "out/a.txt").read_bytes() == b"another text\n"
    assert gzip.decompress((tmp_path / "out/a.txt.gz").read_bytes()) == TEXT
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"a.txt", "a.txt.gz"}


def test_a_record_can_be_written_in_another_format(tmp_path):
    """--as: a scan as npy, Zarr, TIFF and NIfTI, a picture as PNG and TIFF, a game as PGN: equal by any reader."""
    volume = np.arange(60, dtype=np.int16).reshape(3, 4, 5) - 30
    picture = np.arange(60, dtype=np.uint16).reshape(4, 5, 3) * 999
    nrrd.write(str(tmp_path / "v.nrrd"), volume.transpose(), {"spacings": [1.0, 2.0, 3.0]})
    tifffile.imwrite(tmp_path / "p.tif", picture, photometric="rgb")
    (tmp_path / "g.pgn").write_text('[Event "x"]\n\n1. e4 e5 *\n')
    corpus, report = ingested([tmp_path / name for name in ("v.nrrd", "p.tif", "g.pgn")], tmp_path)
    assert errors(report) == []

    def written(record, kind):
        done = export_as(corpus, [corpus.entries.named(record)], tmp_path / kind, kind)
        assert [str(error) for _, error in done.refused] == []
        return done.files[0][1]

    assert (np.load(written("v.nrrd", "npy")) == volume).all()
    assert (zarr.open_array(written("v.nrrd", "zarr"), mode="r")[...] == volume).all()
    assert (tifffile.imread(written("v.nrrd", "tiff")) == volume).all()
    image = nibabel.load(written("v.nrrd", "nifti"))
    assert (np.asarray(image.dataobj).transpose() == volume).all()
    assert image.header.get_zooms() == (1.0, 2.0, 3.0)
    assert (imagecodecs.png_decode(written("p.tif", "png").read_bytes()) == picture).all()
    assert (tifffile.imread(written("p.tif", "tiff")) == picture).all()
    assert "1. e4 e5" in written("g.pgn#1", "pgn").read_text()
    refused = export_as(corpus, list(corpus.entries), tmp_path / "txt", "txt").refused
    assert len(refused) == 3
    assert all("expected a record that a .txt can hold" in str(error) for _, error in refused)
