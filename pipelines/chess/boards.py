"""A game's moves <-> its boards, 64 letters each. Here, and in ``play``, python-chess is asked for the rules.

Legend: N = plies + 1 positions; R, F = ranks and files. A board's letters are ``PNBRQK`` (white), ``pnbrqk`` (black)
and ``.``; letter [rank, file] belongs to square ``8 * rank + file``, so rank 0 is White's first and file 0 is a.
"""

import io
import re
from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate

import chess
import chess.pgn
import numpy as np
import numpy.typing as npt

from pipelines.chess.split import GameText, Line, tag_pairs

Placement = tuple[int, ...]
"""Seven 64-bit sets of squares: pawns, knights, bishops, rooks, queens, kings of both colours; all white pieces."""

Tags = Sequence[Sequence[str]]

_LETTERS = np.frombuffer(b"PNBRQK", np.uint8)
_EMPTY, _LOWER = ord("."), 0x20

# What python-chess passes over in movetext and may: move numbers, check and mate, the P that a pawn need not have,
# en passant, and the signs of annotators from before NAGs.
_SAYS_NOTHING = re.compile(r"\d*\.*(?:P|e\.?p\.?|[-+#=/±∓⩱⩲∞□→↑⇆⨀!?.]*)")


@dataclass
class Game:
    """A game that chess allows, or the reason why it is none.

    ``fault`` is (line number, what stands there). ``result`` is the movetext's own, None if it has none. ``choices``
    are (ply, index among the fitting moves) where more than one move leads to the same board.
    """

    tags: list[tuple[str, str]] = field(default_factory=list)
    placements: list[Placement] = field(default_factory=list)
    moves: list[chess.Move] = field(default_factory=list)
    result: str | None = None
    dropped: dict[str, int] = field(default_factory=dict)
    fault: Line | None = None


def parse(text: GameText) -> Game:
    """The game that the text tells, parsed by python-chess, or the first fault in it.

    A game is at fault where python-chess finds an error (a move that is illegal or ambiguous, a bad FEN, an unknown
    variant; in variations as well), and where python-chess would pass over something without a word.
    """
    game = Game(dropped={"comments": text.line_comments, "variations": 0, "nags": 0})
    game.fault = _fault_of_tags(text, game.tags) or _fault_of_words(text.bare) or _fault_of_brackets(text)
    if game.fault is None:
        collector = _Collector(_Lines(text, game.tags), game)
        try:
            chess.pgn.read_game(collector.lines.handle, Visitor=lambda: collector)
        except ValueError as error:  # what python-chess does not hand to the collector: a NAG of 5,000 digits
            collector.handle_error(error)
    game.dropped = {what: count for what, count in game.dropped.items() if count}
    return game


def start_of(tags: Tags) -> chess.Board:
    """The board a game with these tags starts from: its variant, its FEN, its castling rules."""
    return _headers(tags).board()


def letters(placements_N: Sequence[Placement]) -> npt.NDArray[np.uint8]:
    """Placements -> (N, R, F) uint8 letters."""
    sets = np.array(placements_N, "<u8").reshape(-1, 7)
    bits = np.unpackbits(sets.view(np.uint8).reshape(-1, 7, 8), axis=2, bitorder="little")
    boards: npt.NDArray[np.uint8] = (bits[:, :6] * _LETTERS[:, None]).sum(1, dtype=np.uint8)
    boards[(boards > 0) & (bits[:, 6] == 0)] |= _LOWER
    boards[boards == 0] = _EMPTY
    return boards.reshape(-1, 8, 8)


def placements(boards: npt.NDArray[np.uint8]) -> list[Placement | None]:
    """Inverse of ``letters``; None for a board with a letter that is none of chess."""
    flat = boards.reshape(-1, 64)
    upper = flat & ~np.uint8(_LOWER)
    pieces = upper[:, None] == _LETTERS[:, None]
    white = (flat == upper) & pieces.any(1)
    sets = (
        np.packbits(np.concatenate([pieces, white[:, None]], 1), axis=2, bitorder="little").reshape(-1, 56).view("<u8")
    )
    valid = (pieces.any(1) | (flat == _EMPTY)).all(1)
    return [tuple(row) if good else None for row, good in zip(sets.tolist(), valid, strict=True)]


def placement_of(board: chess.Board) -> Placement:
    """Where the pieces of a board stand."""
    white = board.occupied_co[chess.WHITE]
    return board.pawns, board.knights, board.bishops, board.rooks, board.queens, board.kings, white


def fitting(board: chess.Board, after: Placement) -> list[chess.Move]:
    """The legal moves after which the pieces stand so, in the order of their UCI names.

    In chess and Chess960 there is never more than one: a move empties its square and fills another, a promotion
    shows its piece, en passant and castling change squares that no other move changes together. In Atomic two pieces
    that stand beside the one they both could take explode alike, and so does whatever a pawn promotes to by taking.
    """
    changed = 0
    for now, then in zip(placement_of(board), after, strict=True):
        changed |= now ^ then
    found = []
    for move in board.legal_moves:
        # Only where a move goes from surely changes: en passant in Atomic leaves its goal empty. A king may castle
        # without a step.
        if not chess.BB_SQUARES[move.from_square] & changed and not board.is_castling(move):
            continue
        board.push(move)
        if placement_of(board) == after:
            found.append(move)
        board.pop()
    return sorted(found, key=chess.Move.uci)


def choices_of(game: Game) -> list[tuple[int, int]]:
    """(ply, index of the played move among the fitting ones) wherever there are several."""
    board, choices = start_of(game.tags), []
    if type(board) is chess.Board:  # one fitting move at most, see ``fitting``
        return []
    for ply, (move, after) in enumerate(zip(game.moves, game.placements[1:], strict=True), 1):
        fits = fitting(board, after) if move else [move]
        if len(fits) > 1:
            choices.append((ply, fits.index(move)))
        board.push(move)
    return choices


def moves_between(
    board: chess.Board, placements_N: Sequence[Placement | None], choices: Mapping[int, int], null_moves: bool
) -> tuple[list[chess.Move], int | None]:
    """The moves from board to board, and the first ply whose board no legal move explains (None: all are explained).

    A board like the one before it is explained by a null move, but only if ``null_moves`` says that the game has any.
    """
    board, moves = board.copy(), list[chess.Move]()
    if placements_N[0] != placement_of(board):
        return moves, 0
    for ply, after in enumerate(placements_N[1:], 1):
        if after is None:
            return moves, ply
        same = null_moves and after == placement_of(board)
        fits = [chess.Move.null()] if same else fitting(board, after)
        if not fits:
            return moves, ply
        moves.append(fits[min(choices.get(ply, 0), len(fits) - 1)])
        board.push(moves[-1])
    return moves, None


def movetext(tags: Tags, moves: Iterable[chess.Move], comment: str, result: str) -> str:
    """The moves in standard algebraic notation, a comment after the last one, the result; lines of 80 at most."""
    game = chess.pgn.Game(headers=_headers(tags))
    game.headers["Result"] = result
    node: chess.pgn.GameNode = game
    for move in moves:
        node = node.add_main_variation(move)
    node.comment = comment
    return game.accept(chess.pgn.StringExporter(headers=False))


def _headers(tags: Tags) -> chess.pgn.Headers:
    return chess.pgn.Headers((name, value) for name, value in tags)


def _fault_of_tags(text: GameText, tags: list[tuple[str, str]]) -> Line | None:
    """The first line among the tags that is none; fills ``tags``."""
    for number, line in text.tags:
        pairs = tag_pairs(line)
        if pairs is None:
            return number, f"{line[:60]!r} among its tags"
        tags.extend(pairs)
    return None


def _fault_of_words(bare: list[Line]) -> Line | None:
    """The first word of movetext that python-chess would pass over though it may be meant as a move."""
    for number, line in bare:
        for word in chess.pgn.MOVETEXT_REGEX.sub(" ", line).split():
            if not _SAYS_NOTHING.fullmatch(word):
                return number, f"{word[:60]!r} among its moves"
    return None


def _fault_of_brackets(text: GameText) -> Line | None:
    """A comment or a variation that does not begin and end as it should; python-chess would swallow moves."""
    if text.comment is not None:
        return text.comment, "a comment that is never closed"
    depth, moves = 0, False
    for number, line in text.bare:
        for token in re.findall(r"[()]|[a-h][1-8]|[O0]-[O0]|--|Z0|0000|@@@@", line):
            moves |= token not in "()"
            depth += (token == "(") - (token == ")")
            if depth < 0 or (depth and not moves):
                return number, "a variation that is closed but not open" if depth < 0 else "a variation before any move"
    return (text.bare[-1][0], "a variation that is never closed") if depth else None


class _Lines:
    """A game's lines for python-chess, tags first and one a line, and which line of the file was read last."""

    def __init__(self, text: GameText, tags: Tags):
        lines = [f'[{name} "{value}"]\n' for name, value in tags] + [line + "\n" for _, line in text.body]
        start = next((number for number, line in text.tags if "FEN" in line or "Variant" in line), 1)
        self._numbers = [start] * len(tags) + [number for number, _ in text.body]
        self._stops = list(accumulate(map(len, lines)))
        self.handle = io.StringIO("".join(lines))

    def number(self, at_start: bool) -> int:
        """The line read last, or the one that sets up the start position."""
        return self._numbers[0 if at_start else bisect_left(self._stops, self.handle.tell())]


class _Collector(chess.pgn.BaseVisitor[None]):
    """Gathers a game while python-chess parses it, and the faults that it would only have logged."""

    def __init__(self, lines: _Lines, game: Game) -> None:
        self.lines = lines
        self.game = game
        self.depth = 0

    def begin_headers(self) -> chess.pgn.Headers:
        self.headers = chess.pgn.Headers({})
        return self.headers

    def visit_header(self, tagname: str, tagvalue: str) -> None:
        self.headers[tagname] = tagvalue

    def visit_board(self, board: chess.Board) -> None:
        if not self.depth:
            self.game.placements.append(placement_of(board))

    def visit_move(self, board: chess.Board, move: chess.Move) -> None:
        if not self.depth:
            self.game.moves.append(move)
            if self.game.result:
                self.handle_error(ValueError(f"the move {move.uci()} after the result"))

    def begin_variation(self) -> None:
        self.depth += 1
        self.game.dropped["variations"] += 1

    def end_variation(self) -> None:
        self.depth -= 1

    def visit_comment(self, comment: str) -> None:
        self.game.dropped["comments"] += 1

    def visit_nag(self, nag: int) -> None:
        self.game.dropped["nags"] += 1

    def visit_result(self, result: str) -> None:
        self.game.result = self.game.result or result

    def handle_error(self, error: Exception) -> None:
        at_start = not self.game.placements
        self.game.fault = self.game.fault or (self.lines.number(at_start), str(error))

    def result(self) -> None:
        return None
