"""Langevin on a linear-Gaussian generator with a quadratic energy, where every law has a closed form."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.linalg import solve_discrete_lyapunov

from bench.conditioners.quadratic import Quadratic
from bench.generators.linear import Linear
from bench.samplers.base import Problem
from bench.samplers.draw import draw
from bench.samplers.langevin import Langevin
from bench.streams import Streams
from bench.types import Condition

CPU = torch.device("cpu")
NUM = 20_000


def chain(sampler: Langevin, num: int = NUM) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Final latents (num, 4), the Hessian of the energy in z and its minimiser, both float64."""
    generator, conditioner = Linear(dim=4).load(CPU), Quadratic(scale=0.7).load(CPU)
    conditions = [Condition(id="t", kind="class", labels={"target": "3"})] * num
    problem = Problem(
        generator, conditioner, conditioner.embed(conditions), Streams.from_seed(num, "known-answer")
    )
    latents = draw(sampler, problem).latents.double().numpy()
    matrix = generator.matrix.double().numpy()
    target = conditioner.embed(conditions[:1])[0].double().numpy()
    hessian = matrix.T @ matrix / 0.7**2 + sampler.prior_weight * np.eye(4)
    minimiser = np.linalg.solve(hessian, matrix.T @ target / 0.7**2)
    return latents, hessian, minimiser


def heavy_ball_covariance(hessian: np.ndarray, step: float, momentum: float, noise: float) -> np.ndarray:
    """Stationary covariance of z when b' = m b + H z, z' = z - s b' + noise (Lyapunov)."""
    dim = len(hessian)
    identity, zero = np.eye(dim), np.zeros((dim, dim))
    transition = np.block(
        [[identity - step * hessian, -step * momentum * identity], [hessian, momentum * identity]]
    )
    innovation = np.block([[noise**2 * identity, zero], [zero, zero]])
    return solve_discrete_lyapunov(transition, innovation)[:dim, :dim]


@pytest.mark.parametrize(("momentum", "step"), [(0.0, 0.05), (0.6, 0.05), (0.9, 0.01)])
def test_the_chain_reaches_its_stationary_mean_and_covariance(momentum, step):
    sampler = Langevin(steps=300, step_size=step, noise_std=0.3, momentum=momentum, clip_norm=None)
    latents, hessian, minimiser = chain(sampler)
    expected = heavy_ball_covariance(hessian, step, momentum, 0.3)
    error = np.abs(latents.mean(0) - minimiser)
    assert (error < 5 * np.sqrt(np.diag(expected) / NUM)).all()
    # A sample covariance of n draws deviates by about sqrt(2 / n) relative, 1 % here.
    assert np.abs(np.cov(latents.T) - expected).max() < 0.06 * np.diag(expected).max()


def test_with_the_prior_it_samples_the_posterior():
    """Unadjusted Langevin at a small step: N(minimiser, inverse Hessian) up to a bias of order the step."""
    step = 0.01
    sampler = Langevin(
        steps=600,
        step_size=step,
        noise_std=float(np.sqrt(2 * step)),
        momentum=0.0,
        clip_norm=None,
        prior_weight=1.0,
    )
    latents, hessian, minimiser = chain(sampler, 8000)
    covariance = np.linalg.inv(hessian)
    assert np.abs(latents.mean(0) - minimiser).max() < 5 * np.sqrt(covariance.max() / 8000)
    assert np.abs(np.cov(latents.T) - covariance).max() < 0.1 * covariance.max()


def test_a_huge_gradient_is_clipped_for_its_own_sample_only():
    generator, conditioner = Linear(dim=4).load(CPU), Quadratic().load(CPU)
    conditions = [Condition(id="t", kind="class", labels={"target": str(k)}) for k in range(3)]
    far = conditioner.embed(conditions)
    far[1] *= 1e4
    sampler = Langevin(steps=1, step_size=0.1, noise_std=0.0, momentum=0.0, clip_norm=0.5)

    def moved(rows: list[int]) -> torch.Tensor:
        streams = Streams(torch.tensor(rows) + 7)
        problem = Problem(generator, conditioner, far[rows], streams)
        return draw(sampler, problem).latents - generator.latent.prior(streams)

    together = moved([0, 1, 2])
    assert float(together[1].norm()) == pytest.approx(0.1 * 0.5, rel=1e-4)
    for row in range(3):
        assert torch.allclose(together[row], moved([row])[0], atol=1e-6)


def test_candidates_start_from_the_lowest_energy():
    generator, conditioner = Linear(dim=4).load(CPU), Quadratic().load(CPU)
    conditions = [Condition(id="t", kind="class", labels={"target": "1"})] * 50
    streams = Streams.from_seed(50, "candidates")
    problem = Problem(generator, conditioner, conditioner.embed(conditions), streams)
    start = Langevin(steps=1, candidates=4).init(problem).bases[:, 0]
    assert problem.evaluations["generator_forwards"] == 200
    draws = torch.stack([generator.latent.prior(streams.split(k)) for k in range(4)])
    energies = torch.stack(
        [conditioner.energy(generator.decode(z), problem.condition_ND, streams, 0) for z in draws]
    )
    assert torch.equal(start, draws[energies.argmin(0), torch.arange(50)])
