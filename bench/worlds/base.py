"""The contract of data: a set of images with ids, captions and, where known, exact attributes.

A *source* is a frozen dataclass (the suite's configuration) with ``load(split, cache_dir) -> ImageSet``.
Built-in worlds and a folder in MS-COCO's layout are sources alike.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np


class ImageSet(Protocol):
    """N images in a fixed order. ``manifest_sha256`` identifies ids, captions, attributes and pixels."""

    @property
    def ids(self) -> Sequence[str]: ...

    @property
    def captions(self) -> Sequence[tuple[str, ...]]: ...

    @property
    def attributes(self) -> Sequence[Mapping[str, str]]: ...

    @property
    def manifest_sha256(self) -> str: ...

    def __len__(self) -> int: ...

    def images(self, indices: Sequence[int]) -> np.ndarray:
        """uint8 (len(indices), 3, H, W), RGB. Raises DataError naming a file that cannot be read."""
        ...


@runtime_checkable
class Source(Protocol):
    """Configuration of a data set. ``attributes`` maps attribute names to their ordered values."""

    @property
    def resolution(self) -> int | None: ...

    @property
    def attributes(self) -> Mapping[str, tuple[str, ...]]: ...

    def load(self, split: str, cache_dir: Path) -> ImageSet: ...


def manifest_digest(head: Mapping[str, object], rows: Iterable[Sequence[object]]) -> str:
    """SHA-256 in hex of a header and one row per image, each as canonical JSON, in order."""
    digest = hashlib.sha256()
    for item in (head, *rows):
        digest.update(json.dumps(item, sort_keys=True, ensure_ascii=True, separators=(",", ":")).encode())
        digest.update(b"\n")
    return digest.hexdigest()


@dataclass(frozen=True, kw_only=True)
class ArrayImageSet:
    """An ImageSet held in memory; ``pixels`` is uint8 (N, 3, H, W), RGB, and all four have N entries."""

    ids: tuple[str, ...]
    captions: tuple[tuple[str, ...], ...]
    attributes: tuple[Mapping[str, str], ...]
    pixels: np.ndarray

    def __post_init__(self) -> None:
        counts = {len(self.ids), len(self.captions), len(self.attributes), len(self.pixels)}
        if len(counts) != 1 or self.pixels.ndim != 4 or self.pixels.dtype != np.uint8:
            raise ValueError(
                "ids, captions, attributes and uint8 (N, 3, H, W) pixels must agree in N; got "
                f"{len(self.ids)}, {len(self.captions)}, {len(self.attributes)} and "
                f"{self.pixels.dtype} {self.pixels.shape}"
            )

    def __len__(self) -> int:
        return len(self.ids)

    def images(self, indices: Sequence[int]) -> np.ndarray:
        """uint8 (len(indices), 3, H, W), RGB, a copy."""
        return self.pixels[np.asarray(indices, dtype=np.int64)]

    @cached_property
    def manifest_sha256(self) -> str:
        """SHA-256 over ids, captions, attributes and pixels."""
        rows = (
            (image_id, captions, dict(attributes), hashlib.sha256(pixels.tobytes()).hexdigest())
            for image_id, captions, attributes, pixels in zip(
                self.ids, self.captions, self.attributes, self.pixels, strict=True
            )
        )
        return manifest_digest({"shape": self.pixels.shape}, rows)
