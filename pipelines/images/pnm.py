"""PBM, PGM, PPM, PAM and PFM, of any depth: https://netpbm.sourceforge.net/doc/

Samples above 8 bits are big-endian uint16, as they lie there. ``white`` is the largest value where that is not the
type's. Of a bitmap True is white and of a float map the first row is the upper one, as for all images; the files have
both the other way round. A raw file may hold several pictures, a record each. ``plain``: written in decimals.
"""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from aunn_data.errors import InputError
from aunn_data.geometry import Geometry, fitted
from aunn_data.header import Header
from aunn_data.record import Record
from pipelines.images import png
from pipelines.source import Source
from pipelines.stored import element_bytes, marks_of, refusing, stored

MODALITY = "image"
FORMATS = ("pnm",)

GAP = rb"(?:\s|#[^\n\r]*[\n\r])+"
NUMBER = rb"(\d{1,10})"
HEADS = {
    "bitmap": re.compile(rb"P4" + GAP + NUMBER + GAP + NUMBER + rb"\s"),
    "samples": re.compile(rb"P([56])" + GAP + NUMBER + GAP + NUMBER + GAP + NUMBER + rb"\s"),
    "floats": re.compile(rb"P([Ff])\s+(\d{1,10})\s+(\d{1,10})\s+([-+]?\d+(?:\.\d*)?(?:[eE][-+]?\d+)?)\s"),
    "any": re.compile(rb"P7\n((?:(?:#[^\n]*|(?:WIDTH|HEIGHT|DEPTH|MAXVAL|TUPLTYPE)[ \t][^\n]*|[ \t]*)\n)+)ENDHDR\n"),
}
PLAIN = re.compile(rb"P([123])" + GAP + NUMBER + GAP + NUMBER + rb"\s")
DECIMALS = re.compile(rb"(?:[\s\d]|#[^\n\r]*(?:[\n\r]|\Z))*\Z")
MOST_HEAD = 1 << 16  # bytes, comments included
MODES = {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}
EXPECTED, REMEDY = "a netpbm picture that is whole", "restore it, or convert it again"


class Head(NamedTuple):
    """A picture's header: bytes before the samples; shape (y, x) or (y, x, channel); type; what else it says."""

    size: int
    shape: tuple[int, ...]
    dtype: str
    metadata: dict[str, Any]


def sniff(head: bytes, path: Path) -> bool:
    """By a whole header; of plain files by decimals to the end of the head: a text may begin like one."""
    if head[:1] != b"P":
        return False
    if PLAIN.match(head):
        return DECIMALS.match(head, 2) is not None
    return any(pattern.match(head) for pattern in HEADS.values())


def read(source: Source) -> Iterator[Record | InputError]:
    """One record ``name``, or ``name#1``, ``name#2``, … of a file of several pictures. Ends at the first bad one."""
    with refusing(source.label, EXPECTED, REMEDY):
        if png.sniff(source.head, source.path):  # what ``write`` made
            found = None
        elif PLAIN.match(source.head):
            found = [_plain(source)]
        else:
            found = list(_pictures(source))
    if found is None:
        yield from png.read(source)
        return
    for number, (elements, metadata) in enumerate(found, 1):
        suffix = f"#{number}" if len(found) > 1 else ""
        missing = marks_of(elements)
        axes = ("channel", "y", "x")[-elements.ndim :]
        geometry = fitted(Geometry(elements.dtype.str, axes, elements.shape), elements, missing)
        yield Record(Header(source.name + suffix, source.name, MODALITY, "pnm", geometry, metadata), elements, missing)


def write(records: Sequence[Record], path: Path) -> Path:
    """The pictures again, one after another; the comments of the headers are gone."""
    parts = [_written(record) for record in records]
    if None in parts:
        return png.write(records, path)
    path.write_bytes(b"".join(part for part in parts if part))
    return path


def _pictures(source: Source) -> Iterator[tuple[npt.NDArray[Any], dict[str, Any]]]:
    """All pictures of a raw file."""
    path, at = source.local(), 0
    size = path.stat().st_size
    with path.open("rb") as file:
        while at < size or not at:
            file.seek(at)
            start = file.read(MOST_HEAD)
            if at and not start.strip(b"\0\r\n\t "):
                return  # nothing but padding
            head = _head(start, f"{source.label} at byte {at}")
            row = -(-head.shape[1] // 8) if head.dtype == "|b1" else 0
            shape = (head.shape[0], row) if row else head.shape
            dtype = np.dtype("|u1") if row else np.dtype(head.dtype)
            needed = element_bytes(source.label, shape, dtype.itemsize, size - at - head.size)
            _refuse_big(source, head.shape)
            elements = stored(path, dtype, shape, at + head.size)
            if row:
                elements = np.unpackbits(elements, axis=1, count=head.shape[1]) == 0
            elif dtype.kind == "f":
                elements = elements[::-1]
            yield np.moveaxis(elements, -1, 0) if elements.ndim == 3 else elements, head.metadata
            at += head.size + needed


def _head(start: bytes, where: str) -> Head:
    """The header at the beginning of ``start``."""
    for kind, pattern in HEADS.items():
        if match := pattern.match(start):
            return {"bitmap": _bitmap, "samples": _samples, "floats": _floats, "any": _pam}[kind](match)
    raise InputError(where, expected="a header P4, P5, P6, P7, Pf or PF", found=repr(start[:16]), remedy=REMEDY)


def _bitmap(match: re.Match[bytes]) -> Head:
    return Head(match.end(), (int(match[2]), int(match[1])), "|b1", {"mode": "1"})


def _samples(match: re.Match[bytes]) -> Head:
    channels = {b"5": (), b"6": (3,)}[match[1]]
    dtype, white = _type(int(match[4]))
    mode = _mode(3 if channels else 1, dtype)
    return Head(match.end(), (int(match[3]), int(match[2]), *channels), dtype, {"mode": mode, **white})


def _floats(match: re.Match[bytes]) -> Head:
    scale = float(match[4])
    if scale == 0 or not np.isfinite(scale):
        raise ValueError(f"a scale of {scale}")
    shape = (int(match[3]), int(match[2]), *((3,) if match[1] == b"F" else ()))
    metadata = {"mode": "F" if match[1] == b"f" else "RGB;32F", **({"scale": abs(scale)} if abs(scale) != 1 else {})}
    return Head(match.end(), shape, "<f4" if scale < 0 else ">f4", metadata)


def _pam(match: re.Match[bytes]) -> Head:
    fields: dict[bytes, list[bytes]] = {}
    for line in match[1].splitlines():
        if line.strip() and not line.startswith(b"#"):
            key, _, value = line.strip().partition(b" ")
            fields.setdefault(key, []).append(value.strip())
    width, height, depth, white = (int(fields[key][-1]) for key in (b"WIDTH", b"HEIGHT", b"DEPTH", b"MAXVAL"))
    dtype, metadata = _type(white)
    tuples = b" ".join(fields.get(b"TUPLTYPE", [])).decode("latin-1")
    if mode := _mode(depth, dtype):
        metadata = {"mode": mode, **metadata}
    shape = (height, width) if depth == 1 else (height, width, depth)
    return Head(match.end(), shape, dtype, {**metadata, "pam": tuples})


def _type(white: int) -> tuple[str, dict[str, Any]]:
    """The type of samples up to ``white``, and ``white`` for the metadata where it is not the type's largest."""
    if not 0 < white < 65536:
        raise ValueError(f"a largest value of {white}")
    dtype = "|u1" if white < 256 else ">u2"
    return dtype, {"white": white} if white not in (255, 65535) else {}


def _mode(channels: int, dtype: str) -> str:
    if channels == 1:
        return "I;16" if dtype == ">u2" else "L"
    return MODES[channels] + ";16" * (dtype == ">u2") if channels in MODES else ""


def _plain(source: Source) -> tuple[npt.NDArray[Any], dict[str, Any]]:
    """A picture in decimals."""
    with source.open() as file:
        text = re.sub(rb"#[^\n\r]*", b"", file.read())
    kind = text[1:2]
    numbers = 2 if kind == b"1" else 3
    match = re.match(rb"P[123]\s+" + rb"\s+".join([NUMBER] * numbers) + rb"(?:\s|\Z)", text)
    if not match:
        raise ValueError(f"a header {text[:16]!r}")
    shape: tuple[int, ...] = (int(match[2]), int(match[1]), *((3,) if kind == b"3" else ()))
    element_bytes(source.label, shape, 1, len(text) - match.end())
    _refuse_big(source, shape)
    count = int(np.prod(shape))
    body = re.sub(rb"\s+", b"", text[match.end() :]) if kind == b"1" else text[match.end() :]
    if not re.fullmatch(rb"[\s\d]*", body):
        raise ValueError("something other than decimals among the samples")
    if kind == b"1":
        bits = np.frombuffer(body, np.uint8)
        if len(bits) != count or not np.isin(bits, (48, 49)).all():
            raise ValueError(f"{len(bits)} bits for {shape[1]} x {shape[0]} pixels, or other digits than 0 and 1")
        return (bits == 48).reshape(shape), {"mode": "1", "plain": True}
    dtype, white = _type(int(match[3]))
    found = [int(value) for value in body.split()]
    if len(found) != count or max(found) > int(match[3]):
        raise ValueError(f"{len(found)} samples up to {max(found, default=0)} for shape {shape} up to {int(match[3])}")
    elements = np.array(found, dtype).reshape(shape)
    metadata = {"mode": _mode(3 if kind == b"3" else 1, dtype), **white, "plain": True}
    return np.moveaxis(elements, -1, 0) if elements.ndim == 3 else elements, metadata


def _refuse_big(source: Source, shape: tuple[int, ...]) -> None:
    if int(np.prod(shape, dtype=object)) > source.options.limits.max_elements:
        raise InputError(
            source.label,
            expected=f"at most {source.options.limits.max_elements} elements",
            found=f"shape {shape}",
            remedy="leave it out, or give --max-elements",
        )


def _written(record: Record) -> bytes | None:
    """A picture's bytes; None where netpbm has nothing for its type."""
    elements, metadata = np.asarray(record.elements), record.header.metadata
    if elements.ndim not in (2, 3) or elements.dtype.str not in ("|b1", "|u1", "<u2", ">u2", "<f4", ">f4"):
        return None
    pixels = np.ascontiguousarray(np.moveaxis(elements, 0, -1) if elements.ndim == 3 else elements)
    height, width, channels = (*pixels.shape, 1)[:3]
    if pixels.dtype == np.bool_:
        return _bits(pixels, bool(metadata.get("plain"))) if channels == 1 else None
    if pixels.dtype.kind == "f":
        return _float_map(pixels, metadata) if channels in (1, 3) else None
    white = metadata.get("white", 255 if pixels.dtype == np.uint8 else 65535)
    if "pam" not in metadata and channels not in (1, 3):
        return None
    if metadata.get("plain"):
        values = np.minimum(pixels, white).reshape(-1, channels)
        lines = "\n".join(" ".join(map(str, pixel)) for pixel in values.tolist())
        return f"P{2 if channels == 1 else 3}\n{width} {height}\n{white}\n{lines}\n".encode()
    data: bytes = np.minimum(pixels, white).astype("|u1" if white < 256 else ">u2").tobytes()
    if "pam" in metadata:
        kind_line = f"TUPLTYPE {metadata['pam']}\n" if metadata["pam"] else ""
        sizes = f"WIDTH {width}\nHEIGHT {height}\nDEPTH {channels}\nMAXVAL {white}\n"
        return f"P7\n{sizes}{kind_line}ENDHDR\n".encode("latin-1") + data
    return f"P{5 if channels == 1 else 6}\n{width} {height}\n{white}\n".encode() + data


def _float_map(pixels: npt.NDArray[Any], metadata: dict[str, Any]) -> bytes:
    scale = metadata.get("scale", 1.0) * (-1 if pixels.dtype.str[0] == "<" else 1)
    kind = "PF" if pixels.ndim == 3 else "Pf"
    return f"{kind}\n{pixels.shape[1]} {pixels.shape[0]}\n{scale!r}\n".encode() + pixels[::-1].tobytes()


def _bits(pixels: npt.NDArray[Any], plain: bool) -> bytes:
    height, width = pixels.shape
    if plain:
        rows = "\n".join("".join("01"[not value] for value in row) for row in pixels.tolist())
        return f"P1\n{width} {height}\n{rows}\n".encode()
    return b"P4\n%d %d\n" % (width, height) + np.packbits(~pixels, axis=1).tobytes()
