"""Continuations for people: text to print, images, volumes and games as files of their own format with a picture."""

import base64
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from aunn_data import digits
from aunn_data.corpus import Corpus
from aunn_data.geometry import Geometry
from aunn_data.record import Record
from aunn_model.continuation import Continued
from pipelines.continuation import Asked
from pipelines.export import path_below
from pipelines.export import write as write_source
from pipelines.picture import draw_next
from pipelines.restored import file_name, stem_and_suffix

SHOWN = 7  # panels of a picture beside what was given


def written(corpus: Corpus, asked: Asked, continued: Continued, folder: Path) -> dict[str, Any]:
    """Writes what has a format of its own below a folder. Returns what ``--json`` says of the continuation, with
    ``text``, what there is to print, None if files are all."""
    data, entropy_N = continued.bytes_N, continued.entropy_N
    found: dict[str, Any] = {
        "after" if asked.entry else "at": asked.entry.record if asked.entry else asked.start,
        "sample": asked.sample,
        "start": asked.start,
        "stop": asked.stop,
        "entropy_bits_per_byte": float(entropy_N.mean(dtype=np.float64)) if len(entropy_N) else None,
        "bytes": None,
        "files": [],
    }
    if asked.blocks:
        return found | {"text": None, "files": list(map(str, _write_blocks(corpus, asked, data, folder)))}
    found["bytes"] = base64.b64encode(data.tobytes()).decode()
    if asked.plies:
        return found | _write_game(corpus, asked, data, folder)
    return found | {"text": readable(data.tobytes())}


def readable(data: bytes) -> str:
    """Bytes as UTF-8; what is no text, or would not be seen, as escapes."""
    text = data.decode("utf-8", "backslashreplace")
    return "".join(c if c.isprintable() or c in "\n\t" else c.encode("unicode_escape").decode() for c in text)


def elements_of(geometry: Geometry, bytes_N: npt.NDArray[np.uint8]) -> npt.NDArray[Any]:
    """(P * n,) digits, plane after plane -> all elements of a geometry; digits past what its type holds end at that."""
    digits_Pn = bytes_N.reshape(geometry.planes, *geometry.shape)
    if geometry.numpy_dtype.kind == "b":
        return np.asarray(digits_Pn[0] != 0)
    exact = digits_Pn.astype(np.float64)
    return digits.expected_elements_of(exact, geometry.numpy_dtype, geometry.offset, geometry.place_values)


def _write_blocks(corpus: Corpus, asked: Asked, bytes_N: npt.NDArray[np.uint8], folder: Path) -> list[Path]:
    assert asked.entry is not None
    record, geometry = corpus.record(asked.entry), asked.entry.geometry
    metadata = {key: value for key, value in record.header.metadata.items() if key != "sidecars"}
    files, panels = [], [("given", np.asarray(record.elements))]
    for number, of_block_N in enumerate(np.split(bytes_N, asked.blocks), 1):
        elements = elements_of(geometry, of_block_N)
        path = _path(asked, folder, f".next{number}")
        files.append(write_source([Record(replace(record.header, metadata=metadata), elements)], path))
        panels.append((f"next {number}", elements))
    return [*files, draw_next(record, panels[: SHOWN + 1], _picture_path(asked, folder))]


def _write_game(corpus: Corpus, asked: Asked, bytes_N: npt.NDArray[np.uint8], folder: Path) -> dict[str, Any]:
    from pipelines.chess import continuation

    assert asked.entry is not None
    record, boards_PRF = corpus.record(asked.entry), bytes_N.reshape(-1, *asked.entry.shape[1:])
    moves, last = continuation.told(record, boards_PRF), asked.entry.shape[0] - 1
    legal_PRF = boards_PRF[: len(moves.san)]
    files = [write_source([continuation.extended(record, legal_PRF)], _path(asked, folder, ".next"))]
    shown = [(f"ply {last + 1 + ply}", board) for ply, board in enumerate(boards_PRF[:SHOWN])]
    panels = [(f"given, ply {last}", np.asarray(record.elements)[-1]), *shown]
    files.append(draw_next(record, panels, _picture_path(asked, folder)))
    return {"files": list(map(str, files)), **continuation.figures(moves)}


def _path(asked: Asked, folder: Path, more: str) -> Path:
    assert asked.entry is not None
    stem, suffix = stem_and_suffix(file_name(asked.entry))
    sample = f".sample{asked.sample + 1}" if asked.sample else ""
    return path_below(folder, f"{stem}{sample}{more}{suffix}", overwrite=True)


def _picture_path(asked: Asked, folder: Path) -> Path:
    """The record's suffix stays in it, for there may be an a.png beside an a.jpg."""
    path = _path(asked, folder, "")
    return path.with_name(f"{path.name}.next.png")
