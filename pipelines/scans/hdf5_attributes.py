"""HDF5's attributes, texts and storage <-> JSON, so that they can stand in a header and be written again."""

import base64
from typing import Any

import h5py
import numpy as np

MOST_BYTES = 1 << 18  # of one attribute or text; a header is no place for more
RELATIONS = ("DIMENSION_LIST", "REFERENCE_LIST")  # made again from the names of the scales
PLAIN = {"gzip", "lzf", None}  # compressions that are written again


def attributes(there: Any) -> dict[str, Any]:
    """All attributes of a group or dataset, in the order of their names."""
    return {utf8(name): _attribute(there, name) for name in sorted(there.attrs) if name not in RELATIONS}


def utf8(name: str) -> str:
    """The name, with what is no UTF-8 spelt out."""
    return name.encode("utf-8", "backslashreplace").decode()


def set_attributes(there: Any, kept: dict[str, Any]) -> None:
    """Writes what ``attributes`` gave; what was left out stays so."""
    for name, value in kept.items():
        if "left_out" not in value:
            _set(there, name, value)


def text(dataset: Any) -> Any:
    """A dataset of strings as JSON, None if it is none or a big one."""
    if h5py.check_string_dtype(dataset.dtype) is None or dataset.is_virtual or dataset.external:
        return None
    if dataset.shape is None or dataset.size > MOST_BYTES // 16 or dataset.size * dataset.dtype.itemsize > MOST_BYTES:
        return None
    value = _strings(dataset[()], h5py.check_string_dtype(dataset.dtype), dataset.shape)
    return value if "left_out" not in value else None


def set_text(file: Any, name: str, kept: dict[str, Any]) -> None:
    """Writes what ``text`` gave."""
    file.create_dataset(name, **_created(kept["text"]))


def storage(dataset: Any) -> dict[str, Any]:
    """How the elements are stored: chunks, filters that can be written again, fill value, greatest shape, names."""
    kept: dict[str, Any] = {}
    if dataset.chunks:
        kept["chunks"] = list(dataset.chunks)
        kept["maxshape"] = list(dataset.maxshape)
        if dataset.compression in PLAIN and dataset.compression:
            kept["compression"], kept["compression_opts"] = dataset.compression, dataset.compression_opts
        kept.update({name: True for name in ("shuffle", "fletcher32") if getattr(dataset, name)})
    if dataset.dtype.kind in "biufc" and dataset.fillvalue is not None and np.any(dataset.fillvalue):
        kept["fillvalue"] = _number(np.asarray(dataset.fillvalue))
    names = h5py.check_enum_dtype(dataset.dtype)
    if names and dataset.dtype.kind != "b":
        kept["names"] = {utf8(name): int(number) for name, number in names.items()}
    return kept


def created(kept: dict[str, Any], dtype: np.dtype[Any]) -> dict[str, Any]:
    """The arguments that make a dataset that is stored so."""
    made: dict[str, Any] = {name: value for name, value in kept.items() if name not in ("names", "fillvalue")}
    made = {name: tuple(value) if isinstance(value, list) else value for name, value in made.items()}
    if "fillvalue" in kept:
        made["fillvalue"] = array_of(kept["fillvalue"])[()]
    return {**made, "dtype": h5py.enum_dtype(kept["names"], dtype) if kept.get("names") else dtype}


def array_of(kept: dict[str, Any]) -> Any:
    """The array that a number or an array of numbers was kept as."""
    if "data" in kept:
        return np.frombuffer(base64.b64decode(kept["data"]), kept["type"]).reshape(kept["shape"])
    return np.array(kept["value"], kept["type"]).reshape(kept.get("shape", ()))


def _attribute(there: Any, name: str) -> dict[str, Any]:
    if name != utf8(name):
        return {"left_out": "its name is no UTF-8"}
    there = there.attrs
    stored = there.get_id(name)
    info = h5py.check_string_dtype(stored.dtype)
    if stored.get_space().get_simple_extent_type() == h5py.h5s.NULL:
        return {"empty": stored.dtype.str} if stored.dtype.kind in "biufcS" else {"left_out": "an empty attribute"}
    if stored.get_storage_size() > MOST_BYTES:
        return {"left_out": f"{stored.get_storage_size()} bytes"}
    if info is not None:
        return _strings(there[name], info, stored.shape)
    if stored.dtype.kind == "b" or (stored.dtype.kind in "iufc" and h5py.check_enum_dtype(stored.dtype) is None):
        return _number(np.asarray(there[name]))
    return {"left_out": f"of type {stored.dtype}"}


def _set(there: Any, name: str, kept: dict[str, Any]) -> None:
    if "empty" in kept:
        there.attrs[name] = h5py.Empty(kept["empty"])
    elif "text" in kept:
        there.attrs.create(name, **_created(kept["text"]))
    else:
        there.attrs.create(name, array_of(kept))


def _number(value: Any) -> dict[str, Any]:
    """An array of numbers: readable where JSON holds it exactly, else its bytes."""
    kept: dict[str, Any] = {"type": value.dtype.str, **({"shape": list(value.shape)} if value.ndim else {})}
    if value.dtype.kind in "biu" or (
        value.dtype.kind == "f" and value.dtype.itemsize <= 8 and np.isfinite(value).all()
    ):
        return {**kept, "value": value.tolist()}
    return {**kept, "shape": list(value.shape), "data": base64.b64encode(value.tobytes()).decode()}


def _strings(value: Any, info: Any, shape: tuple[int, ...]) -> dict[str, Any]:
    """Strings with how they are stored; base64 where they are no UTF-8."""
    kept: dict[str, Any] = {"encoding": info.encoding, "length": info.length, "shape": list(shape)}
    raw = [item if isinstance(item, bytes) else str(item).encode("utf-8", "surrogateescape") for item in _flat(value)]
    if sum(map(len, raw)) > MOST_BYTES:
        return {"left_out": f"{sum(map(len, raw))} bytes of text"}
    try:
        return {"text": {**kept, "value": [item.decode() for item in raw]}}
    except UnicodeDecodeError:
        return {"text": {**kept, "data": [base64.b64encode(item).decode() for item in raw]}}


def _flat(value: Any) -> list[Any]:
    return list(value.reshape(-1)) if isinstance(value, np.ndarray) else [value]


def _created(kept: dict[str, Any]) -> dict[str, Any]:
    raw = [item.encode() for item in kept["value"]] if "value" in kept else [*map(base64.b64decode, kept["data"])]
    dtype = h5py.string_dtype(kept["encoding"], kept["length"])
    items = np.array(raw, dtype if kept["length"] else object).reshape(kept["shape"])
    return {"data": items if kept["shape"] else items[()], "shape": tuple(kept["shape"]), "dtype": dtype}
