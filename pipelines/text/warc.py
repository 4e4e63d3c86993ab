"""WARC, the archive format of web crawls: https://iipc.github.io/warc-specifications/specifications/warc-format/warc-1.1/

One record a WARC record, ``name#1``, ``name#2``, … The payload is the record's content block as it is stored (of a
response the HTTP head and the body, neither unpacked nor unchunked); of a record whose block is empty it is the
record's own header, and ``block`` says "empty".

``metadata["warc"]`` is the record's header: ``version`` and ``fields`` in their order; ``verbatim`` its own lines,
where they are not written as "Name: value" with CRLF. ``http`` is the head of an HTTP block, parsed: ``start``,
``fields``, ``bytes`` (its length in the block). ``end`` is what follows the block, if not the two line ends that the
standard wants.

The framing is read here: warcio folds header lines, and takes a block that is cut short for a shorter one.
"""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np
from warcio.statusandheaders import StatusAndHeadersParser, StatusAndHeadersParserException

from aunn_data.errors import InputError
from aunn_data.header import Header
from aunn_data.record import Record
from pipelines.source import Source
from pipelines.stored import refusing, stored
from pipelines.text import rows

MODALITY = "text"
FORMATS = ("warc",)

MOST_HEADER_BYTES = 1 << 20
MOST_END_BYTES = 64
HELD_BYTES = 1 << 24  # bigger blocks are mapped, from a file that is unpacked if need be
CHUNK_BYTES = 1 << 20
END = b"\r\n\r\n"
HTTP_HEAD_BYTES = 1 << 16
_VERSION = re.compile(rb"WARC/\d+\.\d+[ \t]*\r?\n")
_FIELD = re.compile(rb"([^\s:][^:\r\n]*):([^\r\n]*(?:\r?\n[ \t][^\r\n]*)*)\r?\n")
_LENGTH = re.compile(r"\d{1,18}")
_HTTP = re.compile(rb"HTTP/|[A-Z]+ [^ \r\n]+ HTTP/")
REMEDY = "restore the file: what follows cannot be told apart"


def sniff(head: bytes, path: Path) -> bool:
    """By content: the first record's version line."""
    return bool(_VERSION.match(head))


def read(source: Source) -> Iterator[Record | InputError]:
    """The records, in order. Raises InputError where one is cut or damaged, after those before it."""
    with source.open() as stream:
        file = _Counted(stream)
        number, line = 0, file.readline(CHUNK_BYTES)
        if not line:
            raise _fault(source, 1, "a WARC record", "an empty file")
        while line:
            number += 1
            record, line = _record(source, number, line, file)
            yield record


def write(records: Sequence[Record], path: Path) -> Path:
    """The records one after another, uncompressed, with equal headers and blocks."""
    with path.open("wb") as file:
        for record in records:
            block = np.asarray(record.elements, np.uint8)
            if record.header.metadata.get("block") != "empty":
                file.write(_header_of(record.header.metadata["warc"]))
            block.tofile(file)
            file.write(record.header.metadata.get("end", END.decode()).encode("latin-1"))
    return path


def _fault(source: Source, number: int, expected: str, found: str) -> InputError:
    return InputError(f"{source.label}#{number}", expected=expected, found=found, remedy=REMEDY)


class _Counted:
    """A stream that knows how far it was read; one that is decompressed does not."""

    def __init__(self, stream: IO[bytes]):
        self.stream, self.offset = stream, 0

    def read(self, size: int) -> bytes:
        data = self.stream.read(size)
        self.offset += len(data)
        return data

    def readline(self, most: int) -> bytes:
        data = self.stream.readline(most)
        self.offset += len(data)
        return data


# ---- a record ------------------------------------------------------------------------------------------------------


def _record(source: Source, number: int, version: bytes, file: _Counted) -> tuple[Record, bytes]:
    """The record whose version line this is, and the next one's."""
    lines = _header_lines(source, number, version, file)
    head = b"".join(lines)
    fields = _fields(source, number, head[len(version) :])
    size = _length(source, number, fields)
    offset = file.offset
    block: Any = np.frombuffer(file.read(size), np.uint8) if size <= HELD_BYTES else _skipped(file, size)
    if block is not None and len(block) < size:
        raise _fault(source, number, f"a block of {size:,} bytes", "the file's end in it")
    end, following = _end(source, number, file)
    if block is None:
        block = stored(source.local(), np.dtype(np.uint8), (size,), offset)
    metadata: dict[str, Any] = {"warc": _header(version, fields, head)}
    if end != END:
        metadata["end"] = end.decode("latin-1")
    if not size:
        block = np.frombuffer(head, np.uint8)
        metadata["block"] = "empty"
    elif http := _http(block, fields):
        metadata["http"] = http
    name = f"{source.name}#{number}"
    header = Header(name, source.name, MODALITY, "warc", rows.packed(len(block)), metadata)
    return Record(header, block), following


def _header_lines(source: Source, number: int, version: bytes, file: _Counted) -> list[bytes]:
    """All lines of a record's header, the blank one behind it included."""
    if not _VERSION.fullmatch(version):
        raise _fault(source, number, "a record that begins with WARC/1.0 or the like", repr(version[:20]))
    lines, size = [version], 0
    while lines[-1] not in (b"\r\n", b"\n"):
        lines.append(file.readline(MOST_HEADER_BYTES))
        size += len(lines[-1])
        if not lines[-1].endswith(b"\n") or size > MOST_HEADER_BYTES:
            raise _fault(source, number, "a header that ends with a blank line", "the file's end or no end in sight")
    return lines


def _fields(source: Source, number: int, lines: bytes) -> list[tuple[str, str]]:
    """Names and values of a header, in order; continued values as they stand."""
    found, at = [], 0
    while match := _FIELD.match(lines, at):
        found.append((_text(match[1]), _text(match[2]).strip()))
        at = match.end()
    if lines[at:] not in (b"\r\n", b"\n"):
        raise _fault(source, number, "header lines of the form Name: value", repr(lines[at : at + 40]))
    return found


def _text(data: bytes) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError:
        return data.decode("latin-1")


def _length(source: Source, number: int, fields: list[tuple[str, str]]) -> int:
    lengths = [value for name, value in fields if name.lower() == "content-length"]
    if len(lengths) != 1 or not _LENGTH.fullmatch(lengths[0]):
        raise _fault(source, number, "one Content-Length, in decimal", ", ".join(lengths)[:80] or "none")
    size, most = int(lengths[0]), source.options.limits.max_elements
    if size > most:
        raise _fault(source, number, f"a block of at most {most:,} bytes (--max-elements)", f"{size:,}")
    return size


def _skipped(file: _Counted, size: int) -> bytes | None:
    """Reads past a block that will be mapped: None, or if the file ends in it, nothing."""
    left = size
    while left and (data := file.read(min(left, CHUNK_BYTES))):
        left -= len(data)
    return None if not left else b""


def _end(source: Source, number: int, file: _Counted) -> tuple[bytes, bytes]:
    """The line ends behind a block, and the line that follows them: the next record's first."""
    end = b""
    while (line := file.readline(CHUNK_BYTES)) in (b"\r\n", b"\n") and len(end) <= MOST_END_BYTES:
        end += line
    if line and (not end or not _VERSION.fullmatch(line)):
        raise _fault(source, number + 1, "two line ends, then WARC/1.0 or the like", repr((end + line)[:20]))
    return end, line


# ---- headers -------------------------------------------------------------------------------------------------------


def _header(version: bytes, fields: list[tuple[str, str]], head: bytes) -> dict[str, Any]:
    found = {"version": version.decode().strip(), "fields": [list(field) for field in fields]}
    if _header_of(found) == head:
        return found
    return {**found, "verbatim": head.decode("latin-1")}


def _header_of(header: dict[str, Any]) -> bytes:
    if "verbatim" in header:
        return bytes(header["verbatim"].encode("latin-1"))
    lines = [header["version"], *(f"{name}: {value}" for name, value in header["fields"]), "", ""]
    return "\r\n".join(lines).encode()


def _http(block: Any, fields: list[tuple[str, str]]) -> dict[str, Any] | None:
    """The parsed head of an HTTP message; None if the block is none."""
    kinds = [value.lower() for name, value in fields if name.lower() == "content-type"]
    head = block[:HTTP_HEAD_BYTES].tobytes()
    if not any(kind.startswith("application/http") for kind in kinds) or not _HTTP.match(head):
        return None
    size = next((head.index(blank) + len(blank) for blank in (b"\r\n\r\n", b"\n\n") if blank in head), len(head))
    try:
        with refusing("", "", ""):
            parsed = StatusAndHeadersParser([], False).parse(_Lines(head[:size]), None)
    except (InputError, StatusAndHeadersParserException):
        return None  # the block is kept as it is all the same
    start = head.split(b"\n", 1)[0].strip()
    return {"start": _text(start), "fields": [list(field) for field in parsed.headers], "bytes": size}


class _Lines:
    """What warcio's parser reads from."""

    def __init__(self, data: bytes):
        self.lines = iter(data.splitlines(keepends=True))

    def readline(self, length: int | None = None) -> bytes:
        return next(self.lines, b"")
