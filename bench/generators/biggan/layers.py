"""Layers that both BigGANs share, for inference: norms with stored statistics, self-attention, upsampling.

Shapes: N samples, C channels, H and W pixels, E condition.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def upsample(x_NCHW: Tensor) -> Tensor:
    """Twice the side, nearest neighbour."""
    return F.interpolate(x_NCHW, scale_factor=2, mode="nearest")


class ConditionalNorm(nn.Module):
    """Batch norm with stored statistics whose gain (1 + linear) and bias are read from a condition (N, E)."""

    stored_mean: Tensor
    stored_var: Tensor

    def __init__(self, channels: int, condition_dim: int, eps: float):
        super().__init__()
        self.eps = eps
        self.gain = nn.Linear(condition_dim, channels, bias=False)
        self.bias = nn.Linear(condition_dim, channels, bias=False)
        self.register_buffer("stored_mean", torch.zeros(channels))
        self.register_buffer("stored_var", torch.ones(channels))

    def forward(self, x_NCHW: Tensor, condition_NE: Tensor) -> Tensor:
        scale_NC = (1 + self.gain(condition_NE)) * (self.stored_var + self.eps).rsqrt()
        shift_NC = self.bias(condition_NE) - self.stored_mean * scale_NC
        return torch.addcmul(shift_NC[:, :, None, None], x_NCHW, scale_NC[:, :, None, None])


class Norm(nn.Module):
    """Batch norm with stored statistics and learned gain and bias."""

    stored_mean: Tensor
    stored_var: Tensor

    def __init__(self, channels: int, eps: float):
        super().__init__()
        self.eps = eps
        self.gain = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.register_buffer("stored_mean", torch.zeros(channels))
        self.register_buffer("stored_var", torch.ones(channels))

    def forward(self, x_NCHW: Tensor) -> Tensor:
        return F.batch_norm(
            x_NCHW, self.stored_mean, self.stored_var, self.gain, self.bias, training=False, eps=self.eps
        )


class SelfAttention(nn.Module):
    """x + gamma * attention(x): keys and values at half the side (Zhang et al. 2019, arXiv:1805.08318).

    ``channels`` must be at least 8. ``gamma_shape`` is (), or (1,) in BigGAN-deep's files.
    """

    def __init__(self, channels: int, gamma_shape: tuple[int, ...] = ()):
        super().__init__()
        self.theta = nn.Conv2d(channels, channels // 8, 1, bias=False)
        self.phi = nn.Conv2d(channels, channels // 8, 1, bias=False)
        self.g = nn.Conv2d(channels, channels // 2, 1, bias=False)
        self.o = nn.Conv2d(channels // 2, channels, 1, bias=False)
        self.gamma = nn.Parameter(torch.zeros(gamma_shape))

    def forward(self, x_NCHW: Tensor) -> Tensor:
        query = self.theta(x_NCHW).flatten(2)
        key = F.max_pool2d(self.phi(x_NCHW), 2).flatten(2)
        value = F.max_pool2d(self.g(x_NCHW), 2).flatten(2)
        # Written out: fused kernels would not give the same bits forwards and backwards on every device.
        weights = torch.bmm(query.transpose(1, 2), key).softmax(-1)
        mixed = torch.bmm(value, weights.transpose(1, 2)).unflatten(2, x_NCHW.shape[2:])
        return x_NCHW + self.gamma * self.o(mixed)
