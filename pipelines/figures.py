"""Figures of a reconstruction: the network's, beside those of the classical fills of the same elements.

Legend: P digit planes, n predicted elements, N = P * n bytes. Keys are named by their unit; a figure that has no finite
value (the PSNR of an exact reconstruction, of symbols, of a constant record) is None.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from aunn_data import digits
from aunn_data.entries import Entry
from aunn_data.record import Record
from aunn_model.evaluation import byte_accuracy, normalised_mse, peak_of, psnr_db
from aunn_model.reconstruction import Prediction

Mask = npt.NDArray[np.bool_]
Elements = npt.NDArray[Any]


def categorical(record: Record) -> bool:
    """Are the elements symbols, not quantities, so that a mean of them says nothing?"""
    return record.header.modality in ("text", "chess") or "palette" in record.header.metadata


def byte_figures(found: Prediction, true_Pn: npt.NDArray[np.uint8], scored_n: Mask) -> dict[str, Any]:
    """Bits per byte, the network's own entropy, and the share of bytes right."""
    scored_N = np.tile(scored_n, len(true_Pn))
    count = int(scored_N.sum())
    if not count:
        return {"bytes": 0, "bits_per_byte": None, "entropy_bits_per_byte": None, "byte_accuracy": None}
    return {
        "bytes": count,
        "bits_per_byte": float(found.surprise_N[scored_N].mean(dtype=np.float64)),
        "entropy_bits_per_byte": float(found.entropy_N[scored_N].mean(dtype=np.float64)),
        "byte_accuracy": byte_accuracy(found.likeliest_N[scored_N], true_Pn.reshape(-1)[scored_N]),
    }


def element_figures(
    entry: Entry,
    symbols: bool,
    truth: Elements,
    filled: Elements,
    guesses: dict[str, Elements],
    known: Mask,
    scored: Mask,
) -> dict[str, Any]:
    """PSNR of ours and of other ``guesses`` of the same elements; peak is max - min of the record's truth.

    Symbols have no PSNR: only the share of bytes that are right is told.
    """
    scored, known = scored & np.isfinite(truth), known & np.isfinite(truth)
    if not scored.any() or not known.any():
        return {"nmse": None, "psnr_db": None, "peers": {}}
    peak = 0.0 if symbols else peak_of(truth)
    peers = {name: _judged(entry, guess[scored], truth[scored], peak) for name, guess in guesses.items()}
    if symbols:
        return {"nmse": None, "psnr_db": None, "peers": peers}
    rmse = float(np.sqrt(np.mean((filled[scored].astype(np.float64) - truth[scored].astype(np.float64)) ** 2)))
    nmse = normalised_mse(filled[scored], truth[scored], peak)
    scaled = rmse * abs(entry.geometry.slope)
    return {"nmse": nmse, "psnr_db": psnr_db(nmse), "peak": peak, "rmse": rmse, "rmse_scaled": scaled, "peers": peers}


def summary(figures: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Figures of several records as one: a mean over bytes, for PSNR a mean of normalised errors over records."""
    peers = {}
    for name in dict.fromkeys(name for f in figures for name in f["peers"]):
        rows = [{**f, **f["peers"][name]} for f in figures if name in f["peers"]]
        peers[name] = {"psnr_db": psnr_db(_mean(rows, "nmse", False)), "byte_accuracy": _mean(rows, "byte_accuracy")}
    return {
        "bits_per_byte": _mean(figures, "bits_per_byte"),
        "entropy_bits_per_byte": _mean(figures, "entropy_bits_per_byte"),
        "byte_accuracy": _mean(figures, "byte_accuracy"),
        "psnr_db": psnr_db(_mean(figures, "nmse", False)),
        "pooled_bits_per_byte": _mean([{"pooled_bits_per_byte": None, **f} for f in figures], "pooled_bits_per_byte"),
        "coverage": _coverage(figures),
        "peers": peers,
        "records": list(figures),
    }


def _coverage(figures: Sequence[dict[str, Any]]) -> dict[str, float] | None:
    """Level -> share of the truth within its interval, over all elements that are quantities."""
    rows = [f for f in figures if f.get("coverage")]
    if not rows:
        return None
    counts = [row["elements"] for row in rows]
    return {
        level: float(np.average([row["coverage"][level] for row in rows], weights=counts))
        for level in rows[0]["coverage"]
    }


def _judged(entry: Entry, guess_n: Elements, truth_n: Elements, peak: float) -> dict[str, Any]:
    stored_n = as_stored(guess_n, truth_n.dtype)
    nmse = normalised_mse(stored_n, truth_n, peak)
    digits_of = partial(digits.digits_of, offset=entry.geometry.offset, place_values=entry.geometry.place_values)
    return {
        "nmse": nmse,
        "psnr_db": psnr_db(nmse),
        "byte_accuracy": byte_accuracy(digits_of(stored_n), digits_of(truth_n)),
    }


def as_stored(values: npt.NDArray[np.float64], dtype: np.dtype[Any]) -> Elements:
    """Values rounded into the record's own type, as ours are."""
    if dtype.kind in "iu":
        limits = np.iinfo(dtype)
        return np.clip(np.rint(values), limits.min, limits.max).astype(dtype)
    return (values >= 0.5) if dtype.kind == "b" else values.astype(dtype)


def _mean(figures: Sequence[dict[str, Any]], name: str, by_bytes: bool = True) -> float | None:
    rows = [(f[name], f["bytes"] if by_bytes else 1) for f in figures if f[name] is not None]
    return float(np.average([v for v, _ in rows], weights=[w for _, w in rows])) if rows else None
