"""Chess games as boards and as text: what goes in comes out, and what chess does not allow does not go in."""

import gzip
import io
import logging
import pickle
import tracemalloc
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import chess
import chess.pgn
import pytest

from aunn_data.errors import InputError
from aunn_data.geometry import fitted
from aunn_data.header import canonical
from aunn_data.record import Record
from pipelines.chess import pgn, split
from pipelines.chess.split import PIECE_BYTES
from pipelines.options import Options
from pipelines.source import Source
from tests.format_contract import Example, FormatContract

SCHOLARS_MATE = """[Event "Café, Malmö"]
[White "Å"]
[Result "1-0"]

1. e4 e5 2. Bc4 {to f7} Nc6 3. Qh5 $6 Nf6?? (3... g6 4. Qf3) 4. Qxf7# 1-0
"""
OTHERS = '[Event "before"]\n\n1. d4 d5 1/2-1/2\n\n{}\n\n[Event "after"]\n\n1. c4 *\n'


EXAMPLES = [  # half a file of games is still games, so none is ``checked``
    Example("games.pgn", pgn, lambda path: path.write_text(SCHOLARS_MATE * 2, "utf-8"), records=2, checked=False),
    Example("chess/time-annotated-games.pgn", pgn, records=4, checked=False),
    Example("chess/python-chess/cutechess-fischerrandom.pgn", pgn, records=4, checked=False),
]


@pytest.mark.parametrize("example", EXAMPLES, ids=str)
class TestPgn(FormatContract):
    """What every format must do."""


def results(path: Path, payload: pgn.Payload = "boards") -> list[Record | InputError]:
    return list(pgn.read(Source(path, path.name, Options(chess=payload))))


def records(path: Path, payload: pgn.Payload = "boards") -> list[Record]:
    read = results(path, payload)
    assert all(isinstance(item, Record) for item in read), read
    return [item for item in read if isinstance(item, Record)]


def saved(folder: Path, text: str, encoding: str = "utf-8") -> Path:
    path = folder / "games.pgn"
    path.write_bytes(text.encode(encoding))
    return path


def by_python_chess(path: Path) -> Iterator[chess.pgn.Game]:
    """The oracle: python-chess's own reading of a file."""
    data = path.read_bytes()
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = data.decode("latin-1")
    handle = io.StringIO(text, newline=None)
    while (game := chess.pgn.read_game(handle)) is not None:
        yield game


def told(game: chess.pgn.Game) -> list[object]:
    """All that a game says: tags, start, and of every node move, comments and NAGs, variations included."""
    told: list[object] = [game.board().fen(), list(game.headers.items())]
    nodes: list[chess.pgn.GameNode] = [game]
    while nodes:
        node = nodes.pop()
        before = node.starting_comment if isinstance(node, chess.pgn.ChildNode) else ""
        told.append((node.move, before, node.comment, node.nags, len(node.variations)))
        nodes.extend(reversed(node.variations))
    return told


def exported(path: Path, games: list[Record]) -> list[chess.pgn.Game]:
    return list(by_python_chess(pgn.write(games, path)))


def head_of(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(4096)


def frame(record: Record, ply: int) -> list[str]:
    """A board as chess players print it, rank 8 on top."""
    return [bytes(rank).decode() for rank in record.elements[ply][::-1]]


def test_boards_of_scholars_mate(tmp_path: Path) -> None:
    """Every ply is the board a chess player would draw, and the header tells tags, result and notes."""
    (record,) = records(saved(tmp_path, SCHOLARS_MATE))
    assert record.elements.shape == (8, 8, 8)
    assert frame(record, 0) == ["rnbqkbnr", "pppppppp", *["........"] * 4, "PPPPPPPP", "RNBQKBNR"]
    assert frame(record, 1)[4:7] == ["....P...", "........", "PPPP.PPP"]
    assert frame(record, 7) == [
        "r.bqkb.r",
        "pppp.Qpp",
        "..n..n..",
        "....p...",
        "..B.P...",
        "........",
        "PPPP.PPP",
        "RNB.K.NR",
    ]
    assert chr(record.elements[7][6][5]) == "Q", "rank 7, file f"
    assert record.header.record == "games.pgn#1"
    assert record.header.source == "games.pgn"
    assert record.header.geometry.extent == 8 * 64
    assert fitted(record.header.geometry, record.elements) == record.header.geometry
    assert record.header.metadata == {
        "tags": [["Event", "Café, Malmö"], ["White", "Å"], ["Result", "1-0"]],
        "result": "1-0",
        "encoding": "utf-8",
        "notes": [[3, "{to f7}"], [5, "$6"], [6, "?? (3... g6 4. Qf3)"]],
    }


def test_header_holds_no_moves(tmp_path: Path) -> None:
    """Two games that differ in their moves alone have the same header, so no held-out board leaks through it."""
    first = saved(tmp_path, '[Event "x"]\n\n1. e4! {[%clk 0:01:00]} e5 2. Nf3+ *\n')
    header = canonical(records(first)[0].header.line().decode())
    second = saved(tmp_path, '[Event "x"]\n\n1.Pd4! {[%clk 0:01:00]} 1... d7d5 2. c4 *\n')
    assert canonical(records(second)[0].header.line().decode()) == header


def test_text_payload_is_the_file(tmp_path: Path) -> None:
    """The texts of all games, one after another, are the file's bytes: byte order mark, CRLF, blank lines, comments."""
    text = "\n% escaped\n" + SCHOLARS_MATE + "\n\n; between\n" + SCHOLARS_MATE.replace("\n", "\r\n") + "\r\n\n\n"
    for encoding in ("utf-8", "utf-8-sig", "latin-1"):
        path = saved(tmp_path, text, encoding)
        games = records(path, "pgn")
        assert [game.header.record for game in games] == ["games.pgn#1", "games.pgn#2"]
        assert games[1].elements.tobytes().startswith(b"[Event")
        assert games[0].header.geometry.layout == "packed"
        assert [game.header.metadata["encoding"] for game in games] == [encoding, encoding.removesuffix("-sig")]
        assert b"".join(game.elements.tobytes() for game in games) == path.read_bytes()
        assert pgn.write(games, tmp_path / "out.pgn").read_bytes() == path.read_bytes()


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "latin-1"])
def test_export_keeps_the_encoding(tmp_path: Path, encoding: str) -> None:
    """Boards are exported in the encoding they came in, with one byte order mark if there was one."""
    path = saved(tmp_path, SCHOLARS_MATE + "\n" + SCHOLARS_MATE, encoding)
    out = pgn.write(records(path), tmp_path / "out.pgn").read_bytes()
    assert out.count("Malmö".encode(encoding.removesuffix("-sig"))) == 2
    assert out.startswith(b"\xef\xbb\xbf") == (encoding == "utf-8-sig")
    assert [told(game) for game in by_python_chess(tmp_path / "out.pgn")] == [told(g) for g in by_python_chess(path)]


def test_real_files_come_out_as_they_went_in(shared_data: Path, tmp_path: Path) -> None:
    """Of every real file no game is refused, and the first ones say all that they said after export, notes included."""
    not_as_python_chess = {"uzchesscup.pgn", "badpgn.pgn"}
    paths = [path for path in sorted((shared_data / "chess").rglob("*.pgn")) if path.name not in not_as_python_chess]
    assert len(paths) > 25
    for path in paths:
        games = [game for game in islice(pgn.read(Source(path, path.name)), 12) if isinstance(game, Record)]
        expected = [told(game) for game in islice(by_python_chess(path), 12)]
        assert [told(game) for game in exported(tmp_path / "out.pgn", games)] == expected, path


def test_real_texts_are_their_files(shared_data: Path) -> None:
    """The texts of all games of a real file are the file, in UTF-8, with a byte order mark and in Latin-1."""
    for name in ("python-chess/utf8-bom.pgn", "pychess/atomic.pgn", "chess-informant-sample.pgn", "uzchesscup.pgn"):
        path = shared_data / "chess" / name
        assert b"".join(game.elements.tobytes() for game in records(path, "pgn")) == path.read_bytes()


def test_tags_without_moves_are_games_of_their_own(shared_data: Path) -> None:
    """45 sets of tags with a blank line between are 45 games without moves (python-chess makes one of them)."""
    games = records(shared_data / "chess" / "uzchesscup.pgn")
    assert len(games) == 45
    assert {game.elements.shape[0] for game in games} == {1}


@pytest.mark.parametrize(
    ("broken", "line", "fault"),
    [
        ('[Event "bad"]\n\n1. e4 e5\n2. Ke3 *', 8, "illegal san: 'Ke3'"),
        ('[Event "bad"]\n\n1. Nf3 e5 2. Nd4 e4\n3. Nc3 d6 4. Nb5 a6 5. Na3 *', 8, "ambiguous san: 'Nb5'"),
        ('[Event "bad"]\n[FEN "nonsense"]\n\n1. e4 *', 6, "nonsense"),
        ('[Variant "Monopoly"]\n\n1. e4 *', 5, "Monopoly"),
        ('[Event "bad"]\n[White Fool]\n\n1. e4 *', 6, "'[White Fool]' among its tags"),
        ('[Event "bad"]\n\n1. e4 e5\n2. Nf *', 8, "'Nf' among its moves"),
        ('[Event "bad"]\n\n1. e4 {one two} three} *', 7, "'three}' among its moves"),
        ('[Event "bad"]\n\n1. e4 e5\n((2. d4) 1... d5) *', 8, "a variation before any move"),
        ('[Event "bad"]\n\n1. e4) e5 *', 7, "a variation that is closed but not open"),
        ('[Event "bad"]\n\n1. e4 e5\n(1... c5 1-0) *', 8, "the result 1-0 in a variation that is not closed"),
        ('[Event "bad"]\n\n1. e4 1-0 e5', 7, "the move e7e5 after the result"),
        ('[Event "bad"]\n\n1. e4\n(1. d4\nd5', 8, "a variation that is never closed"),
        ('[Event "bad"]\n\n(1. d4) 1. e4 *', 7, "a variation before any move"),
        ('[Event "bad"]\n\n1. e4 (1. d4 Kd5) e5 *', 7, "illegal san: 'Kd5'"),
        ('[Event "bad"]\n\n1. e4 $' + 5000 * "9" + " *", 7, "4300 digits"),
        ('[Event "bad"]\n\n1. e4\n{ never closed e5 *', 8, "a comment that is never closed"),
    ],
)
def test_broken_game_between_good_ones(tmp_path: Path, broken: str, line: int, fault: str) -> None:
    """A game that chess does not allow is refused with its line; its neighbours keep their numbers and go in."""
    path = saved(tmp_path, OTHERS.replace("{}", broken))
    for payload in ("boards", "pgn"):
        before, error, after = pgn.read(Source(path, "games.pgn", Options(chess=payload)))
        assert isinstance(before, Record)
        assert isinstance(after, Record)
        assert (before.header.record, after.header.record) == ("games.pgn#1", "games.pgn#3")
        assert isinstance(error, InputError)
        assert fault in error.found
        assert error.found.endswith("(game 2)")
        assert error.where == f"{path}:{line}"


def test_nothing_is_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """What python-chess finds wrong arrives in the error alone, not in a log."""
    with caplog.at_level(logging.DEBUG):
        assert isinstance(results(saved(tmp_path, '[Event "x"]\n\n1. e5 *\n'))[0], InputError)
    assert not caplog.records


@pytest.mark.parametrize("text", ["", "\n\n", "; a comment\n\n% an escape\n", "{ a comment }\n"])
def test_file_without_a_game_is_refused(tmp_path: Path, text: str) -> None:
    """Where there is neither a tag nor a move nor a result, one error says so."""
    with pytest.raises(InputError, match="expected a game"):
        results(saved(tmp_path, text))


@pytest.mark.parametrize(
    ("text", "plies"),
    [
        ('[Event "a"]\n\n1. e4 e5\n\n2. Nf3\n\n1-0\n', [3]),  # blank lines within the moves and before the result
        ('[Event "a"]\n1. e4 1-0\n[Event "b"]\n1. d4 d5 *', [1, 2]),  # no blank lines at all
        ("1. e4 e5 1-0\n1. d4 *\n\n1. c4\n\n1. f4 f5\n", [2, 1, 1, 2]),  # no tags
        ('[Event "a"]\n\n\n[Event "b"]\n\n{only words}\n\n[Event "c"]\n\n*\n', [0, 0, 0]),
        ('{preface}\n\n[Event "a"]\n\n[Site "s"]\n\n{words}\n\n1. e4 {\n\n[Site "t"]\n\n} e5 *\n', [2]),
        ('[Event "a"] [Site "b"]\n1.e4 e5 2.Pd4 ; (rest) {of line\n% {escape\n2...exd4 3. e5 d5 4. exd6e.p. +- *', [7]),
        ('[Event "a"]\r\r1. e4 e5\r2. Nf3 *\r\r[Event "b"]\r\r*\r', [3, 0]),  # line ends of old Macintoshes
    ],
)
def test_where_games_end(tmp_path: Path, text: str, plies: list[int]) -> None:
    """Games are told apart by tags, results and blank lines, and not by what stands in comments."""
    path = saved(tmp_path, text)
    assert [game.elements.shape[0] - 1 for game in records(path)] == plies
    assert b"".join(game.elements.tobytes() for game in records(path, "pgn")) == path.read_bytes()


def test_tags_come_out_as_they_stood(tmp_path: Path) -> None:
    """Tags keep order, repeats, quotes and backslashes; a missing result tag stays missing."""
    tags = '[Zeal "1"]\n[Event "a \\"b\\" \\\\"]\n[Zeal "2"]\n[Site "the "x""]\n'
    path = saved(tmp_path, tags + "\n1. e4 0-1\n")
    assert pgn.write(records(path), tmp_path / "out.pgn").read_text() == tags + "\n1. e4 0-1\n\n"


@pytest.mark.parametrize(
    ("head", "name", "mine"),
    [
        ('[Event "x"]\n', "a.txt", True),
        ('\ufeff\r\n% escaped\r\n; comment\r\n[Site "Ås"]\r\n[White "Å\x85"]\r\n\r\n1.e4 e5', "a.pgn.bak", True),
        ('[Variant "Atomic"]\n\n1... Nf6', "a", True),
        ('[Event "x"]\n\n{comment}', "a", True),
        ('[Event "x"]\n\nO-O', "a", True),
        ('[Event "x"]\n\nrubbish', "a.pgn", True),  # it calls itself PGN, so it is refused as PGN, line and all
        ('[Strange "x"]\n\n1. e4', "a.pgn", True),
        ("1. e4 e5", "a.PGN", True),
        ("e4 { words } *", "a.pgn", True),
        ("*", "a.pgn", True),
        ("1. e4 e5", "a.txt", False),
        ('[kj90trkm"sdfsdf"yl]\ng(erg)\nr23 *', "a.pgn", False),
        ("Dear reader, chess is a game.", "a.pgn", False),
        ("", "a.pgn", False),
        ('[Event "x"]\n\nThe concert begins at eight.', "a.txt", False),
        ('[remote "origin"]\n\turl = x', "config", False),
        ("[1] A footnote\n[2] Another", "a.txt", False),
        ("[link](address) and text", "a.md", False),
        ('["Event", "x"]', "a.json", False),
        ('[{"Event": "x"}]', "a.json", False),
        ("[package]\nname = 'x'", "a.toml", False),
        ("eco\tname\tpgn\nA00\tAmar Opening\t1. Nh3", "a.tsv", False),
        ("\x89PNG\r\n\x1a\n[Event", "a.png", False),
    ],
)
def test_sniff(head: str, name: str, mine: bool) -> None:
    """PGN is known by its tags, with movetext behind them, or by its suffix and movetext; nothing else is taken."""
    assert pgn.sniff(head.encode(), Path(name)) is mine


def test_sniff_of_real_files(shared_data: Path) -> None:
    """Of all test files of every format, exactly the PGN files are taken, but for one that has no PGN in it."""
    paths = [path for path in sorted(shared_data.rglob("*")) if path.is_file()]
    taken = {path for path in paths if pgn.sniff(head_of(path), path)}
    assert {path for path in paths if path.suffix == ".pgn"} - taken == {shared_data / "chess/pychess/badpgn.pgn"}
    assert {path.suffix for path in taken} == {".pgn"}


@pytest.mark.parametrize(
    ("movetext", "notes", "after"),
    [
        ("{a} 1. e4 {b}\n{c} $1 e5 *", [[0, "{a}"], [1, "{b}\n{c} $1"]], ""),
        ("1. e4 ; to the end {\n% escaped (\n1... e5 *", [[1, "; to the end {\n% escaped (\n"]], ""),
        (
            "1. e4 +- e5 N 2. d4 = (2. Nf3!?) 1/2-1/2 {why} ; so",
            [[1, "+-"], [2, "N"], [3, "= (2. Nf3!?)"]],
            "{why} ; so\n",
        ),
        ("1. e4 {of { two } levels} e5 *", [[1, "{of { two } levels}"]], ""),
        ("1. e4 {of { one } e5 {more} *", [[1, "{of { one }"], [2, "{more}"]], ""),
        ("1. e4 ({blank at the end} \n1. d4) e5 * 1-0", [[1, "({blank at the end} \n1. d4)"]], "1-0"),
        ("1. e4+! ( 1. d4 ( 1. c4 {x} ) ( 1. f4 ) ) 1... e5 *", [[1, "! ( 1. d4 ( 1. c4 {x} ) ( 1. f4 ) )"]], ""),
    ],
)
def test_notes(tmp_path: Path, movetext: str, notes: list[object], after: str) -> None:
    """What stands between two moves is kept verbatim, but for move numbers and checks; it comes out where it stood."""
    path = saved(tmp_path, '[Event "x"]\n\n' + movetext + "\n")
    games = records(path)
    (game,) = games
    assert (game.header.metadata.get("notes", []), game.header.metadata.get("after_result", "")) == (notes, after)
    out = pgn.write(games, tmp_path / "out.pgn")
    assert [told(game) for game in by_python_chess(out)] == [told(game) for game in by_python_chess(path)]
    assert [game.header.metadata for game in records(out)] == [game.header.metadata]


def test_each_game_has_its_own_encoding(tmp_path: Path) -> None:
    """UTF-8 and Latin-1 in one file: each game is decoded and written as it stood, blanks of other alphabets too."""
    data = b"".join(
        f'[Event "{name}"]\n\n1. e4 {{voil\xe0\x85}} *\n\n'.encode(encoding)
        for name, encoding in (("Malmö", "utf-8-sig"), ("Łódź à", "utf-8"), ("Malmö", "latin-1"), ("Malmo", "utf-8"))
    )
    path = tmp_path / "games.pgn"
    path.write_bytes(data)
    games = records(path)
    assert [game.header.metadata["encoding"] for game in games] == ["utf-8-sig", "utf-8", "latin-1", "utf-8"]
    assert pgn.write(games, tmp_path / "out.pgn").read_bytes() == data
    assert b"".join(game.elements.tobytes() for game in records(path, "pgn")) == data


def endless(text: bytes, reads: list[int]) -> io.BufferedReader:
    """A stream that says the same for ever and counts what was read."""

    class Endless(io.RawIOBase):
        def readable(self) -> bool:
            return True

        def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
            data = (text * (len(buffer) // len(text) + 1))[: len(buffer) // len(text) * len(text)]
            buffer[: len(data)] = data
            reads.append(len(data))
            return len(data)

    return io.BufferedReader(Endless(), 1 << 16)


def test_a_dump_of_any_size_gives_its_first_game_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a stream without end no more is read than a few pieces' worth before the first games come."""
    reads: list[int] = []
    monkeypatch.setattr(Source, "open", lambda self: endless(b'[Event "x"]\n\n1. e4 {a comment} e5 *\n\n', reads))
    games = list(islice(pgn.read(Source(tmp_path / "dump.pgn", "dump.pgn")), 20))
    assert [game.header.record for game in games if isinstance(game, Record)] == [
        f"dump.pgn#{n + 1}" for n in range(20)
    ]
    assert sum(reads) < 3 * PIECE_BYTES


@pytest.mark.parametrize("filler", ["{ never closed " * 10 + "\n", "1. e4 e5 ", "(", "[Event ", "\n"])
def test_a_game_without_end_costs_itself_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, filler: str) -> None:
    """A game longer than any real one is refused with its line, in little memory; the games around it go in."""
    monkeypatch.setattr(split, "MOST_GAME_BYTES", 1 << 14)
    monkeypatch.setattr(pgn, "MOST_GAME_BYTES", 1 << 14)
    path = saved(tmp_path, OTHERS.replace("{}", '[Event "long"]\n\n1. d4 ' + filler * ((1 << 23) // len(filler))))
    tracemalloc.start()
    before, error, after = results(path)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 1 << 21
    assert isinstance(before, Record)
    assert isinstance(after, Record)
    assert (before.header.record, after.header.record) == ("games.pgn#1", "games.pgn#3")
    assert isinstance(error, InputError)
    assert error.where == f"{path}:5"
    assert "a game of more than" in error.found


def test_pieces_are_read_anywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pieces travel as bytes; what they give, one after another, is what the file gives, numbers and lines included."""
    monkeypatch.setattr(split, "PIECE_BYTES", 1 << 12)
    path = saved(tmp_path, OTHERS.replace("{}", '[Event "bad"]\n\n1. Ke2 *') * 200)
    source = Source(path, path.name)
    cut = list(pgn.pieces(source))
    assert len(cut) > 2
    found = [str(r) if isinstance(r, InputError) else r.header for r in pgn.read(source)]
    pieces = [pickle.loads(pickle.dumps(piece)) for piece in cut]
    apart = [
        str(r) if isinstance(r, InputError) else r.header for piece in pieces for r in pgn.read_piece(source, piece)
    ]
    assert apart == found
    assert len(found) == 600
    assert f"{path}:{199 * 11 + 7}:" in found[-2]


def test_a_file_that_is_cut_gives_its_whole_games(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a compressed dump is damaged, the games before the damage come, then the error."""
    data = gzip.compress(b'[Event "x"]\n\n1. e4 *\n\n' * 8000)
    monkeypatch.setattr(split, "PIECE_BYTES", 1 << 12)
    path = tmp_path / "dump.pgn.gz"
    path.write_bytes(data[:-9])
    found = pgn.read(Source(path, "dump.pgn"))
    games = list(islice(found, 1000))
    with pytest.raises(InputError, match="whole"):
        games.extend(found)
    assert len(games) > 1000
    assert all(isinstance(game, Record) for game in games)


@pytest.mark.parametrize(
    ("movetext", "fault"),
    [
        ("1. e4 e5 " + "(1... d5 (1... c5 " * 3000 + ")" * 6000, None),
        ("1. e4 " + "(" * 20000, "a variation before any move"),
        ("1. e4 " + "{c}" * 50000, None),
        ("1. e4 " + "{c" * 50000, "a comment that is never closed"),
        ("1. e4 " + "{c} }" * 50000, "'}' among its moves"),
        ("1. e4 " + "; c\n" * 20000, None),
        ("1. e4 " + "1" * 100000, None),
        ("1. e4 " + "- " * 50000, None),
        (" ".join(f"{n}. Nf3 Nf6 {n + 1}. Ng1 Ng8" for n in range(9998, 10300, 2)), None),  # "10000" is no null move
    ],
)
def test_hostile_movetext(tmp_path: Path, movetext: str, fault: str | None) -> None:
    """Very many or very deep comments and variations take time in proportion, and no recursion."""
    path = saved(tmp_path, movetext + " *\n")
    (found,) = results(path)
    if fault:
        assert isinstance(found, InputError)
        assert fault in found.found
    else:
        assert isinstance(found, Record)
        (again,) = records(pgn.write([found], tmp_path / "games.pgn"))
        assert again.header == found.header
        assert "null_moves" not in found.header.metadata
