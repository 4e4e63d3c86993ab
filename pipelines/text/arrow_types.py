"""Arrow's types and values as JSON, one to one: what a header keeps of a row's other columns.

A type is its Arrow name ("int64", "timestamp[us, tz=UTC]"), or for one with parts an object of one key::

    {"list": [field]}  {"large_list": [field]}  {"fixed_size_list": [field, size]}  {"struct": [field, …]}
    {"map": [field, field, sorted]}  {"dictionary": [index type, value type, ordered]}

with a field as [name, type], or [name, type, false] if it may not be null.

=========================  ==========================================================================================
null, bool, int*, uint*    as they are
halffloat, float, double   the number, "inf", "-inf", "nan", or "nan:7ff8…", the float64's bits of any other NaN
decimal*                   "12.50"
date*, time*, timestamp,   the stored integer, in the unit that the type names
duration
string                     as it is; {"base64": …} if it is not valid UTF-8
binary                     base64
list                       a list
struct                     a list of values in the order of its fields
map                        a list of [key, value]
dictionary                 the value itself
=========================  ==========================================================================================
"""

import base64
import math
import struct
from collections.abc import Callable
from decimal import Decimal
from functools import lru_cache
from typing import Any

import pyarrow as pa
from pyarrow import types

Convert = Callable[[Any], Any]
NAN_BITS = "7ff8000000000000"
_INT32, _INT64 = pa.int32(), pa.int64()
_NAMED = {
    str(t): t
    for t in (
        *(pa.null(), pa.bool_(), pa.int8(), pa.int16(), pa.int32(), pa.int64()),
        *(pa.uint8(), pa.uint16(), pa.uint32(), pa.uint64(), pa.float16(), pa.float32(), pa.float64()),
        *(pa.string(), pa.large_string(), pa.string_view(), pa.binary(), pa.large_binary(), pa.binary_view()),
        *(pa.date32(), pa.date64(), pa.time32("s"), pa.time32("ms"), pa.time64("us"), pa.time64("ns")),
        *(pa.duration(unit) for unit in ("s", "ms", "us", "ns")),
    )
}
_DECIMALS = {"decimal32": pa.decimal32, "decimal64": pa.decimal64, "decimal128": pa.decimal128}
_DECIMALS["decimal256"] = pa.decimal256


# ---- types <-> JSON ------------------------------------------------------------------------------------------------


def type_to_json(t: pa.DataType) -> Any:
    """The type as JSON, of an extension type that of its storage. ValueError for one that is not in the table above."""
    t = storage_type(t)
    if types.is_struct(t):
        return {"struct": [_field_to_json(field) for field in t]}
    if types.is_map(t):
        return {"map": [_field_to_json(t.key_field), _field_to_json(t.item_field), t.keys_sorted]}
    if types.is_fixed_size_list(t):
        return {"fixed_size_list": [_field_to_json(t.value_field), t.list_size]}
    if types.is_list(t) or types.is_large_list(t):
        return {"list" if types.is_list(t) else "large_list": [_field_to_json(t.value_field)]}
    if types.is_dictionary(t):
        return {"dictionary": [type_to_json(t.index_type), type_to_json(t.value_type), t.ordered]}
    type_from_json(str(t))  # is it one that comes back?
    return str(t)


def type_from_json(said: Any) -> pa.DataType:
    """Inverse of ``type_to_json``."""
    if isinstance(said, str):
        return _NAMED[said] if said in _NAMED else _parametric(said)
    [(kind, parts)] = said.items()
    if kind == "struct":
        return pa.struct([_field_from_json(part) for part in parts])
    if kind == "map":
        return pa.map_(_field_from_json(parts[0]), _field_from_json(parts[1]), keys_sorted=parts[2])
    if kind == "dictionary":
        return pa.dictionary(type_from_json(parts[0]), type_from_json(parts[1]), ordered=parts[2])
    field = _field_from_json(parts[0])
    if kind == "fixed_size_list":
        return pa.list_(field, parts[1])
    return pa.list_(field) if kind == "list" else pa.large_list(field)


def column_to_json(field: pa.Field) -> Any:
    """The type of a column: {"not_null": type} if it may not be null."""
    said = type_to_json(field.type)
    return said if field.nullable else {"not_null": said}


def column_from_json(name: str, said: Any) -> pa.Field:
    """Inverse of ``column_to_json``."""
    nullable = not isinstance(said, dict) or "not_null" not in said
    return pa.field(name, type_from_json(said if nullable else said["not_null"]), nullable=nullable)


def _parametric(name: str) -> pa.DataType:
    kind, _, rest = name.partition("[")
    if kind == "timestamp":
        unit, _, zone = rest.removesuffix("]").partition(", tz=")
        return pa.timestamp(unit, zone or None)
    if kind == "fixed_size_binary":
        return pa.binary(int(rest.removesuffix("]")))
    kind, _, rest = name.partition("(")
    if kind in _DECIMALS:
        return _DECIMALS[kind](*map(int, rest.removesuffix(")").split(",")))
    raise ValueError(f"the type {name} is not known here")


def _field_to_json(field: pa.Field) -> list[Any]:
    return [field.name, type_to_json(field.type), *(() if field.nullable else (False,))]


def _field_from_json(said: list[Any]) -> pa.Field:
    return pa.field(said[0], type_from_json(said[1]), nullable=len(said) < 3)


# ---- values <-> JSON -----------------------------------------------------------------------------------------------


def plain_type(t: pa.DataType, text: pa.DataType | None = None) -> pa.DataType:
    """The type to which a column is cast before its values are taken out: no dates, no dictionaries.

    ``text`` stands for strings (binary, where they are not valid UTF-8).
    """
    t = storage_type(t)
    if types.is_dictionary(t):
        return plain_type(t.value_type, text)
    if types.is_temporal(t):
        return _INT32 if t.bit_width == 32 else _INT64
    if types.is_float16(t):
        return pa.float32()
    if text is not None and is_string(t):
        return text
    return _rebuilt(t, lambda field: field.with_type(plain_type(field.type, text)))


def storage_type(t: pa.DataType) -> pa.DataType:
    """The type, or of an extension type what it is stored as; within other types too."""
    if isinstance(t, pa.BaseExtensionType):
        return storage_type(t.storage_type)
    return _rebuilt(t, lambda field: field.with_type(storage_type(field.type)))


def _rebuilt(t: pa.DataType, change: Callable[[pa.Field], pa.Field]) -> pa.DataType:
    """The type with its fields changed."""
    if types.is_struct(t):
        return pa.struct([change(field) for field in t])
    if types.is_map(t):
        return pa.map_(change(t.key_field), change(t.item_field), keys_sorted=t.keys_sorted)
    if types.is_fixed_size_list(t):
        return pa.list_(change(t.value_field), t.list_size)
    if types.is_list(t):
        return pa.list_(change(t.value_field))
    return pa.large_list(change(t.value_field)) if types.is_large_list(t) else t


def is_string(t: pa.DataType) -> bool:
    """Is it one of Arrow's types of strings?"""
    return bool(types.is_string(t) or types.is_large_string(t) or types.is_string_view(t))


def is_text(t: pa.DataType) -> bool:
    """Can a column of this type be the payload: strings or bytes, or a dictionary of them?"""
    if types.is_dictionary(t):
        return is_text(t.value_type)
    return bool(is_string(t) or types.is_binary(t) or types.is_large_binary(t) or types.is_binary_view(t))


@lru_cache(maxsize=1024)
def to_json(t: pa.DataType) -> Convert | None:
    """What makes JSON of a value of this type that is not null; None if it is JSON as it is."""
    t = storage_type(t)
    if types.is_dictionary(t):
        return to_json(t.value_type)
    if types.is_floating(t):
        return _float_to_json
    if types.is_decimal(t):
        return str
    if is_string(t):
        return _string_to_json
    if types.is_binary(t) or types.is_large_binary(t) or types.is_binary_view(t) or types.is_fixed_size_binary(t):
        return _base64
    return _nested(t, to_json, lambda value, names: [value[name] for name in names])


@lru_cache(maxsize=1024)
def from_json(t: pa.DataType) -> Convert | None:
    """What makes of JSON a value that pyarrow takes for this type; None if it takes it as it is."""
    t = storage_type(t)
    if types.is_dictionary(t):
        return from_json(t.value_type)
    if types.is_floating(t):
        return _float_from_json
    if types.is_decimal(t):
        return Decimal
    if is_string(t):
        return _string_from_json
    if types.is_binary(t) or types.is_large_binary(t) or types.is_binary_view(t) or types.is_fixed_size_binary(t):
        return base64.b64decode
    return _nested(t, from_json, lambda value, names: value)


def _nested(t: pa.DataType, convert: Callable[[pa.DataType], Convert | None], parts: Any) -> Convert | None:
    if types.is_struct(t):
        names = [field.name for field in t]
        each = [nullable(convert(field.type)) for field in t]
        if convert is to_json:
            return lambda value: [c(v) for c, v in zip(each, (value[name] for name in names), strict=True)]
        return lambda value: {n: c(v) for n, c, v in zip(names, each, value, strict=True)}
    if types.is_map(t):
        key, item = nullable(convert(t.key_type)), nullable(convert(t.item_type))
        pair: Convert = list if convert is to_json else tuple
        return lambda value: [pair((key(k), item(v))) for k, v in value]
    if types.is_list(t) or types.is_large_list(t) or types.is_fixed_size_list(t):
        inner = convert(t.value_type)
        if inner is None:
            return None
        one = nullable(inner)
        return lambda value: [one(v) for v in value]
    return None


def nullable(convert: Convert | None) -> Convert:
    """The conversion that leaves nulls as they are."""
    if convert is None:
        return lambda value: value
    return lambda value: None if value is None else convert(value)


def _float_to_json(value: float) -> float | str:
    if math.isfinite(value):
        return value
    if math.isinf(value):
        return "inf" if value > 0 else "-inf"
    bits = struct.pack(">d", value).hex()
    return "nan" if bits == NAN_BITS else f"nan:{bits}"


def _float_from_json(said: float | str) -> float:
    if isinstance(said, str) and said.startswith("nan:"):
        return float(struct.unpack(">d", bytes.fromhex(said[4:]))[0])
    return float(said)


def _string_to_json(value: str | bytes) -> Any:
    if isinstance(value, str):
        return value
    try:
        return value.decode()
    except UnicodeDecodeError:
        return {"base64": _base64(value)}


def _string_from_json(said: Any) -> Any:
    return base64.b64decode(said["base64"]) if isinstance(said, dict) else said


def _base64(value: bytes) -> str:
    return base64.b64encode(value).decode()
