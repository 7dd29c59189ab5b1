"""DiffAugment views for AugCLIP: colour, translation, resize, cutout; every draw from the sample's stream.

Policy and order as in FuseDream and TR0N (Zhao et al. 2020, arXiv:2006.10738, plus the resize). Images are
in [-1, 1], fill is 0, values are not clamped afterwards. Translation and resize are separable linear
maps, so each sample is moved by two small matrix products of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from bench.streams import Streams

Augmentation = Literal["color", "translation", "resize", "cutout"]


def translation_matrix(shift_B: Tensor, size: int) -> Tensor:
    """(B, size, size) float32 M with (M x)_i = x_{i + shift}, zero outside; integer shifts (B,)."""
    index = torch.arange(size, device=shift_B.device)
    return ((index[None, :, None] + shift_B[:, None, None]) == index[None, None, :]).float()


def resize_matrix(ratio_B: Tensor, size: int) -> Tensor:
    """(B, size, size) float32: bilinear resize to int(ratio * size), then centre pad with 0 or centre crop.

    Half-pixel centres, no antialias, source coordinates clamped to the image, as
    ``torch.nn.functional.interpolate(mode="bilinear", align_corners=False)`` does.
    """
    index = torch.arange(size, device=ratio_B.device)
    # float64: int(0.8 * 40) must be 32 whatever float32 makes of the ratio.
    side = (ratio_B.double() * size).floor().long()
    left = torch.div(size - side, 2, rounding_mode="trunc").clamp(min=0)
    start = torch.div(side - size, 2, rounding_mode="trunc").clamp(min=0)
    row = index[None, :] - left[:, None] + start[:, None]
    valid = (row >= 0) & (row < side[:, None])
    source = ((row.double() + 0.5) * size / side[:, None] - 0.5).clamp(0, size - 1)
    low = source.floor().long().clamp(max=size - 1)
    high = (low + 1).clamp(max=size - 1)
    weight = (source - low).float()
    matrix = torch.zeros(len(ratio_B), size, size, dtype=weight.dtype, device=ratio_B.device)
    matrix.scatter_add_(2, low[:, :, None], (1 - weight)[:, :, None])
    matrix.scatter_add_(2, high[:, :, None], weight[:, :, None])
    return matrix * valid[:, :, None]


def augment(
    images_NCHW: Tensor, streams: Streams, step: int, views: int, policy: Sequence[Augmentation]
) -> Tensor:
    """``views`` augmented copies of each image in [-1, 1], (N * views, C, H, W), one image's adjacent.

    The resize ratio is one draw per (sample, step), shared by its copies; everything else is per copy.
    H must equal W.
    """
    _, _, size, width = images_NCHW.shape
    if size != width:
        raise ValueError(f"augmentation needs square images, got {size} x {width}")

    def per_view(purpose: str) -> Tensor:
        return streams.uniform(f"augment:{purpose}", (views,), step).flatten()

    x = images_NCHW.repeat_interleave(views, dim=0)
    if "color" in policy:
        x = x + (per_view("brightness") - 0.5)[:, None, None, None]
        mean = x.mean(dim=1, keepdim=True)
        x = (x - mean) * (2 * per_view("saturation"))[:, None, None, None] + mean
        mean = x.mean(dim=(1, 2, 3), keepdim=True)
        x = (x - mean) * (per_view("contrast") + 0.5)[:, None, None, None] + mean
    rows = columns = None
    if "translation" in policy:
        reach = int(size / 8 + 0.5)
        shifts = (
            streams.integers("augment:translation", 2 * reach + 1, (views, 2), step).flatten(0, 1) - reach
        )
        rows, columns = translation_matrix(shifts[:, 0], size), translation_matrix(shifts[:, 1], size)
    if "resize" in policy:
        ratio = 0.8 + 0.4 * streams.uniform("augment:resize", (), step)
        scale = resize_matrix(ratio, size).repeat_interleave(views, dim=0)
        rows = scale if rows is None else scale @ rows
        columns = scale if columns is None else scale @ columns
    if rows is not None and columns is not None:
        x = rows[:, None] @ x @ columns.transpose(1, 2)[:, None]
    if "cutout" in policy:
        x = x * cutout_mask(streams, step, views, size)
    return x


def cutout_mask(streams: Streams, step: int, views: int, size: int) -> Tensor:
    """(N * views, 1, size, size): 0 in one square of half the side per copy, clipped to the image."""
    side = int(size * 0.5 + 0.5)
    reach = size + (1 - side % 2)
    center = streams.integers("augment:cutout", reach, (views, 2), step).flatten(0, 1)
    index = torch.arange(size, device=center.device)
    start = (center - side // 2)[:, :, None]
    inside = (index >= start) & (index < start + side)
    return 1.0 - (inside[:, 0, :, None] & inside[:, 1, None, :]).float()[:, None]
