"""What the rewards share: an image and perhaps a text give a number, whose negative is the energy."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from bench.auxiliaries.pictures import normalise
from bench.errors import DataError
from bench.streams import Streams
from bench.types import Condition


def shown(images_NCHW: Tensor, size: int, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """Images in [-1, 1] as a reward's network takes them, (N, 3, size, size); differentiable.

    Antialiased bicubic on floats, the nearest to the Pillow resize that published scores were made with.
    """
    x = (images_NCHW + 1) / 2
    if x.shape[-2:] != (size, size):
        x = F.interpolate(x, (size, size), mode="bicubic", align_corners=False, antialias=True)
    return normalise(x.clamp(0, 1), mean, std)


def texts_of(conditions: Sequence[Condition], what: str) -> list[str]:
    """The conditions' texts. Raises DataError for one without."""
    for condition in conditions:
        if not condition.text or not condition.text.strip():
            raise DataError(f"condition '{condition.id}' has no text, which {what} needs.")
    return [condition.text or "" for condition in conditions]


def embedded_once(texts: Sequence[str], embed: Any) -> Tensor:
    """``embed``'s rows (N, D) of texts, equal ones asked for once and one by one: a row never depends on
    who is asked for beside it."""
    unique = list(dict.fromkeys(texts))
    with torch.no_grad():
        table = torch.cat([embed([text]) for text in unique])
    row = {text: i for i, text in enumerate(unique)}
    return table[torch.tensor([row[text] for text in texts], device=table.device)]


class RewardConditioner(ABC):
    """A reward as conditioner: ``reward`` (N,), higher is better; the energy is minus it."""

    views = 1
    dim = 0

    @abstractmethod
    def reward(self, images_NCHW: Tensor, condition_ND: Tensor) -> Tensor: ...

    def energy(self, images_NCHW: Tensor, condition_ND: Tensor, streams: Streams, step: int) -> Tensor:
        return -self.reward(images_NCHW, condition_ND)

    def plain_energy(self, images_NCHW: Tensor, condition_ND: Tensor) -> Tensor:
        return -self.reward(images_NCHW, condition_ND)
