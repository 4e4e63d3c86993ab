"""A run's state on disk: safetensors and JSON, never pickle; a checkpoint is there whole or not at all.

``checkpoint-<step>/`` holds network.safetensors, one optimizer file each, and state.json, written last into a folder of
another name which is then renamed. state.json knows the SHA-256 of each file and of itself: a flipped bit is noticed.
Of sharded weights it holds one ``shard-…safetensors`` of all of that a process, for any number of processes to read.
"""

import hashlib
import json
import math
import os
import re
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load as tensors_of
from safetensors.torch import save as bytes_of

from aunn_model import distributed
from aunn_model.training import State, named_state

Tensors = dict[str, dict[str, torch.Tensor]]


NOISE = 0.05  # bits, 0.3 dB, by which figures of a few checks differ for no reason


class CheckpointError(RuntimeError):
    """A checkpoint that cannot be read, or belongs to another network."""


def save(folder: Path, state: State, keep: int = 2, figure: float | None = None) -> Path:
    """Writes checkpoint-<step> below ``folder``; only the ``keep`` newest and the one of the least figure stay.

    All processes call it together: the first one writes, or each its shard.
    """
    building, target = folder / ".checkpoint-new", folder / f"checkpoint-{state.step:09d}"
    if distributed.leads():
        for left in folder.glob(".checkpoint-*"):  # by one who was killed
            shutil.rmtree(left)
        building.mkdir(parents=True)
    tensors = {name: module.state_dict() for name, module in _modules(state).items()}
    tensors |= {name: named_state(optimizer) for name, optimizer in state.optimizers.items()}
    said: dict[str, Any] = {"step": state.step, "seconds": state.seconds, "figure": figure}
    if state.sharded:
        said["files"] = _write_shards(building, tensors)
    elif distributed.leads():
        said["files"] = {f"{name}.safetensors": _write(building, name, named) for name, named in tensors.items()}
    if distributed.leads():
        (building / "state.json").write_text(json.dumps(sealed(said)))
        _publish(building, target)
        # The least figure stays too, though a later one within the noise is better: else "best" would creep upwards.
        kept = {*found(folder)[-keep:], best(folder), best(folder, noise=0)}
        for old in found(folder):
            if old not in kept:
                _remove(old)
    return target


def _write(folder: Path, name: str, tensors: dict[str, Any]) -> str:
    """Writes a safetensors file and returns its SHA-256."""
    data = bytes_of(_plain(tensors))
    (folder / f"{name}.safetensors").write_bytes(data)
    return _sha256(data)


def _write_shards(folder: Path, tensors: dict[str, dict[str, Any]]) -> dict[str, str]:
    """Writes a file of each process and returns the SHA-256 of all, which each takes of its share."""
    from aunn_model import sharding

    distributed.wait()  # the first one has made the folder
    sharding.write(
        folder, {f"{part}.{name}": value for part, named in tensors.items() for name, value in named.items()}
    )
    distributed.wait()
    paths = sorted(folder.glob("shard-*"))
    number, of = distributed.part()
    share = -(-len(paths) // of)
    mine = b"".join(bytes.fromhex(_file_sha256(path)) for path in paths[number * share : (number + 1) * share])
    digests = distributed.gathered(torch.tensor([*mine.ljust(32 * share, b"\0")], dtype=torch.uint8))
    return {path.name: bytes(digest.tolist()).hex() for path, digest in zip(paths, digests.view(-1, 32), strict=False)}


def _publish(building: Path, target: Path) -> None:
    """All that was written is on the disk, then it gets its name."""
    for path in (*building.iterdir(), building):
        _sync(path)
    if target.exists():
        _remove(target)
    building.rename(target)
    _sync(target.parent)


def best(folder: Path, noise: float = NOISE) -> Path | None:
    """The newest checkpoint whose figure is the least, or so near it that the difference says nothing; the newest where
    none has a figure; None if there is no checkpoint."""
    known = {path: figure for path, figure in figures(folder).items() if figure is not None}
    good = [path for path, figure in known.items() if figure <= min(known.values()) + noise]
    return max(good or found(folder), default=None)


def figures(folder: Path) -> dict[Path, float | None]:
    """The figure of each checkpoint below a folder: how well it filled what was left out; None where nothing was."""
    out: dict[Path, float | None] = {}
    for path in found(folder):
        try:
            out[path] = unsealed((path / "state.json").read_text()).get("figure")
        except (OSError, ValueError, KeyError):
            out[path] = -math.inf  # so that it is loaded, and whoever loads it says what is wrong with it
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
        tensors = _read_shards(path, said, state) if _of_shards(said) else _read(path, said, state)
        for name, module in _modules(state).items():
            module.load_state_dict(tensors[name])
        for name, optimizer in state.optimizers.items():
            _restore(optimizer, tensors[name])
        state.step, state.seconds = int(said["step"]), float(said["seconds"])
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, SafetensorError) as error:
        raise CheckpointError(f"{path}: {type(error).__name__}: {error}") from error


def _of_shards(said: dict[str, Any]) -> bool:
    return any(name.startswith("shard-") for name in said["files"])


def _read(path: Path, said: dict[str, Any], state: State) -> Tensors:
    """The tensors of a checkpoint of whole ones, which a sharded state takes its parts of."""
    names = [*_modules(state), *state.optimizers]
    tensors = {name: tensors_of(checked(path / f"{name}.safetensors", said)) for name in names}
    if not state.sharded:
        return tensors
    from aunn_model import sharding

    for name, module in _modules(state).items():
        known = module.state_dict()
        tensors[name] = {key: sharding.like(value, known[key]) for key, value in tensors[name].items()}
    for name, optimizer in state.optimizers.items():
        tensors[name] = {key: sharding.like(value, _weight(optimizer, key)) for key, value in tensors[name].items()}
    return tensors


def _read_shards(path: Path, said: dict[str, Any], state: State) -> Tensors:
    """The tensors of a checkpoint of shards, whole or sharded as those of the state are."""
    from aunn_model import sharding

    number, of = distributed.part()
    torn = [name for name in sorted(said["files"])[number::of] if _file_sha256(path / name) != said["files"][name]]
    if distributed.anyone(bool(torn)):
        raise ValueError(f"{', '.join(torn) or 'a shard'} is not what was written: its SHA-256 is another")
    tensors = {name: module.state_dict() for name, module in _modules(state).items()} | {
        n: {} for n in state.optimizers
    }
    for name, (shape, dtype) in sharding.shapes(path).items():
        part, key = name.split(".", 1)
        if part in state.optimizers:
            weight = _weight(state.optimizers[part], key).detach()
            like = torch.zeros_like(weight, dtype=dtype) if weight.shape == shape else torch.zeros(shape, dtype=dtype)
            tensors[part][key] = like
    sharding.read(path, {f"{part}.{key}": value for part, named in tensors.items() for key, value in named.items()})
    return tensors


def _weight(optimizer: torch.optim.Optimizer, key: str) -> torch.Tensor:
    """The weight that "<number of the weight>.<what>" of an optimiser belongs to."""
    weights: list[torch.Tensor] = [weight for group in optimizer.param_groups for weight in group["params"]]
    return weights[int(key.split(".", 1)[0])]


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


def checked(path: Path, said: dict[str, Any]) -> bytes:
    """The bytes of a file whose SHA-256 ``said["files"]`` has. ValueError if they are others."""
    data = path.read_bytes()
    if _sha256(data) != said["files"][path.name]:
        raise ValueError(f"{path.name} is not what was written: its SHA-256 is another")
    return data


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _file_sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


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
