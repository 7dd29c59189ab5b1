"""Noise optimisation for one-step generators (ReNO, arXiv:2406.04312), from the prior or TR0N's start."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from bench.errors import SuiteError
from bench.ranges import Range
from bench.samplers.base import Problem, Sampler
from bench.samplers.langevin import clip_per_sample
from bench.samplers.start import best_candidate, prior_candidates, translate, translated_candidates


@dataclass
class NoiseState:
    """``noise_ND`` and its momentum ``buffer``; the ``best_ND`` so far and its energy ``lowest_N``."""

    noise_ND: Tensor
    buffer: Tensor | None = None
    best_ND: Tensor | None = None
    lowest_N: Tensor | None = None
    energy_N: Tensor | None = None


def norm_energy(noise_ND: Tensor) -> Tensor:
    """|z|²/2 - (D - 1) log |z|, (N,): minus the log-density of a standard normal's norm, up to a constant.

    Lowest at |z| = √(D - 1). Source: ReNO, equation 4 (after Samuel et al. 2023).
    """
    norm = torch.linalg.vector_norm(noise_ND, dim=1)
    return norm.square() / 2 - (noise_ND.shape[1] - 1) * norm.log()


@dataclass(frozen=True, kw_only=True)
class NoiseOptimisation(Sampler):
    """Nesterov steps on the energy plus ``norm_weight`` times the norm's; the best point met is the output.

    ``start`` "translator" begins at a draw of TR0N's mixture instead of the prior (ours): few steps then
    finish. ``candidates`` starting points are drawn and the one of lowest energy is taken (ours; 1 in the
    paper). Gradients are clipped to ``clip_norm`` per sample, both terms together. The best is chosen by the
    energy alone, over the points at which it was evaluated: the last step's result is evaluated too. Defaults
    are the published ones (rewards enter as terms of the conditioner). Source: ExplainableML/ReNO,
    training/trainer.py.
    """

    steps: int = 50
    learning_rate: float = 5.0
    momentum: float = 0.9
    clip_norm: float | None = 0.1
    norm_weight: float = 0.01
    start: Literal["prior", "translator"] = "prior"
    candidates: int = 1

    tunable: ClassVar[Mapping[str, Range]] = {
        "learning_rate": Range(low=1e-2, high=5.0),
        "norm_weight": Range(low=1e-3, high=1.0),
    }

    def __post_init__(self) -> None:
        for name in ("steps", "candidates"):
            if getattr(self, name) < 1:
                raise SuiteError(f"{name} must be at least 1, got {getattr(self, name)}.")
        if self.learning_rate <= 0:
            raise SuiteError(f"learning_rate must be positive, got {self.learning_rate}.")
        if not 0 <= self.momentum < 1:
            raise SuiteError(f"momentum must be in [0, 1), got {self.momentum}.")
        if self.norm_weight < 0:
            raise SuiteError(f"norm_weight must not be negative, got {self.norm_weight}.")
        if self.clip_norm is not None and self.clip_norm <= 0:
            raise SuiteError(f"clip_norm must be positive or null, got {self.clip_norm}.")

    @property
    def uses_translator(self) -> bool:
        return self.start == "translator"

    def init(self, problem: Problem) -> NoiseState:
        if self.start == "prior":
            make = prior_candidates(problem)
        else:
            make = translated_candidates(problem, translate(problem))
        return NoiseState(best_candidate(problem, make, self.candidates))

    def step(self, problem: Problem, state: NoiseState, t: int) -> NoiseState:
        latent = problem.generator.latent
        main = latent.columns("main").to(state.noise_ND.device)
        with torch.enable_grad():
            z = state.noise_ND.detach().requires_grad_()
            energy = problem.energy(z, t)
            kept = energy.detach()
            (gradient,) = problem.gradients(
                energy + self.norm_weight * norm_energy(z[:, main]) if self.norm_weight else energy, [z]
            )
        best, lowest = _better(state, z.detach(), kept)
        if self.clip_norm is not None:
            (gradient,) = clip_per_sample([gradient], self.clip_norm)
        buffer = gradient if state.buffer is None else self.momentum * state.buffer + gradient
        moved = z.detach() - self.learning_rate * (gradient + self.momentum * buffer)
        moved = latent.project(moved)
        if t == self.steps - 1:
            last = problem.energy(moved, t + 1)
            best, lowest = _better(NoiseState(moved, best_ND=best, lowest_N=lowest), moved, last)
        return NoiseState(moved, buffer, best, lowest, energy_N=kept)

    def latent(self, problem: Problem, state: NoiseState) -> Tensor:
        return state.noise_ND if state.best_ND is None else state.best_ND

    def estimate(self, num_samples: int, views: int) -> dict[str, int]:
        tried = self.candidates if self.candidates > 1 else 0
        energies, moves = num_samples * (tried + self.steps + 1), num_samples * self.steps
        return {
            "generator_forwards": energies + num_samples,
            "generator_backwards": moves,
            "auxiliary_forwards": energies * views,
            "auxiliary_backwards": moves * views,
        }


def _better(state: NoiseState, z_ND: Tensor, energy_N: Tensor) -> tuple[Tensor, Tensor]:
    """Per sample the state's best or this point, whichever has the lower energy; the earlier of equals."""
    if state.best_ND is None or state.lowest_N is None:
        return z_ND, energy_N
    better = energy_N < state.lowest_N
    return torch.where(better[:, None], z_ND, state.best_ND), torch.where(better, energy_N, state.lowest_N)
