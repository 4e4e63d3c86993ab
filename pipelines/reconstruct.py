"""Ask a run for elements by holdout, region or span; judge them beside classical fills; write them back as files.

Legend: P digit planes, n predicted elements.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from aunn_data import digits
from aunn_data.corpus import Corpus
from aunn_data.errors import RequestError
from aunn_data.geometry import slices
from aunn_data.record import Record
from aunn_data.registry import Entry
from aunn_model.evaluation import byte_accuracy, peak_of, psnr_db
from aunn_model.network import Network
from aunn_model.reconstruction import Prediction, predict
from pipelines import fills, formats
from pipelines.runs import Run
from pipelines.scans import npy

Mask = npt.NDArray[np.bool_]
Progress = Callable[[int], object]


@dataclass(frozen=True)
class Target:
    """A record and which of its elements are asked for."""

    entry: Entry
    mask: Mask


@dataclass(frozen=True)
class Reconstruction:
    """One record with the elements asked for predicted, and what there was before.

    ``filled`` and ``truth`` have the geometry's dtype and shape; ``known`` marks what a filler may look at: neither
    asked for, nor missing in the source, nor held out of the run. ``uncertainty`` is the entropy of an element's
    digits, float32 bits, 0 where nothing was asked. ``figures`` are JSON types.
    """

    target: Target
    record: Record
    filled: npt.NDArray[Any]
    truth: npt.NDArray[Any]
    known: Mask
    uncertainty: npt.NDArray[np.float32]
    figures: dict[str, Any]


def holdout_targets(corpus: Corpus, name: str) -> list[Target]:
    """The held-out regions of one name, by record. RequestError if there are none."""
    regions: dict[str, list[Any]] = {}
    for held in corpus.holdouts():
        if held.holdout == name and held.record in corpus.entries:
            regions.setdefault(held.record, []).append(held.region)
    if not regions:
        known = sorted({held.holdout for held in corpus.holdouts()})
        raise RequestError(
            name, expected=f"a holdout: {', '.join(known) or 'there are none'}", found="no such", remedy="choose one"
        )
    return [_target(corpus.entries.named(record), found) for record, found in regions.items()]


def region_targets(corpus: Corpus, record: str, texts: Sequence[str]) -> list[Target]:
    """Regions (``z=8:12,y=0:64``) of one record."""
    entry = corpus.entries.named(record)
    return [_target(entry, [entry.geometry.parse_region(text, record) for text in texts])]


def span_targets(corpus: Corpus, start: int, stop: int) -> list[Target]:
    """The elements that have a byte at addresses ``start:stop``. RequestError if none has."""
    targets = []
    for entry in corpus.entries:
        if entry.payload_start < stop and start < entry.payload_stop:
            geometry, mask = entry.geometry, np.zeros(entry.shape, np.bool_)
            at = geometry.offsets(geometry.whole) + entry.payload_start
            for plane in range(geometry.planes):
                here = at + plane * geometry.plane_extent
                mask |= (here >= start) & (here < stop)
            if mask.any():
                targets.append(Target(entry, mask))
    if not targets:
        raise RequestError(
            f"span {start}:{stop}",
            expected="addresses that hold elements of a record",
            found="headers, padding or nothing",
            remedy="`aunn-data ls` lists what lies where",
        )
    return targets


def reconstruct(
    network: Network, corpus: Corpus, run: Run, target: Target, on_bytes: Progress = lambda count: None
) -> Reconstruction:
    """Predicts the elements of a target and judges them."""
    entry, geometry, mask = target.entry, target.entry.geometry, target.mask
    record = corpus.record(entry)
    truth = np.asarray(record.elements)
    missing = np.zeros(mask.shape, np.bool_) if record.missing is None else np.asarray(record.missing)
    held = np.zeros(mask.shape, np.bool_)
    for _, name, text in run.holdouts:
        if name == entry.record:
            held[slices(geometry.parse_region(text, name))] = True
    true_Pn = digits.digits_of(truth[mask], geometry.offset, geometry.place_values, _unstored(entry, missing[mask]))
    found = predict(network, _addresses(target), true_Pn.reshape(-1), on_bytes)
    filled = truth.copy()
    filled[mask] = _values(entry, record, found)
    uncertainty = np.zeros(mask.shape, np.float32)
    uncertainty[mask] = found.entropy_N.reshape(geometry.planes, -1).sum(axis=0)
    known = ~(mask | missing | held)
    scored = ~missing[mask]
    figures = {
        "record": entry.record,
        "elements": int(mask.sum()),
        "seen": round(float(np.mean(~(held | missing)[mask])), 6),
        **_byte_figures(found, true_Pn, scored),
    }
    if not categorical(entry, record):
        figures |= _value_figures(entry, truth, filled, known, mask & ~missing)
    return Reconstruction(target, record, filled, truth, known, uncertainty, figures)


def summary(figures: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Figures of several records as one: bytes weigh bits and accuracy, records weigh decibels."""
    weights = [f["bytes"] for f in figures]

    def mean(name: str) -> float | None:
        values = [(f[name], w) for f, w in zip(figures, weights, strict=True) if f[name] is not None]
        return float(np.average([v for v, _ in values], weights=[w for _, w in values])) if values else None

    numeric = [f for f in figures if f.get("psnr_db") is not None]
    peers = [name for name in (numeric[0]["peers"] if numeric else {}) if all(name in f["peers"] for f in numeric)]
    return {
        "bits_per_byte": mean("bits_per_byte"),
        "entropy_bits_per_byte": mean("entropy_bits_per_byte"),
        "byte_accuracy": mean("byte_accuracy"),
        "psnr_db": float(np.mean([f["psnr_db"] for f in numeric])) if numeric else None,
        "peers": {
            name: {
                key: float(np.mean([f["peers"][name][key] for f in numeric])) for key in ("psnr_db", "byte_accuracy")
            }
            for name in peers
        },
        "records": list(figures),
    }


def write(found: Reconstruction, folder: Path) -> list[Path]:
    """Writes the record with what was predicted, the mask (1 = predicted) and the uncertainty (bits) below a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    entry, record = found.target.entry, found.record
    path = folder / file_name(entry)
    path.parent.mkdir(parents=True, exist_ok=True)
    missing = None if record.missing is None else np.asarray(record.missing) & ~found.target.mask
    format = formats.named(entry.format)
    files = [format.write([replace(record, elements=found.filled, missing=missing)], path)]
    mask, uncertainty = found.target.mask.astype(np.uint8), found.uncertainty
    if entry.modality == "image" and "channel" in entry.axes:  # one picture for all channels
        axis = entry.axes.index("channel")
        mask, uncertainty = mask.max(axis=axis), uncertainty.sum(axis=axis)
    for what, array in (("mask", mask), ("uncertainty", uncertainty)):
        files.append(_write_companion(found, array, _companion(path, what)))
    return files


def categorical(entry: Entry, record: Record) -> bool:
    """Are the elements symbols, not quantities, so that a mean of them says nothing?"""
    return entry.modality in ("text", "chess") or "palette" in record.header.metadata


def picture_name(entry: Entry) -> str:
    """The file name of a record's picture."""
    return _split(Path(file_name(entry)).name)[0] + ".picture.png"


def file_name(entry: Entry) -> str:
    """The file name of one record of a source: game 7 of games.pgn is games#7.pgn."""
    number = entry.record.removeprefix(entry.source).replace("::", "#").replace("/", "_")
    stem, suffix = _split(entry.source)
    return f"{stem}{number}{suffix}"


def _target(entry: Entry, regions: Sequence[Any]) -> Target:
    mask = np.zeros(entry.shape, np.bool_)
    for region in regions:
        mask[slices(region)] = True
    return Target(entry, mask)


def _addresses(target: Target) -> npt.NDArray[np.int64]:
    """(P * n,) the addresses of the elements asked for, plane after plane."""
    entry, geometry = target.entry, target.entry.geometry
    indices = np.nonzero(target.mask)
    offset_n = sum(geometry.axis_offset(k, index.astype(np.int64)) for k, index in enumerate(indices))
    planes_P = np.arange(geometry.planes, dtype=np.int64)[:, None] * geometry.plane_extent
    return np.asarray(entry.payload_start + planes_P + offset_n).reshape(-1)


def _unstored(entry: Entry, missing_n: Mask) -> Mask | None:
    return missing_n if entry.geometry.missing_value is not None else None


def _values(entry: Entry, record: Record, found: Prediction) -> npt.NDArray[Any]:
    geometry, dtype = entry.geometry, np.dtype(entry.dtype)
    if categorical(entry, record):
        likeliest_Pn = found.likeliest_N.reshape(geometry.planes, -1)
        return digits.elements_of(likeliest_Pn, dtype, geometry.offset, geometry.place_values)
    expected_Pn = found.expected_N.reshape(geometry.planes, -1)
    return digits.expected_elements_of(expected_Pn, dtype, geometry.offset, geometry.place_values)


def _byte_figures(found: Prediction, true_Pn: npt.NDArray[np.uint8], scored_n: Mask) -> dict[str, Any]:
    planes = len(true_Pn)
    scored_N = np.tile(scored_n, planes)
    count = int(scored_N.sum())
    if not count:
        return {"bytes": 0, "bits_per_byte": None, "entropy_bits_per_byte": None, "byte_accuracy": None}
    return {
        "bytes": count,
        "bits_per_byte": float(found.surprise_N[scored_N].mean(dtype=np.float64)),
        "entropy_bits_per_byte": float(found.entropy_N[scored_N].mean(dtype=np.float64)),
        "byte_accuracy": byte_accuracy(found.likeliest_N[scored_N], true_Pn.reshape(-1)[scored_N]),
    }


def _value_figures(
    entry: Entry, truth: npt.NDArray[Any], filled: npt.NDArray[Any], known: Mask, scored: Mask
) -> dict[str, Any]:
    """PSNR of ours and of the classical fills; the peak is max - min of the record's true values."""
    geometry = entry.geometry
    if not scored.any():
        return {"psnr_db": None, "peers": {}}
    peak = peak_of(truth)
    values = np.where(known, truth, 0).astype(np.float64)
    peers: dict[str, Any] = {}
    methods = {name: partial(fills.by_frame, fill) for name, fill in fills.FILLS.items()}
    fillers: dict[str, Any] = {**methods, "other_frame": fills.other_frame}
    for name, method in fillers.items():
        guess = method(values, ~known, axes=entry.axes)
        if guess is not None:
            stored = _as_stored(guess[scored], truth.dtype)
            peers[name] = {
                "psnr_db": psnr_db(stored, truth[scored], peak),
                "byte_accuracy": byte_accuracy(*(_digits(entry, v) for v in (stored, truth[scored]))),
            }
    error = filled[scored].astype(np.float64) - truth[scored].astype(np.float64)
    return {
        "psnr_db": psnr_db(filled[scored], truth[scored], peak),
        "peak": peak,
        "rmse": float(np.sqrt(np.mean(error**2))),
        "rmse_scaled": float(np.sqrt(np.mean(error**2)) * abs(geometry.slope)),
        "peers": peers,
    }


def _as_stored(values: npt.NDArray[np.float64], dtype: np.dtype[Any]) -> npt.NDArray[Any]:
    """Values rounded into the record's own type, as ours are."""
    if dtype.kind in "iu":
        limits = np.iinfo(dtype)
        return np.clip(np.rint(values), limits.min, limits.max).astype(dtype)
    return (values >= 0.5) if dtype.kind == "b" else values.astype(dtype)


def _digits(entry: Entry, elements_n: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
    return digits.digits_of(elements_n, entry.geometry.offset, entry.geometry.place_values)


def _write_companion(found: Reconstruction, array: npt.NDArray[Any], path: Path) -> Path:
    """An array of the record's grid in the record's format where that can hold it, else .npy."""
    record = found.record
    geometry = replace(
        record.header.geometry,
        dtype=array.dtype.str,
        shape=array.shape,
        axes=tuple(a for a in record.header.geometry.axes if array.ndim == len(found.filled.shape) or a != "channel"),
        offset=0,
        place_values=(1,),
        missing_value=None,
        slope=1.0,
        intercept=0.0,
        spacing=None if array.ndim != len(found.filled.shape) else record.header.geometry.spacing,
        units=None if array.ndim != len(found.filled.shape) else record.header.geometry.units,
    )
    format = formats.named(record.header.format)
    metadata = record.header.metadata if record.header.modality == "scan" else {}
    header = replace(record.header, geometry=geometry, metadata=metadata)
    if record.header.modality in ("text", "chess"):
        return npy.write([Record(replace(header, format="npy"), array)], path.with_name(_split(path.name)[0] + ".npy"))
    if record.header.modality == "image":
        suffix = ".png" if array.dtype == np.uint8 else ".tiff"
        header = replace(header, format=suffix[1:])
        array = array * 255 if suffix == ".png" else array
        return formats.named(header.format).write(
            [Record(header, array)], path.with_name(_split(path.name)[0] + suffix)
        )
    return format.write([Record(header, array)], path)


def _companion(path: Path, what: str) -> Path:
    stem, suffix = _split(path.name)
    return path.with_name(f"{stem}.{what}{suffix}")


def _split(name: str) -> tuple[str, str]:
    """Name and suffix, .nii.gz being one suffix."""
    for suffix in (".nii.gz", Path(name).suffix):
        if suffix and name.endswith(suffix):
            return name.removesuffix(suffix), suffix
    return name, ""
