"""One pass after a set-up: PromptGen, class embeddings, noise hypernetworks, adapted generators."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from bench.errors import SamplingError
from bench.samplers.base import Problem, Sampler


@dataclass(frozen=True, kw_only=True)
class FeedForward(Sampler):
    """The latent that the variant's set-up gives, decoded once; no search and no gradient."""

    translators: ClassVar[tuple[str, ...]] = ("promptgen", "class-embedding", "noise-hypernetwork", "nada")

    @property
    def uses_translator(self) -> bool:
        return True

    def init(self, problem: Problem) -> Tensor:
        if problem.translator is None:
            raise SamplingError("this sampler needs a set-up, and the variant names no translator.")
        return problem.translator.latents(problem)

    def latent(self, problem: Problem, state: Tensor) -> Tensor:
        return state
