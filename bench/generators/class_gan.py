"""The zoo's class-conditional GANs told the class: the native ceiling of searches over their network."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from bench.errors import DataError, SuiteError
from bench.generators.base import Block, Context, LatentSpace
from bench.streams import Streams
from bench.types import Condition, ConditionKind
from bench.zoo.weights import load_model


@dataclass(frozen=True, kw_only=True)
class ClassGan:
    """G(z, class) of a class-conditional GAN of the zoo, trained on the world's labels.

    The latent is z alone; a class condition's labels say which class embedding goes with it. With the sampler
    'prior' this is the native conditional model. Class k is the k-th combination of the values of digits, or
    of the shapes world's shape and color, the last changing fastest.
    """

    model: str = "shapes-biggan"
    weights: str | None = None
    sha256: str | None = None

    kinds: ClassVar[tuple[ConditionKind, ...]] = ("class",)
    needs_conditions: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if self.model not in _HEADS:
            raise SuiteError(f"model '{self.model}' has no classes. Allowed: {', '.join(_HEADS)}.")

    @property
    def resolution(self) -> int:
        return 32

    def load(self, device: torch.device) -> ClassGanGenerator:
        network = load_model(self.model, device, path=self.weights, sha256=self.sha256)
        return ClassGanGenerator(network, _classes(self.model), device)


_HEADS = {"digits-biggan": ("digit",), "shapes-biggan": ("shape", "color")}


def _classes(model: str) -> tuple[dict[str, str], ...]:
    """The labels of each class in the order of the embedding's rows."""
    from bench.worlds import shapes

    heads = _HEADS[model]
    known = {"digit": tuple(map(str, range(10))), **shapes.attribute_values(1)}
    return tuple(dict(zip(heads, values)) for values in itertools.product(*(known[head] for head in heads)))


class ClassGanGenerator:
    """``context`` is the class embedding, (N, y_dim) under "y"."""

    resolution = 32

    def __init__(self, network, classes: tuple[dict[str, str], ...], device: torch.device):
        self.network, self.classes, self.device = network, classes, device
        self.latent = LatentSpace(
            blocks=(Block(name="z", dim=network.z_dim, bound=2.0),),
            sample=lambda streams: streams.normal("prior:z", (network.z_dim,)),
        )

    def context(self, conditions: Sequence[Condition] | None, streams: Streams) -> Context:
        if conditions is None:
            raise SuiteError("class-gan makes no image without a class. Use kind gan for synthetic pairs.")
        rows = torch.tensor([self._row(condition) for condition in conditions], device=self.device)
        return {"y": self.network.embedding.weight[rows]}

    def _row(self, condition: Condition) -> int:
        for row, labels in enumerate(self.classes):
            if all(condition.labels.get(head) == value for head, value in labels.items()):
                return row
        raise DataError(
            f"condition '{condition.id}' names no class of this generator: it must give "
            f"{' and '.join(self.classes[0])}, and gives {dict(condition.labels)}."
        )

    def decode(self, z_ND: Tensor, context: Context) -> Tensor:
        return self.network(torch.cat([z_ND, context["y"]], dim=1))
