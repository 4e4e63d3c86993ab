"""How fast we are beside those who do the same: one table of ratios, each row measured in this one run.

    python -m benchmarks.table --only a,b --size 2

Of every figure less is better, and a ratio is theirs / ours: 2.0 is twice as fast, or half the memory. Everybody reads
the same bytes, and whoever writes has flushed all his files to the disk when his time is taken. Exit code 1 if a row
has no figure; a goal that is missed is no error.
"""

import argparse
import importlib.metadata
import json
import os
import platform
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks import ingest, lookup, sampling, scaling, small
from benchmarks.measure import OURS, PEERS, FailedError, Row
from benchmarks.scaling import Series

# What each ratio is to reach; where nothing stands the row is there to compare.
GOALS = {
    "a tensorstore": 1.0,
    "a zarr-python": 3.0,
    "a litdata": 3.0,
    "a mds": 3.0,
    "a memory": 1.0,
    "b digits litdata": 1.0,
    "b digits mds": 1.0,
    "b digits webdataset": 1.0,
    "b lines litdata": 1.0,
    "b lines mds": 1.0,
    "b lines webdataset": 1.0,
    "c a volume np.memmap": 0.5,
    "c digits np.memmap": 0.5,
    "d shards in order": 0.7,
    "d litdata, 0 workers": 3.0,
    "d litdata, 2 workers": 3.0,
    "d mds, 0 workers": 3.0,
    "d mds, 2 workers": 3.0,
    "e duckdb asof": 10.0,
    "e duckdb between": 10.0,
}
PACKAGES = {
    OURS: ("numpy", "zarr", "zstandard", "deltalake", "pyarrow"),
    PEERS: ("tensorstore", "zarr", "litdata", "mosaicml-streaming", "webdataset", "duckdb", "numpy", "torch"),
}
COLUMNS = ("work", "ours", "peer", "theirs", "ratio", "to reach", "reached?")


def main() -> None:
    """Measures, prints, exits with 1 if something could not be measured."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="a,b,c,d,e,f,g", help="rows, such as a,b")
    parser.add_argument("--size", type=float, default=2, help="GiB of the volume that is ingested")
    parser.add_argument("--epoch", type=float, default=1, help="GiB of the corpus in rows d; a quarter is its memory")
    parser.add_argument("--memory", type=float, default=0.25, help="GiB of the corpus in rows c")
    parser.add_argument("--small", type=int, default=100_000, help="small records of rows b")
    parser.add_argument("--records", type=int, default=1_000_000, help="records of rows e, f and g")
    parser.add_argument("--rounds", type=int, default=3, help="how often each is measured; the median counts")
    parser.add_argument("--work", type=Path, default=Path("bench"), help="where all files go; inputs are kept there")
    parser.add_argument("--json", type=Path, help="also write all figures to this file")
    asked = parser.parse_args()
    work = asked.work.resolve()
    work.mkdir(parents=True, exist_ok=True)
    measures: dict[str, Callable[[], list[Row]]] = {
        "a": lambda: ingest.rows(work, asked.size, asked.rounds),
        "b": lambda: small.rows(work, asked.small, asked.rounds),
        "c": lambda: sampling.gather_rows(work, asked.memory, asked.rounds),
        "d": lambda: sampling.epoch_rows(work, asked.epoch, asked.rounds),
        "e": lambda: lookup.lookup_rows(work, asked.records, asked.rounds),
        "f": lambda: lookup.open_rows(work, asked.records, asked.rounds),
    }
    only = asked.only.split(",")
    if unknown := set(only) - {*measures, "g"}:
        parser.error(f"no rows {', '.join(sorted(unknown))}: there are a to g")
    rows = [row for letter in measures if letter in only for row in _measured(letter, measures[letter])]
    curves = scaling.series(work, asked.records) if "g" in only else []
    print("\n".join([*machine(), "", *table(rows), "", *scaling_table(curves)]))
    if asked.json:
        document = {
            "machine": machine(),
            "rows": [_with_ratio(r) for r in rows],
            "scaling": [asdict(s) for s in curves],
        }
        asked.json.write_text(json.dumps(document, indent=1) + "\n")
    sys.exit(1 if any(found.error for found in [*rows, *curves]) else 0)


def machine() -> list[str]:
    """Cores, memory, versions on both sides."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    first = f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores, {memory:.0f} GiB, Python "
    return [first + platform.python_version(), f"ours: {_versions(OURS)}", f"peers: {_versions(PEERS)}"]


def table(rows: list[Row]) -> list[str]:
    """The rows as lines of text, columns aligned."""
    cells = [COLUMNS, *(_cells(row) for row in rows)]
    widths = [max(len(line[k]) for line in cells) for k in range(len(COLUMNS) - 1)]
    return [" | ".join([*map(str.ljust, line, widths), line[-1]]).rstrip() for line in cells] if rows else []


def scaling_table(curves: list[Series]) -> list[str]:
    """A line a figure: nanoseconds a unit at each size."""
    lines = []
    for curve in curves:
        points = "  ".join(f"{_short(size)}: {seconds * 1e9:,.4g}" for size, seconds in curve.points)
        said = curve.error or points + ("  BENDS UPWARD" if curve.bends else "")
        lines.append(f"{curve.figure}, ns a {curve.unit}: {said}" if curve.unit else f"{curve.figure}: {said}")
    return lines


def _measured(letter: str, measure: Callable[[], list[Row]]) -> list[Row]:
    try:
        return measure()
    except FailedError as error:
        return [Row(f"rows {letter}", "", None, None, error=str(error))]


def _cells(row: Row) -> tuple[str, ...]:
    ratio, goal = _ratio(row), GOALS.get(row.goal)
    reached = "" if ratio is None or goal is None else "yes" if ratio >= goal else "no"
    return (
        row.work,
        _figure(row.ours, row.unit, row.our_peak),
        row.peer,
        _figure(row.theirs, row.unit, row.their_peak),
        "" if ratio is None else f"{ratio:.2f}",
        "" if goal is None else f"{goal:.2f}",
        f"FAILED: {row.error}" if row.error else reached,
    )


def _ratio(row: Row) -> float | None:
    return row.theirs / row.ours if row.ours and row.theirs else None


def _with_ratio(row: Row) -> dict[str, Any]:
    return {**asdict(row), "ratio": _ratio(row), "to_reach": GOALS.get(row.goal)}


def _figure(value: float | None, unit: str, peak: float | None) -> str:
    if value is None:
        return "-"
    shown = f"{value / 1e6:,.0f} MB" if unit == "B" else f"{value:.3g} s" if value < 100 else f"{value:.0f} s"
    return shown if peak is None else f"{shown}, {peak / 1e6:,.0f} MB"


def _short(size: int) -> str:
    return f"2^{size.bit_length() - 1}" if size & (size - 1) == 0 else f"{size:,}"


def _versions(python: Path) -> str:
    """The peers' are asked of their own interpreter."""
    code = "import importlib.metadata as m, sys; print(', '.join(f'{p} {m.version(p)}' for p in sys.argv[1:]))"
    if not python.exists():
        return "not installed"
    if python == OURS:
        return ", ".join(f"{package} {importlib.metadata.version(package)}" for package in PACKAGES[python])
    return subprocess.run([python, "-c", code, *PACKAGES[python]], capture_output=True, text=True).stdout.strip()


if __name__ == "__main__":
    main()
