"""A public classifier of timm or torchvision as judge."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from bench.auxiliaries.classifier_files import ClassifierFiles
from bench.auxiliaries.classifiers import load_classifier
from bench.judges.tiles import in_tiles
from bench.types import Condition, Readout


@dataclass(frozen=True, kw_only=True)
class PublicClassifierJudge(ClassifierFiles):
    """Reads classes and features with a timm or torchvision classifier, from a local file.

    Images go through the preset's transform on Pillow images; features are what the last layer sees.
    """

    batch_size: int = 64
    gives: ClassVar[tuple[str, ...]] = ("features", "logits")

    def load(self, device: torch.device) -> PublicClassifierReader:
        return PublicClassifierReader(load_classifier(self, device), device, self.batch_size)


class PublicClassifierReader:
    """Logits by head and features of a :class:`bench.auxiliaries.classifiers.PublicClassifier`."""

    def __init__(self, network: Any, device: torch.device, batch_size: int):
        self.network, self.device, self.batch_size = network, device, batch_size

    def readout(self, images_NCHW: np.ndarray, conditions: Sequence[Condition] | None = None) -> Readout:
        def read(batch: Tensor) -> dict[str, Tensor]:
            prepared = self.network.prepare(batch.cpu().numpy()).to(self.device)
            features, logits = self.network.read(prepared)
            return {"features": features, **{f"logits/{head}": values for head, values in logits.items()}}

        out = in_tiles(images_NCHW, self.batch_size, self.device, read)
        return Readout(
            features=out["features"],
            logits={name: out[f"logits/{name}"] for name in self.network.heads},
            classes=dict(self.network.heads),
        )
