"""Real images made worse by known steps, and pictures that never change."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping

import numpy as np
from PIL import Image, ImageFilter

from bench.streams import philox4x32


def blurred(images_NCHW: np.ndarray, share: float) -> np.ndarray:
    """Gaussian blur with a radius of ``share`` of the side; uint8 (N, 3, H, W)."""
    radius = share * images_NCHW.shape[-1]
    return _each(images_NCHW, lambda image: image.filter(ImageFilter.GaussianBlur(radius)))


def noisy(images_NCHW: np.ndarray, sigma: float) -> np.ndarray:
    """Gaussian noise of ``sigma`` grey levels, the same every time."""
    noise = np.random.default_rng(0).normal(0, sigma, images_NCHW.shape)
    return (images_NCHW + noise).round().clip(0, 255).astype(np.uint8)


def jpeg(images_NCHW: np.ndarray, quality: float) -> np.ndarray:
    """Saved as JPEG at this quality, with subsampled colours, and read again."""

    def stored(image: Image.Image) -> Image.Image:
        buffer = io.BytesIO()
        image.save(buffer, format="jpeg", quality=int(quality), subsampling="4:2:0")
        return Image.open(buffer)

    return _each(images_NCHW, stored)


def negated(images_NCHW: np.ndarray) -> np.ndarray:
    """White for black."""
    return 255 - images_NCHW


# From mild to strong; every metric that sees quality falls from one step to the next.
LADDERS: Mapping[str, tuple[Callable[[np.ndarray, float], np.ndarray], tuple[float, ...]]] = {
    "blur": (blurred, (0.03, 0.06, 0.12)),
    "noise": (noisy, (24, 48, 96)),
    "jpeg": (jpeg, (40, 10, 2)),
}


def _each(images_NCHW: np.ndarray, change: Callable[[Image.Image], Image.Image]) -> np.ndarray:
    changed = [
        np.asarray(change(Image.fromarray(image)).convert("RGB"))
        for image in np.ascontiguousarray(images_NCHW.transpose(0, 2, 3, 1))
    ]
    return np.stack(changed).transpose(0, 3, 1, 2)


def fixed_pictures(side: int, num: int = 8) -> np.ndarray:
    """uint8 (num, 3, side, side) from integer arithmetic alone: the same on every machine and in every
    version of every library. Squares, gradients and noise in different colours."""
    y, x = np.mgrid[:side, :side]
    pictures = np.empty((num, 3, side, side), np.uint8)
    for i in range(num):
        zeros = np.zeros_like(x)
        words = philox4x32([x, y, zeros + i, zeros], [zeros + 7, zeros + 11])
        inside = (abs(x - side * (i + 2) // (num + 4)) < side // 5) & (abs(y - side // 2) < side // 4)
        for channel in range(3):
            gradient = (x * (channel + 1) + y * (i + 1)) * 255 // (side * (channel + i + 2))
            grain = words[channel] % 32
            shown = np.where(inside, 255 - (i * 29 + channel * 83) % 256, gradient)
            pictures[i, channel] = np.clip(shown + grain - 16, 0, 255)
    return pictures
