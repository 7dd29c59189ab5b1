"""Energies of several terms on one condition: a guide and rewards, each with its weight."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from bench.errors import SuiteError
from bench.streams import Streams
from bench.suite.blocks import Named
from bench.suite.nested import NestedConditioner
from bench.types import Condition, ConditionKind


@dataclass(frozen=True, kw_only=True)
class Term:
    """``weight`` times the energy of ``conditioner``. ``name`` is by which evaluations are counted; its kind
    by default."""

    conditioner: NestedConditioner
    weight: float = 1.0
    name: str | None = None

    @property
    def label(self) -> str:
        return self.name or self.conditioner.named.kind


@dataclass(frozen=True, kw_only=True)
class Sum:
    """E(x, c) = Σ weight_k E_k(x, c), all terms on the same condition.

    The first term says which conditions there are, and is alone what synthetic pairs and the translator know
    of: another weight or reward needs no new pairs. Terms with augmented views draw them from the same
    stream. Evaluations of f count all terms' views, and each term's own beside.
    """

    terms: tuple[Term, ...]

    def __post_init__(self) -> None:
        if not self.terms:
            raise SuiteError("terms is empty; a sum needs one term or more.")
        twice = [name for name, count in Counter(term.label for term in self.terms).items() if count > 1]
        if twice:
            raise SuiteError(f"two terms are called '{twice[0]}'. Give each its own 'name'.")
        first = self.terms[0].conditioner.config
        for term in self.terms:
            config = term.conditioner.config
            if not math.isfinite(term.weight):
                raise SuiteError(f"terms: weight of '{term.label}' must be finite, got {term.weight}.")
            if getattr(config, "any_condition", False):
                continue
            if config.kind != first.kind:
                raise SuiteError(
                    f"terms: '{term.label}' takes {config.kind} conditions, and the first term takes "
                    f"{first.kind} conditions."
                )
            if getattr(config, "heads", None) != getattr(first, "heads", None):
                raise SuiteError(f"terms: '{term.label}' has other heads than the first term.")

    @property
    def _first(self) -> Any:
        return self.terms[0].conditioner.config

    @property
    def kind(self) -> ConditionKind:
        return self._first.kind

    @property
    def heads(self) -> tuple[str, ...] | None:
        return getattr(self._first, "heads", None)

    @property
    def between(self) -> str | None:
        return getattr(self._first, "between", None)

    @property
    def values(self) -> int | None:
        return getattr(self._first, "values", None)

    @property
    def makes_pairs(self) -> bool:
        return getattr(self._first, "makes_pairs", True)

    @property
    def views(self) -> int:
        return sum(max(1, getattr(term.conditioner.config, "views", 1) or 1) for term in self.terms)

    @property
    def pairing(self) -> Named[Any]:
        return self.terms[0].conditioner.named

    def check_data(self, source: Any) -> str | None:
        for term in self.terms:
            check = getattr(term.conditioner.config, "check_data", None)
            message = check(source) if check else None
            if message:
                return message
        return None

    def load(self, device: torch.device) -> SumConditioner:
        loaded = [(term.label, term.weight, term.conditioner.config.load(device)) for term in self.terms]
        return SumConditioner(loaded)


class SumConditioner:
    """Loaded terms: (name, weight, conditioner). The condition vector is that of all terms in a row; the
    first ``dim`` columns are the first term's, which the translator reads."""

    def __init__(self, parts: Sequence[tuple[str, float, Any]]):
        self.parts = tuple(parts)
        self.pairing = parts[0][2]
        self.pairing = getattr(self.pairing, "pairing", self.pairing)
        self.dim: int = parts[0][2].dim
        if all(hasattr(part, "plain_energy") for _, _, part in parts):
            self.plain_energy = self._plain_energy

    @property
    def notes(self) -> dict[str, Any]:
        """Each term's notes by its name."""
        return {name: found for name, _, part in self.parts if (found := getattr(part, "notes", None))}

    def truncated(self, conditions: Sequence[Condition]) -> list[bool]:
        """Which conditions' texts a term has to cut."""
        cut = [part.truncated(conditions) for _, _, part in self.parts if hasattr(part, "truncated")]
        return [any(row) for row in zip(*cut)] or [False] * len(conditions)

    @cached_property
    def terms(self) -> Mapping[str, int]:
        """Name of each term → its evaluations per image and energy."""
        return {name: part.views for name, _, part in self.parts}

    @property
    def views(self) -> int:
        return sum(self.terms.values())

    def embed(self, conditions: Sequence[Condition]) -> Tensor:
        return torch.cat([part.embed(conditions) for _, _, part in self.parts], dim=1)

    def encode(self, images_NCHW: Tensor, streams: Streams) -> Tensor:
        return self.parts[0][2].encode(images_NCHW, streams)

    def split(self, condition_ND: Tensor) -> list[Tensor]:
        """Each term's columns."""
        return list(condition_ND.split([part.dim for _, _, part in self.parts], dim=1))

    def _plain_energy(self, images_NCHW: Tensor, condition_ND: Tensor) -> Tensor:
        """The energy without augmentation, (N,); there where every term has one."""
        total = images_NCHW.new_zeros(len(images_NCHW))
        for (_, weight, part), own in zip(self.parts, self.split(condition_ND)):
            total = total + weight * part.plain_energy(images_NCHW, own)
        return total

    def energy(self, images_NCHW: Tensor, condition_ND: Tensor, streams: Streams, step: int) -> Tensor:
        total = images_NCHW.new_zeros(len(images_NCHW))
        for (_, weight, part), own in zip(self.parts, self.split(condition_ND)):
            total = total + weight * part.energy(images_NCHW, own, streams, step)
        return total
