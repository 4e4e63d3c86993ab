"""Peers of `benchmarks.reconstruction` that are no networks and not among our own fills.

Each takes what is known and gives all values with what is asked for filled. Biharmonic inpainting factors one sparse
matrix a gap, too large for large gaps of three dimensions: so it runs as a process of its own, which is ended when its
time is over.

    python -m benchmarks.inpainting FOLDER AXIS…  # given.npy, unknown.npy -> filled.npy
"""

import resource
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pipelines.fills import by_frame

Values = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]

MEMORY = 8 << 30
NEIGHBOURS = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32)


def biharmonic(given: Values, unknown: Mask, axes: tuple[str, ...], seconds: float | None) -> Values | None:
    """scikit-image's `inpaint_biharmonic` in each frame; None if it was not done in the time, or in 8 GiB."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        np.save(folder / "given.npy", given)
        np.save(folder / "unknown.npy", unknown)
        command = [sys.executable, "-W", "ignore", "-m", "benchmarks.inpainting", name, *axes]
        try:
            done = subprocess.run(command, timeout=seconds, check=False, stderr=subprocess.DEVNULL)
        except subprocess.TimeoutExpired:
            return None
        return np.load(folder / "filled.npy", allow_pickle=False) if not done.returncode else None


def nearest_items(given: Values, asked: Mask) -> tuple[Values, int]:
    """Of each item that lacks a part the mean of those k whole ones whose other part is nearest; and k.

    k is the one that does best for the whole items themselves, each without itself.
    """
    lacking = asked.reshape(len(asked), -1).any(axis=1)
    part = asked[lacking][0]
    here, there, whole = given[lacking][:, ~part], given[~lacking][:, ~part], given[~lacking][:, part]

    def ranked(from_: Values, without: bool) -> npt.NDArray[Any]:
        squared = (from_**2).sum(axis=1)[:, None] - 2 * from_ @ there.T + (there**2).sum(axis=1)
        if without:
            np.fill_diagonal(squared, np.inf)
        return np.argsort(squared, axis=1, kind="stable")[:, : max(NEIGHBOURS)]

    among = ranked(there, True)
    best = min(NEIGHBOURS, key=lambda k: float(((whole[among[:, :k]].mean(axis=1) - whole) ** 2).mean()))
    out = given.copy()
    out[asked] = whole[ranked(here, False)[:, :best]].mean(axis=1).reshape(-1)
    return out, best


def ngram(text: npt.NDArray[np.uint8], known: Mask, asked: Mask, order: int) -> Values:
    """(N, 256) how likely each byte is at each place that is asked for, told the true ``order`` - 1 bytes before it.

    Counted in what is known; each order is interpolated with the one below it as Witten and Bell (1991) weigh them.
    """
    before = np.concatenate([np.zeros(order - 1, np.int64), text.astype(np.int64)])
    whole, place, likely = known.copy(), np.flatnonzero(asked), np.full((int(asked.sum()), 256), 1 / 256)
    context = np.zeros(len(text), np.int64)
    for back in range(order):
        if back:
            context += before[order - 1 - back : len(before) - back] << (8 * (back - 1))
            whole[back:] &= known[:-back]
        grams, counts = np.unique((context << 8 | text)[whole], return_counts=True)
        sought = (context[place] << 8)[:, None] + np.arange(256)
        row = np.searchsorted(grams, sought).clip(max=len(grams) - 1)
        count = np.where(grams[row] == sought, counts[row], 0)
        kinds, total = (count > 0).sum(axis=1, keepdims=True), count.sum(axis=1, keepdims=True)
        likely = np.where(total > 0, (count + kinds * likely) / np.maximum(total + kinds, 1), likely)
    return likely


def main(folder: Path, axes: tuple[str, ...]) -> None:
    """Fills what the folder asks for, within its memory."""
    from skimage.restoration import inpaint_biharmonic

    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    given, unknown = (np.load(folder / f"{name}.npy", allow_pickle=False) for name in ("given", "unknown"))

    def fill(values: Values, gaps: Mask) -> Values:
        return np.asarray(inpaint_biharmonic(values, gaps, split_into_regions=True))

    np.save(folder / "filled.npy", by_frame(fill, given, unknown, axes))


if __name__ == "__main__":
    main(Path(sys.argv[1]), tuple(sys.argv[2:]))
