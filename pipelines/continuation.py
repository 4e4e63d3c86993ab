"""Which addresses come next, and what a run says of them: after the corpus, after a record, at any address below 2^63.

After a text come the next bytes. After an image or a scan come the *blocks* behind it, where further records of its
geometry would lie. After the boards of a game come its next plies, for which its own payload has room.
"""

from collections.abc import Callable, Iterator, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from aunn_data import spans
from aunn_data.corpus import Corpus
from aunn_data.entries import Entry
from aunn_data.errors import RequestError
from aunn_data.record import Record
from aunn_model import continuation
from aunn_model.continuation import Choice, Continued, Drawn, Place, read_alike
from aunn_model.embedding import Embedding
from aunn_model.network import Network
from aunn_model.training import Settings, begin
from pipelines.fields import end_of
from pipelines.figures import categorical
from pipelines.train import deterministic

ADDRESSES = 1 << 63
SQUARES = 64
STEPS = 1 << 62  # of a constant rate: it never falls
RATE = 1e-4  # that keeps most bytes fed back and forgets little else; at 0.01 a trained network says one byte for ever


@dataclass(frozen=True)
class Asked:
    """A continuation to be: of ``entry``, or from an address on if it is None; ``sample`` counts those of one place.

    addresses_N: int64, those that hold elements, in order. start, stop: what they lie in. blocks: how many further
    records of the entry's geometry they are; plies: how many boards; both 0 of bytes.
    """

    entry: Entry | None
    sample: int
    start: int
    stop: int
    addresses_N: npt.NDArray[np.int64]
    blocks: int = 0
    plies: int = 0

    @property
    def name(self) -> str:
        """What it continues."""
        return f"address {self.start:,}" if self.entry is None else self.entry.record


@dataclass(frozen=True)
class Lengths:
    """How far to go: bytes of a text or from an address, blocks of images and scans, plies of games (None: as many as
    there is room for)."""

    bytes: int = 256
    blocks: int = 1
    plies: int | None = None


def asked(
    corpus: Corpus, after: Sequence[str], at: Sequence[int], lengths: Lengths, samples: int = 1, end: int | None = None
) -> list[Asked]:
    """What to continue: each record of ``after``, each address of ``at``; without either, ``end``, by default the first
    address after the corpus' last record. RequestError beyond the last address, and for a game without room."""
    places = [_after(corpus, corpus.entries.named(record), lengths) for record in after]
    for start in at if after or at else [end_of(corpus) if end is None else end]:
        places.append(_bytes(None, start, lengths.bytes))
    return [replace(place, sample=sample) for place in places for sample in range(samples)]


def seen(asked: Asked, trained_S: spans.Spans) -> float:
    """The share of its addresses that a run with these spans was trained on."""
    if not len(trained_S):
        return 0.0
    span_N = np.searchsorted(trained_S[:, 0], asked.addresses_N, side="right") - 1
    return float(np.mean((span_N >= 0) & (asked.addresses_N < trained_S[span_N, 1])))


def feeding(settings: Settings, optimizer: str = "sgd", lr: float = RATE) -> Settings:
    """The settings of a run for feeding bytes back to it: every step at one rate, no average of weights."""
    settings = replace(settings, optimizer=optimizer, sgd_lr=lr, adam_lr=lr, muon_lr=lr)
    return replace(settings, schedule="constant", warmup=0, steps=STEPS, ema=0.0, shard="none")


def go_on(
    network: Network,
    corpus: Corpus,
    asked: Sequence[Asked],
    choice: Choice,
    settings: Settings | None = None,
    legal: bool = False,
    on_addresses: Callable[[int], object] = lambda count: None,
) -> Iterator[tuple[Asked, Continued]]:
    """Yields what the network chooses at the addresses asked for, each as soon as it is whole.

    With ``settings`` every byte is fed back, into a copy of the network; without, all are asked at once. ``legal``:
    games go on by the legal moves whose boards are likeliest.
    """
    network = deepcopy(network)
    if isinstance(network.embedding, Embedding):
        for one in asked:
            _read_blocks_alike(network.embedding, corpus, one)
    places = [_place(corpus, one, choice, legal) for one in asked]
    if settings is None:
        found = continuation.open_loop(network, places, on_addresses)
    else:
        found = continuation.feed_back(begin(network, settings), settings, places, on_addresses)
    with deterministic():
        for number, continued in found:
            yield asked[number], continued


def _after(corpus: Corpus, entry: Entry, lengths: Lengths) -> Asked:
    if entry.modality == "text" or entry.axes == ("byte",):
        return _bytes(entry, entry.payload_start + entry.payload_bytes, lengths.bytes)  # padding is room to go on
    if entry.modality == "chess" and entry.axes[0] == "ply":
        return _plies(entry, lengths.plies)
    return _blocks(corpus, entry, lengths.blocks)


def _bytes(entry: Entry | None, start: int, count: int) -> Asked:
    _check(entry.record if entry else "address", start, start + count)
    return Asked(entry, 0, start, start + count, start + np.arange(count, dtype=np.int64))


def _plies(entry: Entry, count: int | None) -> Asked:
    geometry, given = entry.geometry, entry.shape[0]
    room = 0 if entry.layout == "packed" else (1 << len(geometry.axis_bits[0])) - given
    count = room if count is None else count
    if not 0 < count <= room:
        raise RequestError(
            entry.record,
            expected=f"room for {count or 'more'} plies after the last of {given}",
            found=f"room for {room} in its payload",
            remedy="ask for fewer --plies, or for bytes --at an address",
        )
    offsets_N = geometry.offsets(((given, given + count), *geometry.whole[1:])).reshape(-1)
    addresses_N = entry.payload_start + offsets_N
    return Asked(entry, 0, int(addresses_N[0]), int(addresses_N[-1]) + 1, addresses_N, plies=count)


def _blocks(corpus: Corpus, entry: Entry, count: int) -> Asked:
    owner = corpus.entries.at(entry.payload_start) or entry  # exact duplicates share the payload of the first
    period, geometry = owner.stop - owner.header_start, entry.geometry
    start = entry.payload_start + period
    stop = start + (count - 1) * period + geometry.extent
    _check(entry.record, start, stop)
    planes = np.arange(geometry.planes, dtype=np.int64) * geometry.plane_extent
    within_N = (planes[:, None] + geometry.offsets(geometry.whole).reshape(-1)).reshape(-1)
    addresses_N = (start + np.arange(count, dtype=np.int64)[:, None] * period + within_N).reshape(-1)
    return Asked(entry, 0, start, stop, addresses_N, blocks=count)


def _check(what: str, start: int, stop: int) -> None:
    if stop > ADDRESSES:
        raise RequestError(
            what, expected="addresses below 2^63", found=f"{start}:{stop}", remedy="begin lower, or ask for less"
        )


def _read_blocks_alike(embedding: Embedding, corpus: Corpus, asked: Asked) -> None:
    """Blocks where no record lies are read as the record before them is."""
    if asked.entry is None or not asked.blocks:
        return
    extent = asked.entry.geometry.extent
    period = (asked.stop - extent - asked.start) // max(1, asked.blocks - 1)
    for start in (asked.start + block * period for block in range(asked.blocks)):
        if not any(True for _ in corpus.entries.within(start, start + extent)):
            read_alike(embedding, start, start + extent, asked.entry.payload_start)


def _place(corpus: Corpus, asked: Asked, choice: Choice, legal: bool) -> Place:
    quantities = (
        asked.blocks > 0 and asked.entry is not None and not categorical(Record(corpus.header(asked.entry), None))
    )
    pick = Drawn(choice, asked.start, asked.sample, quantities)
    if not (legal and asked.plies and asked.entry):
        return Place(asked.addresses_N, pick)
    from pipelines.chess.continuation import legal_pick

    return Place(asked.addresses_N, legal_pick(corpus.record(asked.entry), pick), SQUARES)
