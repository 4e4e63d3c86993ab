"""Ask a run for elements by holdout, region or span; judge them beside classical fills; write them back as files.

Legend: P digit planes, n predicted elements.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from aunn_data import digits
from aunn_data.corpus import Corpus
from aunn_data.entries import Entry
from aunn_data.errors import RequestError
from aunn_data.geometry import Geometry, slices
from aunn_data.record import Record
from aunn_model.network import Network
from aunn_model.reconstruction import Prediction, predict
from pipelines import compressed
from pipelines.export import path_below
from pipelines.export import write as write_source
from pipelines.figures import byte_figures, categorical, element_figures
from pipelines.runs import Run

Mask = npt.NDArray[np.bool_]
Progress = Callable[[int], object]


KEEPING = ("nifti1", "nifti2", "npy", "npz")  # their writers take an array of any type


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
        if not entry.is_shared and entry.payload_start < stop and start < entry.payload_stop:
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
        **byte_figures(found, true_Pn, scored),
        **element_figures(entry, categorical(record), truth, filled, known, mask & ~missing),
    }
    return Reconstruction(target, record, filled, truth, known, uncertainty, figures)


def write(found: Reconstruction, folder: Path) -> list[Path]:
    """Writes the record with what was predicted, the mask (1 = predicted) and the uncertainty (bits) below a folder."""
    entry, record = found.target.entry, found.record
    path = path_below(folder, file_name(entry), overwrite=True)
    missing = None if record.missing is None else np.asarray(record.missing) & ~found.target.mask
    files = [write_source([replace(record, elements=found.filled, missing=missing)], path)]
    for what, array in (("mask", found.target.mask.astype(np.uint8)), ("uncertainty", found.uncertainty)):
        files.append(_write_map(found, what, array, path))
    return files


def picture_name(entry: Entry) -> str:
    """The file name of a record's picture; the record's suffix stays in it, for there may be an a.png beside a.jpg."""
    return Path(file_name(entry)).name + ".picture.png"


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
    if categorical(record):
        likeliest_Pn = found.likeliest_N.reshape(geometry.planes, -1)
        return digits.elements_of(likeliest_Pn, dtype, geometry.offset, geometry.place_values)
    expected_Pn = found.expected_N.reshape(geometry.planes, -1)
    return digits.expected_elements_of(expected_Pn, dtype, geometry.offset, geometry.place_values)


def _write_map(found: Reconstruction, what: str, array: npt.NDArray[Any], path: Path) -> Path:
    """An array on the record's grid: NIfTI beside a NIfTI or another scan, PNG or TIFF beside an image, else .npy."""
    header, known = found.record.header, found.record.header.geometry
    axes, format, (stem, suffix) = known.axes, header.format, _split(path.name)
    if header.modality == "image":
        if "channel" in axes:  # one map for all channels
            array = array.sum(axis=axes.index("channel"), dtype=array.dtype)
            axes = tuple(axis for axis in axes if axis != "channel")
        array = np.where(array, 255, 0).astype(np.uint8) if what == "mask" else array
        format = "png" if what == "mask" else "tiff"
    elif header.modality != "scan":
        format = "npy"
    own = header.modality == "scan" and format in KEEPING
    if header.modality == "scan" and not own:
        format, suffix = "nifti1", ".nii"
    if header.modality != "scan":
        stem, suffix = path.name, f".{format}"
    whole = len(axes) == len(known.axes)
    geometry = Geometry(
        array.dtype.str,
        axes,
        array.shape,
        spacing=known.spacing if whole else None,
        units=known.units if whole else None,
        affine=known.affine,
    )
    metadata = header.metadata if own else {}
    record = Record(replace(header, format=format, geometry=geometry, metadata=metadata), array)
    return write_source([record], path.with_name(f"{stem}.{what}{suffix}"))


def _split(name: str) -> tuple[str, str]:
    """Name and suffix, .nii.gz being one suffix."""
    inner = compressed.inner_name(Path(name)).as_posix()
    stem = inner.removesuffix(Path(inner).suffix)
    return stem, name.removeprefix(stem)
