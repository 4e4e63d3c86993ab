"""What only a user may ask for, and never happens by itself: a fill value, a mask of what is missing, 8 bits."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from aunn_data.errors import InputError
from aunn_data.geometry import Geometry, fitted
from aunn_data.record import Record
from pipelines.source import Source


class Derived:
    """Array-like made of others of its shape, slice by slice when it is read."""

    def __init__(self, parts: Sequence[Any], dtype: Any, make: Callable[..., npt.NDArray[Any]]):
        self.parts, self.make = parts, make
        self.shape, self.dtype = parts[0].shape, np.dtype(dtype)

    def __getitem__(self, key: Any) -> npt.NDArray[Any]:
        return self.make(*(np.asarray(part[key]) for part in self.parts))

    def __len__(self) -> int:
        return int(self.shape[0])

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> npt.NDArray[Any]:
        return np.asarray(self[...], dtype)


def wishes(source: Source) -> dict[str, Any]:
    """What a header says of what was asked for a scan: ``fill``, ``window`` and the SHA-256 of the ``mask``."""
    options = source.options
    said = {
        "fill": options.fill,
        "window": list(options.window) if options.window else None,
        "mask": Source(source.mask, "").sha256 if source.mask else None,
    }
    return {key: value for key, value in said.items() if value is not None}


def is_asked(source: Source, mask: Record | None) -> bool:
    """Do the options, or a mask beside it, ask for another record than the reader gives?"""
    return mask is not None or source.options.fill is not None or source.options.window is not None


def changed(record: Record, source: Source, mask: Record | None) -> Record:
    """The record as the options ask for it. Only scans of real numbers have these; InputError for others of them."""
    options = source.options
    if record.header.modality != "scan" or not is_asked(source, mask):
        return record
    elements, metadata = record.elements, {**record.header.metadata, **wishes(source)}
    if elements.dtype.kind not in "biuf" or (mask and mask.elements.shape != elements.shape):
        raise InputError(
            source.label,
            expected="real numbers, and a mask of the same shape",
            found=f"{elements.dtype} {elements.shape}" + (f", mask {mask.elements.shape}" if mask else ""),
            remedy="leave out --fill and --window, or take the mask away",
        )
    missing = _marks(record, options.fill, mask)
    geometry = replace(record.header.geometry, offset=0, place_values=(1,), missing_value=None)
    if options.window:
        metadata["stored_dtype"] = geometry.dtype
        geometry, elements = _windowed(geometry, elements, *options.window)
    header = replace(record.header, geometry=fitted(geometry, elements, missing), metadata=metadata)
    return Record(header, elements, missing)


def _marks(record: Record, fill: float | None, mask: Record | None) -> Any:
    """All marks together; None if there are none."""
    marks = [] if record.missing is None else [record.missing]
    if mask is not None:
        marks.append(Derived([mask.elements], bool, lambda part: part != 0))
    if fill is not None:
        marks.append(Derived([record.elements], bool, lambda part: part == fill))
    if not marks:
        return None
    together = Derived(marks, bool, lambda *parts: np.logical_or.reduce(parts))
    return together if any(together[k].any() for k in range(len(together))) else None


def _windowed(geometry: Geometry, elements: Any, low: float, high: float) -> tuple[Geometry, Derived]:
    """uint8: 0 at ``low`` and below, 255 at ``high`` and above, both in physical values; the geometry says so."""
    bottom, step = (low - geometry.intercept) / geometry.slope, (high - low) / geometry.slope / 255

    def make(part: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
        scaled: npt.NDArray[np.float64] = np.nan_to_num((part.astype(np.float64) - bottom) / step).clip(0, 255)
        return np.rint(scaled).astype(np.uint8)

    scaled = replace(geometry, dtype="|u1", slope=(high - low) / 255, intercept=low)
    return scaled, Derived([elements], np.uint8, make)
