"""The way from header to header: what the byte list tells of itself, without any registry."""

from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import dataclass

from aunn_data import header as headers
from aunn_data.corpus import Corpus
from aunn_data.errors import CorpusError
from aunn_data.header import Header, Preamble
from aunn_data.reading import Ascending


@dataclass(frozen=True)
class Link:
    """A header found at address ``start``."""

    start: int
    preamble: Preamble
    header: Header

    @property
    def stop(self) -> int:
        """Where the record's payload ends."""
        return self.preamble.payload + self.preamble.extent


def chain(corpus: Corpus) -> Iterator[Link]:
    """All headers, committed or left by a writer that died, by address. CorpusError where the bytes cannot be read.

    A batch's headers lead from one to the next, and the last to where the batch stops. Where no header stands, or not
    all of one, a writer has died, and the next one is looked for at the beginning of the next shard that exists.
    """
    numbers, address, bytes_ = corpus.shard_numbers("bytes"), 0, Ascending(corpus)
    existing = set(numbers)
    while (there := bisect_left(numbers, address // corpus.shard)) < len(numbers):
        address = max(address, numbers[there] * corpus.shard)
        link = _link(bytes_, existing, address)
        if link:
            yield link
        address = link.preamble.next if link else (address // corpus.shard + 1) * corpus.shard


def _link(bytes_: Ascending, existing: set[int], address: int) -> Link | None:
    size, shard, where = bytes_.corpus.size, bytes_.corpus.shard, f"{bytes_.corpus.name} at {address}"

    def whole(stop: int) -> bool:
        return existing.issuperset(range(address // shard, -(-stop // shard)))

    data = bytes_.read(address, min(address + headers.PREAMBLE_BYTES, size)).tobytes()
    if not data.startswith(headers.MAGIC) or not whole(address + headers.PREAMBLE_BYTES):
        return None
    preamble = headers.decode_preamble(data, where)
    own = address < preamble.payload <= preamble.payload + preamble.extent <= preamble.next
    shared = preamble.payload + preamble.extent <= address < address + preamble.header <= preamble.next
    if not (own or shared) or preamble.next > size:
        raise CorpusError(
            where,
            expected="a header, its payload and the next header in this order",
            found=f"payload {preamble.payload}, extent {preamble.extent}, next {preamble.next}",
            remedy="restore the shard from a copy",
        )
    if not whole(address + preamble.header):
        return None
    header = headers.decode(bytes_.read(address, address + preamble.header).tobytes(), where)
    return Link(address, preamble, header)
