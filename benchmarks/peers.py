"""What the others do with the same bytes. Each function is a child of its own in ``.venv-bench``; see ``measure``.

Every one is set up as a user who knows it would: all cores, shards of 64 MiB, zstd at level 3 where it can compress,
local files. Imports, and loading what we get to load as well, stand before the timed part; flushing to the disk all
that was written stands inside it.
"""

import multiprocessing
import os
import subprocess
import sys
from functools import partial
from importlib.machinery import ModuleSpec
from importlib.util import module_from_spec
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.data import small
from benchmarks.measure import Figures, answer, durable, stored, timed

SHARD, CHUNK = 1 << 26, 1 << 16
CORES = os.cpu_count() or 1
BATCH = 64  # samples


# ---- the same Zarr shards: one list of bytes, as ours, so that all write the same chunks -----------------------------


def tensorstore(volume: str, out: str) -> Figures:
    """Whole shards, one more in flight than there are cores; TensorStore flushes each, as is its default."""
    import tensorstore as ts

    inner = [{"name": "bytes"}, {"name": "zstd", "configuration": {"level": 3, "checksum": True}}]
    index = [{"name": "bytes", "configuration": {"endian": "little"}}, {"name": "crc32c"}]
    codec = {"chunk_shape": [CHUNK], "codecs": inner, "index_codecs": index, "index_location": "end"}
    flat = np.load(volume, mmap_mode="r").reshape(-1)
    metadata = {
        "shape": [flat.size],
        "data_type": "uint8",
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [SHARD]}},
        "codecs": [{"name": "sharding_indexed", "configuration": codec}],
    }
    with timed() as timer:
        kvstore = {"driver": "file", "path": out}
        store = ts.open({"driver": "zarr3", "kvstore": kvstore, "metadata": metadata}, create=True).result()
        flying: list[Any] = []
        for start in range(0, flat.size, SHARD):
            if len(flying) > CORES:
                flying.pop(0).result()
            piece = flat[start : start + SHARD]
            flying.append(store[start : start + SHARD].write(piece, can_reference_source_data_indefinitely=True))
        for write in flying:
            write.result()
        size = durable(Path(out))
    return {"seconds": timer.seconds, "stored": size}


def zarr_python(volume: str, out: str) -> Figures:
    """Zarr's own codec pipeline: its threads work on the chunks of two shards at a time."""
    import zarr

    flat = np.load(volume, mmap_mode="r").reshape(-1)
    with timed() as timer:
        array = zarr.create_array(
            out,
            shape=flat.shape,
            dtype="uint8",
            chunks=(CHUNK,),
            shards=(SHARD,),
            compressors=[zarr.codecs.ZstdCodec(level=3, checksum=True)],
        )
        for start in range(0, flat.size, CORES * SHARD):
            array[start : start + CORES * SHARD] = flat[start : start + CORES * SHARD]
        size = durable(Path(out))
    return {"seconds": timer.seconds, "stored": size}


# ---- training sets of samples ----------------------------------------------------------------------------------------


def litdata_samples(volume: str, out: str, sample: int) -> Figures:
    """``sample`` bytes at a time: of a volume one would take a slice, or less where samples are shuffled."""
    from litdata import optimize

    count = _samples(volume, sample).shape[0]
    with timed() as timer:
        optimize(partial(_litdata_sample, volume, sample), list(range(count)), out, **_litdata_options())
        size = durable(Path(out))
    return {"seconds": timer.seconds, "stored": size}


def litdata_small(source: str, out: str) -> Figures:
    """Each worker makes a part of the samples."""
    from litdata import optimize

    global _SMALL
    _SMALL = small(source)
    parts = [range(len(_SMALL))[n::CORES] for n in range(CORES)]
    with timed() as timer:
        optimize(_litdata_part, parts, out, **_litdata_options())
        size = durable(Path(out))
    return {"seconds": timer.seconds, "stored": size}


def mds_samples(volume: str, out: str, sample: int) -> Figures:
    """The same by MosaicML's writer, one a core as its guide to parallel conversion does."""
    count = _samples(volume, sample).shape[0]
    return _mds(out, partial(_mds_samples, volume, sample), count, {"index": "int", "bytes": f"ndarray:uint8:{sample}"})


def mds_small(source: str, out: str) -> Figures:
    """Name and bytes of each record."""
    global _SMALL
    _SMALL = small(source)
    kind = "bytes" if isinstance(_SMALL[0], bytes) else "ndarray:uint8:28,28"
    return _mds(out, _mds_small, len(_SMALL), {"name": "str", "bytes": kind})


def webdataset_small(source: str, out: str) -> Figures:
    """One tar, not compressed: that is how WebDataset is fastest."""
    from webdataset import TarWriter

    records = small(source)
    with timed() as timer:
        Path(out).mkdir()
        with TarWriter(f"{out}/all.tar") as writer:
            for number, record in enumerate(records):
                writer.write({"__key__": f"{number:08d}", "bin": bytes(record)})
        size = durable(Path(out))
    return {"seconds": timer.seconds, "stored": size}


def litdata_epoch(dataset: str, out: str, workers: int) -> Figures:
    """One shuffled epoch; the cache, into which it unpacks, is empty at the start."""
    from litdata import StreamingDataLoader, StreamingDataset

    with timed() as timer:
        found = StreamingDataset(dataset, cache_dir=out, shuffle=True)
        size = sum(len(batch["bytes"]) for batch in StreamingDataLoader(found, batch_size=BATCH, num_workers=workers))
    return _whole(timer.seconds, size, len(found))


def mds_epoch(dataset: str, out: str, workers: int) -> Figures:
    """One shuffled epoch of a set that is still packed; it unpacks beside what is packed, hence the copy."""
    _import_streaming()
    from streaming import StreamingDataset
    from torch.utils.data import DataLoader

    subprocess.run(["cp", "-r", dataset, out], check=True)
    with timed() as timer:
        found = StreamingDataset(local=out, shuffle=True, batch_size=BATCH)
        size = sum(len(batch["bytes"]) for batch in DataLoader(found, batch_size=BATCH, num_workers=workers))
    return _whole(timer.seconds, size, len(found))


def _whole(seconds: float, seen: int, there: int) -> Figures:
    if seen != there:
        raise SystemExit(f"an epoch of {seen} samples where {there} are")
    return {"seconds": seconds}


def _samples(volume: str, sample: int) -> np.ndarray:
    return np.load(volume, mmap_mode="r").reshape(-1, sample)


def _litdata_options() -> dict[str, Any]:
    """Forked workers have all imports already."""
    return {
        "chunk_bytes": SHARD,
        "compression": "zstd:3",
        "num_workers": CORES,
        "start_method": "fork",
        "verbose": False,
    }


def _litdata_sample(volume: str, sample: int, number: int) -> dict[str, Any]:
    return {"index": number, "bytes": np.array(_samples(volume, sample)[number])}


def _litdata_part(part: range) -> Any:
    for number in part:
        yield {"name": f"{number:08d}", "bytes": _SMALL[number]}


def _mds(out: str, part: Any, count: int, columns: dict[str, str]) -> Figures:
    _import_streaming()
    from streaming.base.util import merge_index

    bounds = [count * n // CORES for n in range(CORES + 1)]
    parts = [(f"{out}/{n}", columns, part, range(bounds[n], bounds[n + 1])) for n in range(CORES)]
    with timed() as timer:
        with multiprocessing.get_context("fork").Pool(CORES) as pool:
            pool.map(_mds_part, parts)
        merge_index(out)
        size = durable(Path(out))
    return {"seconds": timer.seconds, "stored": size}


def _import_streaming() -> None:
    """It imports two names of torchvision, of which nothing here is used. They are made up: PyPI's torchvision is built
    for CUDA and cannot be imported beside a torch that is not."""
    names = ("torchvision", "torchvision.datasets", "torchvision.transforms", "torchvision.transforms.functional")
    made_up = {name: module_from_spec(ModuleSpec(name, None)) for name in names}
    made_up["torchvision.datasets"].VisionDataset = object
    made_up["torchvision.transforms.functional"].to_tensor = None
    sys.modules |= made_up
    import streaming  # noqa: F401


def _mds_part(task: tuple[str, dict[str, str], Any, range]) -> None:
    from streaming import MDSWriter

    out, columns, part, numbers = task
    with MDSWriter(out=out, columns=columns, compression="zstd:3", size_limit=SHARD) as writer:
        for sample in part(numbers):
            writer.write(sample)


def _mds_samples(volume: str, sample: int, numbers: range) -> Any:
    samples = _samples(volume, sample)
    for number in numbers:
        yield {"index": number, "bytes": samples[number]}


def _mds_small(numbers: range) -> Any:
    for number in numbers:
        yield {"name": f"{number:08d}", "bytes": _SMALL[number]}


_SMALL: list[Any] = []  # what forked workers inherit


# ---- what an operating system and a database do ----------------------------------------------------------------------


def copy(folder: str, out: str) -> Figures:
    """``cp`` and a flush: what moving our shards costs with no thought at all."""
    with timed() as timer:
        subprocess.run(["cp", "-r", folder, out], check=True)
        durable(Path(out))
    return {"seconds": timer.seconds}


def disk(folder: str, out: str) -> Figures:
    """As many bytes as our shards take, random ones, in order into one file: what this disk can do."""
    piece, left = os.urandom(1 << 24), stored(Path(folder))
    with timed() as timer:
        Path(out).mkdir()
        with open(f"{out}/all", "wb") as file:
            while left > 0:
                left -= file.write(piece[:left])
        size = durable(Path(out))
    return {"seconds": timer.seconds, "stored": size}


def sha256sum(path: str) -> Figures:
    """The hash alone, which we always make."""
    with timed() as timer:
        subprocess.run(["sha256sum", path], check=True, stdout=subprocess.DEVNULL)
    return {"seconds": timer.seconds}


def memmap(plain: str, places: str) -> Figures:
    """Bytes at random places of a plain file whose pages are all mapped."""
    at = np.load(places)
    data = np.memmap(plain, np.uint8, "r")
    checksum = int(data.sum(dtype=np.int64))  # touches every page
    seconds = []
    for _ in range(5):
        with timed() as timer:
            found = data[at]
        seconds.append(timer.seconds)
    return {"seconds": sorted(seconds)[2], "sum": int(found.sum(dtype=np.int64)), "checksum": checksum}


def duckdb(records: str, addresses: str, join: str) -> Figures:
    """Which record holds each address: a join on ranges, the records and the addresses already in its own tables."""
    import duckdb as db

    given = {"address": np.load(addresses)}
    base = db.connect()
    base.register("given", given)
    base.execute("CREATE TABLE addresses AS SELECT address FROM given")
    base.execute(
        "CREATE TABLE records AS SELECT row_number() OVER (ORDER BY header_start) - 1 AS number, header_start, stop "
        f"FROM read_parquet('{records}/**/*.parquet')"
    )
    how = {"asof": "ASOF JOIN records ON", "between": "JOIN records ON address < stop AND"}[join]
    query = f"SELECT address, number, stop FROM addresses {how} address >= header_start"
    seconds = []
    for _ in range(3):
        with timed() as timer:
            found = base.execute(query).fetchnumpy()
        seconds.append(timer.seconds)
    inside = found["address"] < found["stop"]
    return {"seconds": sorted(seconds)[1], "sum": int(found["number"][inside].sum())}


if __name__ == "__main__":
    answer(
        *(tensorstore, zarr_python, litdata_samples, litdata_small, mds_samples, mds_small, webdataset_small),
        *(litdata_epoch, mds_epoch, copy, disk, sha256sum, memmap, duckdb),
    )
