"""A game goes on: the moves that predicted boards tell, as far as chess allows them, and moves chosen among legal ones.

Legend: P predicted boards; R, F = ranks and files; M legal moves; S = 64 squares; V = 256.
"""

from array import array
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import chess
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from aunn_data.record import Record
from pipelines.chess.boards import letters, placement_of, placements, play_to
from pipelines.chess.movetext import start_of

UNFINISHED = "*"


@dataclass(frozen=True)
class Moves:
    """What predicted boards say: moves in standard notation, ``line`` as they are printed with their numbers, and the
    ply whose board follows from no legal move with the reason (None: all do)."""

    san: list[str]
    line: str
    stops_at_ply: int | None
    why: str


def board_after(record: Record) -> chess.Board:
    """The board at the end of a record of boards, all its moves played."""
    metadata = record.header.metadata
    board, choices = start_of(metadata["tags"]), dict(metadata.get("choices", ()))
    for ply, after in enumerate(placements(np.asarray(record.elements))):
        if ply and metadata.get("null_moves") and after == placement_of(board):
            board.push(chess.Move.null())
        elif ply and after is not None:
            play_to(board, after, choices.get(ply, 0))
    return board


def told(record: Record, boards_PRF: npt.NDArray[np.uint8]) -> Moves:
    """The moves from the record's last board on to each predicted one, up to the first that no legal move leads to."""
    board, first, san = board_after(record), len(record.elements), list[str]()
    words: list[str] = []
    for after, predicted_RF in zip(placements(boards_PRF), boards_PRF, strict=True):
        number, turn = board.fullmove_number, board.turn
        move = play_to(board, after) if after is not None else None
        if move is None:
            why = _why_not(board, predicted_RF)
            return Moves(san, " ".join(words), first + len(san), why)
        words += [f"{number}." if turn == chess.WHITE else f"{number}..."] * (turn == chess.WHITE or not words)
        words.append(move)
        san.append(move)
    return Moves(san, " ".join(words), None, "")


def extended(record: Record, boards_PRF: npt.NDArray[np.uint8]) -> Record:
    """The record with further boards, as a game that is not finished."""
    elements = np.concatenate([np.asarray(record.elements), boards_PRF])
    metadata = {key: value for key, value in record.header.metadata.items() if key != "after_result"}
    metadata["tags"] = [[name, UNFINISHED if name == "Result" else value] for name, value in metadata["tags"]]
    metadata["result"] = UNFINISHED
    geometry = replace(record.header.geometry, shape=elements.shape)
    return Record(replace(record.header, geometry=geometry, metadata=metadata), elements)


def legal_pick(record: Record, pick: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """(n, V) log probabilities at the squares of the next plies -> the boards after legal moves, one after another.

    ``pick`` chooses the move from (1, M) sums of the log probabilities of its board's letters. The game ends where
    there is no legal move.
    """
    board = board_after(record)

    def boards_of(log_NV: Tensor) -> Tensor:
        chosen = [torch.empty(0, dtype=torch.int64, device=log_NV.device)]
        for log_SV in log_NV.reshape(-1, 64, log_NV.shape[1]):
            moves, letters_MS = _next_boards(board)
            if not moves:
                break
            of_moves_MS = torch.from_numpy(letters_MS).to(log_SV.device).long()
            score_M = log_SV.gather(1, of_moves_MS.T).sum(0)
            number = int(pick(score_M[None])[0])
            board.push(moves[number])
            chosen.append(of_moves_MS[number])
        return torch.cat(chosen)

    return boards_of


def _next_boards(board: chess.Board) -> tuple[list[chess.Move], npt.NDArray[np.uint8]]:
    """The legal moves and (M, S) the letters after each."""
    moves, sets = sorted(board.legal_moves, key=chess.Move.uci), array("Q")
    for move in moves:
        board.push(move)
        sets.extend(placement_of(board))
        board.pop()
    return moves, letters(sets).reshape(-1, 64) if moves else np.empty((0, 64), np.uint8)


def _why_not(board: chess.Board, predicted_RF: npt.NDArray[np.uint8]) -> str:
    moves, letters_MS = _next_boards(board)
    if not moves:
        return "the game is over, there is no legal move"
    off_M = (letters_MS != predicted_RF.reshape(-1)).sum(1)
    near = int(np.argmin(off_M))
    squares = "1 square differs" if off_M[near] == 1 else f"{off_M[near]} squares differ"
    said = f"{squares} from the nearest legal one, after {board.san(moves[near])}"
    return f"the board predicted follows from no legal move ({said})"


def figures(moves: Moves) -> dict[str, Any]:
    """What is told of the moves in JSON, and the line for people."""
    stop = "" if moves.stops_at_ply is None else f"stops at ply {moves.stops_at_ply}: {moves.why}"
    text = " | ".join(part for part in (moves.line, stop) if part)
    return {"text": text, "moves": moves.san, "stops_at_ply": moves.stops_at_ply}
