"""BigGAN from the state dicts of ajbrock/BigGAN-PyTorch: the generator of TR0N and FuseDream."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from bench.assets.missing import Published
from bench.assets.state import read_state
from bench.errors import SuiteError
from bench.generators.biggan.network import BigGanNetwork, Resolution, load_published
from bench.generators.biggan.prior import ClassPrior, LatentPrior, NoisePrior

_TR0N = "https://drive.google.com/drive/folders/1nJ3HmgYgeA9NZr-oU-enqbYeO7zBaANs"
_CONVERTER = "https://github.com/ajbrock/BigGAN-PyTorch (TFHub/converter.py -r 128)"
PUBLISHED = {
    128: Published(what="BigGAN at 128 px, converted from TF Hub", source=_CONVERTER, size="about 282 MB"),
    256: Published(
        what="BigGAN at 256 px, converted from TF Hub (biggan-256.pth)", source=_TR0N, size="about 329 MB"
    ),
    512: Published(
        what="BigGAN at 512 px, converted from TF Hub (biggan-512.pth)", source=_TR0N, size="about 330 MB"
    ),
}


@dataclass(frozen=True, kw_only=True)
class BigGan:
    """BigGAN at 128, 256 or 512 px: latent z (bounded by 2 in TR0N and FuseDream) and class embedding y.

    ``weights`` is a state dict (.pth or .safetensors) with ajbrock's keys, ``sha256`` its expected hash.
    ``width`` is the channel multiplier (G_ch), ``bn_eps`` that of the blocks' norms: 1e-5 as TR0N and
    FuseDream run it, although the converter of the TF Hub weights states 1e-4. ``z_prior``, ``y_prior`` and
    ``truncation`` (for "truncate") say how latents are drawn; see :class:`LatentPrior`. ``z_bound`` limits
    every coordinate of z, drawn or optimised.
    """

    weights: str
    sha256: str | None = None
    resolution: Resolution = 512
    width: int = 96
    num_classes: int = 1000
    bn_eps: float = 1e-5
    z_prior: NoisePrior = "normal"
    y_prior: ClassPrior = "categorical_fixed"
    z_bound: float = 2.0
    truncation: float = 0.4

    def __post_init__(self) -> None:
        if self.width < 4:
            raise SuiteError(f"width must be 4 or more (attention needs 8 channels), got {self.width}.")
        if self.num_classes < 1:
            raise SuiteError(f"num_classes must be at least 1, got {self.num_classes}.")
        if self.bn_eps <= 0:
            raise SuiteError(f"bn_eps must be positive, got {self.bn_eps}.")
        self.prior  # noqa: B018 - checks z_bound and truncation

    @property
    def prior(self) -> LatentPrior:
        return LatentPrior(z=self.z_prior, y=self.y_prior, bound=self.z_bound, truncation=self.truncation)

    @property
    def assets(self) -> dict[str, Published]:
        return {"weights": PUBLISHED[self.resolution]}

    def load(self, device: torch.device) -> BigGanGenerator:
        network = BigGanNetwork(
            self.resolution, width=self.width, num_classes=self.num_classes, bn_eps=self.bn_eps
        )
        state = read_state(self.weights, published=PUBLISHED[self.resolution], sha256=self.sha256)
        load_published(network, state, self.weights)
        return BigGanGenerator(self, network.to(device).eval().requires_grad_(False))


class BigGanGenerator:
    """G(z, y). Batch norms use stored statistics, so that no sample sees another."""

    def __init__(self, config: BigGan, network: BigGanNetwork):
        self.network, self.resolution = network, config.resolution
        self.latent = config.prior.latent(network.z_dim, network.shared.weight)

    def decode(self, z_ND: Tensor) -> Tensor:
        z_dim = self.network.z_dim
        return self.network(z_ND[:, :z_dim], z_ND[:, z_dim:])
