"""What a diffusion model shows to samplers that guide it on its way: its schedule and its predictions.

A generator that is the pushforward of a diffusion model may offer ``noise_model``, an object of this
protocol; its latent is then the starting noise, flat.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import torch
from torch import Tensor


class NoiseModel(Protocol):
    """A trained unconditional denoiser.

    ``alphas_cumprod`` float64 (T,) falls with the timestep: x_t = √ᾱ_t x_0 + √(1 - ᾱ_t) ε. ``predict`` is
    differentiable and treats every sample on its own.
    """

    alphas_cumprod: Tensor

    def predict(self, x_NCHW: Tensor, t: int) -> tuple[Tensor, Tensor]:
        """Estimates of x_0 and of ε, each (N, C, H, W), not clamped, of images at timestep ``t``."""
        ...


class Scheduled:
    """A :class:`NoiseModel` from ``denoise(x, t_N)`` and the diffusers scheduler that goes with it."""

    def __init__(self, denoise: Callable[[Tensor, Tensor], Tensor], scheduler: Any):
        self.denoise = denoise
        self.kind = scheduler.config.prediction_type
        self.alphas_cumprod = scheduler.alphas_cumprod.double()
        if self.kind not in ("epsilon", "v_prediction", "sample"):
            raise ValueError(f"unknown prediction_type '{self.kind}'")

    def predict(self, x_NCHW: Tensor, t: int) -> tuple[Tensor, Tensor]:
        times = torch.full((len(x_NCHW),), t, dtype=torch.int64, device=x_NCHW.device)
        found = self.denoise(x_NCHW, times)
        alpha = float(self.alphas_cumprod[t])
        signal, noise = alpha**0.5, (1 - alpha) ** 0.5
        if self.kind == "epsilon":
            return (x_NCHW - noise * found) / signal, found
        if self.kind == "sample":
            return found, (x_NCHW - signal * found) / noise
        return signal * x_NCHW - noise * found, signal * found + noise * x_NCHW


def trailing(num_train: int, steps: int) -> list[int]:
    """``steps`` timesteps from ``num_train`` - 1 down, evenly spaced ("trailing", arXiv:2305.08891)."""
    return [round(num_train - i * num_train / steps) - 1 for i in range(steps)]
