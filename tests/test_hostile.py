"""What is on a disk to do harm, or looks like it: nothing hangs, and what lies beside it goes in."""

import io
import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import zipfile

import numpy as np
import pyarrow as pa
import pytest
import tifffile
import zarr
from PIL import Image
from pyarrow import parquet as pq

from aunn_data.corpus import Corpus
from aunn_data.errors import InputError
from pipelines.cli.data import main as data
from pipelines.export import export
from pipelines.ingest import ingest
from pipelines.records import each, leaves, records_of
from pipelines.source import Source
from pipelines.walk import MOST_TIMES, walk
from tests.commands import run

TEXT = b"a text of some words\n"


@pytest.fixture(autouse=True)
def bounded():
    """What hangs fails."""

    def late(*_):
        raise TimeoutError("this hangs")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(30)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


def found_in(folder):
    """Names of records in a folder, and what errors say."""
    names, errors = [], []
    for source in walk([folder], "/nowhere"):
        for leaf in [source] if isinstance(source, InputError) else leaves(source):
            try:
                records = [leaf] if isinstance(leaf, InputError) else list(each(records_of(leaf)))
            except InputError as error:
                records = [error]
            errors += [str(record) for record in records if isinstance(record, InputError)]
            names += [record.header.record for record in records if not isinstance(record, InputError)]
    return names, errors


# ---- folders -------------------------------------------------------------------------------------------------------


def test_folders_deeper_than_python_recurses_go_in_and_come_back(tmp_path):
    """1,200 folders within one another: the file in the last one is a record, and so is the one beside the first."""
    home, deep = tmp_path / "home", "d/" * 1200
    (home / "beside").mkdir(parents=True)
    (home / "beside/b.txt").write_bytes(TEXT * 2)
    try:
        os.chdir(home)
        for _ in range(1200):
            os.mkdir("d")
            os.chdir("d")
        with open("deep.txt", "wb") as file:
            file.write(TEXT)
        os.chdir(tmp_path)
        corpus = Corpus.create(tmp_path / "corpus", 34)
        assert ingest([home], corpus).refused == []
        assert {entry.record for entry in corpus.entries} == {f"{deep}deep.txt", "beside/b.txt"}
        done = export(corpus, list(corpus.entries), tmp_path / "out")
        assert done.refused == []
        assert {path.read_bytes() for _, path in done.files} == {TEXT, TEXT * 2}
    finally:
        os.chdir("/")
        subprocess.run(["rm", "-rf", home, tmp_path / "out"], check=True)  # Python's rmtree recurses


def test_a_link_to_itself_costs_itself_alone(tmp_path):
    """The folder that it lies in goes in all the same."""
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "a.txt").write_bytes(TEXT)
    names, [error] = found_in(tmp_path)
    assert names == ["a.txt"]
    assert "symbolic links" in error


def test_folders_that_link_to_one_another_do_not_multiply(tmp_path):
    """Ten folders, each with links to all: millions of paths, of which each folder's first ones are walked."""
    for one in range(10):
        (tmp_path / f"f{one}").mkdir()
        (tmp_path / f"f{one}/a.txt").write_bytes(TEXT)
        for other in range(10):
            (tmp_path / f"f{one}/to{other}").symlink_to(tmp_path / f"f{other}")
    names, errors = found_in(tmp_path)
    assert {f"f{one}/a.txt" for one in range(10)} <= set(names)
    assert len(names) <= 10 * (MOST_TIMES + 1)
    assert any("other places" in error for error in errors)


def test_pipes_where_readers_look_for_more_are_never_opened(tmp_path):
    """As a note, a mask, a NIfTI header, a Zarr document and chunk: each is reported, and the files beside go in."""
    np.save(tmp_path / "v.npy", np.arange(24.0).reshape(2, 3, 4))
    (tmp_path / "x.img").write_bytes(bytes(400))
    (tmp_path / "z.zarr").mkdir()
    document = {"shape": [4], "chunks": [4], "dtype": "|u1", "compressor": None, "fill_value": 0, "order": "C"}
    (tmp_path / "z.zarr/.zarray").write_text(json.dumps({"zarr_format": 2, "filters": None, **document}))
    (tmp_path / "y.zarr").mkdir()
    for pipe in ("v.json", "v.missing.npy", "x.hdr", "meta.json", ".zattrs", "z.zarr/0", "y.zarr/.zarray"):
        os.mkfifo(tmp_path / pipe)
    names, errors = found_in(tmp_path)
    assert "v.npy" in names
    for pipe in ("v.json", "v.missing.npy", "x.hdr", "meta.json", "z.zarr::0", "y.zarr/.zarray"):
        assert any(f"{pipe}:" in error for error in errors), pipe


# ---- archives ------------------------------------------------------------------------------------------------------


def test_a_tar_member_of_an_exabyte_ends_where_the_file_ends(tmp_path):
    """tarfile would look for its end block by block for years."""
    info = tarfile.TarInfo("huge")
    info.size = 1 << 60
    (tmp_path / "a.tar").write_bytes(info.tobuf(tarfile.GNU_FORMAT) + bytes(2000))
    names, errors = found_in(tmp_path)
    assert names == []
    assert any("ends within a member" in error for error in errors)


def test_a_zip_that_begins_with_an_array_is_no_npz(tmp_path):
    """All its members go in, each by its own format."""
    np.save(array := io.BytesIO(), np.arange(6))
    with zipfile.ZipFile(tmp_path / "all.zip", "w") as archive:
        archive.writestr("a.npy", array.getvalue())
        archive.writestr("b.txt", TEXT)
    assert found_in(tmp_path) == (["all.zip::a.npy", "all.zip::b.txt"], [])


def test_what_is_said_of_a_bad_member_does_not_show_our_scratch(tmp_path):
    """A file where another member needs a folder: an error of the archive, without a path of ours."""
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("a.txt", TEXT)
        archive.writestr("a.txt/b", TEXT)
    names, [error] = found_in(tmp_path)
    assert names == ["a.zip::a.txt"]
    assert "aunn-" not in error


# ---- claims --------------------------------------------------------------------------------------------------------


def test_an_ome_text_that_names_billions_of_planes_takes_no_memory(tmp_path):
    """Its pages go in as what they are without it."""
    pixels = (
        '<Image><Pixels DimensionOrder="XYZCT" SizeX="5" SizeY="4" SizeZ="16777216" SizeC="1" SizeT="1" '
        'Type="uint16"><TiffData/></Pixels></Image>'
    )
    tifffile.imwrite(
        tmp_path / "a.tif", np.zeros((4, 5), "u2"), description=f"<OME>{pixels * 200}</OME>", metadata=None
    )
    source = Source(tmp_path / "a.tif", "a.tif")
    [record] = records_of(source)
    assert record.elements.shape == (4, 5)


def test_a_flipped_bit_of_a_parquet_footer_ends_no_process(tmp_path, shared_data):
    """Two that once did, one in statistics, one in the schema: each is refused, and the file beside them goes in."""
    pq.write_table(pa.table({"text": ["a", None, "", "ddd"]}), tmp_path / "statistics.parquet")
    shutil.copyfile(shared_data / "text/parquet/nested_lists.snappy.parquet", tmp_path / "schema.parquet")
    histograms = (tmp_path / "statistics.parquet").read_bytes().rindex(bytes([0x19, 0x06, 0x19, 0x26, 2, 6]))
    for name, at, bit in (("statistics", histograms + 1, 5), ("schema", 276, 0)):
        damaged = bytearray((tmp_path / f"{name}.parquet").read_bytes())
        damaged[at] ^= 1 << bit
        (tmp_path / f"{name}.parquet").write_bytes(damaged)
    (tmp_path / "ok.txt").write_bytes(TEXT)
    asked = ["ingest", tmp_path, "--corpus", tmp_path / "corpus", "--workers", "1", "--json"]
    done = subprocess.run([sys.executable, "-m", "pipelines.cli.data", *asked], capture_output=True, text=True)
    assert done.returncode == 1, done.stderr
    said = json.loads(done.stdout)
    assert [one["record"] for one in said["ingested"]] == ["ok.txt"]
    errors = {os.path.basename(one["source"]): one["error"] for one in said["refused"]}
    assert "size mismatch" in errors["statistics.parquet"]
    assert "row groups of 1 columns" in errors["schema.parquet"]


def test_an_array_of_more_axes_than_there_are_is_refused(tmp_path):
    """Not as a fault of the reader."""
    document = {"shape": [1] * 2000, "chunks": [1] * 2000, "dtype": "<f8", "compressor": None, "fill_value": 0}
    (tmp_path / "a.zarr").mkdir()
    (tmp_path / "a.zarr/.zarray").write_text(json.dumps({"zarr_format": 2, "order": "C", "filters": None, **document}))
    _, [error] = found_in(tmp_path)
    assert "axes" in error


# ---- names ---------------------------------------------------------------------------------------------------------


def test_a_name_that_is_no_utf8_is_reported_by_its_bytes(tmp_path):
    """The other files go in."""
    with open(os.fsencode(tmp_path) + b"/bad\xff.txt", "wb") as file:
        file.write(TEXT)
    (tmp_path / "ok.txt").write_bytes(TEXT)
    names, [error] = found_in(tmp_path)
    assert names == ["ok.txt"]
    assert "bad\\xff.txt" in error


def test_very_many_refusals_are_told_by_their_kind(tmp_path):
    """The first few by name, how many more there are, and a line end in a name is no new line of the report."""
    for number in range(80):
        (tmp_path / f"empty{number:02}\nrefused.txt").touch()
    (tmp_path / "unknown").write_bytes(bytes(9))
    corpus = tmp_path / "corpus"
    _, _, said = run(data, "ingest", tmp_path, "--corpus", corpus)
    lines = [line for line in said.splitlines() if line.startswith("refused")]
    assert len(lines) == 7
    assert "75 more" in lines[-1]
    assert any("unknown" in line for line in lines)
    assert len(json.loads(run(data, "ingest", tmp_path, "--corpus", corpus, "--json")[1])["refused"]) == 81


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_file_that_gets_another_suffix_overwrites_no_neighbour(tmp_path, overwrite):
    """A JPEG comes back as .jpg.png: not over a .jpg.png that is there, be it the user's or another record's."""
    (tmp_path / "home").mkdir()
    for shade, (name, format) in enumerate({"p.jpg.png": "png", "p.jpg": "jpeg", "q.jpg": "jpeg"}.items()):
        Image.new("L", (8, 8), shade * 50).save(tmp_path / "home" / name, format)
    corpus = Corpus.create(tmp_path / "corpus", 34)
    for name in ("p.jpg.png", "p.jpg", "q.jpg"):
        ingest([tmp_path / "home" / name], corpus)
    (tmp_path / "out").mkdir()
    (tmp_path / "out/q.jpg.png").write_bytes(b"the user's own")
    done = export(corpus, list(corpus.entries), tmp_path / "out", overwrite)
    refused = ["p.jpg"] if overwrite else ["p.jpg", "q.jpg"]
    assert [source for source, _ in done.refused] == refused
    assert np.asarray(Image.open(tmp_path / "out/p.jpg.png")).max() == 0
    assert ((tmp_path / "out/q.jpg.png").read_bytes() == b"the user's own") is not overwrite
    assert len(list((tmp_path / "out").iterdir())) == 2


def test_a_label_array_is_found_missing_when_only_its_image_went_in(tmp_path):
    """A writer killed between the two: the same command again ingests the rest."""
    group = zarr.open_group(str(tmp_path / "i.zarr"), mode="w", zarr_format=2)
    axes, scales = [{"name": "y"}, {"name": "x"}], [{"path": "0"}]
    group.attrs["multiscales"] = [{"version": "0.4", "axes": axes, "datasets": scales}]
    for path in ("0", "labels/cells/0"):
        group.create_array(path, shape=(3, 4), dtype="u1", chunks=(3, 4))[...] = 1 + len(path)
    source = next(walk([tmp_path / "i.zarr"], "/nowhere"))
    image, _ = sorted(records_of(source), key=lambda record: len(record.header.record))
    corpus = Corpus.create(tmp_path / "corpus", 34)
    corpus.append([image], [source.sha256])
    report = ingest([tmp_path / "i.zarr"], corpus)
    assert ([e.record for _, e in report.ingested], len(report.unchanged)) == (["i.zarr::labels/cells/0"], 1)
