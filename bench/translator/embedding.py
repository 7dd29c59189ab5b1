"""A class embedding per condition with G frozen (BigGAN-AM; Li et al. 2020, arXiv:1910.04760).

Shapes: K conditions, B latents each, a auxiliary coordinates.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from bench.errors import SuiteError
from bench.generators.base import LatentSpace
from bench.ranges import Range
from bench.samplers.base import Problem
from bench.samplers.langevin import adam
from bench.translator.base import ConditionRows, Ground, Progress, Trained, load_state
from bench.translator.pairs import Pairs


@dataclass(frozen=True, kw_only=True)
class ClassEmbedding:
    """min_e mean_i E(G(z_i, clamp(e)), c) - diversity · spread, for one embedding e per condition.

    ``batch_size`` latents z_i are drawn anew every ``steps_per_draw`` steps. e starts at the mean embedding
    of the prior plus N(0, initial_noise²) and is clamped to the range that the prior's embeddings have per
    coordinate (the source gives ranges for its own generators). The spread is the mean over pairs of halves
    of |x_i - x_j| / |z_i - z_j|, on pixels. Adam with L2 ``weight_decay``; published: 200 steps, 20 a draw,
    10 latents, rate 0.1, decay 0.9, diversity 0 or 0.1. For target classes, and for classes that a GAN
    collapsed. Needs a generator with an auxiliary block. Source: qilimk/biggan-am.
    """

    steps: int = 200
    steps_per_draw: int = 20
    batch_size: int = 10
    learning_rate: float = 0.1
    weight_decay: float = 0.9
    diversity: float = 0.0
    initial_noise: float = 0.1
    clamp: bool = True
    at_once: int = 16
    seed: int = 0
    num_pairs: int = 0

    tunable: ClassVar[Mapping[str, Range]] = {
        "learning_rate": Range(low=1e-2, high=3.0),
    }

    per_condition = True

    def __post_init__(self) -> None:
        for name in ("steps", "steps_per_draw", "at_once"):
            if getattr(self, name) < 1:
                raise SuiteError(f"class-embedding: {name} must be at least 1, got {getattr(self, name)}.")
        if self.batch_size < (2 if self.diversity else 1):
            raise SuiteError(f"class-embedding: batch_size {self.batch_size} is too small for pairs.")
        if self.learning_rate <= 0:
            raise SuiteError(f"class-embedding: learning_rate must be positive, got {self.learning_rate}.")
        for name in ("weight_decay", "diversity", "initial_noise"):
            if getattr(self, name) < 0:
                raise SuiteError(f"class-embedding: {name} must not be negative, got {getattr(self, name)}.")
        if self.num_pairs:
            raise SuiteError("class-embedding: num_pairs must be 0; it draws from the prior as it trains.")

    def train(self, ground: Ground, pairs: Pairs, progress: Progress | None = None) -> TrainedEmbedding:
        columns = auxiliary_columns(ground.generator.latent).to(ground.device)
        num, done = len(ground.conditions), 0
        table = torch.zeros(num, len(columns), device=ground.device)
        prior = ground.generator.latent.prior(ground.streams(1000, "class-embedding", self.seed))[:, columns]
        for start in range(0, num, self.at_once):
            group = range(start, min(start + self.at_once, num))
            for t, found in enumerate(self._optimise(ground, group, columns, prior)):
                table[group.start : group.stop] = found
                if progress is not None and (t + 1) % self.steps_per_draw == 0:
                    progress(done + len(group) * (t + 1), num * self.steps)
            done += len(group) * self.steps
        return TrainedEmbedding(EmbeddingTable(table, ground.embedded()), ground)

    def _optimise(self, ground: Ground, group: range, columns: Tensor, prior: Tensor):
        """Yields the group's embeddings (K, a) after each step."""
        latent, num, size = ground.generator.latent, len(group), self.batch_size
        names = [ground.conditions[k].id for k in group]
        own = torch.cat([ground.streams(1, "class-embedding", self.seed, name).keys for name in names])
        streams = type(ground.streams(1, ""))(own)
        low, high = prior.min(0).values, prior.max(0).values
        start = streams.normal("class-embedding:start", (len(columns),))
        e = prior.mean(0) + self.initial_noise * start
        first: tuple[Tensor, ...] = ()
        second: tuple[Tensor, ...] = ()
        rows = streams.repeat_interleave(size)
        conditions = [ground.conditions[k] for k in group for _ in range(size)]
        condition = ground.embedded()[group.start : group.stop].repeat_interleave(size, dim=0)
        problem = ground.problem(rows, condition, conditions)
        for t in range(self.steps):
            z = latent.prior(rows.split(1 + t // self.steps_per_draw))
            with torch.enable_grad():
                tracked = e.detach().requires_grad_()
                used = torch.clamp(tracked, low, high) if self.clamp else tracked
                full = z.index_copy(1, columns, used.repeat_interleave(size, dim=0))
                images = problem.decode(full)
                loss = problem.image_energy(images, t).view(num, size).mean(1)
                if self.diversity:
                    loss = loss - self.diversity * spread(images.view(num, size, -1), z.view(num, size, -1))
                (gradient,) = problem.gradients(loss, [tracked])
            gradient = gradient + self.weight_decay * e
            (e,), first, second = adam([e], [gradient], first, second, t, self.learning_rate)
            yield torch.maximum(torch.minimum(e, high), low) if self.clamp else e

    def read(self, content: bytes, ground: Ground) -> TrainedEmbedding:
        num = len(auxiliary_columns(ground.generator.latent))
        embedded = ground.embedded()
        table = EmbeddingTable(torch.zeros(len(embedded), num, device=ground.device), embedded)
        meta = load_state(table, content)
        trained = TrainedEmbedding(table, ground)
        trained.took(meta)
        return trained


def auxiliary_columns(latent: LatentSpace) -> Tensor:
    """The columns of the class embedding. Raises SuiteError for a generator without one."""
    columns = latent.columns("auxiliary")
    if not len(columns):
        raise SuiteError(
            "class-embedding: the generator has no class embedding (an auxiliary block). Use one that has, "
            "such as kind gan with model shapes-biggan."
        )
    return columns


def spread(images_KBP: Tensor, z_KBD: Tensor) -> Tensor:
    """(K,) mean over pairs (i, i + B/2) of |x_i - x_j| / |z_i - z_j|."""
    half = images_KBP.shape[1] // 2
    apart = torch.linalg.vector_norm(images_KBP[:, :half] - images_KBP[:, half : 2 * half], dim=2)
    latent = torch.linalg.vector_norm(z_KBD[:, :half] - z_KBD[:, half : 2 * half], dim=2)
    return (apart / (latent + 1e-6)).mean(1)


class EmbeddingTable(nn.Module):
    """``table`` (K, a) with the ``conditions`` (K, D) that its rows are for."""

    table: Tensor
    conditions: Tensor

    def __init__(self, table: Tensor, conditions: Tensor):
        super().__init__()
        self.register_buffer("table", table)
        self.register_buffer("conditions", conditions)


class TrainedEmbedding(Trained):
    """Feed-forward: the prior's draw with its class embedding replaced by that of the condition."""

    network: EmbeddingTable

    def __init__(self, network: EmbeddingTable, ground: Ground):
        super().__init__(network, ground.device)
        self.rows = ConditionRows(self.network.conditions)

    def latents(self, problem: Problem) -> Tensor:
        """(N, D)."""
        latent = problem.generator.latent
        z = latent.prior(problem.streams)
        columns = auxiliary_columns(latent).to(z.device)
        return latent.project(z.index_copy(1, columns, self.network.table[self.rows(problem.condition_ND)]))
