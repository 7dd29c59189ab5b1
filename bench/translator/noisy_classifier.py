"""A noise-aware classifier for guidance, taught by the frozen one on the generator's own images."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bench.errors import SuiteError
from bench.translator.base import Ground, Progress, Trained, load_state, seeded
from bench.translator.pairs import Pairs


@dataclass(frozen=True, kw_only=True)
class NoisyClassifier:
    """p(c | x_t, t), trained on noised images with the frozen classifier's probabilities of the clean ones.

    The source trains on labelled data (Dhariwal and Nichol, arXiv:2105.05233); a frozen f and G's own images
    need none (ours). ``num_pairs`` images are drawn once and noised anew every step, with √(1 - ᾱ) uniform
    in (0, 1); ``pair_batch`` of them are drawn at once. Cross-entropy, AdamW (weight decay 0.05 as in the
    source), rate falling linearly to zero.
    """

    num_pairs: int = 2048
    pair_batch: int = 64
    channels: int = 32
    steps: int = 2000
    batch_size: int = 64
    learning_rate: float = 1e-3
    seed: int = 24

    kinds = ("class",)
    route = "encode"  # how pairs are made

    def __post_init__(self) -> None:
        for name in ("num_pairs", "pair_batch", "channels", "steps", "batch_size"):
            if getattr(self, name) < 1:
                raise SuiteError(f"noisy-classifier: {name} must be at least 1, got {getattr(self, name)}.")
        if self.learning_rate <= 0:
            raise SuiteError(f"noisy-classifier: learning_rate must be positive, got {self.learning_rate}.")

    def network(self, ground: Ground) -> NoisyNetwork:
        sizes = getattr(ground.conditioner, "sizes", None)
        if sizes is None:
            raise SuiteError("noisy-classifier: the conditioner must be a classifier.")
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seeded("noisy-classifier", self.seed).initial_seed())
            return NoisyNetwork(tuple(sizes), self.channels, _seen(ground)).to(ground.device)

    def train(self, ground: Ground, pairs: Pairs, progress: Progress | None = None) -> TrainedNoisyClassifier:
        network = self.network(ground).train()
        images = self._images(ground, pairs)
        optimizer = torch.optim.AdamW(network.parameters(), lr=self.learning_rate, weight_decay=0.05)
        for t in range(self.steps):
            streams = ground.streams(self.batch_size, "noisy-classifier", self.seed, t)
            index = streams.integers("which", len(images))
            level = streams.uniform("level")[:, None, None, None]
            clean = images[index]
            noise = streams.normal("noise", tuple(clean.shape[1:]))
            x = (1 - level.square()).sqrt() * clean + level * noise
            wanted = pairs.conditions[index.cpu()].to(x.device)
            loss = -(wanted * network(x, level.flatten())).sum(1).mean()
            for group in optimizer.param_groups:
                group["lr"] = self.learning_rate * (1 - t / self.steps)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            if progress is not None and ((t + 1) % 20 == 0 or t + 1 == self.steps):
                progress(t + 1, self.steps)
        return TrainedNoisyClassifier(network, ground.device)

    def _images(self, ground: Ground, pairs: Pairs) -> Tensor:
        """The pairs' images (P, C, h, w), made again, as a diffusion model itself sees them."""
        chunk, parts = 64, []
        own = getattr(ground.generator, "clean", None)
        with torch.no_grad():
            for start in range(0, len(pairs.latents), chunk):
                z = pairs.latents[start : start + chunk].to(ground.device)
                streams = ground.streams(len(z), "noisy-classifier-images", self.seed, start)
                problem = ground.problem(streams, torch.zeros(len(z), 1))
                if own is not None:
                    problem.count_decoding()
                parts.append(problem.decode(z) if own is None else own(z).clamp(-1, 1))
        return torch.cat(parts)

    def read(self, content: bytes, ground: Ground) -> TrainedNoisyClassifier:
        network = self.network(ground)
        meta = load_state(network, content)
        trained = TrainedNoisyClassifier(network, ground.device)
        trained.took(meta)
        return trained


def _seen(ground: Ground) -> int:
    """Channels of the noised images: a diffusion model's own, three of any other generator."""
    model = getattr(ground.generator, "noise_model", None)
    return 3 if model is None else model.shape[0]


class NoisyNetwork(nn.Module):
    """Log-probabilities (N, Σ sizes), per head, of noised images and their noise levels √(1 - ᾱ) (N,)."""

    def __init__(self, sizes: tuple[int, ...], channels: int, seen: int = 3):
        super().__init__()
        self.sizes = sizes
        self.level = nn.Sequential(nn.Linear(16, 64), nn.SiLU(), nn.Linear(64, 2 * channels))
        self.stem = nn.Conv2d(seen, channels, 3, padding=1)
        widths = (channels, 2 * channels, 4 * channels, 4 * channels)
        self.down = nn.ModuleList(
            nn.Conv2d(widths[i], widths[i + 1], 3, stride=2, padding=1) for i in range(3)
        )
        self.norms = nn.ModuleList(nn.GroupNorm(8, width) for width in widths[1:])
        self.pool = nn.AdaptiveAvgPool2d(4)
        self.last = nn.Linear(widths[-1] * 16, sum(sizes))

    def forward(self, x_NCHW: Tensor, level_N: Tensor) -> Tensor:
        frequencies = torch.exp(torch.arange(8, device=x_NCHW.device) * (math.log(100.0) / 7))
        angles = level_N[:, None] * frequencies
        scale, shift = self.level(torch.cat([angles.sin(), angles.cos()], dim=1)).chunk(2, dim=1)
        h = self.stem(x_NCHW) * (1 + scale[:, :, None, None]) + shift[:, :, None, None]
        for convolution, norm in zip(self.down, self.norms):
            h = norm(convolution(F.silu(h)))
        logits = self.last(self.pool(F.silu(h)).flatten(1))
        return torch.cat([part.log_softmax(1) for part in logits.split(list(self.sizes), dim=1)], dim=1)


class TrainedNoisyClassifier(Trained):
    """The energy of noised images."""

    def noisy_energy(self, x_NCHW: Tensor, alpha: float, condition_ND: Tensor) -> Tensor:
        """-Σ log p_h(c | x_t), (N,), at cumulative product ``alpha``; differentiable in the images."""
        level = torch.full((len(x_NCHW),), (1 - alpha) ** 0.5, device=x_NCHW.device)
        return -(condition_ND * self.network(x_NCHW, level)).sum(1)
