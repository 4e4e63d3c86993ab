"""A few games for the demo, played by a simple player against itself: legal, plausible, and nobody's property."""

import random

import chess
import chess.pgn

PLAYERS = ("Abacus", "Bellows", "Compass", "Dividers")
FEWEST_PLIES, MOST_PLIES = 30, 80

_VALUE = {chess.PAWN: 100, chess.KNIGHT: 320, chess.BISHOP: 330, chess.ROOK: 500, chess.QUEEN: 900, chess.KING: 0}
_RESIGNS_AT = 600  # hundredths of a pawn, when the last ply is played
_NOISE = 22.0  # hundredths of a pawn, standard deviation: breaks ties, so that games differ


def games(seed: int, count: int = 12) -> str:
    """``count`` games of 30 to 80 plies as PGN, the same for the same seed."""
    rng = random.Random(seed)
    text: list[str] = []
    while len(text) < count:
        board = _played(rng)
        if board.ply() >= FEWEST_PLIES:
            text.append(_exported(board, len(text), rng))
    return "".join(game + "\n\n" for game in text)


def _played(rng: random.Random) -> chess.Board:
    board = chess.Board()
    while board.ply() < MOST_PLIES and not board.is_game_over(claim_draw=True):
        board.push(max(board.legal_moves, key=lambda move: _worth(board, move) + rng.gauss(0, _NOISE)))
    return board


def _worth(board: chess.Board, move: chess.Move) -> float:
    """What a move gains at once, less what stands to be lost after it, and a little for good habits."""
    piece = board.piece_type_at(move.from_square) or chess.PAWN
    worth = float(_taken(board, move)) + (_VALUE[move.promotion] - 100 if move.promotion else 0)
    worth += 4 * (_centre(move.to_square) - _centre(move.from_square)) * (piece != chess.KING)
    worth += 60 * board.is_castling(move) - 25 * (piece == chess.KING) - 8 * (piece == chess.QUEEN)
    if piece in (chess.KNIGHT, chess.BISHOP) and chess.square_rank(move.from_square) in (0, 7):
        worth += 18
    board.push(move)
    worth += 1e6 * board.is_checkmate() + 12 * board.is_check() - 150 * board.is_repetition(2)
    worth -= _hanging(board)
    board.pop()
    return worth


def _taken(board: chess.Board, move: chess.Move) -> int:
    if board.is_en_passant(move):
        return _VALUE[chess.PAWN]
    taken = board.piece_type_at(move.to_square)
    return _VALUE[taken] if taken and not board.is_castling(move) else 0


def _hanging(board: chess.Board) -> int:
    """The most that the side to move can win by one capture, a defended piece counted less its capturer."""
    most = 0
    for move in board.generate_legal_captures():
        gain = _taken(board, move)
        if board.is_attacked_by(not board.turn, move.to_square):
            gain -= _VALUE[board.piece_type_at(move.from_square) or chess.PAWN]
        most = max(most, gain)
    return most


def _centre(square: chess.Square) -> float:
    """Nearness to the middle of the board, 0 to 6."""
    return 7 - abs(chess.square_file(square) - 3.5) - abs(chess.square_rank(square) - 3.5)


def _exported(board: chess.Board, index: int, rng: random.Random) -> str:
    game = chess.pgn.Game.from_board(board)
    white, black = rng.sample(PLAYERS, 2)
    roster = {"Event": "House tournament", "Site": "aunn-data sample", "Date": f"2000.01.{index + 1:02}"}
    game.headers.update({**roster, "Round": str(index + 1), "White": white, "Black": black})
    game.headers["Result"] = _result(board)
    return game.accept(chess.pgn.StringExporter())  # lines of 80 characters at most


def _result(board: chess.Board) -> str:
    """The board's own result, or what two sensible players would agree on when the last ply is played."""
    outcome = board.outcome(claim_draw=True)
    if outcome:
        return outcome.result()
    pieces = board.piece_map().values()
    balance = sum(_VALUE[piece.piece_type] * (1 if piece.color else -1) for piece in pieces)
    if abs(balance) < _RESIGNS_AT:
        return "1/2-1/2"
    return "1-0" if balance > 0 else "0-1"
