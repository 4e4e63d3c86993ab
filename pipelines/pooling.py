"""The network's opinion and the classical fills' made one, weighed and calibrated on the checks.

Every expert e (the network, each fill) says a value m_e for an element. The pooled value is sum_e w_e m_e with weights
w = softmax_e(a_e + b_e log(1 + d) + [e is the network] c log s), where d is the distance to the nearest known element
and s the network's own standard deviation: far from what is known fills fade, and a network that is sure is heard.
Where experts disagree more than on nine of ten checks, those who only carry the edge of a hole into it (``local``) fall
silent: the place may be unlike its edge.
The spread is exp(g_0 + g_1 log s + g_2 log(1 + d) + g_3 log(1 + disagreement)). The few parameters a, b, c, g are
fitted to the checks, which neither the network nor the fills were given: weights by squared error, the spread by
likelihood of Student's t. Intervals are mean +- q spread; q are quantiles of what the checks show (split conformal
prediction: Lei et al., "Distribution-free predictive inference for regression", 2018), so they cover what they claim
wherever the holes are like the checks.

Legend: n elements, E experts, the network first; L levels.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

Floats = npt.NDArray[np.float64]

LEVELS = np.array([*np.arange(0.05, 0.96, 0.05), 0.98, 0.99])
LEAST = 50  # checked elements without which nothing can be fitted
MOST = 50_000  # checked elements that are looked at
FREEDOM = 4.0  # of Student's t
USUAL = 0.9  # of the checks have less disagreement than is unusual
EXACT = 1e-6  # of the best expert's error: nothing is known better, or the spread would shrink for ever
RIDGE = 1e-3  # pulls towards equal weights, as checks are few


@dataclass(frozen=True)
class Opinions:
    """What is said of n elements: ``means_nE``, the network's ``spread_n``, and ``distance_n`` to what is known."""

    means_nE: Floats
    spread_n: Floats
    distance_n: Floats

    @classmethod
    def joined(cls, parts: Sequence["Opinions"]) -> "Opinions":
        """The opinions of several records together."""
        columns = zip(*((part.means_nE, part.spread_n, part.distance_n) for part in parts), strict=True)
        return cls(*map(np.concatenate, columns))

    def some(self, chosen: npt.NDArray[np.int64]) -> "Opinions":
        """The opinions on some of the elements."""
        return Opinions(self.means_nE[chosen], self.spread_n[chosen], self.distance_n[chosen])


@dataclass(frozen=True)
class Pooled:
    """For n elements: the value, and how far the intervals of LEVELS reach to both sides, all in stored units."""

    mean_n: Floats
    spread_n: Floats
    reach_L: Floats

    def half_width(self, level: float) -> Floats:
        """(n,) half the width of the interval of a level."""
        return self.spread_n * float(np.interp(level, LEVELS, self.reach_L))

    def coverage(self, truth_n: Floats) -> Floats:
        """(L,) share of the truth that lies within each interval; nominal is LEVELS."""
        off_n = np.abs(truth_n - self.mean_n) / self.spread_n
        return np.asarray((off_n[:, None] <= self.reach_L).mean(axis=0))

    def bits(self, truth_n: Floats) -> float:
        """Mean surprise at integer truths, in bits an element, by Student's t over each integer's unit cell."""
        from scipy import stats

        low, high = ((truth_n + side - self.mean_n) / self.spread_n for side in (-0.5, 0.5))
        chance_n = stats.t.cdf(high, FREEDOM) - stats.t.cdf(low, FREEDOM)
        return float(-np.log2(np.maximum(chance_n, 1e-12)).mean())


@dataclass(frozen=True)
class Pool:
    """The fitted parameters; ``weights`` says for the report what share each expert had on the checks."""

    a_E: Floats
    b_E: Floats
    c: float
    usual: float
    local_E: npt.NDArray[np.bool_]
    g: Floats
    scale: float
    reach_L: Floats
    weights: Floats

    def __call__(self, said: Opinions) -> Pooled:
        """The pooled opinion on n elements."""
        x = _Terms(said, self.scale)
        a_E, b_E, c, usual = map(torch.as_tensor, (self.a_E, self.b_E, self.c, self.usual))
        weight_nE = _heard(x, _weights(x, a_E, b_E, c), usual, self.local_E)
        mean_n = (weight_nE * x.means_nE).sum(1)
        spread_n = _spread(x, mean_n, torch.as_tensor(self.g))
        return Pooled(mean_n.numpy() * self.scale, spread_n.numpy() * self.scale, self.reach_L)


def fit(said: Opinions, truth_n: Floats, local_E: Sequence[bool], seed: int = 0) -> Pool | None:
    """The pool that serves the checks best; None if there are too few. ``local_E``: who knows the edge alone."""
    if len(truth_n) < LEAST:
        return None
    if len(truth_n) > MOST:
        chosen = np.sort(np.random.default_rng(seed).choice(len(truth_n), MOST, replace=False))
        said, truth_n = said.some(chosen), truth_n[chosen]
    experts = said.means_nE.shape[1]
    scale = float(np.sqrt(((said.means_nE - truth_n[:, None]) ** 2).mean(axis=0)).min()) or 1.0  # of the best expert
    x, truth = _Terms(said, scale), torch.from_numpy(truth_n / scale)

    def error(parameters: Tensor) -> Tensor:
        weight_nE = _weights(x, *_split(parameters, experts))
        value: Tensor = ((weight_nE * x.means_nE).sum(1) - truth).square().mean() + RIDGE * parameters.square().sum()
        return value

    found = _minimum(error, torch.zeros(2 * experts + 1, dtype=torch.float64))
    a_E, b_E, c = _split(found, experts)
    usual, local = torch.quantile(x.disagreement_n, USUAL), np.asarray(local_E)
    weight_nE = _heard(x, _weights(x, a_E, b_E, c), usual, local)
    mean_n = (weight_nE * x.means_nE).sum(1)

    def surprise(g: Tensor) -> Tensor:
        spread_n = _spread(x, mean_n, g)
        off_n = (truth - mean_n).abs().clamp(min=EXACT) / spread_n
        student_n = (FREEDOM + 1) / 2 * torch.log1p(off_n.square() / FREEDOM)  # but for a constant
        value: Tensor = (spread_n.log() + student_n).mean() + RIDGE * g.square().sum()
        return value

    g = _minimum(surprise, torch.zeros(4, dtype=torch.float64))
    off_n = ((truth - mean_n).abs() / _spread(x, mean_n, g)).numpy()
    rank_L = np.minimum(1.0, LEVELS * (1 + 1 / len(off_n)))  # one more: the element that is asked for
    reach_L = np.quantile(off_n, rank_L, method="higher")
    shares_E = weight_nE.mean(0).numpy()
    return Pool(a_E.numpy(), b_E.numpy(), float(c), float(usual), local, g.numpy(), scale, reach_L, shares_E)


def trusting(said: Opinions) -> Pooled:
    """The network's own mean and standard deviation, with the normal distribution's intervals: not calibrated."""
    from scipy import stats

    return Pooled(said.means_nE[:, 0], np.maximum(said.spread_n, 1e-9), np.asarray(stats.norm.ppf(0.5 + LEVELS / 2)))


class _Terms:
    """Opinions in units of ``scale``, as tensors, with the logarithms that weights and spread are made of."""

    def __init__(self, said: Opinions, scale: float):
        self.means_nE = torch.from_numpy(said.means_nE / scale)
        self.log_spread_n = torch.from_numpy(np.log(said.spread_n / scale + 0.01))
        self.disagreement_n = self.means_nE.std(1)
        self.log_distance_n = torch.from_numpy(np.log1p(said.distance_n))


def _weights(x: _Terms, a_E: Tensor, b_E: Tensor, c: Tensor) -> Tensor:
    logit_nE = a_E + b_E * x.log_distance_n[:, None]
    own_n = logit_nE[:, :1] + c * x.log_spread_n[:, None]
    return torch.cat([own_n, logit_nE[:, 1:]], dim=1).softmax(1)


def _heard(x: _Terms, weight_nE: Tensor, usual: Tensor, local_E: npt.NDArray[np.bool_]) -> Tensor:
    """Weights without those who know the edge alone, the more so the less usual the disagreement is."""
    share_n = (usual / x.disagreement_n.clamp(min=1e-12)).clamp(max=1) ** 4
    heard_nE = torch.where(torch.from_numpy(local_E), weight_nE * share_n[:, None], weight_nE)
    return heard_nE / heard_nE.sum(1, keepdim=True)


def _spread(x: _Terms, mean_n: Tensor, g: Tensor) -> Tensor:
    disagreement_n = (x.means_nE - mean_n[:, None]).square().mean(1).sqrt()
    return (g[0] + g[1] * x.log_spread_n + g[2] * x.log_distance_n + g[3] * torch.log1p(disagreement_n)).exp()


def _split(parameters: Tensor, experts: int) -> tuple[Tensor, Tensor, Tensor]:
    return parameters[:experts], parameters[experts : 2 * experts], parameters[-1]


def _minimum(objective: Callable[[Tensor], Tensor], start: Tensor) -> Tensor:
    parameters = start.clone().requires_grad_()
    optimizer = torch.optim.LBFGS([parameters], max_iter=200, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        value = objective(parameters)
        torch.autograd.backward(value)
        return value

    optimizer.step(closure)  # type: ignore[no-untyped-call]
    return parameters.detach()
