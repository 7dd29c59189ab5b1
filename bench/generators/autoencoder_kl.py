"""The decoder of diffusers' AutoencoderKL as G: the latent space of latent diffusion models."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from bench.assets.missing import Published, missing_asset
from bench.assets.state import check_state, read_state
from bench.errors import SuiteError
from bench.generators.base import Block, LatentSpace
from bench.generators.diffusers_files import load_part
from bench.streams import Streams

PUBLISHED = Published(
    what="an AutoencoderKL in diffusers' layout",
    source="https://huggingface.co/stabilityai/sd-vae-ft-mse, or the 'vae' folder of a pipeline",
    size="about 335 MB",
)


@dataclass(frozen=True, kw_only=True)
class AutoencoderKl:
    """An autoencoder's decoder: z is the scaled latent (C × H/8 × W/8), as diffusion models see it.

    ``weights`` is a folder with config.json and weights. ``scaling`` replaces the config's scaling_factor.
    The prior is N(0, I), under which decoded images are textures, not pictures; ``prior`` names a safetensors
    file with ``mean`` and ``std`` of scaled latents, each (C, H, W) or broadcasting to it.
    """

    weights: str
    resolution: int
    scaling: float | None = None
    prior: str | None = None

    def __post_init__(self) -> None:
        if self.scaling is not None and self.scaling <= 0:
            raise SuiteError(f"scaling must be positive or null, got {self.scaling}.")

    @property
    def assets(self) -> Mapping[str, Published | None]:
        return {"weights": PUBLISHED, "prior": None}

    def load(self, device: torch.device) -> AutoencoderKlGenerator:
        folder = Path(self.weights)
        if not (folder / "config.json").is_file():
            raise missing_asset(PUBLISHED, folder / "config.json")
        network = load_part(folder.parent, folder.name, "diffusers", "AutoencoderKL")
        return AutoencoderKlGenerator(self, network.to(device), device)


class AutoencoderKlGenerator:
    """G(z) = decoder(z / scaling + shift)."""

    def __init__(self, config: AutoencoderKl, network: Any, device: torch.device):
        self.network, self.resolution = network, config.resolution
        factor = 2 ** (len(network.config.block_out_channels) - 1)
        if config.resolution % factor:
            raise SuiteError(f"resolution must be a multiple of {factor}, got {config.resolution}.")
        self.shape = (network.config.latent_channels, *[config.resolution // factor] * 2)
        self.scaling: float = config.scaling or network.config.scaling_factor
        self.shift: float = getattr(network.config, "shift_factor", None) or 0.0
        self._mean: Tensor | float = 0.0
        self._std: Tensor | float = 1.0
        if config.prior is not None:
            state = read_state(config.prior)
            check_state(
                state, {key: state.get(key, ()) for key in ("mean", "std")}, what="a prior", path=config.prior
            )
            self._mean, self._std = (self._spread(state[key], key).to(device) for key in ("mean", "std"))
        dim = math.prod(self.shape)
        self.latent = LatentSpace(blocks=(Block(name="z", dim=dim),), sample=self._sample)

    def _spread(self, value: Tensor, key: str) -> Tensor:
        try:
            return value.float().expand(self.shape).reshape(-1)
        except RuntimeError:
            raise SuiteError(
                f"prior: '{key}' has shape {tuple(value.shape)}, which does not broadcast to {self.shape}."
            ) from None

    def _sample(self, streams: Streams) -> Tensor:
        return self._mean + self._std * streams.normal("prior:z", (math.prod(self.shape),))

    def decode(self, z_ND: Tensor) -> Tensor:
        z = z_ND.view(-1, *self.shape) / self.scaling + self.shift
        return self.network.decode(z).sample.clamp(-1, 1)
