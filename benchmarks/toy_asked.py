"""What a network that knows the toy by heart says where it was never trained: after the text, far beyond, told `|c`.

A group is well-formed if it is a bar and three times the same letter. ``letters``: how often each letter begins one,
and ``letters_off`` the distance from a uniform draw (total variation: 0 the same, 1 disjoint; ``letters_off_by_chance``
is what as many fair draws are off). Conditioning: at a place that was never trained on, one step of plain descent on
`|` and a random letter; is that letter then said twice more? Each trial begins with the weights as they were trained,
and steps on the exit alone (the delta rule): the four of a group have nearly the same hidden activations, so what one
is told reaches the others. ``conditioned_kept``: the share of characters learned before that are still right after it.
"""

import string
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from matplotlib.figure import Figure
from torch import Tensor

from aunn_data.corpus import Corpus
from aunn_model import conditioning
from aunn_model.continuation import Choice, Drawn, Place, feed_back, open_loop
from aunn_model.network import Network
from aunn_model.training import Settings, begin, step

SPAN = 100_000  # addresses after the end, and from FAR on
FAR = 10_000_000
TRIALS = 1_000
LETTERS = string.ascii_lowercase
LAYERS = ("exit",)
STEP = Settings(
    optimizer="sgd", sgd_lr=0.15, schedule="constant", warmup=0, steps=1, ema=0.0, value_weight=0.0, precision="float32"
)
FED, FED_RATE = 400, 0.003  # addresses that are fed back, each by a gentle step on all weights
KEPT_OF, SAMPLE = 20, 4096


def asked(network: Network, corpus: Corpus, trials: int = 0, span: int = SPAN) -> dict[str, Any]:
    """All figures, over ``span`` addresses each; of conditioning and of what is fed back only with trials."""
    entry = corpus.entries.named("toy.txt")
    end = entry.payload_start + entry.shape[0]
    after, far = said(network, end, span), said(network, entry.payload_start + FAR, span)
    counts = letters_of(after)
    fair = np.random.default_rng(0).multinomial(counts.sum(), np.full(26, 1 / 26))
    out = {
        "continuation": after[:120].tobytes().decode("utf-8", "backslashreplace"),
        "well_formed_after_end": well_formed(after),
        "well_formed_past_10m": well_formed(far),
        "letters": dict(zip(LETTERS, counts.tolist(), strict=True)),
        "letters_off": off_uniform(counts),
        "letters_off_by_chance": off_uniform(fair),
    }
    if trials:
        some_N = np.sort(np.random.default_rng(0).choice(entry.shape[0], min(SAMPLE, entry.shape[0]), replace=False))
        whole_N = corpus.read(entry.payload_start, end)
        known = torch.from_numpy(entry.payload_start + some_N), torch.from_numpy(whole_N[some_N])
        out |= conditioned(network, [*range(end, end + span, 4), *range(FAR, FAR + span, 4)], trials, known)
        out["well_formed_fed_back"] = well_formed(fed_back(network, end))
    return out


def said(network: Network, start: int, span: int) -> npt.NDArray[np.uint8]:
    """The (span,) likeliest bytes from an address on, all asked at once."""
    place = Place(np.arange(start, start + span, dtype=np.int64), Drawn(Choice()))
    [(_, found)] = open_loop(network, [place])
    return found.bytes_N


def fed_back(network: Network, start: int) -> npt.NDArray[np.uint8]:
    """The likeliest bytes from an address on, each learned before the next is asked."""
    place = Place(np.arange(start, start + FED, dtype=np.int64), Drawn(Choice()))
    settings = replace(STEP, steps=FED, sgd_lr=FED_RATE)
    [(_, found)] = feed_back(begin(deepcopy(network), settings), settings, [place])
    return found.bytes_N


def well_formed(bytes_N: npt.NDArray[np.uint8]) -> float:
    """The share of groups of four that are a bar and a letter three times."""
    groups_G4 = bytes_N.reshape(-1, 4)
    letter_G = groups_G4[:, 1]
    alike_G = (groups_G4[:, 2] == letter_G) & (groups_G4[:, 3] == letter_G)
    return float(np.mean((groups_G4[:, 0] == ord("|")) & alike_G & np.isin(letter_G, [*LETTERS.encode()])))


def letters_of(bytes_N: npt.NDArray[np.uint8]) -> npt.NDArray[np.int64]:
    """(26,) how often each letter stands behind the bar."""
    counts = np.bincount(bytes_N.reshape(-1, 4)[:, 1], minlength=256)
    return np.asarray(counts[ord("a") : ord("z") + 1])


def off_uniform(counts_L: npt.NDArray[np.int64]) -> float:
    """Total variation distance of counts from equal ones."""
    return float(np.abs(counts_L / counts_L.sum() - 1 / len(counts_L)).sum() / 2)


def conditioned(network: Network, places: list[int], trials: int, known: tuple[Tensor, Tensor]) -> dict[str, float]:
    """The shares of trials in which a letter is said twice more, before and after one step on it; and, after the first
    ``KEPT_OF``, of what was known."""
    rng = np.random.default_rng(0)
    starts = rng.choice(places, trials, replace=False).tolist()
    told = rng.choice([*LETTERS.encode()], trials).tolist()
    before = [said_twice(network, start, letter) for start, letter in zip(starts, told, strict=True)]
    weights, after, kept = conditioning.weights_of(network), [], []
    for start, letter in zip(starts, told, strict=True):
        with conditioning.only(network, LAYERS):
            step(begin(network, STEP), STEP, torch.tensor([start, start + 1]), torch.tensor([ord("|"), letter]))
        after.append(said_twice(network, start, letter))
        if len(kept) < KEPT_OF:
            kept.append(_right(network, *known))
        conditioning.restore(network, weights)
    shares = {"conditioned": after, "conditioned_before": before, "conditioned_kept": kept}
    return {"trials": trials, **{name: float(np.mean(share)) for name, share in shares.items()}}


@torch.no_grad()
def _right(network: Network, addresses_B: Tensor, bytes_B: Tensor) -> float:
    return float((network(addresses_B).argmax(1) == bytes_B).float().mean())


@torch.no_grad()
def said_twice(network: Network, start: int, letter: int) -> bool:
    """Are the third and the fourth byte of a group this letter?"""
    return bool((network(torch.tensor([start + 2, start + 3])).argmax(1) == letter).all())


def draw(found: dict[str, Any], path: Path) -> None:
    """As in the original: the curve of learning, the continuation, its letters, conditioning."""
    figure = Figure(figsize=(11, 7), layout="constrained")
    (learning, letters), (text, told) = figure.subplots(2, 2)
    for name, curve in (("ours", found), ("original recipe, as many seconds", found["original"])):
        learning.plot(
            range(1, len(curve["by_epoch"]) + 1), [100 * share for share in curve["by_epoch"]], "o-", label=name
        )
    learning.set(xlabel="epoch", ylabel="characters right, %", ylim=(0, 102), title="Learned by heart")
    learning.legend()
    counts = found["letters"]
    letters.bar(list(counts), list(counts.values()), color="0.6")
    letters.axhline(sum(counts.values()) / 26, color="C3", lw=1)
    off, chance = found["letters_off"], found["letters_off_by_chance"]
    letters.set(title=f"Letters after the end: {100 * off:.1f} % off uniform (fair draws: {100 * chance:.1f} %)")
    lines = [found["continuation"][k : k + 40] for k in range(0, 120, 40)]
    text.axis("off")
    text.set_title(f"After the end: {100 * found['well_formed_after_end']:.2f} % of groups well-formed")
    text.text(0, 0.7, "\n".join(lines), family="monospace", fontsize=14, va="center")
    far = f"beyond 10,000,000: {100 * found['well_formed_past_10m']:.2f} %"
    text.text(0, 0.3, f"{far}\nfed back: {100 * found['well_formed_fed_back']:.2f} %", fontsize=12, va="center")
    shares = [100 * found["conditioned_before"], 100 * found["conditioned"]]
    bars = told.bar(["before", "after one step on |c"], shares, color=["0.7", "C0"])
    told.bar_label(bars, [f"{share:.1f} %" for share in shares])
    told.set(ylim=(0, 110), title=f"The next two are cc ({found['trials']:,} trials)", ylabel="%")
    figure.savefig(path, dpi=110, facecolor="white")
