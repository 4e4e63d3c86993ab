"""A run's metrics: a JSON line each in ``log.jsonl``, and TensorBoard's event files if asked for."""

import json
import math
import os
from dataclasses import fields
from pathlib import Path
from types import TracebackType
from typing import Any

from aunn_data.errors import RequestError
from aunn_model import checkpoint, distributed
from aunn_model.training import Metrics

Found = dict[str, dict[str, float]]


class Log:
    """The log of a run that goes on at ``step``: what a killed one wrote beyond its last checkpoint is dropped.

    ``last`` are the newest metrics, ``checks`` the newest figures of the checks ({} if there are none), ``best`` is the
    best figure of a checkpoint so far (see ``checkup``).
    """

    def __init__(self, folder: Path, step: int, tensorboard: bool = False):
        lines = [line for line in read_log(folder) if line["step"] <= step]
        self.last = Metrics(**{f.name: lines[-1][f.name] for f in fields(Metrics)}) if lines else None
        known = [f for f in checkpoint.figures(folder).values() if f is not None and math.isfinite(f)]
        self.best = min(known, default=math.inf)
        self.checks: Found = next((line["checks"] for line in reversed(lines) if "checks" in line), {})
        self._board = _board(folder, step) if tensorboard and distributed.leads() else None
        path = folder / "log.jsonl" if distributed.leads() else Path(os.devnull)
        if distributed.leads():
            kept = folder / ".log.jsonl"
            kept.write_text("".join(json.dumps(line) + "\n" for line in lines))
            kept.replace(path)  # whole or not at all
        self._file = path.open("a")

    def write(self, metrics: Metrics, found: Found) -> None:
        """A line of metrics, with the figures of the checks where there are any."""
        line: dict[str, Any] = {**metrics.__dict__, **({"checks": found} if found else {})}
        self._file.write(json.dumps(line) + "\n")
        self._file.flush()
        self.last, self.checks = metrics, found or self.checks
        if self._board:
            values = {name: line[name] for name in ("bits_per_byte", "addresses_per_second", "lr")}
            values |= {f"checks/{m}/{name}": value for m, figures in found.items() for name, value in figures.items()}
            for name, value in values.items():
                self._board.add_scalar(name, value, metrics.step)
            self._board.flush()

    def __enter__(self) -> "Log":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._file.close()
        if self._board:
            self._board.close()


def read_log(folder: Path) -> list[dict[str, Any]]:
    """The lines of a run's log; one that was cut off by a kill is left out."""
    path = folder / "log.jsonl"
    text = path.read_text() if path.exists() else ""
    return [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("}\n")]


def _board(folder: Path, step: int) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise RequestError(
            "--tensorboard", expected="the package tensorboard", found="none", remedy="pip install 'aunn[tensorboard]'"
        ) from error
    return SummaryWriter(str(folder / "tensorboard"), purge_step=step + 1)
