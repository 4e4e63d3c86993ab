"""aunn-data gc: what dead writers left goes; what a version lists, or a writer at work may yet commit, stays."""

import json
from datetime import timedelta
from pathlib import Path

import pytest
from click.testing import CliRunner

from aunn_data import batch
from aunn_data.collect import collect
from aunn_data.corpus import Corpus
from aunn_data.entries import rows_of
from aunn_data.errors import ConflictError
from aunn_data.registry import Registry
from aunn_data.store import Folder
from aunn_data.verify import verify
from pipelines import ingest as flow
from pipelines.cli.data import main as data
from tests.corpora import append, smooth, text, volume

NOW = timedelta(0)


@pytest.fixture
def corpus(tmp_path):
    """A corpus of two records; 2^20-byte shards."""
    corpus = Corpus.create(tmp_path / "corpus", 32)
    append(corpus, text("a.txt", b"abc"), volume("a.npy", smooth((3, 4, 5))))
    return corpus


class Writer:
    """The steps of ``Corpus.append`` one by one, as a process takes them that may stop at each."""

    def __init__(self, corpus, name):
        scan = smooth((30, 40, 50))
        marked = volume(f"{name}.npy", scan, missing=scan > 800)
        self.corpus, self.records = Corpus.open(corpus.name), [text(name, b"words"), marked]

    def reserve(self):
        self.incoming = batch.Incoming(self.records, ["0" * 64] * 2)
        self.given = self.corpus.registry.reserve(lambda start: self.incoming.place(start, self.corpus.shard))

    def write(self):
        self.entries = batch.write(self.corpus.store, self.corpus.shard, self.incoming)

    def put_rows(self):
        """What a commit does first: the rows, which no version lists yet."""
        self.corpus.registry._put("records", rows_of(self.entries))

    def commit(self):
        self.corpus.registry.commit(self.entries, self.corpus.version, self.given.batch)

    def until(self, step):
        """All steps up to and with this one."""
        for name in ("reserve", "write", "put_rows"):
            getattr(self, name)()
            if name == step:
                return self
        return self


def files(corpus):
    """The files of the corpus without the logs of its tables."""
    return {item.key for item in corpus.store.items("") if "_delta_log" not in item.key}


def before_commit(monkeypatch, happens):
    """Once: ``happens()`` after the next commit of ``records`` was decided on and before it is made."""
    put = Folder.put

    def late(store, key, *args, **options):
        if key.startswith("registry/records/_delta_log/"):
            monkeypatch.setattr(Folder, "put", put)
            happens()
        return put(store, key, *args, **options)

    monkeypatch.setattr(Folder, "put", late)


def gc(corpus, *args):
    done = CliRunner().invoke(data, ["gc", "--corpus", str(corpus.path), "--json", *map(str, args)])
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout)


def test_an_abandoned_batch_goes_whole(corpus):
    """Shards of both arrays and the unlisted rows of a writer that died: all gone, what was committed as it was."""
    before = files(corpus)
    writer = Writer(corpus, "b").until("put_rows")
    left = files(corpus) - before
    assert {key.split("/")[0] for key in left} == {"bytes", "missing", "registry"}
    done = collect(corpus, NOW)
    assert done.batches == [writer.given.batch]
    reservation = {key for key in left if key.startswith("registry/reservations")}
    assert set(done.files) == left - reservation
    assert files(corpus) == before | reservation
    assert verify(Corpus.open(corpus.path), deep=True) == []


@pytest.mark.parametrize("step", ["reserve", "write", "put_rows"])
def test_a_revoked_writer_cannot_commit(corpus, step):
    """gc at any point between reserve and commit: the writer gets ConflictError, or had left nothing to take away."""
    writer = Writer(corpus, "b").until(step)
    revoked = collect(corpus, NOW).batches
    if step == "reserve":
        assert revoked == []
        writer.write()
        writer.commit()
        assert {e.record for e in Corpus.open(corpus.path).entries} == {"a.txt", "a.npy", "b", "b.npy"}
    else:
        assert revoked == [writer.given.batch]
        with pytest.raises(ConflictError, match="gc"):
            writer.commit()
        assert {e.record for e in Corpus.open(corpus.path).entries} == {"a.txt", "a.npy"}
    assert verify(Corpus.open(corpus.path), deep=True) == []


def test_a_commit_between_looking_and_revoking_wins(corpus, monkeypatch):
    """A writer that commits after gc has chosen its batch and before it revokes it keeps it: gc looks again."""
    writer, revoke = Writer(corpus, "b").until("write"), Registry.revoke

    def late(registry, choose):
        monkeypatch.setattr(Registry, "revoke", revoke)
        writer.commit()
        return revoke(registry, choose)

    monkeypatch.setattr(Registry, "revoke", late)
    done = collect(corpus, NOW)
    assert (done.batches, done.files) == ([], [])
    assert "b.npy" in Corpus.open(corpus.path).entries
    assert verify(Corpus.open(corpus.path), deep=True) == []


def test_a_commit_within_the_revoking_wins(corpus, monkeypatch):
    """The same if the commit comes between the look and the commit of the revocation: the second one is refused."""
    writer = Writer(corpus, "b").until("write")
    before_commit(monkeypatch, writer.commit)
    done = collect(corpus, NOW)
    assert (done.batches, done.files) == ([], [])
    assert verify(Corpus.open(corpus.path), deep=True) == []
    assert "b.npy" in Corpus.open(corpus.path).entries


def test_a_revocation_within_the_commit_wins(corpus, monkeypatch):
    """gc between a writer's look and its commit: the commit is refused, tried again, and given up."""
    writer, revoked = Writer(corpus, "b").until("write"), []
    before_commit(monkeypatch, lambda: revoked.extend(collect(corpus, NOW).batches))
    with pytest.raises(ConflictError, match="gc"):
        writer.commit()
    assert revoked == [writer.given.batch]
    assert {e.record for e in Corpus.open(corpus.path).entries} == {"a.txt", "a.npy"}
    assert verify(Corpus.open(corpus.path), deep=True) == []


def test_shards_written_after_the_revocation_go_with_the_next_gc(corpus):
    """A writer that still wrote when its batch was revoked, and then died: the next gc takes the rest."""
    before = files(corpus)
    writer = Writer(corpus, "b").until("write")
    collect(corpus, NOW)
    writer.write()
    done = collect(corpus, NOW)
    assert done.batches == []
    assert len(done.files) > 0
    assert {key for key in files(corpus) - before if not key.startswith("registry/reservations")} == set()


def test_a_writer_at_work_keeps_its_batch(corpus):
    """A batch younger than --older-than stays: its writer commits."""
    writer, there = Writer(corpus, "b").until("put_rows"), files(corpus)
    assert gc(corpus)["files"] == []
    assert gc(corpus, "--older-than", "1h")["batches"] == []
    assert files(corpus) == there
    writer.commit()
    assert "b.npy" in Corpus.open(corpus.path).entries


def test_dry_run_says_all_and_removes_nothing(corpus):
    """--dry-run names the batches and files that gc then takes, with their bytes, and the writer can still commit."""
    writer, there = Writer(corpus, "b").until("put_rows"), files(corpus)
    version = Corpus.open(corpus.path).version
    said = gc(corpus, "--older-than", "0s", "--dry-run")
    assert (files(corpus), Corpus.open(corpus.path).version) == (there, version)
    size = {item.key: item.size for item in corpus.store.items("")}
    done = gc(corpus, "--older-than", "0s")
    assert done == {**said, "dry_run": False}
    assert said["bytes"] == sum(size[key] for key in said["files"])
    assert said["batches"] == [writer.given.batch]


def test_an_interrupted_gc_is_finished_by_the_next(corpus, monkeypatch):
    """Killed after the revocation, before or in the middle of the deleting: the next one takes what is left."""
    before, delete = files(corpus), Folder.delete
    Writer(corpus, "b").until("put_rows")

    def die(store, keys):
        delete(store, keys[:1])
        raise KeyboardInterrupt

    monkeypatch.setattr(Folder, "delete", die)
    with pytest.raises(KeyboardInterrupt):
        collect(corpus, NOW)
    monkeypatch.undo()
    assert len(collect(Corpus.open(corpus.path), NOW).files) > 0
    assert {key for key in files(corpus) - before if not key.startswith("registry/reservations")} == set()
    assert collect(Corpus.open(corpus.path), NOW).files == []
    assert verify(Corpus.open(corpus.path), deep=True) == []


def test_unfinished_files_go_once_they_are_old(corpus):
    """Temporary files of ours and of delta-rs go when they are older than --older-than; young ones stay."""
    left = ["bytes/c/.tmp-0123456789abcdef", ".tmp-ff", "registry/records/_delta_log/_commit_1.json.tmp"]
    for key in left:
        (corpus.path / key).write_bytes(b"half")
    assert gc(corpus)["files"] == []
    assert sorted(gc(corpus, "--older-than", "0s")["files"]) == sorted(left)
    assert not [key for key in left if (corpus.path / key).exists()]


def test_every_version_stays(corpus):
    """After gc every version of every table reads as before, and every record of each."""
    append(corpus, text("b.txt", b"xyz"))
    Writer(corpus, "c").until("write")
    versions = [[e.row() for e in Corpus.open(corpus.path, v).entries] for v in range(corpus.version + 1)]
    collect(corpus, NOW)
    for version, rows in enumerate(versions):
        opened = Corpus.open(corpus.path, version)
        assert [e.row() for e in opened.entries] == rows
        assert verify(opened, deep=True) == []


def test_revoked_addresses_are_never_handed_out_again(corpus):
    """The next batch starts behind the revoked one, so that its writer cannot come back into it."""
    writer = Writer(corpus, "b").until("write")
    collect(corpus, NOW)
    [entry] = append(corpus, text("c.txt", b"xyz"))
    assert entry.header_start >= writer.given.stop
    writer.write()
    assert verify(Corpus.open(corpus.path), deep=True) == []
    assert corpus.elements(entry).tobytes() == b"xyz"


def test_ingest_under_gc_is_done_by_the_same_command(corpus, tmp_path, monkeypatch):
    """gc takes the batch of an ingest at every attempt: exit 4, the file not in; the same command again finishes."""
    (tmp_path / "new.txt").write_text("new")
    commit, command = Registry.commit, ["ingest", str(tmp_path / "new.txt"), "--corpus", str(corpus.path)]

    def revoked(registry, *args):
        collect(Corpus.open(corpus.path), NOW)
        return commit(registry, *args)

    with monkeypatch.context() as patch:
        patch.setattr(flow, "ATTEMPTS", 2)
        patch.setattr(Registry, "commit", revoked)
        done = CliRunner().invoke(data, command)
    assert done.exit_code == 4
    assert "gc" in done.stderr
    assert "new.txt" not in Corpus.open(corpus.path).entries
    assert CliRunner().invoke(data, command).exit_code == 0
    opened = Corpus.open(corpus.path)
    assert opened.elements(opened.entries.named("new.txt")).tobytes() == b"new"
    shards = {e.header_start // corpus.shard for e in opened.entries} | {
        e.payload_start // corpus.shard for e in opened.entries
    }
    assert set(opened.shard_numbers("bytes")) == shards


@pytest.mark.parametrize("age", ["", "1", "h", "1w", "-1d", "1.5h", "999999999d"])
def test_an_age_that_is_none_is_exit_2(corpus, age):
    """--older-than takes a number and a unit."""
    done = CliRunner().invoke(data, ["gc", "--corpus", str(corpus.path), "--older-than", age])
    assert done.exit_code == 2
    assert "12h" in done.stderr


def test_people_are_told_what_went(corpus):
    """Without --json: a line a file, and how much in all; --quiet says nothing."""
    Writer(corpus, "b").until("write")
    done = CliRunner().invoke(data, ["gc", "--corpus", str(corpus.path), "--older-than", "0s", "--dry-run"])
    assert "would go  bytes/c/" in done.stdout
    done = CliRunner().invoke(data, ["gc", "--corpus", str(corpus.path), "--older-than", "0s"])
    assert "removed  bytes/c/" in done.stdout
    assert "1 batches abandoned" in done.stdout
    assert not Path(corpus.path, done.stdout.split()[1]).exists()
    Writer(corpus, "c").until("write")
    done = CliRunner().invoke(data, ["gc", "--corpus", str(corpus.path), "--older-than", "0s", "--quiet"])
    assert (done.exit_code, done.stdout) == (0, "")
