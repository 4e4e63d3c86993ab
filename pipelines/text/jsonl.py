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
from functools import partial
from pathlib import Path
from typing import IO, NamedTuple

import numpy as np

from aunn_data.errors import InputError
from aunn_data.record import Record, Records
from pipelines.source import COPY_BYTES, HEAD_BYTES, Source
from pipelines.stored import SMALL_BYTES
from pipelines.text import json_line, plain, rows

MODALITY = "text"
FORMATS = ("jsonl",)

SUFFIXES = (".jsonl", ".ndjson", ".jsonlines", ".ldjson")
MOST_REFUSED = 10_000
LITTLE_BYTES = 1 << 20  # of a compressed file
BLANK = b" \t\r\n"
_SECOND_OBJECT = re.compile(rb"\s*\{")
_OBJECT = re.compile(rb"(?:\xef\xbb\xbf)?\s*\{\s*[\"}]")


class _Line(NamedTuple):
    number: int  # of the line in the file, from 1
    data: bytes
    before: bytes
    end: bytes
    too_long: bool


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
                data = json_line.line_of(data.decode(errors="replace"), metadata).encode()
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
        if line[-2:] == b"}\n" and found is not None and line[:1] == b"{":  # as nearly all are
            yield found
            found = _Line(number, line[:-1], b"", b"\n", False)
            continue
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
        data, metadata = json_line.taken_apart(text, source.options.text_column, guess) or (line.data, {})
    except UnicodeDecodeError as error:
        raise _refusal(source, line.number, "a line in UTF-8", f"{error.reason} at byte {error.start + 1}") from error
    except RecursionError as error:
        raise _refusal(source, line.number, f"values nested at most {json_line.NESTED} deep", "deeper ones") from error
    except ValueError as error:
        raise _refusal(source, line.number, "a JSON value", str(error)) from error
    if line.before:
        metadata["before"] = line.before.decode()
    if line.end != b"\n":
        metadata["end"] = line.end.decode()
    return data, metadata
