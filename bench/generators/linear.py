"""A linear-Gaussian generator whose conditional distributions are known in closed form."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from bench.errors import SuiteError
from bench.generators.base import Block, LatentSpace
from bench.streams import Streams


@dataclass(frozen=True, kw_only=True)
class Linear:
    """G(z) = A z with orthonormal columns scaled by ``scales``; every sampler is checked against it.

    Images have 3 * resolution² >= dim values and are not clamped to [-1, 1].
    """

    dim: int = 4
    resolution: int = 4
    seed: int = 0

    def __post_init__(self) -> None:
        if not 1 <= self.dim <= 3 * self.resolution**2:
            raise SuiteError(
                f"linear: dim must be in [1, {3 * self.resolution**2}] at resolution {self.resolution}, "
                f"got {self.dim}."
            )

    def load(self, device: torch.device) -> LinearGenerator:
        return LinearGenerator(self, device)


class LinearGenerator:
    """``matrix`` is A, float32 (3 * resolution², dim); its singular values run from 0.5 to 1.5."""

    def __init__(self, config: Linear, device: torch.device):
        self.resolution = config.resolution
        size = 3 * config.resolution**2
        draws = Streams.from_seed(1, "linear", config.seed).normal("matrix", (size, config.dim))[0]
        basis, _ = torch.linalg.qr(draws.double())
        scales = torch.linspace(0.5, 1.5, config.dim, dtype=torch.float64)
        self.matrix = (basis * scales).float().to(device)
        self.latent = LatentSpace(blocks=(Block(name="z", dim=config.dim),), sample=self._sample)

    def _sample(self, streams: Streams) -> Tensor:
        return streams.normal("prior:z", (self.matrix.shape[1],))

    def decode(self, z_ND: Tensor) -> Tensor:
        return (z_ND @ self.matrix.T).view(len(z_ND), 3, self.resolution, self.resolution)
