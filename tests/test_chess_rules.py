"""Boards and moves: every legal game survives the way through its boards, in chess and in its variants."""

import io
import re
import subprocess
import sys
from array import array
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import chess
import chess.pgn
import chess.variant
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aunn_data.errors import InputError
from aunn_data.record import Record
from pipelines.chess import boards, pgn
from pipelines.chess.split import split
from pipelines.source import Source

VARIANTS = ("Standard", "Antichess", "Atomic", "Crazyhouse", "Horde", "King of the Hill", "Racing Kings", "Three-check")

# White's rook d4 and queen e4 both stand beside the pawn d5 and can take it: all three explode, whoever takes.
BOTH_EXPLODE = '[Variant "Atomic"]\n[FEN "k7/8/8/3p4/3RQ3/8/8/7K w - - 0 1"]\n[SetUp "1"]\n\n'


def from_text(folder: Path, text: str) -> Record:
    """The one game in a text."""
    path = folder / "game.pgn"
    path.write_text(text)
    (record,) = pgn.read(Source(path, path.name))
    assert isinstance(record, Record), record
    return record


def to_text(folder: Path, record: Record) -> str:
    return pgn.write([record], folder / "out.pgn").read_text()


def moves_in(text: str) -> list[str]:
    game = chess.pgn.read_game(io.StringIO(text))
    assert game is not None
    assert not game.errors
    return [move.uci() for move in game.mainline_moves()]


def played(board: chess.Board, picks: list[int]) -> list[chess.Move]:
    """Pushes one legal move for each pick, as long as there are any."""
    for pick in picks:
        legal = list(board.legal_moves)
        if not legal:
            break
        board.push(legal[pick % len(legal)])
    return board.move_stack


def check_round_trip(folder: Path, board: chess.Board) -> None:
    """A game -> PGN -> boards -> PGN gives the same moves and tags."""
    before = str(chess.pgn.Game.from_board(board))
    record = from_text(folder, before)
    assert record.elements.shape == (len(board.move_stack) + 1, 8, 8)
    after = to_text(folder, record)
    assert moves_in(after) == moves_in(before)
    assert after.split("\n\n")[0] == before.split("\n\n")[0]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("games")


PICKS = st.lists(st.integers(0, 255), max_size=50)


@settings(max_examples=60, deadline=None)
@given(position=st.integers(0, 959), picks=PICKS)
def test_random_games_of_chess960(folder: Path, position: int, picks: list[int]) -> None:
    """From any of the 960 starts (518 is the usual one), moves follow from boards, and never more than one fits."""
    board = chess.Board.from_chess960_pos(position)
    board.chess960 = position != 518
    replay = board.copy()
    for move in played(board, picks):
        after = replay.copy()
        after.push(move)
        assert boards.fitting(replay, boards.placement_of(after)) == [move]
        replay.push(move)
    check_round_trip(folder, board)


@settings(max_examples=60, deadline=None)
@given(variant=st.sampled_from(VARIANTS), picks=PICKS)
def test_random_games_of_variants(folder: Path, variant: str, picks: list[int]) -> None:
    """Games of every variant with 64 squares survive: captured pieces dropped again, explosions, other starts."""
    board = chess.variant.find_variant(variant)()
    played(board, picks)
    check_round_trip(folder, board)


SANS = st.from_regex(r"[NBRQK]?[a-h]?[1-8]?x?[a-h][1-8](=[NQ])?|O-O(-O)?", fullmatch=True)


def outcome(play: Callable[[str], chess.Move], san: str) -> str:
    try:
        return play(san).uci()
    except ValueError as error:
        return f"{type(error).__name__}: {error}"


@settings(max_examples=8, deadline=None)
@given(position=st.integers(0, 959), picks=PICKS, sans=st.lists(SANS, max_size=5))
def test_moves_are_read_as_python_chess_reads_them(position: int, picks: list[int], sans: list[str]) -> None:
    """Of every position, every legal move and any other gives the move, or the error, that python-chess gives."""
    board = chess.Board.from_chess960_pos(position)
    for pick in [*picks, 0]:
        legal = list(board.legal_moves)
        spelled = {spell for move in legal for spell in (board.san(move).rstrip("+#"), board.lan(move).rstrip("+#"))}
        vague = {re.sub(r"^([NBRQK])[a-h1-8]+(?=x?[a-h][1-8])", r"\1", spell) for spell in spelled}
        pinned = {
            board.piece_at(move.from_square).symbol().upper() + chess.square_name(move.to_square)
            for move in board.pseudo_legal_moves
        }
        for san in sorted(spelled | vague | pinned) + sans:
            ours, theirs = board.copy(), board.copy()
            assert outcome(lambda san, ours=ours: boards.play(ours, san), san) == outcome(theirs.push_san, san)
            assert ours.fen() == theirs.fen()
        if not legal:
            break
        board.push(legal[pick % len(legal)])


PIECES = (
    '[Event "a"]\n',
    "[Site]",
    "\n",
    "\r\n",
    "\r",
    "1. e4 ",
    "2. d4",
    " *",
    "{",
    "}",
    "(",
    ")",
    ";",
    "%",
    "[",
    " ",
    "ä",
)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.sampled_from(PIECES), max_size=30).map("".join))
def test_splitting_loses_nothing(text: str) -> None:
    """However broken a text is, its games one after another are the whole of it, unless there is no game at all."""
    data = text.encode()
    pieces = list(split(io.StringIO(data.decode("latin-1"), newline="")))
    assert b"".join(game for piece in pieces for game in piece.games) == (data if pieces else b"")


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 12), min_size=64, max_size=64))
def test_letters_and_placements_are_inverse(squares: list[int]) -> None:
    """Any 64 letters of chess come back from the sets of squares, as python-chess reads the same board."""
    letters = np.frombuffer(b".PNBRQKpnbrqk", np.uint8)[squares].reshape(1, 8, 8)
    (placement,) = boards.placements(letters)
    assert placement is not None
    assert np.array_equal(boards.letters(array("Q", placement)), letters)
    board = chess.BaseBoard.empty()
    for square, letter in enumerate(letters.tobytes().decode()):
        if letter != ".":
            board.set_piece_at(square, chess.Piece.from_symbol(letter))
    assert (board.pawns, board.kings, board.occupied_co[chess.WHITE]) == (placement[0], placement[5], placement[6])


@pytest.mark.parametrize("byte", [0, ord("x"), ord(".") | 0x20 | 0x80, ord("1"), 255])
def test_no_letter_of_chess(byte: int) -> None:
    """A board with any other byte is no board."""
    letters = np.full((2, 8, 8), ord("."), np.uint8)
    letters[1, 3, 3] = byte
    assert list(boards.placements(letters)) == [(0,) * 7, None]


def test_castling_in_chess960(tmp_path: Path) -> None:
    """King and rook that change places are told from anything else."""
    fen = "1k6/8/8/8/8/8/8/5KR1 w G - 0 1"
    text = f'[FEN "{fen}"]\n[SetUp "1"]\n[Variant "Chess960"]\n\n1. O-O Kb7 *\n\n'
    record = from_text(tmp_path, text)
    assert record.elements[1][0].tobytes() == b".....RK."
    assert to_text(tmp_path, record) == text


def test_two_captures_that_explode_alike(tmp_path: Path) -> None:
    """In Atomic, which of two pieces took is kept beside the boards, and nothing else of the moves is."""
    by_rook = from_text(tmp_path, BOTH_EXPLODE + "1. Rxd5 *\n")
    by_queen = from_text(tmp_path, BOTH_EXPLODE + "1. Qxd5 *\n")
    assert np.array_equal(by_rook.elements, by_queen.elements)
    assert by_rook.header.metadata["choices"] == [[1, 0]]  # d4d5 comes before e4d5
    assert by_queen.header.metadata["choices"] == [[1, 1]]
    assert moves_in(to_text(tmp_path, by_rook)) == ["d4d5"]
    assert moves_in(to_text(tmp_path, by_queen)) == ["e4d5"]


def test_en_passant_that_explodes(tmp_path: Path) -> None:
    """In Atomic, en passant leaves the square that it goes to as empty as it was, and is found all the same."""
    start = '[Variant "Atomic"]\n[FEN "4k3/8/8/8/3pP3/8/8/4K3 b - e3 0 40"]\n[SetUp "1"]\n\n'
    record = from_text(tmp_path, start + "40... dxe3 *\n")
    assert bytes(record.elements[1]).count(b".") == 62
    assert moves_in(to_text(tmp_path, record)) == ["d4e3"]


def test_start_from_a_position(tmp_path: Path) -> None:
    """A game from a FEN begins with its board and its side to move; move numbers go on from it."""
    text = '[FEN "4k3/8/8/8/3pP3/8/8/4K3 b - e3 0 40"]\n[SetUp "1"]\n\n40... dxe3 41. Ke2 *\n\n'
    record = from_text(tmp_path, text)
    assert bytes(record.elements[0][3]) == b"...pP..."
    assert bytes(record.elements[1][3]) == b"........"
    assert to_text(tmp_path, record) == text


@pytest.mark.parametrize("null", ["--", "Z0", "0000", "@@@@"])
def test_null_moves(tmp_path: Path, null: str) -> None:
    """A null move is a board like the one before; that the game has any stands in its header."""
    record = from_text(tmp_path, f"1. e4 {null} 2. d4 *\n")
    assert np.array_equal(record.elements[1], record.elements[2])
    assert record.header.metadata["null_moves"] is True
    assert moves_in(to_text(tmp_path, record)) == ["e2e4", "0000", "d2d4"]


def predicted(record: Record, ply: int, board: Any) -> Record:
    """The record with another board at one ply, as a network may guess it."""
    elements = record.elements.copy()
    elements[ply] = board
    return replace(record, elements=elements)


def test_guessed_boards_that_chess_does_not_allow(tmp_path: Path) -> None:
    """Export gives the longest legal beginning, says from which ply on it is illegal, and leaves the result open."""
    record = from_text(tmp_path, '[Event "x"]\n[Result "1-0"]\n\n1. e4 e5 2. Nf3 1-0\n')
    assert to_text(tmp_path, predicted(record, 3, record.elements[2])) == (
        '[Event "x"]\n[Result "*"]\n\n1. e4 e5 { illegal from ply 3: not what chess allows } *\n\n'
    )
    assert "\n1. e4 { illegal from ply 2" in to_text(tmp_path, predicted(record, 2, 0))
    assert "\n\n{ illegal from ply 0" in to_text(tmp_path, predicted(record, 0, record.elements[1]))


def test_notes_of_guessed_boards(tmp_path: Path) -> None:
    """A variation that cannot be played on these boards is left out; other notes stay, up to the first fault."""
    text = '[Event "x"]\n\n1. e4 {a} e5 (1... c5 {b}) 2. Nf3 {c} 2... Nc6 (2... d6 3. d4) 3. Bb5 {d} *\n'
    record = from_text(tmp_path, text)
    other = from_text(tmp_path, "1. e4 d6 2. Nf3 Nc6 3. Bb5 *\n")
    guessed = replace(other, header=record.header)
    assert "1. e4 {a} 1... d6 (1... c5 {b}) 2. Nf3 {c} 2... Nc6 3. Bb5 {d} *" in to_text(tmp_path, guessed)
    assert "Nc6 (2... d6 3. d4)\n{ illegal from ply 5" in to_text(tmp_path, predicted(record, 5, 0))


COMMENTS = st.text('a {([;%$!1.\n"é', max_size=12)


@st.composite
def annotated(draw: st.DrawFn) -> str:
    """A game with variations within variations, comments before and after moves, NAGs."""
    game = chess.pgn.Game()
    game.comment = draw(COMMENTS)
    nodes: list[chess.pgn.GameNode] = [game]
    for pick in draw(st.lists(st.integers(0, 1 << 16), max_size=30)):
        node = nodes[-1 - (pick >> 8) % len(nodes) % 4]  # of the last four any may get a variation
        legal = [move for move in node.board().legal_moves if not node.has_variation(move)]
        if not legal:
            continue
        child = node.add_variation(legal[pick % len(legal)])
        if pick % 3 == 0:
            child.comment, child.nags = draw(COMMENTS), draw(st.sets(st.integers(0, 255), max_size=2))
        if pick % 7 == 0 and not child.is_main_variation():
            child.starting_comment = draw(COMMENTS)
        nodes.append(child)
    return str(game)


def nodes_of(text: str) -> list[object]:
    """What python-chess understands of a game."""
    game = chess.pgn.read_game(io.StringIO(text))
    assert game is not None
    assert not game.errors
    told: list[object] = []
    nodes: list[chess.pgn.GameNode] = [game]
    while nodes:
        node = nodes.pop()
        before = node.starting_comment if isinstance(node, chess.pgn.ChildNode) else ""
        told.append((node.move, before, node.comment, node.nags, len(node.variations)))
        nodes.extend(reversed(node.variations))
    return told


@settings(max_examples=60, deadline=None)
@given(text=annotated())
def test_annotated_games_survive(folder: Path, text: str) -> None:
    """Whatever tree of variations, comments and NAGs goes in, python-chess reads the same tree from what comes out."""
    record = from_text(folder, text)
    assert nodes_of(to_text(folder, record)) == nodes_of(text)
    assert from_text(folder, to_text(folder, record)).header == record.header


def test_without_python_chess(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The reader can be imported, and sniffs; reading says what to install."""
    program = "import sys; sys.modules['chess'] = None; from pipelines.chess import pgn; print(pgn.MODALITY)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "chess\n"
    record = from_text(tmp_path, "1. e4 *\n")
    monkeypatch.setitem(sys.modules, "chess.pgn", None)
    with pytest.raises(InputError, match=r"pip install 'aunn\[chess\]'"):
        pgn.read(Source(tmp_path / "game.pgn", "game.pgn"))
    with pytest.raises(InputError, match=r"pip install 'aunn\[chess\]'"):
        pgn.write([record], tmp_path / "never.pgn")
    assert not (tmp_path / "never.pgn").exists()
