"""How good our reconstruction of held-out parts is, beside what people would use instead, on real data.

    python -m benchmarks.reconstruction --data FOLDER --seconds 300 --only papyrus-blocks,mri-blocks

FOLDER holds the files that `benchmarks.cases` names. One table: PSNR over what was held out (peak = max - min of the
whole truth), SSIM there, bits per byte of those who say how likely a byte is (of ours the network alone; nothing where
the truth is not in the corpus), and for text the share of bytes right. Ours plans to train for ``--seconds``, and each
network gets as many as it took, one after the other, on the same threads; scikit-image's inpainting is ended after as
many. The seconds in the table are those of training, or of all for who does not train. Networks with ``+t`` see the
other frames too. Of the scales of the Fourier network, each of which got the seconds, the best by the held-out truth is
shown: ours has no such choice.

The n-grams are told the true bytes before each byte, also those of the held-out line; ours is told none.
"""

import argparse
import json
import os
import platform
import tempfile
import time
import tomllib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from skimage.metrics import structural_similarity

from aunn_model.evaluation import byte_accuracy, normalised_mse, peak_of, psnr_db
from aunn_model.training import Settings
from benchmarks import coordinate, inpainting
from benchmarks.cases import CASES, Case, make
from pipelines import fills, runs
from pipelines.figures import as_stored, summary
from pipelines.reconstruct import Reconstructor
from pipelines.targets import Target
from pipelines.train import train_run

WINDOW = 7  # of SSIM
SCALES = (1, 3, 10)
ORDER = 5


@dataclass(frozen=True)
class Asked:
    """What the caller wants: seconds of training, the seed of everything, other settings of ours than the defaults."""

    seconds: float | None  # None: ours trains the steps of its settings, other networks do not
    seed: int = 0
    settings: str = ""


@dataclass(frozen=True)
class Filled:
    """A method's answer: all values, what was asked for among them; None where it was not done in its time."""

    values: npt.NDArray[Any] | None
    bits_per_byte: float | None = None
    note: str = ""
    seconds: float | None = None  # of training


@dataclass(frozen=True)
class Row:
    """A line of the table; a figure that has no meaning for its case is None."""

    case: str
    method: str
    psnr_db: float | None
    ssim: float | None
    bits_per_byte: float | None
    byte_accuracy: float | None
    seconds: float
    note: str = ""


Method = Callable[[Case, Asked], "Filled | None"]


# ---- methods: None where one has nothing to say about a case -------------------------------------------------------


def ours(case: Case, asked: Asked) -> Filled:
    """A corpus of the case, a network trained on all of it that is not held out, and what a user gets: it, pooled with
    our fills."""
    settings = Settings(**{**Settings().__dict__, "seed": asked.seed, **tomllib.loads(asked.settings)})
    with tempfile.TemporaryDirectory() as folder:
        corpus = case.corpus(Path(folder))
        done = train_run(corpus, Path(folder) / "run", settings, asked.seconds)
        best = runs.load(Path(folder) / "run", corpus, done.run).best
        reconstruct, figures = Reconstructor(best, corpus, done.run), []
        values = case.by_record(corpus, case.truth.copy())
        for number, mask in enumerate(case.by_record(corpus, case.asked)):
            if mask.any():
                found = reconstruct(Target(corpus.entries[number], mask))
                values[number] = as_stored(found.filled, case.truth.dtype)  # the record's type may be wider
                figures.append(found.figures)
    told = summary(figures)
    alone, note = told["peers"].get("network", {}).get("psnr_db"), f"{done.state.step} steps"
    note += f", the network alone {alone:.2f} dB" if alone is not None else ""
    return Filled(values.reshape(case.truth.shape), told["bits_per_byte"], note, done.state.seconds)


def classical(fill: Callable[..., fills.Values], case: Case, asked: Asked) -> Filled | None:
    """One of our own fills, frame by frame."""
    if case.symbols and fill is not fills.nearest:
        return None
    return Filled(fills.by_frame(fill, case.given, ~case.known, case.axes))


def skimage_biharmonic(case: Case, asked: Asked) -> Filled | None:
    """scikit-image's, if it is done in the seconds."""
    if case.symbols:
        return None
    filled = inpainting.biharmonic(case.given, ~case.known, case.axes, asked.seconds)
    return Filled(filled, note="" if filled is not None else f"not done: {int(case.asked.sum()):,} unknowns")


def other_frame(case: Case, asked: Asked) -> Filled | None:
    """The nearest other frame as it is."""
    filled = fills.other_frame(case.given, ~case.known, case.axes)
    return None if filled is None else Filled(filled)


def fitted_frame(case: Case, asked: Asked) -> Filled | None:
    """The nearest other frame on the scale of this one."""
    filled = fills.fitted_frame(case.given, ~case.known, case.axes)
    return None if filled is None else Filled(filled)


def nearest_items(case: Case, asked: Asked) -> Filled | None:
    """The mean of the nearest whole items."""
    if "item" not in case.axes:
        return None
    filled, neighbours = inpainting.nearest_items(case.given, case.asked)
    return Filled(filled, note=f"k = {neighbours}")


def ngram(order: int, case: Case, asked: Asked) -> Filled | None:
    """The likeliest byte after the true ones before it."""
    if not case.symbols:
        return None
    likely_NV = inpainting.ngram(case.truth, case.known, case.asked, order)
    values, true_N = case.truth.copy(), case.truth[case.asked]
    values[case.asked] = likely_NV.argmax(axis=1)
    return Filled(values, float(-np.log2(likely_NV[np.arange(len(true_N)), true_N]).mean()))


def network(made: Callable[..., torch.nn.Module], frames: bool, case: Case, asked: Asked) -> Filled | None:
    """A coordinate network; of many small items, or of text, there is no grid that it could be a function of."""
    if asked.seconds is None or case.symbols or "item" in case.axes:
        return None
    if frames and ("t" not in case.axes or case.hidden.any()):
        return None
    limit = coordinate.Limit(asked.seconds)
    filled = coordinate.fit(made, case.given, case.known, case.asked, case.axes, limit, asked.seed, frames)
    return Filled(filled, None, f"{limit.steps_taken} steps", limit.seconds_taken)


def _methods() -> dict[str, tuple[Method, ...]]:
    """By name; of several that stand together the best one is shown."""
    found: dict[str, tuple[Method, ...]] = {
        "ours": (ours,),
        **{name: (partial(classical, fill),) for name, fill in fills.FILLS.items()},
        "skimage_biharmonic": (skimage_biharmonic,),
        "other_frame": (other_frame,),
        "fitted_frame": (fitted_frame,),
        "nearest_items": (nearest_items,),
        "1-gram": (partial(ngram, 1),),
        f"{ORDER}-gram": (partial(ngram, ORDER),),
    }
    for frames, suffix in ((False, ""), (True, "+t")):
        found[f"siren{suffix}"] = (partial(network, coordinate.Siren, frames),)
        scaled = [partial(coordinate.Fourier, scale=scale) for scale in SCALES]
        found[f"fourier{suffix}"] = tuple(partial(network, made, frames) for made in scaled)
        found[f"hash{suffix}"] = (partial(network, coordinate.HashGrid, frames),)
    return found


METHODS = _methods()


# ---- figures --------------------------------------------------------------------------------------------------------


def rows(case: Case, methods: Sequence[str], asked: Asked) -> Iterator[Row]:
    """A row of each method that has something to say, as soon as it is there."""
    for name in methods:
        tried = [row for method in METHODS[name] if (row := measured(case, name, method, asked))]
        if len(tried) > 1:
            scales = ", ".join(f"{scale}: {row.psnr_db or 0:.2f}" for scale, row in zip(SCALES, tried, strict=True))
            best = max(tried, key=lambda row: row.psnr_db or 0)
            yield replace(best, note=f"{best.note}, best of scales {scales}")
        else:
            yield from tried
        if name == "ours" and tried and asked.seconds is not None:  # it plans steps, and may take longer
            asked = replace(asked, seconds=max(asked.seconds, tried[0].seconds))


def measured(case: Case, name: str, method: Method, asked: Asked) -> Row | None:
    """One method on one case."""
    began = time.perf_counter()
    found = method(case, asked)
    taken = time.perf_counter() - began
    if found is None:
        return None
    psnr = ssim = accuracy = None
    if found.values is not None:
        stored = as_stored(found.values, case.truth.dtype)
        if case.symbols:
            accuracy = byte_accuracy(stored[case.asked], case.truth[case.asked])
        else:
            psnr = psnr_db(normalised_mse(stored[case.asked], case.truth[case.asked], peak_of(case.truth)))
            ssim = similarity(case.truth, stored, case.asked)
    return Row(case.name, name, psnr, ssim, found.bits_per_byte, accuracy, found.seconds or taken, found.note)


def similarity(truth: npt.NDArray[Any], filled: npt.NDArray[Any], asked: npt.NDArray[np.bool_]) -> float:
    """SSIM of the planes of the last two axes, averaged over what was asked for; windows of 7, or what fits."""
    height, width = truth.shape[-2:]
    window = min(WINDOW, *(edge - 1 + edge % 2 for edge in (height, width)))
    found = []
    for true, made, mask in zip(*(array.reshape(-1, height, width) for array in (truth, filled, asked)), strict=True):
        if mask.any():
            _, ssim = structural_similarity(
                true.astype(np.float64),
                made.astype(np.float64),
                win_size=window,
                data_range=peak_of(truth),
                full=True,
            )
            found.append(ssim[mask])
    return float(np.concatenate(found).mean())


# ---- the table ------------------------------------------------------------------------------------------------------

HEAD = f"{'case':18}{'method':20}{'PSNR dB':>8}{'SSIM':>8}{'bits/byte':>10}{'bytes right':>12}{'seconds':>9}  note"


def line(row: Row) -> str:
    """A row of the table; what has no meaning is left blank."""

    def figure(value: float | None, width: int, digits: int) -> str:
        return f"{value:{width}.{digits}f}" if value is not None else " " * width

    share = f"{100 * row.byte_accuracy:10.1f} %" if row.byte_accuracy is not None else " " * 12
    figures = f"{figure(row.psnr_db, 8, 2)}{figure(row.ssim, 8, 3)}{figure(row.bits_per_byte, 10, 3)}{share}"
    return f"{row.case:18}{row.method:20}{figures}{row.seconds:9.1f}  {row.note}".rstrip()


def setting(asked: Asked) -> dict[str, Any]:
    """What the figures depend on besides the code."""
    packages = ("numpy", "scipy", "scikit-image", "torch")
    return {
        **asdict(asked),
        "threads": torch.get_num_threads(),
        "cores": len(os.sched_getaffinity(0)),
        "machine": platform.processor() or platform.machine(),
        "load": round(os.getloadavg()[0], 1),
        "packages": {name: version(name) for name in packages},
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, metavar="FOLDER", help="the real files")
    parser.add_argument("--only", default=",".join(CASES), metavar="CASE,...", help="default: %(default)s")
    parser.add_argument("--methods", default=",".join(METHODS), metavar="METHOD,...", help="default: %(default)s")
    parser.add_argument("--seconds", type=float, default=300, help="of training for each network (%(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of what is held out and of the networks")
    parser.add_argument("--settings", default="", help="of ours, other than the defaults, as TOML: 'width = 512'")
    parser.add_argument("--json", action="store_true", help="one JSON document instead of the table")
    given = parser.parse_args(arguments)
    cases, methods = given.only.split(","), given.methods.split(",")
    if unknown := sorted({*cases} - {*CASES} | {*methods} - {*METHODS}):
        parser.error(f"neither a case nor a method: {', '.join(unknown)}")
    asked, found = Asked(given.seconds, given.seed, given.settings), []
    if not given.json:
        print(f"{setting(asked)}\n{HEAD}", flush=True)
    for name in cases:
        for row in rows(make(name, given.data, given.seed), methods, asked):
            found.append(row)
            if not given.json:
                print(line(row), flush=True)
    if given.json:
        print(json.dumps({**setting(asked), "rows": [asdict(row) for row in found]}, indent=1))


if __name__ == "__main__":
    main()
