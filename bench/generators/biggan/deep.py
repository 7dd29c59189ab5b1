"""BigGAN-deep from the files of huggingface/pytorch-pretrained-BigGAN."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from bench.assets.missing import Published, require_file
from bench.assets.state import read_state
from bench.generators.biggan.deep_network import BigGanDeepNetwork, architecture_of, load_published
from bench.generators.biggan.network import Resolution
from bench.generators.biggan.prior import ClassPrior, LatentPrior, NoisePrior

_HOST = "https://s3.amazonaws.com/models.huggingface.co/biggan"
_SIZE = {128: "about 201 MiB", 256: "about 224 MiB", 512: "about 225 MiB"}  # as its README states


@dataclass(frozen=True, kw_only=True)
class BigGanDeep:
    """BigGAN-deep at 128, 256 or 512 px: latent z and class embedding y, 128 coordinates each.

    ``weights`` is the state dict (pytorch_model.bin or .safetensors), ``sha256`` its expected hash, and
    ``config`` the config.json beside it; null means the published one of this resolution. ``truncation``
    picks the batch norms' statistics and is the factor of the "truncate" prior, as the model is meant to
    be used. ``z_prior``, ``y_prior`` and ``z_bound`` are BigGAN's.
    """

    weights: str
    sha256: str | None = None
    config: str | None = None
    resolution: Resolution = 512
    truncation: float = 1.0
    z_prior: NoisePrior = "truncate"
    y_prior: ClassPrior = "categorical_fixed"
    z_bound: float = 2.0

    def __post_init__(self) -> None:
        self.prior  # noqa: B018 - checks z_bound and truncation

    @property
    def prior(self) -> LatentPrior:
        return LatentPrior(z=self.z_prior, y=self.y_prior, bound=self.z_bound, truncation=self.truncation)

    @property
    def assets(self) -> dict[str, Published]:
        name = f"biggan-deep-{self.resolution}"
        weights = replace(Published.locked(name), size=_SIZE[self.resolution])
        config = Published(what=f"architecture of {name}", source=f"{_HOST}/{name}-config.json")
        return {"weights": weights, "config": config}

    def load(self, device: torch.device) -> BigGanDeepGenerator:
        if self.config is not None:
            require_file(self.config, self.assets["config"], field="config")
        network = BigGanDeepNetwork(architecture_of(self.config, self.resolution))
        state = read_state(self.weights, published=self.assets["weights"], sha256=self.sha256)
        load_published(network, state, self.truncation, self.weights)
        return BigGanDeepGenerator(self, network.to(device).eval().requires_grad_(False))


class BigGanDeepGenerator:
    """G(z, y) at the configured truncation."""

    def __init__(self, config: BigGanDeep, network: BigGanDeepNetwork):
        self.network, self.resolution = network, config.resolution
        self.z_dim = network.architecture.z_dim
        self.latent = config.prior.latent(self.z_dim, network.embeddings.weight.T.contiguous())

    def decode(self, z_ND: Tensor) -> Tensor:
        return self.network(z_ND[:, : self.z_dim], z_ND[:, self.z_dim :])
