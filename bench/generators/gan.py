"""The zoo's GANs as generators: latent ``z``, and ``y`` for a BigGAN-style model."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from bench.generators.base import Block, LatentSpace
from bench.streams import Streams
from bench.zoo.weights import load_model


@dataclass(frozen=True, kw_only=True)
class Gan:
    """A GAN of the zoo at 32 px; the prior is a normal clamped to [-2, 2], as TR0N draws BigGAN's z.

    ``model`` names a zoo model; ``weights`` replaces its file, then ``sha256`` may state the expected hash.
    """

    model: str = "shapes-gan"
    weights: str | None = None
    sha256: str | None = None

    @property
    def resolution(self) -> int:
        return 32

    def load(self, device: torch.device) -> GanGenerator:
        network = load_model(self.model, device, path=self.weights, sha256=self.sha256)
        return GanGenerator(network)


class GanGenerator:
    """G of a zoo GAN. ``y`` is the class embedding, treated as continuous; its prior is a uniform class."""

    resolution = 32

    def __init__(self, network):
        self.network = network
        blocks = [Block(name="z", dim=network.z_dim, bound=2.0)]
        if network.num_classes:
            blocks.append(Block(name="y", dim=network.y_dim, role="auxiliary"))
        self.latent = LatentSpace(blocks=tuple(blocks), sample=self._sample)

    def _sample(self, streams: Streams) -> Tensor:
        z = streams.normal("prior:z", (self.network.z_dim,)).clamp(-2, 2)
        if not self.network.num_classes:
            return z
        label = streams.integers("prior:y", self.network.num_classes)
        return torch.cat([z, self.network.embedding.weight[label]], dim=1)

    def decode(self, z_ND: Tensor) -> Tensor:
        return self.network(z_ND)
