"""CLIP-I: cosine between a judge's embeddings of a sample and of the reference that it is to look like."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bench.errors import MetricError
from bench.metrics.clip_score import cosines
from bench.metrics.sets import check_finite, lacks
from bench.types import ConditionKind, Evidence, MetricResult, Score


@dataclass(frozen=True, kw_only=True)
class ImageSimilarity:
    """CLIP-I: mean cosine of each sample and its reference image by a CLIP judge, in [-1, 1].

    For image conditions. The name is that of subject-driven generation: Ruiz et al. 2023, arXiv:2208.12242.
    """

    judge: str

    @property
    def conditions(self) -> tuple[ConditionKind, ...]:
        return ("image",)

    def check_judge(self, judge: object) -> str | None:
        return lacks(judge, "image-similarity", "image_embedding", "reference_embedding")

    def compute(self, evidence: Evidence) -> MetricResult:
        readout = evidence.readouts[self.judge]
        if readout.image_embedding is None or readout.reference_embedding is None:
            raise MetricError(
                f"image-similarity: judge '{self.judge}' gives no embeddings of samples and references. "
                "Use a CLIP judge: kind clip or open-clip."
            )
        check_finite(readout.image_embedding, "image-similarity: image embeddings")
        each = cosines(readout.image_embedding, readout.reference_embedding)
        score = Score(
            metric="image-similarity",
            title="CLIP-I",
            value=float(each.mean()),
            n=len(each),
            judge=self.judge,
            details=dict(readout.about),
        )
        return MetricResult(scores=(score,), per_sample={"image-similarity": each.astype(np.float32)})
