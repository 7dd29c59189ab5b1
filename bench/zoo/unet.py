"""The zoo's diffusion model: diffusers' UNet2DModel with the noise schedule that it was trained under."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from bench.extras import optional

WHAT = "a diffusion model of the zoo"


class NoiseUnet(nn.Module):
    """An unconditional denoiser. ``unet`` are UNet2DModel's arguments, ``schedule`` DDIMScheduler's.

    ``shape`` is (C, h, w) of the images that it denoises. Raises BenchError where diffusers is missing.
    """

    def __init__(self, unet: Mapping[str, Any], schedule: Mapping[str, Any]):
        super().__init__()
        self.config = {"unet": dict(unet), "schedule": dict(schedule)}
        self.shape = (int(unet["in_channels"]), int(unet["sample_size"]), int(unet["sample_size"]))
        self.schedule = dict(schedule)
        self.unet = optional("diffusers", WHAT).UNet2DModel(**unet)

    def scheduler(self) -> Any:
        """A new DDIMScheduler."""
        return optional("diffusers", WHAT).DDIMScheduler(**self.schedule)

    def forward(self, x_NCHW: Tensor, t_N: Tensor) -> Tensor:
        """What the schedule's prediction_type says, (N, C, h, w), of noised images at times int64 (N,)."""
        return self.unet(x_NCHW, t_N).sample
