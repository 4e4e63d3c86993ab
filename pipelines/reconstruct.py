"""Ask a run for elements: the network's prediction pooled with classical fills, judged beside each of them.

Legend: P digit planes, n predicted elements, E experts.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from aunn_data import digits
from aunn_data.corpus import Corpus
from aunn_data.entries import Entry
from aunn_data.errors import RequestError
from aunn_data.record import Record
from aunn_model.network import Network
from aunn_model.reconstruction import Prediction, predict
from pipelines import fills, pooling
from pipelines.alike import Alike
from pipelines.figures import as_stored, byte_figures, categorical, element_figures
from pipelines.holes import Check, Mask, addresses_of, checks_of, held_of, holes_of, missing_of, payload_of
from pipelines.pooling import Opinions, Pool, Pooled
from pipelines.runs import Run
from pipelines.targets import Target

Progress = Callable[[int], object]

OBSERVED = ("refuse", "keep", "overwrite")
PROBABLE = 0.9  # of the interval that is written as the uncertainty


@dataclass(frozen=True)
class Reconstruction:
    """One record with the elements asked for predicted, and what there was before.

    ``filled`` and ``truth`` have the geometry's dtype and shape; ``known`` marks what a filler may look at: neither
    asked for, nor missing in the source, nor held out of the run. ``uncertainty`` is float32, 0 where nothing was
    asked: of quantities half the width of the 90 % interval in stored units, of symbols the entropy in bits.
    ``figures`` are JSON types.
    """

    target: Target
    record: Record
    filled: npt.NDArray[Any]
    truth: npt.NDArray[Any]
    known: Mask
    uncertainty: npt.NDArray[np.float32]
    figures: dict[str, Any]


@dataclass(frozen=True)
class _Views:
    """What the fills make of a record's unknown elements, by name; float64, of the record's shape."""

    fills: dict[str, npt.NDArray[np.float64]]
    distance: npt.NDArray[np.float64]

    @classmethod
    def of(cls, entry: Entry, truth: npt.NDArray[Any], known: Mask, alike: Alike) -> "_Views":
        known = known & np.isfinite(truth)
        values = np.where(known, truth, 0).astype(np.float64)
        found = fills.every(values, ~known, entry.axes) if known.any() else {}
        if (like := alike.fill(entry, values, known)) is not None:
            found["alike"] = like
        return cls(found, fills.distance(~known, entry.axes))


class Reconstructor:
    """Reconstructs targets of one run; what is fitted to the checks of one kind of record is kept for the next.

    ``checks`` are what the network was not trained on beside the holes, by default those of the run.
    """

    def __init__(self, network: Network, corpus: Corpus, run: Run, checks: Sequence[Check] | None = None):
        self.network, self.corpus, self.run = network, corpus, run
        if checks is None:
            checks = checks_of(corpus, run.holdouts, run.settings.checks, run.settings.seed)
        self.checks = checks
        holed = {payload_of(corpus, record) for _, record, _ in run.holdouts}
        self._alike = Alike(corpus, holed | {check.entry.record for check in checks}, run.settings.seed)
        self._pools: dict[object, Pool | None] = {}

    def __call__(
        self, target: Target, observed: str = "refuse", on_bytes: Progress = lambda count: None
    ) -> Reconstruction:
        """Predicts the elements of a target and judges them.

        Elements that the run was trained on are an error ("refuse"), stay as they are ("keep"), or are predicted from
        memory ("overwrite").
        """
        entry = target.entry
        missing, held = missing_of(self.corpus, entry), held_of(entry, self.run.holdouts)
        target = self._within(target, held | missing, observed)
        mask = target.mask
        record = self.corpus.record(entry)
        truth = np.asarray(record.elements)
        unstored_n = missing[mask] if entry.geometry.missing_value is not None else None
        true_Pn = digits.digits_of(truth[mask], entry.geometry.offset, entry.geometry.place_values, unstored_n)
        found = predict(self.network, addresses_of(entry, mask), true_Pn.reshape(-1), on_bytes)
        known = ~(mask | missing | held)
        filled, uncertainty = truth.copy(), np.zeros(mask.shape, np.float32)
        figures = {
            "record": entry.record,
            "elements": int(mask.sum()),
            "seen": round(float(np.mean(~(held | missing)[mask])), 6) if mask.any() else 0.0,
            **byte_figures(found, true_Pn, ~missing[mask]),
        }
        if categorical(record):
            likeliest_Pn = found.likeliest_N.reshape(entry.geometry.planes, -1)
            filled[mask] = _elements(entry, likeliest_Pn)
            uncertainty[mask] = found.entropy_N.reshape(entry.geometry.planes, -1).sum(axis=0)
            guesses = {"nearest": fills.nearest(np.where(known, truth, 0).astype(np.float64), ~known)}
            figures |= element_figures(entry, True, truth, filled, guesses, known, mask & ~missing)
            return Reconstruction(target, record, filled, truth, known, uncertainty, figures)
        views = _Views.of(entry, truth, known, self._alike)
        said = _opinions(entry, found, views, mask)
        pool = self._pool(entry, tuple(views.fills)) if (held | missing)[mask].all() else None
        pooled = pool(said) if pool else pooling.trusting(said)
        filled[mask] = as_stored(pooled.mean_n, truth.dtype)
        uncertainty[mask] = pooled.half_width(PROBABLE)
        alone = truth.copy()
        alone[mask] = as_stored(said.means_nE[:, 0], truth.dtype)
        guesses = {"network": alone, **views.fills}
        figures |= element_figures(entry, False, truth, filled, guesses, known, mask & ~missing)
        figures |= _trust(pool, pooled, list(views.fills), entry, truth[mask], ~missing[mask])
        return Reconstruction(target, record, filled, truth, known, uncertainty, figures)

    def _within(self, target: Target, unobserved: Mask, observed: str) -> Target:
        over = int((target.mask & ~unobserved).sum())
        if not over or observed == "overwrite":
            return target
        if observed == "keep" and (target.mask & unobserved).any():
            return Target(target.entry, target.mask & unobserved)
        raise RequestError(
            target.entry.record,
            expected="elements that the run has not seen: held out, or missing in the source",
            found=f"{over:,} of {int(target.mask.sum()):,} that were observed, and trained on",
            remedy="--observed keep fills the others only, --observed overwrite replaces what was measured",
        )

    def _pool(self, entry: Entry, experts: tuple[str, ...]) -> Pool | None:
        """The pool of a kind of record, fitted to its checks; None without enough of them."""
        kind = (entry.modality, entry.geometry.kind, experts)
        if kind not in self._pools:
            self._pools[kind] = self._fitted(kind)
        return self._pools[kind]

    def _fitted(self, kind: tuple[Any, ...]) -> Pool | None:
        opinions, truths = [], []
        for check in self.checks:
            if (check.entry.modality, check.entry.geometry.kind) != kind[:2]:
                continue
            record, mask = self.corpus.record(check.entry), check.mask
            truth = np.asarray(record.elements)
            known = ~(holes_of(self.corpus, check.entry, self.run.holdouts) | mask)
            views = _Views.of(check.entry, truth, known, self._alike)
            if categorical(record) or tuple(views.fills) != kind[2]:
                continue
            said = _opinions(check.entry, predict(self.network, addresses_of(check.entry, mask)), views, mask)
            whole = np.flatnonzero(np.isfinite(truth[mask]))
            opinions.append(said.some(whole))
            truths.append(truth[mask][whole].astype(np.float64))
        if not truths:
            return None
        local = [False, *(name in fills.LOCAL for name in kind[2])]
        return pooling.fit(Opinions.joined(opinions), np.concatenate(truths), local, self.run.settings.seed)


def reconstruct(
    network: Network,
    corpus: Corpus,
    run: Run,
    target: Target,
    observed: str = "refuse",
    on_bytes: Progress = lambda count: None,
) -> Reconstruction:
    """One target of a run; ``Reconstructor`` is for many."""
    return Reconstructor(network, corpus, run)(target, observed, on_bytes)


def _opinions(entry: Entry, found: Prediction, views: _Views, mask: Mask) -> Opinions:
    """What network and fills say of the elements of a mask, in stored units."""
    geometry, dtype = entry.geometry, np.dtype(entry.dtype)
    expected_Pn = found.expected_N.reshape(geometry.planes, -1)
    place_P = np.array(geometry.place_values, np.float64)[:, None]
    spread_n = np.sqrt((found.variance_N.reshape(geometry.planes, -1) * place_P**2).sum(axis=0))
    around = []
    for off in (-1, 0, 1):
        shifted_Pn = expected_Pn.copy()
        shifted_Pn[-1] += off * spread_n
        value_n = digits.expected_elements_of(shifted_Pn, dtype, geometry.offset, geometry.place_values)
        around.append(value_n.astype(np.float64))
    if dtype.kind in "iu":  # not rounded: pooling goes on from here
        around[1] = (expected_Pn * place_P).sum(axis=0) + geometry.offset
        half_n = spread_n
    else:
        half_n = np.abs(around[2] - around[0]) / 2
    means = [around[1], *(view[mask] for view in views.fills.values())]
    return Opinions(np.stack(means, axis=1), half_n, views.distance[mask])


def _elements(entry: Entry, digits_Pn: npt.NDArray[np.uint8]) -> npt.NDArray[Any]:
    geometry = entry.geometry
    return digits.elements_of(digits_Pn, np.dtype(entry.dtype), geometry.offset, geometry.place_values)


def _trust(
    pool: Pool | None, pooled: Pooled, names: list[str], entry: Entry, truth_n: npt.NDArray[Any], scored_n: Mask
) -> dict[str, Any]:
    """How far the intervals can be believed, and who was believed."""
    scored_n = scored_n & np.isfinite(truth_n)
    out: dict[str, Any] = {"calibrated": pool is not None, "weights": None, "coverage": None}
    if pool is not None:
        shares = (float(share) for share in pool.weights)
        out["weights"] = {name: round(share, 4) for name, share in zip(["network", *names], shares, strict=True)}
    if scored_n.any():
        judged = Pooled(pooled.mean_n[scored_n], pooled.spread_n[scored_n], pooled.reach_L)
        covered_L = judged.coverage(truth_n[scored_n].astype(np.float64))
        out["coverage"] = {f"{level:.2f}": float(share) for level, share in zip(pooling.LEVELS, covered_L, strict=True)}
        if truth_n.dtype.kind in "iu":
            out["pooled_bits_per_byte"] = judged.bits(truth_n[scored_n].astype(np.float64)) / entry.geometry.planes
    return out
