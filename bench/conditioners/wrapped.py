"""Image and interpolated conditions: another conditioner's energy, with the condition found otherwise."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from bench.conditioners.base import Conditioner
from bench.errors import DataError, SuiteError
from bench.streams import Streams
from bench.suite.blocks import Named
from bench.suite.nested import NestedConditioner
from bench.types import Condition, ConditionKind


@dataclass(frozen=True, kw_only=True)
class Wrapper:
    """What image and interpolated conditions share: ``conditioner``, a CLIP, embeds pictures and texts.

    Synthetic pairs and translator are those of the conditioner inside: they do not depend on what samples are
    asked for.
    """

    conditioner: NestedConditioner

    def __post_init__(self) -> None:
        if not getattr(self.conditioner.config, "embeds_pictures", False):
            raise SuiteError(
                f"conditioner of kind '{self.conditioner.named.kind}' does not embed pictures. "
                "Use a CLIP: kind clip or open-clip."
            )

    @property
    def views(self) -> int:
        return self.conditioner.config.views

    @property
    def pairing(self) -> Named[Any]:
        return self.conditioner.named

    def check_data(self, source: Any) -> str | None:
        check = getattr(self.conditioner.config, "check_data", None)
        return check(source) if check else None


@dataclass(frozen=True, kw_only=True)
class ImageCondition(Wrapper):
    """The picture is to look like a reference: c is the CLIP embedding of a reference image (semantic).

    References are the data's images in id order. The paper's start for them is the mean of the highest-logit
    component, a single vector: ``start: argmax_mean`` of the sampler 'tr0n'. Source: tr0n repository, image
    mode.
    """

    @property
    def kind(self) -> ConditionKind:
        return "image"

    def load(self, device: torch.device) -> WrappedConditioner:
        return WrappedConditioner(self.conditioner.config.load(device), pictures)


@dataclass(frozen=True, kw_only=True)
class Interpolated(Wrapper):
    """Conditions on the way between two: slerp between raw embeddings of references or prompts.

    Of the data's images (or first captions) in id order the first and second, third and fourth, … are
    interpolated ``between`` at ``values`` shares from 0.1 to 0.9. Source: tr0n repository, interpolation
    mode.
    """

    between: Literal["images", "texts"] = "images"
    values: int = 5

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.values < 1:
            raise SuiteError(f"values must be at least 1, got {self.values}.")

    @property
    def kind(self) -> ConditionKind:
        return "interpolated"

    def check_data(self, source: Any) -> str | None:
        if self.between == "texts" and not getattr(source, "has_captions", True):
            return "it has no captions to interpolate between. Use between: images"
        return super().check_data(source)

    def load(self, device: torch.device) -> WrappedConditioner:
        return WrappedConditioner(self.conditioner.config.load(device), interpolated)


class WrappedConditioner:
    """``inner`` with ``find`` giving the condition vectors (N, dim) of conditions."""

    def __init__(self, inner: Any, find: Any):
        self.inner, self.find = inner, find
        self.dim, self.views = inner.dim, inner.views

    @property
    def pairing(self) -> Any:
        """What makes synthetic pairs: the conditioner inside."""
        return self.inner

    def __getattr__(self, name: str) -> Any:
        if name == "inner":  # not there yet, as while copying
            raise AttributeError(name)
        return getattr(self.inner, name)  # whatever else the conditioner inside offers

    def truncated(self, conditions: Sequence[Condition]) -> list[bool]:
        """Which conditions' texts, or those that they lie between, are cut."""
        ends = [condition.between or (condition, condition) for condition in conditions]
        first, second = (self.inner.truncated([pair[side] for pair in ends]) for side in (0, 1))
        return [a or b for a, b in zip(first, second)]

    def embed(self, conditions: Sequence[Condition]) -> Tensor:
        with torch.no_grad():
            return self.find(self.inner, conditions)

    def encode(self, images_NCHW: Tensor, streams: Streams) -> Tensor:
        return self.inner.encode(images_NCHW, streams)

    def energy(self, images_NCHW: Tensor, condition_ND: Tensor, streams: Streams, step: int) -> Tensor:
        return self.inner.energy(images_NCHW, condition_ND, streams, step)


def pictures(inner: Any, conditions: Sequence[Condition]) -> Tensor:
    """Raw embeddings (N, dim) of the conditions' pictures; equal ones are embedded once."""
    rows: dict[str, int] = {}
    stack: list[np.ndarray] = []
    for condition in conditions:
        if condition.picture is None:
            raise DataError(f"condition '{condition.id}' shows no picture, which an image condition needs.")
        if rows.setdefault(condition.id, len(stack)) == len(stack):
            stack.append(condition.picture())
    table = inner.embed_pictures(np.stack(stack))
    return table[torch.tensor([rows[condition.id] for condition in conditions], device=table.device)]


def interpolated(inner: Conditioner, conditions: Sequence[Condition]) -> Tensor:
    """Raw embeddings (N, dim) between each condition's two ends."""
    ends = []
    for side in (0, 1):
        asked = []
        for condition in conditions:
            if condition.between is None:
                raise DataError(f"condition '{condition.id}' lies between nothing.")
            asked.append(condition.between[side])
        shown = all(condition.kind == "image" for condition in asked)
        ends.append(pictures(inner, asked) if shown else inner.embed(asked))
    shares = torch.tensor([condition.share for condition in conditions], device=ends[0].device)
    return slerp(ends[0], ends[1], shares)


def slerp(a_ND: Tensor, b_ND: Tensor, share_N: Tensor) -> Tensor:
    """Spherical interpolation (N, D) of raw vectors: sin((1-s)w)/sin w * a + sin(s w)/sin w * b.

    w is the angle between a and b.
    Lengths are interpolated along (the vectors are not normalised first). Vectors that are all but parallel
    (sin w < 1e-6) are interpolated linearly. Source: tr0n repository, interpolation mode.
    """
    a, b, s = a_ND.double(), b_ND.double(), share_N.double()[:, None]
    cosine = torch.nn.functional.cosine_similarity(a, b, dim=1)[:, None].clamp(-1, 1)
    angle = cosine.arccos()
    sine = angle.sin()
    flat = sine < 1e-6
    safe = torch.where(flat, 1.0, sine)
    left = torch.where(flat, 1 - s, ((1 - s) * angle).sin() / safe)
    right = torch.where(flat, s, (s * angle).sin() / safe)
    return (left * a + right * b).to(a_ND.dtype)
