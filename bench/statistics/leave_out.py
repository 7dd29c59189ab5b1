"""Intervals of metrics that are no means over samples: a group of samples left out at a time.

A bootstrap repeats samples. What nearest neighbours, kernels or covariances make of repeated samples is not
what they make of new ones: measured on Fréchet distances, its intervals are up to three times too wide
(docs/uncertainty.md). Leaving out repeats none.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from bench.statistics.design import Design
from bench.statistics.means import Interval, student_interval

BIAS_STAYS = "its small-n bias is not removed"  # of a note, where that is so


@dataclass(frozen=True, eq=False)
class Pairs:
    """What a statistic is without two groups: ``groups_P2`` (P, 2) are the groups, ``values_P`` (P,) the
    values. ``left_P3`` (P, 3) counts the samples that stay without the first group, the second and both, of
    equal weight.

    ``excess`` says how often the jackknife counts the variance of what two groups owe to each other beyond
    once: 1 for the statistic itself, less where taking its bias off adds to that variance.
    """

    groups_P2: np.ndarray
    values_P: np.ndarray
    left_P3: np.ndarray
    excess: float = 1.0


@dataclass(frozen=True, eq=False)
class LeftOut:
    """A statistic and what it is with each of K groups of samples left out; ``sizes_K`` counts the samples
    of each group. ``bias`` is its expected excess over what infinitely many samples would give, where known,
    within ``bias_error`` (a bound: uniformly distributed); ``note`` says what is not. ``pairs``, where known,
    make the error better; ``least`` is a bound that the truth cannot be below."""

    value: float
    values_K: np.ndarray
    sizes_K: np.ndarray
    bias: float | None = None
    bias_error: float = 0.0
    note: str = ""
    pairs: Pairs | None = None
    least: float | None = None
    details: Mapping[str, Any] = field(default_factory=dict)

    @property
    def corrected(self) -> float:
        """The value without its bias, where that is known."""
        return self.value - (self.bias or 0.0)

    @property
    def se(self) -> float:
        """The standard error (:func:`standard_error`)."""
        return standard_error(self.value, self.values_K, self.sizes_K, self.pairs, self.corrected)

    def interval(self, label: str) -> Interval:
        """value - bias ± t · se with K - 1 degrees of freedom; the bias' own error counts in se."""
        groups = int((self.sizes_K > 0).sum())
        method = f"jackknife, {groups} groups of {label}"
        if self.bias is not None:
            method += ", small-n bias removed"
        if self.note:
            method += f"; {self.note}"
        se = float(np.hypot(self.se, self.bias_error / np.sqrt(3)))
        found = student_interval(self.corrected, se, groups - 1, method)
        if self.least is None:
            return found
        return replace(found, low=max(found.low, self.least), high=max(found.high, self.least))


def standard_error(
    value: float,
    values_K: np.ndarray,
    sizes_K: np.ndarray,
    pairs: Pairs | None = None,
    limit: float | None = None,
) -> float:
    """Delete-a-group jackknife for groups of unequal size (Busing, Meijer and van der Leeden 1999); groups
    without samples do not count.

    The jackknife counts the variance of terms in pairs of groups twice (Efron and Stein 1981). With ``pairs``
    that variance is found (:func:`pair_variance`) and ``excess`` times it is taken off again, at most as much
    as if there were nothing but such terms. ``limit`` is the value without its bias (None: the value).
    """
    values, sizes = values_K[sizes_K > 0], sizes_K[sizes_K > 0]
    h = sizes.sum() / sizes
    pseudo = h * value - (h - 1) * values
    centre = len(h) * value - ((1 - 1 / h) * values).sum()
    variance = float((np.square(pseudo - centre) / (h - 1)).mean())
    if pairs is not None and len(pairs.values_P):
        twice = min(2 * pair_variance(value, values_K, sizes_K, pairs, limit), variance)
        variance -= pairs.excess * twice / 2
    return float(np.sqrt(variance))


def pair_variance(
    value: float, values_K: np.ndarray, sizes_K: np.ndarray, pairs: Pairs, limit: float | None = None
) -> float:
    """The variance of a statistic that is due to terms in pairs of groups.

    With D the excess over the ``limit`` (of large n; None: the value), n D - (n - g) D₋g - (n - h) D₋h +
    (n - g - h) D₋gh, over n, is the term of groups g and h: what is constant, goes as 1 / n or is linear in
    the samples cancels. The variance is their mean square times the number of pairs.
    """
    limit = value if limit is None else limit
    n, num = sizes_K.sum(), int((sizes_K > 0).sum())
    (g, h), (left_g, left_h, left_both) = pairs.groups_P2.T, pairs.left_P3.T
    terms = n * (value - limit) + left_both * (pairs.values_P - limit)
    terms -= left_g * (values_K[g] - limit) + left_h * (values_K[h] - limit)
    return float(np.square(terms / n).mean()) * num * (num - 1) / 2


def leave_out(
    statistic: Callable[[np.ndarray], Mapping[str, float]], design: Design
) -> dict[str, np.ndarray]:
    """Name of each statistic → its values with each group left out, (K,), NaN for groups without samples.

    ``statistic`` gets the rows that stay; a name that one of its results lacks is left out.
    """
    rows = {k: np.flatnonzero(design.group_N != k) for k in np.flatnonzero(design.sizes_K).tolist()}
    found = {k: statistic(stay) for k, stay in rows.items() if len(stay)}
    names = set.intersection(*(set(item) for item in found.values())) if found else set()
    values = {}
    for name in sorted(names):
        values[name] = np.full(design.num_groups, np.nan)
        values[name][list(found)] = [item[name] for item in found.values()]
    return values
