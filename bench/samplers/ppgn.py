"""PPGN: Plug & Play Generative Networks' update on the latent (Nguyen et al. 2017, arXiv:1612.00005)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from bench.errors import SamplingError, SuiteError
from bench.ranges import Range
from bench.samplers.base import Problem, Sampler


@dataclass
class PpgnState:
    """``latent_ND`` and the energy before the last step."""

    latent_ND: Tensor
    energy_N: Tensor | None = None


@dataclass(frozen=True, kw_only=True)
class Ppgn(Sampler):
    """h <- h + rate · d / mean|d|, d = epsilon1 · d_prior + epsilon2 · d_condition + N(0, epsilon3²).

    d_prior is R(h) - h with a denoising autoencoder R of the latent (``prior: denoiser``; a translator of
    kind ``denoiser``, whose joint form sends h through the image), or -h (``gaussian``, ours, for a generator
    without one), or nothing (``none``: DGN-AM). d_condition is minus the energy's gradient; ``gradient:
    target-logit`` keeps the demanded classes' own logits only, weighted (1 - p), as the released sampler
    does. ``normalise`` False drops the division: with rate 1 and epsilon3² = 2 epsilon1 = 2 epsilon2 the
    chain is then the unadjusted Langevin algorithm. The rate runs linearly to ``last_rate``. Norms are per
    sample. h is clamped to the latent's bounds. Noiseless joint PPGN-h is epsilon3 1e-17 with the joint
    denoiser. Defaults are the released sampler's. Source: Evolving-AI-Lab/ppgn, sampler.py and
    sampling_class.py.
    """

    steps: int = 200
    rate: float = 1.0
    last_rate: float | None = None
    epsilon1: float = 1e-5
    epsilon2: float = 1.0
    epsilon3: float = 1e-17
    prior: Literal["denoiser", "gaussian", "none"] = "denoiser"
    gradient: Literal["energy", "target-logit"] = "energy"
    normalise: bool = True

    translators: ClassVar[tuple[str, ...]] = ("denoiser",)

    tunable: ClassVar[Mapping[str, Range]] = {
        "rate": Range(low=1e-2, high=2.0),
        "epsilon1": Range(low=1e-5, high=1.0),
    }

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise SuiteError(f"steps must be at least 1, got {self.steps}.")
        if self.rate <= 0:
            raise SuiteError(f"rate must be positive, got {self.rate}.")
        for name in ("epsilon1", "epsilon2", "epsilon3", "last_rate"):
            value = getattr(self, name)
            if value is not None and value < 0:
                raise SuiteError(f"{name} must not be negative, got {value}.")

    @property
    def uses_translator(self) -> bool:
        return self.prior == "denoiser"

    @property
    def kinds(self) -> tuple[str, ...]:
        return ("class",) if self.gradient == "target-logit" else ("class", "text")

    def init(self, problem: Problem) -> PpgnState:
        return PpgnState(problem.generator.latent.prior(problem.streams))

    def step(self, problem: Problem, state: PpgnState, t: int) -> PpgnState:
        h = state.latent_ND
        with torch.enable_grad():
            tracked = h.detach().requires_grad_()
            images = problem.decode(tracked)
            energy = problem.image_energy(images, t)
            pulled = energy if self.gradient == "energy" else self._target_logit(problem, images)
            kept = energy.detach()
            (gradient,) = problem.gradients(pulled, [tracked])
        direction = -self.epsilon2 * gradient
        if self.prior == "gaussian":
            direction = direction - self.epsilon1 * h
        elif self.prior == "denoiser":
            direction = direction + self.epsilon1 * (self._denoised(problem, h, images.detach()) - h)
        noise = problem.streams.normal("ppgn", (h.shape[1],), t)
        direction = direction + self.epsilon3 * noise
        rate = self._rate(t)
        if self.normalise:
            rate = rate / direction.abs().mean(1, keepdim=True).clamp(min=1e-12)
        return PpgnState(problem.generator.latent.project(h + rate * direction), kept)

    def _rate(self, t: int) -> float | Tensor:
        if self.last_rate is None or self.steps == 1:
            return self.rate
        return self.rate + (self.last_rate - self.rate) * t / (self.steps - 1)

    def _denoised(self, problem: Problem, h_ND: Tensor, images: Tensor) -> Tensor:
        if problem.translator is None:
            raise SamplingError("ppgn: prior 'denoiser' needs a translator of kind 'denoiser'.")
        return problem.translator.denoise(h_ND, images)

    def _target_logit(self, problem: Problem, images: Tensor) -> Tensor:
        find = getattr(problem.conditioner, "target_logit_energy", None)
        if find is None:
            raise SamplingError(
                "ppgn: gradient 'target-logit' needs a classifier as conditioner. Use gradient: energy."
            )
        return find(images, problem.condition_ND)

    def latent(self, problem: Problem, state: PpgnState) -> Tensor:
        return state.latent_ND

    def estimate(self, num_samples: int, views: int) -> dict[str, int]:
        moves = num_samples * self.steps
        return {
            "generator_forwards": moves + num_samples,
            "generator_backwards": moves,
            "auxiliary_forwards": moves * views,
            "auxiliary_backwards": moves * views,
        }
