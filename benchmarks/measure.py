"""One measured thing, one process: so each has its own peak memory, its own caches and its own interpreter.

A child is ``python -m MODULE NAME ARGUMENTS``, the arguments JSON. It times itself (interpreter start and imports left
out) and prints one line of JSON, at least ``{"seconds": …}``; the parent adds ``peak_bytes`` as the operating system
accounts it: the largest resident set of the child or of any process that the child waited for, mapped file pages
included. Of a child with workers that is the largest process, not their sum. Linux counts what the parent had at the
fork as the child's, so the parent stays small (about 130 MB, the least that any row can show): whatever takes memory,
making the data too, is a child.

Only the standard library, numpy and tqdm are imported here: children of both virtual environments use this file.
"""

import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

ROOT = Path(__file__).parent.parent
OURS = Path(sys.executable)
PEERS = ROOT / ".venv-bench/bin/python"

Figures = dict[str, Any]
Contender = Callable[[Path], Figures]
"""Does the work into a path that does not exist yet; returns what its child printed."""


class FailedError(Exception):
    """A child that gave no figure; the message is the end of what it said."""


@dataclass(frozen=True)
class Row:
    """One line of the table. Of both figures less is better; None is one that is not there; ``unit`` is "s" or "B".

    ``goal`` names what is to be reached, in ``table.GOALS``.
    """

    work: str
    peer: str
    ours: float | None
    theirs: float | None
    goal: str = ""
    unit: str = "s"
    our_peak: float | None = None
    their_peak: float | None = None
    error: str = ""


class Timer:
    """Seconds of a ``with`` block, once it is over."""

    seconds = 0.0


@contextmanager
def timed() -> Iterator[Timer]:
    """``with timed() as timer: …`` then ``timer.seconds``."""
    timer, start = Timer(), time.perf_counter()
    yield timer
    timer.seconds = time.perf_counter() - start


def child(module: str, name: str, *arguments: Any, python: Path = OURS) -> Figures:
    """What the child printed, with its peak memory. Raises FailedError with the child's last words."""
    if not python.exists():
        raise FailedError(f"{python.parent.parent.name} is not there: `make bench` makes it")
    command = [str(python), "-m", f"benchmarks.{module}", name, *(json.dumps(a, default=str) for a in arguments)]
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as errors:
        process = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=out, stderr=errors)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)  # else Popen would wait for it once more
        out.seek(0)
        errors.seek(0)
        said, wrong = out.read().strip().splitlines(), errors.read().strip().splitlines()
    if process.returncode or not said:
        raise FailedError(f"{name}: exit {process.returncode}: {(wrong or said or ['it said nothing'])[-1]}")
    return {**json.loads(said[-1]), "peak_bytes": usage.ru_maxrss * 1024}


def answer(*functions: Callable[..., Figures]) -> None:
    """The other side of ``child``: calls the function that was asked for, prints what it returns."""
    name, *arguments = sys.argv[1:]
    figures = {f.__name__: f for f in functions}[name](*map(json.loads, arguments))
    print(f"\n{json.dumps(figures)}", flush=True)


def compare(
    work: str, folder: Path, rounds: int, ours: Contender, peers: dict[str, Contender], goal: str
) -> tuple[Figures, list[Row]]:
    """Our median figures and a row a peer. All take turns in each round, so that drift hits them all.

    A peer that fails, or gives another ``sum`` of what it found than we do, has the error in its row. Raises
    FailedError if we fail.
    """
    contenders = {"ours": ours, **peers}
    results: dict[str, list[Figures]] = {name: [] for name in contenders}
    errors: dict[str, str] = {}
    with tqdm(total=rounds * len(contenders), desc=work, leave=False, disable=None) as bar:
        for _ in range(rounds):
            for name in [name for name in contenders if name not in errors]:
                bar.set_postfix_str(name)
                try:
                    results[name].append(_once(contenders[name], folder / "out" / name.replace(" ", "-")))
                except FailedError as error:
                    if name == "ours":
                        raise
                    errors[name] = str(error)
                bar.update()
    shutil.rmtree(folder / "out", ignore_errors=True)
    mine = _median(results["ours"])
    return mine, [_row(work, name, mine, results[name], f"{goal} {name}", errors.get(name, "")) for name in peers]


def _row(work: str, peer: str, mine: Figures, found: list[Figures], goal: str, error: str) -> Row:
    theirs = _median(found) if found and not error else {}
    if theirs and mine.get("sum") != theirs.get("sum"):
        theirs, error = {}, f"found {theirs['sum']} where we found {mine['sum']}"
    return Row(
        work,
        peer,
        mine["seconds"],
        theirs.get("seconds"),
        goal,
        our_peak=mine["peak_bytes"],
        their_peak=theirs.get("peak_bytes"),
        error=error,
    )


def durable(folder: Path) -> int:
    """Flushes every file below a folder, and the folders, to the disk; returns the bytes of the files."""
    size = 0
    for path in [folder, *folder.rglob("*")]:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        size += path.stat().st_size if path.is_file() else 0
    return size


def stored(folder: Path) -> int:
    """Bytes of all files below a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def warm(path: Path) -> None:
    """Reads a file, or all files below a folder, into the page cache."""
    buffer = bytearray(1 << 22)
    for file in [path] if path.is_file() else [p for p in path.rglob("*") if p.is_file()]:
        with file.open("rb") as source:
            while source.readinto(buffer):
                pass


def _once(contender: Contender, out: Path) -> Figures:
    shutil.rmtree(out, ignore_errors=True)
    out.parent.mkdir(exist_ok=True)
    os.sync()  # nobody pays for what his predecessor left to write
    return contender(out)


def _median(found: list[Figures]) -> Figures:
    return {key: statistics.median([figures[key] for figures in found]) for key in found[0]}
