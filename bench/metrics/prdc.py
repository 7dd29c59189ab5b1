"""Precision, recall, density and coverage of samples, by balls around neighbours in feature space."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, NamedTuple

import numpy as np
from pydantic import Field

from bench.metrics.distances import radii_squared, squared_blocks
from bench.metrics.sets import by_extractor, feature_sets, lacks, need
from bench.statistics.design import Design
from bench.statistics.leave_out import LeftOut, leave_out
from bench.types import KINDS, ConditionKind, Evidence, MetricResult, Score

# Products of numbers that intervals of recall and coverage may take: about a minute.
AFFORDABLE = 1e12
# A copy of a ball's k-th neighbour lies on its edge, and rounding must not put it inside.
_EDGE = 1 - 1e-9


class Manifolds(NamedTuple):
    """Per sample (N,): ``precise`` (bool) and ``density``; per reference image (M,), bool: ``recalled`` and
    ``covered``. The metrics are their means."""

    precise: np.ndarray
    density: np.ndarray
    recalled: np.ndarray
    covered: np.ndarray


def manifolds(samples_NF: np.ndarray, reference_MF: np.ndarray, k: int) -> Manifolds:
    """Which samples lie in the reference's manifold and which reference images in the samples'.

    A set's manifold is the union of balls around its rows, each as wide as the distance to the row's k-th
    nearest neighbour in its own set, without the edge: needs more than k rows in each. Source: Kynkäänniemi
    et al. 2019, arXiv:1904.06991; Naeem et al. 2020, arXiv:2002.09797 and its code.
    """
    reference_radii, sample_radii = radii_squared(reference_MF, k), radii_squared(samples_NF, k)
    n, m = len(samples_NF), len(reference_MF)
    precise, density = np.empty(n, bool), np.empty(n)
    recalled, nearest = np.zeros(m, bool), np.full(m, np.inf)
    for rows, squared in squared_blocks(samples_NF, reference_MF):
        inside = squared < reference_radii * _EDGE
        precise[rows] = inside.any(1)
        density[rows] = inside.sum(1) / k
        recalled |= (squared < sample_radii[rows, None] * _EDGE).any(0)
        np.minimum(nearest, squared.min(0), out=nearest)
    return Manifolds(precise, density, recalled, nearest < reference_radii * _EDGE)


@dataclass(frozen=True, kw_only=True)
class Prdc:
    """Precision and density (fidelity), recall and coverage (diversity), by the k nearest neighbours.

    Balls have no edge ("<"), as in the authors' code. All four depend on both set sizes: with ``size`` both
    sets are cut to so many random rows, and None uses all, which compare only at equal n. Density may exceed
    1. Source: Kynkäänniemi et al. 2019, arXiv:1904.06991; Naeem et al. 2020, arXiv:2002.09797.
    """

    judge: str
    k: Annotated[int, Field(ge=1)] = 5
    size: Annotated[int, Field(ge=2)] | None = None
    seed: Annotated[int, Field(ge=0)] = 0

    @property
    def conditions(self) -> tuple[ConditionKind, ...]:
        return KINDS

    def check_judge(self, judge: object) -> str | None:
        return lacks(judge, "prdc", "features")

    def compute(self, evidence: Evidence) -> MetricResult:
        samples, reference = feature_sets(evidence, self.judge, "prdc")
        least = max(self.size or 0, self.k + 1)
        for num, what in ((len(samples), "samples"), (len(reference), "reference images")):
            need(num, least, "prdc", what, "Draw more, or lower size or k.")
        num = len(samples)
        rows = np.arange(num)
        if self.size is not None:
            draws = np.random.default_rng(self.seed)
            rows = np.sort(draws.permutation(num)[: self.size])
            samples = samples[rows]
            reference = reference[np.sort(draws.permutation(len(reference))[: self.size])]
        found = manifolds(samples, reference, self.k)
        values = (
            ("precision", "Precision", found.precise),
            ("recall", "Recall", found.recalled),
            ("density", "Density", found.density),
            ("coverage", "Coverage", found.covered),
        )
        details = {
            "k": self.k,
            "n_reference": len(reference),
            "seed": None if self.size is None else self.seed,
        }
        readout = evidence.readouts[self.judge]
        scores = []
        for name, head, each in values:
            metric, title = by_extractor(name, head, readout)
            scores.append(
                Score(
                    metric=metric,
                    title=title,
                    value=float(each.mean()),
                    n=len(samples),
                    judge=self.judge,
                    details=details,
                )
            )
        columns = {}
        for name, each in (("precision", found.precise), ("density", found.density)):
            column = np.full(num, np.nan, np.float32)
            column[rows] = each
            columns[by_extractor(name, "", readout)[0]] = column
        return MetricResult(scores=tuple(scores), per_sample=columns)

    def left_out(self, evidence: Evidence, design: Design) -> dict[str, LeftOut]:
        """Recall and coverage with each group of samples left out, where computing them so often is
        affordable; precision and density are means over samples."""
        samples, reference = feature_sets(evidence, self.judge, "prdc")
        work = len(samples) * (len(samples) + len(reference)) * samples.shape[1] * design.num_groups
        if self.size is not None or work > AFFORDABLE:
            return {}
        recall, coverage = (
            by_extractor(name, "", evidence.readouts[self.judge])[0] for name in ("recall", "coverage")
        )

        def of(rows: np.ndarray) -> dict[str, float]:
            if len(rows) <= self.k:
                return {}
            found = manifolds(samples[rows], reference, self.k)
            return {recall: float(found.recalled.mean()), coverage: float(found.covered.mean())}

        whole, values = of(np.arange(len(samples))), leave_out(of, design)
        return {name: LeftOut(whole[name], values[name], design.sizes_K) for name in values}
