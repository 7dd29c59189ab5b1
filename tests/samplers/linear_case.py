"""The linear-Gaussian case that samplers are checked on: problem, Hessian and minimiser of the energy."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from bench.conditioners.quadratic import Quadratic
from bench.generators.base import Block, LatentSpace
from bench.generators.linear import Linear
from bench.samplers.base import Problem
from bench.streams import Streams
from bench.types import Condition

CPU = torch.device("cpu")
DIM, SCALE = 4, 0.7


@dataclass
class LinearCase:
    """G(z) = A z and E = |G(z) - c|² / (2 scale²), for ``num`` samples of one target.

    In z the energy is (z - minimiser)ᵀ hessian (z - minimiser) / 2 + constant, float64.
    """

    num: int
    target: str = "3"
    seed: str = "linear-case"

    def __post_init__(self) -> None:
        self.generator = Linear(dim=DIM).load(CPU)
        self.conditioner = Quadratic(scale=SCALE).load(CPU)
        self.conditions = [Condition(id="t", kind="class", labels={"target": self.target})] * self.num
        matrix = self.generator.matrix.double().numpy()
        goal = self.conditioner.embed(self.conditions[:1])[0].double().numpy()
        self.hessian = matrix.T @ matrix / SCALE**2
        self.minimiser = np.linalg.solve(self.hessian, matrix.T @ goal / SCALE**2)

    def problem(self, translator: object = None) -> Problem:
        condition = self.conditioner.embed(self.conditions)
        streams = Streams.from_seed(self.num, self.seed)
        return Problem(self.generator, self.conditioner, condition, streams, translator)

    def posterior(self, prior_weight: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
        """Mean and covariance of exp(-E - prior_weight |z|²/2)."""
        precision = self.hessian + prior_weight * np.eye(DIM)
        covariance = np.linalg.inv(precision)
        return covariance @ self.hessian @ self.minimiser, covariance

    def energies(self, z_ND: Tensor) -> Tensor:
        problem = self.problem()
        return self.conditioner.energy(self.generator.decode(z_ND), problem.condition_ND, problem.streams, 0)


class TwoBlocks:
    """x = A [z, y] of a 4 x 4 image, z main (bounded by 2) and y auxiliary, as BigGAN has them."""

    resolution = 4

    def __init__(self, main: int = 3, auxiliary: int = 2):
        total = main + auxiliary
        self.matrix = torch.from_numpy(np.random.default_rng(0).normal(size=(48, total)) / 4).float()
        self.latent = LatentSpace(
            blocks=(Block(name="z", dim=main, bound=2.0), Block(name="y", dim=auxiliary, role="auxiliary")),
            sample=lambda streams: streams.normal("p", (total,)),
        )

    def decode(self, z_ND: Tensor) -> Tensor:
        return (z_ND @ self.matrix.T).view(len(z_ND), 3, 4, 4)
