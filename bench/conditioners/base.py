"""The conditioner contract: a frozen auxiliary model f that embeds conditions and scores images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from bench.streams import Streams
from bench.types import Condition, ConditionKind


class Conditioner(Protocol):
    """A frozen f. Every method treats samples independently.

    ``embed`` turns conditions into the vectors that the translator and the energy read; ``encode`` turns
    images into vectors of the same space for synthetic pairs.
    """

    dim: int  # columns of a condition that translators read; a sum of terms has more behind them
    views: int  # auxiliary evaluations per image and energy call (augmented copies; 1 without)

    def embed(self, conditions: Sequence[Condition]) -> Tensor:
        """Float32 (N, dim)."""
        ...

    def encode(self, images_NCHW: Tensor, streams: Streams) -> Tensor:
        """Float32 (N, dim) from images in [-1, 1]."""
        ...

    def energy(self, images_NCHW: Tensor, condition_ND: Tensor, streams: Streams, step: int) -> Tensor:
        """Float32 (N,), lower fits better; differentiable in the images."""
        ...


@runtime_checkable
class ConditionerConfig(Protocol):
    """A component's dataclass. ``kind`` says which conditions it understands, before any weight loads."""

    @property
    def kind(self) -> ConditionKind: ...

    def load(self, device: torch.device) -> Conditioner: ...
