"""Which legacy encoding an 8-bit text is in: declared by itself, or the most plausible one by charset-normalizer.

The judgement is made on a sample of lines with non-ASCII bytes, then held against the whole file: an encoding that does
not read every byte of it is none. With too few such bytes it stays ``unknown-8bit``.
"""

import codecs
import re
from collections.abc import Iterator
from typing import Any

import charset_normalizer
import numpy as np
import numpy.typing as npt
from charset_normalizer.constant import IANA_SUPPORTED
from charset_normalizer.utils import iana_name

UNKNOWN = "unknown-8bit"
DECLARED_BYTES = 1024  # HTML wants its charset within these
SAMPLE_BYTES = 1 << 15
SEARCHED_BYTES = 1 << 26  # of the file, for lines for the sample
CHUNK_BYTES = 1 << 22
FEWEST_BYTES = 32  # non-ASCII, from which an encoding is told
MOST_ALTERNATIVES = 8
# Where several fit about equally well, as ISO 8859-1 and its relatives do for German: the commonest first.
SLACK_CHAOS, SLACK_COHERENCE = 0.01, 0.75
COMMON = (
    *("latin_1", "cp1252", "iso8859_15", "cp1250", "iso8859_2", "cp1251", "koi8_r", "cp866", "iso8859_5"),
    *("cp1253", "iso8859_7", "cp1254", "iso8859_9", "cp1255", "cp1256", "cp1257", "cp850", "mac_roman"),
    *("shift_jis", "cp932", "euc_jp", "gb2312", "gbk", "gb18030", "big5", "euc_kr", "cp949"),
)
_DECLARATION = re.compile(
    rb"<meta[^>]*\scharset\s*=\s*[\"']?\s*([\w.:-]+)"
    rb"|<meta[^>]*content\s*=\s*[\"'][^\"'>]*charset\s*=\s*([\w.:-]+)"
    rb"|<\?xml\s[^>]*encoding\s*=\s*[\"']([\w.:-]+)"
    rb"|^[^\n]{0,40}coding[:=]\s*([\w.-]+)",
    re.IGNORECASE,
)
_ASCII = bytes(range(0x80))
_CUT = re.compile(rb"[ -/:-?]")  # no second byte of a character in any encoding of two
_LINE = re.compile(rb"[^\r\n]*[\r\n]*")


def detect(data: npt.NDArray[np.uint8]) -> dict[str, Any]:
    """``encoding`` of uint8[n] that is no UTF, by the name of Python's codec, and what the judgement rests on.

    ``declared``: the text says so itself. ``chaos`` (0 is best) and ``coherence`` (with a language, 1 is best) are
    charset-normalizer's, ``alternatives`` what else it could be.
    """
    if declared := _declared(data):
        return {"encoding": declared, "declared": True}
    sample = _sample(data)
    if len(sample.translate(None, _ASCII)) < FEWEST_BYTES:
        return {"encoding": UNKNOWN}
    matches = list(charset_normalizer.from_bytes(sample, preemptive_behaviour=False))
    best = [m for m in matches if _about_as_good(m, matches[0])]
    equal = sorted({name for match in best for name in match.could_be_from_charset}, key=_commonest)
    others = [name for match in matches for name in match.could_be_from_charset]
    names = [name for name in dict.fromkeys((*equal, *others)) if _is_legacy(name)]
    if names[:1] == ["cp1252"] and not _has_c1(data):  # without these bytes it is ISO 8859-1, which is its plainer name
        names = ["latin_1", *names]
    for at, name in enumerate(names):
        if _reads_all(name, data):
            match = next((match for match in matches if name in match.could_be_from_charset), matches[0])
            alternatives = [_python_name(other) for other in names[at + 1 : at + 1 + MOST_ALTERNATIVES]]
            said = {"chaos": round(match.chaos, 3), "coherence": round(match.coherence, 3)}
            return {"encoding": _python_name(name), **said, "alternatives": alternatives}
    return {"encoding": UNKNOWN}


def _about_as_good(match: Any, first: Any) -> bool:
    return bool(match.chaos <= first.chaos + SLACK_CHAOS and match.coherence >= first.coherence * SLACK_COHERENCE)


def _commonest(name: str) -> tuple[int, str]:
    return COMMON.index(name) if name in COMMON else len(COMMON), name


def _has_c1(data: npt.NDArray[np.uint8]) -> bool:
    """Has it a byte of 0x80 to 0x9F, where cp1252 has letters and ISO 8859-1 controls?"""
    starts = range(0, len(data), CHUNK_BYTES)
    return any((data[start : start + CHUNK_BYTES] & 0xE0 == 0x80).any() for start in starts)


def _is_legacy(name: str) -> bool:
    return name in IANA_SUPPORTED and not name.startswith("utf")


def _python_name(name: str) -> str:
    return codecs.lookup(name).name


def _declared(data: npt.NDArray[np.uint8]) -> str | None:
    """The encoding that the text's first bytes name, if it is a legacy one and reads the whole text."""
    match = _DECLARATION.search(data[:DECLARED_BYTES].tobytes())
    if not match:
        return None
    try:
        name = iana_name((match[1] or match[2] or match[3] or match[4]).decode("ascii"))
    except (ValueError, UnicodeDecodeError):
        return None
    return _python_name(name) if _is_legacy(name) and _reads_all(name, data) else None


def _sample(data: npt.NDArray[np.uint8]) -> bytes:
    """Lines with non-ASCII bytes, in order, of SAMPLE_BYTES at most; a long line ends at a blank."""
    found = b""
    for start in range(0, min(len(data), SEARCHED_BYTES), CHUNK_BYTES):
        for line in _lines(data[start : start + CHUNK_BYTES]):
            part = line[: SAMPLE_BYTES - len(found)]
            if len(part) < len(line):
                ends = [end.end() for end in _CUT.finditer(part)]
                part = part[: ends[-1]] if ends else b"" if found else part
            found += part
            if len(found) >= SAMPLE_BYTES or len(part) < len(line):
                return found
    return found


def _lines(data: npt.NDArray[np.uint8]) -> Iterator[bytes]:
    """The lines that have a byte beyond ASCII."""
    chunk, at = data.tobytes(), 0
    for high in np.flatnonzero(data >= 0x80):
        if high >= at:
            start = max(chunk.rfind(b"\n", at, high), chunk.rfind(b"\r", at, high)) + 1
            match = _LINE.match(chunk, max(start, at))
            at = match.end() if match else len(chunk)
            yield chunk[max(start, at if not match else match.start()) : at]


def _reads_all(name: str, data: npt.NDArray[np.uint8]) -> bool:
    try:
        decoder = codecs.getincrementaldecoder(name)()
        for start in range(0, len(data), CHUNK_BYTES):
            decoder.decode(data[start : start + CHUNK_BYTES].tobytes(), final=start + CHUNK_BYTES >= len(data))
    except (UnicodeError, LookupError):
        return False
    return True
