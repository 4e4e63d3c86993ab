"""Spans behave as the sets of addresses that they stand for."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from aunn_data import spans

sets = st.sets(st.integers(0, 60))


def of(addresses):
    mask = np.zeros(64, np.bool_)
    mask[list(addresses)] = True
    return spans.of_mask(mask)


def as_set(found):
    return set(spans.addresses(found).tolist())


@given(sets, sets)
def test_union_and_difference_are_those_of_sets(a, b):
    """Union and difference of spans hold the addresses that they do for sets, ascending, disjoint and merged."""
    assert as_set(spans.union(of(a), of(b))) == a | b
    assert as_set(spans.difference(of(a), of(b))) == a - b
    for found in (spans.union(of(a), of(b)), spans.difference(of(a), of(b))):
        assert (found[:, 0] < found[:, 1]).all()
        assert (found[1:, 0] > found[:-1, 1]).all()


@given(st.lists(st.tuples(st.integers(0, 40), st.integers(0, 20))))
def test_union_takes_spans_in_any_order_that_overlap_or_are_empty(pairs):
    """Unsorted, overlapping, nested and empty spans are joined to the set they cover."""
    given_spans = np.array([(a, a + n) for a, n in pairs], np.int64).reshape(-1, 2)
    assert as_set(spans.union(given_spans)) == {x for a, n in pairs for x in range(a, a + n)}


@given(sets)
def test_ranks_count_the_addresses_before(a):
    """Size and ranks agree with the list of addresses."""
    found = of(a)
    assert spans.size(found) == len(a)
    assert spans.ranks(found)[-1] == len(a)
    assert spans.addresses(found).tolist() == sorted(a)


@given(sets)
def test_spans_of_addresses_are_the_inverse_of_the_addresses_of_spans(a):
    """Ascending addresses -> spans -> the same addresses; spans -> addresses -> the same spans."""
    addresses_N = np.array(sorted(a), np.int64)
    assert spans.addresses(spans.of_addresses(addresses_N)).tolist() == addresses_N.tolist()
    assert spans.of_addresses(addresses_N).tolist() == of(a).tolist()
