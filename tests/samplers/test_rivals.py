"""Rivals that need no set-up: each against the answer that the linear-Gaussian case has in closed form."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from samplers.linear_case import CPU, DIM, SCALE, LinearCase, TwoBlocks
from scipy.optimize import minimize

from bench.conditioners.classifier import Classifier
from bench.conditioners.clip import Clip
from bench.conditioners.quadratic import Quadratic
from bench.errors import SamplingError, SuiteError
from bench.generators.gan import Gan
from bench.generators.vae import Vae
from bench.samplers.ascent import Ascent
from bench.samplers.base import Problem, Sampler
from bench.samplers.best_of import BestOf, Rejection
from bench.samplers.draw import draw, draw_tiled
from bench.samplers.fusedream import FuseDream
from bench.samplers.noise import NoiseOptimisation, norm_energy
from bench.samplers.ppgn import Ppgn
from bench.samplers.prior import Prior
from bench.streams import Streams
from bench.types import Condition


def final(sampler: Sampler, case: LinearCase, translator: object = None) -> np.ndarray:
    return draw(sampler, case.problem(translator)).latents.double().numpy()


# --- the optimum


def test_ascent_reaches_the_lowest_energy():
    case = LinearCase(20)
    found = final(Ascent(steps=300, learning_rate=0.1), case)
    assert np.abs(found - case.minimiser).max() < 1e-3


def test_ascent_leaves_auxiliary_blocks_where_asked_and_keeps_to_the_bounds():
    generator, conditioner = TwoBlocks(), Quadratic().load(CPU)
    target = 50 * torch.ones(3, 48)
    problem = Problem(generator, conditioner, target, Streams.from_seed(3, "bounds"))
    drawn = generator.latent.prior(problem.streams)
    moved = draw(Ascent(steps=400, learning_rate=0.1, optimise="main"), problem).latents
    assert torch.equal(moved[:, 3:], drawn[:, 3:])
    assert moved[:, :3].abs().max() == 2.0
    assert (draw(Ascent(steps=5, learning_rate=0.1), problem).latents[:, 3:] != drawn[:, 3:]).all()


def test_ascent_keeps_the_best_of_its_restarts():
    case = LinearCase(30)
    few = Ascent(steps=2, learning_rate=1e-4, restarts=6)
    problem = case.problem()
    found = draw(few, problem).latents
    starts = torch.stack([case.generator.latent.prior(problem.streams.split(k)) for k in range(6)], 1)
    lowest = torch.stack([case.energies(z) for z in starts.unbind(1)], 1).argmin(1)
    assert torch.allclose(found, starts[torch.arange(30), lowest], atol=1e-3)
    assert problem.evaluations["generator_forwards"] == 30 * (6 * 2 + 1)


def test_fusedream_reaches_the_lowest_energy():
    case = LinearCase(10)
    sampler = FuseDream(candidates=10, bases=3, steps=600, learning_rate=0.03, latent_noise=0.0)
    assert np.abs(final(sampler, case) - case.minimiser).max() < 2e-2


def test_fusedream_takes_the_best_candidates_in_order():
    case = LinearCase(25)
    problem = case.problem()
    bases = FuseDream(candidates=40, bases=4).search(problem)
    draws = torch.stack([case.generator.latent.prior(problem.streams.split(k)) for k in range(40)], 1)
    energies = torch.stack([case.energies(z) for z in draws.unbind(1)], 1)
    order = energies.sort(dim=1, stable=True).indices[:, :4]
    assert torch.equal(bases, draws.gather(1, order[:, :, None].expand(-1, -1, DIM)))
    assert problem.evaluations == {"generator_forwards": 25 * 40, "auxiliary_forwards": 25 * 40}


def fusedream_reference(case: LinearCase, sampler: FuseDream, row: int) -> np.ndarray:
    """FuseDream's loop for one sample in float64: Adam on bases and weights, noise on the combined point."""
    problem = case.problem()
    bases = sampler.search(problem)[row].double().numpy()
    weights = problem.streams.normal("fusedream:logits", (sampler.bases, DIM))[row].double().numpy()
    state, first, second = np.stack([bases, weights]), 0.0, 0.0
    z = np.zeros(DIM)
    for t in range(sampler.steps):
        e = np.exp(state[1] - state[1].max(0))
        share = e / e.sum(0)
        z = (share * state[0]).sum(0)
        noise = problem.streams.normal("fusedream:noise", (DIM,), t)[row].double().numpy()
        slope = case.hessian @ (z + sampler.latent_noise * noise - case.minimiser)
        gradient = np.stack([share * slope, share * (state[0] - z) * slope])
        first, second = 0.9 * first + 0.1 * gradient, 0.999 * second + 0.001 * gradient**2
        move = first / (1 - 0.9 ** (t + 1)) / (np.sqrt(second / (1 - 0.999 ** (t + 1))) + 1e-8)
        state = state - sampler.learning_rate * move
    return z


@pytest.mark.parametrize("steps", [1, 2, 40])
def test_fusedream_is_the_published_loop(steps):
    case = LinearCase(6)
    sampler = FuseDream(candidates=8, bases=3, steps=steps, latent_noise=0.1, learning_rate=0.02)
    found = final(sampler, case)
    for row in range(6):
        assert np.abs(found[row] - fusedream_reference(case, sampler, row)).max() < 2e-5


def test_noise_optimisation_reaches_the_optimum_of_energy_and_norm():
    case = LinearCase(12)
    sampler = NoiseOptimisation(steps=400, learning_rate=0.02, momentum=0.5, clip_norm=None, norm_weight=3.0)
    state = sampler.init(case.problem())
    problem = case.problem()
    for t in range(400):
        state = sampler.step(problem, state, t)

    def objective(z: np.ndarray) -> float:
        away = z - case.minimiser
        norm = np.linalg.norm(z)
        return away @ case.hessian @ away / 2 + 3.0 * (norm**2 / 2 - (DIM - 1) * np.log(norm))

    expected = minimize(objective, case.minimiser, tol=1e-10).x
    assert np.abs(state.noise_ND.double().numpy() - expected).max() < 1e-3


def test_noise_optimisation_gives_the_best_point_it_met():
    case = LinearCase(12)
    # Steps far too long: the points wander, and the best of them is early.
    sampler = NoiseOptimisation(steps=15, learning_rate=2.0, clip_norm=1.0, norm_weight=0.0)
    problem, points = case.problem(), []
    state = sampler.init(problem)
    for t in range(15):
        points.append(state.noise_ND)
        state = sampler.step(problem, state, t)
    points.append(state.noise_ND)
    energies = torch.stack([case.energies(z) for z in points], 1)
    best = energies.argmin(1)
    assert len(set(best.tolist())) > 1
    assert torch.equal(sampler.latent(problem, state), torch.stack(points, 1)[torch.arange(12), best])


def test_the_norm_term_is_lowest_at_the_typical_radius():
    z = torch.randn(5, 50, generator=torch.Generator().manual_seed(0))
    z = z / z.norm(dim=1, keepdim=True)
    radii = torch.linspace(5, 9, 401)
    values = torch.stack([norm_energy(r * z) for r in radii], 1)
    assert radii[values.argmin(1)].tolist() == pytest.approx([7.0] * 5, abs=0.011)


# --- a law


def test_rejection_draws_from_the_posterior():
    case = LinearCase(4000)
    problem = case.problem()
    lowest = float(case.energies(torch.from_numpy(case.minimiser).float().expand(4000, -1))[0])
    sampler = Rejection(lowest_energy=lowest, most_draws=1500)
    state = sampler.init(problem)
    assert state.accepted.all()
    found = state.latent_ND.double().numpy()
    mean, covariance = case.posterior()
    assert np.abs(found.mean(0) - mean).max() < 5 * np.sqrt(covariance.max() / 4000)
    assert np.abs(np.cov(found.T) - covariance).max() < 0.1 * covariance.max()


def test_rejection_refuses_a_bound_that_is_none_and_falls_back_on_the_best():
    case = LinearCase(5)
    with pytest.raises(SamplingError, match="lies below lowest_energy"):
        Rejection(lowest_energy=1e6).init(case.problem())
    problem = case.problem()
    state = Rejection(most_draws=9, beta=1e6).init(problem)
    assert not state.accepted.any()
    best = BestOf(candidates=9).init(case.problem())
    assert torch.equal(state.latent_ND, best)


def test_ppgn_without_normalisation_samples_the_posterior():
    case, step = LinearCase(4000), 0.015
    sampler = Ppgn(
        steps=300, normalise=False, epsilon1=step, epsilon2=step, epsilon3=float(np.sqrt(2 * step)),
        prior="gaussian",
    )  # fmt: skip
    found = final(sampler, case)
    mean, covariance = case.posterior()
    assert np.abs(found.mean(0) - mean).max() < 5 * np.sqrt(covariance.max() / 4000)
    assert np.abs(np.cov(found.T) - covariance).max() < 0.1 * covariance.max()


def test_noiseless_ppgn_reaches_the_most_probable_point():
    case = LinearCase(10)
    sampler = Ppgn(steps=800, rate=0.5, last_rate=0.0, epsilon1=0.3, epsilon2=1.0, prior="gaussian")
    mode, _ = case.posterior(prior_weight=0.3)
    assert np.abs(final(sampler, case) - mode).max() < 5e-3


def test_a_step_of_ppgn_has_the_length_of_its_rate():
    case = LinearCase(7)
    problem = case.problem()
    sampler = Ppgn(steps=1, rate=0.2, prior="none", epsilon3=0.4)
    state = sampler.init(problem)
    moved = sampler.step(problem, state, 0).latent_ND - state.latent_ND
    assert moved.abs().mean(1).tolist() == pytest.approx([0.2] * 7, rel=1e-4)
    slope = (state.latent_ND.double().numpy() - case.minimiser) @ case.hessian
    noise = problem.streams.normal("ppgn", (DIM,), 0).double().numpy()
    expected = -slope + 0.4 * noise
    expected *= 0.2 / np.abs(expected).mean(1, keepdims=True)
    assert np.abs(moved.numpy() - expected).max() < 1e-4


def test_the_target_logit_gradient_drops_the_other_logits():
    conditioner = Classifier(heads=("digit",)).load(CPU)
    images = torch.rand(3, 3, 32, 32, generator=torch.Generator().manual_seed(1)) * 2 - 1
    conditions = [Condition(id=str(k), kind="class", labels={"digit": str(k)}) for k in range(3)]
    wanted = conditioner.embed(conditions)
    images.requires_grad_()
    logits = conditioner.network(images)["digit"]
    own, rows = logits.softmax(1).detach()[torch.arange(3), torch.arange(3)], torch.arange(3)
    (expected,) = torch.autograd.grad(((1 - own) * logits[rows, rows]).sum(), images)
    (found,) = torch.autograd.grad(-conditioner.target_logit_energy(images, wanted).sum(), images)
    assert torch.allclose(found, expected, atol=1e-6)


# --- searches


def test_best_of_takes_the_lowest_energy_and_counts_its_draws():
    case = LinearCase(400)
    problem = case.problem()
    found = draw(BestOf(candidates=16), problem)
    draws = torch.stack([case.generator.latent.prior(problem.streams.split(k)) for k in range(16)], 1)
    energies = torch.stack([case.energies(z) for z in draws.unbind(1)], 1)
    assert torch.equal(found.latents, draws[torch.arange(400), energies.argmin(1)])
    assert problem.evaluations == {"generator_forwards": 400 * 17, "auxiliary_forwards": 400 * 16}


# --- what all of them owe

RIVALS = {
    "ascent": Ascent(steps=15, learning_rate=0.1, restarts=2),
    "fusedream": FuseDream(candidates=6, bases=2, steps=15, learning_rate=0.1),
    "best-of": BestOf(candidates=6),
    "rejection": Rejection(most_draws=25),
    "noise": NoiseOptimisation(steps=15, learning_rate=0.3, clip_norm=1.0),
    "ppgn": Ppgn(steps=15, rate=0.1, prior="gaussian", epsilon1=0.1, epsilon3=0.01),
    "ppgn-target": Ppgn(steps=15, rate=0.1, prior="gaussian", epsilon1=0.1, gradient="target-logit"),
}


def digits_problem(rows: list[int]) -> Problem:
    generator, conditioner = Vae().load(CPU), Classifier(heads=("digit",)).load(CPU)
    conditions = [Condition(id=str(k), kind="class", labels={"digit": str(k % 10)}) for k in rows]
    return Problem(generator, conditioner, conditioner.embed(conditions), Streams(torch.tensor(rows) + 5))


@pytest.mark.parametrize("name", RIVALS)
def test_on_a_world_it_does_better_than_the_prior_alone(name):
    rows = list(range(20))

    def energy(sampler: Sampler) -> float:
        problem = digits_problem(rows)
        return float(problem.image_energy(draw(sampler, problem).images, 0).mean())

    assert energy(RIVALS[name]) < 0.6 * energy(Prior())


@pytest.mark.parametrize("name", RIVALS)
def test_a_sample_does_not_see_its_neighbours(name):
    sampler = replace(RIVALS[name], steps=4) if RIVALS[name].steps else RIVALS[name]

    def latents(rows: list[int]) -> torch.Tensor:
        return draw_tiled(sampler, digits_problem(rows), tile=4, index=rows).latents

    whole = latents([0, 1, 2, 3, 4, 5])
    assert torch.equal(whole, latents([5, 4, 3, 2, 1, 0]).flip(0))
    assert torch.equal(whole[[1, 4]], latents([1, 4]))


@pytest.mark.parametrize("name", RIVALS)
def test_the_estimate_is_what_is_counted(name):
    if name == "rejection":
        pytest.skip("how soon a draw is accepted is not known beforehand")
    from bench.plan import estimate

    sampler, problem = RIVALS[name], digits_problem([0, 1, 2])
    draw(sampler, problem)
    work = estimate(sampler, problem.conditioner, 3, problem.generator)
    assert dict(problem.evaluations) == {key: value for key, value in work.items() if value}


def test_fusedream_searches_by_plain_clip_and_ascends_on_the_augmented():
    generator, conditioner = Gan(model="shapes-biggan").load(CPU), Clip(views=3).load(CPU)
    conditions = [Condition(id="c", kind="text", text="a small red circle")] * 2
    problem = Problem(generator, conditioner, conditioner.embed(conditions), Streams.from_seed(2, "clip"))
    sampler = FuseDream(candidates=5, bases=2, steps=4)
    draw(sampler, problem)
    assert problem.evaluations["auxiliary_forwards"] == 2 * (5 + 4 * 3)
    assert problem.evaluations["auxiliary_backwards"] == 2 * 4 * 3
    assert dict(problem.evaluations) == sampler.estimate(2, 3)


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: FuseDream(candidates=3, bases=4), r"bases must be at most candidates \(3\), got 4"),
        (lambda: Ascent(steps=0), "steps must be at least 1, got 0"),
        (lambda: Rejection(beta=0), "beta must be positive, got 0"),
        (lambda: NoiseOptimisation(momentum=1.0), r"momentum must be in \[0, 1\), got 1.0"),
        (lambda: Ppgn(epsilon1=-1), "epsilon1 must not be negative, got -1"),
        (lambda: BestOf(candidates=0), "candidates must be at least 1, got 0"),
    ],
)
def test_settings_that_make_no_sense_are_refused(make, says):
    with pytest.raises(SuiteError, match=says):
        make()


def test_the_scale_of_the_case_is_what_it_says():
    case = LinearCase(3)
    z = case.generator.latent.prior(case.problem().streams)
    away = z.double().numpy() - case.minimiser
    quadratic = np.einsum("ni,ij,nj->n", away, case.hessian, away) / 2
    rest = case.energies(z).double().numpy() - quadratic
    assert np.ptp(rest) < 1e-4
    assert SCALE == 0.7
