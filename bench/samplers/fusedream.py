"""FuseDream: a search for a basis, then ascent on the basis and its mixing weights (arXiv:2112.01573).

Shapes: N samples, k bases, D latent coordinates.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from bench.errors import SuiteError
from bench.ranges import Range
from bench.samplers.base import Problem, Sampler
from bench.samplers.langevin import adam, combine


@dataclass
class FuseDreamState:
    """``bases`` and ``logits`` (N, k, D), Adam's moments, ``latent_ND`` of the last forward pass."""

    bases: Tensor
    logits: Tensor
    latent_ND: Tensor
    adam_first: tuple[Tensor, ...] = ()
    adam_second: tuple[Tensor, ...] = ()
    energy_N: Tensor | None = None


@dataclass(frozen=True, kw_only=True)
class FuseDream(Sampler):
    """The ``bases`` best of ``candidates`` prior draws by plain CLIP, combined per coordinate and optimised.

    z = Σ_k softmax(W)_k Z_k per coordinate; each step evaluates the energy (AugCLIP, as the conditioner has
    it) at z + latent_noise · ε and moves Z, W by Adam; Z is clamped to the latent's bounds. The output is the
    last point evaluated, without its noise and before its update. ``optimise_auxiliary`` False holds the
    class embeddings of the basis fixed (the library's default; the published script frees them). Defaults
    are the script's. Source: gnobitab/FuseDream, fusedream_utils.py.
    """

    candidates: int = 10_000
    bases: int = 5
    steps: int = 1000
    learning_rate: float = 5e-3
    latent_noise: float = 0.01
    optimise_auxiliary: bool = True

    tunable: ClassVar[Mapping[str, Range]] = {
        "learning_rate": Range(low=1e-3, high=1.0),
        "latent_noise": Range(low=1e-3, high=0.3),
    }

    def __post_init__(self) -> None:
        for name in ("candidates", "bases", "steps"):
            if getattr(self, name) < 1:
                raise SuiteError(f"{name} must be at least 1, got {getattr(self, name)}.")
        if self.bases > self.candidates:
            raise SuiteError(f"bases must be at most candidates ({self.candidates}), got {self.bases}.")
        if self.learning_rate <= 0:
            raise SuiteError(f"learning_rate must be positive, got {self.learning_rate}.")
        if self.latent_noise < 0:
            raise SuiteError(f"latent_noise must not be negative, got {self.latent_noise}.")

    def init(self, problem: Problem) -> FuseDreamState:
        bases = self.search(problem)
        logits = problem.streams.normal("fusedream:logits", tuple(bases.shape[1:]))
        return FuseDreamState(bases, logits, combine(bases, logits))

    def search(self, problem: Problem) -> Tensor:
        """(N, k, D): the candidates of lowest plain energy, best first; of equals the earlier."""
        prior = problem.generator.latent.prior
        best: Tensor | None = None
        for k in range(self.candidates):
            z = prior(problem.streams.split(k))
            energy = problem.plain_energy(z, -1 - k).nan_to_num(nan=torch.inf)
            if best is None:
                best, lowest = z[:, None], energy[:, None]
                continue
            lowest, order = torch.cat([lowest, energy[:, None]], dim=1).sort(dim=1, stable=True)
            best = torch.cat([best, z[:, None]], dim=1)
            best = best.gather(1, order[:, : self.bases, None].expand(-1, -1, z.shape[1]))
            lowest = lowest[:, : self.bases]
        assert best is not None
        return best

    def step(self, problem: Problem, state: FuseDreamState, t: int) -> FuseDreamState:
        latent = problem.generator.latent
        with torch.enable_grad():
            bases = state.bases.detach().requires_grad_()
            logits = state.logits.detach().requires_grad_()
            z = combine(bases, logits)
            noise = problem.streams.normal("fusedream:noise", (z.shape[1],), t)
            energy = problem.energy(z + self.latent_noise * noise, t)
            gradients = list(problem.gradients(energy, [bases, logits]))
        if not self.optimise_auxiliary:
            gradients[0][:, :, latent.columns("auxiliary").to(z.device)] = 0.0
        (moved, weights), first, second = adam(
            [state.bases, state.logits], gradients, state.adam_first, state.adam_second, t, self.learning_rate
        )
        return FuseDreamState(
            latent.project(moved), weights, z.detach(), first, second, energy_N=energy.detach()
        )

    def latent(self, problem: Problem, state: FuseDreamState) -> Tensor:
        return state.latent_ND

    def estimate(self, num_samples: int, views: int) -> dict[str, int]:
        searched, moves = num_samples * self.candidates, num_samples * self.steps
        return {
            "generator_forwards": searched + moves + num_samples,
            "generator_backwards": moves,
            "auxiliary_forwards": searched + moves * views,
            "auxiliary_backwards": moves * views,
        }
