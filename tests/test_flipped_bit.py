"""One flipped bit, in any file of a corpus or a run: it is told where, or does no harm; never are other bytes read."""

import json
import random
import shutil

import numpy as np
import pytest
from click.testing import CliRunner

from aunn_data.corpus import Corpus
from aunn_data.errors import CorpusError
from aunn_data.registry import Holdout
from aunn_model import checkpoint
from aunn_model.training import Settings
from pipelines import runs
from pipelines.cli.data import main as data
from pipelines.cli.model import main as model
from pipelines.train import train_run
from tests.corpora import append, smooth, text, volume

BITS = {"small": 20, "big": 29}  # shards of 256 bytes, one chunk each; of 128 KiB, two chunks each
WORDS = b"To be, or not to be, that is the question:\n" * 20


def make(path, address_bits):
    """Four records in two commits, two held-out regions. The payload of one is zeros over whole shards."""
    corpus, scan = Corpus.create(path, address_bits), smooth((5, 6, 7))
    append(corpus, text("notes.txt", WORDS), volume("marked.npy", scan, missing=scan > 700))
    append(
        corpus, volume("zeros.npy", np.zeros((4, 16, 32), np.uint8)), volume("float.npy", scan.astype(">f4"), "morton")
    )
    for name in ("marked.npy", "float.npy"):
        corpus.add_holdouts([Holdout("slab", name, ((1, 2), (0, 6), (0, 7)))])


@pytest.fixture(scope="module", params=BITS)
def whole(request, tmp_path_factory):
    """A corpus, put back as it was after each damage, and all that can be read from it."""
    path = tmp_path_factory.mktemp(request.param) / "corpus"
    make(path, BITS[request.param])
    return path, picture(path)


def picture(path):
    """All that a corpus tells: rows of every version, values, marks, headers, bytes between, holdouts, reservations."""
    corpus = Corpus.open(path)
    versions = [[e.row() for e in Corpus.open(path, v).entries] for v in range(corpus.version + 1)]
    values = [(corpus.elements(e).tobytes(), corpus.missing(e).tobytes(), corpus.header(e)) for e in corpus.entries]
    stop = corpus.entries[len(corpus.entries) - 1].stop
    between = corpus.read(0, stop + 3000).tobytes(), corpus.read_missing(0, stop + 3000).tobytes()
    return versions, values, between, corpus.holdouts(), corpus.registry.reservations(), corpus.address_bits


def verify(path):
    """(exit code, faults or the error) of aunn-data verify."""
    result = CliRunner().invoke(data, ["verify", "--corpus", str(path), "--deep", "--json"])
    document = json.loads(result.stdout)
    return result.exit_code, document.get("faults") or document.get("error")


def files(path, *patterns):
    return sorted(file for pattern in patterns for file in path.glob(pattern) if file.is_file())


def flips(stored, count, seed):
    """(bit, what is stored with this bit flipped), all of them or ``count``."""
    bits = range(8 * len(stored))
    for bit in bits if count >= len(bits) else random.Random(seed).sample(bits, count):
        flipped = bytearray(stored)
        flipped[bit // 8] ^= 1 << bit % 8
        yield bit, bytes(flipped)


def noticed(path, picture_before, where):
    """Is all as before (False), or does reading raise (True)? Never is it different."""
    try:
        assert picture(path) == picture_before, where
    except CorpusError:
        return True
    return False


def test_a_bit_of_a_shard(whole):
    """Data or index of bytes or marks: reading its span raises; verify names record and span and ends with 3."""
    path, before = whole
    corpus = Corpus.open(path)
    for file in files(path, "bytes/c/*", "missing/c/*"):
        low, stored = int(file.name) * corpus.shard, file.read_bytes()
        read = corpus.read if file.parent.parent.name == "bytes" else corpus.read_missing
        as_before, harmful = read(low, low + corpus.shard), []
        for _, flipped in flips(stored, 60, seed=low):
            file.write_bytes(flipped)
            try:
                assert (read(low, low + corpus.shard) == as_before).all()  # zstd ignores one bit of a frame's header
            except CorpusError:
                harmful.append(flipped)
        assert len(harmful) >= 58
        file.write_bytes(harmful[-1])
        assert noticed(path, before, file)
        check_named(corpus, path, low)
        file.write_bytes(stored)


def check_named(corpus, path, low):
    """Verify says which records have bytes in the shard at ``low``, and only these, and spans that cannot be read."""
    code, faults = verify(path)
    there = {entry.record for entry in corpus.entries.within(low, low + corpus.shard)}
    assert code == 3
    told = [fault for fault in faults if fault["record"] != "headers"]
    assert {fault["record"] for fault in told} <= there
    assert any(fault["start"] < low + corpus.shard and low < fault["stop"] for fault in told)
    for fault in told:
        with pytest.raises(CorpusError):
            read_both(Corpus.open(path), fault["start"], fault["stop"])


def read_both(corpus, start, stop):
    corpus.read(start, stop)
    corpus.read_missing(start, stop)


@pytest.mark.parametrize("kind", ["*.json", "*.parquet"])
@pytest.mark.parametrize("table", ["records", "reservations", "holdouts"])
def test_a_bit_of_the_registry(whole, table, kind):
    """In a row or a log: the corpus raises or is just as before; verify ends with 3 and names the table."""
    path, before = whole
    for file in files(path, f"registry/{table}/**/{kind}"):
        stored, raised = file.read_bytes(), []
        for bit, flipped in flips(stored, 8, seed=len(stored)):
            file.write_bytes(flipped)
            if noticed(path, before, (file, bit)):
                raised.append(flipped)
        assert kind == "*.json" or len(raised) == 8
        for flipped in raised[:1]:
            file.write_bytes(flipped)
            code, faults = verify(path)
            assert code == 3
            assert table in json.dumps(faults)
        file.write_bytes(stored)


def test_a_bit_of_a_zarr_document(whole):
    """Shape, fill value, separator, codecs, format: the corpus raises or is just as before; verify ends with 3."""
    path, before = whole
    for file in files(path, "zarr.json", "*/zarr.json"):
        stored = file.read_bytes()
        for bit, flipped in flips(stored, 50, seed=len(stored)):
            file.write_bytes(flipped)
            if noticed(path, before, (file, bit)):
                assert CliRunner().invoke(data, ["verify", "--corpus", str(path), "--quiet"]).exit_code == 3
        file.write_bytes(stored)


@pytest.mark.parametrize(
    ("name", "key", "value"),
    [
        ("bytes", "fill_value", 1),
        ("missing", "fill_value", True),
        ("bytes", "chunk_key_encoding", {"name": "default", "configuration": {"separator": "."}}),
        ("missing", "shape", [2**20 - 1]),
    ],
)
def test_another_zarr_document(tmp_path, name, key, value):
    """What Zarr itself would take, and read other bytes or fewer with, is damage."""
    make(tmp_path / "corpus", 20)
    file = tmp_path / "corpus" / name / "zarr.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), key: value}))
    with pytest.raises(CorpusError, match="not as it was written"):
        Corpus.open(tmp_path / "corpus")


@pytest.mark.parametrize("damage", ["removed", "cut", "emptied"])
def test_a_lost_shard_is_no_zeros(whole, damage):
    """A shard of a header, of values, of marks or of nothing but zeros, removed or cut: an error, never zeros."""
    path, before = whole
    corpus = Corpus.open(path)
    for number, file in enumerate(files(path, "bytes/c/*", "missing/c/*")):
        low, stored = int(file.name) * corpus.shard, file.read_bytes()
        if damage == "removed":
            file.unlink()
        else:
            file.write_bytes(stored[: len(stored) // 2] if damage == "cut" else b"")
        assert noticed(path, before, file)
        if damage == "removed" or number % 4 == 0:
            check_named(corpus, path, low)
        file.write_bytes(stored)


def test_zeros_that_are_there_are_zeros(whole):
    """A payload of zeros over whole shards, all of which exist, reads as zeros."""
    path, _ = whole
    corpus = Corpus.open(path)
    entry = corpus.entries.named("zeros.npy")
    first, last = entry.payload_start // corpus.shard, (entry.payload_stop - 1) // corpus.shard
    assert set(range(first, last + 1)) <= set(corpus.shard_numbers("bytes"))
    assert not corpus.elements(entry).any()


def test_a_lost_file_of_the_registry(whole):
    """Any but the newest log: the corpus raises. Without its newest log a table is what it was one commit ago."""
    path, before = whole
    for file in files(path, "registry/*/*.parquet", "registry/*/_delta_log/*.json"):
        newest = max(file.parent.glob("*.json"), default=None) == file
        stored = file.read_bytes()
        file.unlink()
        if newest:
            Corpus.open(path)
        else:
            assert noticed(path, before, file)
            assert verify(path)[0] == 3
        file.write_bytes(stored)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A trained run and its corpus."""
    home = tmp_path_factory.mktemp("run")
    make(home / "corpus", 20)
    train_run(
        Corpus.open(home / "corpus"), home / "run", Settings(width=8, layers=2, batch=16, steps=2, warmup=1, checks=0.0)
    )
    return home


def loaded(home):
    """All that a run tells."""
    said = runs.Run.read(home / "run")
    state = runs.load(home / "run", said.open_corpus(), said)
    weights = {name: value.tolist() for name, value in state.network.state_dict().items()}
    return said, state.step, state.seconds, weights


def test_a_bit_of_a_run(run):
    """Weights, the optimizer's state, the step, the description: loading raises, and evaluate ends with 3."""
    loaded(run)
    for file in files(run / "run", "run.json", "checkpoint-*/*"):
        stored = file.read_bytes()
        for _, flipped in flips(stored, 60, seed=len(stored)):
            file.write_bytes(flipped)
            with pytest.raises(CorpusError):
                loaded(run)
        result = CliRunner().invoke(model, ["evaluate", str(run / "run"), "--holdout", "slab"])
        assert result.exit_code == 3
        assert file.parent.name in result.stderr
        file.write_bytes(stored)
    loaded(run)


def test_a_lost_file_of_a_checkpoint(run):
    """A checkpoint that lacks a file is damaged."""
    for file in checkpoint.found(run / "run")[-1].iterdir():
        kept = shutil.move(file, run / "kept")
        with pytest.raises(CorpusError, match="checkpoint"):
            loaded(run)
        shutil.move(kept, file)
