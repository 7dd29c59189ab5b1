"""A quadratic energy around a target image: with the linear generator every answer is known."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from bench.errors import SuiteError
from bench.streams import Streams
from bench.types import Condition, ConditionKind


@dataclass(frozen=True, kw_only=True)
class Quadratic:
    """E(x, c) = |x - c|² / (2 scale²), c a fixed random image per value of the attribute ``target``."""

    resolution: int = 4
    scale: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        if self.scale <= 0:
            raise SuiteError(f"quadratic: scale must be positive, got {self.scale}.")

    @property
    def kind(self) -> ConditionKind:
        return "class"

    def load(self, device: torch.device) -> QuadraticConditioner:
        return QuadraticConditioner(self, device)


class QuadraticConditioner:
    """``embed`` reads the integer in ``labels["target"]``; the embedding is the flat target image."""

    views = 1

    def __init__(self, config: Quadratic, device: torch.device):
        self.config, self.device = config, device
        self.dim = 3 * config.resolution**2

    def embed(self, conditions: Sequence[Condition]) -> Tensor:
        keys = [int(condition.labels["target"]) for condition in conditions]
        return Streams(keys).normal(f"quadratic:{self.config.seed}", (self.dim,)).to(self.device)

    def encode(self, images_NCHW: Tensor, streams: Streams) -> Tensor:
        return images_NCHW.flatten(1)

    def energy(self, images_NCHW: Tensor, condition_ND: Tensor, streams: Streams, step: int) -> Tensor:
        return (images_NCHW.flatten(1) - condition_ND).square().sum(1) / (2 * self.config.scale**2)
