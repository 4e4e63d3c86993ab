"""Plain text: the file's own bytes, and the encoding as far as the bytes themselves tell it.

==================  ================================================================================================
utf-8               valid UTF-8, ASCII included
utf-8-sig           the same behind a byte-order mark
utf-16 utf-32       valid behind their byte-order marks
utf-16-le utf-16-be without a mark: valid in one byte order, and there words with blanks between them
koi8-r, big5, …     no UTF-8 and hardly a control character: the legacy encoding that the file declares (HTML, XML,
                    an editor's mark) and that reads it all, else the most plausible one (see ``legacy``)
unknown-8bit        the same, but too little of it to tell, or nothing plausible: only a person can name it
==================  ================================================================================================

A file with NUL bytes that is no UTF-16 or UTF-32 is no text. ``metadata["kind"]`` is what the name's suffix says
(KINDS), or a beginning that only HTML and XML have. Line ends stay as they are.
"""

import codecs
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from aunn_data.errors import InputError
from aunn_data.header import Header
from aunn_data.record import Record
from pipelines.source import HEAD_BYTES, Source
from pipelines.stored import bytes_of, element_bytes, only, refusing
from pipelines.text import legacy
from pipelines.text.rows import packed

MODALITY = "text"
FORMATS = ("text",)

# UTF-32's little-endian mark begins with UTF-16's: longest first.
MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
UTF16_MARKS = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
# One control character in so many is still text. Random bytes have one in ten and a NUL in 256; bytes that happen to be
# valid UTF-8 are text already for a better reason, so they may have more (terminal logs, game scripts).
CONTROLS_ONE_IN = {"latin-1": 400}
CONTROLS_ONE_IN_UNICODE = 20
CONTROLS = bytes(code for code in (*range(1, 32), 127) if chr(code) not in "\b\t\n\v\f\r\x1a\x1b")
CHUNK_BYTES = 1 << 16  # they stay in the cache from one look to the next
# What UTF-16 without a mark must have in its beginning: arrays of small numbers must not pass for it.
UNMARKED_CHARACTERS, UNMARKED_WORDS, UNMARKED_BLANKS_ONE_IN = 32, 0.75, 100

KINDS = {
    **dict.fromkeys((".md", ".markdown"), "markdown"),
    **dict.fromkeys((".html", ".htm", ".xhtml"), "html"),
    **{f".{kind}": kind for kind in ("xml", "json", "csv", "tsv", "srt", "vtt", "tex", "rst", "toml", "sql", "css")},
    **dict.fromkeys((".yaml", ".yml"), "yaml"),
    **dict.fromkeys((".bib", ".bibtex"), "bibtex"),
    ".py": "python",
    ".js": "javascript",
    ".ts": "typescript",
    ".java": "java",
    ".rs": "rust",
    ".go": "go",
    ".c": "c",
    ".h": "c",
    ".cpp": "c++",
    ".hpp": "c++",
    ".cc": "c++",
    ".cs": "c#",
    ".r": "r",
    ".jl": "julia",
    ".sh": "shell",
    ".rb": "ruby",
    ".php": "php",
    ".pl": "perl",
    ".lua": "lua",
    ".f90": "fortran",
}
_HTML = re.compile(rb"(?:\xef\xbb\xbf)?\s*<(?:!doctype\s+html|html)[\s>]", re.IGNORECASE)
_XML = re.compile(rb"(?:\xef\xbb\xbf)?<\?xml\s")


def sniff(head: bytes, path: Path) -> bool:
    """Text of any encoding; a character that the head's end cuts in two does not count against it."""
    return bool(head) and encoding_of(np.frombuffer(head, np.uint8), whole=False) is not None


def read(source: Source) -> Iterator[Record | InputError]:
    """One record: the bytes of the file, packed."""
    path, name = source.path, source.name
    with refusing(path, "a readable text file", "check the path and its permissions"):
        elements = bytes_of(source)
        element_bytes(path, elements.shape, 1, len(elements))
        encoding = encoding_of(elements)
        told = legacy.detect(elements) if encoding == "unknown-8bit" else {"encoding": encoding}
    if encoding is None:
        raise InputError(
            path,
            expected="text: UTF-8, UTF-16 or UTF-32, or 8-bit",
            found="NUL bytes, many control characters, or broken UTF-16/32",
            remedy="convert it to UTF-8; binary data needs a reader of its own",
        )
    kind = kind_of(elements[:HEAD_BYTES].tobytes(), source.inner)
    metadata = {**told, **({"kind": kind} if kind else {})}
    yield Record(Header(name, name, MODALITY, "text", packed(len(elements)), metadata), elements)


def write(records: Sequence[Record], path: Path) -> Path:
    """The bytes as they were."""
    np.asarray(only(records, path).elements, np.uint8).tofile(path)
    return path


def encoding_of(data: npt.NDArray[np.uint8], whole: bool = True) -> str | None:
    """The encoding of uint8[n], None if it is binary. Not ``whole``: its last character may be incomplete."""
    head = data[:4].tobytes()
    marked = next((encoding for mark, encoding in MARKS if head.startswith(mark)), None)
    if _reads_as(marked or "utf-8", data, whole):
        return marked or "utf-8"
    if marked is None and (unmarked := _unmarked(data[:HEAD_BYTES].tobytes())):
        return unmarked if _reads_as(unmarked, data, whole) else None
    if marked in (None, "utf-8-sig") and _reads_as("latin-1", data, whole):
        return "unknown-8bit"
    return None


def kind_of(head: bytes, path: Path) -> str | None:
    """What kind of text the name's suffix says, or its first bytes beyond doubt."""
    by_content = "html" if _HTML.match(head) else "xml" if _XML.match(head) else None
    return KINDS.get(path.suffix.lower(), by_content)


def _unmarked(head: bytes) -> str | None:
    """The byte order of UTF-16 that has no mark: words and blanks in one order, and none in the other."""
    if b"\0" not in head:
        return None
    found = [encoding for encoding in ("utf-16-le", "utf-16-be") if _has_words(head, encoding)]
    return found[0] if len(found) == 1 else None


def _has_words(head: bytes, encoding: str) -> bool:
    try:
        text = codecs.getincrementaldecoder(encoding)().decode(head)
    except UnicodeDecodeError:
        return False
    blanks = sum(char in " \t\r\n" for char in text)
    words = blanks + sum(char.isalpha() for char in text)
    return (
        len(text) >= UNMARKED_CHARACTERS
        and words >= UNMARKED_WORDS * len(text)
        and blanks * UNMARKED_BLANKS_ONE_IN >= len(text)
    )


def _reads_as(encoding: str, data: npt.NDArray[Any], whole: bool) -> bool:
    """Does it decode, without a NUL and with few control characters?"""
    decoder = codecs.getincrementaldecoder(encoding)()
    wide = "16" in encoding or "32" in encoding
    data = np.asarray(data)  # slices of a memmap are dear
    characters = controls = 0
    for start in range(0, len(data), CHUNK_BYTES):
        single_N = chunk_N = data[start : start + CHUNK_BYTES]
        highest = int(chunk_N.max())
        if encoding == "utf-8" and highest < 0x80 and not decoder.getstate()[0]:
            characters += len(chunk_N)
        else:
            try:
                text = decoder.decode(chunk_N.tobytes(), final=whole and start + CHUNK_BYTES >= len(data))
            except UnicodeDecodeError:
                return False
            characters += len(text)
            if wide:  # controls are one byte each in UTF-8
                single_N, highest = np.frombuffer(text.encode(), np.uint8), 0xFF
        if len(single_N) and _may_have_controls(single_N, highest):
            single = single_N.tobytes()
            if b"\0" in single:
                return False
            controls += len(single) - len(single.translate(None, CONTROLS))
    return controls * CONTROLS_ONE_IN.get(encoding, CONTROLS_ONE_IN_UNICODE) <= characters


def _may_have_controls(bytes_N: npt.NDArray[np.uint8], highest: int) -> bool:
    """Has it a byte below a blank that is no white space, or a DEL? Counting which ones takes many times as long."""
    if bytes_N.min() < 8 or (bytes_N - np.uint8(14)).min() < 32 - 14:  # \b \t \n \v \f \r wrap around to the top
        return True
    return highest == 0x7F or (highest > 0x7F and bool((bytes_N == 0x7F).any()))
