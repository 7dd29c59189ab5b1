"""How public FID code brings 8-bit images to Inception's 299 pixels, and how it scales them.

Each function gives float32 (N, 3, 299, 299) in about [0, 255]; images of that size come out as they are.
"""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from bench.torchvision_guard import ensure_torchvision

SIDE = 299


def clean(batch: Tensor) -> Tensor:
    """clean-fid's own "clean" resizer: each channel by Pillow's antialiased bicubic as a float image, not
    rounded again. Source: Parmar et al. 2022, arXiv:2104.11222; GaParmar/clean-fid @ e88c4d6."""
    ensure_torchvision()
    from cleanfid.resize import make_resizer

    resizer = make_resizer("PIL", False, "bicubic", (SIDE, SIDE))
    resized = np.stack([resizer(image) for image in _rows(batch)])
    return torch.from_numpy(resized).permute(0, 3, 1, 2).float().to(batch.device)


def torch_fidelity(batch: Tensor) -> Tensor:
    """TensorFlow 1's bilinear, whose pixel centres lie at corners, by torch-fidelity's own function."""
    ensure_torchvision()
    from torch_fidelity.interpolate_compat_tensorflow import interpolate_bilinear_2d_like_tensorflow1x

    return interpolate_bilinear_2d_like_tensorflow1x(batch.float(), size=(SIDE, SIDE), align_corners=False)


def pytorch_fid(batch: Tensor) -> Tensor:
    """Bilinear with half-pixel centres and no antialiasing, on floats in [0, 1] (here scaled back).
    Source: mseitzer/pytorch-fid @ b9c1811, inception.py."""
    unit = F.interpolate(batch.float() / 255, size=(SIDE, SIDE), mode="bilinear", align_corners=False)
    return unit * 255


def t2ibenchmark(batch: Tensor) -> Tensor:
    """Pillow's antialiased bicubic on 8-bit images, rounded to bytes again.
    Source: boomb0om/text2image-benchmark @ 532229f."""
    small = [
        np.asarray(Image.fromarray(image).resize((SIDE, SIDE), Image.Resampling.BICUBIC))
        for image in _rows(batch)
    ]
    return torch.from_numpy(np.stack(small)).permute(0, 3, 1, 2).float().to(batch.device)


def _rows(batch: Tensor) -> np.ndarray:
    """uint8 (N, H, W, 3) on the CPU."""
    return np.ascontiguousarray(batch.permute(0, 2, 3, 1).cpu().numpy())


RESIZE = {
    "clean": clean,
    "torch-fidelity": torch_fidelity,
    "pytorch-fid": pytorch_fid,
    "t2ibenchmark": t2ibenchmark,
}
# What the code that resizes so does next.
OWN_SCALE = {"pytorch-fid": "symmetric", "t2ibenchmark": "symmetric"}


def scaled(bytes_NCHW: Tensor, scale: str) -> Tensor:
    """Values in about [0, 255] as the network takes them: ``tensorflow`` is (x - 128) / 128, in [-1, 0.992];
    ``symmetric`` is 2 x / 255 - 1, in [-1, 1]."""
    if scale == "tensorflow":
        return (bytes_NCHW - 128) / 128
    return 2 * (bytes_NCHW / 255) - 1
