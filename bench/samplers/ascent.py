"""Plain gradient ascent on the latent: the "CLIP + GAN" baseline."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar, Literal

import torch
from torch import Tensor

from bench.errors import SuiteError
from bench.ranges import Range
from bench.samplers.base import Problem, Sampler
from bench.samplers.langevin import adam


@dataclass
class AscentState:
    """``points`` (N, R, dim), Adam's moments of the same shape, ``energies`` (N, R) before the last step."""

    points: Tensor
    energies: Tensor | None = None
    adam_first: tuple[Tensor, ...] = ()
    adam_second: tuple[Tensor, ...] = ()

    @property
    def energy_N(self) -> Tensor | None:
        return None if self.energies is None else self.energies.min(1).values


@dataclass(frozen=True, kw_only=True)
class Ascent(Sampler):
    """Adam on the latent from a draw of the prior, clamped to its bounds after each step; no noise, no prior.

    ``optimise`` "main" leaves auxiliary blocks (a class embedding) as drawn. ``restarts`` chains are run per
    sample and the one of lowest last energy is kept. Augmented or not is the conditioner's ``views``; with
    ``views: 0`` this is the control that finds adversarial images. Source: the plain baseline of FuseDream
    (arXiv:2112.01573, section 3); learning rate and optimiser are FuseDream's.
    """

    steps: int = 500
    learning_rate: float = 5e-3
    optimise: Literal["all", "main"] = "all"
    restarts: int = 1

    tunable: ClassVar[Mapping[str, Range]] = {
        "learning_rate": Range(low=1e-3, high=1.0),
    }

    def __post_init__(self) -> None:
        for name in ("steps", "restarts"):
            if getattr(self, name) < 1:
                raise SuiteError(f"{name} must be at least 1, got {getattr(self, name)}.")
        if self.learning_rate <= 0:
            raise SuiteError(f"learning_rate must be positive, got {self.learning_rate}.")

    def init(self, problem: Problem) -> AscentState:
        prior = problem.generator.latent.prior
        return AscentState(
            torch.stack([prior(problem.streams.split(k)) for k in range(self.restarts)], dim=1)
        )

    def step(self, problem: Problem, state: AscentState, t: int) -> AscentState:
        latent = problem.generator.latent
        gradients, energies = [], []
        for point in state.points.unbind(1):
            with torch.enable_grad():
                z = point.detach().requires_grad_()
                energy = problem.energy(z, t)
                (gradient,) = problem.gradients(energy, [z])
            gradients.append(gradient)
            energies.append(energy.detach())
        gradient = torch.stack(gradients, dim=1)
        if self.optimise == "main":
            gradient[:, :, latent.columns("auxiliary").to(gradient.device)] = 0.0
        (points,), first, second = adam(
            [state.points], [gradient], state.adam_first, state.adam_second, t, self.learning_rate
        )
        return replace(
            state,
            points=latent.project(points),
            energies=torch.stack(energies, dim=1),
            adam_first=first,
            adam_second=second,
        )

    def latent(self, problem: Problem, state: AscentState) -> Tensor:
        if state.energies is None:
            return state.points[:, 0]
        best = state.energies.nan_to_num(nan=torch.inf).argmin(1)
        return state.points[torch.arange(len(best), device=best.device), best]

    def estimate(self, num_samples: int, views: int) -> dict[str, int]:
        moves = num_samples * self.steps * self.restarts
        return {
            "generator_forwards": moves + num_samples,
            "generator_backwards": moves,
            "auxiliary_forwards": moves * views,
            "auxiliary_backwards": moves * views,
        }
