"""Thumbnails as a few large pictures (sprites), so that thousands of samples are a handful of files.

A sprite holds tiles row by row; its tile t lies at column ``t % columns``, row ``t // columns``. Thumbnails
are WebP at quality 90 and at most 128 pixels wide: for looking, not for measuring.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from bench.artifacts.faults import told
from bench.errors import ResultError

LARGEST_SIDE = 128
QUALITY = 90


def thumbnail(image_CHW: np.ndarray) -> np.ndarray:
    """uint8 (3, H, W) → (h, w, 3) with neither side above 128; small images stay as they are."""
    height, width = image_CHW.shape[1:]
    pixels = np.ascontiguousarray(image_CHW.transpose(1, 2, 0))
    scale = max(height, width) / LARGEST_SIDE
    if scale <= 1:
        return pixels
    size = (max(1, round(width / scale)), max(1, round(height / scale)))
    return np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.LANCZOS))


def encode_sprite(tiles_NHWC: Sequence[np.ndarray], columns: int) -> bytes:
    """One WebP of equal tiles, row by row."""
    height, width = tiles_NHWC[0].shape[:2]
    rows = -(-len(tiles_NHWC) // columns)
    sheet = np.full((rows * height, columns * width, 3), 255, np.uint8)
    for t, tile in enumerate(tiles_NHWC):
        y, x = t // columns * height, t % columns * width
        sheet[y : y + height, x : x + width] = tile
    buffer = io.BytesIO()
    Image.fromarray(sheet).save(buffer, format="webp", quality=QUALITY, method=0)
    return buffer.getvalue()


@dataclass
class Sprites:
    """Every sprite of one page, by number. ``most_bytes`` is what the page can hold in itself; where they are
    more, :meth:`place` writes them into a folder beside the page."""

    most_bytes: int
    # Encoded beside the reading of the next images: WebP holds no lock of the interpreter.
    _encoder: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(1))
    _encoded: list[Future[bytes]] = field(default_factory=list)

    @property
    def contents(self) -> list[bytes]:
        """Every sprite's bytes."""
        return [sprite.result() for sprite in self._encoded]

    @property
    def num_bytes(self) -> int:
        """What they take in the page, base64."""
        return sum(-(-len(content) // 3) * 4 for content in self.contents)

    @property
    def room(self) -> int:
        """Bytes left in the page; negative where they go beside it."""
        return self.most_bytes - self.num_bytes

    def add(self, images: Iterable[np.ndarray], columns: int, rows: int) -> dict[str, Any] | None:
        """Adds uint8 (3, H, W) images in order, ``columns * rows`` a sprite; returns where they are.

        ``{"first": number of the first sprite, "per": tiles a sprite, "columns", "width", "height", "num"}``,
        or None where there are none.
        """
        first, per, num = len(self._encoded), columns * rows, 0
        batch: list[np.ndarray] = []
        shape: tuple[int, ...] = ()
        for image in images:
            batch.append(thumbnail(image))
            shape, num = batch[0].shape, num + 1
            if len(batch) == per:
                self._encoded.append(self._encoder.submit(encode_sprite, batch, columns))
                batch = []
        if batch:
            self._encoded.append(self._encoder.submit(encode_sprite, batch, columns))
        if not num:
            return None
        return {
            "first": first, "per": per, "columns": columns, "width": shape[1], "height": shape[0], "num": num
        }  # fmt: skip

    def place(self, folder: Path) -> tuple[list[str], list[Path]]:
        """What the page holds of each sprite: base64, or (where they are too many) a path under its folder.

        Files are written to ``folder``; returns them too.
        """
        if self.room >= 0:
            return [base64.b64encode(content).decode() for content in self.contents], []
        files = []
        with told("written", str(folder), (OSError,), ResultError):
            folder.mkdir(parents=True, exist_ok=True)
            for k, content in enumerate(self.contents):
                path = folder / f"{k:05d}.webp"
                path.write_bytes(content)
                files.append(path)
        return [f"{folder.name}/{path.name}" for path in files], files
