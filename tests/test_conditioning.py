"""Conditioning: what is told is learned, what is not told stays, and a change can be kept, stacked and compared."""

import json
import os
import shutil
import signal
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch

from aunn_data.corpus import Corpus
from aunn_data.errors import ConflictError, CorpusError, RequestError
from aunn_data.registry import Holdout
from aunn_model import conditioning
from aunn_model.reconstruction import predict
from aunn_model.training import Settings, train
from benchmarks import new_scan
from pipelines import conditioning as flow
from pipelines import snapshots
from pipelines.cli.model import main
from pipelines.train import train_run
from tests.commands import run, run_json
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


def change_file(folder, name="c"):
    """The file of a snapshot's change; there is but one."""
    (path,) = (folder / "run" / "conditions" / name).glob("*.safetensors")
    return path


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
    assert second.on == {"a": first.digest}
    assert second.spans[0][0] == first.spans[0][1]
    assert list(opened(folder, "b").on) == ["a", "b"]


def test_a_snapshot_on_top_of_one_that_was_told_again_is_refused(folder):
    """b was told on top of the first a; the second a is another network, on which b means nothing."""
    told(folder, "a", b"first")
    told(folder, "b", b"second", on=("a",))
    told(folder, "a", b"other")
    with pytest.raises(RequestError, match="tell b again"):
        opened(folder, "b")
    assert list(opened(folder, "a").on) == ["a"]


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
    path = change_file(folder)
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


# ---- stopped, and going on -------------------------------------------------------------------------------------------


@pytest.fixture
def stopped(monkeypatch):
    """Tells until Ctrl-C comes at a step, with a report after each."""
    monkeypatch.setattr("pipelines.conditioning.train", partial(train, report_every=0))

    def tell_until(step, folder, known, *args, **options):
        def on_metrics(metrics):
            if metrics.step == step:
                os.kill(os.getpid(), signal.SIGINT)

        with pytest.raises(KeyboardInterrupt):
            flow.tell(folder / "run", known, *args, **options, on_metrics=on_metrics)

    return tell_until


def resumed_at(folder, known, *args, **options):
    """(planned steps, step at which it goes on) of a telling that then ends."""
    told = []
    flow.tell(folder / "run", known, *args, **options, on_start=lambda *at: told.append(at))
    return told[0]


def telling(known, data=PROMPT):
    return known, flow.prompt("text", data, known.end), "c"


@pytest.mark.parametrize("optimizer", ["adamw", "sgd", "muon"])
@pytest.mark.parametrize("layers", [(), ("trunk.1", "codes")])
def test_a_stopped_telling_ends_with_the_change_that_it_would_have_had(folder, stopped, optimizer, layers):
    """Stopped by Ctrl-C in step 5, then in 7, the same telling again ends with the same bytes; nothing else is left."""
    settings = replace(TELLING, optimizer=optimizer, batch=4)
    flow.tell(folder / "run", *telling(opened(folder)), settings, layers)
    whole = change_file(folder).read_bytes()
    shutil.rmtree(folder / "run" / "conditions")
    stopped(5, folder, *telling(opened(folder)), settings, layers)
    assert snapshots.names(folder / "run") == []
    stopped(7, folder, *telling(opened(folder)), settings, layers)
    assert resumed_at(folder, *telling(opened(folder)), settings, layers) == (8, 7)
    assert change_file(folder).read_bytes() == whole
    assert [path.name for path in (folder / "run" / "conditions").iterdir()] == ["c"]


def test_a_stopped_telling_of_a_record_with_rehearsal_goes_on_exactly(grown, stopped):
    """The batches of the record and those of what is rehearsed go on where they were."""
    known, what = flow.records(opened(grown), ["b.npy"])
    flow.tell(grown / "run", known, what, "new", TELLING, rehearse=0.5)
    whole = change_file(grown, "new").read_bytes()
    for tell, step in ((stopped, 3), (resumed_at, None)):
        known, what = flow.records(opened(grown), ["b.npy"])
        tell(*([step] if step else []), grown, known, what, "new", TELLING, rehearse=0.5)
    assert change_file(grown, "new").read_bytes() == whole


@pytest.mark.parametrize(
    "changed",
    [{"data": b"another"}, {"adam_lr": 0.02}, {"steps": 9}, {"layers": ("exit",)}, {"rehearse": 1.0}, {"on": ("a",)}],
)
def test_another_telling_of_the_name_begins_anew(folder, stopped, changed):
    """What is left of a telling of other bytes, settings, layers or weights is not gone on with, but removed."""
    told(folder, "a", b"first")
    stopped(3, folder, *telling(opened(folder)), TELLING)
    known = opened(folder, *changed.pop("on", ()))
    asked = telling(known, changed.pop("data", PROMPT))
    options = {name: changed.pop(name) for name in ("layers", "rehearse") if name in changed}
    settings = replace(TELLING, **changed)
    assert resumed_at(folder, *asked, settings, **options) == (settings.steps, 0)
    assert sorted(path.name for path in (folder / "run" / "conditions").iterdir()) == ["a", "c"]


def test_a_snapshot_told_anew_below_another_is_other_weights_to_go_on_from(folder, stopped):
    """Of the same name, but another change: what was told on top of it before begins anew."""
    told(folder, "a", b"first")
    asked = telling(opened(folder, "a"))
    stopped(3, folder, *asked, TELLING)
    told(folder, "a", b"other")
    known = opened(folder, "a")
    assert resumed_at(folder, known, *asked[1:], TELLING) == (8, 0)


def test_a_telling_for_some_seconds_keeps_the_steps_that_were_planned(folder, stopped, monkeypatch):
    """They are measured once: a machine that is slower when it goes on takes as many, also if no step was saved."""
    monkeypatch.setattr(flow, "steps_within", lambda *_: 6)
    stopped(2, folder, *telling(opened(folder)), TELLING, seconds=3.0)
    monkeypatch.setattr(flow, "steps_within", lambda *_: 3)
    shutil.copytree(folder, folder.with_name("unsaved"))
    assert resumed_at(folder, *telling(opened(folder)), TELLING, seconds=3.0) == (6, 2)
    folder = folder.with_name("unsaved")
    shutil.rmtree(next((folder / "run" / "conditions").glob(".c-telling/*/checkpoint-*")))
    assert resumed_at(folder, *telling(opened(folder)), TELLING, seconds=3.0) == (6, 0)


def test_what_a_kill_left_half_removed_is_not_gone_on_with(folder, stopped):
    """Without its plan, which goes first, a telling that was being removed begins anew, whatever else is left."""
    stopped(3, folder, *telling(opened(folder)), TELLING)
    (underway,) = (folder / "run" / "conditions").glob(".c-telling/*")
    (underway / "plan.json").unlink()
    next(underway.glob("checkpoint-*/adamw.safetensors")).unlink()
    assert resumed_at(folder, *telling(opened(folder)), TELLING) == (8, 0)


def test_the_command_says_where_it_goes_on(folder, stopped):
    """On stderr, and with --json as resumed_at."""
    words = ["condition", folder / "run", "--text", "ccc", "--as", "c", "--steps", 6, "--corpus", folder / "corpus"]
    for step, more in ((2, []), (4, ["--json"])):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(flow, "tell", partial(interrupted, flow.tell, step))
            assert run(main, *words)[0] == 130
        code, out, err = run(main, *words, *more)
        assert code == 0
        assert json.loads(out)["resumed_at"] == 4 if more else "c: 6 steps, resumed at step 2" in err


def interrupted(tell, step, *args):
    """A telling that gets SIGTERM after a step."""

    def on_metrics(metrics):
        if metrics.step == step:
            os.kill(os.getpid(), signal.SIGTERM)

    return tell(*args[:-1], on_metrics)


# ---- told again ------------------------------------------------------------------------------------------------------

CHANGES = ("open", "writev", "link", "rename", "replace", "unlink", "rmdir", "mkdir", "fsync")


class Killed(BaseException):
    """The process is dead: no call of it does anything any more."""


def dying(patch, at):
    """Lets ``at`` calls that make, change or remove files happen and none after them; returns the log of calls."""
    log = []

    def call(name, real, *args, **options):
        if len(log) >= at:
            raise Killed
        log.append(name)
        return real(*args, **options)

    for name in CHANGES:
        patch.setattr(os, name, partial(call, name, getattr(os, name)))
    return log


def test_a_snapshot_that_is_told_again_is_the_old_or_the_new_at_every_moment(folder, monkeypatch):
    """Killed before any call that changes files, what is found is whole; the next telling leaves nothing behind."""
    home = folder / "run" / "conditions" / "c"
    _, old = told(folder)
    kept = {path.name: path.read_bytes() for path in home.iterdir()}
    _, new = told(folder, data=b"other")
    told_of, moved = {"old": old, "new": new}, new.change(folder / "run")
    with monkeypatch.context() as patch:
        calls = dying(patch, 10**9)
        new.write(folder / "run", moved)
    found = []
    for at in range(len(calls)):
        shutil.rmtree(home)
        home.mkdir()
        for name, data in kept.items():
            (home / name).write_bytes(data)
        with monkeypatch.context() as patch:
            dying(patch, at)
            with pytest.raises(Killed):
                new.write(folder / "run", moved)
        there = snapshots.Snapshot.read(folder / "run", "c")
        of = "old" if there.files == old.files else "new"
        assert there == told_of[of]
        there.change(folder / "run")  # which knows its SHA-256
        assert snapshots.names(folder / "run") == ["c"]
        found.append(of)
        new.write(folder / "run", moved)
        assert sorted(path.name for path in home.iterdir()) == sorted(["change.json", *new.files])
    assert found == sorted(found, reverse=True)  # the old one up to some call, from then on the new one
    assert set(found) == {"old", "new"}


def test_a_snapshot_that_was_told_anew_while_it_was_read_asks_to_try_again(folder):
    """A reader never puts the addresses of one telling together with the change of another."""
    told(folder)
    read = snapshots.Snapshot.read(folder / "run", "c")
    told(folder, data=b"other")
    with pytest.raises(ConflictError, match="told since"):
        read.change(folder / "run")


# ---- records that are new --------------------------------------------------------------------------------------------


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
