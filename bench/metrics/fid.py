"""Fréchet inception distance, on the features of any judge."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np

from bench.errors import MetricError
from bench.metrics.frechet import Moments, frechet_distance
from bench.metrics.sets import by_extractor, lacks
from bench.statistics.design import Design
from bench.statistics.frechet import frechet_left_out
from bench.statistics.leave_out import LeftOut
from bench.types import KINDS, ConditionKind, Evidence, MetricResult, Readout, Score


def frechet_name(readout: Readout) -> tuple[str, str]:
    """Metric id and title: FID, or FD with the name of the network whose features were compared."""
    if not readout.extractor:
        return "fid", "FID"
    return by_extractor("fd", "", readout)[0], f"FD-{readout.extractor}"


FEWEST = 2048


@dataclass(frozen=True, kw_only=True)
class Fid:
    """FID between the samples and the reference images, in the feature space of ``judge``.

    Where the judge names its network the score does too (FD-DINOv2 …), and never shares a column with FID.
    Biased upwards at small n, so compare only equal n. Suites with fewer than 2,048 samples are refused, and
    so is n at most the number of features, where the covariance is singular, unless ``allow_small_n``: the
    score is then marked as small n. ``ddof`` and ``moments`` are the protocol's. Source: Heusel et al. 2017,
    arXiv:1706.08500.
    """

    judge: str
    allow_small_n: bool = False
    ddof: Literal[0, 1] = 1
    moments: Literal["float64", "float32"] = "float64"

    protocol_fields: ClassVar[dict[str, str]] = {"ddof": "ddof", "moments": "moments"}
    later_fields: ClassVar[tuple[str, ...]] = ("ddof", "moments")

    @property
    def conditions(self) -> tuple[ConditionKind, ...]:
        return KINDS

    def _gaussian(self, moments: Moments) -> tuple[np.ndarray, np.ndarray]:
        """Mean and covariance as the protocol takes them: divided by n - ddof, and kept in 32 bits or not."""
        covariance = moments.scatter / (moments.n - self.ddof) if self.ddof == 0 else moments.covariance
        if self.moments == "float64":
            return moments.mean, covariance
        return moments.mean.astype(np.float32), covariance.astype(np.float32)

    def check_num(self, num_samples: int) -> str | None:
        """Why so few samples do not do."""
        if num_samples >= FEWEST or self.allow_small_n:
            return None
        return f"is FID of {num_samples} samples, and of fewer than {FEWEST} it is mostly bias."

    def check_judge(self, judge: object) -> str | None:
        return lacks(judge, "fid", "features")

    def compute(self, evidence: Evidence) -> MetricResult:
        readout = evidence.readouts[self.judge]
        samples, reference = readout.features, evidence.reference[self.judge].features
        if samples is None or reference is None:
            raise MetricError(
                f"fid: judge '{self.judge}' has no features. Use a classifier, CLIP or Inception judge."
            )
        if samples.shape[1] != reference.shape[1]:
            raise MetricError(
                f"fid: samples have {samples.shape[1]} features, the reference {reference.shape[1]}. "
                "Build both with the same judge."
            )
        dim = samples.shape[1]
        if min(len(samples), len(reference)) <= dim and not self.allow_small_n:
            raise MetricError(
                f"fid: {len(samples)} samples and {len(reference)} reference images for {dim} features make "
                f"a singular covariance. Draw more than {dim}, or set allow_small_n: true on this metric."
            )
        a, b = Moments.of(samples), Moments.of(reference)
        value = frechet_distance(*self._gaussian(a), *self._gaussian(b))
        metric, title = frechet_name(readout)
        small = len(samples) < FEWEST or min(a.n, b.n) <= dim
        score = Score(
            metric=metric,
            title=title,
            value=value,
            better="lower",
            n=len(samples),
            judge=self.judge,
            details={"n_reference": len(reference), "feature_dim": dim, "small_n": small},
        )
        return MetricResult(scores=(score,))

    def left_out(self, evidence: Evidence, design: Design) -> dict[str, LeftOut]:
        """FID with each group of samples left out, and its bias at this n."""
        readout = evidence.readouts[self.judge]
        samples, reference = readout.features, evidence.reference[self.judge].features
        if samples is None or reference is None:
            return {}
        return {frechet_name(readout)[0]: frechet_left_out(samples, Moments.of(reference), design)}
