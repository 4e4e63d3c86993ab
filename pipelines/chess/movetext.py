"""Movetext <-> a game's boards and what boards cannot say; the rules are python-chess's.

Notes are what stands between two moves of the main line, verbatim: comments (clocks and evaluations are comments),
NAGs, ``??`` and other signs, variations. Move numbers, checks and how a move is spelled are no notes.
"""

import re
from array import array
from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import accumulate

import chess
import chess.pgn
import chess.variant

from pipelines.chess.boards import Placement, fitting, placement_of, play, play_to
from pipelines.chess.split import GameText, Line, tag_pairs

Tags = Sequence[Sequence[str]]

COLUMNS = 80
MOST_PENDING = 1 << 17  # moves and variations that wait for a variation to be closed
_KEPT_MOVES = 1 << 12  # of the main line, to be taken back for a variation

_TOKEN = re.compile(
    r"""
    (?P<move>[NBKRQ]?[a-h]?[1-8]?[-x]?[a-h][1-8](?:=?[nbrqkNBRQK])?
        |[PNBRQK]?@[a-h][1-8]|O-O(?:-O)?|0-0(?:-0)?|--|Z0|(?<![0-9])0000(?![0-9.])|@@@@)
    |(?P<comment>\{[^{}]*\}|\{[^}]*\}(?:[^{}]*\})*)  # one in another where that leaves no brace alone
    |(?P<unclosed>\{.*)
    |(?P<line>;[^\n]*|^%[^\n]*)
    |(?P<nag>\$[0-9]+|[?!]{1,2})
    |(?P<open>\()
    |(?P<close>\))
    |(?P<result>\*|1-0|0-1|1/2-1/2)
    """,
    re.DOTALL | re.MULTILINE | re.VERBOSE,
)
_GAP_CHARACTERS = 64  # gaps no longer than this are remembered
_WORD = re.compile(r"\S+")
# What python-chess passes over in movetext and may. Move numbers, check and mate, the P that a pawn need not have and
# en passant say nothing; the signs of annotators from before NAGs, novelties and loosely written results do.
_SAYS_NOTHING = re.compile(r"\d*\.*(?:P|e\.?p\.?|[+#]{1,2})?")
_SIGN = re.compile(r"\d*\.*(?:[-+#=/±∓⩱⩲∞□→↑⇆⨀!?.]*|N|TN|(?:1/2|[01½])[-–:](?:1/2|[01½])|1/2|½)")


@dataclass
class Game:
    """A game that chess allows, or the reason why it is none.

    ``fault`` is (line number, what stands there). ``placements`` are one Placement a ply, end to end. ``result`` is the
    movetext's own, None if it has none. ``notes`` are (ply after which it stands, text), ``after_result`` is what comes
    behind the result. ``choices`` are (ply, index among the fitting moves) where several lead to the same board.
    """

    tags: list[tuple[str, str]] = field(default_factory=list)
    placements: "array[int]" = field(default_factory=lambda: array("Q"))
    result: str | None = None
    notes: list[tuple[int, str]] = field(default_factory=list)
    after_result: str = ""
    null_moves: bool = False
    choices: list[tuple[int, int]] = field(default_factory=list)
    fault: Line | None = None


def parse(text: GameText) -> Game:
    """The game that the text tells, or the first fault in it.

    A game is at fault where python-chess finds an error (a move that is illegal or ambiguous, a bad FEN, an unknown
    variant; in variations as well), and where python-chess would pass over something without a word.
    """
    game = Game()
    game.fault = _fault_of_tags(text, game.tags)
    if game.fault is None:
        try:
            board = start_of(game.tags)
        except ValueError as error:
            game.fault = next((n for n, line in text.tags if "FEN" in line or "Variant" in line), 1), str(error)
    if game.fault is None:
        try:
            _Reader(board, game).read("\n".join(line for _, line in text.body))
        except _FaultError as fault:
            starts = [0, *accumulate(len(line) + 1 for _, line in text.body)]
            game.fault = text.body[bisect_right(starts, fault.at) - 1][0], fault.found
    return game


def start_of(tags: Tags) -> chess.Board:
    """The board a game with these tags starts from: its variant, its FEN, its castling rules."""
    return chess.pgn.Headers((name, value) for name, value in tags).board()


def told(
    board: chess.Board,
    placements_N: Iterable[Placement | None],
    result: str,
    notes: Mapping[int, str],
    choices: Mapping[int, int],
    null_moves: bool,
    after_result: str,
) -> tuple[str, bool]:
    """The moves from board to board in lines of 80 where notes allow, and whether chess allows them all.

    A board like the one before it is explained by a null move, but only if ``null_moves`` says that the game has any.
    A variation that chess does not allow on these boards is left out; so is all after the first board that it forbids,
    with a comment that says so and the result ``*``.
    """
    lines = _Lines()
    for ply, after in enumerate(placements_N):
        if ply == 0:
            legal = after == placement_of(board)
        else:
            legal = after is not None and _tell(lines, board, after, choices.get(ply, 0), null_moves)
        if not legal:
            lines.add(f"{{ illegal from ply {ply}: not what chess allows }} ")
            result = "*"
            break
        if (note := notes.get(ply)) and _is_allowed(note, board):
            lines.add_note(note)
        if len(board.move_stack) > _KEPT_MOVES:
            board = board.copy(stack=1)
    lines.add(result + " ")
    if legal and after_result and _is_allowed(after_result, board):
        lines.add_note(after_result)
    return lines.text(), legal


class _FaultError(Exception):
    """Where in the movetext, and what stands there."""

    def __init__(self, at: int, found: str):
        super().__init__(found)
        self.at, self.found = at, found


class _Reader:
    """Plays movetext on a board and gathers what it says.

    ``pending`` are the variations that are open: how many moves the board had made where it began, the move of the line
    around it that was taken back for it, where it stands. ``first`` and ``last`` bound the note that goes on.
    """

    def __init__(self, board: chess.Board, game: Game):
        self.board, self.game = board, game
        self.pending: list[tuple[int, chess.Move, int]] = []
        self.first = self.last = -1
        self.ply = 0
        self.several_fit = isinstance(board, chess.variant.AtomicBoard)
        game.placements.extend(placement_of(board))

    def read(self, text: str) -> None:
        """The whole movetext. Raises _FaultError."""
        end = 0
        for match in _TOKEN.finditer(text):
            start = match.start()
            if start != end and (gap := text[end:start]) != " ":
                self._pass_over(gap, end)
            end = match.end()
            if match.lastgroup == "move":
                self._move(match[0], start, text)
            else:
                self._other(match, text)
        self._pass_over(text[end:], end)
        if self.pending:
            raise _FaultError(self.pending[-1][2], "a variation that is never closed")
        self._end_note(text)

    def _pass_over(self, gap: str, at: int) -> None:
        """What stands between tokens."""
        judge = _judged if len(gap) <= _GAP_CHARACTERS else _judged.__wrapped__
        start, stop, fault = judge(gap)
        if fault:
            raise _FaultError(at + start, f"{fault[:60]!r} among its moves")
        if stop and not self.pending:
            self._keep(at + start, at + stop)

    def _keep(self, start: int, stop: int) -> None:
        if self.first < 0:
            self.first = start
        self.last = stop

    def _move(self, san: str, start: int, text: str) -> None:
        board = self.board
        try:
            move = play(board, san)
        except ValueError as error:
            raise _FaultError(start, str(error)) from None
        if self.pending:
            if len(board.move_stack) > MOST_PENDING:
                raise _FaultError(start, f"a variation of more than {MOST_PENDING} moves")
            return
        if self.first >= 0:
            self._end_note(text)
        if self.game.result:
            raise _FaultError(start, f"the move {move.uci()} after the result")
        self.ply += 1
        after = placement_of(board)
        self.game.placements.extend(after)
        if not move:
            self.game.null_moves = True
        elif self.several_fit:
            self._choose(move, after)
        if len(board.move_stack) > _KEPT_MOVES:
            self.board = board.copy(stack=1)

    def _choose(self, move: chess.Move, after: Placement) -> None:
        self.board.pop()
        fits = fitting(self.board, after)
        self.board.push(move)
        if len(fits) > 1:
            self.game.choices.append((self.ply, fits.index(move)))

    def _other(self, match: "re.Match[str]", text: str) -> None:
        """A token that is no move."""
        kind, start, stop = match.lastgroup, match.start(), match.end()
        if kind == "result" and not self._is_further(match[0], start, text):
            return
        if kind == "open":
            self._open(start)
        elif kind == "close":
            self._close(start)
        elif kind == "unclosed":
            raise _FaultError(start, "a comment that is never closed")
        elif kind == "nag":
            self._check_nag(match[0], start)
        elif kind == "line":
            stop += 1  # the line's end belongs to it
        if not self.pending:
            self._keep(start, stop)

    def _is_further(self, result: str, start: int, text: str) -> bool:
        """Takes the game's result; says whether it is one more, and another."""
        if self.pending:
            raise _FaultError(start, f"the result {result} in a variation that is not closed")
        if self.game.result is None:
            self._end_note(text)
            self.game.result = result
        return self.game.result != result

    def _check_nag(self, nag: str, start: int) -> None:
        try:
            int(nag.lstrip("$?!") or 0)
        except ValueError as error:  # of 5,000 digits
            raise _FaultError(start, str(error)) from None

    def _open(self, start: int) -> None:
        board = self.board
        if not board.move_stack or (self.pending and len(board.move_stack) == self.pending[-1][0]):
            raise _FaultError(start, "a variation before any move")
        if not self.pending:
            self._keep(start, start + 1)
        if len(self.pending) == MOST_PENDING:
            raise _FaultError(start, f"more than {MOST_PENDING} variations within one another")
        move = board.pop()
        self.pending.append((len(board.move_stack), move, start))

    def _close(self, start: int) -> None:
        if not self.pending:
            raise _FaultError(start, "a variation that is closed but not open")
        board = self.board
        count, move, _ = self.pending.pop()
        while len(board.move_stack) > count:
            board.pop()
        board.push(move)

    def _end_note(self, text: str) -> None:
        if self.first < 0:
            return
        note = text[self.first : self.last]
        if self.last > len(text):  # a comment to the end of a line that is the last one
            note += "\n"
        if self.game.result is not None:
            self.game.after_result = note
        else:
            self.game.notes.append((self.ply, note))
        self.first = -1


class _Lines:
    """Text in lines of COLUMNS at most, as python-chess breaks them; notes are not broken."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.line = ""
        self.numbered = False

    def add(self, word: str) -> None:
        """A word with the blank after it."""
        if COLUMNS - len(self.line) < len(word):
            self.flush()
        self.line += word

    def add_note(self, note: str) -> None:
        """A note: on lines of its own where it has several, or one that nothing may follow or stand before."""
        self.numbered = False
        if "\n" in note or note.startswith("%"):
            self.flush()
            *lines, self.line = (note if note.endswith("\n") else note + " ").split("\n")
            self.lines.extend(lines)
        else:
            self.add(note + " ")

    def add_move(self, san: str, turn: chess.Color, number: int) -> None:
        """A move, with its number where it is White's or follows on no move."""
        if (turn == chess.WHITE or not self.numbered) and "0000" not in str(number):  # which many take for a null move
            self.add(f"{number}. " if turn == chess.WHITE else f"{number}... ")
        self.add(san + " ")
        self.numbered = True

    def flush(self) -> None:
        """Ends the line."""
        if self.line:
            self.lines.append(self.line.rstrip(" "))
        self.line = ""

    def text(self) -> str:
        """All lines, without the end of the last one."""
        self.flush()
        return "\n".join(self.lines)


def _tell(lines: _Lines, board: chess.Board, after: Placement, choice: int, null_moves: bool) -> bool:
    """Adds the move after which the pieces stand so, and plays it. False if chess has none."""
    turn, number = board.turn, board.fullmove_number
    if null_moves and after == placement_of(board):
        san: str | None = board.san_and_push(chess.Move.null())
    else:
        san = play_to(board, after, choice)
    if san is None:
        return False
    lines.add_move(san, turn, number)
    return True


def _is_allowed(note: str, board: chess.Board) -> bool:
    """Whether all variations in a note can be played from the board."""
    if "(" not in note:
        return True
    try:
        _Reader(board.copy(stack=1), Game()).read(note)
    except _FaultError:
        return False
    return True


def _fault_of_tags(text: GameText, tags: list[tuple[str, str]]) -> Line | None:
    """The first line among the tags that is none; fills ``tags``."""
    for number, line in text.tags:
        pairs = tag_pairs(line)
        if pairs is None:
            return number, f"{line[:60]!r} among its tags"
        tags.extend(pairs)
    return None


@lru_cache(maxsize=1 << 12)
def _judged(gap: str) -> tuple[int, int, str]:
    """Where what is to be kept begins and ends (0, 0 if there is nothing), and the first word that may not stand."""
    found = [word for word in _WORD.finditer(gap) if not _SAYS_NOTHING.fullmatch(word[0])]
    for word in found:
        if not _SIGN.fullmatch(word[0]):
            return word.start(), 0, word[0]
    return (found[0].start(), found[-1].end(), "") if found else (0, 0, "")
