"""Searches that take no gradient: best of N, and rejection."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from bench.errors import SamplingError, SuiteError
from bench.samplers.base import Problem, Sampler
from bench.samplers.start import best_candidate, prior_candidates, translate, translated_candidates


@dataclass(frozen=True, kw_only=True)
class BestOf(Sampler):
    """The draw of lowest energy among ``candidates`` of the prior, or of a translator's mixture.

    It is selected by the guide and judged by another network; of equal energies the earlier wins.
    """

    candidates: int = 64
    source: Literal["prior", "translator"] = "prior"

    def __post_init__(self) -> None:
        if self.candidates < 1:
            raise SuiteError(f"candidates must be at least 1, got {self.candidates}.")

    @property
    def uses_translator(self) -> bool:
        return self.source == "translator"

    def init(self, problem: Problem) -> Tensor:
        if self.source == "prior":
            make = prior_candidates(problem)
        else:
            make = translated_candidates(problem, translate(problem))
        return best_candidate(problem, make, self.candidates)

    def latent(self, problem: Problem, state: Tensor) -> Tensor:
        return state


@dataclass
class RejectionState:
    """``latent_ND``, its ``energy_N``, and whether it is ``accepted`` (N,) or the best of the rejected."""

    latent_ND: Tensor
    energy_N: Tensor
    accepted: Tensor


@dataclass(frozen=True, kw_only=True)
class Rejection(Sampler):
    """Draws of the prior until one is accepted with probability exp(-beta · (E - lowest_energy)).

    What is accepted follows p(z) exp(-beta E(G(z), c)) exactly, as long as no energy lies below
    ``lowest_energy`` (0 for a classifier's, -1 for a cosine; a lower one raises SamplingError). A sample that
    has accepted nothing after ``most_draws`` gets the lowest energy of its draws. ``beta`` 1 with a
    classifier is the posterior under its probabilities. A tile draws until all its samples have accepted:
    evaluations and seconds count what was computed.
    """

    beta: float = 1.0
    lowest_energy: float = 0.0
    most_draws: int = 256

    def __post_init__(self) -> None:
        if self.beta <= 0:
            raise SuiteError(f"beta must be positive, got {self.beta}.")
        if self.most_draws < 1:
            raise SuiteError(f"most_draws must be at least 1, got {self.most_draws}.")

    def init(self, problem: Problem) -> RejectionState:
        num, device = len(problem), problem.streams.device
        prior = problem.generator.latent.prior
        state = RejectionState(
            prior(problem.streams),
            torch.full((num,), torch.inf, device=device),
            torch.zeros(num, dtype=torch.bool, device=device),
        )
        for k in range(self.most_draws):
            z = prior(problem.streams.split(k))
            energy = problem.energy(z, -1 - k)
            self._check(energy)
            uniform = problem.streams.uniform("rejection", (), k)
            accepted = uniform < torch.exp(-self.beta * (energy - self.lowest_energy).clamp(min=0))
            taken = ~state.accepted & (accepted | (energy < state.energy_N))
            state = RejectionState(
                torch.where(taken[:, None], z, state.latent_ND),
                torch.where(taken, energy, state.energy_N),
                state.accepted | accepted,
            )
            if bool(state.accepted.all()):
                break
        return state

    def _check(self, energy_N: Tensor) -> None:
        lowest = float(energy_N.nan_to_num(nan=torch.inf).min())
        if lowest < self.lowest_energy - 1e-5:
            raise SamplingError(
                f"rejection: an energy of {lowest:.6g} lies below lowest_energy {self.lowest_energy:g}, so "
                "that what is accepted would not follow the posterior. Lower lowest_energy (-1 for a cosine)."
            )

    def latent(self, problem: Problem, state: RejectionState) -> Tensor:
        return state.latent_ND

    def estimate(self, num_samples: int, views: int) -> dict[str, int]:
        """At most; how soon a draw is accepted is not known beforehand."""
        return {
            "generator_forwards": num_samples * (self.most_draws + 1),
            "generator_backwards": 0,
            "auxiliary_forwards": num_samples * self.most_draws * views,
            "auxiliary_backwards": 0,
        }
