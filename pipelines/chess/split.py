"""Where one game of a PGN file ends and the next begins, line by line; knows nothing of the rules of chess.

A game ends where the next one's tags begin, or after its result (``1-0``, ``0-1``, ``1/2-1/2``, ``*``), or at a blank
line after its moves. Two blank lines that python-chess takes for an end do not end one here: one within the tags, and
one before text that goes on (``23. Kd2 …`` or a result alone). Nothing inside a comment ends a game, but for
``[Event "`` after a blank line, so that a comment that nobody closed costs one game and not the rest of the file.
Blank lines and ``%`` and ``;`` lines between two games belong to the first of them.

Format: http://www.saremba.de/chessgml/standards/pgn/pgn-complete.htm (section 8; 6 for ``%``, 5 for comments)
"""

import re
from collections.abc import Iterable, Iterator

RESULTS = ("1-0", "0-1", "1/2-1/2", "*")

_NAME = r"[A-Za-z0-9][A-Za-z0-9_+#=:-]*"
_VALUE = r'(?:[^"\\]|\\.)*'
_PAIR = re.compile(rf'\[\s*({_NAME})\s+"({_VALUE})"\s*\]')
_PAIRS = re.compile(rf'(?:\[\s*{_NAME}\s+"{_VALUE}"\s*\]\s*)+')
_LOOSE_PAIR = re.compile(rf'\[\s*({_NAME})\s+"(.*)"\s*\]')  # real files leave quotes in a value unescaped
_MOVE_NUMBER = re.compile(r"(\d+)\s*\.")
_COMMENT = re.compile(r"[{;]")

Line = tuple[int, str]
"""(line number from 1, text)"""


class GameText:
    """The lines of one game, sorted into what they are.

    ``raw`` are the lines as they stand, ends included. ``tags`` and ``body`` are what a parser needs: lines of tags,
    and lines of movetext with comments. ``bare`` is the movetext without comments. ``comment`` is the line where a
    comment began that is not closed yet. ``line_comments`` counts comments from ``;`` to the end of a line.
    """

    def __init__(self) -> None:
        self.raw: list[str] = []
        self.tags: list[Line] = []
        self.body: list[Line] = []
        self.bare: list[Line] = []
        self.comment: int | None = None
        self.line_comments = 0
        self._names: set[str] = set()
        self._after_blank = False
        self._past_tags = False
        self._ended = False
        self._depth = 0

    @property
    def empty(self) -> bool:
        """True while there is neither a tag nor a move nor a result."""
        return not self.tags and not self.bare

    def is_followed_by(self, line: str) -> bool:
        """True if ``line`` is the first one of the next game."""
        text = _content(line)
        if self.comment is not None:
            return self._after_blank and text.startswith('[Event "')
        if not text:
            return False
        if tag := _LOOSE_PAIR.match(text):
            return bool(self.bare or self._past_tags or (self._after_blank and tag[1] in self._names))
        bare = _without_comments(text)[0]
        if not bare or self._ended:
            return bool(bare)
        return self._after_blank and bool(self.bare) and not _goes_on(bare)

    def take(self, number: int, line: str) -> None:
        """Add a line."""
        self.raw.append(line)
        self._after_blank = not line.strip()
        if self.comment is None:
            self.line_comments += line.startswith(";")
            text = _content(line)
            if text.startswith("[") and not self.bare:
                self._take_tags(number, text)
            elif text:
                self._take_moves(number, text)
        else:
            self._take_moves(number, line.rstrip("\r\n"))

    def _take_tags(self, number: int, text: str) -> None:
        self.tags.append((number, text))
        if tag := _LOOSE_PAIR.match(text):
            self._names.add(tag[1])

    def _take_moves(self, number: int, text: str) -> None:
        self.body.append((number, text))
        self._past_tags = bool(self.tags)
        was_open = self.comment is not None
        bare, is_open, line_comments = _without_comments(text, was_open)
        self.line_comments += line_comments
        if not is_open:
            self.comment = None
        elif not was_open or "}" in text:
            self.comment = number
        if bare:
            self.bare.append((number, bare))
            self._depth += bare.count("(") - bare.count(")")
            self._ended = self._depth <= 0 and bare.split()[-1] in RESULTS


def split(lines: Iterable[str]) -> Iterator[GameText]:
    """The games in the lines of a file. Their raw lines, one game after another, are all the lines.

    Nothing comes where there is neither a tag nor a move nor a result.
    """
    game = GameText()
    for number, line in enumerate(lines, 1):
        if game.is_followed_by(line):
            yield game
            game = GameText()
        game.take(number, line)
    if not game.empty:
        yield game


def tag_pairs(text: str) -> list[tuple[str, str]] | None:
    """(name, value) of each tag on a line, values as they stand between the quotes; None if it holds no tag."""
    if _PAIRS.fullmatch(text):
        return _PAIR.findall(text)
    match = _LOOSE_PAIR.fullmatch(text)
    return [(match[1], match[2])] if match else None


def _content(line: str) -> str:
    """A line without its ends; nothing of it if the whole line is escaped (%) or a comment (;)."""
    text = line.lstrip("\ufeff")
    return "" if text.startswith(("%", ";")) else text.strip()


def _without_comments(text: str, is_open: bool = False) -> tuple[str, bool, int]:
    """The text outside comments, whether a comment is still open at its end, and how many ``;`` comments it held."""
    bare = []
    while text:
        if is_open:
            _, closed, text = text.partition("}")
            is_open = not closed
        elif match := _COMMENT.search(text):
            bare.append(text[: match.start()])
            if match[0] == ";":
                return " ".join(bare).strip(), False, 1
            is_open, text = True, text[match.end() :]
        else:
            bare.append(text)
            break
    return " ".join(bare).strip(), is_open, 0


def _goes_on(bare: str) -> bool:
    """True if movetext after a blank line goes on with the game before it."""
    number = _MOVE_NUMBER.match(bare)
    return bare in RESULTS or bool(number and number[1] != "1")
