"""The images themselves, made small: for metrics that train on them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar

import numpy as np
import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from bench.judges.tiles import in_tiles
from bench.streams import hash64
from bench.types import Condition, Readout


@dataclass(frozen=True, kw_only=True)
class PixelsJudge:
    """No network: keeps images of ``side`` pixels (antialiased bicubic) and what real ones are known to show.

    Scores of metrics that train a classifier come from these, so that images are decoded once for all judges.
    """

    side: Annotated[int, Field(ge=8)] = 32
    batch_size: int = 256

    gives: ClassVar[tuple[str, ...]] = ("pixels", "labels")

    def load(self, device: torch.device) -> PixelsReader:
        return PixelsReader(self.side, self.batch_size)


class PixelsReader:
    labelled = True

    def __init__(self, side: int, batch_size: int):
        self.side, self.batch_size = side, batch_size

    def readout(self, images_NCHW: np.ndarray, conditions: Sequence[Condition] | None = None) -> Readout:
        def shrink(batch: Tensor) -> dict[str, Tensor]:
            size = (self.side, self.side)
            x = batch.float()
            if batch.shape[-2:] != size:
                x = F.interpolate(x, size, mode="bicubic", align_corners=False, antialias=True)
            return {"pixels": x.round().clamp(0, 255)}

        # On the CPU: devices round an interpolation otherwise.
        out = in_tiles(images_NCHW, self.batch_size, torch.device("cpu"), shrink)
        return Readout(pixels=out["pixels"].astype(np.uint8), labels=label_codes(conditions or ()))


def label_codes(conditions: Sequence[Condition]) -> dict[str, np.ndarray]:
    """Attribute → code of each condition's value, int64 (N,), for attributes that all conditions have."""
    if not conditions:
        return {}
    names = [name for name in conditions[0].labels if all(name in item.labels for item in conditions)]
    return {
        name: np.array([label_code(item.labels[name]) for item in conditions], np.int64) for name in names
    }


def label_code(value: str) -> int:
    """The same number for the same text everywhere."""
    return hash64("label", value)
