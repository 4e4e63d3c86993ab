"""A shard as we write it, against two readers that others wrote, and against Zarr's specification of its index.

https://zarr-specs.readthedocs.io/en/latest/v3/codecs/sharding-indexed/index.html
"""

import google_crc32c
import numpy as np
import pytest
import zarr
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st
from zarr.codecs import ZstdCodec

from aunn_data import shards

CHUNKS, CHUNK = 8, 64
SHARD, ABSENT = CHUNKS * CHUNK, 2**64 - 1
PIPELINES = {
    "zarr": "zarr.core.codec_pipeline.BatchedCodecPipeline",
    "zarrs": "zarrs.ZarrsCodecPipeline",
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with an array of two shards."""
    path = tmp_path_factory.mktemp("shards")
    compressors = [ZstdCodec(level=shards.LEVEL, checksum=True)]
    zarr.create_array(
        path, shape=(2 * SHARD,), dtype="uint8", chunks=(CHUNK,), shards=(SHARD,), compressors=compressors, fill_value=0
    )
    (path / "c").mkdir()
    return path


def opened(folder, pipeline, mode="r"):
    with zarr.config.set({"codec_pipeline.path": PIPELINES[pipeline]}):
        return zarr.open_array(folder, mode=mode)


@st.composite
def filled(draw):
    """(shard,) bytes, 0 in chunks that do not exist, and (chunks,) which do; some of those are all zeros."""
    written = np.array(draw(st.lists(st.booleans(), min_size=CHUNKS, max_size=CHUNKS)))
    data = np.zeros((CHUNKS, CHUNK), np.uint8)
    for chunk in np.flatnonzero(written):
        run = draw(st.binary(max_size=CHUNK))
        at = draw(st.integers(0, CHUNK - len(run)))
        data[chunk, at : at + len(run)] = np.frombuffer(run, np.uint8)
    return data.reshape(-1), written


def file_of(data, written):
    """Our file of a shard."""
    return b"".join(shards.encode(data, written))


def index_of(file):
    """(chunks, 2) of offset and length, as the specification has it: at the end, little-endian, before its CRC-32C."""
    tail, crc = file[-16 * CHUNKS - 4 : -4], file[-4:]
    assert google_crc32c.value(tail) == int.from_bytes(crc, "little")
    return np.frombuffer(tail, "<u8").reshape(CHUNKS, 2)


@given(filled(), st.integers(0, SHARD), st.integers(0, SHARD))
@settings(deadline=None, max_examples=60)
def test_two_other_readers_read_what_we_write(folder, shard, one, other):
    """zarr-python's own pipeline and zarrs give the same bytes, of all and of a part; absent chunks are zeros."""
    data, written = shard
    (folder / "c" / "1").write_bytes(file_of(data, written))
    start, stop = sorted((one, other))
    for pipeline in PIPELINES:
        array = opened(folder, pipeline)
        assert array[SHARD:].tobytes() == data.tobytes()
        assert array[SHARD + start : SHARD + stop].tobytes() == data[start:stop].tobytes()
        assert not array[:SHARD].any()


@given(filled())
@settings(deadline=None)
def test_the_index_is_as_the_specification_says(shard):
    """An entry leads to the chunk's zstd frame with its checksum; 2^64 - 1 twice where there is none, zeros or not."""
    data, written = shard
    file = file_of(data, written)
    index, end = index_of(file), 0
    assert ((index == ABSENT).all(axis=1) == ~written).all()
    for chunk in np.flatnonzero(written):
        offset, length = map(int, index[chunk])
        assert offset == end
        frame = file[offset : offset + length]
        parameters = zstandard.get_frame_parameters(frame)
        assert (parameters.content_size, parameters.has_checksum) == (CHUNK, True)
        assert zstandard.decompress(frame) == data[chunk * CHUNK : (chunk + 1) * CHUNK].tobytes()
        end = offset + length
    assert len(file) == end + 16 * CHUNKS + 4


def test_a_chunk_of_zeros_that_was_written_is_stored():
    """So that zero can be told from lost."""
    file = file_of(np.zeros(SHARD, np.uint8), np.arange(CHUNKS) < 3)
    assert (index_of(file) != ABSENT).all(axis=1).tolist() == [True] * 3 + [False] * 5


@given(filled())
@settings(deadline=None, max_examples=40)
def test_shards_that_zarr_itself_writes_read_the_same(folder, shard):
    """Zarr's own shard and ours, of the same bytes: every stored chunk of Zarr's is among ours and decodes equally."""
    data, _ = shard
    with zarr.config.set({"array.write_empty_chunks": True}):
        opened(folder, "zarr", mode="r+")[SHARD:] = data
    theirs, ours = (folder / "c" / "1").read_bytes(), file_of(data, np.ones(CHUNKS, bool))
    for pipeline in PIPELINES:
        assert opened(folder, pipeline)[SHARD:].tobytes() == data.tobytes()
    for (a, n), (b, m) in zip(index_of(theirs).tolist(), index_of(ours).tolist(), strict=True):
        assert zstandard.decompress(theirs[a : a + n], CHUNK) == zstandard.decompress(ours[b : b + m], CHUNK)
