"""The zarr.json files of a corpus: what is written for an empty one, and whether those there are ours."""

import json
from functools import cache
from typing import Any

import zarr
from zarr.codecs import ZstdCodec
from zarr.core.metadata import ArrayV3Metadata
from zarr.storage import MemoryStore

from aunn_data import shards
from aunn_data.errors import CorpusError, RequestError
from aunn_data.store import Store

FORMAT = "aunn-corpus"
FORMAT_VERSION = 2
READABLE = (1, 2)
ADDRESS_BITS = 38
MOST_ADDRESS_BITS = 63
SHARD_BITS = 26  # at most; a small address space has smaller shards so that it still has 2^12 of them


def of_empty(address_bits: int, shard_bits: int = 0) -> dict[str, bytes]:
    """The three zarr.json files of an empty corpus; shards are as wide as the address space has them unless given."""
    attributes = {"format": FORMAT, "format_version": FORMAT_VERSION, "address_bits": address_bits}
    shard_bits = shard_bits or max(shards.CHUNK_BITS - 8, min(SHARD_BITS, address_bits - 12))
    memory = MemoryStore()
    group = zarr.create_group(memory, zarr_format=3, attributes=attributes)
    for name, dtype in (("bytes", "uint8"), ("missing", "bool")):
        group.create_array(
            name,
            shape=(1 << address_bits,),
            dtype=dtype,
            chunks=(1 << min(shards.CHUNK_BITS, shard_bits),),
            shards=(1 << shard_bits,),
            fill_value=0,
            compressors=[ZstdCodec(level=shards.LEVEL, checksum=True)],
        )
    return {key: value.to_bytes() for key, value in memory._store_dict.items()}


def check_bits(address_bits: int) -> None:
    """RequestError for a width that no corpus has."""
    if not 20 <= address_bits <= MOST_ADDRESS_BITS:
        raise RequestError(
            "--address-bits",
            expected=f"a width from 20 to {MOST_ADDRESS_BITS}",
            found=str(address_bits),
            remedy=f"{ADDRESS_BITS} bits address 275 GB and can be widened later",
        )


def check_arrays(group: Any) -> None:
    """ValueError unless the arrays' documents are ours: another fill value or separator would give wrong bytes."""
    for name in ("bytes", "missing"):
        array = group[name]
        widths = (array.shape[0].bit_length() - 1, array.shards[0].bit_length() - 1)
        if array.metadata.to_dict() != _array_document(name, *widths):
            raise ValueError(f"{name}/zarr.json is not as it was written")


@cache
def _array_document(name: str, address_bits: int, shard_bits: int) -> dict[str, Any]:
    document = json.loads(of_empty(address_bits, shard_bits)[f"{name}/zarr.json"])
    return ArrayV3Metadata.from_dict(document).to_dict()


def check_format(store: Store, attributes: dict[str, Any]) -> None:
    """RequestError if the group's attributes are not those of a corpus, CorpusError if it is one of another version."""
    format, version = attributes.get("format"), attributes.get("format_version")
    if format != FORMAT and not store.exists("registry/records/_delta_log/00000000000000000000.json"):
        raise not_a_corpus(store.name, "another Zarr group")
    if format != FORMAT or version not in READABLE:
        raise CorpusError(
            store.name,
            expected=f"format {FORMAT}, version " + " or ".join(map(str, READABLE)),
            found=f"{format}, {version}",
            remedy="read it with the release that wrote it",
        )


def not_a_corpus(name: str, found: str) -> RequestError:
    """The error of whoever names something else."""
    return RequestError(
        name,
        expected="a corpus",
        found=found,
        remedy="name its folder with --corpus or AUNN_CORPUS; `aunn-data ingest` makes one",
    )
