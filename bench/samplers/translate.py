"""TR0N without refinement: one pass of the translator, one of the generator."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from bench.samplers.base import Problem, Sampler
from bench.samplers.start import Start, assemble, starting_point, translate


@dataclass(frozen=True, kw_only=True)
class Translate(Sampler):
    """The translator's output (T = 0). ``start`` picks a draw of the mixture or one of its means."""

    start: Start = "sample"

    @property
    def uses_translator(self) -> bool:
        return True

    def init(self, problem: Problem) -> Tensor:
        mixture = translate(problem)
        z = assemble(problem, starting_point(problem, mixture, self.start), mixture.auxiliary)
        return problem.generator.latent.project(z)

    def latent(self, problem: Problem, state: Tensor) -> Tensor:
        return state
