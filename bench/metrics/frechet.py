"""The Fréchet distance between Gaussians, in float64 by symmetric eigenvalues.

``scipy.linalg.sqrtm`` is not used: it works on a non-symmetric product, may return complex values, and
lost its ``disp`` argument in SciPy 1.18.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np
from scipy import linalg

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

    |mean_a - mean_b|² + tr(A) + tr(B) - 2 tr((A^½ B A^½)^½), float64, in squared feature units; lower is
    better, 0 when the moments agree. Singular covariances (n <= F) are fine. Raises MetricError if
    shapes differ or a value is not finite. Source: Heusel et al. 2017, arXiv:1706.08500; Dowson and
    Landau 1982.
    """
    a, b = np.asarray(covariance_a_FF, np.float64), np.asarray(covariance_b_FF, np.float64)
    mean_a, mean_b = np.asarray(mean_a_F, np.float64), np.asarray(mean_b_F, np.float64)
    if not (mean_a.shape == mean_b.shape and a.shape == b.shape == (len(mean_a), len(mean_a))):
        raise MetricError(
            f"moments differ in shape: {mean_a.shape}, {a.shape} and {mean_b.shape}, {b.shape}."
        )
    if not all(np.isfinite(x).all() for x in (a, b, mean_a, mean_b)):
        raise MetricError("moments hold NaN or infinite values.")
    values, vectors = linalg.eigh(a)
    root = (vectors * np.sqrt(values.clip(min=0))) @ vectors.T
    inner = linalg.eigvalsh(root @ b @ root)
    cross = np.sqrt(inner.clip(min=0)).sum()
    distance = float(np.square(mean_a - mean_b).sum() + np.trace(a) + np.trace(b) - 2 * cross)
    return max(distance, 0.0)
