"""A failing disk under `ingest` and `holdout`: the corpus is as before or as after, the user gets one clear line."""

import errno
from dataclasses import replace
from functools import cache

import pytest

from tests.faults import TAKES_SPACE, WRITES, Fault, why_not
from tests.killing import MANY, bench, check_afterwards, check_end

pytestmark = pytest.mark.skipif(why_not() is not None, reason=str(why_not()))

FAULTS = {
    "error": Fault("fail", 0),
    "full": Fault("fail", 0, error=errno.ENOSPC, lasting=True),
    "short": Fault("short", 0),
    "torn": Fault("torn", 0),
    "power": Fault("power", 0),
}
STRIKABLE = {"full": TAKES_SPACE, "short": WRITES, "torn": WRITES}  # kinds of call; of the others: any
POINTS = {"add": 7, "holdout": 4}
EXIT_CODES = range(5)


@pytest.fixture(scope="module")
def benches(tmp_path_factory):
    """kind -> its bench, made when it is first asked for: a command that adds one batch to a corpus with records."""
    return cache(lambda kind: bench(kind, tmp_path_factory.mktemp(kind), batch=MANY))


def moment(bench, name, number):
    """The call at which a fault strikes: its points are spread evenly over the run."""
    calls = [n for n, (kind, _) in enumerate(bench.log, 1) if kind in STRIKABLE.get(name, {kind})]
    return calls[(2 * number + 1) * len(calls) // (2 * POINTS[bench.kind])]


@pytest.mark.parametrize("name", FAULTS)
@pytest.mark.parametrize(("kind", "number"), [(kind, n) for kind, count in POINTS.items() for n in range(count)])
def test_a_failing_disk_leaves_the_corpus_before_or_after(benches, kind, number, name):
    """Never between: clean, one exit code of ours and one line that is no traceback; the command again finishes."""
    bench = benches(kind)
    case, fault = bench.home / "case", replace(FAULTS[name], at=moment(bench, name, number), seed=number)
    done = bench.strike(case, fault)
    assert done.struck
    check_afterwards(bench, case, done)
    if fault.kind in ("fail", "short"):
        check_told(done)
    if fault.kind == "short":
        assert done.returncode == 0
    if done.returncode == 0:
        check_end(bench, case)
    bench.again(case)
    check_end(bench, case)


def check_told(done):
    """The user gets an exit code that the documentation knows and, unless it is 0, one line."""
    assert done.returncode in EXIT_CODES, done.stderr
    assert "Traceback" not in done.stderr, done.stderr
    assert len(done.stderr.strip().splitlines()) == (done.returncode != 0), done.stderr
