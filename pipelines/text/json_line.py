"""A line of JSON taken apart into a text and the rest, and put together again byte for byte.

What the keys of the rest mean stands in ``jsonl``.
"""

import json
import re
from collections.abc import Callable
from decimal import Decimal
from functools import lru_cache
from json.decoder import scanstring  # type: ignore[attr-defined]
from json.encoder import c_make_encoder, encode_basestring, encode_basestring_ascii  # type: ignore[attr-defined]
from typing import Any

from pipelines.text import rows

NESTED_COLUMNS, NESTED = 100, 400  # Python's own parser gives up near 1,000, less what stands on the stack
LONGEST_INTEGER = 4000  # digits; Python parses no more than 4,300
CUT = "\x00cut\x00"  # stands for the text while the rest of its line is parsed
CUT_LITERAL = json.dumps(CUT)
_TOKEN = re.compile(r"\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|\\u[0-9a-fA-F]{4}|\\.|.", re.DOTALL)
# Escapes that Python's json does not write, with non-ASCII escaped and as it is; what follows an escaped backslash may
# look like one, which costs no more than a closer look.
_SHORT = r"/|u00[01][0-9a-f]?[A-F]|u000[89acd]"
_UNUSUAL = re.compile(rf"\\(?:{_SHORT}|u[0-9a-f]{{0,3}}[A-F]|u00[2-7])")
_UNUSUAL_UNICODE = re.compile(rf"\\(?:{_SHORT}|u(?!00[01]))")
_STYLES = [(unicode, compact) for unicode in (False, True) for compact in (False, True)]


def _encoder(unicode: bool, compact: bool, sort: bool) -> Callable[[Any], str]:
    """What json.JSONEncoder's ``encode`` does of values that were parsed, which makes its encoder anew for each."""
    strings = encode_basestring if unicode else encode_basestring_ascii
    between, behind = (":", ",") if compact else (": ", ", ")
    chunks = c_make_encoder(None, None, strings, None, between, behind, sort, False, False)
    return lambda value: "".join(chunks(value, 0))


_ENCODERS = {style: _encoder(*style, sort=False) for style in _STYLES}
_SORTING = {style: _encoder(*style, sort=True) for style in _STYLES}


class _InexactError(ValueError):
    """JSON that Python's types do not hold exactly."""


def taken_apart(line: str, asked: str | None, guess: str | None) -> rows.Row | None:
    """The text and what is needed to write the line again; None if the whole line must be the payload.

    Raises ValueError if it is no JSON, RecursionError if it is nested too deep.
    """
    if (found := _cut(line, asked, guess)) is None:
        return None
    column, (start, end, text, rest) = found
    if not text or (form := _literal_form(line[start:end], text)) is None:
        return None
    try:
        data = text.encode()
    except UnicodeEncodeError:  # lone surrogates
        return None
    around = line[:start], line[end:]
    return data, {"text_column": column, **_columns(rest, column, around, form)}


_Cut = tuple[int, int, str, Any]
"""Where the text's literal starts and ends, the text, the row with CUT in its place (None: inexact)."""


def _cut(line: str, asked: str | None, guess: str | None) -> tuple[str, _Cut] | None:
    """The column of the text and its cut; None if there is no such column, or no string in it.

    ``guess`` is the column of the row before: a long text is not parsed twice where that is right.
    """
    if guess is not None and (cut := _quickly(line, guess)) and rows.text_column(asked, cut[3]) == guess:
        return guess, cut
    row = _parsed(line)
    there = rows.text_column(asked, row) if isinstance(row, dict) else None
    if there is None:
        return None
    found = _quickly(line, there) or _slowly(line, there)
    return (there, found) if found else None


def _quickly(line: str, column: str) -> _Cut | None:
    """The first place that looks like the text's, if it is that: the rest of the line is parsed without it."""
    match = _key(column).search(line)
    if not match:
        return None
    start = match.end() - 1
    try:
        text, end = scanstring(line, match.end(), True)
        left = f"{line[:start]}{CUT_LITERAL}{line[end:]}"
        rest = _parsed(left)
    except ValueError:  # whatever it is, it is said of the whole line
        return None
    found = isinstance(rest, dict) and rest.get(column) == CUT and left.count(CUT_LITERAL) == 1
    return (start, end, text, rest) if found else None


def _slowly(line: str, column: str) -> _Cut | None:
    """The same by way of all columns in turn, past columns that have one of that name in them."""
    scan = json.JSONDecoder(parse_int=len).scan_once  # type: ignore[attr-defined]
    found = []
    at = _blank(line, line.index("{") + 1)
    while line[at] != "}":
        key, at = scanstring(line, at + 1, True)
        start = _blank(line, _blank(line, at) + 1)
        value, end = scan(line, start)
        if key == column:
            found.append((start, end, value))
        at = _blank(line, end)
        at = _blank(line, at + 1) if line[at] == "," else at
    if len(found) != 1 or not isinstance(found[0][2], str) or CUT_LITERAL in line:
        return None
    start, end, text = found[0]
    return start, end, text, _parsed(f"{line[:start]}{CUT_LITERAL}{line[end:]}")


@lru_cache(maxsize=64)
def _key(column: str) -> re.Pattern[str]:
    return re.compile(rf'"{re.escape(column)}"[ \t\r\n]*:[ \t\r\n]*"')


_decoder = json.JSONDecoder()
_decode, _scan = _decoder.decode, _decoder.scan_once  # type: ignore[attr-defined]
_BLANKS = re.compile(r"[ \t\r\n]*")


def _blank(line: str, at: int) -> int:
    match = _BLANKS.match(line, at)
    return match.end() if match else at


def _parsed(line: str) -> Any:
    """The value of a line. An integer too long for Python becomes its text's length: ``_exact`` refuses it."""
    try:
        value, end = _scan(line, 0)
    except (ValueError, StopIteration):
        end = 0
    if end != len(line):
        value = _with_blanks(line)
    if len(line) > 2 * NESTED and line.count("{") + line.count("[") > NESTED and _depth(value) > NESTED:
        raise RecursionError
    return value


def _with_blanks(line: str) -> Any:
    """The value of a line that does not begin and end with it, or has an integer too long."""
    try:
        return _decode(line)
    except json.JSONDecodeError:
        raise
    except ValueError:
        return json.loads(line, parse_int=len)


def _depth(value: Any) -> int:
    depth, level = 0, [value]
    while level := [part for item in level for part in _parts(item)]:
        depth += 1
    return depth + 1


def _parts(item: Any) -> Any:
    return item.values() if isinstance(item, dict) else item if isinstance(item, list) else ()


# ---- columns -------------------------------------------------------------------------------------------------------


def _columns(rest: dict[str, Any], column: str, around: tuple[str, str], form: dict[str, Any]) -> dict[str, Any]:
    """The other columns, and in the shortest way how their line is written. ``form`` is what the literal asks for."""
    line = f"{around[0]}{CUT_LITERAL}{around[1]}"
    compact, unicode = '": ' not in line, form.get("unicode", not line.isascii())
    ordered, alike = _written_so(rest, line, unicode, compact) if "escapes" not in form else (False, False)
    if not alike or "\\ud" in line or line.count("{") + line.count("[") > NESTED_COLUMNS:
        exact = _exact(line) is not None
    else:
        exact = True
    others = {key: value for key, value in rest.items() if key != column}
    said: dict[str, Any] = {"columns": others} if exact else {}
    if ordered and exact:
        pass
    elif alike and exact and all(map(_in_order, others.values())):
        said["keys"] = list(rest)
    else:
        compact, said["around"] = False, list(around)
    said |= {"escapes": form["escapes"]} if "escapes" in form else {}
    style = " ".join(name for name, on in (("unicode", unicode), ("compact", compact)) if on)
    return {**said, "style": style} if style else said


def _written_so(rest: dict[str, Any], line: str, unicode: bool, compact: bool) -> tuple[bool, bool]:
    """Is the line as Python's json writes its value with all columns in alphabetical order, is it with them as is?"""
    try:
        ordered = _SORTING[unicode, compact](rest) == line
        return ordered, ordered or _ENCODERS[unicode, compact](rest) == line
    except ValueError:  # NaN, Infinity
        return False, False


def _in_order(value: Any) -> bool:
    """Are all columns within this value in alphabetical order, as a header has them?"""
    if isinstance(value, dict):
        return list(value) == sorted(value) and all(map(_in_order, value.values()))
    return not isinstance(value, list) or all(map(_in_order, value))


def _exact(line: str) -> Any:
    """The line's value, or None if a header cannot hold it exactly."""
    try:
        value = json.loads(
            line, object_pairs_hook=_once, parse_constant=_inexact, parse_float=_float, parse_int=_integer
        )
        json.dumps(value, ensure_ascii=False).encode()
    except (_InexactError, UnicodeEncodeError):
        return None
    return value if _depth(value) <= NESTED_COLUMNS else None


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise _InexactError
    return found


def _inexact(literal: str) -> Any:
    raise _InexactError(literal)


def _float(literal: str) -> float:
    value = float(literal)
    # The exponent is looked at first: Decimal("1e999999999") is cheap to make, dear to compare.
    if value in (float("inf"), float("-inf")) or len(literal) > LONGEST_INTEGER:
        raise _InexactError
    exact = Decimal(literal)
    if not (-400 < exact.adjusted() < 400) or exact != Decimal(repr(value)):
        raise _InexactError
    return value


def _integer(literal: str) -> int:
    if len(literal) > LONGEST_INTEGER:
        raise _InexactError
    return int(literal)


# ---- the text's literal --------------------------------------------------------------------------------------------


def _literal_form(literal: str, text: str) -> dict[str, Any] | None:
    """How the text is written: nothing where that does not matter, ``unicode`` or not, ``escapes``; None: at random.

    Where no escape is unusual there is one way to write the text, which spares writing it to compare.
    """
    ascii = literal.isascii()
    dense = len(literal) - len(text) > len(text) // 4  # with escapes: then writing it is quicker
    if not dense and not (_UNUSUAL if ascii else _UNUSUAL_UNICODE).search(literal):
        return {} if ascii and text.isascii() else {"unicode": not ascii}
    for unicode in (False, True):
        if _ENCODERS[unicode, False](text) == literal:
            return {"unicode": unicode}
    return _escapes(literal, text)


def _escapes(literal: str, text: str) -> dict[str, Any] | None:
    tokens = _TOKEN.findall(literal[1:-1])
    written = dict(zip(text, tokens, strict=False))
    if len(tokens) != len(text) or any(written[char] != token for char, token in zip(text, tokens, strict=True)):
        return None
    unicode = not literal.isascii()
    encode = _ENCODERS[unicode, False]
    escapes = {char: token for char, token in sorted(written.items()) if encode(char)[1:-1] != token}
    return {"unicode": unicode, "escapes": escapes} if len(escapes) <= 64 else None


def line_of(text: str, metadata: dict[str, Any]) -> str:
    """Inverse of ``taken_apart``."""
    style = metadata.get("style", "")
    encode = _ENCODERS["unicode" in style, "compact" in style]
    if "around" not in metadata:
        row = {**metadata["columns"], metadata["text_column"]: text}
        return encode({key: row[key] for key in metadata.get("keys", sorted(row))})
    literal = encode(text)
    if escapes := metadata.get("escapes"):
        literal = f'"{"".join(escapes[c] if c in escapes else encode(c)[1:-1] for c in text)}"'
    before, behind = metadata["around"]
    return f"{before}{literal}{behind}"
