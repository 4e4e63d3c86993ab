"""Wide networks: every process holds a part of each weight (FSDP2), and writes it (Distributed Checkpoint).

Imported only where it is used: starting it takes a second. A shard is a safetensors file whose header says which part
of each tensor it holds, so that any number of processes, or one alone, can read them. No pickle is written.
"""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import cast

import torch
from torch import Tensor, nn
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageReader, HuggingFaceStorageWriter
from torch.distributed.checkpoint.metadata import TensorStorageMetadata
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import save
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor


def shard(network: nn.Module) -> None:
    """Leaves this process its part of each weight, on its device; a layer is whole only while it is computed."""
    for layer in network.get_submodule("trunk").children():
        fully_shard(layer)
    fully_shard(network)


def like(value: Tensor, target: Tensor) -> Tensor:
    """A whole tensor as ``target`` lies over the processes; as it is if that is whole, or of another shape."""
    if not isinstance(target, DTensor) or value.shape != target.shape:
        return value
    return distribute_tensor(value.to(target.device), target.device_mesh, target.placements, src_data_rank=None)


def write(folder: Path, tensors: dict[str, Tensor]) -> None:
    """Writes tensors into one safetensors file a process. All processes call it together."""
    with _plain_errors():
        save(tensors, storage_writer=HuggingFaceStorageWriter(str(folder), save_distributed=True))


def read(folder: Path, tensors: dict[str, Tensor]) -> None:
    """Fills tensors, whole or sharded, from shards. All processes call it together; there may be one only."""
    with _plain_errors(), warnings.catch_warnings(category=UserWarning, action="ignore"):  # that there is one only
        load(tensors, storage_reader=HuggingFaceStorageReader(str(folder)))


def shapes(folder: Path) -> dict[str, tuple[torch.Size, torch.dtype]]:
    """Shape and kind of each tensor in shards, from the files' headers."""
    known = cast(
        dict[str, TensorStorageMetadata], HuggingFaceStorageReader(str(folder)).read_metadata().state_dict_metadata
    )
    return {name: (one.size, one.properties.dtype) for name, one in known.items()}


@contextmanager
def _plain_errors() -> Iterator[None]:
    """A process' own error in the place of CheckpointException, which is no Exception."""
    try:
        yield
    except CheckpointException as error:
        raise next(iter(error.failures.values()))[0] from error
