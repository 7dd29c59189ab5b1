"""How far apart samples of one condition are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from bench.errors import MetricError
from bench.metrics.distances import squared_blocks
from bench.metrics.sets import by_extractor, check_finite, lacks
from bench.types import KINDS, ConditionKind, Evidence, MetricResult, Score


def condition_diversity(
    features_NF: np.ndarray, conditions: Sequence[str], squared: bool
) -> tuple[float, np.ndarray]:
    """The mean over conditions of the mean distance of two different samples of one, and per sample (N,) its
    mean distance to the others of its condition, NaN where it has none.

    ``squared`` takes squared distances. NaN where no condition has two samples.
    """
    rows: dict[str, list[int]] = {}
    for i, name in enumerate(conditions):
        rows.setdefault(name, []).append(i)
    each = np.full(len(features_NF), np.nan)
    means = []
    for index in rows.values():
        if len(index) < 2:
            continue
        group = features_NF[index]
        total = np.empty(len(index))
        for block, distances in squared_blocks(group, group):
            total[block] = (distances if squared else np.sqrt(distances)).sum(1)
        each[index] = total / (len(index) - 1)
        means.append(each[index].mean())
    return float(np.mean(means)) if means else float("nan"), each


@dataclass(frozen=True, kw_only=True)
class Diversity:
    """Mean distance between two samples of one condition in a judge's feature space, over all conditions.

    ``distance`` "squared" with the ``lpips`` judge is LPIPS diversity: the squared distance of its features
    is LPIPS. Conditions with one sample are left out. Higher is more varied, which noise is too: read it
    beside a fidelity metric. Source: Zhu et al. 2017, arXiv:1711.11586.
    """

    judge: str
    distance: Literal["euclidean", "squared"] = "euclidean"

    @property
    def conditions(self) -> tuple[ConditionKind, ...]:
        return KINDS

    def check_judge(self, judge: object) -> str | None:
        return lacks(judge, "diversity", "features")

    def compute(self, evidence: Evidence) -> MetricResult:
        readout = evidence.readouts[self.judge]
        if readout.features is None:
            raise MetricError(f"diversity: judge '{self.judge}' has no features. Use a judge that has.")
        check_finite(readout.features, "diversity: features of samples")
        names = [condition.id for condition in evidence.conditions]
        value, each = condition_diversity(readout.features, names, self.distance == "squared")
        if np.isnan(value):
            raise MetricError(
                "diversity: no condition has two samples. Draw more samples, or fewer conditions "
                "(samples.conditions)."
            )
        metric, title = by_extractor("diversity", "Diversity within a condition", readout)
        score = Score(
            metric=metric,
            title=title,
            value=value,
            n=int(np.isfinite(each).sum()),
            judge=self.judge,
            details={"distance": self.distance, "num_conditions": len(set(names))},
        )
        return MetricResult(scores=(score,), per_sample={metric: each.astype(np.float32)})
