"""Faster, slower, same or inconclusive, from pairs of seconds: signed ranks of log ratios, no normality.

The estimate is Hodges and Lehmann's, the median of the Walsh averages (d_i + d_j) / 2 of the log ratios; its
interval inverts Wilcoxon's signed-rank test, whose distribution is computed exactly. Source: Hollander, Wolfe
and Chicken, Nonparametric Statistical Methods, 3rd ed., sections 3.1 to 3.3.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np

from bench.check.settings import CheckSettings

SpeedVerdict = Literal["faster", "slower", "same", "inconclusive"]
MOST_ROUNDS = 100_000


@lru_cache(maxsize=32)
def signed_rank_cdf(n: int) -> np.ndarray:
    """P(W ≤ k) for k = 0 … n(n+1)/2 under the null hypothesis, float64."""
    probabilities = np.ones(1)
    for rank in range(1, n + 1):
        longer = np.zeros(len(probabilities) + rank)
        longer[: len(probabilities)] += probabilities / 2
        longer[rank:] += probabilities / 2
        probabilities = longer
    return np.minimum(np.cumsum(probabilities), 1.0)


def walsh_averages(values_N: np.ndarray) -> np.ndarray:
    """(N(N+1)/2,) sorted averages of all pairs, each value with itself included."""
    i, j = np.triu_indices(len(values_N))
    return np.sort((values_N[i] + values_N[j]) / 2)


def bounds(averages: np.ndarray, n: int, alpha: float) -> tuple[float, float]:
    """Lower and upper confidence bound of the shift, each at one-sided level ``alpha``; infinite where so few
    values cannot give any."""
    rejected = int(np.searchsorted(signed_rank_cdf(n), alpha, side="right"))  # ranks W < rejected
    if rejected == 0:
        return -math.inf, math.inf
    return float(averages[rejected - 1]), float(averages[len(averages) - rejected])


@dataclass(frozen=True, kw_only=True)
class Speed:
    """``ratio`` is head's seconds over base's, with the interval that the verdict goes by (``interval``);
    ``more_rounds`` would settle it, as far as can be told; 0 unless inconclusive."""

    verdict: SpeedVerdict
    ratio: float
    interval: tuple[float, float]
    rounds: int
    spread: float
    more_rounds: int = 0


def judge(d: np.ndarray, settings: CheckSettings, comparisons: int = 1, per: int = 1) -> Speed:
    """The verdict on log ratios of head's seconds to base's, (N,), each of ``per`` rounds; ``comparisons`` of
    them share the check's ``alarm``.

    *slower*: by more than half of ``min_effect``, beyond chance. *faster* likewise. *same*: by less than
    ``min_effect``, beyond chance. Else *inconclusive*. Levels are shared among the looks at the data.
    """
    n, averages = len(d), walsh_averages(d)
    looks = len(settings.looks)
    low, high = bounds(averages, n, settings.alarm / (2 * looks * comparisons))
    least, most = bounds(averages, n, settings.miss / looks)
    estimate = float(np.median(averages))
    matters, ignored = math.log1p(settings.min_effect / 2), math.log1p(settings.min_effect)
    verdict: SpeedVerdict = "inconclusive"
    more = 0
    if low > matters:
        verdict = "slower"
    elif high < -matters:
        verdict = "faster"
    elif -ignored < least and most < ignored:
        verdict = "same"
    else:
        more = _more_rounds(n, estimate, (high - low) / 2, (most - least) / 2, matters, ignored)
    return Speed(
        verdict=verdict,
        ratio=math.exp(estimate),
        interval=(math.exp(low) if math.isfinite(low) else 0.0, math.exp(high)),
        rounds=n * per,
        spread=spread(d),
        more_rounds=more * per,
    )


def _more_rounds(
    n: int, estimate: float, half_alarm: float, half_same: float, matters: float, ignored: float
) -> int:
    """Rounds to add until the nearest verdict is reached, half-widths shrinking as 1/sqrt(n)."""
    if not math.isfinite(half_alarm) or not math.isfinite(half_same):
        return n
    factors = []
    if abs(estimate) > matters:
        factors.append(half_alarm / (abs(estimate) - matters))
    if abs(estimate) < ignored:
        factors.append(half_same / (ignored - abs(estimate)))
    total = n * min(factors) ** 2 if factors else math.inf
    return int(min(max(math.ceil(total) - n, 1), MOST_ROUNDS))


def spread(d_N: np.ndarray) -> float:
    """The standard deviation of log ratios as their median absolute deviation gives it (times 1.4826)."""
    return float(1.4826 * np.median(np.abs(d_N - np.median(d_N))))
