"""Where one game of a PGN file ends and the next begins, line by line; knows nothing of the rules of chess.

A game ends where the next one's tags begin, or after its result (``1-0``, ``0-1``, ``1/2-1/2``, ``*``), or at a blank
line after its moves. Two blank lines that python-chess takes for an end do not end one here: one within the tags, and
one before text that goes on (``23. Kd2 …`` or a result alone). Nothing inside a comment ends a game, but for
``[Event "`` after a blank line, so that a comment that nobody closed costs one game and not the rest of the file.
Blank lines and ``%`` and ``;`` lines between two games belong to the first of them.

What ends a game are ASCII characters, so bytes are cut as if they were Latin-1, and each game is decoded by itself.

Format: http://www.saremba.de/chessgml/standards/pgn/pgn-complete.htm (section 8; 6 for ``%``, 5 for comments)
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from aunn_data.errors import InputError

RESULTS = ("1-0", "0-1", "1/2-1/2", "*")
MOST_GAME_BYTES = 1 << 25  # room for a million moves; of what is longer nothing is kept in memory
PIECE_BYTES = 1 << 18

_BLANKS = " \t\r\n\v\f"
_NAME = r"[A-Za-z0-9][A-Za-z0-9_+#=:-]*"
_VALUE = r'(?:[^"\\]|\\.)*'
_PAIR = re.compile(rf'\[\s*({_NAME})\s+"({_VALUE})"\s*\]')
_LOOSE_PAIR = re.compile(rf'\[\s*({_NAME})\s+"(.*)"\s*\]')  # real files leave quotes in a value unescaped
_MOVE_NUMBER = re.compile(r"(\d+)\s*\.", re.ASCII)
_COMMENT = re.compile(r"\{[^}]*\}|[{;].*", re.DOTALL)
_LINE = re.compile(r"[^\r\n]*(?:\r\n|\r|\n)|[^\r\n]+")
_MARK = re.compile("^(?:\ufeff|ï»¿)+")  # a byte order mark, as it is and as Latin-1 has it
_NEXT_GAME = '[Event "'

Line = tuple[int, str]
"""(line number from 1, text)"""


@dataclass(frozen=True)
class Piece:
    """Some games of a file, one after another, as bytes: all that is needed to read them elsewhere.

    ``number`` is that of the first game, ``line`` where it begins, both from 1. ``endless``: in the place of the one
    game there was more than MOST_GAME_BYTES.
    """

    number: int
    line: int
    games: tuple[bytes, ...]
    endless: bool = False


class GameText:
    """The lines of one game, sorted into what they are.

    ``raw`` are the lines as they stand, ends included. ``tags`` are the lines of tags, ``body`` all others that are not
    blank: movetext and comments, ``%`` lines too; within comments blank ones as well.
    """

    def __init__(self) -> None:
        self.raw: list[str] = []
        self.tags: list[Line] = []
        self.body: list[Line] = []
        self._names: set[str] = set()
        self._in_comment = False
        self._after_blank = False
        self._past_tags = False
        self._has_moves = False
        self._ended = False
        self._depth = 0

    @staticmethod
    def of(text: str, number: int) -> "GameText":
        """The game that is the whole text, whose first line has this number."""
        game = GameText()
        for at, line in enumerate(_LINE.findall(text), number):
            game.take(at, line)
        return game

    @property
    def empty(self) -> bool:
        """True while there is neither a tag nor a move nor a result."""
        return not self.tags and not self._has_moves

    def is_followed_by(self, line: str) -> bool:
        """True if ``line`` is the first one of the next game."""
        if self._in_comment:
            return self._after_blank and line.lstrip(_BLANKS).startswith(_NEXT_GAME)
        if not (self._has_moves or self._past_tags or self._after_blank):
            return False
        text = _content(line)
        if not text or text[0] in "%;":
            return False
        if "[" in text and (tag := _LOOSE_PAIR.match(text.lstrip(_BLANKS))):
            return self._has_moves or self._past_tags or tag[1] in self._names
        if not self._ended and not (self._after_blank and self._has_moves):
            return False
        bare = _without_comments(text)[0].strip(_BLANKS)
        return bool(bare) and (self._ended or not _goes_on(bare))

    def take(self, number: int, line: str) -> None:
        """Add a line."""
        self.raw.append(line)
        if self._in_comment:
            self._after_blank = not line.strip(_BLANKS)
            self._take_moves(number, line.rstrip("\r\n"))
            return
        text = _content(line)
        self._after_blank = not text
        if not text:
            return
        if not self._has_moves and text.lstrip(_BLANKS)[0] == "[":
            self._take_tag(number, text.strip(_BLANKS))
        elif text[0] in "%;":
            self.body.append((number, text))
        else:
            self._take_moves(number, text)

    def _take_tag(self, number: int, text: str) -> None:
        self.tags.append((number, text))
        if tag := _LOOSE_PAIR.match(text):
            self._names.add(tag[1])

    def _take_moves(self, number: int, text: str) -> None:
        self.body.append((number, text))
        self._past_tags = bool(self.tags)
        if self._in_comment:
            _, closed, text = text.partition("}")
            self._in_comment = not closed
        bare, is_open = _without_comments(text)
        bare = bare.strip(_BLANKS)
        self._in_comment = self._in_comment or is_open
        if bare:
            self._has_moves = True
            self._depth += bare.count("(") - bare.count(")")
            self._ended = self._depth <= 0 and bare.endswith(RESULTS) and _last_word(bare) in RESULTS


def split(lines: Iterable[str]) -> Iterator[Piece]:
    """The games in the lines of a file, which are read as Latin-1; their bytes, one after another, are all of it.

    Nothing comes where there is neither a tag nor a move nor a result. Where reading the lines fails, the games that
    were whole come before the error.
    """
    cutter = _Cutter()
    try:
        for line in lines:
            yield from cutter.take(line)
    except InputError:
        yield from cutter.piece()
        raise
    yield from cutter.rest()


def tag_pairs(text: str) -> list[tuple[str, str]] | None:
    """(name, value) of each tag on a line, values as they stand between the quotes; None if it holds no tag."""
    pairs, at = list[tuple[str, str]](), 0
    while match := _PAIR.match(text, at):
        pairs.append((match[1], match[2]))
        at = match.end()
        while at < len(text) and text[at] in _BLANKS:
            at += 1
    if pairs and at == len(text):
        return pairs
    loose = _LOOSE_PAIR.fullmatch(text)
    return [(loose[1], loose[2])] if loose else None


class _Cutter:
    """Cuts lines into games and gathers these to pieces. ``number`` and ``line`` are those of the next game to gather.

    ``size`` counts the characters of the game that is going on; beyond MOST_GAME_BYTES its lines are passed over.
    """

    def __init__(self) -> None:
        self.number, self.line, self.at = 1, 1, 1
        self.games: list[bytes] = []
        self.gathered = 0
        self.game, self.size, self.start = GameText(), 0, 1
        self.passing_over = self.blank = False

    def take(self, line: str) -> Iterator[Piece]:
        """Add a line; the pieces that this completes."""
        if self.blank and line.startswith(_NEXT_GAME) if self.passing_over else self.game.is_followed_by(line):
            yield from self._end()
        self.blank = not line.strip(_BLANKS)
        self.size += len(line)
        if not self.passing_over and self.size > MOST_GAME_BYTES:
            self.passing_over, self.game = True, GameText()
        if not self.passing_over:
            self.game.take(self.at, line)
        self.at += line.endswith(("\n", "\r"))

    def rest(self) -> Iterator[Piece]:
        """The last pieces. A file without any game has none."""
        if self.passing_over or not self.game.empty:
            yield from self._end()
        yield from self.piece()

    def piece(self) -> Iterator[Piece]:
        """What was gathered."""
        if self.games:
            yield Piece(self.number, self.line, tuple(self.games))
        self.number += len(self.games)
        self.games, self.gathered, self.line = [], 0, self.start

    def _end(self) -> Iterator[Piece]:
        if self.passing_over:
            yield from self.piece()
            yield Piece(self.number, self.start, (), endless=True)
            self.number += 1
        else:
            self.games.append("".join(self.game.raw).encode("latin-1"))
            self.gathered += self.size
        self.game, self.size, self.start, self.passing_over = GameText(), 0, self.at, False
        if self.gathered >= PIECE_BYTES or not self.games:
            yield from self.piece()


def _content(line: str) -> str:
    """A line without its end and without a byte order mark; nothing of it if it is blank."""
    if line[0] in "\ufeffï":
        line = _MARK.sub("", line)
    return line.rstrip("\r\n") if line.strip(_BLANKS) else ""


def _without_comments(text: str) -> tuple[str, bool]:
    """The text outside comments, and whether a comment is still open at its end."""
    if "{" not in text and ";" not in text:
        return text, False
    is_open = False
    for match in _COMMENT.finditer(text):
        is_open = match[0][0] == "{" and match[0][-1] != "}"
    return _COMMENT.sub(" ", text), is_open


def _last_word(bare: str) -> str:
    return bare[max(bare.rfind(blank) for blank in _BLANKS) + 1 :]


def _goes_on(bare: str) -> bool:
    """True if movetext after a blank line goes on with the game before it."""
    number = _MOVE_NUMBER.match(bare)
    return bare in RESULTS or bool(number and number[1] != "1")
