"""Chess games in PGN: one record a game, as its boards or as its own text.

Payload "boards" (header format ``pgn-boards``): uint8 (ply, rank, file), the letters of one board a ply, position 0 the
start, so the low six bits of an address are the square. Whose move it is, castling and en passant follow from the start
and the boards; the move played is the one legal move whose board comes next (where two moves lead to one board, as
happens in Atomic, ``metadata["choices"]`` says which). Metadata holds no moves of the main line, but what boards cannot
say, where there is any: ``notes`` are [ply, text], what stands after that ply's move (comments with clocks and
evaluations, NAGs, variations, ``%`` lines), ``after_result`` is what comes behind the result. The game exports to an
equivalent PGN: its moves, rewritten in standard notation, with tags, notes and result as they stood.

Payload "pgn" (header format ``pgn``): the game's own text, byte for byte, from its first line to the next game's.

Format: http://www.saremba.de/chessgml/standards/pgn/pgn-complete.htm. The rules of chess and of its variants are
python-chess's, an extra of this project (``pip install 'aunn[chess]'``), so it is imported when a game is read.
"""

import codecs
import importlib
import io
import re
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from aunn_data.errors import InputError
from aunn_data.geometry import Geometry
from aunn_data.header import Header
from aunn_data.record import Record
from pipelines.chess.split import MOST_GAME_BYTES, RESULTS, GameText, Piece, split
from pipelines.source import Source

if TYPE_CHECKING:
    from pipelines.chess.movetext import Game

MODALITY = "chess"
FORMATS = ("pgn-boards", "pgn")
Payload = Literal["boards", "pgn"]

_TAG = re.compile(r'\[\s*[A-Za-z0-9]\w*\s+".*"\s*\]')
_KNOWN_TAG = re.compile(r'\[\s*(?:Event|Site|Date|Round|White|Black|Result|FEN|SetUp|Variant|ECO|UTCDate)\s+"')
_KNOWN_TAG_BYTES = re.compile(_KNOWN_TAG.pattern.encode())
_MOVE = r"(?:[NBKRQ]?[a-h]?[1-8]?[-x]?[a-h][1-8]|[PNBRQK]?@[a-h][1-8]|--|O-O|0-0)"
_MOVETEXT = re.compile(rf"(?:\d+[.\s]+)?{_MOVE}[^\s.,]*(?:\s|$)|[{{*]|1-0|0-1|1/2-1/2")


def sniff(head: bytes, path: Path) -> bool:
    """True for well-known tags with movetext (or nothing yet) behind them; for less than that in a ``.pgn`` file."""
    if path.suffix.lower() != ".pgn" and not _KNOWN_TAG_BYTES.search(head):  # most files, quickly
        return False
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

    Each game is UTF-8 or else Latin-1. One that is not what chess allows gives an InputError with the line of the
    fault; it keeps its number, so the others keep theirs. Raises InputError without python-chess, and for a file
    without games.
    """
    _require_python_chess(source.label)
    return (found for piece in pieces(source) for found in read_piece(source, piece))


def pieces(source: Source) -> Iterator[Piece]:
    """The file, cut into pieces of whole games that may be read side by side; as long as it is, little is in memory.

    Raises InputError where there is no game, and after the last whole one where the file cannot be read on.
    """
    empty = True
    with io.TextIOWrapper(source.open(), "latin-1", newline="") as file:  # "" keeps line ends as they are
        for piece in split(iter(partial(file.readline, MOST_GAME_BYTES + 1), "")):
            yield piece
            empty = False
    if empty:
        raise InputError(
            source.label,
            expected="a game: tags, moves or a result",
            found="none",
            remedy="leave the file out, or rename it if it is not PGN",
        )


def read_piece(source: Source, piece: Piece) -> Iterator[Record | InputError]:
    """The games of a piece, in order; source and piece may have come from another process."""
    from pipelines.chess import movetext

    if piece.endless:
        yield _refusal(source.label, piece.number, piece.line, f"a game of more than {MOST_GAME_BYTES} bytes")
    line = piece.line
    for number, data in enumerate(piece.games, piece.number):
        decoded, encoding = _decoded(data)
        text = GameText.of(decoded, line)
        game = movetext.parse(text)
        plies = len(game.placements) // 7
        if game.fault is not None:
            yield _refusal(source.label, number, *game.fault)
        elif plies * 64 > source.options.limits.max_elements:
            yield _refusal(source.label, number, line, f"{plies} boards, more elements than --max-elements allows")
        elif source.options.chess == "pgn":
            yield _text_record(source.name, number, data, encoding)
        else:
            yield _boards_record(source, number, game, encoding)
        line += len(text.raw)


def write(records: Sequence[Record], path: Path) -> Path:
    """All games of one source, in order. Boards become PGN, text is written as it stands.

    Boards that chess does not allow (a network's guesses) give the moves up to them, then a comment that says so and
    the result ``*``.
    """
    if any(record.header.format == "pgn-boards" for record in records):
        _require_python_chess(str(path))
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


def _boards_record(source: Source, number: int, game: "Game", encoding: str) -> Record | InputError:
    from pipelines.chess import boards

    letters = boards.letters(game.placements)
    tagged = dict(game.tags).get("Result", "*")
    metadata: dict[str, Any] = {
        "tags": [list(tag) for tag in game.tags],
        "result": game.result or (tagged if tagged in RESULTS else "*"),
        "encoding": encoding,
    }
    if game.notes:
        metadata["notes"] = [list(note) for note in game.notes]
    if game.after_result:
        metadata["after_result"] = game.after_result
    if game.null_moves:
        metadata["null_moves"] = True
    if game.choices:
        metadata["choices"] = [list(choice) for choice in game.choices]
    geometry = Geometry(dtype=letters.dtype.str, axes=("ply", "rank", "file"), shape=letters.shape)
    header = Header(f"{source.name}#{number}", source.name, MODALITY, "pgn-boards", geometry, metadata)
    return Record(header, letters)


def _text_record(name: str, number: int, text: bytes, encoding: str) -> Record:
    data = np.frombuffer(text, np.uint8)
    geometry = Geometry(dtype=data.dtype.str, axes=("byte",), shape=data.shape, layout="packed")
    return Record(Header(f"{name}#{number}", name, MODALITY, "pgn", geometry, {"encoding": encoding}), data)


def _exported(metadata: dict[str, Any], letters: npt.NDArray[np.uint8]) -> str:
    """One game as PGN text, a blank line after its tags and after its moves."""
    from pipelines.chess import boards, movetext

    tags = metadata["tags"]
    moves, legal = movetext.told(
        movetext.start_of(tags),
        boards.placements(letters),
        metadata["result"],
        dict(metadata.get("notes", ())),
        dict(metadata.get("choices", ())),
        metadata.get("null_moves", False),
        metadata.get("after_result", ""),
    )
    if not legal:
        tags = [[name, "*" if name == "Result" else value] for name, value in tags]
    lines = [f'[{name} "{value}"]\n' for name, value in tags]
    return "".join([*lines, "\n"] if lines else []) + moves + "\n\n"


def _refusal(label: str, number: int, line: int, fault: str) -> InputError:
    return InputError(
        f"{label}:{line}",
        expected="PGN that chess allows",
        found=f"{fault} (game {number})",
        remedy="correct this game or take it out; the others are kept",
    )


def _decoded(data: bytes) -> tuple[str, str]:
    """A game's text, and what it is written in: utf-8, utf-8-sig (with a byte order mark before it) or latin-1."""
    try:
        return data.decode("utf-8"), "utf-8-sig" if data.startswith(codecs.BOM_UTF8) else "utf-8"
    except UnicodeDecodeError:
        return data.decode("latin-1"), "latin-1"


def _require_python_chess(where: str) -> None:
    """Raises InputError where python-chess, an extra, is not installed."""
    try:
        importlib.import_module("chess.pgn")
    except ImportError as error:
        raise InputError(
            where, expected="python-chess, which reads PGN", found=str(error), remedy="pip install 'aunn[chess]'"
        ) from error
