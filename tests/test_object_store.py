"""--corpus s3://…: every verb, two racing writers, and answers that never arrive though the write happened.

All against a real S3 server on loopback; credentials come from the usual environment.
"""

import json
import random
from pathlib import Path

import numpy as np
import pytest

from aunn_data.corpus import Corpus
from aunn_data.verify import verify
from pipelines.cli.data import main as data
from pipelines.cli.model import main as model
from tests import s3
from tests.commands import run, run_json
from tests.corpora import smooth

INGEST = ("ingest", "--address-bits", 30)
TEXT = "To be, or not to be, that is the question:\n" * 40


@pytest.fixture
def things(tmp_path, monkeypatch):
    """A folder of a text and two scans, one with missing voxels; the working directory is empty beside it."""
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "things"
    folder.mkdir()
    (folder / "notes.txt").write_text(TEXT)
    np.save(folder / "scan.npy", smooth((9, 12, 14)))
    holes = smooth((5, 6, 7)).astype("<f4")
    holes[2, 3] = np.nan
    np.save(folder / "holes.npy", holes)
    return folder


# ---- every verb ------------------------------------------------------------------------------------------------------


def test_every_verb_of_the_corpus(things, bucket, tmp_path):
    """Ingest, ls, lookup, read, export, holdout, build-corpus, sql, info, gc, verify: as on a disk, and only there."""
    where = f"{bucket}/deep/corpus"
    report = run_json(data, *INGEST, things, "--corpus", where)
    assert (report["corpus"], report["version"], len(report["ingested"])) == (where, 1, 3)
    assert len(run_json(data, *INGEST, things, "--corpus", where)["unchanged"]) == 3
    rows = {r["record"]: r for r in run_json(data, "ls", "--corpus", where)["records"]}
    notes = rows["notes.txt"]
    assert run(data, "read", f"{notes['payload_start']}:{notes['payload_stop']}", "--corpus", where)[1] == TEXT
    assert run_json(data, "lookup", notes["payload_start"] + 7, "--corpus", where)["element"] == [7]
    files = run_json(data, "export", "--out", tmp_path / "back", "--corpus", where)["files"]
    assert all(Path(f["path"]).read_bytes() == (things / f["record"]).read_bytes() for f in files)
    held = ("--record", "scan.npy", "--region", "z=4:6")
    assert run_json(data, "holdout", "slab", *held, "--corpus", where)["added"] == 1
    assert run_json(data, "build-corpus", "--corpus", where)["holdouts"]["slab"]["regions"] == 1
    assert json.loads(Corpus.open(where).store.get("corpus.json"))["records"] == 3
    assert b"| scan | 2 |" in Corpus.open(where).store.get("CORPUS.md")
    [row] = run_json(data, "sql", "SELECT sum(payload_bytes) AS n FROM records", "--corpus", where)["rows"]
    assert row["n"] == run_json(data, "info", "--corpus", where)["payload_bytes"]
    assert run_json(data, "gc", "--older-than", "0s", "--corpus", where)["files"] == []
    assert run_json(data, "verify", "--deep", "--corpus", where) == {
        "ok": True,
        "records": 3,
        "bytes": row["n"],
        "faults": [],
    }
    assert sorted(path.name for path in tmp_path.iterdir()) == ["back", "things"]


def test_a_plan_names_an_object_store(things, bucket, tmp_path):
    """corpus = "s3://…" in a corpus.toml makes the corpus there."""
    (tmp_path / "corpus.toml").write_text(f'corpus = "{bucket}/made"\naddress_bits = 30\n[[source]]\npath = "things"\n')
    assert run_json(data, "build-corpus", "corpus.toml")["corpus"] == f"{bucket}/made"
    assert run_json(data, "verify", "--deep", "--corpus", f"{bucket}/made")["records"] == 3


def test_older_versions(things, bucket):
    """--version 1 has what it had after another ingest and a widening."""
    where = f"{bucket}/c"
    run(data, *INGEST, things / "scan.npy", "--corpus", where)
    before = run_json(data, "ls", "--corpus", where)
    run(data, "ingest", things, "--corpus", where, "--address-bits", 44)
    assert run_json(data, "ls", "--corpus", where, "--version", 1) == before
    opened = Corpus.open(where, 1)
    assert opened.address_bits == 44
    assert (opened.elements(opened.entries.named("scan.npy")) == np.load(things / "scan.npy")).all()


def test_the_registry_is_made_again(things, bucket):
    """verify --rebuild-registry after the table of records is lost: rows and holdouts as before."""
    where = f"{bucket}/c"
    run(data, *INGEST, things, "--corpus", where)
    run(data, "holdout", "slab", "--record", "scan.npy", "--region", "z=4:6", "--corpus", where)
    before = Corpus.open(where)
    rows, held = [e.row() for e in before.entries], before.holdouts()
    before.store.delete([item.key for item in before.store.items("registry/records")])
    assert run(data, "ls", "--corpus", where)[0] == 3
    assert run_json(data, "verify", "--rebuild-registry", "--deep", "--corpus", where)["ok"]
    after = Corpus.open(where)
    assert ([e.row() for e in after.entries], after.holdouts()) == (rows, held)


@pytest.mark.parametrize("at", [2, 10, 14, 18, 22])
def test_a_rebuild_cut_off_can_be_repeated(things, bucket, trouble, monkeypatch, at):
    """Cut off while it writes the new registry or moves one of the two, copy by copy: the same again loses nothing."""
    where = f"{bucket}/c"
    run(data, *INGEST, things, "--corpus", where)
    run(data, "holdout", "slab", "--record", "scan.npy", "--region", "z=4:6", "--corpus", where)
    before = Corpus.open(where)
    rows, held = [e.row() for e in before.entries], before.holdouts()
    before.store.delete([item.key for item in before.store.items("registry/records")])
    through(trouble, monkeypatch)
    trouble.expect("silenced", [at])
    assert run(data, "verify", "--rebuild-registry", "--corpus", where)[0] == 4
    trouble.expect()
    assert run_json(data, "verify", "--rebuild-registry", "--deep", "--corpus", where)["ok"]
    after = Corpus.open(where)
    assert ([e.row() for e in after.entries], after.holdouts()) == (rows, held)


def test_a_lost_shard_is_damage(things, bucket):
    """An object that is gone is found by verify, by its record and addresses: zeros are never taken for data."""
    where = f"{bucket}/c"
    run(data, *INGEST, things, "--corpus", where)
    Corpus.open(where).store.delete(["bytes/c/0"])
    code, out, _ = run(data, "verify", "--corpus", where, "--json")
    assert code == 3
    assert {f["record"] for f in json.loads(out)["faults"]} == {"notes.txt", "scan.npy", "holes.npy"}


def test_training_from_an_object_store(things, bucket, tmp_path):
    """Train, evaluate and reconstruct from a URL; the run names it, and the weights are those of the same folder."""
    (tmp_path / "run.toml").write_text('width = 16\nlayers = 2\nbatch = 64\nprecision = "float32"\n')
    for where, out in ((f"{bucket}/c", "far"), (tmp_path / "c", "near")):
        run(data, *INGEST, things, "--corpus", where)
        run(data, "holdout", "slab", "--record", "scan.npy", "--region", "z=4:6", "--corpus", where)
        run_json(model, "train", "--corpus", where, "--out", out, "--config", "run.toml", "--steps", 5)
    assert json.loads(Path("far/run.json").read_text())["corpus"] == f"{bucket}/c"
    far, near = (Path(out, "checkpoint-000000005", "network.safetensors").read_bytes() for out in ("far", "near"))
    assert far == near
    judged = run_json(model, "evaluate", "far", "--holdout", "slab")
    done = run_json(model, "reconstruct", "far", "--holdout", "slab", "--out", "filled")
    assert done["psnr_db"] == judged["psnr_db"]
    scan, filled = np.load(things / "scan.npy"), np.load("filled/scan.npy")
    assert (np.delete(filled, [4, 5], axis=0) == np.delete(scan, [4, 5], axis=0)).all()


def test_what_is_not_there_or_not_allowed(things, bucket, trouble, monkeypatch):
    """No corpus and no bucket: exit 2 and 4 to write; credentials that are refused: exit 4, never told as damage."""
    assert run(data, "ls", "--corpus", f"{bucket}/c")[0] == 2
    assert run(data, "ls", "--corpus", f"{bucket}-of-nobody/c")[0] == 2
    code, _, err = run(data, "ingest", things, "--corpus", f"{bucket}-of-nobody/c")
    assert code == 4
    assert "NoSuchBucket" in err
    where = f"{bucket}/c"
    run(data, *INGEST, things, "--corpus", where)
    through(trouble, monkeypatch)
    for requests in (0, 1, 2, 3, 5, 8, 13, 21, 34, 999):
        trouble.expect(expires=requests)
        code, _, err = run(data, "verify", "--deep", "--corpus", where)
        assert (code, "expected the disk or object store" in err) == ((4, True) if requests < 999 else (0, False)), err


# ---- racing writers --------------------------------------------------------------------------------------------------


def assert_sound(where, folder):
    """Every file of the folder is one record, read back as it is, and no shard is anybody else's."""
    corpus = Corpus.open(where)
    assert verify(corpus, deep=True) == []
    assert [e.record for e in corpus.entries] == sorted(path.name for path in folder.iterdir())
    for entry in corpus.entries:
        path = folder / entry.record
        expected = path.read_bytes() if entry.format == "text" else np.load(path).tobytes()
        assert corpus.elements(entry).tobytes() == expected
    for array in ("bytes", "missing"):
        assert all(corpus.expects(array, number) for number in corpus.shard_numbers(array))


def race(racers, *commands):
    """Two processes at once, and those that met a conflict once more."""
    for _ in range(3):
        ended = racers.race(*commands)
        assert not any(e.raised for e in ended)
        assert {e.code for e in ended} <= {0, 4}, [e.err for e in ended]
        if {e.code for e in ended} == {0}:
            return
    raise AssertionError("a conflict three times in a row")


@pytest.mark.parametrize("there", [False, True], ids=["creating it", "into one that is there"])
def test_two_writers_in_processes(racers, things, bucket, there):
    """Two processes ingest the same folder into one corpus in the store at once: every record is there once, sound."""
    where = f"{bucket}/c"
    if there:
        Corpus.create(where, 30)
    race(racers, *[[*INGEST, things, "--corpus", where]] * 2)
    assert_sound(where, things)


def test_two_writers_whose_answers_get_lost(racers, things, bucket, trouble, monkeypatch):
    """The same while every third PUT is written and never answered."""
    through(trouble, monkeypatch)
    trouble.expect("lost", range(2, 999, 3))
    race(racers, *[[*INGEST, things, "--corpus", f"{bucket}/c"]] * 2)
    trouble.expect()
    assert_sound(f"{bucket}/c", things)


# ---- answers that never arrive ---------------------------------------------------------------------------------------

PUTS = 12  # of an ingest that makes the corpus, of one batch with marks
SAMPLE = random.Random(0)
CASES = [
    *(("lost", at) for at in range(PUTS)),
    *(("silenced", at) for at in range(0, PUTS, 2)),
    *(("expired", at) for at in range(1, PUTS, 4)),
    *((fault, at) for fault in ("late", "refused", "throttled", "torn") for at in SAMPLE.sample(range(PUTS), 1)),
]


@pytest.fixture(scope="module")
def trouble(s3_port):
    """What stands between the server and its clients on a bad day."""
    with s3.Trouble(s3_port).running() as trouble:
        yield trouble


def through(trouble, monkeypatch):
    """From now on this process' requests take the way through the trouble."""
    trouble.expect()
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3.environment(trouble.port)["AWS_ENDPOINT_URL"])


def test_an_ingest_has_so_many_puts(things, bucket, trouble, monkeypatch):
    """The cases below name every PUT of an ingest."""
    through(trouble, monkeypatch)
    assert run(data, *INGEST, things, "--corpus", f"{bucket}/c")[0] == 0
    assert trouble.puts == PUTS


@pytest.mark.parametrize(("fault", "at"), CASES)
def test_an_ingest_in_trouble(things, bucket, trouble, monkeypatch, fault, at):
    """A fault at the n-th PUT: the corpus is as before or as after, the same command finishes, nothing is there twice.

    What passes is got over within the command; what lasts ends it with exit 4.
    """
    where, lasting = f"{bucket}/c", fault in s3.LASTING
    through(trouble, monkeypatch)
    trouble.expect(fault, [at])
    code, _, err = run(data, *INGEST, things, "--corpus", where)
    assert trouble.puts > at
    assert code == (4 if lasting else 0), err
    trouble.expect()
    names = [path.name for path in things.iterdir()]
    there = names
    if lasting:
        code, out, _ = run(data, "ls", "--corpus", where, "--json")
        there = [row["record"] for row in json.loads(out)["records"]] if code == 0 else []
        assert sorted(there) in ([], sorted(names))
    report = run_json(data, *INGEST, things, "--corpus", where)
    assert len(report["unchanged" if there else "ingested"]) == 3
    if lasting:
        run_json(data, "gc", "--older-than", "0s", "--corpus", where)
    assert_sound(where, things)
