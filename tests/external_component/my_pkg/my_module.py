"""A generator and a data source from outside, written against bench's contracts alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from bench.errors import SuiteError
from bench.generators.base import Block, LatentSpace
from bench.streams import Streams
from bench.worlds.base import ArrayImageSet


@dataclass(frozen=True, kw_only=True)
class Stripes:
    """One grey level per column, in [-1, 1]: z is the image's row."""

    resolution: int = 8
    contrast: float = 1.0

    def __post_init__(self) -> None:
        if not 0 < self.contrast <= 1:
            raise SuiteError(f"contrast must be in (0, 1], got {self.contrast}.")

    def load(self, device: torch.device) -> StripesGenerator:
        return StripesGenerator(self)


class StripesGenerator:
    def __init__(self, config: Stripes):
        self.resolution, self.contrast = config.resolution, config.contrast
        self.latent = LatentSpace(
            blocks=(Block(name="z", dim=config.resolution),),
            sample=lambda streams: streams.normal("prior:z", (config.resolution,)),
        )

    def decode(self, z_ND: Tensor) -> Tensor:
        rows = self.contrast * torch.tanh(z_ND)
        return rows[:, None, None, :].expand(-1, 3, self.resolution, -1)


def build(resolution: int = 8, contrast: float = 1.0) -> Stripes:
    """The target of ``kind: python``: arguments in, configuration out."""
    return Stripes(resolution=resolution, contrast=contrast)


@dataclass(frozen=True, kw_only=True)
class Targets:
    """Noise images with an integer attribute ``target``, which the quadratic conditioner reads."""

    resolution: int = 8
    values: int = 5
    num: int = 20
    has_captions: bool = False

    @property
    def attributes(self) -> Mapping[str, tuple[str, ...]]:
        return {"target": tuple(str(value) for value in range(self.values))}

    def load(self, split: str, cache_dir: Path) -> ArrayImageSet:
        noise = Streams.from_seed(self.num, "targets", split).uniform(
            "pixels", (3, self.resolution, self.resolution), high=256.0
        )
        return ArrayImageSet(
            ids=tuple(str(i) for i in range(self.num)),
            captions=((),) * self.num,
            attributes=tuple({"target": str(i % self.values)} for i in range(self.num)),
            pixels=noise.numpy().astype(np.uint8),
        )


def broken(resolution: int = 8) -> Stripes:
    """A target whose own code fails."""
    raise RuntimeError("out of stripes")


def incomplete() -> object:
    """A target that does not give a generator's configuration."""
    return object()


NOT_CALLABLE = 3
