"""Where a series of numbers steps from one level to another."""

from __future__ import annotations

import math

import numpy as np
from scipy import stats


def segment(values_N: np.ndarray, penalty: float, shortest: int = 2) -> list[int]:
    """Starts of segments after the first that minimise squared deviations plus ``penalty`` per change.

    Exact: optimal partitioning (Jackson et al. 2005, IEEE Signal Processing Letters 12(2)), O(N²).
    """
    n = len(values_N)
    sums, squares = (np.concatenate([[0.0], np.cumsum(x)]) for x in (values_N, values_N**2))
    best = np.full(n + 1, np.inf)
    best[0], last = -penalty, np.zeros(n + 1, np.int64)
    for stop in range(shortest, n + 1):
        starts = np.arange(0, stop - shortest + 1)
        length = stop - starts
        cost = squares[stop] - squares[starts] - (sums[stop] - sums[starts]) ** 2 / length
        total = best[starts] + cost + penalty
        k = int(total.argmin())
        best[stop], last[stop] = total[k], starts[k]
    found = []
    stop = n
    while stop > 0:
        stop = int(last[stop])
        if stop > 0:
            found.append(stop)
    return found[::-1]


def change_points(
    values_N: np.ndarray, *, log: bool = False, alpha: float = 0.001, smallest: float = 0.02
) -> list[tuple[int, float, float, float]]:
    """(index of the first point of a new level, old level, new level, p) of each step.

    Segments are found with the noise that neighbouring points show (their differences' median deviation) and
    a penalty of 3 variances times log n; a step is kept where the two levels differ by ``smallest``
    (relatively) and by Mann and Whitney's test at ``alpha``, shared among the candidates; with so few points
    that no test could tell, the levels must be eight standard deviations apart. Levels are medians.
    """
    if len(values_N) < 4:
        return []
    positive = log and bool((values_N > 0).all())
    x = np.log(values_N) if positive else np.asarray(values_N, float)
    sigma = 1.4826 * float(np.median(np.abs(np.diff(x)))) / math.sqrt(2)
    sigma = max(sigma, 1e-9 * (float(np.abs(x).max()) or 1.0))
    starts = segment(x / sigma, 3 * math.log(len(x)))
    edges = [0, *starts, len(x)]
    found = []
    for k, at in enumerate(starts, 1):
        left, right = x[edges[k - 1] : at], x[at : edges[k + 1]]
        p = float(stats.mannwhitneyu(left, right).pvalue)
        gap = abs(float(np.median(right) - np.median(left)))
        few = stats.mannwhitneyu(np.arange(len(left)), len(left) + np.arange(len(right))).pvalue > alpha
        if not (p < alpha / len(starts) or (few and gap > 8 * sigma)):
            continue
        before, after = (
            float(np.median(values_N[edges[k - 1] : at])),
            float(np.median(values_N[at : edges[k + 1]])),
        )
        if abs(after - before) >= smallest * abs(before):
            found.append((at, before, after, p))
    return found
