"""Networks that the tests of TorchScript archives and modules by import path use."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Small(nn.Module):
    """Latents (N, dim) to images (N, channels, 8, 8) in [0, 1]."""

    def __init__(self, dim: int = 6, channels: int = 3):
        super().__init__()
        self.channels = channels
        self.linear = nn.Linear(dim, channels * 64)

    def forward(self, z: Tensor) -> Tensor:
        return torch.sigmoid(self.linear(z.flatten(1))).view(-1, self.channels, 8, 8)


class Gregarious(Small):
    """Its images depend on their company."""

    def forward(self, z: Tensor) -> Tensor:
        return super().forward(z - z.mean(0))


class Deaf(Small):
    """Its images do not depend on z."""

    def forward(self, z: Tensor) -> Tensor:
        return torch.zeros(len(z), 3, 8, 8)


def number() -> int:
    return 3
