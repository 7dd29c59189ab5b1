"""Pictures as a network expects them: resized, scaled to [0, 1], normalised."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F


def prepare(images_NCHW: Tensor, size: int, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """uint8 (N, 3, H, W) → normalised float32 (N, 3, size, size).

    Antialiased bicubic on floats, clamped to [0, 1]; the shape is not kept.
    """
    x = images_NCHW.float() / 255
    if x.shape[-2:] != (size, size):
        x = F.interpolate(x, (size, size), mode="bicubic", align_corners=False, antialias=True).clamp(0, 1)
    return normalise(x, mean, std)


def normalise(unit_NCHW: Tensor, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """(x - mean) / std by channel, for x in [0, 1]."""
    center, scale = (torch.tensor(v, device=unit_NCHW.device)[:, None, None] for v in (mean, std))
    return (unit_NCHW - center) / scale
