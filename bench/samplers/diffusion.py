"""Guidance of an unconditional diffusion model: by a noise-aware classifier, or through the clean estimate.

The cost axis (guide every r-th step, guide a window, leave the U-Net out of the gradient) is ours: of
"Conditional Image Generation with Pretrained Generative Model" only the abstract could be read, and nothing
here goes under its name.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from bench.errors import SamplingError, SuiteError
from bench.generators.noise_model import NoiseModel, finished, trailing
from bench.ranges import Range
from bench.samplers.base import Problem, Sampler


@dataclass
class DiffusionState:
    """``noise_ND`` is where it began, ``x_NCHW`` where it is; ``energy_N`` of the last guided step."""

    noise_ND: Tensor
    x_NCHW: Tensor
    energy_N: Tensor | None = None


@dataclass(frozen=True, kw_only=True)
class GuidedDiffusion(Sampler):
    """DDIM from the latent (the starting noise) with a guided clean estimate.

    ``eta`` is DDIM's. Guidance acts at every ``every``-th step whose noise level, √(1 - ᾱ_t), lies between
    ``lowest_noise`` and ``highest_noise``. ``clip`` keeps clean estimates in [-1, 1].
    """

    steps: int = 100
    scale: float = 1.0
    eta: float = 0.0
    every: int = 1
    lowest_noise: float = 0.0
    highest_noise: float = 1.0
    clip: bool = True

    tunable: ClassVar[Mapping[str, Range]] = {
        "scale": Range(low=1e-2, high=30.0),
    }

    def __post_init__(self) -> None:
        for name in ("steps", "every"):
            if getattr(self, name) < 1:
                raise SuiteError(f"{name} must be at least 1, got {getattr(self, name)}.")
        for name in ("scale", "eta"):
            if getattr(self, name) < 0:
                raise SuiteError(f"{name} must not be negative, got {getattr(self, name)}.")
        if not 0 <= self.lowest_noise <= self.highest_noise <= 1:
            raise SuiteError(
                f"lowest_noise {self.lowest_noise} and highest_noise {self.highest_noise} must lie in that "
                "order within [0, 1]."
            )

    def init(self, problem: Problem) -> DiffusionState:
        generator: Any = problem.generator
        if getattr(generator, "noise_model", None) is None:
            raise SamplingError(
                "guidance needs a diffusion model as generator (one with a noise_model). Use such a "
                "generator, or another sampler."
            )
        z = generator.latent.prior(problem.streams)
        return DiffusionState(z, z.view(len(z), *generator.noise_model.shape))

    def step(self, problem: Problem, state: DiffusionState, t: int) -> DiffusionState:
        generator: Any = problem.generator
        model: NoiseModel = generator.noise_model
        times = trailing(len(model.alphas_cumprod), self.steps)
        now = float(model.alphas_cumprod[times[t]])
        after = float(model.alphas_cumprod[times[t + 1]]) if t + 1 < self.steps else 1.0
        guided = t % self.every == 0 and self.lowest_noise <= (1 - now) ** 0.5 <= self.highest_noise
        before = float(model.alphas_cumprod[times[t - 1]]) if t else 0.0
        energy = None
        if guided and self.scale:
            clean, energy = self.guide(problem, model, state.x_NCHW, times[t], now, before, t)
        else:
            problem.evaluations["denoiser_forwards"] += problem.counted
            clean, _ = model.predict(state.x_NCHW, times[t])
        if self.clip:
            clean = clean.clamp(-1, 1)
        noise = (state.x_NCHW - now**0.5 * clean) / (1 - now) ** 0.5
        sigma = self.eta * ((1 - after) / (1 - now) * (1 - now / after)) ** 0.5
        x = after**0.5 * clean + max(0.0, 1 - after - sigma**2) ** 0.5 * noise
        if sigma:
            x = x + sigma * problem.streams.normal("diffusion", tuple(x.shape[1:]), t)
        return DiffusionState(state.noise_ND, x, energy)

    @abstractmethod
    def guide(
        self,
        problem: Problem,
        model: NoiseModel,
        x_NCHW: Tensor,
        time: int,
        now: float,
        before: float,
        t: int,
    ) -> tuple[Tensor, Tensor]:
        """The guided clean estimate (N, C, H, W) at ``time``, where ᾱ is ``now`` and was ``before`` one step
        ago, and the energies (N,) that guided."""

    def latent(self, problem: Problem, state: DiffusionState) -> Tensor:
        return state.noise_ND

    def images(self, problem: Problem, state: DiffusionState) -> Tensor:
        """Where the trajectory ended, clamped; the whole of it counts as one pass of G."""
        problem.evaluations["generator_forwards"] += problem.counted
        generator: Any = problem.generator
        return finished(generator.noise_model, state.x_NCHW)

    def guided_steps(self) -> int:
        """How many steps are guided at most; the window is known once the schedule is."""
        return len(range(0, self.steps, self.every)) if self.scale else 0

    def estimate(self, num_samples: int, views: int) -> dict[str, int]:
        guided = num_samples * self.guided_steps()
        return {
            "generator_forwards": num_samples,
            "generator_backwards": 0,
            "denoiser_forwards": num_samples * self.steps,
            "auxiliary_forwards": guided * views,
            "auxiliary_backwards": guided * views,
        }


@dataclass(frozen=True, kw_only=True)
class ClassifierGuidance(GuidedDiffusion):
    """ε' = ε - √(1 - ᾱ) · scale · ∇ log p(c | x_t, t), p a noise-aware classifier (a translator).

    The gradient is taken at x_t and through the classifier alone. The published scale is 10 for an
    unconditional model, DDIM with eta 0 or 250 ancestral steps (eta 1). Source: Dhariwal and Nichol,
    arXiv:2105.05233, algorithm 2; openai/guided-diffusion.
    """

    translators: ClassVar[tuple[str, ...]] = ("noisy-classifier",)
    kinds: ClassVar[tuple[str, ...]] = ("class",)

    @property
    def uses_translator(self) -> bool:
        return True

    def guide(
        self,
        problem: Problem,
        model: NoiseModel,
        x_NCHW: Tensor,
        time: int,
        now: float,
        before: float,
        t: int,
    ) -> tuple[Tensor, Tensor]:
        with torch.enable_grad():
            x = x_NCHW.detach().requires_grad_()
            energy = problem.translator.noisy_energy(x, now, problem.condition_ND)
            (gradient,) = torch.autograd.grad(energy.sum(), x)
        for name in ("auxiliary_forwards", "auxiliary_backwards"):
            problem.evaluations[name] += problem.counted
        problem.evaluations["denoiser_forwards"] += problem.counted
        clean, _ = model.predict(x_NCHW, time)
        # x0 = (x - √(1 - ᾱ) ε') / √ᾱ.
        return clean - (1 - now) / now**0.5 * self.scale * gradient, energy.detach()


@dataclass(frozen=True, kw_only=True)
class SteeredDiffusion(GuidedDiffusion):
    """x0' = x0 - κ_t · scale · ∇ E(x0(x_t), c), κ_t = √(1 - ᾱ) of the noisier neighbour, 1 at the first step.

    Any energy on clean images is evaluated at the clean estimate, and its gradient goes to x_t through the
    denoiser; ``jacobian`` False takes the predicted noise for constant (ours), which saves the pass back
    through it. Summed over samples; the source takes means and is right for one sample only. Published: 100
    steps, eta 1, scale 1500 for CLIP's 1 - cos, estimates not clipped. Source: Nair et al. 2023,
    arXiv:2310.00224; merlresearch/SteeredDiffusion.
    """

    eta: float = 1.0
    jacobian: bool = True

    def estimate(self, num_samples: int, views: int) -> dict[str, int]:
        found = super().estimate(num_samples, views)
        return found | {"denoiser_backwards": num_samples * self.guided_steps() if self.jacobian else 0}

    def guide(
        self,
        problem: Problem,
        model: NoiseModel,
        x_NCHW: Tensor,
        time: int,
        now: float,
        before: float,
        t: int,
    ) -> tuple[Tensor, Tensor]:
        problem.evaluations["denoiser_forwards"] += problem.counted
        views = problem.counted * problem.conditioner.views
        problem.evaluations["auxiliary_backwards"] += views
        with torch.enable_grad():
            if self.jacobian:
                tracked = x_NCHW.detach().requires_grad_()
                clean, _ = model.predict(tracked, time)
                problem.evaluations["denoiser_backwards"] += problem.counted
            else:
                with torch.no_grad():
                    clean, _ = model.predict(x_NCHW, time)
                tracked = clean = clean.detach().requires_grad_()
            seen = finished(model, clean) if self.clip else model.show(clean)
            energy = problem.image_energy(seen, t)
            (gradient,) = torch.autograd.grad(energy.sum(), tracked)
        if not self.jacobian:
            gradient = gradient / now**0.5
        clean = clean.detach()
        return clean - (1 - before) ** 0.5 * self.scale * gradient, energy.detach()
