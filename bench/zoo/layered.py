"""A layered generator: a flat backdrop, and one object cut out by an outline and put in its place.

In the manner of LR-GAN (Yang et al. 2017, arXiv:1703.01560): layers with noise of their own are laid over
each other by a mask, after an affine placement. Here the mask is an implicit function of the coordinates in
the object's own frame, so edges stay crisp at any size. Nothing is told about shapes, colours or places.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

# Coordinates of the latent, and of the code that it is mapped to, by what they speak of.
PARTS = {"backdrop": 8, "color": 12, "place": 12, "outline": 16}
CODES = {"backdrop": 3, "color": 3, "place": 4, "outline": 12}
SHOWS_CLASS = ("color", "outline")
SIDE = 32


def perceptron(dim_in: int, dim_out: int, width: int = 128) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(dim_in, width), nn.LeakyReLU(0.2),
        nn.Linear(width, width), nn.LeakyReLU(0.2),
        nn.Linear(width, width), nn.LeakyReLU(0.2),
        nn.Linear(width, dim_out),
    )  # fmt: skip


class Outline(nn.Module):
    """Signed distance, positive inside, of points in the object's frame; (N, P, 2) and a code (N, K)."""

    def __init__(self, code_dim: int, width: int = 48, layers: int = 3):
        super().__init__()
        self.first = nn.Linear(11, width)
        self.layers = nn.ModuleList([nn.Linear(width, width) for _ in range(layers - 1)])
        self.modulation = nn.Linear(code_dim, 2 * width * layers)
        self.last = nn.Linear(width, 1)
        nn.init.normal_(self.last.weight, std=0.02)
        nn.init.zeros_(self.last.bias)

    def forward(self, points: Tensor, code: Tensor) -> Tensor:
        radius = (points.square().sum(-1, keepdim=True) + 1e-6).sqrt()
        waves = [wave(k * points) for k in (2.0, 4.0) for wave in (torch.sin, torch.cos)]
        x = torch.cat([points, radius, *waves], dim=-1)
        modulation = self.modulation(code)[:, None].chunk(2 * (1 + len(self.layers)), dim=-1)
        for i, layer in enumerate([self.first, *self.layers]):
            x = F.silu(layer(x) * (1 + modulation[2 * i]) + modulation[2 * i + 1])
        # A disc, flat inside: where the distance is large the mask has no gradient, and no hole would open.
        disc = (0.8 - radius[..., 0]).clamp(max=0.1)
        return disc + self.last(x)[..., 0]


class Painter(nn.Module):
    """Codes to images (N, 3, 32, 32) in [-1, 1]: a backdrop, and over it an object cut out by its outline."""

    def __init__(self) -> None:
        super().__init__()
        self.code = nn.Sequential(nn.Linear(CODES["outline"], 128), nn.LeakyReLU(0.2), nn.Linear(128, 128))
        self.outline = Outline(128)
        axis = (torch.arange(SIDE, dtype=torch.float32) + 0.5) * (2.0 / SIDE) - 1.0
        grid = torch.stack(torch.meshgrid(axis, axis, indexing="xy"), dim=-1).view(1, -1, 2)
        self.register_buffer("grid", grid, persistent=False)

    def forward(self, codes: Tensor) -> Tensor:
        return self.pixels(codes, self.get_buffer("grid")).view(-1, 3, SIDE, SIDE)

    def pixels(self, codes: Tensor, grid: Tensor, slope: float = 4.0) -> Tensor:
        """Colours (N, 3, P) at some points of the grid, (1, P, 2); ``slope`` is the edge's, per pixel."""
        backdrop, color, place, outline = codes.split(list(CODES.values()), dim=1)
        center = torch.tanh(place[:, :2])
        radius = 0.45 * torch.exp(torch.tanh(place[:, 2]))
        angle = 0.5 * torch.tanh(place[:, 3])
        cos, sin = angle.cos()[:, None], angle.sin()[:, None]
        d = (grid - center[:, None]) / radius[:, None, None]
        points = torch.stack([cos * d[..., 0] + sin * d[..., 1], cos * d[..., 1] - sin * d[..., 0]], dim=-1)
        distance = self.outline(points, self.code(outline)) * radius[:, None] * (SIDE / 2)
        # A logistic edge about as wide as a box-filtered one.
        mask = torch.sigmoid(slope * distance)[:, None]
        backdrop, color = torch.tanh(backdrop)[:, :, None], torch.tanh(color)[:, :, None]
        return mask * color + (1 - mask) * backdrop


class LayeredAutoencoder(nn.Module):
    """Images to codes and back; what the layered GANs start from."""

    def __init__(self, channels: int = 24):
        super().__init__()
        self.config = {"channels": channels}
        c = channels
        self.encoder = nn.Sequential(
            nn.Conv2d(3, c, 3, padding=1), nn.BatchNorm2d(c), nn.LeakyReLU(0.2),
            nn.Conv2d(c, 2 * c, 4, stride=2, padding=1), nn.BatchNorm2d(2 * c), nn.LeakyReLU(0.2),
            nn.Conv2d(2 * c, 4 * c, 4, stride=2, padding=1), nn.BatchNorm2d(4 * c), nn.LeakyReLU(0.2),
            nn.Conv2d(4 * c, 4 * c, 4, stride=2, padding=1), nn.BatchNorm2d(4 * c), nn.LeakyReLU(0.2),
            nn.Flatten(), nn.Linear(16 * 4 * c, 256), nn.LeakyReLU(0.2), nn.Linear(256, sum(CODES.values())),
        )  # fmt: skip
        self.painter = Painter()

    def encode(self, images_NCHW: Tensor) -> Tensor:
        """Codes (N, sum of CODES)."""
        return self.encoder(images_NCHW)

    def forward(self, images_NCHW: Tensor) -> Tensor:
        return self.painter(self.encode(images_NCHW))


class LayeredGenerator(nn.Module):
    """Latent (N, z_dim + y_dim) to images (N, 3, 32, 32) in [-1, 1].

    The first ``z_dim`` = 48 coordinates are split over backdrop, color, place and outline (:data:`PARTS`);
    a mapping network each turns them into codes (:data:`CODES`). With ``num_classes`` it holds BigGAN's
    shared class embedding ``embedding`` (num_classes, y_dim) and the latent is [z, y]; y speaks to color and
    outline. There is no batch norm: samples never meet.
    """

    def __init__(self, y_dim: int = 0, num_classes: int = 0):
        super().__init__()
        self.config = {"y_dim": y_dim, "num_classes": num_classes}
        self.z_dim, self.y_dim, self.num_classes = sum(PARTS.values()), y_dim, num_classes
        if num_classes:
            self.embedding = nn.Embedding(num_classes, y_dim)
            nn.init.normal_(self.embedding.weight, std=1.0)
        self.mapping = nn.ModuleDict(
            {
                name: perceptron(dim + (y_dim if name in SHOWS_CLASS else 0), CODES[name])
                for name, dim in PARTS.items()
            }
        )
        self.register_buffer("code_mean", torch.zeros(sum(CODES.values())))
        self.register_buffer("code_std", torch.ones(sum(CODES.values())))
        self.painter = Painter()

    def set_scale(self, mean: Tensor, std: Tensor) -> None:
        """Mean and spread of the codes, which mapping networks give in standard units."""
        self.get_buffer("code_mean").copy_(mean)
        self.get_buffer("code_std").copy_(std.clamp(min=1e-3))

    def standard(self, codes: Tensor) -> Tensor:
        """Codes in standard units."""
        return (codes - self.get_buffer("code_mean")) / self.get_buffer("code_std")

    def codes(self, latent_ND: Tensor) -> Tensor:
        """The codes of latents, (N, sum of CODES)."""
        *parts, y = latent_ND.split([*PARTS.values(), self.y_dim], dim=1)
        mapped = [
            self.mapping[name](torch.cat([z, y], dim=1) if name in SHOWS_CLASS else z)
            for name, z in zip(PARTS, parts)
        ]
        return torch.cat(mapped, dim=1) * self.get_buffer("code_std") + self.get_buffer("code_mean")

    def forward(self, latent_ND: Tensor) -> Tensor:
        return self.painter(self.codes(latent_ND))
