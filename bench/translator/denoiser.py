"""PPGN's denoising autoencoder of the latent: its prior gradient is R(h) - h (arXiv:1612.00005)."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bench.errors import SuiteError
from bench.translator.base import Ground, Progress, Trained, load_state, seeded
from bench.translator.pairs import Pairs


@dataclass(frozen=True, kw_only=True)
class Denoiser:
    """R learns to undo N(0, noise²) on draws of the generator's prior.

    ``path: latent`` is PPGN-h: R is a perceptron on h. ``path: joint`` is joint PPGN-h with G frozen: R(h) =
    E(G(h)), the encoder E trained to find h in the image of the noised h, itself noised by
    ``image_noise``. Mean squared error, Adam, fresh draws every step.
    """

    path: Literal["latent", "joint"] = "joint"
    noise: float = 0.1
    image_noise: float = 0.0
    hidden: int = 256
    steps: int = 2000
    batch_size: int = 64
    learning_rate: float = 1e-3
    seed: int = 24
    num_pairs: int = 0

    def __post_init__(self) -> None:
        for name in ("hidden", "steps", "batch_size"):
            if getattr(self, name) < 1:
                raise SuiteError(f"denoiser: {name} must be at least 1, got {getattr(self, name)}.")
        for name in ("noise", "learning_rate"):
            if getattr(self, name) <= 0:
                raise SuiteError(f"denoiser: {name} must be positive, got {getattr(self, name)}.")
        if self.image_noise < 0:
            raise SuiteError(f"denoiser: image_noise must not be negative, got {self.image_noise}.")
        if self.num_pairs:
            raise SuiteError("denoiser: num_pairs must be 0; it draws from the prior as it trains.")

    def network(self, ground: Ground) -> nn.Module:
        dim = ground.generator.latent.dim
        state = torch.random.get_rng_state()
        torch.manual_seed(seeded("denoiser", self.seed).initial_seed())
        made = LatentDenoiser(dim, self.hidden) if self.path == "latent" else ImageEncoder(dim, self.hidden)
        torch.random.set_rng_state(state)
        return made.to(ground.device)

    def train(self, ground: Ground, pairs: Pairs, progress: Progress | None = None) -> TrainedDenoiser:
        network = self.network(ground).train()
        latent = ground.generator.latent
        optimizer = torch.optim.Adam(network.parameters(), lr=self.learning_rate)
        nothing = torch.zeros(self.batch_size, 1, device=ground.device)
        for t in range(self.steps):
            streams = ground.streams(self.batch_size, "denoiser", self.seed, t)
            h = latent.prior(streams)
            noised = h + self.noise * streams.normal("denoiser:latent", (latent.dim,))
            seen = noised
            if self.path == "joint":
                with torch.no_grad():
                    seen = ground.problem(streams, nothing).decode(noised)
                if self.image_noise:
                    seen = seen + self.image_noise * streams.normal("denoiser:image", tuple(seen.shape[1:]))
            loss = (network(seen) - h).square().mean()
            for group in optimizer.param_groups:
                group["lr"] = self.learning_rate * (1 - t / self.steps)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            if progress is not None and ((t + 1) % 50 == 0 or t + 1 == self.steps):
                progress(t + 1, self.steps)
        return TrainedDenoiser(network, ground, self)

    def read(self, content: bytes, ground: Ground) -> TrainedDenoiser:
        network = self.network(ground)
        meta = load_state(network, content)
        trained = TrainedDenoiser(network, ground, self)
        trained.took(meta)
        return trained


class TrainedDenoiser(Trained):
    """R of a latent."""

    def __init__(self, network: nn.Module, ground: Ground, config: Denoiser):
        super().__init__(network, ground.device)
        self.through_image = config.path == "joint"

    def denoise(self, h_ND: Tensor, images_NCHW: Tensor) -> Tensor:
        """R(h), (N, D); the joint form looks at ``images_NCHW`` = G(h) alone."""
        return self.network(images_NCHW if self.through_image else h_ND)


class LatentDenoiser(nn.Module):
    """h + a correction: at the start R is the identity."""

    def __init__(self, dim: int, hidden: int):
        super().__init__()
        self.first, self.second, self.last = (
            nn.Linear(dim, hidden), nn.Linear(hidden, hidden), nn.Linear(hidden, dim)
        )  # fmt: skip
        nn.init.zeros_(self.last.weight)
        nn.init.zeros_(self.last.bias)

    def forward(self, h_ND: Tensor) -> Tensor:
        x = F.silu(self.first(h_ND))
        return h_ND + self.last(x + F.silu(self.second(x)))


class ImageEncoder(nn.Module):
    """Images (N, 3, H, W) of any size to (N, D)."""

    def __init__(self, dim: int, hidden: int):
        super().__init__()
        widths = (3, 32, 64, 128)
        self.convolutions = nn.ModuleList(
            nn.Conv2d(a, b, 3, stride=2, padding=1) for a, b in itertools.pairwise(widths)
        )
        self.pool = nn.AdaptiveAvgPool2d(4)
        self.first, self.last = nn.Linear(widths[-1] * 16, hidden), nn.Linear(hidden, dim)

    def forward(self, images_NCHW: Tensor) -> Tensor:
        x = images_NCHW
        for convolution in self.convolutions:
            x = F.silu(convolution(x))
        return self.last(F.silu(self.first(self.pool(x).flatten(1))))
