"""A run's state on disk: safetensors and JSON, never pickle; a checkpoint is there whole or not at all.

``checkpoint-<step>/`` holds network.safetensors, one optimizer file each, and state.json, written last into a folder of
another name which is then renamed. state.json knows the SHA-256 of each file and of itself: a flipped bit is noticed.
"""

import hashlib
import json
import os
import re
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load as tensors_of
from safetensors.torch import save as bytes_of

from aunn_model.training import State, named_state


class CheckpointError(RuntimeError):
    """A checkpoint that cannot be read, or belongs to another network."""


def save(folder: Path, state: State, keep: int = 2, figure: float | None = None) -> Path:
    """Writes checkpoint-<step> below ``folder``; only the ``keep`` newest and the one of the least figure stay."""
    for left in folder.glob(".checkpoint-*"):  # by one who was killed
        shutil.rmtree(left)
    building = folder / f".checkpoint-{os.getpid()}"
    building.mkdir(parents=True)
    tensors = {name: module.state_dict() for name, module in _modules(state).items()}
    tensors |= {name: named_state(optimizer) for name, optimizer in state.optimizers.items()}
    files = {f"{name}.safetensors": bytes_of(_plain(named)) for name, named in tensors.items()}
    for name, data in files.items():
        (building / name).write_bytes(data)
    said: dict[str, Any] = {"step": state.step, "seconds": state.seconds, "figure": figure}
    said["files"] = {name: _sha256(files[name]) for name in files}
    (building / "state.json").write_text(json.dumps(sealed(said)))
    for path in (*building.iterdir(), building):
        _sync(path)
    target = folder / f"checkpoint-{state.step:09d}"
    if target.exists():
        _remove(target)
    building.rename(target)
    _sync(folder)
    kept = {*found(folder)[-keep:], best(folder)}
    for old in found(folder):
        if old not in kept:
            _remove(old)
    return target


def best(folder: Path) -> Path | None:
    """The checkpoint of the least figure, the newest where none has one; None if there is no checkpoint."""
    known = {path: figure for path, figure in figures(folder).items() if figure is not None}
    return min(known, key=lambda path: known[path]) if known else next(reversed(found(folder)), None)


def figures(folder: Path) -> dict[Path, float | None]:
    """The figure of each checkpoint below a folder: how well it filled what was left out; None where nothing was."""
    out: dict[Path, float | None] = {}
    for path in found(folder):
        try:
            out[path] = unsealed((path / "state.json").read_text()).get("figure")
        except (OSError, ValueError, KeyError):
            out[path] = None  # who loads it will say what is wrong with it
    return out


def _modules(state: State) -> dict[str, torch.nn.Module]:
    return {"network": state.network, **({"average": state.average} if state.average is not None else {})}


def _remove(checkpoint: Path) -> None:
    """Under another name first: nobody finds a half one."""
    gone = checkpoint.with_name(f".{checkpoint.name}")
    checkpoint.rename(gone)
    shutil.rmtree(gone)


def found(folder: Path) -> list[Path]:
    """The checkpoints below a folder, oldest first."""
    return sorted(path for path in folder.glob("checkpoint-*") if re.fullmatch(r"checkpoint-\d+", path.name))


def load(path: Path, state: State) -> None:
    """Puts a checkpoint into a state of the same shape. CheckpointError if it is damaged or of another shape."""
    try:
        said = unsealed((path / "state.json").read_text())
        modules = _modules(state)
        names = [*modules, *state.optimizers]
        tensors = {name: tensors_of(_checked(path / f"{name}.safetensors", said)) for name in names}
        for name, module in modules.items():
            module.load_state_dict(tensors[name])
        for name, optimizer in state.optimizers.items():
            _restore(optimizer, tensors[name])
        state.step, state.seconds = int(said["step"]), float(said["seconds"])
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, SafetensorError) as error:
        raise CheckpointError(f"{path}: {type(error).__name__}: {error}") from error


def sealed(said: dict[str, Any]) -> dict[str, Any]:
    """A JSON object with the SHA-256 of its other keys, in their order."""
    return {**said, "sha256": _sha256(json.dumps(said).encode())}


def unsealed(text: str) -> dict[str, Any]:
    """Inverse of ``sealed``. ValueError if the text is not the one that was sealed."""
    said: dict[str, Any] = dict(json.loads(text))
    found = said.pop("sha256")
    if found != sealed(said)["sha256"]:
        raise ValueError("it is not what was written: its SHA-256 is another")
    return said


def _checked(path: Path, said: dict[str, Any]) -> bytes:
    data = path.read_bytes()
    if _sha256(data) != said["files"][path.name]:
        raise ValueError(f"{path.name} is not what was written: its SHA-256 is another")
    return data


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


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
