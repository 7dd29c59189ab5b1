"""CLIP score: cosine between image and prompt embeddings of a judge."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bench.errors import MetricError
from bench.types import ConditionKind, Evidence, MetricResult, Score


@dataclass(frozen=True, kw_only=True)
class ClipScore:
    """Mean cosine of image and prompt by a CLIP judge, and the two scaled forms in use.

    ``clip-cosine`` is the raw cosine in [-1, 1]; ``clip-score-100`` is 100 cos (MLPerf);
    ``clipscore-w2.5`` is 2.5 max(cos, 0) (Hessel et al. 2021, arXiv:2104.08718, without its prompt prefix).
    """

    judge: str

    @property
    def conditions(self) -> tuple[ConditionKind, ...]:
        return ("text",)

    def compute(self, evidence: Evidence) -> MetricResult:
        readout = evidence.readouts[self.judge]
        if readout.image_embedding is None or readout.text_embedding is None:
            raise MetricError(
                f"clip-score: judge '{self.judge}' gives no text and image embeddings. Use a CLIP judge."
            )
        image, text = readout.image_embedding.astype(np.float64), readout.text_embedding.astype(np.float64)
        norms = np.linalg.norm(image, axis=1) * np.linalg.norm(text, axis=1)
        cosine = (image * text).sum(1) / norms
        forms = (
            ("clip-cosine", "CLIP cosine", cosine.mean()),
            ("clip-score-100", "CLIP score ×100", 100 * cosine.mean()),
            ("clipscore-w2.5", "CLIPScore 2.5·max(cos, 0)", 2.5 * np.maximum(cosine, 0).mean()),
        )
        scores = tuple(
            Score(metric=name, title=title, value=float(value), n=len(cosine), judge=self.judge)
            for name, title, value in forms
        )
        return MetricResult(scores=scores, per_sample={"clip-cosine": cosine.astype(np.float32)})
