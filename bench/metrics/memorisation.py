"""Whether samples are copies of real images: the nearest one in feature space."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from bench.metrics.distances import nearest_squared, radii_squared
from bench.metrics.sets import by_extractor, feature_sets, lacks, need
from bench.types import KINDS, ConditionKind, Evidence, MetricResult, Score


class Nearest(NamedTuple):
    """Per sample (N,): ``distance`` to the nearest real image, its ``row``, and ``authentic``: whether that
    image is nearer to another real image than to the sample."""

    distance: np.ndarray
    row: np.ndarray
    authentic: np.ndarray


def nearest_real(samples_NF: np.ndarray, real_MF: np.ndarray) -> Nearest:
    """Source: Alaa et al. 2022, arXiv:2102.08921 (authenticity). Needs two real images or more."""
    squared, index = nearest_squared(samples_NF, real_MF)
    return Nearest(np.sqrt(squared), index, squared > radii_squared(real_MF, 1)[index])


@dataclass(frozen=True, kw_only=True)
class Memorisation:
    """Share of authentic samples, and the distance to the nearest real image in a judge's feature space.

    A sample is authentic if its nearest real image has another real image nearer to it than the sample. Real
    are the reference images: set protocol.reference_split to the generator's training split to ask for copies
    of what it was trained on. Per sample it tells the nearest one's row, to look at. Fresh real images are
    about half authentic by this measure; a generator that draws copies has 0. Source: Alaa et al. 2022,
    arXiv:2102.08921; Stein et al. 2023, arXiv:2306.04675 (AuthPct).
    """

    judge: str

    @property
    def conditions(self) -> tuple[ConditionKind, ...]:
        return KINDS

    def check_judge(self, judge: object) -> str | None:
        return lacks(judge, "memorisation", "features")

    def compute(self, evidence: Evidence) -> MetricResult:
        samples, reference = feature_sets(evidence, self.judge, "memorisation")
        need(len(reference), 2, "memorisation", "reference images", "Raise protocol.num_reference.")
        found = nearest_real(samples, reference)
        columns = {
            "authenticity": ("Authenticity", found.authentic),
            "nearest-real-distance": (
                "Distance to the nearest real image",
                found.distance.astype(np.float32),
            ),
        }
        readout = evidence.readouts[self.judge]
        scores, per_sample = [], {}
        for name, (head, each) in columns.items():
            metric, title = by_extractor(name, head, readout)
            per_sample[metric] = each
            scores.append(
                Score(
                    metric=metric,
                    title=title,
                    value=float(each.mean()),
                    better="higher" if name == "authenticity" else "none",
                    n=len(samples),
                    judge=self.judge,
                    details={"n_reference": len(reference)},
                )
            )
        per_sample[by_extractor("nearest-real-index", "", readout)[0]] = found.row.astype(np.int32)
        return MetricResult(scores=tuple(scores), per_sample=per_sample)
