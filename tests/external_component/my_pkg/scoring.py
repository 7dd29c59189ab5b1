"""A judge, a metric and a sampler from outside the package."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bench.samplers.base import Problem, Sampler
from bench.types import Condition, ConditionKind, Evidence, MetricResult, Readout, Score


@dataclass(frozen=True, kw_only=True)
class PixelJudge:
    """Reads the mean level of each channel as features (N, 3); ``only`` names attributes that it needs."""

    only: tuple[str, ...] = ()

    def check_data(self, source: Any) -> str | None:
        missing = [name for name in self.only if name not in source.attributes]
        return f"it has no attribute '{missing[0]}'." if missing else None

    def load(self, device: torch.device) -> PixelJudge:
        return self

    def readout(self, images_NCHW: np.ndarray, conditions: Sequence[Condition] | None = None) -> Readout:
        return Readout(features=images_NCHW.mean((2, 3)).astype(np.float32))


@dataclass(frozen=True, kw_only=True)
class MeanLevel:
    """The mean grey level, 0 to 255."""

    judge: str | None = None
    kinds_of_condition: tuple[ConditionKind, ...] = ("class", "text")

    @property
    def conditions(self) -> tuple[ConditionKind, ...]:
        return self.kinds_of_condition

    def check_judge(self, judge: Any) -> str | None:
        return "mean level needs a judge and found none." if judge is None else None

    def compute(self, evidence: Evidence) -> MetricResult:
        readouts: Mapping[str, Readout] = evidence.readouts
        features = readouts[str(self.judge)].features
        assert features is not None
        level = features.mean(1)
        score = Score(
            metric="mean-level", title="Mean level", value=float(level.mean()), better="none", n=len(level),
            judge=self.judge,
        )  # fmt: skip
        return MetricResult(scores=(score,), per_sample={"mean-level": level})


@dataclass(frozen=True, kw_only=True)
class TextOnly(Sampler):
    """The prior, for text conditions only."""

    kinds: tuple[str, ...] = ("text",)

    def init(self, problem: Problem) -> Tensor:
        return problem.generator.latent.prior(problem.streams)

    def latent(self, problem: Problem, state: Tensor) -> Tensor:
        return state


@dataclass(frozen=True, kw_only=True)
class Frugal(TextOnly):
    """A sampler that knows its own work."""

    kinds: tuple[str, ...] = ("class", "text")

    def estimate(self, num_samples: int, views: int) -> dict[str, int]:
        return {"generator_forwards": 7 * num_samples, "auxiliary_forwards": views * num_samples}
