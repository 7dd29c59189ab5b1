"""Guidance against a Gaussian diffusion, whose every conditional law is known in closed form."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from bench.conditioners.classifier import Classifier
from bench.conditioners.quadratic import Quadratic
from bench.errors import SamplingError, SuiteError
from bench.generators.base import Block, LatentSpace
from bench.generators.noise_model import Scheduled, trailing
from bench.generators.vae import Vae
from bench.samplers.base import Problem
from bench.samplers.diffusion import ClassifierGuidance, SteeredDiffusion
from bench.samplers.draw import draw, draw_tiled
from bench.streams import Streams
from bench.torchvision_guard import ensure_torchvision
from bench.translator.base import Ground
from bench.translator.noisy_classifier import NoisyClassifier
from bench.translator.pairs import synthesize
from bench.types import Condition

CPU = torch.device("cpu")
SIZE, SPREAD, SLACK = 4, 0.6, 0.5  # x_0 ~ N(0, SPREAD²); the condition is x_0 seen under noise SLACK


def cosine_schedule(num: int = 1000) -> Tensor:
    t = torch.linspace(0, 1, num + 1, dtype=torch.float64)[1:]
    return torch.cos((t + 0.008) / 1.008 * torch.pi / 2).square().clamp(min=1e-5)


class GaussianNoiseModel:
    """The exact denoiser of x_0 ~ N(0, SPREAD²)."""

    shape = (3, SIZE, SIZE)
    alphas_cumprod = cosine_schedule()

    def gain(self, alpha: float) -> float:
        """E[x_0 | x_t] = gain · x_t."""
        return alpha**0.5 * SPREAD**2 / (alpha * SPREAD**2 + 1 - alpha)

    def predict(self, x_NCHW: Tensor, t: int) -> tuple[Tensor, Tensor]:
        alpha = float(self.alphas_cumprod[t])
        clean = self.gain(alpha) * x_NCHW
        return clean, (x_NCHW - alpha**0.5 * clean) / (1 - alpha) ** 0.5

    def show(self, x_NCHW: Tensor) -> Tensor:
        return x_NCHW


class GaussianDiffusion:
    resolution = SIZE
    noise_model = GaussianNoiseModel()
    latent = LatentSpace(
        blocks=(Block(name="z", dim=3 * SIZE**2),), sample=lambda streams: streams.normal("z", (3 * SIZE**2,))
    )

    def decode(self, z_ND: Tensor) -> Tensor:
        raise AssertionError("guided samplers make their images themselves")


class ExactNoisyClassifier:
    """-log p(y | x_t) for y = x_0 + N(0, SLACK²)."""

    def noisy_energy(self, x_NCHW: Tensor, alpha: float, condition_ND: Tensor) -> Tensor:
        variance = SPREAD**2 * (1 - alpha) / (alpha * SPREAD**2 + 1 - alpha) + SLACK**2
        mean = GaussianNoiseModel().gain(alpha) * x_NCHW.flatten(1)
        return (condition_ND - mean).square().sum(1) / (2 * variance)


def problem(num: int, translator: object = None) -> Problem:
    conditioner = Quadratic(resolution=SIZE, scale=SLACK).load(CPU)
    condition = 0.8 * torch.ones(num, conditioner.dim)
    condition[:, ::2] *= -1
    streams = Streams.from_seed(num, "gaussian-diffusion")
    return Problem(GaussianDiffusion(), conditioner, condition, streams, translator)


@pytest.mark.parametrize("eta", [0.0, 1.0])
def test_unguided_it_draws_from_the_model(eta):
    own, sampler = problem(1500), SteeredDiffusion(steps=150, scale=0.0, eta=eta, clip=False)
    state = sampler.init(own)
    for t in range(sampler.steps):
        state = sampler.step(own, state, t)
    assert float(state.x_NCHW.mean()) == pytest.approx(0, abs=0.01)
    assert float(state.x_NCHW.std()) == pytest.approx(SPREAD, rel=0.04)
    assert torch.equal(sampler.images(own, state), state.x_NCHW.clamp(-1, 1))


@pytest.mark.parametrize("eta", [0.0, 1.0])
def test_classifier_guidance_draws_from_the_posterior(eta):
    """With the exact noise-aware classifier the guided score is the posterior's own."""
    num = 1500
    sampler = ClassifierGuidance(steps=150, eta=eta, clip=False)
    own = problem(num, ExactNoisyClassifier())
    state = sampler.init(own)
    for t in range(sampler.steps):
        state = sampler.step(own, state, t)
    x = state.x_NCHW.flatten(1).double().numpy()
    share = SPREAD**2 / (SPREAD**2 + SLACK**2)
    wanted = share * own.condition_ND[0].double().numpy()
    deviation = SLACK * share**0.5
    assert np.abs(x.mean(0) - wanted).max() < 0.02 + 5 * deviation / num**0.5
    assert x.std(0).mean() == pytest.approx(deviation, rel=0.04)
    assert own.evaluations["denoiser_forwards"] == num * 150
    assert own.evaluations["auxiliary_backwards"] == num * 150


@pytest.mark.parametrize("jacobian", [True, False])
def test_a_steered_step_is_the_published_one(jacobian):
    own, sampler = problem(5), SteeredDiffusion(steps=10, scale=0.3, eta=1.0, clip=False, jacobian=jacobian)
    state = sampler.init(own)
    model, times = GaussianNoiseModel(), trailing(1000, 10)
    x = state.x_NCHW.double().flatten(1).numpy()
    wanted = own.condition_ND.double().numpy()
    for t in range(3):
        state = sampler.step(own, state, t)
        now, after = (float(model.alphas_cumprod[times[k]]) for k in (t, t + 1))
        before = float(model.alphas_cumprod[times[t - 1]]) if t else 0.0
        clean = model.gain(now) * x
        slope = (clean - wanted) / SLACK**2 * (model.gain(now) if jacobian else now**-0.5)
        clean = clean - (1 - before) ** 0.5 * 0.3 * slope
        noise = (x - now**0.5 * clean) / (1 - now) ** 0.5
        sigma = ((1 - after) / (1 - now) * (1 - now / after)) ** 0.5
        draws = own.streams.normal("diffusion", (3, SIZE, SIZE), t).flatten(1).double().numpy()
        x = after**0.5 * clean + (1 - after - sigma**2) ** 0.5 * noise + sigma * draws
        assert np.abs(state.x_NCHW.flatten(1).numpy() - x).max() < 1e-4 * max(1.0, np.abs(x).max())
    assert own.evaluations["denoiser_backwards"] == (15 if jacobian else 0)


def test_steering_goes_towards_the_condition_and_the_cost_axis_saves_passes():
    def run(**changes) -> tuple[float, Problem]:
        own = problem(60)
        sampler = replace(SteeredDiffusion(steps=30, scale=0.2), **changes)
        images = draw(sampler, own).images
        return float(own.conditioner.energy(images, own.condition_ND, own.streams, 0).mean()), own

    free, _ = run(scale=0.0)
    full, whole = run()
    third, sparse = run(every=3)
    window, narrow = run(lowest_noise=0.3, highest_noise=0.9)
    cheap, flat = run(jacobian=False, lowest_noise=0.0, highest_noise=0.9)
    assert full < 0.5 * free
    assert all(energy < 0.9 * free for energy in (third, window, cheap))
    assert whole.evaluations["auxiliary_backwards"] == 60 * 30
    assert sparse.evaluations["auxiliary_backwards"] == 60 * 10
    assert 0 < narrow.evaluations["auxiliary_backwards"] < 60 * 30
    assert flat.evaluations["denoiser_backwards"] == 0
    assert {own.evaluations["denoiser_forwards"] for own in (whole, sparse, narrow, flat)} == {60 * 30}


def test_a_sample_does_not_see_its_neighbours():
    sampler = SteeredDiffusion(steps=4, scale=0.2)

    def images(rows: list[int]) -> Tensor:
        whole = problem(6)
        part = replace(
            whole, condition_ND=whole.condition_ND[rows], streams=whole.streams[torch.tensor(rows)]
        )
        return draw_tiled(sampler, part, tile=3, index=rows).images

    together = images([0, 1, 2, 3, 4, 5])
    assert torch.equal(together, images([5, 4, 3, 2, 1, 0]).flip(0))
    assert torch.equal(together[[1, 4]], images([1, 4]))


def test_a_generator_that_is_no_diffusion_model_is_refused():
    generator, conditioner = Vae().load(CPU), Classifier(heads=("digit",)).load(CPU)
    other = Problem(generator, conditioner, torch.zeros(1, 10), Streams.from_seed(1, "x"))
    with pytest.raises(SamplingError, match="needs a diffusion model as generator"):
        SteeredDiffusion().init(other)
    with pytest.raises(SuiteError, match="must lie in that order"):
        SteeredDiffusion(lowest_noise=0.9, highest_noise=0.1)


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction", "sample"])
def test_predictions_of_diffusers_unets_are_read_as_their_scheduler_says(kind):
    ensure_torchvision()
    diffusers = pytest.importorskip("diffusers")
    torch.manual_seed(0)
    unet = diffusers.UNet2DModel(
        sample_size=8, block_out_channels=(8, 8), layers_per_block=1, norm_num_groups=4,
        down_block_types=("DownBlock2D",) * 2, up_block_types=("UpBlock2D",) * 2, add_attention=False,
    ).eval().requires_grad_(False)  # fmt: skip
    scheduler = diffusers.DDIMScheduler(
        num_train_timesteps=1000, beta_schedule="linear", prediction_type=kind, clip_sample=False,
        set_alpha_to_one=True, timestep_spacing="trailing",
    )  # fmt: skip
    model = Scheduled(lambda x, t: unet(x, t).sample, scheduler, (3, 8, 8), 8)
    generator = GaussianDiffusion()
    generator.resolution, generator.noise_model = 8, model  # type: ignore[assignment]
    generator.latent = LatentSpace(
        blocks=(Block(name="z", dim=192),), sample=lambda streams: streams.normal("z", (192,))
    )
    conditioner = Quadratic(resolution=8).load(CPU)
    own = Problem(generator, conditioner, torch.zeros(2, 192), Streams.from_seed(2, "unet"))
    state = (sampler := SteeredDiffusion(steps=8, scale=0.0, eta=0.0, clip=False)).init(own)
    x = state.x_NCHW.clone()
    scheduler.set_timesteps(8)  # a divisor: else its steps do not meet
    assert scheduler.timesteps.tolist() == trailing(1000, 8)
    for t, time in enumerate(scheduler.timesteps):
        state = sampler.step(own, state, t)
        x = scheduler.step(unet(x, time).sample, time, x, eta=0.0).prev_sample
        assert torch.allclose(state.x_NCHW, x, rtol=1e-3, atol=1e-3 * float(x.abs().max()))


def test_the_noisy_classifier_learns_what_the_frozen_one_says():
    generator, conditioner = Vae().load(CPU), Classifier(heads=("digit",)).load(CPU)
    config = NoisyClassifier(num_pairs=400, channels=16, steps=250, batch_size=32, learning_rate=5e-3)
    pairs = synthesize(generator, conditioner, config, CPU)  # type: ignore[arg-type]
    ground = Ground(generator, conditioner, CPU)
    trained = config.train(ground, pairs)
    streams = Streams.from_seed(100, "held-out")
    images = generator.decode(generator.latent.prior(streams))
    wanted = conditioner.encode(images, streams)

    def error(alpha: float) -> float:
        x = alpha**0.5 * images + (1 - alpha) ** 0.5 * streams.normal("n", (3, 32, 32))
        return float(trained.noisy_energy(x, alpha, wanted).mean())

    assert error(0.999) < 0.7 * error(1e-4)
    again = config.read(trained.to_bytes(), ground)
    conditions = [Condition(id="1", kind="class", labels={"digit": "1"})] * 3
    goal = conditioner.embed(conditions)
    assert torch.equal(again.noisy_energy(images[:3], 0.5, goal), trained.noisy_energy(images[:3], 0.5, goal))
