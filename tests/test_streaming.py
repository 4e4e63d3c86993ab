"""Streamed batches: those of the same order in memory, within the memory allowed, every byte read once an epoch."""

import subprocess
import sys
from itertools import islice
from pathlib import Path

import numpy as np
import pytest

from aunn_data import spans
from aunn_data.corpus import Corpus
from aunn_data.errors import RequestError
from aunn_data.registry import Holdout
from aunn_data.sampling import trainable
from aunn_data.streaming import Stream
from tests.corpora import append, text, volume

CHUNK = 256  # of a corpus of 2^20 addresses
SETTINGS = [
    {"memory": 30_000, "batch": 32, "strip": 4},
    {"memory": 60_000, "batch": 100, "strip": 9},
    {"memory": 26_000, "batch": 16, "strip": 1},
    {"memory": 50_000, "batch": 16, "strip": 32},
    {"memory": 2_000_000, "batch": 64, "strip": 32},
    {"memory": 500_000, "batch": 3000, "strip": 8},
]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """Long spans and short ones, holes and holdouts, over many shards."""
    corpus = Corpus.create(tmp_path_factory.mktemp("stream") / "corpus", address_bits=20)
    rng = np.random.default_rng(0)
    noise = [rng.integers(0, 256, shape, np.uint8) for shape in [(3000,)] * 5 + [(9, 11)] * 20]
    append(corpus, *(text(f"{n}.txt", data.tobytes()) for n, data in enumerate(noise[:5])))
    append(corpus, *(volume(f"{n}.npy", data, missing=data < 20) for n, data in enumerate(noise[5:])))
    corpus.add_holdouts([Holdout("h", f"{n}.npy", ((2, 4), (0, 11))) for n in range(0, 20, 3)])
    corpus.add_holdouts([Holdout("h", "3.txt", ((100, 1900),))])
    return corpus


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_streamed_batches_are_those_in_memory(corpus, settings):
    """The order of a stream over bytes that lie in memory gives bit for bit the stream's batches, epoch after epoch."""
    stream, batch = Stream(corpus, 5, **settings), settings["batch"]
    bytes_N = corpus.gather(stream.sampler.spans)
    for step, (addresses_B, bytes_B) in enumerate(islice(stream, 2 * len(bytes_N) // batch + 3)):
        ranks_B = stream.sampler.ranks(step, batch)
        assert addresses_B.dtype == np.int64
        assert bytes_B.dtype == np.uint8
        assert (addresses_B == stream.sampler.addresses(ranks_B)).all()
        assert (bytes_B == bytes_N[ranks_B]).all()


@pytest.mark.parametrize("settings", SETTINGS[:4], ids=str)
def test_a_streamed_epoch_visits_every_trainable_byte_once(corpus, settings):
    """An epoch's addresses are the trainable ones, each once, so no held-out and no missing one is among them."""
    expected, batch = spans.addresses(trainable(corpus)), settings["batch"]
    steps = -(-len(expected) // batch)
    addresses = np.concatenate([a for a, _ in islice(Stream(corpus, 1, **settings), steps)])[: len(expected)]
    assert (np.sort(addresses) == expected).all()
    assert (addresses[:50] != expected[:50]).any()


@pytest.mark.parametrize("start", [1, 77, 1000])
def test_a_stream_begins_at_any_step(corpus, start):
    """Begun at a step, in whatever epoch, a stream goes on as one that was there from the beginning."""
    for settings in SETTINGS[:3]:
        whole = islice(Stream(corpus, 2, **settings), start, start + 40)
        for (addresses, data), (expected, truth) in zip(
            Stream(corpus, 2, start=start, **settings), whole, strict=False
        ):
            assert (addresses == expected).all()
            assert (data == truth).all()


def test_a_stream_is_pinned(corpus):
    """The batches of a stream never change between releases."""
    addresses, _ = next(iter(Stream(corpus, 7, start=200, **SETTINGS[0])))
    assert addresses[:8].tolist() == PINNED


def test_a_chunk_is_read_once_an_epoch(corpus, monkeypatch):
    """Within an epoch no chunk is decoded twice, and all that hold trainable bytes are."""
    corpus = Corpus.open(corpus.path)  # of its own: streams that other tests left may still be reading
    read, chunks = corpus.read, []

    def counted(start, stop):
        chunks.extend(range(start // CHUNK, -(-stop // CHUNK)))
        return read(start, stop)

    monkeypatch.setattr(corpus, "read", counted)
    stream = Stream(corpus, 3, **SETTINGS[0])
    place = 0
    while place < stream.sampler.size:
        window, _ = stream.order.window_at(place)
        stream._read(window, np.empty(window.size, np.uint8))
        place += window.size
    assert len(chunks) == len(set(chunks))
    assert set(chunks) >= set((spans.addresses(trainable(corpus)) // CHUNK).tolist())


def test_too_little_memory_is_refused(corpus):
    """The message says how much is needed; what it advises is enough."""
    with pytest.raises(RequestError, match="memory: expected more than") as caught:
        Stream(corpus, 0, memory=1000, batch=32, strip=4)
    advised = int(caught.value.remedy.split()[1].rstrip(",").replace(",", ""))
    assert len(list(islice(Stream(corpus, 0, memory=advised, batch=32, strip=4), 5))) == 5


def test_an_empty_corpus_has_no_stream(tmp_path):
    """Nothing to draw from is a RequestError."""
    with pytest.raises(RequestError, match="bytes to draw from"):
        Stream(Corpus.create(tmp_path / "corpus", address_bits=20), 0, memory=1 << 20, batch=8)


MEMORY = """
import sys
from itertools import islice
from pathlib import Path
from aunn_data.corpus import Corpus
from aunn_data.streaming import Stream

def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096

corpus = Corpus.open(Path(sys.argv[1]))
corpus.read(0, 1 << 20)
before, most = resident(), 0
stream = Stream(corpus, 0, memory=64 << 20, batch=8192)
for step, _ in enumerate(islice(stream, stream.sampler.size // 8192)):
    if step % 64 == 0:
        most = max(most, resident())
print(most - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_stream_keeps_within_its_memory(tmp_path):
    """An epoch of a corpus of four times the memory allowed adds no more than that to the process."""
    corpus = Corpus.create(tmp_path / "corpus")
    lines = np.tile(np.random.default_rng(0).integers(0, 16, 1 << 12, np.uint8), 1 << 13).tobytes()
    append(corpus, *(text(f"{n}.txt", lines) for n in range(8)))
    command = [sys.executable, "-c", MEMORY, corpus.path]
    ran = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parent.parent, check=True)
    assert 20 << 20 < int(ran.stdout) < 64 << 20


PINNED = [41990, 41166, 16611, 14598, 37050, 41306, 38017, 41034]
