"""Values of a DICOM data set straight from their bytes: https://dicom.nema.org/medical/dicom/current/output/html/part05.html

pydicom makes objects of each value that it is asked for, which takes longer than reading a small slice. Plain words and
numbers need none; whatever is not written exactly as the standard wants it is still asked of pydicom.
"""

import re
from functools import cache
from typing import Any

from pydicom.datadict import dictionary_VR
from pydicom.tag import BaseTag, Tag

_DECIMAL, _CODE, _NAME = rb"[-+]?\d+(?:\.\d*)?(?:[eE][-+]?\d+)?", rb"[A-Z0-9_]+(?: [A-Z0-9_]+)*", rb"\d+(?:\.\d+)*"
PLAIN = {  # VR -> what a value of it looks like, with its padding
    "DS": re.compile(rb"(" + _DECIMAL + rb"(?:\\" + _DECIMAL + rb")*) ?"),
    "IS": re.compile(rb"([-+]?\d+(?:\\[-+]?\d+)*) ?"),
    "CS": re.compile(rb"(" + _CODE + rb"(?:\\" + _CODE + rb")*) ?"),
    "UI": re.compile(rb"(" + _NAME + rb")\0?"),
}
KINDS: dict[str, Any] = {"DS": float, "IS": int, "CS": str, "UI": str}


def value_in(dataset: Any, keyword: str) -> Any:
    """The value of an element, a list where it has several; None where it has none. Decimals are floats."""
    tag, kind = _element(keyword)
    element = dataset.get_item(tag)
    if element is None:
        return None
    if type(element.value) is bytes and element.VR in (kind, None):
        if kind == "US" and len(element.value) == 2:
            return int.from_bytes(element.value, "little" if element.is_little_endian else "big")
        if words := _words(element.value, kind):
            found = list(map(KINDS[kind], words))
            return found if len(found) > 1 else found[0]
    return dataset.get(keyword)


def word_in(dataset: Any, keyword: str) -> str:
    """The value as text, decimals as they are written; "" where there is none, or it is 0."""
    tag, kind = _element(keyword)
    element = dataset.get_item(tag)
    if element is None:
        return ""
    plain = kind in ("DS", "IS") and type(element.value) is bytes and element.VR in (kind, None)
    words = _words(element.value, kind) if plain else []
    if len(words) == 1:
        return words[0] if float(words[0]) else ""
    return f"[{', '.join(words)}]" if words else str(value_in(dataset, keyword) or "")


@cache
def _element(keyword: str) -> tuple[BaseTag, str]:
    """Tag and VR that the dictionary gives."""
    return Tag(keyword), dictionary_VR(keyword)


def _words(raw: bytes, kind: str) -> list[str]:
    """The words or numbers of a value that is written as it should be; else none."""
    match = PLAIN[kind].fullmatch(raw) if kind in PLAIN else None
    return match[1].decode().split("\\") if match else []
