"""Pooling: experts weighed by what the checks show, intervals that cover what they claim."""

import numpy as np
import pytest

from pipelines import pooling
from pipelines.pooling import LEVELS, Opinions

COUNT = 4000
LOCAL = [False, True, True]  # the network is not, the fill and the noise are


def said(seed, network=3.0, fill=4.0, count=COUNT):
    """A network whose error is ``network`` times its spread, a fill that is worse with distance, one that is noise."""
    rng = np.random.default_rng(seed)
    truth_n, spread_n = rng.normal(100, 30, count), np.exp(rng.normal(0, 1, count))
    distance_n = rng.integers(1, 9, count).astype(np.float64)
    means = (
        truth_n + network * spread_n * rng.normal(size=count),
        truth_n + fill / 4 * distance_n * rng.normal(size=count),
        rng.normal(100, 30, count),
    )
    return Opinions(np.stack(means, axis=1), spread_n, distance_n), truth_n


def rmse(values_n, truth_n):
    return float(np.sqrt(np.mean((values_n - truth_n) ** 2)))


def test_the_pool_is_better_than_its_best_expert():
    """Where the network is sure it is heard, near what is known the fill is: better than either on new elements."""
    checks, shown = said(0)
    new, truth_n = said(1)
    pooled = pooling.fit(checks, shown, LOCAL)(new)
    best = min(rmse(new.means_nE[:, e], truth_n) for e in range(3))
    assert rmse(pooled.mean_n, truth_n) < 0.8 * best


def test_an_expert_that_knows_nothing_is_not_heard():
    """Noise has hardly any weight; the weights are shares."""
    pool = pooling.fit(*said(0), LOCAL)
    assert pool.weights[2] < 0.05
    assert pool.weights.sum() == pytest.approx(1)


def test_intervals_cover_what_they_claim():
    """Of new elements like the checks each interval holds its share, to three in a hundred."""
    pool = pooling.fit(*said(0), LOCAL)
    new, truth_n = said(1)
    assert np.abs(pool(new).coverage(truth_n) - LEVELS).max() < 0.03


def test_intervals_widen_where_the_network_is_unsure():
    """The spread follows the network's own: calibrated, not constant."""
    new, _ = said(1)
    width_n = pooling.fit(*said(0), LOCAL)(new).half_width(0.9)
    unsure = new.spread_n > np.quantile(new.spread_n, 0.9)
    assert width_n[unsure].mean() > 1.2 * width_n[~unsure].mean()


def test_a_scale_changes_nothing_but_the_scale():
    """Values a thousand times as large are pooled into values and widths a thousand times as large."""
    checks, shown = said(0)
    new, _ = said(1)
    plain = pooling.fit(checks, shown, LOCAL)(new)
    large = [Opinions(1000 * o.means_nE, 1000 * o.spread_n, o.distance_n) for o in (checks, new)]
    scaled = pooling.fit(large[0], 1000 * shown, LOCAL)(large[1])
    assert scaled.mean_n == pytest.approx(1000 * plain.mean_n, rel=1e-3)
    assert scaled.half_width(0.9) == pytest.approx(1000 * plain.half_width(0.9), rel=1e-2)


def test_where_experts_disagree_as_never_before_neighbours_are_not_asked():
    """Far beyond the disagreement of the checks those who only go on with what is beside them fall silent."""
    means = np.array([[100.0, 90_000.0, -30_000.0]])
    far = Opinions(means, np.ones(1), np.ones(1))
    assert pooling.fit(*said(0), LOCAL)(far).mean_n == pytest.approx([100.0], rel=0.01)
    assert pooling.fit(*said(0), [False] * 3)(far).mean_n != pytest.approx([100.0], rel=1)


def test_too_few_checks_fit_nothing():
    """With fewer than fifty elements there is no pool, rather than one that was guessed."""
    assert pooling.fit(*said(0, count=49), LOCAL) is None
    assert pooling.fit(*said(0, count=50), LOCAL) is not None


def test_without_a_pool_the_network_speaks_for_itself():
    """Mean and spread are the network's own, the intervals the normal distribution's."""
    new, _ = said(1)
    alone = pooling.trusting(new)
    assert (alone.mean_n == new.means_nE[:, 0]).all()
    assert alone.half_width(0.9) == pytest.approx(1.645 * new.spread_n, rel=1e-3)


def test_experts_that_agree_exactly_are_no_division_by_zero():
    """All of one mind, and right: the value is theirs, and every figure is finite."""
    checks, shown = said(0)
    same = Opinions(np.repeat(shown[:, None], 3, axis=1), checks.spread_n, checks.distance_n)
    pooled = pooling.fit(same, shown, LOCAL)(same)
    assert pooled.mean_n == pytest.approx(shown)
    assert np.isfinite(pooled.half_width(0.99)).all()
    assert np.isfinite(pooled.coverage(shown)).all()


def test_surprise_is_that_of_the_unit_cell():
    """A sure and right prediction of an integer costs next to nothing, ignorance of width w about log2 w bits."""
    sure = pooling.Pooled(np.full(9, 7.0), np.full(9, 1e-3), np.ones(len(LEVELS)))
    vague = pooling.Pooled(np.full(9, 7.0), np.full(9, 100.0), np.ones(len(LEVELS)))
    assert sure.bits(np.full(9, 7.0)) < 1e-3
    assert 7 < vague.bits(np.full(9, 7.0)) < 9
