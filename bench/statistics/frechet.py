"""The Fréchet distance with groups of samples left out, and its bias at small n, at an affordable cost.

The samples' Gaussian is fitted to n samples, the reference's is given. With L the root of the reference's
covariance, tr (A^½ B A^½)^½ is the sum of the roots of the eigenvalues of the samples' covariance in
coordinates X L: samples are turned once, a group's moments are taken off those of all, and what is left per
group is the eigenvalues of one symmetric matrix. Where there are fewer samples than features they are those
of the samples' Gram matrix, (N, N), which has the same ones.

The bias falls as a / n + b / n². It is found from the values at three sizes: all samples, one group left out
(over all groups, so that what depends on the samples at first order cancels), and about half of the groups.

Suffixes: N samples, F features, K groups.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import numpy as np
from scipy import linalg

from bench.metrics.frechet import Moments
from bench.statistics.design import Design
from bench.statistics.leave_out import LeftOut

ENOUGH = 1.25  # samples per feature below which the covariance is too singular for the bias to follow
SUBSETS = 8
# What higher terms may add to the bias, as a share of it and in (features / samples)²; simulated: up to 0.18.
BIAS_ERROR = 0.2
_BLOCK = 4096


def frechet_left_out(features_NF: np.ndarray, reference: Moments, design: Design) -> LeftOut:
    """The distance of samples to a reference with each group of the design left out, and its bias.

    ``features_NF`` (N, F) of any float type; the reference counts as exact. ``bias`` is None where n is
    under about 1.6 F, or fewer than four groups are there. Raises MetricError as ``Moments`` does.
    """
    n, dim = features_NF.shape
    parts = (_Tall if n > dim else _Wide)(features_NF, reference)
    whole = parts.distance_without(np.arange(0))
    sizes = design.sizes_K
    members = [np.flatnonzero(design.group_N == k) for k in range(design.num_groups)]
    values = np.full(design.num_groups, np.nan)
    for k in np.flatnonzero(sizes).tolist():
        if n - len(members[k]) > 1:
            values[k] = parts.distance_without(members[k])
    bias, note = None, f"its small-n bias is not removed, which takes more than {round(1.6 * dim)} samples"
    blocks = _blocks(sizes, n, dim)
    if blocks:
        dropped = [np.concatenate([members[k] for k in block]) for block in blocks]
        fewer = np.array([parts.distance_without(rows) for rows in dropped])
        left = np.array([n - len(rows) for rows in dropped], float)
        used = sizes > 0
        bias = extrapolated_bias(
            (1 / n, whole), _balanced(values[used], n - sizes[used]), _balanced(fewer, left)
        )
        note = ""
    error = BIAS_ERROR * (dim / n) ** 2 * abs(bias or 0.0)
    return LeftOut(whole, values, sizes, bias, error, note)


def _balanced(values: np.ndarray, counts: np.ndarray) -> tuple[float, float]:
    """1 / n and value of subsets that leave out each sample equally often, weighted so that what is linear in
    the samples cancels."""
    weights = counts / counts.sum()
    return float((weights / counts).sum()), float((weights * values).sum())


def extrapolated_bias(*points: tuple[float, float]) -> float:
    """The first value less the value at 1 / n = 0 of the parabola through three points (1 / n, value)."""
    (x0, f0), (x1, f1), (x2, f2) = points
    first, second = (f1 - f0) / (x1 - x0), (f2 - f1) / (x2 - x1)
    return first * x0 - (second - first) / (x2 - x0) * x0 * x1


def _blocks(sizes: np.ndarray, n: int, dim: int) -> list[list[int]]:
    """Groups to leave out together: families of equal runs of groups that cover all of them once, half of
    the groups at a time where enough samples stay, else a quarter or a fifth. [] where too few would."""
    groups = np.flatnonzero(sizes).tolist()
    num = len(groups)
    for parts in (2, 4, 5):
        length = num // parts
        if not length or num < 4 or n - n * length / num < ENOUGH * dim:
            continue
        ends = np.linspace(0, num, parts + 1).round().astype(int).tolist()
        families = max(1, -(-SUBSETS // parts))
        shifts = [s * length // families for s in range(families)]
        return [
            [groups[(i + shift) % num] for i in range(start, stop)]
            for shift in dict.fromkeys(shifts)
            for start, stop in itertools.pairwise(ends)
        ]
    return []


class _Tall:
    """More samples than features: moments of all, less those of the samples left out."""

    def __init__(self, features_NF: np.ndarray, reference: Moments):
        self.features, self.reference = features_NF, reference
        self.n = len(features_NF)
        self.centre = Moments.of(features_NF).mean
        values, vectors = linalg.eigh(reference.covariance)
        self.root = vectors * np.sqrt(values.clip(min=0))  # as good as the symmetric root: roots L Lᵀ = C
        self.reference_trace = float(np.trace(reference.covariance))
        self.sum, self.scatter, self.square = self._moments(np.arange(self.n))

    def _moments(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray, float]:
        """Sum and scatter in the coordinates X L, sum and total square in those of X, of centred rows."""
        dim = len(self.centre)
        total, scatter, square = np.zeros(dim), np.zeros((dim, dim)), 0.0
        for start in range(0, len(rows), _BLOCK):
            x = np.asarray(self.features[rows[start : start + _BLOCK]], np.float64) - self.centre
            total += x.sum(0)
            square += float(np.einsum("nf,nf->", x, x))
            y = x @ self.root
            scatter += y.T @ y
        return total, scatter, square

    def distance_without(self, rows: np.ndarray) -> float:
        total, scatter, square = self._moments(rows)
        n = self.n - len(rows)
        total, square = self.sum - total, self.square - square
        turned = total @ self.root
        inner = (self.scatter - scatter - np.outer(turned, turned) / n) / (n - 1)
        trace = (square - total @ total / n) / (n - 1)
        return _distance(self.centre + total / n - self.reference.mean, trace, self.reference_trace, inner)


class _Wide:
    """No more samples than features: the Gram matrix of the samples in the coordinates X L."""

    def __init__(self, features_NF: np.ndarray, reference: Moments):
        x = np.asarray(features_NF, np.float64)
        self.centre = Moments.of(features_NF).mean
        self.x, self.reference = x - self.centre, reference
        self.gram = self.x @ reference.covariance @ self.x.T
        self.reference_trace = float(np.trace(reference.covariance))

    def distance_without(self, rows: np.ndarray) -> float:
        stay = np.ones(len(self.x), bool)
        stay[rows] = False
        x, n = self.x[stay], int(stay.sum())
        mean = x.mean(0)
        gram = self.gram[np.ix_(stay, stay)]
        gram = gram - gram.mean(0) - gram.mean(1)[:, None] + gram.mean()
        trace = float(np.square(x - mean).sum()) / (n - 1)
        delta = self.centre + mean - self.reference.mean
        return _distance(delta, trace, self.reference_trace, gram / (n - 1))


def _distance(delta: np.ndarray, trace: float, reference_trace: float, inner: np.ndarray) -> float:
    values = linalg.eigh(inner, eigvals_only=True, driver="evd", check_finite=False, overwrite_a=True)
    return float(delta @ delta + trace + reference_trace - 2 * np.sqrt(values.clip(min=0)).sum())


def frechet_bootstrap(
    features_NF: np.ndarray, reference: Moments, design: Design, replicates: int
) -> Iterator[float]:
    """The distance of bootstrap replicates: units drawn with replacement within strata.

    Its spread overstates the error, more so the fewer samples there are per feature: repeated samples make
    the covariance more singular than new ones would. It is here to be compared with.
    """
    tall = _Tall(features_NF, reference)
    turned = (np.asarray(features_NF, np.float64) - tall.centre) @ tall.root
    square_N = np.square(np.asarray(features_NF, np.float64) - tall.centre).sum(1)
    draws = np.random.default_rng(0)
    order = np.argsort(design.stratum_U, kind="stable")
    sizes = np.unique(design.stratum_U, return_counts=True)[1]
    starts, spans = np.repeat(np.cumsum(sizes) - sizes, sizes), np.repeat(sizes, sizes)
    for _ in range(replicates):
        drawn = order[starts + (draws.random(len(order)) * spans).astype(int)]
        weight_N = np.bincount(drawn, minlength=design.num_units)[design.unit_N].astype(float)
        total = weight_N.sum()
        mean = weight_N @ turned / total
        middle = weight_N @ np.asarray(features_NF, np.float64) / total - tall.centre
        y = turned * np.sqrt(weight_N)[:, None]
        inner = (y.T @ y - total * np.outer(mean, mean)) / (total - 1)
        trace = (weight_N @ square_N - total * middle @ middle) / (total - 1)
        delta = tall.centre + middle - reference.mean
        yield _distance(delta, trace, tall.reference_trace, inner)
