"""Kernel Inception distance, on the features of any judge."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import Field

from bench.metrics.kernels import KernelSums, LeftOutSums, cubic_kernel
from bench.metrics.sets import by_extractor, feature_sets, lacks, need
from bench.statistics.design import Design
from bench.statistics.leave_out import LeftOut
from bench.types import KINDS, ConditionKind, Evidence, MetricResult, Score

MOST_PAIRS = 4e8  # 20,000 samples; the interval of subsets is not to take longer than the subsets
TOO_MANY = "none: too many pairs for an interval beside subsets; estimator: full has one"


def _pairs(samples_NF: np.ndarray, reference_MF: np.ndarray) -> int:
    return len(samples_NF) * (len(samples_NF) + len(reference_MF))


def kid_subsets(
    samples_NF: np.ndarray, reference_MF: np.ndarray, subsets: int, subset_size: int, seed: int
) -> np.ndarray:
    """Unbiased MMD² with the cubic kernel on each of ``subsets`` random pairs of subsets, float64 (subsets,).

    Subsets are drawn without replacement as torch-fidelity draws them, samples first, so that equal
    features and seed give its value.
    """
    draws = np.random.RandomState(seed)
    values = np.empty(subsets)
    for i in range(subsets):
        x = samples_NF[draws.choice(len(samples_NF), subset_size, replace=False)]
        y = reference_MF[draws.choice(len(reference_MF), subset_size, replace=False)]
        values[i] = KernelSums.of(x, y, cubic_kernel).unbiased()
    return values


@dataclass(frozen=True, kw_only=True)
class Kid:
    """KID: unbiased MMD² of features with the kernel (x·y / F + 1)³, and 1000 times it, as usually printed.

    ``estimator`` "subsets" is the mean over ``subsets`` random subsets of ``subset_size``; its spread over
    them is in the details and is no interval, as subsets share images. "full" uses every pair, O(n²). The
    interval is the full estimator's for both. Source: Bińkowski et al. 2018, arXiv:1801.01401;
    torch-fidelity's convention.
    """

    judge: str
    estimator: Literal["subsets", "full"] = "subsets"
    subsets: Annotated[int, Field(ge=1)] = 100
    subset_size: Annotated[int, Field(ge=2)] = 1000
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 2020

    @property
    def conditions(self) -> tuple[ConditionKind, ...]:
        return KINDS

    def check_judge(self, judge: object) -> str | None:
        return lacks(judge, "kid", "features")

    def compute(self, evidence: Evidence) -> MetricResult:
        samples, reference = feature_sets(evidence, self.judge, "kid")
        least = 3 if self.estimator == "full" else self.subset_size
        for num, what in ((len(samples), "samples"), (len(reference), "reference images")):
            need(num, least, "kid", what, "Draw more, lower subset_size, or set estimator: full.")
        details: dict[str, Any] = {"estimator": self.estimator, "n_reference": len(reference)}
        method = ""
        if self.estimator == "full":
            sums = KernelSums.of(samples, reference, cubic_kernel)
            value, error = sums.unbiased(), math.sqrt(sums.unbiased_variance())
            details["standard_error"] = error
        else:
            values = kid_subsets(samples, reference, self.subsets, self.subset_size, self.seed)
            value = float(values.mean())
            if _pairs(samples, reference) > MOST_PAIRS:
                method = TOO_MANY
            details |= {
                "std_over_subsets": float(values.std()),
                "subsets": self.subsets,
                "subset_size": self.subset_size,
                "seed": self.seed,
            }
        scores = []
        for name, head, factor in (("kid", "KID", 1), ("kid-1000", "KID ×1000", 1000)):
            metric, title = by_extractor(name, head, evidence.readouts[self.judge])
            scores.append(
                Score(
                    metric=metric,
                    title=title,
                    value=factor * value,
                    better="lower",
                    n=len(samples),
                    judge=self.judge,
                    interval_method=method,
                    details=details,
                )
            )
        return MetricResult(scores=tuple(scores))

    def left_out(self, evidence: Evidence, design: Design) -> dict[str, LeftOut]:
        """The full estimator with each group of samples left out, by one pass over all pairs; {} for subsets
        of so many samples that all pairs are too many. Both estimators speak of the same quantity."""
        samples, reference = feature_sets(evidence, self.judge, "kid")
        if design.num_groups < 2 or (self.estimator != "full" and _pairs(samples, reference) > MOST_PAIRS):
            return {}
        note = "" if self.estimator == "full" else "over all pairs, not subsets"
        sums = KernelSums.of(samples, reference, cubic_kernel)
        values = LeftOutSums.of(sums, samples, cubic_kernel, design.group_N).unbiased(sums)
        readout = evidence.readouts[self.judge]
        return {
            by_extractor(name, "", readout)[0]: LeftOut(
                factor * sums.unbiased(), factor * values, design.sizes_K, bias=0.0, note=note
            )
            for name, factor in (("kid", 1), ("kid-1000", 1000))
        }
