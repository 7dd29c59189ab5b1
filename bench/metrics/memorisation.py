"""Whether samples are copies of real images: the nearest one in feature space."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar, NamedTuple

import numpy as np
from pydantic import Field

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
    are the reference images, or with ``split`` all images of that split of the data: name the one that the
    generator was trained on to ask for copies of it. Such scores bear the split's name. Per sample it tells
    the nearest one's row, to look at. Fresh real images are about half authentic by this measure; a generator
    that draws copies has 0. Source: Alaa et al. 2022, arXiv:2102.08921; Stein et al. 2023, arXiv:2306.04675
    (AuthPct).
    """

    judge: str
    split: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")] | None = None

    later_fields: ClassVar[tuple[str, ...]] = ("split",)

    @property
    def conditions(self) -> tuple[ConditionKind, ...]:
        return KINDS

    def check_judge(self, judge: object) -> str | None:
        return lacks(judge, "memorisation", "features")

    def compute(self, evidence: Evidence) -> MetricResult:
        samples, reference = feature_sets(evidence, self.judge, "memorisation")
        remedy = "Raise protocol.num_reference." if self.split is None else "Name a larger split."
        need(len(reference), 2, "memorisation", "real images", remedy)
        found = nearest_real(samples, reference)
        columns = {
            "authenticity": ("Authenticity", found.authentic),
            "nearest-real-distance": (
                "Distance to the nearest real image",
                found.distance.astype(np.float32),
            ),
        }
        readout = evidence.readouts[self.judge]
        suffix, of = ("", "") if self.split is None else (f"-{self.split}", f", split {self.split}")
        details = {"n_reference": len(reference)} | ({"split": self.split} if self.split else {})
        scores, per_sample = [], {}
        for name, (head, each) in columns.items():
            metric, title = by_extractor(name + suffix, head + of, readout)
            per_sample[metric] = each
            scores.append(
                Score(
                    metric=metric,
                    title=title,
                    value=float(each.mean()),
                    better="higher" if name == "authenticity" else "none",
                    n=len(samples),
                    judge=self.judge,
                    details=details,
                )
            )
        per_sample[by_extractor("nearest-real-index" + suffix, "", readout)[0]] = found.row.astype(np.int32)
        return MetricResult(scores=tuple(scores), per_sample=per_sample)
