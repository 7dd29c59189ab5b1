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
    parts: _Tall | _Wide
    if n > dim:
        parts = _Tall(features_NF, reference, design.stratum_U[design.unit_N])
    else:
        parts = _Wide(features_NF, reference)
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
    """Groups to leave out together: families that cover all of them once, half of the groups at a time where
    enough samples stay, else a quarter or a fifth. [] where too few would.

    Of neighbouring groups each goes to another part of a family: units are dealt to groups stratum by
    stratum, so that every part takes about as much of every stratum.
    """
    groups = np.flatnonzero(sizes).tolist()
    num = len(groups)
    for parts in (2, 4, 5):
        most = -(-num // parts)
        if num < max(4, parts) or n - n * most / num < ENOUGH * dim:
            continue
        rng = np.random.default_rng(0)
        found = []
        for _ in range(max(1, -(-SUBSETS // parts))):
            family: list[list[int]] = [[] for _ in range(parts)]
            for start in range(0, num, parts):
                for group, part in zip(groups[start : start + parts], rng.permutation(parts).tolist()):
                    family[part].append(group)
            found += family
        return found
    return []


class _Tall:
    """More samples than features: moments of all, less those of the samples left out.

    With several strata the shares of these are kept: what stays of a stratum counts for all of it. Groups
    cannot take exactly as much of each, and a distance is as sensitive to the shares as to the samples.
    """

    def __init__(self, features_NF: np.ndarray, reference: Moments, stratum_N: np.ndarray | None = None):
        self.features, self.reference = features_NF, reference
        self.n = len(features_NF)
        self.stratum_N = np.zeros(self.n, int) if stratum_N is None else stratum_N
        self.counts = np.bincount(self.stratum_N)
        self.centre = Moments.of(features_NF).mean
        values, vectors = linalg.eigh(reference.covariance)
        self.root = vectors * np.sqrt(values.clip(min=0))  # as good as the symmetric root: roots L Lᵀ = C
        self.reference_trace = float(np.trace(reference.covariance))
        self.sum, self.scatter, self.square = self._moments(np.arange(self.n))

    def _moments(
        self, rows: np.ndarray, weight_N: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray, float]:
        """Sum and total square of centred rows in the coordinates X, their scatter in those of X L."""
        dim = len(self.centre)
        total, scatter, square = np.zeros(dim), np.zeros((dim, dim)), 0.0
        for start in range(0, len(rows), _BLOCK):
            block = rows[start : start + _BLOCK]
            x = np.asarray(self.features[block], np.float64) - self.centre
            w = np.ones(len(block)) if weight_N is None else weight_N[block]
            total += w @ x
            x *= np.sqrt(w)[:, None]
            square += float(np.einsum("nf,nf->", x, x))
            y = x @ self.root
            scatter += y.T @ y
        return total, scatter, square

    def _weights(self, rows: np.ndarray) -> np.ndarray | None:
        """(N,) weights by which what stays has the shares of all, their sum the number that stays; None where
        they are all 1, or a stratum goes as a whole."""
        stay = self.counts - np.bincount(self.stratum_N[rows], minlength=len(self.counts))
        if not len(rows) or np.count_nonzero(self.counts) == 1 or (stay[self.counts > 0] == 0).any():
            return None
        share = self.counts / stay.clip(min=1) * ((self.n - len(rows)) / self.n)
        return share[self.stratum_N]

    def distance_without(self, rows: np.ndarray) -> float:
        n, weight_N = self.n - len(rows), self._weights(rows)
        if weight_N is None:
            total, scatter, square = self._moments(rows)
            total, scatter, square = self.sum - total, self.scatter - scatter, self.square - square
        else:
            stay = np.setdiff1d(np.arange(self.n), rows)
            total, scatter, square = self._moments(stay, weight_N)
        turned = total @ self.root
        inner = (scatter - np.outer(turned, turned) / n) / (n - 1)
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
