"""TR0N: the translator's start, refined by the Langevin loop (Liu et al. 2023, arXiv:2304.13742)."""

from __future__ import annotations

from dataclasses import dataclass

from bench.errors import SuiteError
from bench.samplers.base import Problem
from bench.samplers.langevin import LangevinRefinement, LangevinState
from bench.samplers.start import (
    Start,
    assemble,
    best_candidate,
    starting_point,
    translate,
    translated_candidates,
)


@dataclass(frozen=True, kw_only=True)
class Tr0n(LangevinRefinement):
    """Translator start plus Langevin refinement.

    ``start``: "mixture_mean" is the published code's: all M means as bases, the mixture's logits copied
    to every coordinate and optimised, so that the first latent is the mixture's mean. "sample" (the
    paper's stochastic translator) and "argmax_mean" start from one point, as the code's image mode does.
    """

    start: Start = "mixture_mean"

    @property
    def uses_translator(self) -> bool:
        return True

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.candidates > 1 and self.start != "sample":
            raise SuiteError(
                f"candidates: {self.candidates} needs start: sample; '{self.start}' has one start only."
            )

    def init(self, problem: Problem) -> LangevinState:
        mixture = translate(problem)
        if self.start == "mixture_mean":
            logits = mixture.logits[:, :, None].expand_as(mixture.means).clone()
            return LangevinState(mixture.means, logits=logits, auxiliary=mixture.auxiliary)
        latent = problem.generator.latent

        if self.start == "sample":
            z = best_candidate(problem, translated_candidates(problem, mixture), self.candidates)
        else:
            main = starting_point(problem, mixture, self.start)
            z = latent.project(assemble(problem, main, mixture.auxiliary))
        return LangevinState(z[:, latent.columns("main").to(z.device)][:, None], auxiliary=mixture.auxiliary)
