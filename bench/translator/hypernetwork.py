"""A noise hypernetwork: noise optimisation amortised into one pass (Eyring et al. 2025, arXiv:2508.09968)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bench.errors import SuiteError
from bench.ranges import Range
from bench.samplers.base import Problem
from bench.translator.base import Ground, Progress, Trained, load_state, seeded
from bench.translator.pairs import Pairs


@dataclass(frozen=True, kw_only=True)
class NoiseHypernetwork:
    """z' = z + f(z, c), trained on weight · E(G(z'), c) + |f(z, c)|²/2 over prior draws z and conditions c.

    The second term is the KL divergence from the prior to first order, so that z' stays where G was trained.
    The source adapts the generator's own network by low-rank layers to make f; here f is a residual
    perceptron of z and c, which any generator admits (ours). One network for all conditions of the cell,
    drawn in turn. Adam with the rate falling linearly to zero.
    """

    weight: float = 20.0
    hidden: int = 512
    steps: int = 1000
    batch_size: int = 64
    learning_rate: float = 1e-3
    seed: int = 24
    num_pairs: int = 0

    tunable: ClassVar[Mapping[str, Range]] = {
        "weight": Range(low=1.0, high=300.0),
        "learning_rate": Range(low=3e-4, high=3e-2),
    }

    per_condition = True

    def __post_init__(self) -> None:
        for name in ("hidden", "steps", "batch_size"):
            if getattr(self, name) < 1:
                raise SuiteError(f"noise-hypernetwork: {name} must be at least 1, got {getattr(self, name)}.")
        for name in ("weight", "learning_rate"):
            if getattr(self, name) <= 0:
                raise SuiteError(f"noise-hypernetwork: {name} must be positive, got {getattr(self, name)}.")
        if self.num_pairs:
            raise SuiteError("noise-hypernetwork: num_pairs must be 0; it draws from the prior as it trains.")

    def network(self, ground: Ground) -> Residual:
        return Residual(ground.generator.latent.dim, ground.embedded().shape[1], self.hidden, self.seed).to(
            ground.device
        )

    def train(self, ground: Ground, pairs: Pairs, progress: Progress | None = None) -> TrainedHypernetwork:
        network, latent = self.network(ground).train(), ground.generator.latent
        embedded, size = ground.embedded(), self.batch_size
        optimizer = torch.optim.Adam(network.parameters(), lr=self.learning_rate)
        for t in range(self.steps):
            index = (torch.arange(size) + t * size) % len(embedded)
            streams = ground.streams(size, "hypernetwork", self.seed, t)
            conditions = [ground.conditions[k] for k in index.tolist()]
            problem = ground.problem(streams, embedded[index.to(embedded.device)], conditions)
            z = latent.prior(streams)
            with torch.enable_grad():
                moved = network(z, problem.condition_ND)
                energy = problem.energy(latent.project(z + moved), t)
                loss = (self.weight * energy + moved.square().sum(1) / 2).mean()
                for group in optimizer.param_groups:
                    group["lr"] = self.learning_rate * (1 - t / self.steps)
                optimizer.zero_grad(set_to_none=True)
                loss.backward()
            ground.evaluations["generator_backwards"] += size
            ground.evaluations["auxiliary_backwards"] += size * ground.conditioner.views
            optimizer.step()
            if progress is not None and ((t + 1) % 20 == 0 or t + 1 == self.steps):
                progress(t + 1, self.steps)
        return TrainedHypernetwork(network, ground.device)

    def read(self, content: bytes, ground: Ground) -> TrainedHypernetwork:
        network = self.network(ground)
        meta = load_state(network, content)
        trained = TrainedHypernetwork(network, ground.device)
        trained.took(meta)
        return trained


class Residual(nn.Module):
    """f(z, c), zero at the start. c enters with its norm divided out."""

    def __init__(self, dim: int, condition_dim: int, hidden: int, seed: int):
        super().__init__()
        self.first, self.second, self.last = (
            nn.Linear(dim + condition_dim, hidden), nn.Linear(hidden, hidden), nn.Linear(hidden, dim)
        )  # fmt: skip
        generator = seeded("hypernetwork", seed)
        for layer in (self.first, self.second):
            nn.init.kaiming_uniform_(layer.weight, a=5**0.5, generator=generator)
            nn.init.zeros_(layer.bias)
        nn.init.zeros_(self.last.weight)
        nn.init.zeros_(self.last.bias)

    def forward(self, z_ND: Tensor, condition_ND: Tensor) -> Tensor:
        h = F.silu(self.first(torch.cat([z_ND, F.normalize(condition_ND, dim=1)], dim=1)))
        return self.last(h + F.silu(self.second(h)))


class TrainedHypernetwork(Trained):
    """Feed-forward: the prior's draw, moved."""

    def latents(self, problem: Problem) -> Tensor:
        """(N, D)."""
        latent = problem.generator.latent
        z = latent.prior(problem.streams)
        return latent.project(z + self.network(z, problem.condition_ND))
