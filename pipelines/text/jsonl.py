"""JSON Lines: one JSON value a line, one record a row: https://jsonlines.org

The payload is the text column in UTF-8, ``columns`` the others as they are in JSON. A row without a text that can be a
payload (no such column, not a string, empty, lone surrogates, a column twice) has its whole line as payload instead,
and no ``text_column`` in its metadata. Rows are written back byte for byte:

===========  ========================================================================================================
keys         the columns in their order, if that is not the alphabet's
style        "unicode" (non-ASCII as it is) and "compact" (no blanks), if the line is not as Python's json writes it
around       what stands before and behind the text's literal, where keys and style do not say it all (blanks, 1.50,
             columns in columns out of order). ``columns`` is left out if JSON's common model cannot hold them exactly:
             NaN, a name twice, numbers beyond float64, lone surrogates, nesting beyond NESTED_COLUMNS
escapes      characters of the text that are always written in an unusual way ("/" as ``\\/``)
before, end  a byte order mark or blank lines before the row; its line end, if that is not a line feed, with blank lines
===========  ========================================================================================================

A line that is no JSON is refused by its number and keeps it: ``#7`` is the seventh row. A file that turns out to be one
JSON document goes in as plain text.
"""

import codecs
import io
import json
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from decimal import Decimal
from functools import lru_cache, partial
from json.decoder import scanstring  # type: ignore[attr-defined]
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np

from aunn_data.errors import InputError
from aunn_data.record import Record, Records
from pipelines.source import COPY_BYTES, HEAD_BYTES, Source
from pipelines.stored import SMALL_BYTES
from pipelines.text import plain, rows

MODALITY = "text"
FORMATS = ("jsonl",)

SUFFIXES = (".jsonl", ".ndjson", ".jsonlines", ".ldjson")
MOST_REFUSED = 10_000
LITTLE_BYTES = 1 << 20  # of a compressed file
NESTED_COLUMNS, NESTED = 100, 400  # Python's own parser gives up near 1,000, less what stands on the stack
LONGEST_INTEGER = 4000  # digits; Python parses no more than 4,300
CUT = "\x00cut\x00"  # stands for the text while the rest of its line is parsed
CUT_LITERAL = json.dumps(CUT)
BLANK = b" \t\r\n"
_SECOND_OBJECT = re.compile(rb"\s*\{")
_OBJECT = re.compile(rb"(?:\xef\xbb\xbf)?\s*\{\s*[\"}]")
_TOKEN = re.compile(r"\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|\\u[0-9a-fA-F]{4}|\\.|.", re.DOTALL)
# Escapes that Python's json does not write, with non-ASCII escaped and as it is; what follows an escaped backslash may
# look like one, which costs no more than a closer look.
_SHORT = r"/|u00[01][0-9a-f]?[A-F]|u000[89acd]"
_UNUSUAL = re.compile(rf"\\(?:{_SHORT}|u[0-9a-f]{{0,3}}[A-F]|u00[2-7])")
_UNUSUAL_UNICODE = re.compile(rf"\\(?:{_SHORT}|u(?!00[01]))")
_STYLES = [(unicode, compact) for unicode in (False, True) for compact in (False, True)]


def _encoder(unicode: bool, compact: bool, sort: bool) -> Callable[[Any], str]:
    separators = (",", ":") if compact else None
    return json.JSONEncoder(ensure_ascii=not unicode, separators=separators, allow_nan=False, sort_keys=sort).encode


_ENCODERS = {style: _encoder(*style, sort=False) for style in _STYLES}
_SORTING = {style: _encoder(*style, sort=True) for style in _STYLES}


class _Line(NamedTuple):
    number: int  # of the line in the file, from 1
    data: bytes
    before: bytes
    end: bytes
    too_long: bool


class _InexactError(ValueError):
    """JSON that Python's types do not hold exactly."""


def sniff(head: bytes, path: Path) -> bool:
    """Two lines that are objects, whatever the name; or a name that says so; or an object longer than the head."""
    if not _OBJECT.match(head):
        return path.suffix.lower() in SUFFIXES and b"\0" not in head and not head.startswith(plain.UTF16_MARKS)
    if path.suffix.lower() in SUFFIXES:
        return b"\0" not in head
    first, line_end, rest = head.removeprefix(codecs.BOM_UTF8).lstrip().partition(b"\n")
    if not line_end:
        return len(head) >= HEAD_BYTES
    return _is_object(first) and bool(_SECOND_OBJECT.match(rest))


def read(source: Source) -> Iterator[Record | Records | InputError]:
    """The rows, named ``name#1``, ``name#2``, …; a bad line gives an InputError with its number."""
    stream = _stream(source)
    if _several(source, stream):
        yield from rows.in_blocks(source.name, "jsonl", _rows(source, stream))
    else:
        yield from plain.read(source)


def _stream(source: Source) -> Callable[[], IO[bytes]]:
    """What opens its bytes. A little compressed file is unpacked once; of a damaged one the rows before go in."""
    if source.codecs and source.size() <= LITTLE_BYTES:
        with suppress(InputError):
            if (data := source.unpacked(SMALL_BYTES)) is not None:
                return partial(io.BytesIO, data)
    return source.open


def _rows(source: Source, stream: Callable[[], IO[bytes]]) -> Iterator[rows.Row | InputError]:
    refused, guess = 0, None
    with stream() as file:
        for line in _lines(file, source):
            try:
                row = _row(source, line, guess)
                guess = row[1].get("text_column")
                yield row
            except InputError as error:
                refused += 1
                if refused > MOST_REFUSED:
                    raise
                yield error


def write(records: Sequence[Record], path: Path) -> Path:
    """The lines as they were."""
    with path.open("wb") as file:
        for left, found in zip(range(len(records) - 1, -1, -1), records, strict=True):
            metadata = found.header.metadata
            data = np.asarray(found.elements, np.uint8).tobytes()
            if "text_column" in metadata:
                data = _line_of(data.decode(errors="replace"), metadata).encode()
            end = metadata.get("end", "\n").encode()
            # The last row of a file may have no line end; it needs one where others follow.
            file.write(metadata.get("before", "").encode() + data + (end or (b"\n" if left else b"")))
    return path


# ---- lines ---------------------------------------------------------------------------------------------------------


def _several(source: Source, stream: Callable[[], IO[bytes]]) -> bool:
    """Is it lines of JSON, and not one JSON document that is called so or has a long first line?"""
    first, second = b"", b""
    with stream() as file:
        while not first and (line := file.readline(source.options.limits.max_line)):
            first = line.removeprefix(codecs.BOM_UTF8).strip(BLANK)
        while not second and (line := file.readline(HEAD_BYTES)):
            second = line.strip(BLANK)
    if source.inner.suffix.lower() in SUFFIXES:
        return bool(second) or _is_json(first)
    return second.startswith(b"{") and _is_object(first)


def _is_object(line: bytes) -> bool:
    return line.lstrip().startswith(b"{") and _is_json(line)


def _is_json(line: bytes) -> bool:
    try:
        json.loads(line.decode())
    except (json.JSONDecodeError, UnicodeDecodeError):
        return False
    except (ValueError, RecursionError):
        return True  # an integer too long, or nested too deep: a row all the same
    return True


def _lines(file: IO[bytes], source: Source) -> Iterator[_Line]:
    """The lines that are not blank; blank ones go with the line before them, or the first one."""
    before, found, most = b"", None, source.options.limits.max_line
    for number, line in enumerate(iter(partial(file.readline, most), b""), 1):
        too_long = len(line) == most and _is_longer(file, line)
        if number == 1 and line.startswith(codecs.BOM_UTF8):
            before, line = codecs.BOM_UTF8, line[len(codecs.BOM_UTF8) :]
        if not too_long and (not line or line.isspace()) and not line.strip(BLANK):
            if found is None:
                before += line
            else:
                found = found._replace(end=found.end + line)
            if len(before) + len(found.end if found else b"") > most:
                raise _refusal(source, number, "a row", "nothing but blanks")
            continue
        if found is not None:
            yield found
        data = line.rstrip(b"\r\n")
        found, before = _Line(number, data, before, line[len(data) :], too_long), b""
    if found is not None:
        yield found


def _is_longer(file: IO[bytes], line: bytes) -> bool:
    """Does a line go on behind what was read of it? The rest is passed over."""
    rest = line
    while rest and not rest.endswith(b"\n"):
        rest = file.readline(COPY_BYTES)
    return not line.endswith(b"\n")


def _refusal(
    source: Source, number: int, expected: str, found: str, remedy: str = "mend or remove that line; the others go in"
) -> InputError:
    return InputError(f"{source.label}: line {number}", expected=expected, found=found, remedy=remedy)


# ---- a line -> a row -----------------------------------------------------------------------------------------------


def _row(source: Source, line: _Line, guess: str | None) -> rows.Row:
    if line.too_long:
        most = f"at most {source.options.limits.max_line:,} bytes"
        raise _refusal(source, line.number, most, "more", "raise --max-line: a line takes 4 to 13 times its bytes")
    try:
        text = line.data.decode()
        data, metadata = _taken_apart(text, source.options.text_column, guess) or (line.data, {})
    except UnicodeDecodeError as error:
        raise _refusal(source, line.number, "a line in UTF-8", f"{error.reason} at byte {error.start + 1}") from error
    except RecursionError as error:
        raise _refusal(source, line.number, f"values nested at most {NESTED} deep", "deeper ones") from error
    except ValueError as error:
        raise _refusal(source, line.number, "a JSON value", str(error)) from error
    if line.before:
        metadata["before"] = line.before.decode()
    if line.end != b"\n":
        metadata["end"] = line.end.decode()
    return data, metadata


def _taken_apart(line: str, asked: str | None, guess: str | None) -> rows.Row | None:
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


def _line_of(text: str, metadata: dict[str, Any]) -> str:
    """Inverse of ``_taken_apart``."""
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
