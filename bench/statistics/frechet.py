"""The Fréchet distance with groups of samples left out, and its bias at small n, at an affordable cost.

The samples' Gaussian is fitted to n samples, the reference's is given. With L the root of the reference's
covariance, tr (A^½ B A^½)^½ is the sum of the roots of the eigenvalues of the samples' covariance in
coordinates X L: samples are turned once, a group's moments are taken off those of all, and what is left per
group is the eigenvalues of one symmetric matrix. Where there are fewer samples than features they are those
of the samples' Gram matrix, (N, N), which has the same ones.

The bias falls as a / n + b / n². It is found from the values at three sizes: all samples, one group left out
(over all groups, so that what depends on the samples at first order cancels), and about half of the groups.
Near n = F much of the variance is in terms of two groups, which the jackknife counts twice: some pairs of
groups are left out as well, to take that off again.

Suffixes: N samples, F features, K groups.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import scipy  # whose parts are loaded when first used
from threadpoolctl import threadpool_limits

from bench.metrics.frechet import Moments
from bench.statistics.design import Design
from bench.statistics.leave_out import BIAS_STAYS, LeftOut, Pairs

ENOUGH = 1.25  # samples per feature below which the covariance is too singular for the bias to follow
SUBSETS = 8
PAIRS = 20  # of groups left out together
# What higher terms may add to the bias, as a share of it and in (features / samples)²; simulated: up to 0.18.
BIAS_ERROR = 0.2
LARGE = 512  # rows of an eigenvalue problem from which on processors share them out
MOST_WORKERS = 8
_BLOCK = 4096
_KEPT = 2**28  # bytes up to which samples are turned once and kept


def frechet_left_out(features_NF: np.ndarray, reference: Moments, design: Design) -> LeftOut:
    """The distance of samples to a reference with each group of the design left out, and its bias.

    ``features_NF`` (N, F) of any float type; the reference counts as exact. ``bias`` is None where n is
    under about 1.6 F, fewer than four groups are there, or the conditions describe images of the reference:
    what few samples add cannot be told from what they have in common with these. Raises MetricError as
    ``Moments`` does.
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
    usable = [k for k in np.flatnonzero(sizes).tolist() if n - len(members[k]) > 1]
    values[usable] = _distances(parts, [members[k] for k in usable])
    pairs = _pairs(sizes, n)
    together = [np.concatenate([members[g], members[h]]) for g, h in pairs]
    both = _distances(parts, together)
    lone = np.array([parts.num_without(rows) for rows in members])
    left = np.column_stack([lone[pairs], [parts.num_without(rows) for rows in together]])
    excess = 1.0
    bias, note = None, f"{BIAS_STAYS}, which takes more than {round(1.6 * dim)} samples"
    blocks = _blocks(sizes, n, dim)
    if design.of_reference:
        blocks, note = [], f"{BIAS_STAYS}, as the prompts describe images of the reference"
    if blocks:
        dropped = [np.concatenate([members[k] for k in block]) for block in blocks]
        fewer = _distances(parts, dropped)
        fewer_n = np.array([parts.num_without(rows) for rows in dropped])
        used = sizes > 0
        bias = extrapolated_bias(
            (1 / n, whole), _balanced(values[used], lone[used]), _balanced(fewer, fewer_n)
        )
        excess = 2 - _pair_weight(sizes, blocks)
        note = ""
    error = BIAS_ERROR * (dim / n) ** 2 * abs(bias or 0.0)
    return LeftOut(whole, values, sizes, bias, error, note, Pairs(pairs, both, left, excess), least=0.0)


def _distances(parts: _Tall | _Wide, dropped: list[np.ndarray]) -> np.ndarray:
    """(K,) the distance without each of the sets of rows.

    Large ones are shared out among the processors, a thread of BLAS each: threads within one eigenvalue
    problem gain a third, and where other work wants the processors they spin for each other.
    """
    workers = min(os.cpu_count() or 1, MOST_WORKERS, len(dropped))
    with threadpool_limits(1, "blas"):
        if workers < 2 or parts.size < LARGE:
            return np.array([parts.distance_without(rows) for rows in dropped])
        with ThreadPoolExecutor(workers) as pool:
            return np.array(list(pool.map(parts.distance_without, dropped)))


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


def _pairs(sizes: np.ndarray, n: int) -> np.ndarray:
    """Pairs of groups to leave out together, (P, 2): no group is in two of them."""
    groups = np.random.default_rng(0).permutation(np.flatnonzero(sizes))
    pairs = groups[: len(groups) // 2 * 2].reshape(-1, 2)[:PAIRS]
    return pairs[n - sizes[pairs].sum(1) > 1]


def _pair_weight(sizes: np.ndarray, blocks: list[list[int]]) -> float:
    """The variance of pair terms in the value without bias, over that in the value itself.

    A set of m of the n samples has the term of a pair that is in it (n / m)² times. The value without bias is
    a weighted sum of sets, in which not every pair of groups counts alike.
    """
    groups = np.flatnonzero(sizes)
    n, size = sizes[groups].sum(), sizes[groups]
    stay = ~np.eye(len(groups), dtype=bool)
    halves = np.array([~np.isin(groups, block) for block in blocks])
    counts = [np.array([n]), stay @ size, halves @ size]
    (x0, x1, x2) = (float((m / m.sum() / m).sum()) for m in counts)
    # Lagrange's weights of the parabola's value at 0.
    at_zero = (
        x1 * x2 / ((x0 - x1) * (x0 - x2)),
        x0 * x2 / ((x1 - x0) * (x1 - x2)),
        x0 * x1 / ((x2 - x0) * (x2 - x1)),
    )
    times = np.full((len(groups), len(groups)), at_zero[0])
    for weight, sets, m in ((at_zero[1], stay, counts[1]), (at_zero[2], halves, counts[2])):
        each = weight * m / m.sum() * (n / m) ** 2
        times += (sets.T * each) @ sets
    return float(np.square(times[np.triu_indices(len(groups), 1)]).mean())


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
        self.n, self.size = features_NF.shape  # of the eigenvalue problems
        self.stratum_N = np.zeros(self.n, int) if stratum_N is None else stratum_N
        self.counts = np.bincount(self.stratum_N)
        self.centre = Moments.of(features_NF).mean
        values, vectors = scipy.linalg.eigh(reference.covariance)
        self.root = vectors * np.sqrt(values.clip(min=0))  # as good as the symmetric root: roots L Lᵀ = C
        self.reference_trace = float(np.trace(reference.covariance))
        self.turned: np.ndarray | None = None
        if features_NF.size * 8 <= _KEPT:
            self.turned = self._turned(np.arange(self.n))
        self.sum, self.scatter, self.square = self._moments(np.arange(self.n))

    def _centred(self, rows: np.ndarray) -> np.ndarray:
        return np.asarray(self.features[rows], np.float64) - self.centre

    def _turned(self, rows: np.ndarray) -> np.ndarray:
        """Rows in the coordinates X L."""
        return self._centred(rows) @ self.root if self.turned is None else self.turned[rows]

    def _moments(
        self, rows: np.ndarray, weight_N: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray, float]:
        """Sum and total square of centred rows in the coordinates X, their scatter in those of X L."""
        dim = len(self.centre)
        total, scatter, square = np.zeros(dim), np.zeros((dim, dim)), 0.0
        for start in range(0, len(rows), _BLOCK):
            block = rows[start : start + _BLOCK]
            x, y = self._centred(block), self._turned(block)
            w = np.ones(len(block)) if weight_N is None else weight_N[block]
            total += w @ x
            square += float(w @ np.einsum("nf,nf->n", x, x))
            # The product of an array and its own transpose takes half as long.
            alike = (w == w[0]).all()
            scatter += w[0] * (y.T @ y) if alike else y.T @ (w[:, None] * y)
        return total, scatter, square

    def _weights(self, rows: np.ndarray) -> np.ndarray:
        """(N,) weights by which what stays has the shares of all, their sum the number that stays; all 1
        where there is but one stratum, or one goes as a whole."""
        stay = self.counts - np.bincount(self.stratum_N[rows], minlength=len(self.counts))
        if not len(rows) or np.count_nonzero(self.counts) == 1 or (stay[self.counts > 0] == 0).any():
            return np.ones(self.n)
        share = self.counts / stay.clip(min=1) * ((self.n - len(rows)) / self.n)
        return share[self.stratum_N]

    def num_without(self, rows: np.ndarray) -> float:
        """How many samples of equal weight those that stay count for (Kish 1965)."""
        stay = np.delete(self._weights(rows), rows)
        return float(stay.sum() ** 2 / (stay @ stay))

    def distance_without(self, rows: np.ndarray) -> float:
        n, weight_N = self.n - len(rows), self._weights(rows)
        weight_N[rows] = 0.0
        # Most samples have one weight, by which the moments of all are taken; the others make up for it.
        kinds, of_N, counts = np.unique(weight_N, return_inverse=True, return_counts=True)
        usual = float(kinds[counts.argmax()])
        others = np.flatnonzero(of_N != counts.argmax())
        total, scatter, square = self._moments(others, weight_N - usual)
        total, scatter, square = (
            usual * self.sum + total,
            usual * self.scatter + scatter,
            usual * self.square + square,
        )
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
        self.size = len(x)
        self.gram = self.x @ reference.covariance @ self.x.T
        self.reference_trace = float(np.trace(reference.covariance))

    def num_without(self, rows: np.ndarray) -> float:
        return float(len(self.x) - len(rows))

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
    values = np.linalg.eigvalsh(inner)  # SciPy's holds the interpreter's lock meanwhile
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
