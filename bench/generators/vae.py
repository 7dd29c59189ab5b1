"""The zoo's VAEs as generators: the decoder's mean image of a standard normal latent."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from bench.generators.base import Block, LatentSpace
from bench.streams import Streams
from bench.zoo.weights import load_model


@dataclass(frozen=True, kw_only=True)
class Vae:
    """A VAE of the zoo at 32 px; latent ``z`` is unbounded with a standard normal prior.

    ``model`` names a zoo model; ``weights`` replaces its file, then ``sha256`` may state the expected hash.
    """

    model: str = "digits-vae"
    weights: str | None = None
    sha256: str | None = None

    @property
    def resolution(self) -> int:
        return 32

    def load(self, device: torch.device) -> VaeGenerator:
        return VaeGenerator(load_model(self.model, device, path=self.weights, sha256=self.sha256))


class VaeGenerator:
    """G of a zoo VAE."""

    resolution = 32

    def __init__(self, network):
        self.network = network
        self.latent = LatentSpace(blocks=(Block(name="z", dim=network.z_dim),), sample=self._sample)

    def _sample(self, streams: Streams) -> Tensor:
        return streams.normal("prior:z", (self.network.z_dim,))

    def decode(self, z_ND: Tensor) -> Tensor:
        return self.network(z_ND)
