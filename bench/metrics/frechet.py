"""The Fréchet distance between Gaussians, in float64, from pivoted Cholesky factors.

tr((A B)^½) is the sum of the square roots of the eigenvalues of L'BL, where LL' = A. With the pivots of L in
falling order that matrix is graded, its large entries first, and the symmetric eigenvalue solver keeps small
eigenvalues to high relative accuracy; for a singular A (n <= F) L has as many columns as A has rank, and no
root of a rounded 0 is taken. Neither holds for the eigenvalues of A B, nor for those of A^½ B A^½.

``scipy.linalg.sqrtm`` is not used: it works on a non-symmetric product, may return complex values, and
lost its ``disp`` argument in SciPy 1.18.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np
import scipy  # whose parts are loaded when first used

from bench.errors import MetricError

BLOCK = 1024


@dataclass(frozen=True)
class Moments:
    """Count, mean (F,) and sum of outer products of deviations (F, F), float64, of features seen so far.

    Batches are merged by Chan, Golub and LeVeque's pairwise update, so memory does not grow with n.
    """

    n: int
    mean: np.ndarray
    scatter: np.ndarray

    @classmethod
    def of(cls, features_NF: np.ndarray) -> Moments:
        """Moments of (N, F), taken in blocks of fixed size: memory does not grow with N, nor does the value
        depend on how the features lie in files. Raises MetricError when they are not two-dimensional and
        finite."""
        if features_NF.ndim != 2 or not len(features_NF):
            raise MetricError(f"features must have shape (N, F) with N >= 1, got {features_NF.shape}.")
        blocks = (cls._of_block(features_NF[i : i + BLOCK]) for i in range(0, len(features_NF), BLOCK))
        return functools.reduce(cls.merge, blocks)

    @classmethod
    def _of_block(cls, features_NF: np.ndarray) -> Moments:
        x = np.asarray(features_NF, dtype=np.float64)
        if not np.isfinite(x).all():
            raise MetricError("features hold NaN or infinite values; look at the images of this cell.")
        mean = x.mean(axis=0)
        deviations = x - mean
        return cls(len(x), mean, deviations.T @ deviations)

    def merge(self, other: Moments) -> Moments:
        """Moments of both sets together."""
        if self.mean.shape != other.mean.shape:
            raise MetricError(f"feature dimensions differ: {self.mean.shape[0]} and {other.mean.shape[0]}.")
        n = self.n + other.n
        delta = other.mean - self.mean
        scatter = self.scatter + other.scatter + np.outer(delta, delta) * (self.n * other.n / n)
        return Moments(n, self.mean + delta * (other.n / n), scatter)

    @property
    def covariance(self) -> np.ndarray:
        """(F, F), divided by n - 1. Raises MetricError for a single sample."""
        if self.n < 2:
            raise MetricError("a covariance needs at least two samples.")
        return self.scatter / (self.n - 1)


def frechet_distance(
    mean_a_F: np.ndarray, covariance_a_FF: np.ndarray, mean_b_F: np.ndarray, covariance_b_FF: np.ndarray
) -> float:
    """Squared Fréchet distance between two Gaussians.

    |mean_a - mean_b|² + tr(A) + tr(B) - 2 tr((A B)^½), float64, in squared feature units; lower is better,
    0 when the moments agree. Singular covariances (n <= F) are fine. Raises MetricError if shapes differ or a
    value is not finite. Source: Heusel et al. 2017, arXiv:1706.08500; Dowson and Landau 1982.
    """
    return FrechetTarget(mean_b_F, covariance_b_FF).distance(mean_a_F, covariance_a_FF)


class FrechetTarget:
    """One Gaussian, factored once, to which the distances of many are asked for."""

    def __init__(self, mean_F: np.ndarray, covariance_FF: np.ndarray):
        self.mean, self.covariance = np.asarray(mean_F, np.float64), np.asarray(covariance_FF, np.float64)
        if self.covariance.shape != (len(self.mean), len(self.mean)):
            raise MetricError(f"moments differ in shape: {self.mean.shape} and {self.covariance.shape}.")
        if not (np.isfinite(self.mean).all() and np.isfinite(self.covariance).all()):
            raise MetricError("moments hold NaN or infinite values.")
        self._live = np.diagonal(self.covariance) > 0
        self._factor = _Factor.of(_part(self.covariance, self._live))

    @classmethod
    def of(cls, moments: Moments) -> FrechetTarget:
        return cls(moments.mean, moments.covariance)

    def distance(self, mean_F: np.ndarray, covariance_FF: np.ndarray) -> float:
        """:func:`frechet_distance` to a Gaussian with these moments."""
        mean, covariance = np.asarray(mean_F, np.float64), np.asarray(covariance_FF, np.float64)
        if mean.shape != self.mean.shape or covariance.shape != self.covariance.shape:
            raise MetricError(
                f"moments differ in shape: {mean.shape}, {covariance.shape} and "
                f"{self.mean.shape}, {self.covariance.shape}."
            )
        if not (np.isfinite(mean).all() and np.isfinite(covariance).all()):
            raise MetricError("moments hold NaN or infinite values.")
        spread = np.trace(covariance) + np.trace(self.covariance) - 2 * self._cross(covariance)
        return max(float(np.square(mean - self.mean).sum() + spread), 0.0)

    def distance_of(self, moments: Moments) -> float:
        return self.distance(moments.mean, moments.covariance)

    def _cross(self, covariance: np.ndarray) -> float:
        """tr((A B)^½) of the two covariances."""
        # A feature that is constant in either set adds nothing; left in, it adds the root of a rounded 0.
        live = self._live & (np.diagonal(covariance) > 0)
        mine, theirs = _part(self.covariance, live), _part(covariance, live)
        factor = self._factor if np.array_equal(live, self._live) else _Factor.of(mine)
        values = factor.congruent(theirs)
        if len(values) and values[0] <= len(mine) * _EPS * values[-1]:
            # Either finely graded, or zeros by rounding because the other one has the lower rank.
            other = _Factor.of(theirs)
            if other.rank < factor.rank:
                values = other.congruent(mine)
        return float(np.sqrt(values.clip(min=0)).sum())


def _part(covariance_FF: np.ndarray, live_F: np.ndarray) -> np.ndarray:
    return covariance_FF if live_F.all() else covariance_FF[np.ix_(live_F, live_F)]


_EPS = float(np.finfo(np.float64).eps)


@dataclass(frozen=True)
class _Factor:
    """The lower factor L of a covariance with rows and columns taken in the order ``pivots``: (F, F), of
    which the first ``rank`` columns count."""

    lower: np.ndarray
    pivots: np.ndarray
    rank: int

    @classmethod
    def of(cls, covariance_FF: np.ndarray) -> _Factor:
        if not covariance_FF.size:
            return cls(covariance_FF, np.empty(0, np.int64), 0)
        # Transposed, a symmetric matrix is the same one in LAPACK's order: it saves a slow copy.
        lower, pivots, rank, _ = scipy.linalg.lapack.dpstrf(covariance_FF.T, lower=1)
        return cls(lower, pivots - 1, int(rank))

    def congruent(self, other_FF: np.ndarray) -> np.ndarray:
        """Eigenvalues of L' B L, ascending, (rank,): those of A B that are not 0."""
        if not self.rank:
            return np.empty(0)
        permuted = other_FF[np.ix_(self.pivots, self.pivots)].T
        if self.rank == len(self.pivots):
            inner, _ = scipy.linalg.lapack.dsygst(permuted, self.lower, itype=2, lower=1, overwrite_a=1)
        else:
            columns = np.tril(self.lower)[:, : self.rank]
            inner = columns.T @ permuted @ columns
        # The lower triangle, reduced from its first column on: where a graded matrix has its large entries.
        return scipy.linalg.eigh(
            inner, lower=True, eigvals_only=True, driver="evr", check_finite=False, overwrite_a=True
        )
