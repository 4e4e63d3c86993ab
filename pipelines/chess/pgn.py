"""Chess games in PGN: one record a game, as its boards or as its own text.

Payload "boards" (header format ``pgn-boards``): uint8 (ply, rank, file), the letters of one board a ply, position 0 the
start, so the low six bits of an address are the square. Whose move it is, castling and en passant follow from the start
and the boards; the move played is the one legal move whose board comes next (where two moves lead to one board, as
happens in Atomic, ``metadata["choices"]`` says which). A game so kept exports with its tags, main line and result;
comments, variations and NAGs are dropped, ``metadata["dropped"]`` counts them. Metadata holds no moves.

Payload "pgn" (header format ``pgn``): the game's own text, byte for byte, from its first line to the next game's.

Format: http://www.saremba.de/chessgml/standards/pgn/pgn-complete.htm. The rules of chess and of its variants are
python-chess's, an extra of this project (``pip install 'aunn[chess]'``), so it is imported when a game is read.
"""

import codecs
import importlib
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from aunn_data.errors import InputError
from aunn_data.geometry import Geometry
from aunn_data.header import Header
from aunn_data.record import Record
from pipelines.chess.split import RESULTS, GameText, split
from pipelines.source import Source

if TYPE_CHECKING:
    from pipelines.chess.boards import Game

MODALITY = "chess"
FORMATS = ("pgn-boards", "pgn")
Payload = Literal["boards", "pgn"]

_TAG = re.compile(r'\[\s*[A-Za-z0-9]\w*\s+".*"\s*\]')
_KNOWN_TAG = re.compile(r'\[\s*(?:Event|Site|Date|Round|White|Black|Result|FEN|SetUp|Variant|ECO|UTCDate)\s+"')
_MOVE = r"(?:[NBKRQ]?[a-h]?[1-8]?[-x]?[a-h][1-8]|[PNBRQK]?@[a-h][1-8]|--|O-O|0-0)"
_MOVETEXT = re.compile(rf"(?:\d+[.\s]+)?{_MOVE}[^\s.,]*(?:\s|$)|[{{*]|1-0|0-1|1/2-1/2")
_CHUNK_BYTES = 1 << 20


def sniff(head: bytes, path: Path) -> bool:
    """True for well-known tags with movetext (or nothing yet) behind them; for less than that in a ``.pgn`` file."""
    lines = re.split(r"[\r\n]+", head.removeprefix(codecs.BOM_UTF8).decode("latin-1"))
    content = [line.strip() for line in lines if line.strip() and not line.startswith(("%", ";"))]
    count = next((i for i, line in enumerate(content) if not line.startswith("[")), len(content))
    tags, movetext = content[:count], content[count:]
    moves_follow = bool(movetext and _MOVETEXT.match(movetext[0]))
    if path.suffix.lower() == ".pgn":
        return any(map(_TAG.match, tags)) or (not tags and moves_follow)
    return any(map(_KNOWN_TAG.match, tags)) and (moves_follow or not movetext)


def read(source: Source) -> Iterator[Record | InputError]:
    """The games of a file, one after another, named ``name#1``, ``name#2``, …

    UTF-8 (with or without BOM) or else Latin-1. A game that is not what chess allows gives an InputError with the line
    of the fault; it keeps its number, so the others keep theirs. Raises InputError without python-chess.
    """
    path = source.local()
    _require_python_chess(path)
    return _records(path, source.name, source.options.chess)


def write(records: Sequence[Record], path: Path) -> Path:
    """All games of one source, in order. Boards become PGN, text is written as it stands.

    Boards that chess does not allow (a network's guesses) give the moves up to them, then a comment that says so and
    the result ``*``.
    """
    if any(record.header.format == "pgn-boards" for record in records):
        _require_python_chess(path)
    with path.open("wb") as file:
        for index, record in enumerate(records):
            elements = np.asarray(record.elements)
            if record.header.format == "pgn":
                file.write(elements.tobytes())
                continue
            encoding = record.header.metadata["encoding"]
            if encoding == "utf-8-sig" and index:  # one byte order mark a file
                encoding = "utf-8"
            file.write(_exported(record.header.metadata, elements).encode(encoding))
    return path


def _records(path: Path, name: str, payload: Payload) -> Iterator[Record | InputError]:
    from pipelines.chess import boards

    number, encoding = 0, _encoding(path)
    with path.open(encoding=encoding.removesuffix("-sig"), newline="") as file:  # "" keeps line ends as they are
        for number, text in enumerate(split(file), 1):
            game = boards.parse(text)
            if game.fault is not None:
                yield _refusal(path, number, *game.fault)
            elif payload == "pgn":
                yield _text_record(name, number, text, encoding)
            else:
                yield _boards_record(name, number, game, encoding)
    if not number:
        yield InputError(
            path,
            expected="a game: tags, moves or a result",
            found="none",
            remedy="leave the file out, or rename it if it is not PGN",
        )


def _boards_record(name: str, number: int, game: "Game", encoding: str) -> Record:
    from pipelines.chess import boards

    letters = boards.letters(game.placements)
    tagged = dict(game.tags).get("Result", "*")
    metadata: dict[str, Any] = {
        "tags": [list(tag) for tag in game.tags],
        "result": game.result or (tagged if tagged in RESULTS else "*"),
        "encoding": encoding,
    }
    if game.dropped:
        metadata["dropped"] = game.dropped
    if not all(game.moves):
        metadata["null_moves"] = True
    if choices := boards.choices_of(game):
        metadata["choices"] = [list(choice) for choice in choices]
    geometry = Geometry(dtype=letters.dtype.str, axes=("ply", "rank", "file"), shape=letters.shape)
    return Record(Header(f"{name}#{number}", name, MODALITY, "pgn-boards", geometry, metadata), letters)


def _text_record(name: str, number: int, text: GameText, encoding: str) -> Record:
    data = np.frombuffer("".join(text.raw).encode(encoding.removesuffix("-sig")), np.uint8)
    geometry = Geometry(dtype=data.dtype.str, axes=("byte",), shape=data.shape, layout="packed")
    return Record(Header(f"{name}#{number}", name, MODALITY, "pgn", geometry, {"encoding": encoding}), data)


def _exported(metadata: dict[str, Any], letters: npt.NDArray[np.uint8]) -> str:
    """One game as PGN text, a blank line after its tags and after its moves."""
    from pipelines.chess import boards

    tags, result, comment = metadata["tags"], metadata["result"], ""
    moves, illegal = boards.moves_between(
        boards.start_of(tags),
        boards.placements(letters),
        dict(metadata.get("choices", ())),
        metadata.get("null_moves", False),
    )
    if illegal is not None:
        result, comment = "*", f"illegal from ply {illegal}: not what chess allows"
        tags = [[name, "*" if name == "Result" else value] for name, value in tags]
    lines = [f'[{name} "{value}"]\n' for name, value in tags]
    return "".join([*lines, "\n"] if lines else []) + boards.movetext(tags, moves, comment, result) + "\n\n"


def _refusal(path: Path, number: int, line: int, fault: str) -> InputError:
    return InputError(
        f"{path}:{line}",
        expected="PGN that chess allows",
        found=f"{fault} (game {number})",
        remedy="correct this game or take it out; the others are kept",
    )


def _encoding(path: Path) -> str:
    """utf-8, utf-8-sig or latin-1: what the whole file is, read once in chunks."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    with path.open("rb") as file:
        head = chunk = file.read(_CHUNK_BYTES)
        try:
            while chunk:
                decoder.decode(chunk)
                chunk = file.read(_CHUNK_BYTES)
            decoder.decode(b"", final=True)
        except UnicodeDecodeError:
            return "latin-1"
    return "utf-8-sig" if head.startswith(codecs.BOM_UTF8) else "utf-8"


def _require_python_chess(path: Path) -> None:
    """Raises InputError where python-chess, an extra, is not installed."""
    try:
        importlib.import_module("chess.pgn")
    except ImportError as error:
        raise InputError(
            path, expected="python-chess, which reads PGN", found=str(error), remedy="pip install 'aunn[chess]'"
        ) from error
