"""FID∞: what FID tends to as the number of samples grows, from FIDs at several sizes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar, NamedTuple

import numpy as np
from pydantic import Field

from bench.metrics.fid import frechet_name
from bench.metrics.frechet import FrechetTarget, Moments
from bench.metrics.sets import feature_sets, lacks, need
from bench.types import KINDS, ConditionKind, Evidence, MetricResult, Score

FEWEST = 3


class Extrapolation(NamedTuple):
    """``value`` is the intercept of the line of FID against 1 / size, ``standard_error`` that of the value
    over draws of samples; ``sizes`` and ``distances`` are the points that it was laid through."""

    value: float
    standard_error: float
    sizes: np.ndarray
    distances: np.ndarray


def fid_infinity(
    samples_NF: np.ndarray, reference: Moments, smallest: int, points: int, seed: int
) -> Extrapolation:
    """Least squares of FID_m = a + b / m through ``points`` sizes m from ``smallest`` to N, evenly apart.

    Each size takes a random subset of its own; the reference stays. The standard error is first order: FID's
    influence function has standard deviation s over the samples, and subsets of the same N share their noise
    s² / N, beside s² (1 / m - 1 / N) of each one's own. Source: Chong and Forsyth 2020, arXiv:1911.07023; the
    error is ours.
    """
    target = FrechetTarget.of(reference)
    num = len(samples_NF)
    sizes = np.linspace(smallest, num, points).astype(np.int64)
    draws = np.random.default_rng(seed)
    distances = np.array(
        [target.distance_of(Moments.of(samples_NF[draws.permutation(num)[:size]])) for size in sizes]
    )
    inverse = 1 / sizes - (1 / sizes).mean()
    # The intercept is this combination of the distances.
    weights = 1 / points - inverse * (1 / sizes).mean() / np.square(inverse).sum()
    variance = influence(samples_NF, reference).var(ddof=1)
    own = np.square(weights) @ (1 / sizes - 1 / num)
    return Extrapolation(
        float(weights @ distances), float(np.sqrt(variance * (1 / num + own))), sizes, distances
    )


def influence(samples_NF: np.ndarray, reference: Moments) -> np.ndarray:
    """(N,) by how much, times N and to first order, each sample moves the distance to the reference.

    2 (m - r)·x + x'(1 - T) x with x about the samples' mean m, r the reference's mean and T the linear
    optimal map from the samples' Gaussian to the reference's; less its mean.
    """
    moments = Moments.of(samples_NF)
    values, vectors = np.linalg.eigh(moments.covariance)
    keep = values > len(values) * np.finfo(np.float64).eps * values[-1]
    root, basis = np.sqrt(values[keep]), vectors[:, keep]
    inner = (basis * root).T @ reference.covariance @ (basis * root)
    squared, axes = np.linalg.eigh(inner)
    half = (axes * np.sqrt(squared.clip(min=0))) @ axes.T
    x = np.asarray(samples_NF, np.float64) - moments.mean
    scaled = x @ basis / root
    moved = np.einsum("nk,nk->n", scaled @ half, scaled)
    each = 2 * x @ (moments.mean - reference.mean) + np.einsum("nf,nf->n", x, x) - moved
    return each - each.mean()


@dataclass(frozen=True, kw_only=True)
class FidInfinity:
    """FID extrapolated to infinitely many samples, with a 95 % interval; on a judge's features.

    FIDs of ``points`` random subsets, from min(``smallest``, n / 10) samples to all, are extrapolated in
    1 / m. The bias of the finite reference stays. The smallest subset must outnumber the features unless
    ``allow_small_n``: below that FID is no line in 1 / m. Source: Chong and Forsyth 2020, arXiv:1911.07023
    (without its Sobol points).
    """

    judge: str
    smallest: Annotated[int, Field(ge=2)] = 5000
    points: Annotated[int, Field(ge=FEWEST)] = 15
    seed: Annotated[int, Field(ge=0)] = 0
    allow_small_n: bool = False

    curve: ClassVar[bool] = False
    resampled: ClassVar[bool] = False

    @property
    def conditions(self) -> tuple[ConditionKind, ...]:
        return KINDS

    def check_judge(self, judge: object) -> str | None:
        return lacks(judge, "fid-infinity", "features")

    def compute(self, evidence: Evidence) -> MetricResult:
        samples, reference = feature_sets(evidence, self.judge, "fid-infinity")
        num, dim = samples.shape
        smallest = min(self.smallest, num // 10)
        least = 2 if self.allow_small_n else dim + 1
        remedy = f"Draw at least {10 * least}, or set allow_small_n: true on this metric."
        need(smallest, least, "fid-infinity", "samples in the smallest subset", remedy)
        found = fid_infinity(samples, Moments.of(reference), smallest, self.points, self.seed)
        name, title = frechet_name(evidence.readouts[self.judge])
        error = 1.96 * found.standard_error
        score = Score(
            metric=name.replace("fid", "fid-infinity").replace("fd/", "fd-infinity/"),
            title=title.replace("FID", "FID∞").replace("FD-", "FD∞-"),
            value=found.value,
            better="lower",
            n=num,
            judge=self.judge,
            interval=(found.value - error, found.value + error),
            interval_method="delta method over samples, normal",
            details={
                "sizes": found.sizes.tolist(),
                "distances": found.distances.tolist(),
                "n_reference": len(reference),
                "feature_dim": dim,
                "small_n": smallest <= dim,
                "seed": self.seed,
            },
        )
        return MetricResult(scores=(score,))
