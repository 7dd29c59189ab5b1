"""What a protocol does to 8-bit images before a judge sees them: codec, crop and resize, all by Pillow."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image

from bench.protocols.base import Crop, Filter, Protocol

FILTERS = {
    "bicubic": Image.Resampling.BICUBIC,
    "bilinear": Image.Resampling.BILINEAR,
    "lanczos": Image.Resampling.LANCZOS,
    "box": Image.Resampling.BOX,
    "hamming": Image.Resampling.HAMMING,
}


def through_codec(images_NCHW: np.ndarray, codec: str) -> np.ndarray:
    """uint8 (N, 3, H, W) as they come back from files of this codec: ``png`` unchanged, ``jpeg-Q`` written by
    Pillow at quality Q (chroma subsampled 4:2:0 and all else as its defaults have it) and decoded."""
    if codec == "png":
        return images_NCHW
    quality = int(codec.removeprefix("jpeg-"))
    out = np.empty_like(images_NCHW)
    for row, image in enumerate(np.ascontiguousarray(images_NCHW.transpose(0, 2, 3, 1))):
        buffer = io.BytesIO()
        Image.fromarray(image).save(buffer, format="JPEG", quality=quality)
        with Image.open(buffer) as decoded:
            out[row] = np.asarray(decoded.convert("RGB")).transpose(2, 0, 1)
    return out


def prepared(image: Image.Image, crop: Crop, side: int | None, resize_filter: Filter) -> Image.Image:
    """The image cropped to its central square and resized to ``side`` pixels, antialiased; one of that size
    already is left as it is, and without ``side`` only the crop is made.

    With ``crop`` "none" and a ``side`` the whole picture is squeezed into the square.
    """
    if side is not None and image.size == (side, side):
        return image
    if crop != "none":
        image = image.crop(_square(*image.size, halves_to_even=crop == "centre-round"))
    if side is None or image.size == (side, side):
        return image
    return image.resize((side, side), FILTERS[resize_filter])


def _square(width: int, height: int, *, halves_to_even: bool) -> tuple[int, int, int, int]:
    """The central square's box. torchvision rounds its corner with Python's round, others round it down."""
    short = min(width, height)
    left, top = (
        round((length - short) / 2) if halves_to_even else (length - short) // 2 for length in (width, height)
    )
    return left, top, left + short, top + short


def resized(images_NCHW: np.ndarray, side: int, resize_filter: Filter) -> np.ndarray:
    """Square uint8 (N, 3, S, S) as uint8 (N, 3, side, side)."""
    if images_NCHW.shape[2:] == (side, side):
        return images_NCHW
    rows = np.ascontiguousarray(images_NCHW.transpose(0, 2, 3, 1))
    small = [np.asarray(prepared(Image.fromarray(row), "none", side, resize_filter)) for row in rows]
    return np.stack(small).transpose(0, 3, 1, 2)


def presented(images_NCHW: np.ndarray, protocol: Protocol) -> np.ndarray:
    """Stored samples, uint8 (N, 3, R, R), as the protocol's judges get them: (N, 3, size, size)."""
    return resized(through_codec(images_NCHW, protocol.codec), protocol.size, protocol.resize_filter)
