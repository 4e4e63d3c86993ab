"""The commands as a user types them: results, --json keys, exit codes, one clear line for whatever is wrong."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from pipelines import fills
from pipelines.cli.data import main as data
from pipelines.cli.model import main as model

TEXT = "To be, or not to be, that is the question:\n" * 40


@pytest.fixture
def things(tmp_path, monkeypatch):
    """A folder of four good files and five that cannot go in; the working directory is empty beside it."""
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "things"
    (folder / "deep").mkdir(parents=True)
    (folder / "notes.txt").write_text(TEXT)
    rng = np.random.default_rng(0)
    np.save(folder / "deep" / "scan.npy", np.cumsum(rng.integers(-9, 10, (9, 12, 14)), axis=0).astype("<i2"))
    Image.fromarray(rng.integers(0, 256, (20, 30, 3), np.uint8)).save(folder / "picture.png")
    (folder / "games.pgn").write_text('[Event "a"]\n[Result "1-0"]\n\n1. e4 e5 2. Qh5 Nc6 3. Bc4 Nf6 4. Qxf7# 1-0\n\n')
    (folder / "empty.txt").touch()
    (folder / "cut.png").write_bytes((folder / "picture.png").read_bytes()[:200])
    (folder / "cut.npy").write_bytes((folder / "deep" / "scan.npy").read_bytes()[:-10])
    (folder / "unknown.bin").write_bytes(bytes(range(256)) * 9)
    os.mkfifo(folder / "pipe")
    return folder


BAD = {"empty.txt", "cut.png", "cut.npy", "unknown.bin", "pipe"}


def run(group, *args):
    """(exit code, stdout, stderr) of a command."""
    result = CliRunner().invoke(group, [str(a) for a in args])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exc_info
    return result.exit_code, result.stdout, result.stderr


def run_json(group, *args):
    """(exit code, the one JSON document) of a command with --json."""
    code, out, _ = run(group, *args, "--json")
    return code, json.loads(out)


def test_ingest_takes_the_good_and_reports_the_bad(things):
    """Exit 1; each bad file is refused with where, expected, found and what to do; the good ones beside them are in."""
    code, report = run_json(data, "ingest", "things")
    assert code == 1
    assert set(report) >= {"corpus", "version", "bytes", "ingested", "unchanged", "refused"}
    assert {r["record"] for r in report["ingested"]} == {"notes.txt", "deep/scan.npy", "picture.png", "games.pgn#1"}
    assert {Path(r["source"]).name for r in report["refused"]} == BAD
    for refused in report["refused"]:
        assert "\n" not in refused["error"]
        assert Path(refused["source"]).name in refused["error"]
        assert "expected" in refused["error"]
        assert "found" in refused["error"]


def test_ingesting_twice_adds_nothing(things):
    """The second time every record is unchanged, and neither version nor addresses move."""
    _, first = run_json(data, "ingest", "things")
    _, second = run_json(data, "ingest", "things")
    assert second["ingested"] == []
    assert {r["record"] for r in second["unchanged"]} == {r["record"] for r in first["ingested"]}
    assert second["version"] == first["version"]


def test_changed_content_under_a_known_name_is_refused(things):
    """Committed bytes never change: the changed file is refused with the way out, which then works."""
    run(data, "ingest", "things/notes.txt")
    (things / "notes.txt").write_text("other")
    code, report = run_json(data, "ingest", "things/notes.txt")
    assert code == 1
    assert "--prefix" in report["refused"][0]["error"]
    code, report = run_json(data, "ingest", "things/notes.txt", "--prefix", "new/")
    assert (code, report["ingested"][0]["record"]) == (0, "new/notes.txt")


def test_two_sources_of_one_name_are_told_apart(things):
    """Of two files that would get one record name the second is refused by name."""
    (things / "deep" / "notes.txt").write_text("other")
    code, report = run_json(data, "ingest", "things/notes.txt", "things/deep/notes.txt")
    assert code == 1
    assert [r["record"] for r in report["ingested"]] == ["notes.txt"]
    assert "--prefix" in report["refused"][0]["error"]


def test_export_gives_everything_back(things):
    """Text byte for byte, pixels and voxels value for value, games move for move."""
    run(data, "ingest", "things")
    code, done = run_json(data, "export", "--out", "back")
    assert (code, done["refused"]) == (0, [])
    path = {f["record"]: f["path"] for f in done["files"]}
    assert Path(path["notes.txt"]).read_text() == TEXT
    assert (np.load(path["deep/scan.npy"]) == np.load(things / "deep" / "scan.npy")).all()
    assert (np.asarray(Image.open(path["picture.png"])) == np.asarray(Image.open(things / "picture.png"))).all()
    assert "Qxf7#" in Path(path["games.pgn#1"]).read_text()
    code, again = run_json(data, "export", "notes.txt", "--out", "back")
    assert code == 1
    assert "--overwrite" in again["refused"][0]["error"]


def test_read_lookup_and_ls_agree(things):
    """ls gives the addresses, read the bytes there, lookup what they are."""
    run(data, "ingest", "things")
    _, listed = run_json(data, "ls")
    keys = {"record", "source", "modality", "format", "header_start", "payload_start", "payload_stop", "shape", "dtype"}
    rows = {r["record"]: r for r in listed["records"]}
    assert all(set(r) >= keys | {"sha256"} for r in rows.values())
    notes = rows["notes.txt"]
    code, out, _ = run(data, "read", f"{notes['payload_start']}:{notes['payload_stop']}")
    assert (code, out) == (0, TEXT)
    _, header, _ = run(data, "read", f"{notes['header_start']}:{notes['header_start'] + 5}", "--hex")
    assert "AUNN1" in header
    _, found = run_json(data, "lookup", notes["payload_start"] + 7)
    assert (found["record"], found["part"], found["element"], found["plane"]) == ("notes.txt", "payload", [7], 0)
    scan = rows["deep/scan.npy"]
    _, found = run_json(data, "lookup", scan["payload_start"] + (2 << 8 | 3 << 4 | 5))
    assert (found["part"], found["element"]) == ("payload", [2, 3, 5])
    assert run_json(data, "lookup", scan["header_start"])[1]["part"] == "header"
    assert run_json(data, "lookup", scan["payload_start"] + 15)[1]["part"] == "gap"


def test_build_corpus_checks_holds_out_and_writes_the_card(things):
    """Without a file it verifies, adds default holdouts where there are none, and writes CORPUS.md and corpus.json."""
    run(data, "ingest", "things")
    code, card = run_json(data, "build-corpus")
    assert code == 0
    assert card["records"] == 4
    assert card["holdouts"]["default"]["bytes"] > 0
    assert json.loads(Path("corpus/corpus.json").read_text())["records"] == 4
    assert "| scan | 1 |" in Path("corpus/CORPUS.md").read_text()
    _, again = run_json(data, "build-corpus")
    assert again["holdouts"] == card["holdouts"]


def test_a_corpus_toml_makes_the_whole_corpus(things, tmp_path):
    """Sources with options, width and holdouts from one file; the same command again changes nothing."""
    for bad in BAD:
        (things / bad).unlink()
    plan = tmp_path / "corpus.toml"
    plan.write_text(
        'corpus = "made"\naddress_bits = 40\n'
        '[[source]]\npath = "things/deep"\nlayout = "morton"\nprefix = "scans/"\n'
        '[[source]]\npath = "things/games.pgn"\nchess = "pgn"\n'
        '[[holdout]]\nname = "slab"\nrecord = "scans/scan.npy"\nregion = ["z=3:5"]\n'
    )
    for _ in range(2):
        code, card = run_json(data, "build-corpus", plan)
        assert (code, card["address_bits"], card["records"]) == (0, 40, 2)
        assert card["holdouts"] == {"slab": {"regions": 1, "records": 1, "bytes": 2 * 12 * 14}}
    _, listed = run_json(data, "ls", "--corpus", "made")
    assert [(r["record"], r["layout"], r["format"]) for r in listed["records"]] == [
        ("scans/scan.npy", "morton", "npy"),
        ("games.pgn#1", "packed", "pgn"),
    ]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("adress_bits = 40", "did you mean 'address_bits'"),
        ('[[source]]\npath = "things"\nlayuot = "padded"', "did you mean 'layout'"),
        ('[[source]]\nlayout = "padded"', "the key 'path'"),
        ('[[source]]\npath = "things"\nlayout = "dense"', "padded or packed or morton"),
        ('address_bits = "40"', "expected int"),
        ("address_bits = ", "readable TOML"),
    ],
)
def test_a_misspelt_corpus_toml_is_exit_2_with_a_hint(things, tmp_path, line, said):
    """An unknown key, a missing one, a wrong kind and broken TOML: exit 2, one line, before anything is made."""
    (tmp_path / "corpus.toml").write_text(line)
    code, _, err = run(data, "build-corpus", "corpus.toml")
    assert code == 2
    assert said in err
    assert len(err.strip().splitlines()) == 1
    assert not (tmp_path / "corpus").exists()


def test_holdouts_outside_the_record_are_exit_2(things):
    """A region outside the record, an unknown axis or record: exit 2, one line that names the axes and their sizes."""
    run(data, "ingest", "things")
    for region, record in (("z=0:99", "deep/scan.npy"), ("w=1", "deep/scan.npy"), ("z=1", "scan.npy")):
        code, _, err = run(data, "holdout", "h", "--record", record, "--region", region)
        assert code == 2
        assert len(err.strip().splitlines()) == 1
        assert "z=9, y=12, x=14" in err or "deep/scan.npy" in err
    assert run_json(data, "holdout")[1] == {"holdouts": []}


def test_what_is_no_corpus_is_exit_2(things):
    """Every verb on a folder that is no corpus ends with exit 2 and says how to name or make one."""
    for verb in (
        ["info"],
        ["ls"],
        ["lookup", 3],
        ["read", "0:4"],
        ["export"],
        ["verify"],
        ["holdout"],
        ["build-corpus"],
    ):
        code, _, err = run(data, *verb, "--corpus", "things")
        assert code == 2, verb
        assert "--corpus" in err


def test_a_damaged_corpus_is_exit_3(things):
    """A changed byte in the store: verify prints the record and its span and ends with 3; so does build-corpus."""
    run(data, "ingest", "things/notes.txt")
    shard = Path("corpus/bytes/c/0")
    raw = bytearray(shard.read_bytes())
    raw[60] ^= 1
    shard.write_bytes(raw)
    code, found = run_json(data, "verify")
    assert (code, found["ok"]) == (3, False)
    assert found["faults"][0]["record"] == "notes.txt"
    assert run(data, "build-corpus")[0] == 3


def test_a_full_address_space_is_one_clear_line(things):
    """What has no room is refused with the way out; what still fits goes in."""
    Path("big.txt").write_text("x" * 2**20)
    code, report = run_json(data, "ingest", "big.txt", "things/notes.txt", "--address-bits", 20)
    assert code == 1
    assert [r["record"] for r in report["ingested"]] == ["notes.txt"]
    assert "--address-bits" in report["refused"][0]["error"]


def test_a_folder_without_permission_is_reported(things, monkeypatch):
    """A folder that may not be read is one refused line; the rest goes in. (Root may read all: it is played.)"""
    scandir = os.scandir

    def denying(path):
        if Path(path).name == "deep":
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", denying)
    code, report = run_json(data, "ingest", "things")
    assert code == 1
    assert "notes.txt" in {r["record"] for r in report["ingested"]}
    [denied] = [r for r in report["refused"] if r["source"].endswith("deep")]
    assert "Permission denied" in denied["error"]


def test_a_missing_path_is_reported(things):
    """A path that does not exist is refused by name, exit 1; the others go in."""
    code, report = run_json(data, "ingest", "nowhere.txt", "things/notes.txt")
    assert code == 1
    assert [r["record"] for r in report["ingested"]] == ["notes.txt"]
    assert "nowhere.txt" in report["refused"][0]["error"]


def test_the_corpus_inside_the_folder_is_not_ingested(things, monkeypatch):
    """`aunn-data ingest .` leaves its own corpus out."""
    for bad in BAD:
        (things / bad).unlink()
    monkeypatch.chdir(things)
    run(data, "ingest", ".")
    code, report = run_json(data, "ingest", ".")
    assert (code, report["ingested"], len(report["unchanged"])) == (0, [], 4)


def test_train_evaluate_and_reconstruct(things):
    """The model's verbs on a corpus: keys as promised, files in the record's own format, figures beside the fills."""
    run(data, "ingest", "things")
    run(data, "holdout", "slab", "--record", "deep/scan.npy", "--region", "z=4:6")
    Path("run.toml").write_text("width = 32\nlayers = 2\nbatch = 256\n")
    code, trained = run_json(model, "train", "--out", "run", "--config", "run.toml", "--steps", 30)
    assert code == 0
    assert set(trained) >= {"run", "version", "steps", "seconds", "addresses_per_second", "bits_per_byte"}
    assert trained["steps"] == 30
    code, judged = run_json(model, "evaluate", "run", "--holdout", "slab")
    assert code == 0
    assert set(judged) >= {"run", "holdout", "bits_per_byte", "byte_accuracy", "psnr_db", "peers"}
    assert set(judged["peers"]) == {"network", *fills.FILLS}
    code, done = run_json(model, "reconstruct", "run", "--holdout", "slab", "--out", "out")
    assert code == 0
    assert done["psnr_db"] == judged["psnr_db"]
    assert all(Path(path).exists() for path in done["files"])
    scan, filled = np.load(things / "deep" / "scan.npy"), np.load("out/deep/scan.npy")
    assert (np.delete(filled, [4, 5], axis=0) == np.delete(scan, [4, 5], axis=0)).all()
    assert filled.dtype == scan.dtype
    mask, bits = np.load("out/deep/scan.mask.npy"), np.load("out/deep/scan.uncertainty.npy")
    assert mask.sum() == mask[4:6].size
    assert (bits[mask == 1] > 0).all()
    assert json.loads(Path("out/report.json").read_text())["psnr_db"] == judged["psnr_db"]
    with Image.open("out/deep/scan.npy.picture.png") as picture:
        assert picture.width > 800


def test_every_modality_can_be_asked_by_region_and_span(things):
    """Text, an image, a game: reconstructed by region or by span, written in their own formats."""
    run(data, "ingest", "things")
    run(model, "train", "--out", "run", "--steps", 5)
    rows = {r["record"]: r for r in run_json(data, "ls")[1]["records"]}
    start = rows["notes.txt"]["payload_start"]
    for what in (
        ["--span", f"{start + 5}:{start + 25}"],
        ["--record", "picture.png", "--region", "y=3:9,x=4:8"],
        ["--record", "games.pgn#1", "--region", "ply=6:8"],
    ):
        code, done = run_json(model, "reconstruct", "run", *what, "--observed", "overwrite", "--out", "out")
        assert code == 0, what
        assert done["records"][0]["seen"] == 1
    filled = Path("out/notes.txt").read_bytes()
    assert filled[:5] + filled[25:] == TEXT.encode()[:5] + TEXT.encode()[25:]
    assert Image.open("out/picture.png.mask.png").getpixel((5, 4)) == 255
    assert Path("out/games#1.pgn").read_text().startswith('[Event "a"]')
    assert len(list(Path("out").glob("*.picture.png"))) == 3


@pytest.mark.parametrize(
    "args",
    [
        ["evaluate", "nowhere", "--holdout", "x"],
        ["evaluate", "run", "--holdout", "nothing"],
        ["reconstruct", "run"],
        ["reconstruct", "run", "--record", "notes.txt"],
        ["reconstruct", "run", "--record", "notes.txt", "--region", "byte=0:99999"],
        ["reconstruct", "run", "--span", "999999999:1000000000"],
        ["reconstruct", "run", "--span", "5"],
        ["train", "--out", "other", "--steps", "3", "--seconds", "3"],
        ["train", "--out", "run", "--steps", "7"],
    ],
    ids=" ".join,
)
def test_wrong_usage_of_the_model_is_exit_2(things, args):
    """No run, no holdout, nothing asked, a region or span outside, another run in the folder: exit 2, said plainly."""
    run(data, "ingest", "things/notes.txt")
    run(model, "train", "--out", "run", "--steps", 2)
    code, _, err = run(model, *args)
    assert code == 2
    assert err.strip()


def test_errors_are_json_too(things):
    """With --json an error that ends the command is one JSON document on stdout, its line still on stderr."""
    done = subprocess.run(
        [sys.executable, "-m", "pipelines.cli.data", "ls", "--corpus", "things", "--json"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert "no corpus there" in json.loads(done.stdout)["error"]
    assert done.stderr.startswith("error: things")
