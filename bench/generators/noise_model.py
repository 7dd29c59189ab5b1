"""What a diffusion model shows to samplers that guide it on its way: its schedule and its predictions.

A generator that is the pushforward of a diffusion model may offer ``noise_model``, an object of this
protocol, and ``clean(z_ND)``, what it makes of latents in the model's own shape; its latent is then the
starting noise, flat, and ``decode`` is :func:`finished` of ``clean``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import torch
from torch import Tensor

from bench.generators.enlarge import enlarge


class NoiseModel(Protocol):
    """A trained unconditional denoiser of images of ``shape`` (C, h, w).

    ``alphas_cumprod`` float64 (T,) falls with the timestep: x_t = √ᾱ_t x_0 + √(1 - ᾱ_t) ε. ``predict`` and
    ``show`` are differentiable and treat every sample on its own.
    """

    shape: tuple[int, int, int]
    alphas_cumprod: Tensor

    def predict(self, x_NCHW: Tensor, t: int) -> tuple[Tensor, Tensor]:
        """Estimates of x_0 and of ε, each (N, C, h, w), not clamped, of images at timestep ``t``."""
        ...

    def show(self, x_NCHW: Tensor) -> Tensor:
        """Images of the model as the generator gives them, (N, 3, H, W), not clamped."""
        ...


def finished(model: NoiseModel, x_NCHW: Tensor) -> Tensor:
    """Images (N, 3, H, W) in [-1, 1]; enlarging overshoots at edges, so that they are clamped again."""
    return model.show(x_NCHW.float().clamp(-1, 1)).clamp(-1, 1)


class Scheduled:
    """A :class:`NoiseModel` from ``denoise(x, t_N)`` and the diffusers scheduler that goes with it.

    Images of ``shape`` are shown at ``resolution``, enlarged where they are smaller.
    """

    def __init__(
        self,
        denoise: Callable[[Tensor, Tensor], Tensor],
        scheduler: Any,
        shape: tuple[int, int, int],
        resolution: int,
    ):
        self.denoise, self.shape, self.resolution = denoise, shape, resolution
        self.kind = scheduler.config.prediction_type
        self.alphas_cumprod = scheduler.alphas_cumprod.double()
        if self.kind not in ("epsilon", "v_prediction", "sample"):
            raise ValueError(f"unknown prediction_type '{self.kind}'")

    def show(self, x_NCHW: Tensor) -> Tensor:
        return enlarge(x_NCHW, self.resolution).expand(-1, 3, -1, -1)

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
