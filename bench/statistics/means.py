"""Intervals of metrics that are means over samples, from per-sample values alone.

Suffixes as in ``design``: N samples, U units, B replicates.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import scipy  # whose parts are loaded when first used

from bench.statistics.design import Design

REPLICATES = 2000
ALPHA = 0.05
FEWEST_UNITS = 20  # a bootstrap over fewer knows too little of the distribution
_CHUNK = 2**22  # draws held at once


@dataclass(frozen=True)
class Interval:
    """A 95 % interval and how it was found; ``se`` is the standard error of the estimate."""

    low: float
    high: float
    method: str
    se: float


@dataclass(frozen=True)
class Linear:
    """A mean over samples as a ratio of unit totals: ``total_U`` / ``count_U``, with its deviations.

    ``influence_U`` (U,) are each unit's contributions to the error of ``mean``, about zero in every stratum
    and scaled so that their sum of squares is the variance. ``df`` are the degrees of freedom.
    """

    mean: float
    influence_U: np.ndarray
    df: int

    @property
    def se(self) -> float:
        return float(np.sqrt(np.square(self.influence_U).sum()))


def linear(total_U: np.ndarray, count_U: np.ndarray, stratum_U: np.ndarray) -> Linear:
    """Linearised ratio estimator with units drawn within strata (Cochran 1977, sections 5A.13 and 6)."""
    strata, index = np.unique(stratum_U, return_inverse=True)
    sizes = np.bincount(index)
    mean = total_U.sum() / count_U.sum()
    deviations = total_U - mean * count_U
    deviations = deviations - (np.bincount(index, deviations) / sizes)[index]
    with np.errstate(divide="ignore", invalid="ignore"):
        factor = np.where(sizes > 1, np.sqrt(sizes / (sizes - 1)), 0.0)
    influence = deviations * factor[index] / count_U.sum()
    return Linear(float(mean), influence, max(len(total_U) - len(strata), 1))


def unit_totals(values_N: np.ndarray, design: Design) -> tuple[np.ndarray, np.ndarray]:
    """The sum of values and the number of samples of each unit, (U,) each."""
    values = np.asarray(values_N, np.float64)
    return np.bincount(design.unit_N, values), np.bincount(design.unit_N).astype(float)


def mean_interval(values_N: np.ndarray, design: Design, *, replicates: int = REPLICATES) -> Interval | None:
    """The interval of the mean of ``values_N``: None for fewer than two units or values that are not finite.

    Shares of samples (all values 0 or 1) get Wilson's interval with the effective sample size that the
    design leaves of n; other means a BCa bootstrap over units, or Student's where units are few.
    """
    values = np.asarray(values_N, np.float64)
    if design.num_units < 2 or not np.isfinite(values).all():
        return None
    total_U, count_U = unit_totals(values, design)
    found = linear(total_U, count_U, design.stratum_U)
    if np.isin(values, (0.0, 1.0)).all():
        return _wilson(found, len(values), design)
    if design.num_units < FEWEST_UNITS:
        return student_interval(found.mean, found.se, found.df, f"Student's t over {design.label}")
    if found.se == 0:
        return Interval(found.mean, found.mean, f"all equal, {design.label}", 0.0)
    means = np.sort(np.concatenate(list(bootstrap_means(total_U, count_U, design.stratum_U, replicates))))
    low, high = bca(means, found)
    return Interval(low, high, f"BCa bootstrap over {design.label}", found.se)


def student_interval(value: float, se: float, df: float, method: str) -> Interval:
    """value ± t · se."""
    half = float(scipy.special.stdtrit(df, 1 - ALPHA / 2)) * se
    return Interval(value - half, value + half, method, se)


def _wilson(found: Linear, n: int, design: Design) -> Interval:
    """Wilson's interval of a share (Wilson 1927), n replaced by the effective sample size (Kish 1965).

    The latter is p (1 - p) / variance, at most n: a gain from strata is not counted on. Where all are right
    or all are wrong the variance tells nothing, and it is the number of units.
    """
    p = found.mean
    effective = float(design.num_units)
    if 0 < p < 1 and found.se > 0:
        effective = min(p * (1 - p) / found.se**2, float(n))
    t = float(scipy.special.stdtrit(found.df, 1 - ALPHA / 2))
    centre = (p + t * t / (2 * effective)) / (1 + t * t / effective)
    half = t / (1 + t * t / effective) * np.sqrt(p * (1 - p) / effective + t * t / (4 * effective**2))
    method = f"Wilson over {design.label}"
    return Interval(min(max(0.0, centre - half), p), max(min(1.0, centre + half), p), method, found.se)


def bootstrap_means(
    total_U: np.ndarray, count_U: np.ndarray, stratum_U: np.ndarray, replicates: int
) -> Iterator[np.ndarray]:
    """Means of replicates, in chunks: units drawn with replacement within strata, one fewer than there are
    and weighted up, which makes the variance unbiased in small strata (Rao and Wu 1988).

    The same numbers every time: the seed is fixed.
    """
    ranked = np.argsort(stratum_U, kind="stable")
    total, count = total_U[ranked], count_U[ranked]
    sizes = np.unique(stratum_U, return_counts=True)[1]
    starts = np.cumsum(sizes) - sizes
    drawn = np.maximum(sizes - 1, 1)
    start_D, size_D = np.repeat(starts, drawn), np.repeat(sizes, drawn)
    weight_D = np.repeat(sizes / drawn, drawn)
    draws = np.random.default_rng(0)
    rows = max(1, _CHUNK // len(start_D))
    for first in range(0, replicates, rows):
        shape = (min(rows, replicates - first), len(start_D))
        index = start_D + (draws.random(shape) * size_D).astype(np.int64)
        yield (total[index] @ weight_D) / (count[index] @ weight_D)


def bca(means_B: np.ndarray, found: Linear) -> tuple[float, float]:
    """Bias-corrected and accelerated percentiles (Efron 1987) of sorted means."""
    below = (np.searchsorted(means_B, found.mean) + np.searchsorted(means_B, found.mean, "right")) / 2
    share = np.clip(below / len(means_B), 0.5 / len(means_B), 1 - 0.5 / len(means_B))
    bias = scipy.special.ndtri(share)
    u = found.influence_U
    acceleration = (u**3).sum() / (6 * np.square(u).sum() ** 1.5)
    z = bias + scipy.special.ndtri([ALPHA / 2, 1 - ALPHA / 2])
    levels = scipy.special.ndtr(bias + z / (1 - acceleration * z))
    low, high = np.quantile(means_B, levels)
    return float(low), float(high)
