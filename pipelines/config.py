"""Configuration files: TOML whose every key is known and every value of its kind."""

import difflib
import tomllib
from pathlib import Path
from typing import Any

from aunn_data.errors import RequestError


def read_toml(path: Path, schema: dict[str, Any]) -> dict[str, Any]:
    """The keys of a TOML file, checked as ``check_keys`` does. RequestError if it cannot be read."""
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise RequestError(
            path, expected="a readable TOML file", found=str(error), remedy="--help of the command shows one"
        ) from error
    check_keys(str(path), table, schema)
    return table


def check_keys(where: str, table: Any, schema: dict[str, Any]) -> None:
    """RequestError for a key that the schema lacks (with the nearest one it has) or a value of another kind."""
    if not isinstance(table, dict):
        raise RequestError(where, expected="a table of keys", found=repr(table), remedy="write it as key = value")
    for key, value in table.items():
        if key not in schema:
            near = difflib.get_close_matches(key, schema, n=1)
            hint = f"did you mean {near[0]!r}?" if near else "remove it"
            raise RequestError(where, expected=f"keys among {', '.join(schema)}", found=repr(key), remedy=hint)
        kind = schema[key]
        choices = isinstance(kind, tuple) and all(isinstance(choice, str) for choice in kind)
        fits = value in kind if choices else isinstance(value, kind) and not (kind is int and isinstance(value, bool))
        if not fits:
            wanted = " or ".join(
                kind if choices else [k.__name__ for k in (kind if isinstance(kind, tuple) else [kind])]
            )
            raise RequestError(f"{where}: {key}", expected=wanted, found=repr(value), remedy="change the value")
