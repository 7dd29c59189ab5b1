"""Unconditional diffusion models as pushforwards: the deterministic DDIM map from noise to image."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from bench.assets.missing import Published
from bench.errors import SuiteError, WeightError
from bench.extras import optional
from bench.generators.base import Block, LatentSpace
from bench.generators.ddim import ddim
from bench.generators.diffusers_files import WHAT, load_part, quiet, read_index
from bench.generators.noise_model import Scheduled, finished
from bench.zoo.unet import NoiseUnet
from bench.zoo.weights import load_model

PUBLISHED = Published(
    what="an unconditional diffusion model in diffusers' layout",
    source="https://huggingface.co/google/ddpm-cifar10-32 and the like, the whole folder",
)

Denoise = Callable[[Tensor, Tensor], Tensor]
Model = tuple[Denoise, Any, tuple[int, int, int]]  # U-Net, DDIM's scheduler, shape of its images


@dataclass(frozen=True, kw_only=True)
class Diffusion:
    """An unconditional diffusion model as G: the latent is the noise, DDIM maps it to the image in ``steps``.

    Either ``model`` names a diffusion model of the zoo, or ``weights`` is a folder in diffusers' layout
    (``unet``: UNet2DModel, ``scheduler``) or a file that ``zoo train`` wrote. A ``resolution`` that is a
    whole multiple of the model's own enlarges its images (bicubic). ``timesteps`` says where the steps lie;
    null leaves what the model says. ``checkpointed`` computes each step again for its gradient, so that
    memory does not grow with ``steps``.
    """

    weights: str | None = None
    model: str | None = None
    resolution: int = 32
    steps: int = 20
    timesteps: Literal["leading", "trailing", "linspace"] | None = None
    checkpointed: bool = True

    later_fields: ClassVar[tuple[str, ...]] = ("model",)

    def __post_init__(self) -> None:
        if (self.weights is None) == (self.model is None):
            found = "neither" if self.model is None else "both"
            raise SuiteError(
                f"found {found}; give either model (of the zoo) or weights (a folder in diffusers' layout)."
            )
        if self.steps < 1:
            raise SuiteError(f"steps must be at least 1, got {self.steps}.")

    @property
    def assets(self) -> Mapping[str, Published]:
        return {} if self.weights is None else {"weights": PUBLISHED}

    @property
    def denoiser_calls(self) -> int:
        """Of the U-Net, per sample that is decoded."""
        return self.steps

    def load(self, device: torch.device) -> DiffusionGenerator:
        denoise, scheduler, shape = self._zoo(device) if self._is_of_the_zoo else self._folder(device)
        channels, size, _ = shape
        if self.resolution % size:
            raise SuiteError(
                f"resolution is {self.resolution}, and the model makes {size} px images. Allowed: {size} and "
                "its whole multiples, to which they are enlarged."
            )
        if channels not in (1, 3):
            raise WeightError(f"the model makes images of {channels} channels; 1 and 3 can be used.")
        if self.timesteps is not None:
            scheduler = type(scheduler).from_config(scheduler.config, timestep_spacing=self.timesteps)
        return DiffusionGenerator(
            denoise, scheduler, shape,
            resolution=self.resolution, steps=self.steps, checkpointed=self.checkpointed,
        )  # fmt: skip

    @property
    def _is_of_the_zoo(self) -> bool:
        return self.weights is None or Path(self.weights).is_file()

    def _zoo(self, device: torch.device) -> Model:
        network = load_model(str(self.model), device, path=self.weights)
        if not isinstance(network, NoiseUnet):
            raise WeightError(
                f"'{self.weights or self.model}' is a {type(network).__name__} and no diffusion model. Name "
                "one of 'tr0n-bench zoo list' that is."
            )
        return network, network.scheduler(), network.shape

    def _folder(self, device: torch.device) -> Model:
        folder = Path(str(self.weights))
        parts = read_index(folder, PUBLISHED)
        if not {"unet", "scheduler"} <= set(parts):
            found = ", ".join(parts) or "neither"
            raise WeightError(f"'{folder}' has no unet and scheduler, found {found}.")
        unet = load_part(folder, "unet", *parts["unet"], allowed=("UNet2DModel",)).to(device)
        size, channels = unet.config.sample_size, unet.config.in_channels
        scheduler = _as_ddim(folder, parts["scheduler"][1])
        return lambda x, t: unet(x, t).sample, scheduler, (channels, size, size)


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
    """G(z) with z ~ N(0, I), the noise of all pixels in the order C, H, W, of images of ``shape``."""

    def __init__(
        self,
        denoise: Denoise,
        scheduler: Any,
        shape: tuple[int, int, int],
        *,
        resolution: int,
        steps: int,
        checkpointed: bool = True,
    ):
        self.denoise, self.scheduler, self.shape = denoise, scheduler, shape
        self.resolution, self.checkpointed = resolution, checkpointed
        self.denoiser_calls = steps
        dim = math.prod(shape)
        self.latent = LatentSpace(
            blocks=(Block(name="z", dim=dim),), sample=lambda streams: streams.normal("prior:z", (dim,))
        )
        # for samplers that guide it on its way
        self.noise_model = Scheduled(denoise, scheduler, shape, resolution)

    def clean(self, z_ND: Tensor) -> Tensor:
        """What the model itself makes, (N, C, h, w), not clamped."""
        noise = z_ND.view(-1, *self.shape)
        return ddim(self.denoise, self.scheduler, noise, self.denoiser_calls, checkpointed=self.checkpointed)

    def decode(self, z_ND: Tensor) -> Tensor:
        return finished(self.noise_model, self.clean(z_ND))
