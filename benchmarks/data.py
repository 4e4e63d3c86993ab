"""What is measured on: made from a seed, so that everyone measures the same bytes.

* a volume like a CT scan: smooth bands in a cylinder under noise, so that zstd takes a third away, as of real ones;
* digits like MNIST's: 28x28 bytes, strokes on zeros, a fifth of what they were under zstd;
* lines of JSON, 60 to 300 bytes.
"""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

SIDE = 2048
WORDS = ("papyrus", "ink", "fibre", "layer", "scroll", "letter", "column", "sheet", "edge", "fold", "trace", "slice")


def made(kind: str, folder: Path, size: float) -> Path:
    """The file of this kind and size in a folder; made (by a child, for the memory it takes) if it is not there."""
    suffix = "jsonl" if kind == "lines" else "npy"
    path = folder / f"{kind}-{size:g}.{suffix}"
    if not path.exists():
        building = folder / f"building.{suffix}"
        subprocess.run([sys.executable, "-m", "benchmarks.data", kind, building, str(size)], check=True)
        building.rename(path)
    return path


def volume(path: Path, gib: float) -> None:
    """A .npy of uint8[256 gib, 2048, 2048]."""
    slices = max(1, round(gib * 2**30 / SIDE**2))
    out = np.lib.format.open_memmap(path, "w+", np.uint8, (slices, SIDE, SIDE))
    rng, at = np.random.default_rng(0), np.linspace(-1, 1, SIDE, dtype=np.float32)
    inside = at[:, None] ** 2 + at[None, :] ** 2 < 1
    for z in tqdm(range(slices), "making the volume", unit="slice", disable=None):
        turn = np.float32(z / 40)
        bands = 60 * np.sin(9 * at + turn)[:, None] * np.cos(7 * at - turn)[None, :] + 110
        dice = rng.integers(0, 256, (SIDE, SIDE), np.uint8)
        out[z] = np.where(inside, bands.astype(np.uint8) + (dice & 15) + (dice >> 4), 0)
    out.flush()


def digits(path: Path, size: float) -> None:
    """A .npy of uint8[size, 28, 28]."""
    count, rng = int(size), np.random.default_rng(0)
    every, pen = np.arange(count), np.array([[90, 180, 90], [180, 255, 180], [90, 180, 90]], np.uint8)
    out, place = np.zeros((count, 28, 28), np.uint8), rng.integers(6, 19, (2, count))
    for _ in tqdm(range(30), "making digits", unit="step", disable=None):
        place = np.clip(place + rng.integers(-2, 3, (2, count)), 4, 21)
        for (y, x), grey in np.ndenumerate(pen):
            out[every, place[0] + y, place[1] + x] |= grey
    np.save(path, np.where(out > 0, out - rng.integers(0, 80, out.shape, np.uint8), 0))


def lines(path: Path, size: float) -> None:
    """A .jsonl of ``size`` objects."""
    rng = np.random.default_rng(0)
    with path.open("w") as out:
        for number in tqdm(range(int(size)), "making lines", unit="line", disable=None):
            text = " ".join(WORDS[n] for n in rng.integers(0, len(WORDS), rng.integers(8, 36)))
            out.write(json.dumps({"id": number, "score": round(float(rng.random()), 4), "text": text}) + "\n")


def small(path: str) -> list[Any]:
    """The small records of a file: arrays of digits, or the bytes of lines."""
    if path.endswith(".npy"):
        return list(np.load(path, allow_pickle=False))
    return Path(path).read_bytes().splitlines(keepends=True)


if __name__ == "__main__":
    makers: dict[str, Callable[[Path, float], None]] = {f.__name__: f for f in (volume, digits, lines)}
    makers[sys.argv[1]](Path(sys.argv[2]), float(sys.argv[3]))
