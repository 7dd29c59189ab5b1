"""The one Langevin loop: TR0N's stochastic heavy-ball refinement, and Langevin from the prior.

State per sample: M base points of the main block, per-coordinate mixing logits where M > 1, the auxiliary
block. Shapes: N samples, M bases, d main and a auxiliary coordinates.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import reduce
from typing import ClassVar

import torch
from torch import Tensor

from bench.errors import SuiteError
from bench.ranges import Range
from bench.samplers.base import Problem, Sampler
from bench.samplers.start import assemble, best_candidate, prior_candidates
from bench.streams import NormalsAhead


@dataclass
class LangevinState:
    """``bases`` (N, M, d), ``logits`` (N, M, d) or None, ``auxiliary`` (N, a) or None; the momentum buffer
    and Adam's moments; ``energy_N`` before the last step; the noise of the steps to come."""

    bases: Tensor
    logits: Tensor | None = None
    auxiliary: Tensor | None = None
    momentum: Tensor | None = None
    adam_first: tuple[Tensor, ...] = ()
    adam_second: tuple[Tensor, ...] = ()
    energy_N: Tensor | None = None
    noise: NormalsAhead | None = None


def combine(bases: Tensor, logits: Tensor | None) -> Tensor:
    """(N, d): per-coordinate convex combination of the bases (TR0N's over-parametrised latent)."""
    return bases[:, 0] if logits is None else (logits.softmax(1) * bases).sum(1)


def clip_per_sample(gradients: list[Tensor], largest: float) -> list[Tensor]:
    """The gradients scaled so that each sample's joint norm is at most ``largest``."""
    squares = reduce(torch.add, [g.flatten(1).square().sum(1) for g in gradients])
    factor = (largest / (squares.sqrt() + 1e-6)).clamp(max=1.0)
    return [g * factor.view(-1, *[1] * (g.ndim - 1)) for g in gradients]


@dataclass(frozen=True, kw_only=True)
class LangevinRefinement(Sampler):
    """z <- z - step_size * b + noise_std * xi with b <- momentum * b + clipped gradient; Adam on the rest.

    Defaults are the paper's for BigGAN (lr_latent 5, sgld_noise_std 0.01, momentum 0.99, Adam 5e-3, norm 1).
    ``clip_norm`` null turns clipping off. ``prior_weight`` adds prior_weight * |z|²/2 to the energy; with
    momentum 0, no clipping and noise_std² = 2 step_size the chain is the unadjusted Langevin algorithm for
    exp(-energy). ``candidates`` starting points are drawn and the one of lowest energy is refined (ours;
    1 in the paper). Source: tr0n repository, text_hybrid_evaluator; sgld.py.
    """

    steps: int = 100
    step_size: float = 5.0
    noise_std: float = 0.01
    momentum: float = 0.99
    clip_norm: float | None = 1.0
    auxiliary_lr: float = 5e-3
    prior_weight: float = 0.0
    candidates: int = 1

    tunable: ClassVar[Mapping[str, Range]] = {
        "step_size": Range(low=1e-2, high=5.0),
        "noise_std": Range(low=1e-4, high=0.3),
    }

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise SuiteError(
                f"steps must be at least 1, got {self.steps}. For none use 'translator' or 'prior'."
            )
        if self.candidates < 1:
            raise SuiteError(f"candidates must be at least 1, got {self.candidates}.")
        if self.step_size <= 0:
            raise SuiteError(f"step_size must be positive, got {self.step_size}.")
        if not 0 <= self.momentum < 1:
            raise SuiteError(f"momentum must be in [0, 1), got {self.momentum}.")
        for name in ("noise_std", "auxiliary_lr", "prior_weight"):
            if getattr(self, name) < 0:
                raise SuiteError(f"{name} must not be negative, got {getattr(self, name)}.")
        if self.clip_norm is not None and self.clip_norm <= 0:
            raise SuiteError(f"clip_norm must be positive or null, got {self.clip_norm}.")

    def latent(self, problem: Problem, state: LangevinState) -> Tensor:
        return assemble(problem, combine(state.bases, state.logits), state.auxiliary)

    def step(self, problem: Problem, state: LangevinState, t: int) -> LangevinState:
        slow = [x for x in (state.auxiliary, state.logits) if x is not None]
        inputs = [state.bases, *slow]
        with torch.enable_grad():
            inputs = [x.detach().requires_grad_() for x in inputs]
            tracked = replace(state, bases=inputs[0])
            rest = inputs[1:]
            if state.auxiliary is not None:
                tracked.auxiliary, *rest = rest
            if state.logits is not None:
                (tracked.logits,) = rest
            z = self.latent(problem, tracked)
            energy = problem.energy(z, t)
            if self.prior_weight:
                main = combine(tracked.bases, tracked.logits)
                energy = energy + self.prior_weight * main.square().sum(1) / 2
            gradients = list(problem.gradients(energy, inputs))
        gradient, others = gradients[0], gradients[1:]
        if self.clip_norm is not None:
            (gradient,) = clip_per_sample([gradient], self.clip_norm)
            others = clip_per_sample(others, self.clip_norm) if others else []
        buffer = gradient if state.momentum is None else self.momentum * state.momentum + gradient
        noise = state.noise or NormalsAhead(problem.streams, "langevin", state.bases.shape[1:], self.steps)
        bases = state.bases - self.step_size * buffer + self.noise_std * noise(t)
        bases = problem.generator.latent.project(bases, "main")
        moved, first, second = adam(slow, others, state.adam_first, state.adam_second, t, self.auxiliary_lr)
        auxiliary, logits = state.auxiliary, state.logits
        if state.auxiliary is not None:
            auxiliary, *moved = moved
        if state.logits is not None:
            (logits,) = moved
        return LangevinState(bases, logits, auxiliary, buffer, first, second, energy.detach(), noise)


def adam(
    values: list[Tensor], gradients: list[Tensor], first: tuple[Tensor, ...], second: tuple[Tensor, ...],
    t: int, lr: float,
) -> tuple[list[Tensor], tuple[Tensor, ...], tuple[Tensor, ...]]:  # fmt: skip
    """One Adam step (betas 0.9 and 0.999, eps 1e-8, no decay), elementwise and therefore per sample."""
    if not first:
        first = second = tuple(torch.zeros_like(x) for x in values)
    first = tuple(0.9 * m + 0.1 * g for m, g in zip(first, gradients))
    second = tuple(0.999 * v + 0.001 * g * g for v, g in zip(second, gradients))
    correction1, correction2 = 1 - 0.9 ** (t + 1), 1 - 0.999 ** (t + 1)
    moved = [
        x - lr * (m / correction1) / ((v / correction2).sqrt() + 1e-8)
        for x, m, v in zip(values, first, second)
    ]
    return moved, first, second


@dataclass(frozen=True, kw_only=True)
class Langevin(LangevinRefinement):
    """TR0N's loop started from the prior: no translator, one base."""

    def init(self, problem: Problem) -> LangevinState:
        latent = problem.generator.latent
        z = best_candidate(problem, prior_candidates(problem), self.candidates)
        auxiliary = latent.columns("auxiliary").to(z.device)
        main = z[:, latent.columns("main").to(z.device)]
        return LangevinState(main[:, None], auxiliary=z[:, auxiliary] if len(auxiliary) else None)
