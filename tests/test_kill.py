"""Killed, torn or cut from power at any call: what was committed stays, the same command again finishes the work."""

from functools import cache

import pytest

from tests.faults import Fault, why_not
from tests.killing import bench, check_afterwards, check_end, check_point

pytestmark = pytest.mark.skipif(why_not() is not None, reason=str(why_not()))

POINTS = {"ingest": 21, "build-corpus": 15, "gc": 10, "train": 3, "condition": 4}


@pytest.fixture(scope="module")
def benches(tmp_path_factory):
    """kind -> its bench, made when it is first asked for."""
    return cache(lambda kind: bench(kind, tmp_path_factory.mktemp(kind)))


@pytest.mark.parametrize(("kind", "seed"), [(kind, seed) for kind, count in POINTS.items() for seed in range(count)])
def test_struck_down_at_any_moment_the_same_command_finishes(benches, kind, seed):
    """The corpus opens clean at a commit, checkpoints are whole, and the command again ends as if never struck."""
    check_point(benches(kind), seed, benches(kind).home / "case")


def test_a_checkpoint_that_is_being_removed_is_never_half(benches):
    """Killed while the training removes an old checkpoint: every checkpoint that can be found is whole."""
    train, case = benches("train"), benches("train").home / "case"
    removals = [n for n, (kind, path) in enumerate(train.log, 1) if kind == "unlink" and "checkpoint" in path]
    done = train.strike(case, Fault("kill", removals[1]))
    assert done.struck
    check_afterwards(train, case, done)
    train.again(case)
    check_end(train, case)


@pytest.mark.parametrize(("kind", "table"), [("ingest", "records"), ("build-corpus", "holdouts")])
def test_what_the_same_command_finds_done_it_makes_durable(benches, kind, table):
    """Killed just before the last commit is durable: after the command again, a power cut does not take it away."""
    struck, case = benches(kind), benches(kind).home / "case"
    log = f"/registry/{table}/_delta_log/"
    commit = max(n for n, (call, path) in enumerate(struck.log, 1) if call == "link" and log in path)
    done = struck.strike(case, Fault("again", commit + 1))
    assert (done.struck, done.returncode, struck.log[commit][0]) == (True, 0, "fsync"), done.stderr
    check_afterwards(struck, case, done)
    check_end(struck, case)
