"""CLIP score and AugCLIP: cosine between image and prompt embeddings of a judge."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np

from bench.errors import MetricError
from bench.metrics.sets import check_finite, lacks
from bench.types import ConditionKind, Evidence, MetricResult, Readout, Score

Convention = Literal["clipscore", "heim", "mlperf"]


def cosines(image_NE: np.ndarray, text_NE: np.ndarray) -> np.ndarray:
    """(N,) cosine of each row with its own, float64."""
    image, text = image_NE.astype(np.float64), text_NE.astype(np.float64)
    norms = np.linalg.norm(image, axis=1) * np.linalg.norm(text, axis=1)
    return (image * text).sum(1) / norms


@dataclass(frozen=True, kw_only=True)
class ClipScore:
    """Mean cosine of image and prompt by a CLIP judge, and the two scaled forms in use.

    ``clip-cosine`` is the raw cosine in [-1, 1]; ``clip-score-100`` is 100 cos (MLPerf);
    ``clipscore-w2.5`` is 2.5 max(cos, 0) (Hessel et al. 2021, arXiv:2104.08718, without its prompt prefix).

    With ``convention`` it is one published score, fully specified together with the judge, whose model,
    prompt prefix and context length are in the details:

    - "clipscore": mean of 2.5 max(cos, 0). OpenAI ViT-B/32, prompts after "A photo depicts ".
    - "heim": max(100 cos, 0), per prompt the mean and the best of its images, then the mean over prompts.
      OpenAI ViT-L/14, prompts cut at 75 tokens (77 with start and end).
    - "mlperf": mean of 100 cos, not clamped. OpenAI ViT-B/32.
    """

    judge: str
    convention: Convention | None = None

    later_fields: ClassVar[tuple[str, ...]] = ("convention",)

    @property
    def conditions(self) -> tuple[ConditionKind, ...]:
        return ("text",)

    def check_judge(self, judge: object) -> str | None:
        return lacks(judge, "clip-score", "image_embedding", "text_embedding")

    def compute(self, evidence: Evidence) -> MetricResult:
        readout = evidence.readouts[self.judge]
        if readout.image_embedding is None or readout.text_embedding is None:
            raise MetricError(
                f"clip-score: judge '{self.judge}' gives no text and image embeddings. Use a CLIP judge."
            )
        check_finite(readout.image_embedding, "clip-score: image embeddings")
        cosine = cosines(readout.image_embedding, readout.text_embedding)
        if self.convention is not None:
            return self._published(self.convention, cosine, evidence, readout)
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

    def _published(
        self, convention: Convention, cosine: np.ndarray, evidence: Evidence, readout: Readout
    ) -> MetricResult:
        name, facts = f"clip-score/{convention}", dict[str, Any](convention=convention)
        if convention == "clipscore":
            each, facts["scale"], facts["clamp"] = 2.5 * np.maximum(cosine, 0), 2.5, True
            values = {name: ("CLIPScore (Hessel)", float(each.mean()))}
        elif convention == "mlperf":
            each, facts["scale"], facts["clamp"] = 100 * cosine, 100, False
            values = {name: ("CLIP score (MLPerf)", float(each.mean()))}
        else:
            each, facts["scale"], facts["clamp"] = np.maximum(100 * cosine, 0), 100, True
            prompts = _by_prompt(each, [condition.text or "" for condition in evidence.conditions])
            facts["num_prompts"] = len(prompts)
            means, best = ([float(reduce(rows)) for rows in prompts] for reduce in (np.mean, np.max))
            values = {
                name: ("CLIP score (HEIM, mean)", float(np.mean(means))),
                f"{name}-best": ("CLIP score (HEIM, best per prompt)", float(np.mean(best))),
            }
        scores = tuple(
            Score(
                metric=metric,
                title=title,
                value=value,
                n=len(each),
                judge=self.judge,
                details={**facts, **readout.about},
            )
            for metric, (title, value) in values.items()
        )
        # Where a score is no plain mean over images, no column goes by its name.
        column = f"{name}/image" if convention == "heim" else name
        return MetricResult(scores=scores, per_sample={column: each.astype(np.float32)})


def _by_prompt(values: np.ndarray, texts: Sequence[str]) -> list[np.ndarray]:
    rows: dict[str, list[float]] = {}
    for text, value in zip(texts, values.tolist()):
        rows.setdefault(text, []).append(value)
    return [np.array(each) for each in rows.values()]


@dataclass(frozen=True, kw_only=True)
class AugClip:
    """AugCLIP: mean cosine of the prompt and augmented views of the image, by an ``aug-clip`` judge.

    What FuseDream and TR0N maximise; a score by the CLIP that guided is a readout of training, so use
    another. Source: Liu et al. 2021, arXiv:2112.01573.
    """

    judge: str

    @property
    def conditions(self) -> tuple[ConditionKind, ...]:
        return ("text",)

    def check_judge(self, judge: object) -> str | None:
        return lacks(judge, "aug-clip", "view_embedding", "text_embedding")

    def compute(self, evidence: Evidence) -> MetricResult:
        readout = evidence.readouts[self.judge]
        if readout.view_embedding is None or readout.text_embedding is None:
            raise MetricError(
                f"aug-clip: judge '{self.judge}' sees no augmented views of images with prompts. Use a judge "
                "of kind 'aug-clip'."
            )
        check_finite(readout.view_embedding, "aug-clip: embeddings of views")
        views, text = readout.view_embedding.astype(np.float64), readout.text_embedding.astype(np.float64)
        each = (views * text).sum(1) / np.linalg.norm(text, axis=1)
        score = Score(
            metric="aug-clip",
            title="AugCLIP",
            value=float(each.mean()),
            n=len(each),
            judge=self.judge,
            details=dict(readout.about),
        )
        return MetricResult(scores=(score,), per_sample={"aug-clip": each.astype(np.float32)})
