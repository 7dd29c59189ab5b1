"""CMMD: MMD of CLIP image embeddings."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bench.errors import MetricError
from bench.metrics.kernels import KernelSums, LeftOutSums, gaussian_kernel
from bench.metrics.sets import check_finite, lacks
from bench.statistics.design import Design
from bench.statistics.leave_out import LeftOut
from bench.types import KINDS, ConditionKind, Evidence, MetricResult, Score

SIGMA = 10.0
SCALE = 1000.0


def cmmd(samples_NE: np.ndarray, reference_ME: np.ndarray) -> float:
    """1000 times the biased MMD² (all pairs, the diagonals too) with exp(-|x - y|² / 200), float64.

    Embeddings are to have unit norm. Lower is better, 0 for equal sets. Source: Jayasumana et al. 2024,
    arXiv:2401.09603.
    """
    return SCALE * KernelSums.of(samples_NE, reference_ME, gaussian_kernel(SIGMA)).biased()


@dataclass(frozen=True, kw_only=True)
class Cmmd:
    """CMMD ×1000 between samples and reference images, by the embeddings of a CLIP judge.

    The published convention is OpenAI's ViT-L/14 at 336 pixels; the judge says which CLIP it is. Being biased
    it grows as n falls, so compare equal n. Source: Jayasumana et al. 2024, arXiv:2401.09603.
    """

    judge: str

    @property
    def conditions(self) -> tuple[ConditionKind, ...]:
        return KINDS

    def check_judge(self, judge: object) -> str | None:
        return lacks(judge, "cmmd", "image_embedding")

    def compute(self, evidence: Evidence) -> MetricResult:
        samples = evidence.readouts[self.judge].image_embedding
        reference = evidence.reference[self.judge].image_embedding
        if samples is None or reference is None:
            raise MetricError(f"cmmd: judge '{self.judge}' gives no image embeddings. Use a CLIP judge.")
        for name, rows in (("samples", samples), ("reference images", reference)):
            check_finite(rows, f"cmmd: embeddings of {name}")
        score = Score(
            metric="cmmd",
            title="CMMD ×1000",
            value=cmmd(samples, reference),
            better="lower",
            n=len(samples),
            judge=self.judge,
            details={"n_reference": len(reference), "sigma": SIGMA},
        )
        return MetricResult(scores=(score,))

    def left_out(self, evidence: Evidence, design: Design) -> dict[str, LeftOut]:
        """The value with each group of samples left out, and what the samples' diagonal adds to it."""
        samples = evidence.readouts[self.judge].image_embedding
        reference = evidence.reference[self.judge].image_embedding
        if samples is None or reference is None or design.num_groups < 2:
            return {}
        kernel = gaussian_kernel(SIGMA)
        sums = KernelSums.of(samples, reference, kernel)
        values = LeftOutSums.of(sums, samples, kernel, design.group_N).biased(sums)
        n, pairs, diagonal = len(samples), sums.xx.sum(), sums.diagonal_x.sum()
        bias = (pairs + diagonal) / n**2 - pairs / (n * (n - 1))
        return {
            "cmmd": LeftOut(SCALE * sums.biased(), SCALE * values, design.sizes_K, bias=float(SCALE * bias))
        }
