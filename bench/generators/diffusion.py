"""Unconditional diffusion models as pushforwards: the deterministic DDIM map from noise to image."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from bench.assets.missing import Published
from bench.errors import SuiteError, WeightError
from bench.extras import optional
from bench.generators.base import Block, LatentSpace
from bench.generators.ddim import ddim
from bench.generators.diffusers_files import WHAT, load_part, quiet, read_index
from bench.generators.noise_model import Scheduled

PUBLISHED = Published(
    what="an unconditional diffusion model in diffusers' layout",
    source="https://huggingface.co/google/ddpm-cifar10-32 and the like, the whole folder",
)


@dataclass(frozen=True, kw_only=True)
class Diffusion:
    """An unconditional diffusion model as G: the latent is the noise, DDIM maps it to the image in ``steps``.

    ``weights`` is a folder in diffusers' layout (``unet``: UNet2DModel, ``scheduler``). ``timesteps`` says
    where the steps lie; null leaves what the folder says. ``checkpointed`` computes each step again for its
    gradient, so that memory does not grow with ``steps``.
    """

    weights: str
    resolution: int
    steps: int = 20
    timesteps: Literal["leading", "trailing", "linspace"] | None = None
    checkpointed: bool = True

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise SuiteError(f"steps must be at least 1, got {self.steps}.")

    @property
    def assets(self) -> Mapping[str, Published]:
        return {"weights": PUBLISHED}

    def load(self, device: torch.device) -> DiffusionGenerator:
        folder = Path(self.weights)
        parts = read_index(folder, PUBLISHED)
        if not {"unet", "scheduler"} <= set(parts):
            found = ", ".join(parts) or "neither"
            raise WeightError(f"'{folder}' has no unet and scheduler, found {found}.")
        unet = load_part(folder, "unet", *parts["unet"], allowed=("UNet2DModel",)).to(device)
        size, channels = unet.config.sample_size, unet.config.in_channels
        scheduler = _as_ddim(folder, parts["scheduler"][1])
        if size != self.resolution:
            raise SuiteError(f"resolution is {self.resolution}, and the model makes {size} px images.")
        if channels not in (1, 3):
            raise WeightError(f"the model makes images of {channels} channels; 1 and 3 can be used.")
        if self.timesteps is not None:
            scheduler = type(scheduler).from_config(scheduler.config, timestep_spacing=self.timesteps)
        return DiffusionGenerator(self, lambda x, t: unet(x, t).sample, scheduler, channels)


def _as_ddim(folder: Path, class_name: str) -> Any:
    """The folder's noise schedule with DDIM's steps. Raises WeightError for one that DDIM cannot read."""
    if class_name not in ("DDPMScheduler", "DDIMScheduler", "PNDMScheduler"):
        raise WeightError(
            f"'{folder}' has a {class_name}; the deterministic map needs a schedule of DDPM's kind: "
            "DDPMScheduler, DDIMScheduler or PNDMScheduler."
        )
    cls = optional("diffusers", WHAT).DDIMScheduler
    try:
        with quiet():
            return cls.from_pretrained(str(folder), subfolder="scheduler", local_files_only=True)
    except Exception as error:  # OSError, ValueError, JSON's
        raise WeightError(f"'{folder}/scheduler' cannot be loaded: {error}") from error


class DiffusionGenerator:
    """G(z) with z ~ N(0, I), the noise of all pixels in the order C, H, W."""

    def __init__(
        self, config: Diffusion, denoise: Callable[[Tensor, Tensor], Tensor], scheduler: Any, channels: int
    ):
        self.config, self.denoise, self.scheduler = config, denoise, scheduler
        self.resolution = config.resolution
        self.shape = (channels, config.resolution, config.resolution)
        dim = math.prod(self.shape)
        self.latent = LatentSpace(
            blocks=(Block(name="z", dim=dim),), sample=lambda streams: streams.normal("prior:z", (dim,))
        )
        self.noise_model = Scheduled(denoise, scheduler)  # for samplers that guide it on its way

    def decode(self, z_ND: Tensor) -> Tensor:
        config = self.config
        noise = z_ND.view(-1, *self.shape)
        images = ddim(self.denoise, self.scheduler, noise, config.steps, checkpointed=config.checkpointed)
        return images.float().clamp(-1, 1).expand(-1, 3, -1, -1)
