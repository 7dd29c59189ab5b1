"""Augmentations of the zoo's trainings, on float images (N, 3, H, W); every draw is per sample."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F


def _uniform(g: torch.Generator, num: int, low: float, high: float) -> Tensor:
    return low + (high - low) * torch.rand(num, generator=g, device=g.device)


def shift(x: Tensor, g: torch.Generator, pixels: int) -> Tensor:
    """Integer shifts of up to ``pixels`` per axis; the border is repeated outwards."""
    num, _, height, width = x.shape
    padded = F.pad(x, (pixels,) * 4, mode="replicate")
    dy = torch.randint(2 * pixels + 1, (num, 1), generator=g, device=x.device)
    dx = torch.randint(2 * pixels + 1, (num, 1), generator=g, device=x.device)
    rows = (torch.arange(height, device=x.device)[None] + dy)[:, None, :, None]
    columns = (torch.arange(width, device=x.device)[None] + dx)[:, None, None, :]
    batch = torch.arange(num, device=x.device)[:, None, None, None]
    channel = torch.arange(x.shape[1], device=x.device)[None, :, None, None]
    return padded[batch, channel, rows, columns]


def add_noise(x: Tensor, g: torch.Generator, largest: float) -> Tensor:
    """Gaussian noise whose deviation is uniform in [0, largest] per sample."""
    deviation = _uniform(g, len(x), 0.0, largest)[:, None, None, None]
    return x + deviation * torch.randn(x.shape, generator=g, device=x.device)


def jitter(x: Tensor, g: torch.Generator, *, degrees: float, scale: float, shift: float) -> Tensor:
    """Small rotations, zooms and shifts (fractions of half the side), bilinear, border repeated."""
    angle = _uniform(g, len(x), -degrees, degrees) * math.pi / 180
    zoom = _uniform(g, len(x), 1 - scale, 1 + scale)
    dx, dy = _uniform(g, len(x), -shift, shift), _uniform(g, len(x), -shift, shift)
    cos, sin = angle.cos() * zoom, angle.sin() * zoom
    theta = torch.stack([torch.stack([cos, -sin, dx], 1), torch.stack([sin, cos, dy], 1)], 1)
    grid = F.affine_grid(theta, list(x.shape), align_corners=False)
    return F.grid_sample(x, grid, mode="bilinear", padding_mode="border", align_corners=False)
