"""Plain text: the file's own bytes, and the encoding as far as the bytes themselves tell it.

=============  =====================================================================================================
utf-8          valid UTF-8, ASCII included
utf-8-sig      the same behind a byte-order mark
utf-16 utf-32  valid behind their byte-order marks
unknown-8bit   no UTF-8 and hardly a control character: some legacy encoding, which only a person can name
=============  =====================================================================================================
"""

import codecs
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from aunn_data.errors import InputError
from aunn_data.geometry import Geometry, fitted
from aunn_data.header import Header
from aunn_data.record import Record
from pipelines.source import Source
from pipelines.stored import element_bytes, only, refusing, stored

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
# One control character in so many is still text. Random bytes have one in ten and a NUL in 256; bytes that happen to be
# valid UTF-8 are text already for a better reason, so they may have more (terminal logs, game scripts).
CONTROLS_ONE_IN = {"latin-1": 400}
CONTROLS_ONE_IN_UNICODE = 20
CONTROLS = {code: None for code in (*range(1, 32), 127) if chr(code) not in "\b\t\n\v\f\r\x1a\x1b"}
CHUNK_BYTES = 1 << 22


def sniff(head: bytes, path: Path) -> bool:
    """Text of any encoding; a character that the head's end cuts in two does not count against it."""
    return bool(head) and encoding_of(np.frombuffer(head, np.uint8), whole=False) is not None


def read(source: Source) -> Iterator[Record | InputError]:
    """One record: the bytes of the file, packed."""
    path, name = source.local(), source.name
    with refusing(path, "a readable text file", "check the path and its permissions"):
        size = path.stat().st_size
        element_bytes(path, (size,), 1, size)
        elements = stored(path, np.dtype(np.uint8), (size,))
        encoding = encoding_of(elements)
    if encoding is None:
        raise InputError(
            path,
            expected="text: UTF-8, UTF-16 or UTF-32 with its byte-order mark, or 8-bit",
            found="NUL bytes, many control characters, or broken UTF-16/32",
            remedy="convert it to UTF-8; binary data needs a reader of its own",
        )
    geometry = fitted(Geometry("|u1", ("byte",), (size,), layout="packed"), elements)
    yield Record(Header(name, name, MODALITY, "text", geometry, {"encoding": encoding}), elements)


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
    if marked in (None, "utf-8-sig") and _reads_as("latin-1", data, whole):
        return "unknown-8bit"
    return None


def _reads_as(encoding: str, data: npt.NDArray[Any], whole: bool) -> bool:
    """Does it decode, without a NUL and with few control characters?"""
    decoder = codecs.getincrementaldecoder(encoding)()
    characters = controls = 0
    for start in range(0, len(data), CHUNK_BYTES):
        chunk = data[start : start + CHUNK_BYTES].tobytes()
        try:
            text = decoder.decode(chunk, final=whole and start + CHUNK_BYTES >= len(data))
        except UnicodeDecodeError:
            return False
        if "\0" in text:
            return False
        characters += len(text)
        controls += len(text) - len(text.translate(CONTROLS))
    return controls * CONTROLS_ONE_IN.get(encoding, CONTROLS_ONE_IN_UNICODE) <= characters
