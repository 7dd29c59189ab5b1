"""A classifier of the zoo as judge: attribute logits, and its penultimate layer as FID features."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from bench.judges.tiles import in_tiles, to_unit
from bench.types import Condition, Readout
from bench.zoo.weights import load_model


@dataclass(frozen=True, kw_only=True)
class ClassifierJudge:
    """Reads attributes and features with a zoo classifier that must not be the guide.

    ``weights`` replaces the shipped file, then ``sha256`` may state the expected hash.
    """

    model: str = "digits-classifier-judge"
    weights: str | None = None
    sha256: str | None = None
    batch_size: int = 128

    gives: ClassVar[tuple[str, ...]] = ("features", "logits")

    def load(self, device: torch.device) -> ClassifierReader:
        network = load_model(self.model, device, path=self.weights, sha256=self.sha256)
        return ClassifierReader(network, device, self.batch_size)


class ClassifierReader:
    """``network`` has ``heads``, ``features`` (N, F) and ``head`` (features → logits by head)."""

    def __init__(self, network: Any, device: torch.device, batch_size: int):
        self.network, self.device, self.batch_size = network, device, batch_size

    def readout(self, images_NCHW: np.ndarray, conditions: Sequence[Condition] | None = None) -> Readout:
        def read(batch: Tensor) -> dict[str, Tensor]:
            features = self.network.features(to_unit(batch))
            return {
                "features": features,
                **{f"logits/{k}": v for k, v in self.network.head(features).items()},
            }

        out = in_tiles(images_NCHW, self.batch_size, self.device, read)
        return Readout(
            features=out["features"],
            logits={name: out[f"logits/{name}"] for name in self.network.heads},
            classes=dict(self.network.heads),
        )
