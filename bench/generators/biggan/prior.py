"""Priors of BigGAN's latent: noise z and class embedding y, as TR0N draws them for its synthetic pairs."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from bench.errors import SuiteError
from bench.generators.base import Block, LatentSpace
from bench.streams import Streams

NoisePrior = Literal["normal", "truncate", "uniform"]
ClassPrior = Literal["categorical_fixed", "categorical", "normal"]


@dataclass(frozen=True, kw_only=True)
class LatentPrior:
    """How z and y are drawn.

    ``z``: "normal" is N(0, I), "truncate" ``truncation`` times a normal truncated to [-2, 2], "uniform" is
    U[-bound, bound]; whatever lies beyond ``bound`` is then set to it. ``y``: rows of the class embedding
    table, of a uniform class ("categorical") or of class i mod K for pair i ("categorical_fixed": each
    class equally often), or "normal": N(0, I) clamped to [-1, 1].
    Source: tr0n repository, random_gen_dataset.py.
    """

    z: NoisePrior
    y: ClassPrior
    bound: float
    truncation: float

    def __post_init__(self) -> None:
        if self.bound <= 0:
            raise SuiteError(f"z_bound must be positive, got {self.bound}.")
        if not 0 < self.truncation <= 1:
            raise SuiteError(f"truncation must be in (0, 1], got {self.truncation}.")

    def latent(self, z_dim: int, table_KE: Tensor) -> LatentSpace:
        """The latent space [z, y]; ``table_KE`` holds the K class embeddings, y's size is E."""

        def noise(streams: Streams) -> Tensor:
            if self.z == "uniform":
                return streams.uniform("prior:z", (z_dim,), low=-self.bound, high=self.bound)
            if self.z == "truncate":
                return self.truncation * truncated_normal(streams.uniform("prior:z", (z_dim,)))
            return streams.normal("prior:z", (z_dim,))

        def embedding(streams: Streams, number: Tensor | None) -> Tensor:
            if self.y == "normal":
                return streams.normal("prior:y", (table_KE.shape[1],)).clamp(-1, 1)
            if self.y == "categorical_fixed" and number is not None:
                label = number % len(table_KE)
            else:
                label = streams.integers("prior:y", len(table_KE))
            return table_KE[label.to(table_KE.device)]

        def sample(streams: Streams) -> Tensor:
            return torch.cat([noise(streams), embedding(streams, None)], dim=1)

        def stratified(streams: Streams, number: Tensor) -> Tensor:
            return torch.cat([noise(streams), embedding(streams, number)], dim=1)

        return LatentSpace(
            blocks=(
                Block(name="z", dim=z_dim, bound=self.bound),
                Block(name="y", dim=table_KE.shape[1], role="auxiliary"),
            ),
            sample=sample,
            stratified=stratified,
        )


def truncated_normal(uniform: Tensor, limit: float = 2.0) -> Tensor:
    """Standard normals truncated to [-limit, limit], float32, from uniforms in [0, 1) by the inverse CDF."""
    edge = math.erf(limit / math.sqrt(2))  # the mass inside
    return (math.sqrt(2) * torch.erfinv(edge * (2 * uniform.double() - 1))).float()
