"""Running a judge's network on batches of one fixed size, so that neighbours never change a readout."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor


def in_tiles(
    images_NCHW: np.ndarray, size: int, device: torch.device, network: Callable[[Tensor], dict[str, Tensor]]
) -> dict[str, np.ndarray]:
    """``network`` on uint8 images in batches of exactly ``size``, the last one padded with its last image.

    ``network`` maps uint8 (size, 3, H, W) to named tensors with leading dimension ``size``; the result
    holds them for all N images as float32 arrays.
    """
    parts: dict[str, list[np.ndarray]] = {}
    with torch.no_grad():
        for start in range(0, len(images_NCHW), size):
            rows = np.arange(start, start + size).clip(max=len(images_NCHW) - 1)
            batch = torch.from_numpy(np.ascontiguousarray(images_NCHW[rows])).to(device)
            for name, values in network(batch).items():
                parts.setdefault(name, []).append(values[: len(images_NCHW) - start].float().cpu().numpy())
    return {name: np.concatenate(values) for name, values in parts.items()}


def to_unit(images_uint8: Tensor) -> Tensor:
    """uint8 to float32 in [-1, 1]."""
    return images_uint8.float() / 127.5 - 1
