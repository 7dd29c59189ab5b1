"""Diffusion models in the zoo's format: a small random network enlarged, guided and searched."""

from __future__ import annotations

import sys

import pytest
import torch
from torch.nn import functional as F

from bench.conditioners.classifier import Classifier
from bench.errors import BenchError, SuiteError, WeightError
from bench.generators.diffusion import Diffusion
from bench.generators.enlarge import enlarge, reduction
from bench.generators.noise_model import finished
from bench.identity import weight_hashes
from bench.plan import estimate
from bench.samplers.base import Problem
from bench.samplers.diffusion import ClassifierGuidance, SteeredDiffusion
from bench.samplers.draw import draw
from bench.samplers.langevin import Langevin
from bench.samplers.prior import Prior
from bench.streams import Streams
from bench.translator.base import Ground
from bench.translator.noisy_classifier import NoisyClassifier
from bench.translator.pairs import synthesize
from bench.types import Condition
from bench.worlds.digits import Digits
from bench.zoo.diffusion_recipe import schedule_config, unet_config
from bench.zoo.unet import NoiseUnet
from bench.zoo.weights import WEIGHTS_DIR, card, file_sha256, load_model, model_sha256, save_model

pytest.importorskip("diffusers")
CPU = torch.device("cpu")
SIDE = 8


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    """A random network in the zoo's format."""
    torch.manual_seed(0)
    network = NoiseUnet(unet_config(SIDE, (16, 32)), schedule_config())
    path = tmp_path_factory.mktemp("zoo") / "random.safetensors"
    save_model(network, "noise-unet", path)
    return path


@pytest.fixture(scope="module")
def generator(file):
    return Diffusion(weights=str(file), steps=4).load(CPU)


def test_images_are_those_of_the_model_enlarged(file, generator):
    streams = Streams.from_seed(3, "small")
    z = generator.latent.prior(streams)
    assert generator.latent.dim == SIDE**2
    small = Diffusion(weights=str(file), steps=4, resolution=SIDE).load(CPU).decode(z)
    images = generator.decode(z)
    assert images.shape == (3, 3, 32, 32)
    wanted = F.interpolate(small, (32, 32), mode="bicubic", align_corners=False).clamp(-1, 1)
    assert torch.allclose(images, wanted, atol=1e-6)
    assert torch.equal(images[:, 0], images[:, 2])
    assert torch.equal(images, finished(generator.noise_model, generator.clean(z)))
    assert 0.1 < images.std() < 1


def test_a_sample_does_not_see_its_neighbours_and_gradients_flow(generator):
    z = generator.latent.prior(Streams.from_seed(4, "apart")).requires_grad_()
    images = generator.decode(z)
    assert torch.equal(images, generator.decode(z))
    assert torch.equal(images.flip(0), generator.decode(z.flip(0)))
    alone = torch.cat([generator.decode(row[None]) for row in z])
    assert torch.allclose(alone, images, atol=2e-5)
    (gradient,) = torch.autograd.grad(images[1].square().sum(), z)
    assert gradient[1].abs().sum() > 0
    assert gradient[[0, 2, 3]].abs().max() < 1e-6


def test_real_digits_survive_the_way_down_and_up():
    pixels = torch.from_numpy(Digits().arrays("val")[0][:50, :1]).float() / 127.5 - 1
    for side, largest in ((8, 0.25), (16, 0.25)):
        matrix = reduction(side, 32)
        back = enlarge(matrix @ pixels @ matrix.T, 32).clamp(-1, 1)
        assert float((back - pixels).square().mean().sqrt()) < 0.05
        assert float((back - pixels).abs().max()) < largest


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({}, "found neither; give either model"),
        ({"model": "digits-diffusion", "weights": "x"}, "found both; give either model"),
        ({"model": "digits-diffusion", "steps": 0}, "steps must be at least 1"),
    ],
)
def test_fields_that_do_not_go_together_are_refused(fields, message):
    with pytest.raises(SuiteError, match=message):
        Diffusion(**fields)


def test_what_cannot_be_loaded_is_named(file, monkeypatch):
    with pytest.raises(SuiteError, match=r"resolution is 20, and the model makes 8 px images\. Allowed: 8 "):
        Diffusion(weights=str(file), resolution=20).load(CPU)
    with pytest.raises(WeightError, match="'digits-vae' is a VariationalAutoencoder and no diffusion model"):
        Diffusion(model="digits-vae").load(CPU)
    vae = str(WEIGHTS_DIR / "digits-vae.safetensors")
    with pytest.raises(WeightError, match="is a VariationalAutoencoder and no diffusion model"):
        Diffusion(weights=vae).load(CPU)
    monkeypatch.setitem(sys.modules, "diffusers", None)
    with pytest.raises(BenchError, match=r"zoo needs the package 'diffusers'.*pip install 'tr0n-bench\[diff"):
        Diffusion(weights=str(file)).load(CPU)


def test_weights_are_known_by_their_hash(file):
    assert weight_hashes(Diffusion(weights=str(file))) == {file.name: file_sha256(file)}
    assert weight_hashes(Diffusion(model="digits-vae")) == {"digits-vae": model_sha256("digits-vae")}


def problem(generator, num: int, translator: object = None) -> Problem:
    conditioner = Classifier(model="digits-classifier-guide", heads=("digit",)).load(CPU)
    conditions = [Condition(id=str(i), kind="class", labels={"digit": str(i % 10)}) for i in range(num)]
    streams = Streams.from_seed(num, "guided")
    return Problem(generator, conditioner, conditioner.embed(conditions), streams, translator)


def test_guidance_lowers_the_energy_and_counts_the_denoiser(generator):
    own = problem(generator, 10)
    free = draw(SteeredDiffusion(steps=6, scale=0.0, eta=0.0), own).images
    sampler = SteeredDiffusion(steps=6, scale=2.0, eta=0.0)
    guided_problem = problem(generator, 10)
    guided = draw(sampler, guided_problem).images
    assert guided.shape == (10, 3, 32, 32)

    def energy(images):
        return float(own.conditioner.energy(images, own.condition_ND, own.streams, 0).mean())

    assert energy(guided) < energy(free) - 0.1
    work = estimate(sampler, None, 10, generator)
    assert work["denoiser_forwards"] == work["denoiser_backwards"] == 60
    assert {name: guided_problem.evaluations[name] for name in work} == work


def test_a_search_on_the_pushforward_counts_the_denoiser_inside(generator):
    own, sampler = problem(generator, 3), Langevin(steps=2, candidates=2)
    assert draw(sampler, own).images.shape == (3, 3, 32, 32)
    work = estimate(sampler, None, 3, generator)
    assert work["generator_forwards"] == 3 * (2 + 2 + 1)
    assert work["denoiser_forwards"] == 4 * work["generator_forwards"]
    assert work["denoiser_backwards"] == 4 * 3 * 2
    assert {name: own.evaluations[name] for name in work} == work


def test_the_noise_aware_classifier_sees_the_models_own_images(generator):
    own = problem(generator, 4)
    config = NoisyClassifier(num_pairs=8, pair_batch=8, channels=8, steps=2, batch_size=4)
    pairs = synthesize(generator, own.conditioner, config, CPU)  # type: ignore[arg-type]
    ground = Ground(generator, own.conditioner, CPU)
    trained = config.train(ground, pairs)
    assert ground.evaluations == {"generator_forwards": 8, "denoiser_forwards": 32}
    again = config.read(trained.to_bytes(), ground)
    x = torch.zeros(4, 1, SIDE, SIDE)
    assert torch.equal(
        again.noisy_energy(x, 0.5, own.condition_ND), trained.noisy_energy(x, 0.5, own.condition_ND)
    )
    guided = draw(ClassifierGuidance(steps=3), problem(generator, 4, trained))
    assert torch.isfinite(guided.images).all()
    assert guided.images.shape == (4, 3, 32, 32)


# --- the model that ships


@pytest.fixture(scope="module")
def shipped():
    return Diffusion(model="digits-diffusion", steps=8).load(CPU)


def accuracy(images: torch.Tensor) -> float:
    judge = load_model("digits-classifier-judge")
    return float((judge(images)["digit"].argmax(1) == torch.arange(len(images)) % 10).float().mean())


def test_what_ships_draws_digits(shipped):
    content = card("digits-diffusion")
    assert content["bytes"] < 4e6
    assert content["figures"]["confidence"] > 0.9
    assert content["figures"]["fid"] < 0.5 * card("digits-vae")["figures"]["fid"]
    images = shipped.decode(shipped.latent.prior(Streams.from_seed(60, "shipped")))
    probabilities = load_model("digits-classifier-judge")(images)["digit"].softmax(1)
    assert probabilities.amax(1).mean() > 0.8
    assert len(probabilities.argmax(1).unique()) >= 8


def test_guidance_makes_the_digits_that_are_asked_for(shipped):
    own = problem(shipped, 40)
    config = NoisyClassifier(num_pairs=320, channels=16, steps=200, batch_size=32, learning_rate=3e-3)
    pairs = synthesize(shipped, own.conditioner, config, CPU)  # type: ignore[arg-type]
    noisy = config.train(Ground(shipped, own.conditioner, CPU), pairs)
    prior = accuracy(draw(Prior(), own).images)
    assert prior < 0.3
    guided = draw(ClassifierGuidance(steps=12, scale=3.0), problem(shipped, 40, noisy)).images
    assert accuracy(guided) > prior + 0.3
    steered = draw(SteeredDiffusion(steps=12, scale=1.0), problem(shipped, 40)).images
    assert accuracy(steered) > prior + 0.3
