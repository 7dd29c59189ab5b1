"""The judge contract: a frozen network that scores images and did not guide them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import numpy as np
import torch

from bench.types import Condition, Readout


class Judge(Protocol):
    def readout(self, images_NCHW: np.ndarray, conditions: Sequence[Condition] | None = None) -> Readout:
        """What the judge sees in uint8 images (N, 3, H, W); text embeddings only where conditions have text.

        The result for one image does not depend on the others; the judge batches internally. A judge with an
        attribute ``labelled`` that is True is also told, as class conditions, what real images show.
        """
        ...


@runtime_checkable
class JudgeConfig(Protocol):
    def load(self, device: torch.device) -> Judge: ...
