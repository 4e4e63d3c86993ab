"""Sets of addresses as spans: (S, 2) int64 half-open ranges, ascending, disjoint, none empty.

Legend: S, T spans; N addresses. A span's *rank* is the number of addresses in the spans before it.
"""

import numpy as np
import numpy.typing as npt

Spans = npt.NDArray[np.int64]

NONE: Spans = np.empty((0, 2), np.int64)


def joined(spans_S: Spans) -> Spans:
    """Ascending spans with those that touch or overlap made one."""
    if len(spans_S) < 2:
        return spans_S
    reach = np.maximum.accumulate(spans_S[:, 1])
    first = np.concatenate(([True], spans_S[1:, 0] > reach[:-1]))
    last = np.concatenate((first[1:], [True]))
    return np.stack([spans_S[first, 0], reach[last]], axis=1)


def union(*parts: Spans) -> Spans:
    """All addresses that are in any of the parts."""
    spans = np.concatenate([NONE, *parts])
    spans = spans[spans[:, 0] < spans[:, 1]]
    return joined(spans[np.argsort(spans[:, 0], kind="stable")])


def difference(spans_S: Spans, minus_T: Spans) -> Spans:
    """The addresses of the first that are not in the second."""
    if not len(minus_T) or not len(spans_S):
        return spans_S
    # Sweep over all ends: +1 opens a span of the first, +2 one of the second; kept is where the sum is exactly 1.
    ends = np.concatenate([spans_S[:, 0], spans_S[:, 1], minus_T[:, 0], minus_T[:, 1]])
    steps = np.repeat([1, -1, 2, -2], [len(spans_S), len(spans_S), len(minus_T), len(minus_T)])
    order = np.argsort(ends, kind="stable")
    ends, state = ends[order], np.cumsum(steps[order])
    kept = (state[:-1] == 1) & (ends[:-1] < ends[1:])
    return joined(np.stack([ends[:-1][kept], ends[1:][kept]], axis=1))


def intersection(spans_S: Spans, other_T: Spans) -> Spans:
    """The addresses that are in both."""
    return difference(spans_S, difference(spans_S, other_T)) if len(other_T) else NONE


def size(spans_S: Spans) -> int:
    """Number of addresses."""
    return int((spans_S[:, 1] - spans_S[:, 0]).sum())


def ranks(spans_S: Spans) -> npt.NDArray[np.int64]:
    """(S + 1,) rank of each span; the last is the number of addresses."""
    return np.concatenate(([0], np.cumsum(spans_S[:, 1] - spans_S[:, 0])))


def addresses(spans_S: Spans) -> npt.NDArray[np.int64]:
    """(N,) every address, ascending."""
    rank = ranks(spans_S)
    return np.arange(rank[-1], dtype=np.int64) + np.repeat(spans_S[:, 0] - rank[:-1], np.diff(rank))


def of_addresses(addresses_N: npt.NDArray[np.int64]) -> Spans:
    """Spans of ascending addresses, none of them twice: the inverse of ``addresses``."""
    if not len(addresses_N):
        return NONE
    breaks = np.flatnonzero(np.diff(addresses_N) > 1) + 1
    first = addresses_N[np.concatenate(([0], breaks))]
    return np.stack([first, addresses_N[np.concatenate((breaks, [len(addresses_N)])) - 1] + 1], axis=1)


def mask(spans_S: Spans, start: int, stop: int) -> npt.NDArray[np.bool_]:
    """(stop - start,) which of the addresses ``start:stop`` lie in the spans: the inverse of ``of_mask``."""
    first, last = np.searchsorted(spans_S[:, 1], start, "right"), np.searchsorted(spans_S[:, 0], stop)
    inside_S = np.clip(spans_S[first:last], start, stop) - start
    ends = np.zeros(stop - start + 1, np.int8)
    np.add.at(ends, inside_S[:, 0], 1)
    np.add.at(ends, inside_S[:, 1], -1)
    return np.cumsum(ends[:-1], dtype=np.int8).view(np.bool_)


def of_mask(mask_N: npt.NDArray[np.bool_], start: int = 0) -> Spans:
    """Spans of the True places of a mask whose first place is address ``start``."""
    edges = np.flatnonzero(np.diff(mask_N.astype(np.int8), prepend=0, append=0))
    return edges.reshape(-1, 2).astype(np.int64) + start
