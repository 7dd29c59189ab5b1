"""PromptGen (Generative Visual Prompt, arXiv:2209.06970): an invertible network per control, then no search.

Shapes: K conditions, B draws each, D latent coordinates.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from bench.errors import SuiteError
from bench.generators.base import LatentSpace
from bench.ranges import Range
from bench.samplers.base import Problem
from bench.streams import Streams
from bench.translator.base import ConditionRows, Ground, Progress, Trained, load_state
from bench.translator.invertible import InvertibleEnsemble
from bench.translator.pairs import Pairs


@dataclass(frozen=True, kw_only=True)
class PromptGen:
    """z = h(e), e ~ N(0, I), by reverse KL to p(z) exp(-weight · E(G(z), c)), a network per condition.

    Loss: mean of weight · E + |z|²/2 - log|det dz/de|; an auxiliary block (a class embedding) has a network
    of its own with base and prior N(0, s² I), s its root mean square under the prior. ``control: even`` is
    the de-biasing use: one network for all, energy -weight · Σ_j β_j φ_j(x) with φ the classifier's
    probabilities and β fitted so that prior draws weighted by exp(β·φ) have even classes (``moment_draws``
    of them). AdamW, ``steps`` updates of ``batch_size`` draws; networks are trained ``at_once`` side by
    side. Published settings: weight 100 for a classifier, 5000 and 600 for CLIP. Source:
    ChenWu98/Generative-Visual-Prompt.
    """

    control: Literal["condition", "even"] = "condition"
    weight: float = 100.0
    blocks: int = 8
    hidden: int = 256
    steps: int = 1280
    batch_size: int = 8
    learning_rate: float = 1e-3
    moment_draws: int = 1024
    at_once: int = 16
    seed: int = 42
    num_pairs: int = 0

    tunable: ClassVar[Mapping[str, Range]] = {
        "weight": Range(low=1.0, high=300.0),
        "learning_rate": Range(low=3e-4, high=3e-2),
    }

    def __post_init__(self) -> None:
        for name in ("blocks", "hidden", "steps", "batch_size", "moment_draws", "at_once"):
            if getattr(self, name) < 1:
                raise SuiteError(f"promptgen: {name} must be at least 1, got {getattr(self, name)}.")
        for name in ("weight", "learning_rate"):
            if getattr(self, name) <= 0:
                raise SuiteError(f"promptgen: {name} must be positive, got {getattr(self, name)}.")
        if self.num_pairs:
            raise SuiteError("promptgen: num_pairs must be 0; it draws from the prior as it trains.")

    @property
    def per_condition(self) -> bool:
        return self.control == "condition"

    @property
    def kinds(self) -> tuple[str, ...]:
        return ("class",) if self.control == "even" else ("class", "text")

    def train(self, ground: Ground, pairs: Pairs, progress: Progress | None = None) -> TrainedPromptGen:
        """Groups of networks one after the other; no network depends on which others are trained."""
        num = len(ground.conditions) if self.per_condition else 1
        networks = Networks(num, ground, self)
        networks.scale.copy_(auxiliary_scale(ground, self))
        if self.per_condition:
            networks.conditions.copy_(ground.embedded())
        moments = None if self.per_condition else even_moments(ground, self)
        for start in range(0, num, self.at_once):
            group = range(start, min(start + self.at_once, num))
            part = networks.part(group, ground, self)

            def told(t: int, start: int = start, size: int = len(group)) -> None:
                if progress is not None:
                    progress(start * self.steps + size * t, num * self.steps)

            train_group(part, group, ground, self, moments, told)
            networks.put(group, part)
        return TrainedPromptGen(networks, ground, self)

    def read(self, content: bytes, ground: Ground) -> TrainedPromptGen:
        num = len(ground.conditions) if self.per_condition else 1
        networks = Networks(num, ground, self)
        meta = load_state(networks, content)
        trained = TrainedPromptGen(networks, ground, self)
        trained.took(meta)
        return trained


class Networks(nn.Module):
    """``main`` and ``auxiliary`` ensembles of K, the latter's ``scale``, and their ``conditions``."""

    scale: Tensor
    conditions: Tensor

    def __init__(self, num: int, ground: Ground, config: PromptGen):
        super().__init__()
        latent = ground.generator.latent
        self.dims = [len(latent.columns(role)) for role in ("main", "auxiliary")]
        self.main, self.auxiliary = (
            InvertibleEnsemble(num, dim, blocks=config.blocks, hidden=config.hidden, seed=config.seed)
            if dim
            else None
            for dim in self.dims
        )
        width = ground.embedded().shape[1] if config.per_condition else 1
        self.register_buffer("scale", torch.ones((), device=ground.device))
        self.register_buffer("conditions", torch.zeros(num, width))
        self.to(ground.device)

    def push(self, streams: Streams, rows: Tensor | None, num: int, step: int) -> tuple[Tensor, Tensor]:
        """Latents (num, B, D main first) from num · B streams, and z's negative log-density but a constant:
        |z|²/2 (each part in its own scale) minus the log-determinant, (num, B)."""
        parts, loss = [], torch.zeros(num, len(streams) // num, device=streams.device)
        for role, ensemble, dim in zip(("main", "auxiliary"), (self.main, self.auxiliary), self.dims):
            if ensemble is None:
                continue
            base = streams.normal(f"promptgen:{role}", (dim,), step).view(num, -1, dim)
            z, log_determinant = ensemble(base, rows)
            loss = loss + z.square().sum(2) / 2 - log_determinant
            parts.append(z if role == "main" else z * self.scale)
        return torch.cat(parts, dim=2), loss

    def part(self, group: range, ground: Ground, config: PromptGen) -> Networks:
        """As many untrained networks as the group has conditions, with this one's scale."""
        part = Networks(len(group), ground, config)
        part.scale.copy_(self.scale)
        return part.train()

    def put(self, group: range, part: Networks) -> None:
        """Takes over a trained part's parameters."""
        own = dict(self.named_parameters())
        with torch.no_grad():
            for name, value in part.named_parameters():
                own[name][group.start : group.stop] = value


class TrainedPromptGen(Trained):
    """Feed-forward: one pass of the network of a sample's condition."""

    network: Networks

    def __init__(self, networks: Networks, ground: Ground, config: PromptGen):
        super().__init__(networks, ground.device)
        self.rows = ConditionRows(networks.conditions) if config.per_condition else None

    def latents(self, problem: Problem) -> Tensor:
        """(N, D) inside the generator's bounds, from the samples' own streams."""
        num, latent = len(problem), problem.generator.latent
        rows = torch.zeros(num, dtype=torch.int64, device=problem.streams.device)
        if self.rows is not None:
            rows = self.rows(problem.condition_ND)
        z, _ = self.network.push(problem.streams, rows, num, 0)
        return latent.project(in_order(latent, z[:, 0]))


def in_order(latent: LatentSpace, z: Tensor) -> Tensor:
    """Main coordinates first → the order of the latent's blocks, along the last dimension."""
    return z[..., latent.order.to(z.device)]


def auxiliary_scale(ground: Ground, config: PromptGen) -> Tensor:
    """Root mean square of the auxiliary coordinates under the prior (256 draws); 1 where there are none."""
    latent = ground.generator.latent
    columns = latent.columns("auxiliary")
    if not len(columns):
        return torch.ones(())
    draws = latent.prior(ground.streams(256, "promptgen-scale", config.seed))
    return draws[:, columns.to(draws.device)].square().mean().sqrt()


def train_group(part: Networks, group: range, ground: Ground, config: PromptGen, moments, told) -> None:
    """Trains the networks of some conditions side by side; the losses add up, so none sees another."""
    latent, num, size = ground.generator.latent, len(group), config.batch_size
    names = [ground.conditions[k].id if config.per_condition else "even" for k in group]
    keys = torch.cat([ground.streams(size, "promptgen", config.seed, name).keys for name in names])
    streams = Streams(keys)
    conditions = [ground.conditions[k] for k in group for _ in range(size)] if config.per_condition else None
    embedded = torch.zeros(num * size, 1, device=ground.device)
    if config.per_condition:
        embedded = ground.embedded()[group.start : group.stop].repeat_interleave(size, dim=0)
    problem = ground.problem(streams, embedded, conditions)
    optimizer = torch.optim.AdamW(part.parameters(), lr=config.learning_rate)
    for t in range(config.steps):
        z, loss = part.push(streams, None, num, t)
        images = problem.decode(latent.project(in_order(latent, z).flatten(0, 1)))
        if moments is None:
            energy = problem.image_energy(images, t)
        else:
            ground.evaluations["auxiliary_forwards"] += len(images)
            energy = -(ground.conditioner.encode(images, streams) * moments).sum(1)
        # Mean over a network's draws, sum over networks.
        total = (loss + config.weight * energy.view(num, size)).mean(1).sum()
        optimizer.zero_grad(set_to_none=True)
        total.backward()
        ground.evaluations["generator_backwards"] += len(images)
        ground.evaluations["auxiliary_backwards"] += len(images) * ground.conditioner.views
        optimizer.step()
        if (t + 1) % 20 == 0 or t + 1 == config.steps:
            told(t + 1)


def even_moments(ground: Ground, config: PromptGen, updates: int = 500) -> Tensor:
    """(D,) β such that prior draws weighted by exp(β·φ) have even classes within every head.

    Minimises the squared distance of the weighted mean of φ from even shares by Adam (learning rate 0.05).
    """
    latent, chunk = ground.generator.latent, 128
    streams = ground.streams(config.moment_draws, "promptgen-moments", config.seed)
    rows = []
    with torch.no_grad():
        for start in range(0, config.moment_draws, chunk):
            part = streams[start : start + chunk]
            problem = ground.problem(part, torch.zeros(len(part), 1, device=ground.device))
            images = problem.decode(latent.prior(part))
            ground.evaluations["auxiliary_forwards"] += len(part)
            rows.append(ground.conditioner.encode(images, part))
    phi = torch.cat(rows).double()
    sizes = getattr(ground.conditioner, "sizes", (phi.shape[1],))
    even = torch.cat([torch.full((size,), 1 / size) for size in sizes]).to(phi)
    beta = torch.zeros_like(even, requires_grad=True)
    optimizer = torch.optim.Adam([beta], lr=5e-2)
    with torch.enable_grad():
        for _ in range(updates):
            mean = (phi @ beta).softmax(0) @ phi
            loss = (mean - even).square().sum()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return beta.detach().float()
