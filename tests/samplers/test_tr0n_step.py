"""One TR0N step against the formulas written out in NumPy float64, and per-sample independence."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
import torch

from bench.conditioners.quadratic import Quadratic
from bench.generators.base import Block, LatentSpace
from bench.samplers.base import Problem
from bench.samplers.draw import draw, draw_tiled
from bench.samplers.tr0n import Tr0n
from bench.streams import Streams
from bench.translator.network import Mixture
from bench.types import Condition

CPU = torch.device("cpu")
SIZE, DIM, AUXILIARY, BASES = 48, 3, 2, 3  # a 4 x 4 image, z and y, three mixture components
MATRIX = torch.from_numpy(np.random.default_rng(0).normal(size=(SIZE, DIM + AUXILIARY)) / 4).float()
SCALE = 0.7


class TwoBlocks:
    """x = A [z, y], with z main (bounded by 2) and y auxiliary, as BigGAN has them."""

    resolution = 4
    latent = LatentSpace(
        blocks=(Block(name="z", dim=DIM, bound=2.0), Block(name="y", dim=AUXILIARY, role="auxiliary")),
        sample=lambda streams: streams.normal("p", (DIM + AUXILIARY,)),
    )

    def decode(self, z_ND: torch.Tensor) -> torch.Tensor:
        return (z_ND @ MATRIX.T).view(len(z_ND), 3, 4, 4)


@dataclass
class FixedTranslator:
    """Stands where a trained translator would: rows of one mixture, picked by the condition's first value."""

    mixture: Mixture
    conditions: torch.Tensor

    def __call__(self, condition_ND: torch.Tensor) -> Mixture:
        rows = (condition_ND[:, None] - self.conditions[None]).abs().sum(2).argmin(1)
        m = self.mixture
        assert m.auxiliary is not None
        return Mixture(m.means[rows], m.logits[rows], m.std, m.auxiliary[rows])


def problem_of(rows: list[int]) -> Problem:
    conditioner = Quadratic(scale=SCALE).load(CPU)
    conditions = conditioner.embed(
        [Condition(id=str(k), kind="class", labels={"target": str(k)}) for k in range(4)]
    )
    g = torch.Generator().manual_seed(3)
    mixture = Mixture(
        means=torch.randn(4, BASES, DIM, generator=g).clamp(-2, 2),
        logits=torch.randn(4, BASES, generator=g),
        std=torch.full((DIM,), 0.1),
        auxiliary=torch.randn(4, AUXILIARY, generator=g),
    )
    streams = Streams(torch.tensor(rows) + 100)
    return Problem(TwoBlocks(), conditioner, conditions[rows], streams, FixedTranslator(mixture, conditions))


def softmax(x: np.ndarray) -> np.ndarray:
    e = np.exp(x - x.max(0))
    return e / e.sum(0)


def reference(row: int, steps: int, sampler: Tr0n) -> np.ndarray:
    """The latent after ``steps`` steps of TR0N's update for one sample, in float64.

    z = sum_m softmax(logits)_m * base_m per coordinate. Bases move by clipped heavy-ball steps with noise,
    logits and y by Adam on gradients clipped jointly to the same norm.
    """
    problem = problem_of([row])
    mixture = problem.translator(problem.condition_ND)
    bases = mixture.means[0].double().numpy()
    logits = np.repeat(mixture.logits[0].double().numpy()[:, None], DIM, 1)
    y = mixture.auxiliary[0].double().numpy()
    target, matrix = problem.condition_ND[0].double().numpy(), MATRIX.double().numpy()
    buffer = np.zeros_like(bases)
    first, second = np.zeros(AUXILIARY + BASES * DIM), np.zeros(AUXILIARY + BASES * DIM)
    for t in range(steps):
        weights = softmax(logits)
        z = np.concatenate([(weights * bases).sum(0), y])
        gradient_z = matrix.T @ (matrix @ z - target) / SCALE**2
        main, auxiliary = gradient_z[:DIM], gradient_z[DIM:]
        gradient_bases = weights * main
        gradient_logits = weights * (bases - z[:DIM]) * main
        gradient_bases *= min(1.0, sampler.clip_norm / (np.linalg.norm(gradient_bases) + 1e-6))
        slow = np.concatenate([auxiliary, gradient_logits.ravel()])
        slow *= min(1.0, sampler.clip_norm / (np.linalg.norm(slow) + 1e-6))
        buffer = sampler.momentum * buffer + gradient_bases
        noise = problem.streams.normal("langevin", (BASES, DIM), t)[0].double().numpy()
        bases = np.clip(bases - sampler.step_size * buffer + sampler.noise_std * noise, -2, 2)
        first, second = 0.9 * first + 0.1 * slow, 0.999 * second + 0.001 * slow**2
        step = (first / (1 - 0.9 ** (t + 1))) / (np.sqrt(second / (1 - 0.999 ** (t + 1))) + 1e-8)
        y = y - sampler.auxiliary_lr * step[:AUXILIARY]
        logits = logits - sampler.auxiliary_lr * step[AUXILIARY:].reshape(BASES, DIM)
    return np.concatenate([(softmax(logits) * bases).sum(0), y])


@pytest.mark.parametrize("steps", [1, 2, 25])
@pytest.mark.parametrize("clip_norm", [0.3, 1e9])
def test_the_update_is_the_published_one(steps, clip_norm):
    sampler = Tr0n(
        steps=steps, step_size=0.05, momentum=0.9, noise_std=0.02, auxiliary_lr=0.01, clip_norm=clip_norm
    )
    latents = draw(sampler, problem_of([0, 1, 2, 3])).latents.double().numpy()
    for row in range(4):
        assert np.abs(latents[row] - reference(row, steps, sampler)).max() < 2e-5


def test_a_sample_does_not_see_its_neighbours():
    sampler = Tr0n(steps=10, step_size=0.05, momentum=0.9)
    for tile in (2, 3):

        def latents(rows: list[int], tile: int = tile) -> torch.Tensor:
            return draw_tiled(sampler, problem_of(rows), tile=tile, index=rows).latents

        together = latents([0, 1, 2, 3])
        assert torch.equal(together, latents([3, 2, 1, 0]).flip(0))
        assert torch.equal(together, torch.cat([latents([k]) for k in range(4)]))


def test_evaluations_are_counted_per_sample_without_padding():
    problem = problem_of([0, 1, 2])
    draw_tiled(Tr0n(steps=5, step_size=0.05), problem, tile=2)
    assert problem.evaluations["generator_backwards"] == 3 * 5
    assert problem.evaluations["generator_forwards"] == 3 * (5 + 1)


def test_an_infinite_energy_marks_its_sample_alone():
    problem = problem_of([0, 1])
    clean = draw(Tr0n(steps=3), problem)
    problem.condition_ND[1] = float("inf")
    drawn = draw(Tr0n(steps=3), problem, snapshots=(0, 3))
    assert drawn.failed_step.tolist() == [-1, 0]
    assert torch.equal(drawn.latents[0], clean.latents[0])
    assert not drawn.latents[1].any()
    assert not drawn.snapshots[3][1].any()
