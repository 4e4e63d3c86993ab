"""Conditioning: what is told is learned, what is not told stays, and a change can be kept, stacked and compared."""

import shutil

import numpy as np
import pytest
import torch

from aunn_data.corpus import Corpus
from aunn_data.errors import CorpusError, RequestError
from aunn_data.registry import Holdout
from aunn_model import conditioning
from aunn_model.reconstruction import predict
from aunn_model.training import Settings
from benchmarks import new_scan
from pipelines import conditioning as flow
from pipelines import snapshots
from pipelines.cli.model import main
from pipelines.train import train_run
from tests.commands import run_json
from tests.corpora import append, smooth, text, volume

SETTINGS = Settings(width=32, layers=2, batch=64, steps=60, codes=32, precision="float32", warmup=5)
TELLING = Settings(
    width=32, layers=2, batch=64, steps=8, codes=32, precision="float32", warmup=0, ema=0, optimizer="adamw"
)
PROMPT = b"|ccc|aaa"


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run on a text and a scan."""
    folder = tmp_path_factory.mktemp("conditioning")
    corpus = Corpus.create(folder / "corpus", 32)
    append(corpus, text("a.txt", b"To be, or not to be\n" * 9), volume("a.npy", smooth((8, 9, 10))))
    train_run(corpus, folder / "run", SETTINGS)
    return folder


@pytest.fixture
def folder(trained, tmp_path):
    """A copy of the run, to be told things."""
    shutil.copytree(trained, tmp_path / "copy")
    return tmp_path / "copy"


def opened(folder, *names):
    return snapshots.opened(folder / "run", names, str(folder / "corpus"))


def told(folder, name="c", data=PROMPT, on=(), layers=(), settings=TELLING):
    known = opened(folder, *on)
    return known, flow.tell(folder / "run", known, flow.prompt("text", data, known.end), name, settings, layers)


def test_a_prompt_is_learned_and_the_runs_own_weights_stay_as_they_are(folder):
    """All files of the run are the same afterwards; with the snapshot the prompt's bytes are the likeliest."""
    before = {path: path.read_bytes() for path in sorted((folder / "run").rglob("*")) if path.is_file()}
    settings = Settings(**{**TELLING.__dict__, "steps": 60})
    _, snapshot = told(folder, settings=settings)
    assert {path: path.read_bytes() for path in before} == before
    addresses = np.arange(*snapshot.spans[0])
    assert predict(opened(folder, "c").network, addresses).likeliest_N.tobytes() == PROMPT
    assert predict(opened(folder).network, addresses).likeliest_N.tobytes() != PROMPT
    assert snapshot.figures["bits_per_byte_after"] < 1 < snapshot.figures["bits_per_byte_before"]


def test_a_snapshot_gives_the_weights_that_the_telling_ended_with(folder):
    """Opened again, the network says of any address what it said at the end of the telling."""
    known, _ = told(folder)
    anywhere = torch.tensor([0, 1000, known.end, 2**40, 2**62 + 5])
    assert torch.equal(known.network(anywhere), opened(folder, "c").network(anywhere))


def test_only_the_chosen_layers_change(folder):
    """Told to the codes alone, all other weights are bit for bit those of the run."""
    known, _ = told(folder, layers=("codes",))
    before, after = dict(opened(folder).network.named_parameters()), dict(known.network.named_parameters())
    changed = {name for name, weight in after.items() if not torch.equal(weight, before[name])}
    assert changed == {"codes.weight"}
    assert all(weight.requires_grad for weight in after.values())


def test_a_layer_that_there_is_not_is_refused_by_name(folder):
    """The error lists those there are."""
    with pytest.raises(RequestError, match=r"expected entry, codes, trunk\.0, trunk\.1, exit; found middle"):
        told(folder, layers=("middle",))


def test_one_step_of_descent_on_two_bytes_is_kept_as_thin_factors(folder):
    """A matrix moves by one of rank 2 at most, so the snapshot has two columns of it and not all."""
    settings = Settings(**{**TELLING.__dict__, "steps": 1, "optimizer": "sgd", "schedule": "constant"})
    _, snapshot = told(folder, data=b"|c", settings=settings)
    change = snapshot.change(folder / "run")
    assert change["trunk.0.linear.weight.left"].shape[1] <= 2
    assert sum(value.numel() for value in change.values()) < 0.5 * sum(
        weight.numel() for weight in opened(folder).network.parameters()
    )


def test_changes_that_were_told_apart_add_up_in_any_order(folder):
    """a then b is b then a: the base with both changes added."""
    told(folder, "a", b"first")
    told(folder, "b", b"second")
    ab, ba = opened(folder, "a", "b").network.state_dict(), opened(folder, "b", "a").network.state_dict()
    assert all(torch.allclose(ab[name], ba[name], atol=1e-6) for name in ab)
    base, a = opened(folder).network.state_dict(), opened(folder, "a").network.state_dict()
    b = opened(folder, "b").network.state_dict()
    assert torch.allclose(ab["exit.weight"], a["exit.weight"] + b["exit.weight"] - base["exit.weight"], atol=1e-6)


def test_a_snapshot_on_top_of_another_brings_that_one_along(folder):
    """The second stands on the first, after its addresses, and is opened with it."""
    _, first = told(folder, "a", b"first")
    _, second = told(folder, "b", b"second", on=("a",))
    assert second.on == ("a",)
    assert second.spans[0][0] == first.spans[0][1]
    assert opened(folder, "b").names == ("a", "b")


def test_changes_are_compared_by_the_angle_between_them():
    """The same way 1, opposite -1, in different weights 0; factors count as what they multiply to."""
    left, right = torch.randn(6, 1), torch.randn(1, 5)
    thin, full = {"w.left": left, "w.right": right}, {"w": left @ right}
    found = conditioning.cosines({"thin": thin, "full": full, "back": {"w": -full["w"]}, "other": {"v": left}})
    assert found["thin", "full"] == pytest.approx(1)
    assert found["full", "back"] == pytest.approx(-1)
    assert found["back", "other"] == 0


def test_a_damaged_snapshot_is_refused(folder):
    """A flipped byte in either file is no wrong answer but an error."""
    told(folder)
    path = folder / "run" / "conditions" / "c" / "change.safetensors"
    data = bytearray(path.read_bytes())
    data[-5] ^= 1
    path.write_bytes(data)
    with pytest.raises(CorpusError, match="SHA-256"):
        opened(folder, "c")
    said = path.with_name("change.json")
    said.write_text(said.read_text().replace('"checkpoint"', '"checkpoinf"'))
    with pytest.raises(CorpusError):
        opened(folder, "c")


def test_a_snapshot_of_a_checkpoint_that_is_gone_says_so(folder):
    """A run that was trained on no longer has the weights that were told."""
    told(folder)
    saved = next((folder / "run").glob("checkpoint-*"))
    saved.rename(saved.with_name("checkpoint-000000999"))
    with pytest.raises(RequestError, match="gone, the run has gone on"):
        opened(folder, "c")


@pytest.fixture
def grown(folder):
    """The corpus has got a second scan since, with a hole and a voxel that its source lacks."""
    corpus = Corpus.open(folder / "corpus")
    missing = np.zeros((8, 9, 10), bool)
    missing[0, 0, 0] = True
    append(corpus, volume("b.npy", smooth((8, 9, 10), seed=1), missing=missing))
    corpus.add_holdouts([Holdout("hole", "b.npy", ((2, 4), (2, 5), (2, 6)))])
    return folder


def test_a_new_record_is_told_without_its_holes(grown):
    """The addresses told are the record's, but none held out, missing, or a check."""
    known, what = flow.records(opened(grown), ["b.npy"])
    entry = known.corpus.entries.named("b.npy")
    held = entry.spans(((2, 4), (2, 5), (2, 6)))
    for start, stop in held:
        assert not ((what.addresses_N >= start) & (what.addresses_N < stop)).any()
    assert not np.isin(entry.payload_start, what.addresses_N)
    assert ((what.addresses_N >= entry.header_start) & (what.addresses_N < entry.stop)).all()
    assert np.isin(entry.header_start, what.addresses_N)


def test_the_network_told_of_a_new_record_never_sees_what_is_held_out_of_it(grown, tmp_path):
    """Other bytes in the hole, the same change."""
    changes = []
    for value in (0, 700):
        folder = tmp_path / str(value)
        shutil.copytree(grown, folder)
        shutil.rmtree(folder / "corpus")
        corpus = Corpus.create(folder / "corpus", 32)
        append(corpus, text("a.txt", b"To be, or not to be\n" * 9), volume("a.npy", smooth((8, 9, 10))))
        scan = smooth((8, 9, 10), seed=1)
        scan[2:4, 2:5, 2:6] = value
        append(corpus, volume("b.npy", scan))
        corpus.add_holdouts([Holdout("hole", "b.npy", ((2, 4), (2, 5), (2, 6)))])
        known, what = flow.records(opened(folder), ["b.npy"])
        flow.tell(folder / "run", known, what, "new", TELLING)
        changes.append(known.network.state_dict())
    assert all(torch.equal(changes[0][name], changes[1][name]) for name in changes[0] if "weight" in name)


def test_addresses_known_before_are_read_as_before_when_a_record_is_new(grown):
    """The features of the run's own addresses do not change with the corpus' newer version."""
    known = opened(grown)
    anywhere = torch.from_numpy(np.r_[0 : known.end : 37, known.end - 1])
    before = known.network.embedding(anywhere), known.network.embedding.parities(anywhere)
    newer, _ = flow.records(known, ["b.npy"])
    assert torch.equal(before[0], newer.network.embedding(anywhere))
    assert torch.equal(before[1], newer.network.embedding.parities(anywhere))


def test_rehearsal_keeps_what_was_known(grown):
    """Told with as many known addresses in each batch, the run forgets less."""
    forgotten = []
    for share in (0.0, 1.0):
        known, what = flow.records(opened(grown), ["b.npy"])
        settings = Settings(**{**TELLING.__dict__, "steps": 80})
        snapshot = flow.tell(grown / "run", known, what, "new", settings, rehearse=share)
        forgotten.append(snapshot.figures["others_bits_per_byte_after"])
    assert forgotten[1] < forgotten[0]


def test_the_command_tells_lists_and_reconstructs(grown, monkeypatch):
    """As typed: a prompt, a record, the list with its angles, and a hole of the new record filled."""
    monkeypatch.chdir(grown)
    corpus = ["--corpus", "corpus"]
    found = run_json(main, "condition", "run", "--text", "|c", "--as", "c", "--steps", 2, "--bytes", 3, *corpus)
    assert found["settings"]["steps"] == 2
    assert len(found["follows"]["text"]) >= 3
    run_json(main, "condition", "run", "--record", "b.npy", "--as", "new", "--steps", 3, *corpus)
    listed = run_json(main, "condition", "run", "--list")
    assert [row["name"] for row in listed["snapshots"]] == ["c", "new"]
    assert -1 <= listed["alike"][0]["cosine"] <= 1
    report = run_json(main, "reconstruct", "run", "--with", "new", "--holdout", "hole", *corpus)
    assert report["records"][0]["seen"] == 0
    assert np.load("reconstruction/b.npy").shape == (8, 9, 10)


def test_a_prompt_beyond_the_last_address_is_refused():
    """Addresses are below 2^63."""
    with pytest.raises(RequestError, match=r"2\^63"):
        flow.prompt("text", b"ab", 2**63 - 1)


def test_the_benchmark_of_a_new_scan_judges_the_same_blocks_told_and_alone(tmp_path):
    """Both ways have a PSNR of the network and of the pool, and the same fills beside them."""
    for number in (1, 2):
        np.save(tmp_path / f"{number}.npy", smooth((8, 18, 20), seed=number))
    settings = Settings(width=16, layers=2, batch=64, precision="float32")
    found = new_scan.compared(tmp_path, tmp_path / "1.npy", tmp_path / "2.npy", settings, 0.5, 0.5)
    assert found["told"]["best_fill_db"] == found["alone"]["best_fill_db"]
    assert all(10 < row["network_db"] < 60 and row["steps"] > 0 for row in found.values())
