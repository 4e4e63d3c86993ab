"""A corpus against a model of it, a bytearray and a dict: whatever is done in whatever order, both say the same.

AUNN_EXAMPLES and AUNN_STEPS set how many runs of how many steps; a soak takes more. Of the steps one in PACE may be
one that commits or opens; the others read.
"""

import hashlib
import os
import shutil
import tempfile
import threading
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from functools import cache, partial
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule

from aunn_data import header as headers
from aunn_data import payload, spans, verify
from aunn_data.allocation import aligned
from aunn_data.collect import collect
from aunn_data.corpus import Corpus
from aunn_data.entries import Entry
from aunn_data.errors import ConflictError, InputError, RequestError
from aunn_data.record import Record
from aunn_data.registry import Holdout
from pipelines.export import export
from pipelines.ingest import ingest
from pipelines.records import records_of
from pipelines.source import Source
from tests.corpora import append, text, volume

EXAMPLES, STEPS = int(os.environ.get("AUNN_EXAMPLES", 200)), int(os.environ.get("AUNN_STEPS", 75))
PACE = 6
MEMORY = "/dev/shm"  # where there is one, a disk need not be waited for
ADDRESS_BITS, MOST_ADDRESS_BITS = 20, 24
NOW = timedelta(0)

KINDS = ("text", "zeros", "|u1", "|b1", "<i2", ">u4", "<i8", ">f4", "<f8")
SPECS = st.lists(
    st.tuples(st.sampled_from(KINDS), st.sampled_from(["padded", "packed", "morton"]), st.integers(0, 2**16)),
    min_size=1,
    max_size=3,
)
SEEDS = st.integers(0, 2**32 - 1)


class Killed(BaseException):
    """What no handler may keep."""


class Dying:
    """A store whose process dies at its n-th call that writes, before or after it is done, and does nothing more."""

    def __init__(self, store, calls, after):
        self._store, self._left, self._after, self._lock = store, calls, after, threading.Lock()

    def __getattr__(self, name):
        found = getattr(self._store, name)
        return partial(self._call, found) if name in ("put", "settle", "delete", "move") else found

    def _call(self, call, *args, **options):
        with self._lock:
            self._left -= 1
            left = self._left
        if left > 0 or (left == 0 and self._after):
            done = call(*args, **options)
        if left <= 0:
            raise Killed
        return done


@dataclass(frozen=True)
class Stored:
    """A committed record as the model knows it: what went in, where it lies, the first version that has it."""

    elements: np.ndarray
    missing: np.ndarray
    entry: Entry
    version: int


def made(name, spec):
    """A small record of a kind, a layout and a seed."""
    kind, layout, seed = spec
    rng = np.random.default_rng(seed)
    if kind == "text":
        return text(f"{name}.txt", rng.integers(32, 127, rng.integers(1, 900)).astype(np.uint8).tobytes())
    shape = tuple(rng.integers(1, (6, 7, 10)[: rng.integers(2, 4)]))
    if kind == "zeros":
        return volume(f"{name}.npy", np.zeros((*shape[:2], 100), np.uint8), layout)
    dtype, missing = np.dtype(kind), rng.random(shape) < 0.2 if seed % 2 else None
    if dtype.kind == "f":
        elements = rng.standard_normal(shape).astype(dtype)
    else:
        top = min(int(np.iinfo(dtype).max), 2**40) if dtype.kind != "b" else 1
        elements = rng.integers(0, top, shape, endpoint=True).astype(dtype)
    if missing is not None and seed % 3:
        elements[missing] = np.nan if dtype.kind == "f" else 0
    return volume(f"{name}.npy", elements, layout, missing)


@cache
def place():
    """A folder with an empty corpus to copy and a few files to ingest, gone at the end of the process."""
    folder = tempfile.TemporaryDirectory(dir=MEMORY if os.access(MEMORY, os.W_OK) else None)
    root = Path(folder.name)
    Corpus.create(root / "empty", ADDRESS_BITS)
    (root / "files").mkdir()
    for number in range(4):
        (root / "files" / f"file-{number}.txt").write_text(f"file {number}\n" * (20 * number + 1))
        np.save(root / "files" / f"file-{number}.npy", np.arange(7 * (number + 1), dtype="<i2").reshape(7, -1))
    return root, folder


def heavy(function):
    """A rule for one step in PACE."""
    return precondition(lambda self: self.heavy * PACE <= self.steps)(function)


class CorpusMachine(RuleBasedStateMachine):
    """Every rule does one thing to the corpus, the same to the model, and compares."""

    def __init__(self):
        super().__init__()
        self.root = Path(tempfile.mkdtemp(dir=place()[0]))
        shutil.copytree(place()[0] / "empty", self.root / "corpus")
        self.corpus = self.older = Corpus.open(self.root / "corpus")
        self.bytes = bytearray()  # at all addresses that were handed out
        self.stored = {}
        self.nobodys = []  # spans of addresses where a writer that died may have left anything
        self.holdouts = set()
        self.unfinished = []
        self.steps = self.heavy = self.names = 0

    def teardown(self):
        faults = verify.verify(self.corpus, deep=True)
        assert faults == [], faults
        shutil.rmtree(self.root)

    # ---- what changes the corpus -----------------------------------------------------------------------------------

    @heavy
    @rule(specs=SPECS)
    def append(self, specs):
        records = self.new(specs)
        self.committed(records, append(self.corpus, *records))

    @heavy
    @rule(numbers=st.sets(st.integers(0, 3), min_size=1), suffix=st.sampled_from(["txt", "npy"]))
    def ingest(self, numbers, suffix):
        """New files go in as one commit; known ones stay as they are."""
        self.did(heavy=True)
        paths = [place()[0] / "files" / f"file-{number}.{suffix}" for number in sorted(numbers)]
        new = [path for path in paths if path.name not in self.stored]
        before = self.corpus.version
        report = ingest(paths, self.corpus)
        assert [path for path, _ in report.ingested] == new
        assert report.refused == []
        assert {path for path, _ in report.unchanged} == set(paths) - set(new)
        assert self.corpus.version == before + bool(new)
        if new:
            records = [next(records_of(Source(path, path.name))) for path in new]
            hashes = [hashlib.sha256(path.read_bytes()).hexdigest() for path in new]
            self.committed(records, [entry for _, entry in report.ingested], hashes)

    @heavy
    @rule(specs=SPECS, calls=st.integers(1, 16), after=st.booleans())
    def kill(self, specs, calls, after):
        """The writer dies, its store with it: after another opens the corpus, all of the batch is there or none."""
        records = self.new(specs)
        self.corpus.store = self.corpus.registry.store = Dying(self.corpus.store, calls, after)
        with suppress(Killed):
            append(self.corpus, *records)
        self.corpus = Corpus.open(self.corpus.path)
        there = [record.header.record in self.corpus.entries for record in records]
        assert all(there) or not any(there)
        if all(there):
            self.committed(records, [self.corpus.entries.named(record.header.record) for record in records])
        else:
            self.nobodys += self.abandoned()
            self.unfinished = records

    @heavy
    @precondition(lambda self: self.unfinished)
    @rule()
    def resume(self):
        self.did(heavy=True)
        records, self.unfinished = self.unfinished, []
        self.committed(records, append(self.corpus, *records))

    @precondition(lambda self: self.stored)
    @rule(seed=SEEDS)
    def take_a_name_again(self, seed):
        """A record of a name that is there is refused."""
        self.did()
        with pytest.raises(RequestError):
            append(self.corpus, text(self.pick(seed), b"other"))

    @heavy
    @rule(specs=SPECS)
    def lose_a_race(self, specs):
        """Another writer commits the same names first: this one is told, and leaves nothing behind."""
        records = self.new(specs)
        other = Corpus.open(self.corpus.path)
        entries = append(other, *records)
        with pytest.raises(ConflictError):
            append(self.corpus, *records)
        self.corpus.refresh()
        self.committed(records, entries)
        self.abandoned()

    @heavy
    @rule(specs=SPECS)
    def collect_under_a_writer(self, specs):
        """gc that takes a living writer for dead: the writer cannot commit any more, and the same again can."""
        records, commit = self.new(specs), self.corpus.registry.commit

        def collected(*args):
            collect(Corpus.open(self.corpus.path), NOW)
            return commit(*args)

        self.corpus.registry.commit = collected
        with pytest.raises(ConflictError):
            append(self.corpus, *records)
        self.corpus.registry.commit = commit
        self.corpus.refresh()
        self.abandoned()
        self.nobodys = []
        self.unfinished = records

    @heavy
    @rule()
    def collect(self):
        self.did(heavy=True)
        collect(self.corpus, NOW)
        self.nobodys = []
        batches = [(stored.entry.header_start, stored.entry.stop) for stored in self.stored.values()]
        for name in ("bytes", "missing"):
            for number in self.corpus.shard_numbers(name):
                low, high = number * self.corpus.shard, (number + 1) * self.corpus.shard
                assert any(start < high and low < stop for start, stop in batches)

    @heavy
    @precondition(lambda self: self.stored)
    @rule(seed=SEEDS)
    def hold_out(self, seed):
        rng, name = np.random.default_rng(seed), self.pick(seed)
        self.did(heavy=True)
        held = Holdout(f"holdout {seed % 3}", name, region(rng, self.stored[name].entry.shape))
        assert self.corpus.add_holdouts([held]) == (held not in self.holdouts)
        self.holdouts.add(held)
        assert set(self.corpus.holdouts()) == self.holdouts
        assert len(self.corpus.holdouts()) == len(self.holdouts)

    @heavy
    @precondition(lambda self: self.corpus.address_bits < MOST_ADDRESS_BITS)
    @rule()
    def widen(self):
        self.did(heavy=True)
        bits = self.corpus.address_bits + 1
        self.corpus = self.corpus.widen(bits)
        assert self.corpus.size == 2**bits

    @rule()
    def be_refused(self):
        """A record that fits nowhere changes nothing and reserves nothing."""
        self.did()
        with pytest.raises(InputError, match="room for"):
            append(self.corpus, text("big.txt", bytes(self.corpus.size)))

    # ---- what only looks -------------------------------------------------------------------------------------------

    @heavy
    @rule()
    def verify(self):
        self.did(heavy=True)
        assert verify.verify(self.corpus) == []

    @heavy
    @rule()
    def reopen(self):
        self.did(heavy=True)
        version = self.corpus.version
        self.corpus = Corpus.open(self.corpus.path)
        assert self.corpus.version == version
        assert {entry.record for entry in self.corpus.entries} == set(self.stored)

    @heavy
    @rule(share=st.floats(0, 1))
    def open_an_older_version(self, share):
        self.did(heavy=True)
        version = round(share * self.corpus.version)
        self.older = Corpus.open(self.corpus.path, version)
        there = {name for name, stored in self.stored.items() if stored.version <= version}
        assert {entry.record for entry in self.older.entries} == there
        for name in there:
            self.same(self.older, name)

    @heavy
    @precondition(lambda self: self.stored)
    @rule(seed=SEEDS)
    def export(self, seed):
        self.did(heavy=True)
        name, out = self.pick(seed), self.root / "exported"
        done = export(self.corpus, [self.corpus.entries.named(name)], out, overwrite=True)
        assert done.refused == []
        [(_, path)] = done.files
        elements = self.stored[name].elements
        if path.suffix == ".npy":
            found = np.load(path)
            assert (found.dtype, found.shape) == (elements.dtype, elements.shape)
            assert found.tobytes() == elements.tobytes()
        else:
            assert path.read_bytes() == elements.tobytes()

    @precondition(lambda self: self.stored)
    @rule(seed=SEEDS)
    def read_an_older_version(self, seed):
        """A corpus opened at an older version reads what it read then, whatever was committed since."""
        self.did()
        names = sorted(entry.record for entry in self.older.entries)
        if names:
            self.same(self.older, names[seed % len(names)])

    @precondition(lambda self: self.stored)
    @rule(seed=SEEDS)
    def read_a_record(self, seed):
        self.did()
        self.same(self.corpus, self.pick(seed))

    @precondition(lambda self: self.stored)
    @rule(seed=SEEDS)
    def read_a_region(self, seed):
        self.did()
        name = self.pick(seed)
        stored, box = self.stored[name], region(np.random.default_rng(seed), self.stored[name].entry.shape)
        cut = tuple(slice(*ends) for ends in box)
        assert self.corpus.elements(stored.entry, box).tobytes() == stored.elements[cut].tobytes()
        assert (self.corpus.missing(stored.entry, box) == stored.missing[cut]).all()

    @rule(seed=SEEDS)
    def read_a_span(self, seed):
        self.did()
        rng = np.random.default_rng(seed)
        start = int(rng.integers(0, len(self.bytes) + 300))
        stop = start + int(rng.integers(0, 2000))
        self.same_bytes(self.corpus.read(start, stop), np.arange(start, stop))

    @rule(seed=SEEDS)
    def gather(self, seed):
        self.did()
        rng = np.random.default_rng(seed)
        ends_S = np.sort(rng.integers(0, len(self.bytes) + 300, (4, 2)), axis=1)
        ends_S[:, 1] = np.minimum(ends_S[:, 1], ends_S[:, 0] + 700)
        spans_S = spans.union(ends_S)
        self.same_bytes(self.corpus.gather(spans_S), spans.addresses(spans_S))

    @rule(seed=SEEDS)
    def look_up(self, seed):
        """Whose an address is."""
        self.did()
        address = seed % (len(self.bytes) + 300)
        owners = [e for e in (s.entry for s in self.stored.values()) if e.header_start <= address < e.stop]
        found = self.corpus.entries.at(address)
        assert found == (owners[0] if owners else None)

    # ---- the model -------------------------------------------------------------------------------------------------

    def did(self, heavy=False):
        self.steps += 1
        self.heavy += heavy

    def new(self, specs):
        """Records of names that were never used."""
        self.did(heavy=True)
        if 2 * len(self.bytes) > self.corpus.size:
            self.corpus = self.corpus.widen(self.corpus.address_bits + 1)
        first, self.names = self.names, self.names + len(specs)
        return [made(str(first + number), spec) for number, spec in enumerate(specs)]

    def pick(self, seed):
        return list(self.stored)[seed % len(self.stored)]

    def committed(self, records, entries, hashes=None):
        """Records of a batch are there, in order, at addresses that nobody had."""
        starts = [entry.header_start for entry in entries]
        assert starts == sorted(starts)
        assert starts[0] >= len(self.bytes)
        stop = aligned(entries[-1].stop, self.corpus.shard)
        self.bytes.extend(bytes(stop - len(self.bytes)))
        hashes = hashes or [hashlib.sha256(record.header.record.encode()).hexdigest() for record in records]
        for record, entry, source, next in zip(records, entries, hashes, [*starts[1:], stop], strict=True):
            self.write(record, entry, source, next)

    def write(self, record: Record, entry, source, next):
        geometry, first = record.header.geometry, entry.payload_start
        header = headers.encode(record.header, payload=first, next=next, source_sha256=source)
        block = payload.encode(geometry, record.elements, 0, geometry.extent, record.missing)
        for start, data in ((entry.header_start, header), (first, block.tobytes())):
            assert not any(self.bytes[start : start + len(data)])
            self.bytes[start : start + len(data)] = data
        elements = np.asarray(record.elements)
        missing = np.zeros(elements.shape, bool) if record.missing is None else np.asarray(record.missing)
        assert entry.header_bytes == len(header)
        assert entry.missing_bytes == geometry.planes * np.count_nonzero(missing)
        self.stored[entry.record] = Stored(elements, missing, entry, self.corpus.version)

    def abandoned(self):
        """The span of a batch that was reserved and is nobody's: none or one."""
        new = [r for r in self.corpus.registry.reservations() if r.start >= len(self.bytes)]
        assert [r.start for r in new] in ([], [len(self.bytes)])
        for given in new:
            self.bytes.extend(bytes(given.stop - given.start))
        return [(given.start, given.stop) for given in new]

    def same(self, corpus, name):
        """A record's row, header, values and marks are the model's."""
        stored = self.stored[name]
        entry = corpus.entries.named(name)
        assert entry == stored.entry
        assert corpus.header(entry).record == name
        elements = corpus.elements(entry)
        assert (elements.dtype, elements.shape) == (stored.elements.dtype, stored.elements.shape)
        assert elements.tobytes() == stored.elements.tobytes()
        assert (corpus.missing(entry) == stored.missing).all()

    def same_bytes(self, found, addresses_N):
        """Bytes at addresses are the model's; beyond what was handed out, 0; a dead writer's may be anything."""
        expected = np.zeros(max(len(self.bytes), int(addresses_N.max(initial=0)) + 1), np.uint8)
        expected[: len(self.bytes)] = np.frombuffer(self.bytes, np.uint8)
        somebodys = np.ones(len(expected), bool)
        for start, stop in self.nobodys:
            somebodys[start:stop] = False
        keep = somebodys[addresses_N]
        assert (found[keep] == expected[addresses_N][keep]).all()


def region(rng, shape):
    """A box in a shape that is not empty."""
    starts = [int(rng.integers(0, size)) for size in shape]
    return tuple((start, int(rng.integers(start + 1, size + 1))) for start, size in zip(starts, shape, strict=True))


CorpusMachine.TestCase.settings = settings(
    max_examples=EXAMPLES, stateful_step_count=STEPS, deadline=None, suppress_health_check=list(HealthCheck)
)
TestCorpus = CorpusMachine.TestCase
