"""Sets of image files: decoded when asked for, cropped and resized, every fault naming its file."""

from __future__ import annotations

import hashlib
import os
import struct
import zlib
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from pathlib import Path
from typing import TypeVar

import numpy as np
from PIL import Image
from rich.console import Console
from rich.errors import LiveError
from rich.progress import Progress

from bench.errors import DataError
from bench.protocols.base import Crop, Filter
from bench.protocols.images import prepared

T = TypeVar("T")
SMALL = 64 * 64  # pixels

# Pillow turns these into 8-bit RGB without rescaling; deeper modes would be clipped in silence.
_EIGHT_BIT_MODES = frozenset({"1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr"})
_DECODE_ERRORS = (
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    struct.error,
    zlib.error,
    Image.DecompressionBombError,
)


def track(items: Iterable[T], description: str, total: int) -> Iterator[T]:
    """The items, with a progress bar on standard error where that is a terminal and shows no other bar."""
    console = Console(stderr=True)
    progress = Progress(console=console, transient=True, disable=not console.is_terminal)
    try:
        progress.start()
    except LiveError:
        yield from items
        return
    try:
        yield from progress.track(items, total=total, description=description)
    finally:
        progress.stop()


class FileImageSet:
    """Images of the files ``names`` in ``folder``, brought by a protocol's ``crop`` and ``resize_filter``
    to ``resolution`` pixels (None: as they are, and then all of one size)."""

    def __init__(
        self, folder: Path, names: Sequence[str], resolution: int | None, crop: Crop, resize_filter: Filter
    ) -> None:
        self._folder, self._files = folder, tuple(names)
        self.decoded: dict[str, Image.Image] | None = None  # pictures kept for others, where one is given
        self._resolution, self._crop, self._filter = resolution, crop, resize_filter

    def __len__(self) -> int:
        return len(self._files)

    def images(self, indices: Sequence[int]) -> np.ndarray:
        """uint8 (len(indices), 3, H, W), RGB. Raises DataError naming a file that cannot be read."""
        height, width = self._shape
        out = np.empty((len(indices), 3, height, width), dtype=np.uint8)
        names = [self._files[int(i)] for i in indices]
        with ThreadPoolExecutor(max_workers=min(8, os.cpu_count() or 1)) as pool:
            # Small pictures are decoded in less time than it takes to hand them over.
            found = map(self._read, names) if height * width <= SMALL else pool.map(self._read, names)
            for row, pixels in enumerate(found):
                if pixels.shape[1:] != (height, width):
                    raise DataError(
                        f"{self._folder / self._files[int(indices[row])]}: {pixels.shape[2]} x "
                        f"{pixels.shape[1]} pixels, but {self._files[0]} has {width} x {height}. "
                        "Set 'resolution' to crop and resize them."
                    )
                out[row] = pixels
        return out

    @property
    def _geometry(self) -> dict[str, object]:
        """What of crop and resize enters a manifest's hash: what is not as it always was."""
        head: dict[str, object] = {"resolution": self._resolution}
        if self._crop != "centre":
            head["crop"] = self._crop
        if self._filter != "bicubic":
            head["filter"] = self._filter
        return head

    @cached_property
    def _shape(self) -> tuple[int, int]:
        if self._resolution is not None:
            return self._resolution, self._resolution
        _, height, width = self._read(self._files[0]).shape
        return height, width

    def _file_digest(self, name: str) -> str:
        try:
            with (self._folder / name).open("rb") as file:
                return hashlib.file_digest(file, "sha256").hexdigest()
        except OSError as error:
            raise DataError(f"{self._folder / name}: cannot read the image: {error}.") from error

    def _read(self, name: str) -> np.ndarray:
        rgb = self._decode(name)
        if self._resolution is not None:
            rgb = prepared(rgb, self._crop, self._resolution, self._filter)
        return np.asarray(rgb).transpose(2, 0, 1)

    def _decode(self, name: str) -> Image.Image:
        """The whole picture in RGB. Raises DataError naming a file that cannot be read."""
        if self.decoded is not None and name in self.decoded:
            return self.decoded[name]
        path = self._folder / name
        try:
            with Image.open(path) as image:
                image.load()
                if image.mode not in _EIGHT_BIT_MODES:
                    raise ValueError(f"pixel mode '{image.mode}' is not 8-bit")
                rgb = image.convert("RGB")
        except _DECODE_ERRORS as error:
            raise DataError(
                f"{path}: cannot read the image: {error}. Replace the file, or remove its entry."
            ) from error
        if self.decoded is not None:
            self.decoded[name] = rgb
        return rgb
