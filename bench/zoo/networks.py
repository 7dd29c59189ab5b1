"""The zoo's networks: a GAN generator (plain or BigGAN-style), its discriminator, a VAE, two classifiers.

Images are float32 (N, 3, 32, 32) in [-1, 1]. Everything is sized so that two CPU cores refine hundreds
of samples in a minute.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import spectral_norm


class ModulatedNorm(nn.Module):
    """Batch norm whose scale and shift are linear in a conditioning vector (self-modulation,
    Chen et al. 2019, arXiv:1810.01365; conditional batch norm as in BigGAN, arXiv:1809.11096).

    In eval mode the stored statistics are used, so samples do not see each other.
    """

    def __init__(self, channels: int, condition_dim: int):
        super().__init__()
        self.norm = nn.BatchNorm2d(channels, affine=False)
        self.scale = nn.Linear(condition_dim, channels)
        self.shift = nn.Linear(condition_dim, channels)

    def forward(self, x: Tensor, h: Tensor) -> Tensor:
        return self.norm(x) * (1 + self.scale(h))[:, :, None, None] + self.shift(h)[:, :, None, None]


class UpBlock(nn.Module):
    """Doubles the side: transposed convolution, then (unless ``plain``) one residual convolution."""

    def __init__(self, channels_in: int, channels_out: int, condition_dim: int, plain: bool = False):
        super().__init__()
        self.norm1 = ModulatedNorm(channels_in, condition_dim)
        self.up = nn.ConvTranspose2d(channels_in, channels_out, 4, stride=2, padding=1)
        self.plain = plain
        if not plain:
            self.norm2 = ModulatedNorm(channels_out, condition_dim)
            self.conv = nn.Conv2d(channels_out, channels_out, 3, padding=1)

    def forward(self, x: Tensor, h: Tensor) -> Tensor:
        x = self.up(F.relu(self.norm1(x, h)))
        return x if self.plain else x + self.conv(F.relu(self.norm2(x, h)))


class Generator(nn.Module):
    """Latent (N, z_dim + y_dim) to images. With ``num_classes`` it holds BigGAN's shared class embedding
    ``embedding`` (num_classes, y_dim), and the latent is [z, y]; without, y_dim is 0 and h = MLP(z)."""

    def __init__(self, z_dim: int = 64, y_dim: int = 0, num_classes: int = 0, channels: int = 24):
        super().__init__()
        self.config = {"z_dim": z_dim, "y_dim": y_dim, "num_classes": num_classes, "channels": channels}
        self.z_dim, self.y_dim, self.num_classes = z_dim, y_dim, num_classes
        c = channels
        if num_classes:
            self.embedding = nn.Embedding(num_classes, y_dim)
            nn.init.normal_(self.embedding.weight, std=1.0)
        dim = z_dim + y_dim
        self.mapping = nn.Sequential(nn.Linear(dim, 128), nn.ReLU(), nn.Linear(128, 128), nn.ReLU())
        self.input = nn.Linear(dim, 16 * 8 * c)
        self.blocks = nn.ModuleList(
            [UpBlock(8 * c, 4 * c, 128), UpBlock(4 * c, 2 * c, 128), UpBlock(2 * c, c, 128, plain=True)]
        )
        self.norm = ModulatedNorm(c, 128)
        self.output = nn.Conv2d(c, 3, 3, padding=1)

    def forward(self, latent_ND: Tensor) -> Tensor:
        h = self.mapping(latent_ND)
        x = self.input(latent_ND).view(len(latent_ND), -1, 4, 4)
        for block in self.blocks:
            x = block(x, h)
        return torch.tanh(self.output(F.relu(self.norm(x, h))))


class Discriminator(nn.Module):
    """Spectrally normalised convolutional critic of pixels with a batch-deviation channel and, given
    classes, a projection term (Miyato and Koyama 2018, arXiv:1802.05637). Training only.
    ``forward`` gives one logit per image, (N,).
    """

    def __init__(self, num_classes: int = 0, channels: int = 24):
        super().__init__()
        c = channels
        layers: list[nn.Module] = []
        for wide_in, wide_out, kernel, stride in (
            (3, c, 3, 1), (c, 2 * c, 4, 2), (2 * c, 4 * c, 4, 2), (4 * c, 4 * c, 4, 2)
        ):  # fmt: skip
            layers += [
                spectral_norm(nn.Conv2d(wide_in, wide_out, kernel, stride=stride, padding=1)),
                nn.LeakyReLU(0.2),
            ]
        self.body = nn.Sequential(*layers)
        self.last = spectral_norm(nn.Conv2d(4 * c + 1, 4 * c, 3, padding=1))
        self.linear = spectral_norm(nn.Linear(4 * c, 1))
        if num_classes:
            self.embedding = spectral_norm(nn.Embedding(num_classes, 4 * c))

    def forward(self, x: Tensor, label: Tensor | None = None) -> Tensor:
        h = self.body(x)
        groups = h.float().view(-1, 8, *h.shape[1:])  # deviation within groups of 8, as in StyleGAN2
        deviation = (groups.var(dim=1, unbiased=False) + 1e-8).sqrt().mean(dim=(1, 2, 3))
        channel = deviation.repeat_interleave(8)[:, None, None, None].expand(-1, 1, *h.shape[2:])
        h = F.leaky_relu(self.last(torch.cat([h, channel.to(h.dtype)], dim=1)), 0.2).sum(dim=(2, 3))
        out = self.linear(h)[:, 0]
        if label is not None:
            out = out + (self.embedding(label) * h).sum(dim=1)
        return out


class VariationalAutoencoder(nn.Module):
    """Convolutional VAE: ``encode`` gives mean and log variance (N, z_dim), ``decoder`` is a Generator."""

    def __init__(self, z_dim: int = 32, channels: int = 24):
        super().__init__()
        self.config = {"z_dim": z_dim, "channels": channels}
        self.z_dim = z_dim
        c = channels
        self.encoder = nn.Sequential(
            nn.Conv2d(3, c, 3, padding=1), nn.ReLU(),
            nn.Conv2d(c, 2 * c, 4, stride=2, padding=1), nn.BatchNorm2d(2 * c), nn.ReLU(),
            nn.Conv2d(2 * c, 4 * c, 4, stride=2, padding=1), nn.BatchNorm2d(4 * c), nn.ReLU(),
            nn.Conv2d(4 * c, 8 * c, 4, stride=2, padding=1), nn.BatchNorm2d(8 * c), nn.ReLU(),
            nn.Flatten(), nn.Linear(16 * 8 * c, 256), nn.ReLU(), nn.Linear(256, 2 * z_dim),
        )  # fmt: skip
        self.decoder = Generator(z_dim=z_dim, channels=channels)

    def encode(self, images_NCHW: Tensor) -> tuple[Tensor, Tensor]:
        mean, log_variance = self.encoder(images_NCHW).chunk(2, dim=1)
        return mean, log_variance.clamp(-12, 4)

    def forward(self, latent_ND: Tensor) -> Tensor:
        return self.decoder(latent_ND)


class Heads(nn.Module):
    """One linear layer per attribute on shared features."""

    def __init__(self, features: int, heads: Mapping[str, tuple[str, ...]]):
        super().__init__()
        self.layers = nn.ModuleDict(
            {name: nn.Linear(features, len(values)) for name, values in heads.items()}
        )

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        return {name: layer(x) for name, layer in self.layers.items()}


class PlainClassifier(nn.Module):
    """The guides' architecture: strided convolutions, batch norm, ReLU. ``features`` gives (N, 128)."""

    def __init__(self, heads: Mapping[str, tuple[str, ...]], channels: int = 24):
        super().__init__()
        self.heads = {name: tuple(values) for name, values in heads.items()}
        self.config = {"heads": {k: list(v) for k, v in self.heads.items()}, "channels": channels}
        c = channels
        self.body = nn.Sequential(
            nn.Conv2d(3, c, 3, padding=1), nn.BatchNorm2d(c), nn.ReLU(),
            nn.Conv2d(c, 2 * c, 4, stride=2, padding=1), nn.BatchNorm2d(2 * c), nn.ReLU(),
            nn.Conv2d(2 * c, 4 * c, 4, stride=2, padding=1), nn.BatchNorm2d(4 * c), nn.ReLU(),
            nn.Conv2d(4 * c, 4 * c, 4, stride=2, padding=1), nn.BatchNorm2d(4 * c), nn.ReLU(),
            nn.Flatten(), nn.Linear(16 * 4 * c, 128), nn.ReLU(),
        )  # fmt: skip
        self.head = Heads(128, self.heads)

    def features(self, images_NCHW: Tensor) -> Tensor:
        return self.body(images_NCHW)

    def forward(self, images_NCHW: Tensor) -> dict[str, Tensor]:
        return self.head(self.features(images_NCHW))


class ResidualUnit(nn.Module):
    def __init__(self, channels_in: int, channels_out: int):
        super().__init__()
        self.norm1, self.norm2 = nn.GroupNorm(8, channels_in), nn.GroupNorm(8, channels_out)
        self.conv1 = nn.Conv2d(channels_in, channels_out, 3, stride=2, padding=1)
        self.conv2 = nn.Conv2d(channels_out, channels_out, 3, padding=1)
        self.skip = nn.Conv2d(channels_in, channels_out, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv2(F.silu(self.norm2(self.conv1(F.silu(self.norm1(x))))))
        return y + self.skip(F.avg_pool2d(x, 2))


class ResidualClassifier(nn.Module):
    """The judges' architecture: pre-activation residual units, group norm, SiLU; features (N, 64)."""

    def __init__(self, heads: Mapping[str, tuple[str, ...]], channels: int = 32):
        super().__init__()
        self.heads = {name: tuple(values) for name, values in heads.items()}
        self.config = {"heads": {k: list(v) for k, v in self.heads.items()}, "channels": channels}
        c = channels
        self.stem = nn.Conv2d(3, c, 3, padding=1)
        self.units = nn.Sequential(
            ResidualUnit(c, 2 * c), ResidualUnit(2 * c, 3 * c), ResidualUnit(3 * c, 4 * c)
        )
        self.norm = nn.GroupNorm(8, 4 * c)
        self.project = nn.Linear(16 * 4 * c, 64)
        self.head = Heads(64, self.heads)

    def features(self, images_NCHW: Tensor) -> Tensor:
        x = F.silu(self.norm(self.units(self.stem(images_NCHW))))
        return F.silu(self.project(x.flatten(1)))

    def forward(self, images_NCHW: Tensor) -> dict[str, Tensor]:
        return self.head(self.features(images_NCHW))
