"""Sources read ahead, by other processes or other machines, and handed over in the order in which they were given.

To a worker goes a handful of sources; what comes back are their records, if these are small. A source that is big, or
turns out to be, is read here, lazily; one that its format can cut into pieces (a dump of games) goes out in pieces.
A reader that crashes its process (a decoder that dies of a hostile file) costs that one file.
"""

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import BrokenExecutor, Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from importlib import import_module
from multiprocessing import get_context
from typing import Any

import numpy as np

from aunn_data import batch
from aunn_data.batch import Sha256
from aunn_data.errors import InputError, RequestError
from aunn_data.geometry import Geometry
from aunn_data.record import Record, Records
from aunn_data.store import store_at
from pipelines import formats
from pipelines.records import Found, each, finished, leaves, records_of
from pipelines.source import Source

TASK_BYTES = 1 << 24  # sources are packed together until they have so many bytes on the disk …
TASK_SOURCES = 256  # … or are so many; bigger ones are read here
CUT_BYTES = 1 << 17  # of a file that its format can cut, though it be small: it takes long to read
RETURN_BYTES = 1 << 26  # payload bytes that come back from one task
HASH_ASIDE = 1 << 22  # bytes of a source from which its hash is made while its records go in
WORTH_BYTES, WORTH_SOURCES = 1 << 23, 400  # less is read before other processes have started
FAR_BYTES = 1 << 28  # of a volume from which the workers of a cluster share its shards
CONNECT_SECONDS = 10


@dataclass(frozen=True)
class Read:
    """A source that is no archive: its hash, and what its reader gives."""

    source: Source
    sha256: Sha256
    found: Iterable[Found]


Reading = Read | InputError | Source
"""What was read, what was refused, and each source that was given, once all that is in it has come."""


class Pool:
    """Where sources are read: an executor that is made anew when it breaks, and how many tasks it does at once.

    ``far``: on other machines, so that there is something to gain from having a big volume written there.
    """

    def __init__(
        self, make: Callable[[], Executor], workers: int, crashes: tuple[type[BaseException], ...], far: bool = False
    ):
        self.make, self.workers, self.crashes, self.far = make, workers, crashes, far
        self.executor = make()

    def submit(self, function: Callable[..., Any], *arguments: Any) -> "Future[Any]":
        """Asks for one call; an executor that has broken meanwhile is replaced first."""
        try:
            return self.executor.submit(function, *arguments)
        except BrokenExecutor:
            self.renew()
            return self.executor.submit(function, *arguments)

    def renew(self) -> None:
        """Another executor in the place of the broken one."""
        self.executor.shutdown(wait=False, cancel_futures=True)
        self.executor = self.make()


@contextmanager
def processes(workers: int) -> Iterator[Pool]:
    """So many processes on this machine (spawned: zarr's threads do not survive a fork)."""
    pool = Pool(lambda: ProcessPoolExecutor(workers, mp_context=get_context("spawn")), workers, (BrokenExecutor,))
    try:
        yield pool
    finally:
        pool.executor.shutdown(cancel_futures=True)


@contextmanager
def cluster(address: str) -> Iterator[Pool]:
    """A dask.distributed cluster whose workers see the same paths. RequestError without dask or without a scheduler."""
    try:
        distributed = import_module("distributed")
        killed = import_module("distributed.scheduler").KilledWorker
    except ImportError as error:
        raise RequestError(
            "--dask", expected="dask.distributed", found=str(error), remedy="pip install 'aunn[scale]'"
        ) from error
    try:
        client = distributed.Client(address, timeout=CONNECT_SECONDS, set_as_default=False)
    except (OSError, ValueError) as error:
        raise RequestError(
            f"--dask {address}",
            expected="the address of a dask scheduler",
            found=str(error) or type(error).__name__,
            remedy="start `dask scheduler` and `dask worker` and give its tcp://HOST:PORT",
        ) from error
    with client:
        workers = max(1, sum(client.nthreads().values()))
        yield Pool(lambda: client.get_executor(pure=False), workers, (killed,), far=True)


@dataclass(frozen=True)
class Workers:
    """Who reads: so many processes (None: one a core, where there is enough to read), or a dask cluster."""

    count: int | None = None
    dask: str | None = None

    @contextmanager
    def pool(self, total_bytes: int, sources: int) -> Iterator[Pool | None]:
        """The pool for so much; None where this process reads everything."""
        worth = total_bytes >= WORTH_BYTES or sources >= WORTH_SOURCES
        count = self.count or ((os.cpu_count() or 1) if worth else 1)
        with ExitStack() as stack:
            if self.dask:
                yield stack.enter_context(cluster(self.dask))
            else:
                yield stack.enter_context(processes(count)) if count > 1 else None


ALONE = Workers(1)


def read_all(
    given: Iterable[Source | InputError], pool: Pool | None, known: Callable[[str], str | None]
) -> Iterator[Reading]:
    """All that is in the sources, in order.

    ``known`` gives the SHA-256 of the source that a record of the corpus was made from: an equal one is not read again.
    """
    with ThreadPoolExecutor(1) as hasher:
        here = _Here(pool, hasher)
        yield from here.all(given) if pool is None else _Ahead(pool, known, here).all(given)


class _Here:
    """Reads in this process, lazily."""

    def __init__(self, pool: Pool | None, hasher: ThreadPoolExecutor):
        self.pool, self.hasher = pool, hasher

    def all(self, given: Iterable[Source | InputError]) -> Iterator[Reading]:
        for source in given:
            if isinstance(source, Source):
                yield from self.one(source)
            yield source

    def one(self, source: Source) -> Iterator[Read | InputError]:
        for leaf in leaves(source):
            try:
                yield leaf if isinstance(leaf, InputError) else Read(leaf, self._sha256(leaf), self._records(leaf))
            except InputError as error:
                yield error
            if isinstance(leaf, Source):
                leaf.let_go()

    def _sha256(self, source: Source) -> Sha256:
        aside = source.size() >= HASH_ASIDE
        return self.hasher.submit(lambda: source.sha256) if aside else source.sha256

    def _records(self, source: Source) -> Iterator[Found]:
        if self.pool is None:
            return records_of(source)
        if _is_cut(source):
            return finished(source, _in_pieces(self.pool, source))
        if not self.pool.far or source.depth or source.size() < FAR_BYTES or source.codecs:
            return records_of(source)
        return map(partial(_spread, self.pool, source), records_of(source))


class _Ahead:
    """Keeps a pool busy with the sources that come next."""

    def __init__(self, pool: Pool, known: Callable[[str], str | None], here: _Here):
        self.pool, self.known, self.here = pool, known, here
        self.waiting: deque[_Job] = deque()

    def all(self, given: Iterable[Source | InputError]) -> Iterator[Reading]:
        groups = _packed(given)
        while True:
            while len(self.waiting) < 2 * self.pool.workers and (group := next(groups, None)):
                self.waiting.append(self._asked(group))
            if not self.waiting:
                return
            yield from self._answer(self.waiting.popleft())

    def _asked(self, group: "list[Source | InputError]") -> "_Job":
        sources = [source for source in group if isinstance(source, Source)]
        if len(sources) < len(group) or sources[0].size() >= TASK_BYTES or _is_cut(sources[0]):
            return _Job(group, None)
        known = {source.name: sha256 for source in sources if (sha256 := self.known(source.name))}
        return _Job(group, self.pool.submit(_read_small, sources, known, RETURN_BYTES))

    def _answer(self, job: "_Job") -> Iterator[Reading]:
        if job.future is None:
            yield from self.here.all(job.given)
            return
        try:
            answers = job.future.result()
        except self.pool.crashes:
            self.pool.renew()
            yield from self._one_by_one(job)
            self.waiting = deque(self._asked(other.given) if other.future else other for other in self.waiting)
            return
        for source, answer in zip(job.given, answers, strict=False):
            if answer is None:
                yield from self.here.all([source])
            else:
                yield from answer
                yield source
        if rest := job.given[len(answers) :]:
            yield from self._answer(self._asked(rest))

    def _one_by_one(self, job: "_Job") -> Iterator[Reading]:
        """After a crash: who did it?"""
        for source in job.given:
            try:
                alone = self._asked([source])
                if alone.future:
                    alone.future.result()
                yield from self._answer(alone)
            except self.pool.crashes:
                self.pool.renew()
                yield InputError(
                    source.label if isinstance(source, Source) else "",
                    expected="a file that its reader survives",
                    found="a crash of the process that read it",
                    remedy="leave it out, and report it: this is a fault of the reader or of the decoder behind it",
                )
                yield source


@dataclass(frozen=True)
class _Job:
    """A handful of sources; None for those to be read here."""

    given: "list[Source | InputError]"
    future: "Future[list[list[Read | InputError] | None]] | None"


def _is_cut(source: Source) -> bool:
    """Is it worth cutting into pieces?"""
    try:
        return source.size() >= CUT_BYTES and formats.recognise(source) in formats.CUTTABLE
    except InputError:
        return False


def _packed(given: Iterable[Source | InputError]) -> Iterator[list[Source | InputError]]:
    """Small sources together; big ones, and errors, alone."""
    group: list[Source | InputError] = []
    total = 0
    for source in given:
        size = TASK_BYTES if isinstance(source, InputError) or _is_cut(source) else source.size()
        if group and (total + size > TASK_BYTES or len(group) == TASK_SOURCES):
            yield group
            group, total = [], 0
        group.append(source)
        total += size
    if group:
        yield group


def _read_small(sources: Sequence[Source], known: dict[str, str], left: int) -> list[list[Read | InputError] | None]:
    """In a worker: what is in each source, up to ``left`` bytes of payload; None for one that is too much alone."""
    answers: list[list[Read | InputError] | None] = []
    for source in sources:
        found, left = _materialised(source, known, left)
        if found is None and answers:
            return answers  # asked for again, by itself
        answers.append(found)
    return answers


def _materialised(source: Source, known: dict[str, str], left: int) -> tuple[list[Read | InputError] | None, int]:
    readings: list[Read | InputError] = []
    for leaf in leaves(source):
        if isinstance(leaf, InputError):
            readings.append(leaf)
            continue
        records: list[Found] = []
        try:
            if known.get(leaf.name) != leaf.sha256:
                for record in records_of(leaf):
                    left -= _payload_bytes(record)
                    if left < 0:
                        return None, 0
                    records.append(_in_memory(record))
        except InputError as error:
            records.append(error)
        try:
            readings.append(Read(leaf, leaf.sha256, records))
        except InputError as error:
            readings.append(error)
    return readings, left


def _payload_bytes(found: Found) -> int:
    if isinstance(found, Records):
        return sum(geometry.payload_bytes for geometry in found.geometry)
    return found.header.geometry.payload_bytes if isinstance(found, Record) else 0


def _in_memory(found: Found) -> Found:
    if not isinstance(found, Record):  # columns are in memory, or parts of a mapped array that go as they are
        return found
    missing = None if found.missing is None else np.asarray(found.missing[...])
    return replace(found, elements=np.array(found.elements[...]), missing=missing)


def _in_pieces(pool: Pool, source: Source) -> Iterator[Found]:
    """The records of a source that its format cuts into pieces, a few pieces ahead."""
    [format] = [format for format in formats.CUTTABLE if format is formats.recognise(source)]
    waiting: deque[Future[list[Found]]] = deque()
    for piece in format.pieces(source):
        waiting.append(pool.submit(_read_piece, format.__name__, source, piece))
        if len(waiting) > 2 * pool.workers:
            yield from waiting.popleft().result()
    while waiting:
        yield from waiting.popleft().result()


class Far:
    """Array-like whose shards are written by the pool's workers, who read the source for themselves."""

    def __init__(self, elements: Any, pool: Pool, source: Source, record: str):
        self.elements, self.pool, self.source, self.record = elements, pool, source, record
        self.shape, self.dtype = elements.shape, elements.dtype

    def __getitem__(self, key: Any) -> Any:
        return self.elements[key]

    def __len__(self) -> int:
        return int(self.shape[0])

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Any:
        return np.asarray(self.elements, dtype)

    def write_far(self, store: str, shard: int, geometry: Geometry, start: int, first: int) -> "Future[None]":
        """Asks for the shard at offset ``first`` of the payload that begins at address ``start``."""
        return self.pool.submit(_write_shard, self.source, self.record, store, shard, geometry, start, first)


def _spread(pool: Pool, source: Source, found: Found) -> Found:
    """The record, to be written by all workers if it is big."""
    if not isinstance(found, Record) or found.header.geometry.payload_bytes < FAR_BYTES:
        return found
    return replace(found, elements=Far(found.elements, pool, source, found.header.record))


@lru_cache(maxsize=1)
def _record_of(source: Source, name: str) -> Record:
    """In a worker: the record, looked for once for all shards of it that come here."""
    return next(r for r in each(records_of(source)) if isinstance(r, Record) and r.header.record == name)


def _write_shard(source: Source, name: str, store: str, shard: int, geometry: Geometry, start: int, first: int) -> None:
    """In a worker."""
    record = _record_of(source, name)
    batch.write_shard(store_at(store), shard, geometry, record.elements, record.missing, start, first)


def _read_piece(name: str, source: Source, piece: Any) -> list[Found]:
    """In a worker."""
    [format] = [format for format in formats.CUTTABLE if format.__name__ == name]
    return list(format.read_piece(source, piece))
