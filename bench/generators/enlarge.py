"""Enlarging what a small model makes to the resolution of its world, and the way back for its training."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def enlarge(images_NCHW: Tensor, resolution: int) -> Tensor:
    """Square images at ``resolution`` px, bicubic (a = -0.75, no antialiasing), not clamped; differentiable.

    Images that are of this size already come back as they are.
    """
    if images_NCHW.shape[-1] == resolution:
        return images_NCHW
    return F.interpolate(images_NCHW, (resolution, resolution), mode="bicubic", align_corners=False)


def reduction(side: int, resolution: int) -> Tensor:
    """(side, resolution) float32: per axis, the least-squares inverse of :func:`enlarge`.

    M x Mᵀ is the image of ``side`` px that comes closest to x once it is enlarged.
    """
    basis = torch.eye(side, dtype=torch.float64).view(1, side, side, 1)
    large = F.interpolate(basis, (resolution, 1), mode="bicubic", align_corners=False)
    return torch.linalg.pinv(large[0, :, :, 0].T).float()
