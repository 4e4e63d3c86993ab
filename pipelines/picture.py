"""Pictures for people: of a reconstruction, given | predicted | truth | error | uncertainty; of what goes on, given |
next 1 | next 2 …"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from aunn_data.record import Record
from pipelines.figures import categorical
from pipelines.holes import SPATIAL
from pipelines.reconstruct import Reconstruction

COLUMNS = ("given", "predicted", "truth", "|error|", "90 % within ±")
UNKNOWN = "#ff00a0"
GLYPHS = dict(zip("KQRBNPkqrbnp.", "♔♕♖♗♘♙♚♛♜♝♞♟ ", strict=True))


def draw(found: Reconstruction, path: Path) -> Path:
    """Writes the picture as PNG."""
    figure_of(found).savefig(path, dpi=110, facecolor="white")
    return path


def draw_next(record: Record, panels: Sequence[tuple[str, npt.NDArray[Any]]], path: Path) -> Path:
    """Writes titled arrays on the grid of a record side by side as PNG: the first is what was given; of volumes the
    slices through their middle, of games a board each."""
    geometry = record.header.geometry
    boards = record.header.modality == "chess"
    middle = np.array(geometry.shape) // 2
    views: list[tuple[str, Any]] = [("", ())] if boards else _views(geometry.axes, geometry.shape, middle)
    low, high = (0.0, 1.0) if boards else _limits(panels[0][1])
    rows = [[panel if boards else _image(panel, cut) for _, panel in panels] for _, cut in views]
    heights = [2.9 * float(np.clip(_tall(row[0]), 0.2, 1.4)) for row in rows]
    figure = Figure(figsize=(2.9 * len(panels), 0.5 + sum(heights)), layout="constrained")
    axes = figure.subplots(len(rows), len(panels), squeeze=False, height_ratios=heights)
    for line, row, (title, _) in zip(axes, rows, views, strict=True):
        for axis, image in zip(line, row, strict=True):
            if boards:
                _draw_board(axis, image, np.zeros(image.shape, np.bool_))
                continue
            axis.set_xticks([])
            axis.set_yticks([])
            axis.imshow(np.clip((image - low) / (high - low), 0, 1), cmap="gray", vmin=0, vmax=1)
        line[0].set_ylabel(title)
    for axis, (title, _) in zip(axes[0], panels, strict=True):
        axis.set_title(title)
    figure.savefig(path, dpi=110, facecolor="white")
    return path


def figure_of(found: Reconstruction) -> Figure:
    """Slices of volumes, the whole of images, boards of games, a passage of texts."""
    entry = found.target.entry
    if entry.modality == "chess" and entry.axes[0] == "ply":
        return _boards(found)
    if len(entry.shape) == 1 and categorical(found.record):
        return _passage(found)
    return _slices(found)


def _slices(found: Reconstruction) -> Figure:
    points = np.argwhere(found.target.mask)
    centre = points[np.argmin(((points - points.mean(axis=0)) ** 2).sum(axis=1))]
    views = _views(found.target.entry.axes, found.truth.shape, centre)
    heights = [max(0.8, 2.9 * min(1.4, _tall(_image(found.truth, cut)))) for _, cut in views]
    figure = Figure(figsize=(3.1 * len(COLUMNS), 1.0 + sum(heights)), layout="constrained")
    axes = figure.subplots(len(views), len(COLUMNS), squeeze=False, height_ratios=heights)
    low, high = _limits(found.truth)
    error = np.abs(found.filled.astype(np.float64) - found.truth.astype(np.float64))
    error_top = max(float(np.nanpercentile(error[found.target.mask], 99)), 1e-12)
    for row, (title, cut) in zip(axes, views, strict=True):
        given = np.ma.masked_array(_image(found.truth, cut), mask=_image(~found.known, cut))
        panels = (given, *(_image(a, cut) for a in (found.filled, found.truth, error, found.uncertainty)))
        for axis, panel, name in zip(row, panels, COLUMNS, strict=True):
            axis.set_xticks([])
            axis.set_yticks([])
            axis.set_facecolor(UNKNOWN)
            if name == "|error|":
                shown = axis.imshow(
                    panel if panel.ndim == 2 else panel.mean(axis=2), cmap="inferno", vmin=0, vmax=error_top
                )
            elif name == COLUMNS[4]:
                shown = axis.imshow(panel if panel.ndim == 2 else panel.sum(axis=2), cmap="viridis", vmin=0)
            elif panel.ndim == 3:
                shade = np.clip((np.ma.getdata(panel) - low) / (high - low), 0, 1)
                axis.imshow(np.where(np.ma.getmaskarray(panel), _pink(panel), shade))
                continue
            else:
                axis.imshow(panel, cmap="gray", vmin=low, vmax=high)
                continue
            figure.colorbar(shown, ax=axis, shrink=0.8)
        row[0].set_ylabel(title)
    for axis, name in zip(axes[0], COLUMNS, strict=True):
        axis.set_title(name)
    figure.suptitle(_title(found))
    return figure


def _views(
    axes: Sequence[str], shape: Sequence[int], centre: npt.NDArray[np.int64]
) -> list[tuple[str, tuple[Any, ...]]]:
    """Up to three orthogonal slices through an element, of a reconstruction that in the middle of what is predicted."""
    spatial = [k for k, axis in enumerate(axes) if axis in SPATIAL] or list(range(len(axes)))[-2:]
    channel = [k for k, axis in enumerate(axes) if axis == "channel" and shape[k] in (3, 4)]
    views = []
    for fixed in spatial if len(spatial) > 2 else [None]:
        shown = [k for k in spatial if k != fixed][-2:]
        cut = tuple(slice(None) if k in shown or k in channel else int(centre[k]) for k in range(len(axes)))
        others = [f"{axes[k]}={cut[k]}" for k in range(len(axes)) if isinstance(cut[k], int)]
        views.append((" ".join(others) or " × ".join(axes[k] for k in shown), cut))
    return views


def _image(array: npt.NDArray[Any], cut: tuple[Any, ...]) -> npt.NDArray[Any]:
    """The slice as (rows, columns) or (rows, columns, 3)."""
    piece = np.asarray(array[cut])
    if piece.ndim == 1:
        return piece[None]
    return np.moveaxis(piece, 0, -1)[..., :3] if piece.ndim == 3 else piece


def _tall(image: npt.NDArray[Any]) -> float:
    """Height over width."""
    return float(image.shape[0] / image.shape[1])


def _limits(truth: npt.NDArray[Any]) -> tuple[float, float]:
    finite = truth[np.isfinite(truth)].astype(np.float64)
    low, high = np.percentile(finite, [0.5, 99.5]) if finite.size else (0.0, 1.0)
    return float(low), float(high) if high > low else float(low) + 1


def _pink(panel: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    colour = [int(UNKNOWN[k : k + 2], 16) / 255 for k in (1, 3, 5)]
    return np.broadcast_to(np.array(colour), panel.shape)


def _boards(found: Reconstruction) -> Figure:
    plies = np.flatnonzero(found.target.mask.any(axis=(1, 2)))[:4]
    figure = Figure(figsize=(9.5, 0.8 + 3.1 * len(plies)), layout="constrained")
    axes = figure.subplots(len(plies), 3, squeeze=False)
    for row, ply in zip(axes, plies, strict=True):
        given = np.where(found.known[ply], found.truth[ply], ord("."))
        for axis, board, name in zip(row, (given, found.filled[ply], found.truth[ply]), COLUMNS[:3], strict=True):
            _draw_board(axis, board, (board != found.truth[ply]) & (name == "predicted"))
            axis.set_title(f"{name}, ply {ply}" if name != "given" or found.known[ply].any() else "not given")
    figure.suptitle(_title(found))
    return figure


def _draw_board(axis: Axes, board_RF: npt.NDArray[np.uint8], wrong_RF: npt.NDArray[np.bool_]) -> None:
    axis.imshow((np.indices((8, 8)).sum(axis=0) + 1) % 2, cmap="YlOrBr", vmin=0, vmax=5)
    for (rank, file), piece in np.ndenumerate(board_RF):
        wrong = bool(wrong_RF[rank, file])
        glyph = "×" if wrong and piece == ord(".") else GLYPHS.get(chr(piece), "?")
        axis.text(file, rank, glyph, ha="center", va="center", fontsize=17, color=UNKNOWN if wrong else "black")
    axis.set(xticks=range(8), xticklabels=list("abcdefgh"), yticks=range(8), yticklabels=list("12345678"))
    axis.invert_yaxis()


def _passage(found: Reconstruction, width: int = 96, lines: int = 12) -> Figure:
    first = max(0, int(np.flatnonzero(found.target.mask)[0]) - 2 * width)
    figure = Figure(figsize=(9.5, 1.0 + 0.19 * lines * 3), layout="constrained")
    columns = (("given", None), ("predicted", found.filled), ("truth", found.truth))
    for axis, (name, values) in zip(figure.subplots(3, 1), columns, strict=True):
        axis.axis("off")
        axis.set_title(name, loc="left", fontsize=10, pad=10)
        for place in range(first, min(first + width * lines, len(found.truth))):
            row, column = divmod(place - first, width)
            text, colour = _character(found, values, place)
            axis.text(
                column / width, 1 - row / lines, text, family="monospace", fontsize=8, color=colour, parse_math=False
            )
    figure.suptitle(_title(found))
    return figure


def _character(found: Reconstruction, values: npt.NDArray[Any] | None, place: int) -> tuple[str, str]:
    """What to print for a byte and in which colour: given black, predicted right blue, wrong or not given pink."""
    asked, truth = bool(found.target.mask[place]), int(found.truth[place])
    value = truth if values is None else int(values[place])
    wrong = asked and (values is None or value != truth)
    if value == ord("\n"):
        text = "¶"
    elif 32 < value < 127 or (value == 32 and not wrong):
        text = chr(value)
    else:
        text = "·"
    return "·" if asked and values is None else text, UNKNOWN if wrong else "#0050b0" if asked else "black"


def _title(found: Reconstruction) -> str:
    figures = found.figures
    said = f"{figures['record']}: {figures['elements']:,} elements predicted (pink: not given)"
    if figures.get("psnr_db") is not None:
        peers = ((name, peer["psnr_db"]) for name, peer in figures["peers"].items())
        fills = ", ".join(f"{name} {value:.1f}" if value is not None else f"{name} exact" for name, value in peers)
        return f"{said}\nPSNR {figures['psnr_db']:.1f} dB; {fills}"
    if figures["byte_accuracy"] is not None:
        return (
            f"{said}\n{100 * figures['byte_accuracy']:.1f} % of bytes right, {figures['bits_per_byte']:.2f} bits/byte"
        )
    return said
