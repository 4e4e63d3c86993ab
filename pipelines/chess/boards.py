"""Boards of 64 letters <-> where the pieces stand, and the move from one board to the next; asks python-chess.

Legend: N = plies + 1 positions; R, F = ranks and files. A board's letters are ``PNBRQK`` (white), ``pnbrqk`` (black)
and ``.``; letter [rank, file] belongs to square ``8 * rank + file``, so rank 0 is White's first and file 0 is a.
"""

import re
from array import array
from collections.abc import Callable, Iterator
from functools import lru_cache

import chess
import chess.variant
import numpy as np
import numpy.typing as npt

Placement = tuple[int, ...]
"""Seven 64-bit sets of squares: pawns, knights, bishops, rooks, queens, kings of both colours; all white pieces."""

_LETTERS = np.frombuffer(b"PNBRQK", np.uint8)
_EMPTY, _LOWER = ord("."), 0x20
_SLAB = 1 << 14  # boards at a time: their bits take 448 bytes a board


def letters(placements: "array[int]") -> npt.NDArray[np.uint8]:
    """Placements, end to end -> (N, R, F) uint8 letters."""
    sets = np.frombuffer(placements, "u8").astype("<u8", copy=False).reshape(-1, 7)
    return np.concatenate([_letters(sets[start : start + _SLAB]) for start in range(0, len(sets), _SLAB)])


def placements(boards: npt.NDArray[np.uint8]) -> Iterator[Placement | None]:
    """Inverse of ``letters``, one by one; None for a board with a letter that is none of chess."""
    for start in range(0, len(boards), _SLAB):
        yield from _placements(boards[start : start + _SLAB])


def _letters(sets: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint8]:
    bits = np.unpackbits(sets.view(np.uint8).reshape(-1, 7, 8), axis=2, bitorder="little")
    boards: npt.NDArray[np.uint8] = (bits[:, :6] * _LETTERS[:, None]).sum(1, dtype=np.uint8)
    boards[(boards > 0) & (bits[:, 6] == 0)] |= _LOWER
    boards[boards == 0] = _EMPTY
    return boards.reshape(-1, 8, 8)


def _placements(boards: npt.NDArray[np.uint8]) -> list[Placement | None]:
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


def play_to(board: chess.Board, after: Placement, choice: int = 0) -> str | None:
    """Plays the legal move after which the pieces stand so, of several the one at ``choice``; its SAN, None if none."""
    if not isinstance(board, chess.variant.AtomicBoard):  # one fitting move at most, see ``fitting``
        apparent = _apparent(board, after)
        for move in [apparent] if apparent else list(board.generate_castling_moves()):
            if board.is_legal(move):
                san = board.san_and_push(move)
                if placement_of(board) == after:
                    return san
                board.pop()
    found = fitting(board, after)
    return board.san_and_push(found[min(choice, len(found) - 1)]) if found else None


def play(board: chess.Board, san: str) -> chess.Move:
    """Plays a move in standard notation: what python-chess's ``push_san`` does, errors included, but sooner.

    Where in plain chess one piece alone could go there, the move is legal if it leaves no king in check; whatever is
    less simple (two pieces, castling, en passant, promotion, variants, faults) is python-chess's.
    """
    if type(board) is chess.Board and (plain := _plain(san)):
        move = _only_move(board, *plain)
        if move is not None:
            board.push(move)
            if not board.was_into_check():
                return move
            board.pop()
    return board.push_san(san)


_PLAIN = re.compile(r"(?:([NBRQK])([a-h]?)([1-8]?)|([a-h]?))[-x]?([a-h][1-8])")


@lru_cache(maxsize=1 << 12)
def _plain(san: str) -> tuple[chess.PieceType, int, chess.Square] | None:
    """What moves, from which squares (a set), and where to; None of castling, promotions and moves in full."""
    match = _PLAIN.fullmatch(san)
    if not match:
        return None
    letter, file, rank, pawn_file, goal = match.groups()
    to_square = chess.parse_square(goal)
    if letter is None:
        backrank = chess.square_rank(to_square) in (0, 7)
        file_of_pawn = chess.FILE_NAMES.index(pawn_file or goal[0])
        return None if backrank else (chess.PAWN, chess.BB_FILES[file_of_pawn], to_square)
    files = chess.BB_FILES[chess.FILE_NAMES.index(file)] if file else chess.BB_ALL
    ranks = chess.BB_RANKS[int(rank) - 1] if rank else chess.BB_ALL
    return chess.PIECE_SYMBOLS.index(letter.lower()), files & ranks, to_square


def _only_move(board: chess.Board, kind: chess.PieceType, squares: int, to_square: chess.Square) -> chess.Move | None:
    """The move of the one piece of a kind that could go there if there were no check; None if it is not so simple."""
    own, goal = board.occupied_co[board.turn], chess.BB_SQUARES[to_square]
    kings = board.kings & own
    if own & goal or kings & (kings - 1):
        return None
    found = (
        squares & own & (_REACH[kind](board, to_square) if kind != chess.PAWN else _pawns(board, squares, to_square))
    )
    return None if not found or found & (found - 1) else chess.Move(found.bit_length() - 1, to_square)


def _pawns(board: chess.Board, squares: int, to_square: chess.Square) -> int:
    """The own pawns on these squares that could go there, but for en passant; a set."""
    own = board.pawns & board.occupied_co[board.turn] & squares
    goal, white = chess.BB_SQUARES[to_square], board.turn == chess.WHITE
    if board.occupied & goal:
        return chess.BB_PAWN_ATTACKS[not board.turn][to_square] & own
    one = goal >> 8 if white else goal << 8
    if own & one or board.occupied & one or not goal & (chess.BB_RANK_4 if white else chess.BB_RANK_5):
        return own & one
    return own & (goal >> 16 if white else goal << 16)


def _diagonal(board: chess.Board, square: chess.Square) -> int:
    return chess.BB_DIAG_ATTACKS[square][chess.BB_DIAG_MASKS[square] & board.occupied]


def _straight(board: chess.Board, square: chess.Square) -> int:
    files = chess.BB_FILE_ATTACKS[square][chess.BB_FILE_MASKS[square] & board.occupied]
    return files | chess.BB_RANK_ATTACKS[square][chess.BB_RANK_MASKS[square] & board.occupied]


_REACH: dict[chess.PieceType, Callable[[chess.Board, chess.Square], int]] = {
    chess.KNIGHT: lambda board, square: chess.BB_KNIGHT_ATTACKS[square] & board.knights,
    chess.BISHOP: lambda board, square: _diagonal(board, square) & board.bishops,
    chess.ROOK: lambda board, square: _straight(board, square) & board.rooks,
    chess.QUEEN: lambda board, square: (_diagonal(board, square) | _straight(board, square)) & board.queens,
    chess.KING: lambda board, square: chess.BB_KING_ATTACKS[square] & board.kings,
}


def _apparent(board: chess.Board, after: Placement) -> chess.Move | None:
    """The move that the squares tell which a piece of the side to move left or came to; None of castling."""
    own = board.occupied_co[board.turn]
    pawns, knights, bishops, rooks, queens, kings, white = after
    owns = white if board.turn == chess.WHITE else (pawns | knights | bishops | rooks | queens | kings) & ~white
    left, came = own & ~owns, owns & ~own
    if not came or came & (came - 1) or left & (left - 1):
        return None
    to_square, piece = came.bit_length() - 1, None
    if not left or (board.pawns & left and not pawns & came):
        piece = next((kind for kind, set in enumerate(after[:6], chess.PAWN) if set & came), None)
    if not left:
        return chess.Move(to_square, to_square, drop=piece)
    return chess.Move(left.bit_length() - 1, to_square, promotion=piece)
