"""A run's state on disk: safetensors and JSON, never pickle; a checkpoint is there whole or not at all.

``checkpoint-<step>/`` holds network.safetensors, one optimizer file each, and state.json, written last into a folder of
another name which is then renamed.
"""

import json
import os
import re
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from aunn_model.training import State, named_state

KEPT = 2


class CheckpointError(RuntimeError):
    """A checkpoint that cannot be read, or belongs to another network."""


def save(folder: Path, state: State) -> Path:
    """Writes checkpoint-<step> below ``folder`` and removes all but the newest KEPT."""
    building = folder / f".checkpoint-{os.getpid()}"
    shutil.rmtree(building, ignore_errors=True)
    building.mkdir(parents=True)
    save_file(_plain(state.network.state_dict()), building / "network.safetensors")
    for name, optimizer in state.optimizers.items():
        save_file(_plain(named_state(optimizer)), building / f"{name}.safetensors")
    (building / "state.json").write_text(json.dumps({"step": state.step, "seconds": state.seconds}))
    for path in (*building.iterdir(), building):
        _sync(path)
    target = folder / f"checkpoint-{state.step:09d}"
    shutil.rmtree(target, ignore_errors=True)
    building.rename(target)
    _sync(folder)
    for old in found(folder)[:-KEPT]:
        shutil.rmtree(old)
    return target


def found(folder: Path) -> list[Path]:
    """The checkpoints below a folder, oldest first."""
    return sorted(path for path in folder.glob("checkpoint-*") if re.fullmatch(r"checkpoint-\d+", path.name))


def load(path: Path, state: State) -> None:
    """Puts a checkpoint into a state of the same shape. CheckpointError if it is damaged or of another shape."""
    try:
        said = json.loads((path / "state.json").read_text())
        state.network.load_state_dict(load_file(path / "network.safetensors"))
        for name, optimizer in state.optimizers.items():
            _restore(optimizer, load_file(path / f"{name}.safetensors"))
        state.step, state.seconds = int(said["step"]), float(said["seconds"])
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        raise CheckpointError(f"{path}: {type(error).__name__}: {error}") from error


def _plain(tensors: dict[str, Any]) -> dict[str, torch.Tensor]:
    return {name: torch.as_tensor(value).detach().cpu().contiguous().clone() for name, value in tensors.items()}


def _restore(optimizer: torch.optim.Optimizer, tensors: dict[str, torch.Tensor]) -> None:
    state: dict[int, dict[str, torch.Tensor]] = {}
    for name, value in tensors.items():
        number, what = name.split(".", 1)
        state.setdefault(int(number), {})[what] = value
    optimizer.load_state_dict({**optimizer.state_dict(), "state": state})


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
