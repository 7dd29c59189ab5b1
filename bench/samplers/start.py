"""Starting points that a translator gives: deterministic means or a stochastic draw."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Literal

import torch
from torch import Tensor

from bench.errors import SamplingError
from bench.samplers.base import Problem
from bench.translator.network import Mixture

Start = Literal["sample", "argmax_mean", "mixture_mean"]
Make = Callable[[Sequence[int]], Tensor]
AT_ONCE = 32  # candidates made together; each is evaluated by itself


def translate(problem: Problem) -> Mixture:
    """The translator's mixture for the problem's conditions."""
    if problem.translator is None:
        raise SamplingError("this sampler needs a translator, and the variant names none.")
    inputs = getattr(problem.conditioner, "translator_inputs", None)
    if inputs is None:
        # Of a sum of terms it reads the first term's columns alone.
        return problem.translator(problem.condition_ND[:, : problem.conditioner.dim])
    return pooled([problem.translator(part) for part in inputs(problem.condition_ND).unbind(1)])


def pooled(mixtures: Sequence[Mixture]) -> Mixture:
    """Mixtures put together, each with the same share; point estimates are averaged."""
    if len(mixtures) == 1:
        return mixtures[0]
    share = math.log(len(mixtures))
    auxiliary = [mixture.auxiliary for mixture in mixtures if mixture.auxiliary is not None]
    return Mixture(
        torch.cat([mixture.means for mixture in mixtures], dim=1),
        torch.cat([mixture.logits.log_softmax(1) - share for mixture in mixtures], dim=1),
        mixtures[0].std,
        torch.stack(auxiliary).mean(0) if auxiliary else None,
    )


def starting_point(problem: Problem, mixture: Mixture, start: Start) -> Tensor:
    """(N, d) main coordinates: a draw of the mixture, its mean, or its likeliest mean."""
    if start == "argmax_mean":
        return mixture.argmax_mean()
    if start == "mixture_mean":
        return mixture.mean()
    return draws(problem, mixture, (0,))


def draws(problem: Problem, mixture: Mixture, numbers: Sequence[int]) -> Tensor:
    """(len(numbers) · N, d) main coordinates: these draws of the mixture, one after the other."""
    streams, number = problem.streams.tiled(numbers)
    uniform = streams.uniform("translator:component", step=number)
    return mixture.draw(uniform, streams.normal("translator:draw", (mixture.means.shape[2],), number))


def prior_candidates(problem: Problem) -> Make:
    """Draws of the generator's prior, for :func:`best_candidate`."""
    return lambda numbers: problem.generator.latent.prior(problem.streams.splits(numbers))


def translated_candidates(problem: Problem, mixture: Mixture) -> Make:
    """Draws of the translator's mixture, for :func:`best_candidate`."""

    def make(numbers: Sequence[int]) -> Tensor:
        auxiliary = mixture.auxiliary
        if auxiliary is not None:
            auxiliary = auxiliary.repeat(len(numbers), 1)
        return problem.generator.latent.project(
            assemble(problem, draws(problem, mixture, numbers), auxiliary)
        )

    return make


def best_candidate(problem: Problem, make: Make, num: int) -> Tensor:
    """Per sample, the latent of lowest energy among candidates number 0 … num - 1.

    ``make`` gives those of some numbers, one after the other: (len(numbers) · N, dim). The first wins a tie.
    With one candidate no energy is evaluated. Evaluations are counted.
    """
    if num == 1:
        return make((0,))
    best, lowest = None, None
    with torch.no_grad():
        for first in range(0, num, AT_ONCE):
            numbers = range(first, min(first + AT_ONCE, num))
            for k, latent in zip(numbers, make(numbers).chunk(len(numbers))):
                energy = problem.energy(latent, -1 - k)
                if best is None or lowest is None:
                    best, lowest = latent, energy
                    continue
                better = energy < lowest
                best = torch.where(better[:, None], latent, best)
                lowest = torch.where(better, energy, lowest)
    assert best is not None
    return best


def assemble(problem: Problem, main_Nd: Tensor, auxiliary_Na: Tensor | None) -> Tensor:
    """The flat latent (N, dim) from main and auxiliary coordinates, differentiable in both."""
    latent = problem.generator.latent
    if auxiliary_Na is None:
        return main_Nd
    return torch.cat([main_Nd, auxiliary_Na], dim=1)[:, latent.order.to(main_Nd.device)]
