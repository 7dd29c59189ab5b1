"""Data as a protocol asks for it: crop, filter and size of the reference images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bench.errors import DataError
from bench.protocols.base import Filter, Protocol
from bench.protocols.images import resized
from bench.worlds.base import ImageSet, manifest_digest


def load_under(source: Any, cache_dir: Path, protocol: Protocol, split: str | None = None) -> ImageSet:
    """The protocol's reference split of a source, or another one, cropped and resized as it says.

    A source of files of any size offers ``load_as(split, cache_dir, crop, resize_filter, side)`` beside
    ``load``; images of others are resized from the size that they have.
    """
    side = source.resolution if protocol.eval_size is None else protocol.eval_size
    split = protocol.reference_split if split is None else split
    prepare = getattr(source, "load_as", None)
    if prepare is not None:
        return prepare(split, cache_dir, protocol.crop, protocol.resize_filter, side)
    images = source.load(split, cache_dir)
    if side in (None, source.resolution) or source.resolution is None:
        return images
    return ResizedImageSet(images, side, protocol.resize_filter)


class ResizedImageSet:
    """Square images of another set, resized by Pillow's antialiased filter."""

    def __init__(self, inner: ImageSet, side: int, resize_filter: Filter):
        self._inner, self._side, self._filter = inner, side, resize_filter

    @property
    def ids(self) -> Sequence[str]:
        return self._inner.ids

    @property
    def captions(self) -> Sequence[tuple[str, ...]]:
        return self._inner.captions

    @property
    def attributes(self) -> Sequence[Mapping[str, str]]:
        return self._inner.attributes

    @property
    def manifest_sha256(self) -> str:
        head = {"of": self._inner.manifest_sha256, "side": self._side, "filter": self._filter}
        return manifest_digest(head, ())

    def __len__(self) -> int:
        return len(self._inner)

    def images(self, indices: Sequence[int]) -> np.ndarray:
        """uint8 (len(indices), 3, side, side). Raises DataError where the images are not square."""
        found = self._inner.images(indices)
        if found.shape[2] != found.shape[3]:
            raise DataError(
                f"images of {found.shape[3]} x {found.shape[2]} pixels cannot be resized to a square; use a "
                "source that crops."
            )
        return resized(found, self._side, self._filter)
