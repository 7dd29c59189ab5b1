"""What is trained before sampling, besides TR0N's translator: against closed forms, and through a run."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from samplers.linear_case import CPU, DIM, LinearCase, TwoBlocks
from support import SMALL_SUITE

from bench.conditioners.classifier import Classifier
from bench.conditioners.clip import Clip
from bench.conditioners.quadratic import Quadratic
from bench.errors import SamplingError, SuiteError, WeightError
from bench.generators.gan import Gan
from bench.generators.vae import Vae
from bench.runner import run
from bench.samplers.base import Problem
from bench.samplers.draw import draw, draw_tiled
from bench.samplers.feed_forward import FeedForward
from bench.samplers.ppgn import Ppgn
from bench.samplers.prior import Prior
from bench.store import RunStore
from bench.streams import Streams
from bench.suite import load_suite
from bench.translator.base import ConditionRows, Ground, distinct
from bench.translator.denoiser import Denoiser
from bench.translator.embedding import ClassEmbedding
from bench.translator.hypernetwork import NoiseHypernetwork
from bench.translator.invertible import InvertibleEnsemble
from bench.translator.nada import Nada
from bench.translator.pairs import Pairs
from bench.translator.promptgen import PromptGen
from bench.types import Condition

NONE = Pairs.none()


def targets(*names: str) -> tuple[Condition, ...]:
    return tuple(Condition(id=name, kind="class", labels={"target": name}) for name in names)


def linear_ground(*names: str) -> tuple[Ground, LinearCase]:
    case = LinearCase(1, target=names[0] if names else "3")
    return Ground(case.generator, case.conditioner, CPU, targets(*names)), case


def problem_of(ground: Ground, conditions: Sequence[Condition], trained: Any, seed: str = "s") -> Problem:
    embedded = ground.conditioner.embed(conditions)
    return Problem(
        ground.generator, ground.conditioner, embedded, Streams.from_seed(len(embedded), seed), trained
    )


# --- invertible networks


def test_the_log_determinant_is_that_of_the_jacobian():
    ensemble = InvertibleEnsemble(3, 5, blocks=3, hidden=16)
    with torch.no_grad():
        for parameter in ensemble.parameters():
            parameter += 0.3 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1))
    e = torch.randn(3, 2, 5, generator=torch.Generator().manual_seed(0))
    z, log_determinant = ensemble(e)
    for k in range(3):
        for b in range(2):
            jacobian = torch.autograd.functional.jacobian(
                lambda x, k=k: ensemble(x[None, None], torch.tensor([k]))[0][0, 0], e[k, b]
            )
            assert float(log_determinant[k, b].detach()) == pytest.approx(
                float(torch.linalg.slogdet(jacobian).logabsdet), abs=1e-4
            )
    one, _ = ensemble(e[[1]], torch.tensor([1]))
    assert torch.allclose(one[0], z[1], atol=1e-5)


# --- PromptGen

PROMPTGEN = PromptGen(weight=1.0, blocks=4, hidden=16, steps=300, batch_size=32, learning_rate=1e-2)


def test_promptgen_learns_the_posterior():
    """Reverse KL to a Gaussian is lowest at that Gaussian, which affine couplings can represent."""
    ground, case = linear_ground("3")
    trained = PROMPTGEN.train(ground, NONE)
    num = 4000
    z = trained.latents(problem_of(ground, list(ground.conditions) * num, trained)).double().numpy()
    mean, covariance = case.posterior()
    spread = np.sqrt(np.diag(covariance))
    assert np.abs((z.mean(0) - mean) / spread).max() < 0.15
    assert np.abs(np.cov(z.T) - covariance).max() < 0.15 * covariance.max()
    assert ground.evaluations["generator_forwards"] == 300 * 32
    assert ground.evaluations["auxiliary_backwards"] == 300 * 32


def test_a_network_of_promptgen_does_not_see_the_others():
    few = replace(PROMPTGEN, steps=15, batch_size=4)
    together = few.train(linear_ground("1", "2", "5")[0], NONE)
    alone, ground = few.train(linear_ground("2")[0], NONE), linear_ground("1", "2", "5")[0]
    apart = replace(few, at_once=2).train(ground, NONE)
    asked = [c for c in ground.conditions if c.id == "2"] * 3
    found = [t.latents(problem_of(ground, asked, t)) for t in (together, alone, apart)]
    assert torch.allclose(found[0], found[1], atol=1e-5)
    assert torch.allclose(found[0], found[2], atol=1e-5)


def test_promptgen_keeps_a_scale_for_the_class_embedding():
    ground = Ground(
        Gan(model="shapes-biggan").load(CPU), Classifier(model="shapes-classifier-guide").load(CPU), CPU
    )
    config = PromptGen(
        control="even", weight=1e-9, steps=1, batch_size=2, moment_draws=64, blocks=2, hidden=8
    )
    trained = config.train(ground, NONE)
    columns = ground.generator.latent.columns("auxiliary")
    drawn = ground.generator.latent.prior(Streams.from_seed(500, "x"))[:, columns]
    assert float(trained.network.scale) == pytest.approx(float(drawn.square().mean().sqrt()), rel=0.1)
    streams = Streams.from_seed(500, "y")
    problem = Problem(ground.generator, ground.conditioner, torch.zeros(500, 1), streams, trained)
    made = trained.latents(problem)[:, columns]
    assert float(made.square().mean().sqrt()) == pytest.approx(float(trained.network.scale), rel=0.1)


def test_promptgen_evens_out_what_a_generator_favours():
    """De-biasing: the least frequent digit of the VAE's prior becomes more frequent."""
    ground = Ground(Vae().load(CPU), Classifier(heads=("digit",)).load(CPU), CPU)
    config = PromptGen(
        control="even", weight=1.0, steps=60, batch_size=16, moment_draws=256, blocks=2, hidden=32,
        learning_rate=1e-2,
    )  # fmt: skip
    trained = config.train(ground, NONE)
    problem = Problem(
        ground.generator, ground.conditioner, torch.zeros(300, 10), Streams.from_seed(300, "even"), trained
    )

    def unevenness(sampler) -> float:
        images = draw(sampler, problem).images
        shares = ground.conditioner.encode(images, problem.streams).mean(0)
        return float((shares - 0.1).square().sum())

    assert unevenness(FeedForward()) < 0.7 * unevenness(Prior())


# --- PPGN's denoiser


def test_the_latent_denoiser_is_the_optimal_shrinkage():
    """For h ~ N(0, I) the best R is h / (1 + noise²)."""
    ground, _ = linear_ground()
    config = Denoiser(path="latent", noise=0.7, hidden=64, steps=500, batch_size=128, learning_rate=3e-3)
    trained = config.train(ground, NONE)
    h = 1.2 * torch.randn(500, DIM, generator=torch.Generator().manual_seed(0))
    found = trained.denoise(h, ground.generator.decode(h))
    expected = h / (1 + 0.7**2)
    assert float((found - expected).square().mean().sqrt()) < 0.12
    assert float((h - expected).square().mean().sqrt()) > 0.3


def test_the_joint_denoiser_goes_through_the_image_and_serves_ppgn():
    ground, case = linear_ground("3")
    config = Denoiser(noise=0.5, hidden=64, steps=200, batch_size=64, learning_rate=3e-3)
    trained = config.train(ground, NONE)
    assert ground.evaluations["generator_forwards"] == 200 * 64
    case = LinearCase(64)
    problem = case.problem(trained)
    h = case.generator.latent.prior(problem.streams)
    found = trained.denoise(h, case.generator.decode(h))
    assert torch.equal(found, trained.network(case.generator.decode(h)))
    assert float((found - h / 1.25).square().mean().sqrt()) < 0.25
    sampler = Ppgn(steps=100, rate=0.1, last_rate=0.0, epsilon1=2.0, epsilon3=0.0, prior="denoiser")
    pulled = draw(sampler, problem).latents
    free = draw(replace(sampler, prior="none"), problem).latents
    assert float(pulled.norm(dim=1).mean()) < float(free.norm(dim=1).mean())
    assert problem.evaluations["generator_forwards"] == 64 * (100 + 1) * 2


# --- class embeddings


def test_a_class_embedding_reaches_the_least_squares_optimum():
    generator, conditioner = TwoBlocks(), Quadratic().load(CPU)
    ground = Ground(generator, conditioner, CPU, targets("1", "4"))
    config = ClassEmbedding(
        steps=500, steps_per_draw=500, batch_size=16, learning_rate=0.05, weight_decay=0.0, clamp=False
    )
    trained = config.train(ground, NONE)
    matrix = generator.matrix.double().numpy()
    for k, condition in enumerate(ground.conditions):
        own = Streams.from_seed(1, "class-embedding", 0, condition.id)
        z = generator.latent.prior(own.repeat_interleave(16).split(1))[:, :3].double().numpy()
        goal = ground.embedded()[k].double().numpy()
        expected, *_ = np.linalg.lstsq(matrix[:, 3:], goal - matrix[:, :3] @ z.mean(0), rcond=None)
        assert np.abs(trained.network.table[k].numpy() - expected).max() < 2e-3
    problem = problem_of(ground, list(ground.conditions) * 4, trained)
    z = trained.latents(problem)
    assert torch.equal(z[:, :3], generator.latent.prior(problem.streams)[:, :3])
    assert torch.equal(z[[1, 3], 3:], trained.network.table[[1, 1]])


def test_a_class_embedding_stays_where_the_prior_has_been_and_spreads_where_asked():
    generator, conditioner = TwoBlocks(), Quadratic(scale=0.01).load(CPU)
    ground = Ground(generator, conditioner, CPU, targets("1"))
    trained = ClassEmbedding(steps=60, weight_decay=0.0, learning_rate=1.0).train(ground, NONE)
    drawn = generator.latent.prior(ground.streams(1000, "class-embedding", 0))[:, 3:]
    assert (trained.network.table <= drawn.max(0).values).all()
    assert (trained.network.table >= drawn.min(0).values).all()
    with pytest.raises(SuiteError, match="no class embedding"):
        ClassEmbedding().train(linear_ground("1")[0], NONE)


def test_class_embeddings_turn_a_biggan_to_its_classes():
    conditioner = Classifier(heads=("digit",)).load(CPU)
    conditions = tuple(Condition(id=f"d{k}", kind="class", labels={"digit": str(k)}) for k in (2, 7))
    ground = Ground(Gan(model="digits-biggan").load(CPU), conditioner, CPU, conditions)
    trained = ClassEmbedding(steps=30, weight_decay=0.0, diversity=0.01).train(ground, NONE)
    problem = problem_of(ground, list(conditions) * 8, trained)

    def energy(sampler) -> float:
        return float(problem.image_energy(draw(sampler, problem).images, 0).mean())

    assert energy(FeedForward()) < 0.5 * energy(Prior())


# --- noise hypernetworks


def test_the_hypernetwork_learns_the_pointwise_optimum():
    """min over f of w (z+f-m)ᵀH(z+f-m)/2 + |f|²/2 is f = (wH + 1)⁻¹ wH (m - z)."""
    ground, case = linear_ground("3")
    config = NoiseHypernetwork(weight=0.5, hidden=64, steps=800, batch_size=128, learning_rate=3e-3)
    trained = config.train(ground, NONE)
    problem = problem_of(ground, list(ground.conditions) * 300, trained)
    z = case.generator.latent.prior(problem.streams)
    pull = 0.5 * case.hessian
    expected = np.linalg.solve(pull + np.eye(DIM), pull @ (case.minimiser[:, None] - z.double().numpy().T)).T
    found = (trained.latents(problem) - z).double().numpy()
    assert np.sqrt(np.square(found - expected).mean()) < 0.05 * np.sqrt(np.square(expected).mean())


# --- StyleGAN-NADA


def shapes_ground(*texts: str) -> Ground:
    conditions = tuple(Condition(id=text, kind="text", text=text) for text in texts)
    return Ground(Gan().load(CPU), Clip(views=0).load(CPU), CPU, conditions)


def test_nada_moves_images_along_the_texts_direction():
    ground = shapes_ground("a red circle", "a green star")
    config = Nada(source="a shape", steps=25, batch_size=4)
    frozen = copy.deepcopy(ground.generator.network.state_dict())
    trained = config.train(ground, NONE)
    assert all(torch.equal(v, frozen[k]) for k, v in ground.generator.network.state_dict().items())
    problem = problem_of(ground, [c for c in ground.conditions for _ in range(6)], trained)
    images = draw(FeedForward(), problem).images
    plain = draw(Prior(), replace(problem, translator=None)).images
    f = torch.nn.functional.normalize
    moved = f(ground.conditioner.encode(images, problem.streams), dim=1) - f(
        ground.conditioner.encode(plain, problem.streams), dim=1
    )
    wanted = torch.stack([config.direction(ground, c.text) for c in ground.conditions for _ in range(6)])
    along = torch.nn.functional.cosine_similarity(moved, wanted, dim=1)
    assert float(along.mean()) > 0.15
    swapped = torch.nn.functional.cosine_similarity(moved, wanted.roll(6, 0), dim=1)
    assert float(along.mean()) > float(swapped.mean()) + 0.1
    again = config.read(trained.to_bytes(), ground)
    assert torch.equal(draw(FeedForward(), replace(problem, translator=again)).images, images)
    some = draw_tiled(FeedForward(), replace(problem), tile=4, index=list(range(12))).images
    assert torch.equal(some, images)


def test_nada_refuses_what_it_cannot_adapt():
    with pytest.raises(SuiteError, match="must embed texts"):
        Nada().train(linear_ground("1")[0], NONE)
    ground = shapes_ground("a red circle")
    ground.generator = linear_ground()[1].generator
    with pytest.raises(SuiteError, match="network is not at hand"):
        Nada().train(ground, NONE)
    with pytest.raises(SuiteError, match="templates must each hold"):
        Nada(templates=("x",))


# --- all of them

SETUPS: dict[str, Any] = {
    "promptgen": PromptGen(weight=1.0, blocks=2, hidden=8, steps=3, batch_size=2),
    "denoiser": Denoiser(hidden=8, steps=3, batch_size=4),
    "class-embedding": ClassEmbedding(steps=3, batch_size=2),
    "noise-hypernetwork": NoiseHypernetwork(hidden=8, steps=3, batch_size=4),
}


@pytest.mark.parametrize("name", SETUPS)
def test_training_repeats_and_its_bytes_give_it_back(name):
    generator, conditioner = TwoBlocks(), Quadratic().load(CPU)

    def ground() -> Ground:
        return Ground(generator, conditioner, CPU, targets("1", "2"))

    first, second = (SETUPS[name].train(ground(), NONE) for _ in range(2))
    assert first.to_bytes() == second.to_bytes()
    first.setup_s, first.setup_evaluations = {"translator_training": 1.5}, {"generator_forwards": 6}
    again = SETUPS[name].read(first.to_bytes(), ground())
    assert again.to_bytes() == first.to_bytes()
    assert (again.setup_s, again.setup_evaluations) == (first.setup_s, first.setup_evaluations)
    other = Ground(TwoBlocks(main=5, auxiliary=4), conditioner, CPU, targets("1", "2"))
    with pytest.raises(WeightError, match="does not fit"):
        SETUPS[name].read(first.to_bytes(), other)


@pytest.mark.parametrize("name", ["promptgen", "class-embedding"])
def test_a_condition_that_was_not_trained_for_is_refused(name):
    ground = Ground(TwoBlocks(), Quadratic().load(CPU), CPU, targets("1", "2"))
    trained = SETUPS[name].train(ground, NONE)
    with pytest.raises(SamplingError, match="was not trained for"):
        trained.latents(problem_of(ground, targets("9"), trained))


def test_rows_are_found_and_conditions_listed_once():
    table = torch.eye(4)
    assert ConditionRows(table)(table[[3, 0, 0]]).tolist() == [3, 0, 0]
    assert [c.id for c in distinct([*targets("b", "a"), *targets("b")])] == ["a", "b"]


# --- through a run


def suite_of(tmp_path, **changes: Any):
    content = copy.deepcopy(SMALL_SUITE) | changes
    path = tmp_path / "setups.yaml"
    path.write_text(yaml.safe_dump(content, sort_keys=False))
    return load_suite(path)


def test_set_ups_run_are_recorded_and_are_found_again(tmp_path):
    translators = {
        "default": SMALL_SUITE["translators"]["default"],
        "prompt": {"kind": "promptgen", "blocks": 2, "hidden": 8, "steps": 2, "batch_size": 2},
        "dae": {"kind": "denoiser", "hidden": 8, "steps": 2, "batch_size": 2},
    }
    samplers = {
        "ff": {"kind": "feed-forward"},
        "ppgn": {"kind": "ppgn", "steps": 2, "rate": 0.1},
        "tr0n": SMALL_SUITE["samplers"]["tr0n"],
    }
    matrix = {**SMALL_SUITE["variants"]["matrix"], "sampler": ["ff", "ppgn", "tr0n"]}
    small = {**SMALL_SUITE["samples"], "num": 8, "conditions": 4}
    suite = suite_of(
        tmp_path,
        translators=translators,
        samplers=samplers,
        variants={"matrix": matrix},
        samples=small,
        curve=None,
    )
    # Which translator each sampler gets follows from what it can use.
    assert [v.translator for v in suite.variants] == ["prompt", "dae", "default"]
    first = run(suite, tmp_path / "run", "cpu", store_url=str(tmp_path / "store"))
    assert (first.num_failed, first.made["translator"]) == (0, 3)
    record = next(r for r in RunStore(tmp_path / "run").records() if r.cell.sampler == "ff")
    assert record.timing is not None
    assert record.timing.setup_s["translator_training"] > 0
    assert record.timing.setup_evaluations["generator_forwards"] == 4 * 2 * 2
    scores = {score.metric: score.value for score in record.scores}
    assert scores["setup-evaluations/auxiliary_backwards"] == 4 * 2 * 2
    again = run(suite, tmp_path / "run", "cpu", store_url=str(tmp_path / "store"))
    assert not +again.made
    # More conditions are another set-up for what is trained per condition, and for nothing else.
    more = suite_of(
        tmp_path, translators=translators, samplers=samplers, variants={"matrix": matrix},
        samples={**small, "conditions": 5}, curve=None,
    )  # fmt: skip
    third = run(more, tmp_path / "more", "cpu", store_url=str(tmp_path / "store"))
    assert third.made["translator"] == 1


def test_a_sampler_refuses_a_set_up_that_it_cannot_use(tmp_path):
    translators = {"dae": {"kind": "denoiser"}, "default": SMALL_SUITE["translators"]["default"]}
    entry = {
        "data": "digits",
        "generator": "vae",
        "conditioner": "class",
        "sampler": "tr0n",
        "translator": "dae",
    }
    with pytest.raises(SuiteError, match=r"cannot use translator 'dae' \(kind 'denoiser'\).*fits: default"):
        suite_of(tmp_path, translators=translators, variants={"include": [entry]})
    entry = {**entry, "sampler": "nada", "translator": "nada"}
    with pytest.raises(SuiteError, match="translator 'nada' takes text conditions"):
        suite_of(
            tmp_path, translators={"nada": {"kind": "nada"}}, samplers={"nada": {"kind": "feed-forward"}},
            variants={"include": [entry]},
        )  # fmt: skip
