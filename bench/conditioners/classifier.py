"""Class conditions: a frozen classifier of the zoo."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from bench.errors import DataError, SuiteError, nearest
from bench.streams import Streams
from bench.types import Condition, ConditionKind
from bench.zoo.weights import load_model


@dataclass(frozen=True, kw_only=True)
class Classifier:
    """Energy E = -Σ log p_h(value) over the demanded attributes ``heads`` (null: all of the model's).

    The condition vector holds one-hot blocks when sampling and f's probabilities when pairs are made
    (TR0N, class-conditional experiment; harness definition).
    """

    model: str = "digits-classifier-guide"
    heads: tuple[str, ...] | None = None
    weights: str | None = None
    sha256: str | None = None

    @property
    def kind(self) -> ConditionKind:
        return "class"

    def check_data(self, source: Any) -> str | None:
        """What makes this conditioner unfit for a data source, or None."""
        attributes = source.attributes
        missing = [head for head in self.heads or () if head not in attributes]
        if not attributes:
            return "it has no class labels"
        if missing:
            name = missing[0]
            return f"it has no attribute '{name}'.{nearest(name, attributes)} It has: {', '.join(attributes)}"
        return None

    def load(self, device: torch.device) -> ClassifierConditioner:
        network = load_model(self.model, device, path=self.weights, sha256=self.sha256)
        heads = self.heads or tuple(network.heads)
        unknown = [head for head in heads if head not in network.heads]
        if unknown:
            raise SuiteError(
                f"classifier '{self.model}' has no head '{unknown[0]}'.{nearest(unknown[0], network.heads)} "
                f"Heads: {', '.join(network.heads)}."
            )
        return ClassifierConditioner(network, heads, device)


class ClassifierConditioner:
    """f with the demanded heads; ``sizes`` are their class counts and ``dim`` the sum."""

    views = 1

    def __init__(self, network: Any, heads: tuple[str, ...], device: torch.device):
        self.network, self.heads, self.device = network, heads, device
        self.sizes = tuple(len(network.heads[head]) for head in heads)
        self.dim = sum(self.sizes)

    def embed(self, conditions: Sequence[Condition]) -> Tensor:
        rows = torch.zeros(len(conditions), self.dim)
        start = 0
        for head in self.heads:
            values = self.network.heads[head]
            for i, condition in enumerate(conditions):
                value = condition.labels.get(head)
                if value not in values:
                    raise DataError(
                        f"condition '{condition.id}' asks for {head}={value!r}, which the classifier does "
                        f"not know. Known: {', '.join(values)}."
                    )
                rows[i, start + values.index(value)] = 1.0
            start += len(values)
        return rows.to(self.device)

    def encode(self, images_NCHW: Tensor, streams: Streams) -> Tensor:
        logits = self.network(images_NCHW)
        return torch.cat([logits[head].softmax(1) for head in self.heads], dim=1)

    def energy(self, images_NCHW: Tensor, condition_ND: Tensor, streams: Streams, step: int) -> Tensor:
        logits = self.network(images_NCHW)
        log_probabilities = torch.cat([F.log_softmax(logits[head], dim=1) for head in self.heads], dim=1)
        return -(condition_ND * log_probabilities).sum(1)

    def target_logit_energy(self, images_NCHW: Tensor, condition_ND: Tensor) -> Tensor:
        """-Σ (1 - p_h) logit_h of the demanded values, (N,), p held fixed: PPGN's condition gradient.

        Of the gradient of log softmax it keeps the demanded logit's part and drops the others'.
        """
        logits = self.network(images_NCHW)
        joined = torch.cat([logits[head] for head in self.heads], dim=1)
        probabilities = torch.cat([logits[head].softmax(1) for head in self.heads], dim=1)
        return -(condition_ND * (1 - probabilities.detach()) * joined).sum(1)
