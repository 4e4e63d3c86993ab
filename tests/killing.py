"""Commands that are struck down by a fault at a seeded moment, and what must hold of the corpus or the run afterwards.

A *bench* is a command with all it needs: the folder it starts from, copied for every case, and what it does when
nothing strikes it. What a bench's kind and a seed lead to is always the same, but for the order of threads.
"""

import json
import random
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from click.testing import CliRunner
from PIL import Image

from aunn_data.corpus import Corpus
from pipelines.cli.data import main as data
from tests import faults
from tests.faults import Fault, Outcome

# The programs as they are, but for small batches, checkpoints at every step, and a word after every commit.
DATA = """
import sys
from aunn_data.corpus import Corpus
from pipelines import ingest
from pipelines.cli.data import main
append, ingest.BATCH_RECORDS = Corpus.append, int(sys.argv[1])
def append_and_tell(corpus, *args, **options):
    entries = append(corpus, *args, **options)
    print(len(corpus.entries), flush=True)
    return entries
Corpus.append = append_and_tell
main(sys.argv[2:])
"""
MODEL = """
import functools, sys
from pipelines import conditioning, train
from pipelines.cli.model import main
train.CHECKPOINT_SECONDS = 0.0
train.train = conditioning.train = functools.partial(train.train, report_every=0)
main(sys.argv[1:])
"""
BATCH, MANY = 3, 4096
ADDRESS_BITS = 28
SETTINGS = 'width = 16\nlayers = 2\nbatch = 64\nsteps = 8\nprecision = "float32"\n'
PLAN = """
[[source]]
path = "sources"
[[holdout]]
name = "slab"
record = "1/0.npy"
region = ["z=1:3", "y=0:2"]
"""
VARIANTS = {
    "ingest": ("kill", "torn", "power", "names", "again"),
    "build-corpus": ("kill", "torn", "power", "names", "again"),
    "gc": ("kill", "torn", "power", "names", "again"),
    "train": ("kill", "torn"),
    "condition": ("kill", "torn", "power", "names"),
}
MODELS = {"train", "condition"}  # kinds that are verbs of aunn-model
OLD, NEW = "what it was told before", "what it is told now"
Hashes = dict[str, str]  # record -> sha256


@dataclass(frozen=True)
class Bench:
    """A command to strike. ``states``: the records at every version on its way, ``holdouts``: before and after it."""

    kind: str
    home: Path
    batch: int = BATCH
    calls: int = 0
    log: list[tuple[str, str]] = field(default_factory=list)
    states: list[Hashes] = field(default_factory=list)
    holdouts: tuple[list[str], ...] = ()
    end: dict[str, Any] = field(default_factory=dict)

    @property
    def sources(self) -> Path:
        """The files that go into the corpus."""
        return self.home / "sources"

    def words(self, case: Path) -> list[str]:
        """The command line, without the program."""
        corpus = ["--corpus", str(case / "corpus"), "--quiet"]
        return {
            "ingest": ["ingest", str(self.sources), *corpus, "--address-bits", str(ADDRESS_BITS)],
            "add": ["ingest", str(self.sources), *corpus],
            "holdout": ["holdout", "slab", *corpus, "--record", "0/0.npy", "--region", "z=1:3", "--region", "y=0:2"],
            "build-corpus": ["build-corpus", str(self.home / "corpus.toml"), *corpus],
            "gc": ["gc", *corpus, "--older-than", "0s"],
            "train": ["train", *corpus, "--out", str(case / "run"), "--config", str(self.home / "run.toml")],
            "condition": self.telling(case, NEW),
        }[self.kind]

    def telling(self, case: Path, text: str) -> list[str]:
        """The command line that tells the run a text, under one name."""
        words = ["condition", str(case / "run"), "--corpus", str(case / "corpus"), "--quiet", "--text", text]
        return [*words, "--as", "c", "--steps", "3", "--bytes", "0"]

    def strike(self, case: Path, fault: Fault | None) -> Outcome:
        """Runs the command in a process of its own, in a new copy of the start at ``case``."""
        shutil.rmtree(case, ignore_errors=True)
        shutil.copytree(self.home / "start", case)
        code = [MODEL] if self.kind in MODELS else [DATA, str(self.batch)]
        return faults.run([sys.executable, "-c", *code, *self.words(case)], [case], fault, cwd=faults.ROOT)

    def again(self, case: Path) -> None:
        """The same command, unharmed: it must end well."""
        code, output = invoke("model" if self.kind in MODELS else "data", *self.words(case))
        assert code == 0, f"the same command again ends with {code}: {output}"


def bench(kind: str, home: Path, batch: int = BATCH) -> Bench:
    """The bench of a kind, below a new folder: sources and start made, the command run once unharmed."""
    made = Bench(kind, home, batch)
    _make_sources(made.sources)
    (home / "corpus.toml").write_text(PLAN)
    (home / "run.toml").write_text(SETTINGS)
    _make_start(made)
    case = home / "unharmed"
    done = made.strike(case, None)
    assert done.returncode == 0, done.stderr
    before, after = home / "start" / "corpus", Corpus.open(case / "corpus")
    return Bench(
        kind,
        home,
        batch,
        done.calls,
        done.log,
        [hashes(Corpus.open(case / "corpus", version)) for version in range(after.version + 1)],
        (holdouts(before), holdouts(case / "corpus")),
        _end(made, case),
    )


def fault_of(kind: str, seed: int, calls: int) -> Fault:
    """The fault that a seed stands for."""
    dice = random.Random(f"{kind}:{seed}")
    return Fault(dice.choice(VARIANTS[kind]), dice.randint(1, calls), seed)


def check_point(bench: Bench, seed: int, case: Path) -> None:
    """Strikes the command at a seed's moment; AssertionError, with what was struck, if a law is broken."""
    fault = fault_of(bench.kind, seed, bench.calls)
    done = bench.strike(case, fault)
    try:
        check_afterwards(bench, case, done)
        if fault.kind == "again" or not done.struck:
            assert done.returncode == 0, done.stderr
            if bench.kind != "gc":  # what was told as done stays done; what was removed may come back in a power cut
                check_end(bench, case)
        bench.again(case)
        check_end(bench, case)
    except Exception as error:
        number = fault.at if fault.kind == "again" else done.calls
        struck = f"at call {number}, {' '.join(done.log[number - 1])}" if done.struck else "struck nothing"
        raise AssertionError(f"{bench.kind}:{seed} {fault.kind} {struck}: {error}") from error


# ---- what must hold --------------------------------------------------------------------------------------------------


def check_afterwards(bench: Bench, case: Path, done: Outcome) -> None:
    """Right after the fault: the corpus opens clean, as it was at one commit, with all that was told as committed."""
    told = int(done.stdout.split()[-1]) if done.stdout.split() and bench.kind not in MODELS else 0
    if not (case / "corpus" / "zarr.json").exists():
        assert (bench.states[0], told) == ({}, 0), "the corpus is gone"
        return
    check_clean(case / "corpus")
    found = hashes(Corpus.open(case / "corpus"))
    assert found in _from(bench), f"records {sorted(found)} are those of no commit"
    assert len(found) >= told, f"{told} records were told as committed, {len(found)} are there"
    assert holdouts(case / "corpus") in bench.holdouts, "the holdouts are neither those before nor those after"
    _check_checkpoints(bench, case / "run")
    if bench.kind == "condition":
        assert _snapshot(case).told in (OLD, NEW)


def check_end(bench: Bench, case: Path) -> None:
    """After the same command again: everything is as if nothing had struck, and every source comes back."""
    check_clean(case / "corpus")
    found = hashes(Corpus.open(case / "corpus"))
    assert found == bench.states[-1], f"records {sorted(found)} are not all"
    assert holdouts(case / "corpus") == bench.holdouts[-1], "the holdouts are others"
    assert _end(bench, case) == bench.end, "it ends with something else than the unharmed run"
    shutil.rmtree(case / "back", ignore_errors=True)
    assert invoke("data", "export", "--corpus", str(case / "corpus"), "--out", str(case / "back"), "--quiet")[0] == 0
    for record in bench.states[-1]:
        assert _content(case / "back" / record) == _content(bench.sources / record), f"{record} comes back changed"


def _content(path: Path) -> bytes:
    """A file's bytes; of a picture the samples, which its writer may compress otherwise than Pillow does."""
    return Image.open(path).tobytes() if path.suffix == ".png" else path.read_bytes()


def check_clean(corpus: Path) -> None:
    """``aunn-data verify`` finds nothing, looking as deep as it can."""
    deep = ["--deep"] if any("--deep" in option.opts for option in data.commands["verify"].params) else []
    code, output = invoke("data", "verify", "--corpus", str(corpus), "--quiet", *deep)
    assert code == 0, f"verify ends with {code}: {output}"


def hashes(corpus: Corpus) -> Hashes:
    """The hash of every record."""
    return {entry.record: entry.sha256 for entry in corpus.entries}


def holdouts(corpus: Path) -> list[str]:
    """The held-out regions, in an order of their own."""
    return sorted(map(str, Corpus.open(corpus).holdouts())) if (corpus / "zarr.json").exists() else []


def invoke(program: str, *words: str) -> tuple[int, str]:
    """(exit code, what it said) of a command, run within this process."""
    result = CliRunner().invoke(_group(program), words)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.output.strip()


@cache
def _group(program: str) -> Any:
    if program == "data":
        return data
    from pipelines.cli.model import main  # torch takes its time: only who trains waits for it

    return main


def _from(bench: Bench) -> list[Hashes]:
    """The states that may be found: from the one the command started from on."""
    start = bench.home / "start" / "corpus"
    return bench.states[Corpus.open(start).version :] if start.exists() else bench.states


def _end(bench: Bench, case: Path) -> dict[str, Any]:
    """What else the command leaves, that must be the same however often it was struck."""
    if bench.kind == "build-corpus":
        card = json.loads((case / "corpus" / "corpus.json").read_text())
        return {key: card[key] for key in ("records", "payload_bytes", "holdouts")}
    if bench.kind == "gc":
        arrays = [case / "corpus" / "bytes", case / "corpus" / "missing"]
        return {"shards": sorted(str(p.relative_to(case)) for a in arrays for p in a.rglob("*") if p.is_file())}
    if bench.kind == "train":
        return {"weights": max((case / "run").glob("checkpoint-*/network.safetensors")).read_bytes()}
    if bench.kind == "condition":
        left = sorted(path.name for path in (case / "run" / "conditions").rglob("*"))
        return {"told": _snapshot(case).told, "files": _snapshot(case).files, "left": left}
    return {}


def _snapshot(case: Path) -> Any:
    """The snapshot of the run, whose change is whole."""
    from pipelines.snapshots import Snapshot

    snapshot = Snapshot.read(case / "run", "c")
    snapshot.change(case / "run")
    return snapshot


def _check_checkpoints(bench: Bench, run: Path) -> None:
    """Every checkpoint there is is whole."""
    for checkpoint in run.glob("checkpoint-*"):
        from safetensors.numpy import load_file

        wanted = {"state.json", *(f"{part}.safetensors" for part in ("network", "average", "muon", "adamw"))}
        there = {path.name for path in checkpoint.iterdir()}
        assert there == wanted, f"{checkpoint.name} holds {sorted(there)}"
        assert json.loads((checkpoint / "state.json").read_text())["step"] == int(checkpoint.name.split("-")[1])
        for path in checkpoint.glob("*.safetensors"):
            load_file(path)


# ---- what it starts from ---------------------------------------------------------------------------------------------


def _make_sources(folder: Path) -> None:
    """Thirteen small files of three kinds in two folders; one volume has gaps."""
    rng = np.random.default_rng(0)
    for part in ("0", "1"):
        (folder / part).mkdir(parents=True)
        for number in range(2):
            (folder / part / f"{number}.txt").write_text(f"text {part} {number}\n" * 50)
            np.save(folder / part / f"{number}.npy", rng.integers(0, 900, (5, 6, 7)).astype("<i2"))
            Image.fromarray(rng.integers(0, 256, (9, 8, 3), np.uint8)).save(folder / part / f"{number}.png")
    gaps = rng.random((4, 5, 6)).astype("<f4")
    gaps[1, 2:] = np.nan
    np.save(folder / "1" / "gaps.npy", gaps)


def _make_start(bench: Bench) -> None:
    """The folder that a case begins as: nothing for an ingest, else a corpus with some records or all."""
    start = bench.home / "start"
    start.mkdir()
    if bench.kind == "ingest":
        return
    corpus = ["--corpus", str(start / "corpus"), "--quiet"]
    whole = bench.kind in (*MODELS, "holdout")
    words = [str(bench.sources)] if whole else [str(bench.sources / "0"), "--prefix", "0/"]
    assert invoke("data", "ingest", *words, *corpus, "--address-bits", str(ADDRESS_BITS))[0] == 0
    if bench.kind == "condition":
        assert invoke("model", *replace(bench, kind="train").words(start))[0] == 0
        assert invoke("model", *bench.telling(start, OLD))[0] == 0
    if bench.kind == "gc":
        _abandon_batches(bench, start)


def _abandon_batches(bench: Bench, start: Path) -> None:
    """Kills an ingest just before its commit, so that its shards lie there and belong to nobody."""
    added = Bench("add", bench.home, MANY)
    commits = [n for n, call in enumerate(added.strike(bench.home / "added", None).log, 1) if _is_commit(*call)]
    assert added.strike(bench.home / "abandoned", Fault("kill", commits[-1])).struck
    shutil.rmtree(start)
    (bench.home / "abandoned").rename(start)


def _is_commit(kind: str, path: str) -> bool:
    return kind in ("link", "rename") and "/registry/records/_delta_log/" in path


def points(kinds: Sequence[str], count: int, seed: int) -> list[tuple[str, int]]:
    """``count`` (kind, seed) spread over the kinds."""
    dice = random.Random(seed)
    return [(dice.choice(kinds), dice.randrange(10**9)) for _ in range(count)]
