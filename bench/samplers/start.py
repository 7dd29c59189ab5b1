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


def starting_point(problem: Problem, mixture: Mixture, start: Start, k: int = 0) -> Tensor:
    """(N, d) main coordinates: a draw of the mixture (its ``k``-th), its mean, or its likeliest mean."""
    if start == "argmax_mean":
        return mixture.argmax_mean()
    if start == "mixture_mean":
        return mixture.mean()
    uniform = problem.streams.uniform("translator:component", step=k)
    return mixture.draw(uniform, problem.streams.normal("translator:draw", (mixture.means.shape[2],), k))


def best_candidate(problem: Problem, make: Callable[[int], Tensor], num: int) -> Tensor:
    """Per sample, the latent of lowest energy among ``make(0)`` … ``make(num - 1)``, each (N, dim).

    The first wins a tie. With one candidate no energy is evaluated. Evaluations are counted.
    """
    best = make(0)
    if num == 1:
        return best
    with torch.no_grad():
        lowest = problem.energy(best, -1)
        for k in range(1, num):
            latent = make(k)
            energy = problem.energy(latent, -1 - k)
            better = energy < lowest
            best = torch.where(better[:, None], latent, best)
            lowest = torch.where(better, energy, lowest)
    return best


def assemble(problem: Problem, main_Nd: Tensor, auxiliary_Na: Tensor | None) -> Tensor:
    """The flat latent (N, dim) from main and auxiliary coordinates, differentiable in both."""
    latent = problem.generator.latent
    if auxiliary_Na is None:
        return main_Nd
    order = torch.cat([latent.columns("main"), latent.columns("auxiliary")]).argsort().to(main_Nd.device)
    return torch.cat([main_Nd, auxiliary_Na], dim=1)[:, order]
