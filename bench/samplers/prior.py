"""The unconditional draw: what G gives when nobody asks for anything."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from bench.samplers.base import Problem, Sampler


@dataclass(frozen=True, kw_only=True)
class Prior(Sampler):
    """z from the generator's prior; the condition is ignored."""

    def init(self, problem: Problem) -> Tensor:
        return problem.generator.latent.prior(problem.streams)

    def latent(self, problem: Problem, state: Tensor) -> Tensor:
        return state
