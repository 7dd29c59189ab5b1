"""The translator: published sizes, density, starts, training, pairs, cache."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.stats import chisquare

from bench.conditioners.classifier import Classifier
from bench.conditioners.quadratic import Quadratic
from bench.errors import ArtifactError, WeightError
from bench.generators.base import Block, LatentSpace
from bench.generators.linear import Linear
from bench.generators.vae import Vae
from bench.samplers.base import Problem
from bench.samplers.start import starting_point
from bench.samplers.tr0n import Tr0n
from bench.samplers.translate import Translate
from bench.streams import Streams
from bench.translator.config import Tr0nTranslator
from bench.translator.network import Mixture, TranslatorNetwork
from bench.translator.pairs import Pairs, synthesize
from bench.translator.train import read_translator, train_translator, translator_loss
from bench.types import Condition

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("main", "auxiliary", "parameters"),
    [(128, 128, 8_152_586), (512, 0, 15_758_858), (1280, 0, 31_495_946)],
    ids=["BigGAN-512", "StyleGAN", "NVAE"],
)
def test_the_network_has_the_published_number_of_parameters(main, auxiliary, parameters):
    with torch.device("meta"):
        network = TranslatorNetwork(512, main, auxiliary, components=10, hidden=2048, bound=2.0)
    assert sum(p.numel() for p in network.parameters()) == parameters


def random_mixture(num: int = 6, components: int = 4, dim: int = 3) -> Mixture:
    g = torch.Generator().manual_seed(0)
    return Mixture(
        means=torch.randn(num, components, dim, generator=g),
        logits=torch.randn(num, components, generator=g),
        std=torch.rand(dim, generator=g) + 0.2,
        auxiliary=None,
    )


def test_the_density_is_that_of_torch_distributions():
    mixture = random_mixture()
    z = torch.randn(6, 3, generator=torch.Generator().manual_seed(1))
    normal = torch.distributions.Normal(mixture.means, mixture.std.expand_as(mixture.means))
    reference = torch.distributions.MixtureSameFamily(
        torch.distributions.Categorical(logits=mixture.logits), torch.distributions.Independent(normal, 1)
    )
    assert torch.allclose(mixture.log_density(z), reference.log_prob(z), atol=1e-5)


def test_the_loss_weighs_likelihood_and_squared_error():
    mixture = random_mixture()
    with_y = Mixture(mixture.means, mixture.logits, mixture.std, torch.ones(6, 2))
    z, y = torch.zeros(6, 3), torch.full((6, 2), 3.0)
    expected = -1e-4 * mixture.log_density(z).mean() + 4.0
    assert torch.allclose(translator_loss(with_y, z, y, 1e-4), expected)


def test_draws_follow_the_mixture():
    num = 20_000
    one = random_mixture(1)
    mixture = Mixture(one.means.expand(num, -1, -1), one.logits.expand(num, -1), one.std, None)
    streams = Streams.from_seed(num, "draws")
    z = mixture.draw(streams.uniform("translator:component"), streams.normal("translator:draw", (3,)))
    weights = one.logits[0].softmax(0)
    mean = (weights[:, None] * one.means[0]).sum(0)
    second = (weights[:, None] * (one.means[0] ** 2 + one.std**2)).sum(0)
    assert torch.allclose(z.mean(0), mean, atol=0.03)
    assert torch.allclose((z**2).mean(0), second, rtol=0.04, atol=0.04)
    sharp = Mixture(mixture.means, mixture.logits, torch.full((3,), 1e-6), None)
    exact = sharp.draw(streams.uniform("translator:component"), streams.normal("translator:draw", (3,)))
    component = (exact[:, None] - one.means).norm(dim=2).argmin(1)
    counts = np.bincount(component, minlength=4)
    assert chisquare(counts, weights.numpy() * num).pvalue > 1e-3


class FixedTranslator:
    """Stands where a trained translator would, with a mixture of our choice."""

    def __init__(self, mixture: Mixture):
        self.mixture = mixture

    def __call__(self, condition_ND: torch.Tensor) -> Mixture:
        return self.mixture


def test_the_published_start_is_the_mixture_mean():
    generator, conditioner = Linear(dim=3).load(CPU), Quadratic().load(CPU)
    conditions = [Condition(id="0", kind="class", labels={"target": "0"})] * 6
    mixture = random_mixture()
    problem = Problem(
        generator,
        conditioner,
        conditioner.embed(conditions),
        Streams.from_seed(6, "s"),
        FixedTranslator(mixture),
    )
    sampler = Tr0n(steps=1, start="mixture_mean")
    assert torch.allclose(sampler.latent(problem, sampler.init(problem)), mixture.mean(), atol=1e-6)
    assert torch.equal(starting_point(problem, mixture, "argmax_mean"), mixture.argmax_mean())
    drawn = Translate(start="sample")
    assert torch.equal(
        drawn.latent(problem, drawn.init(problem)),
        Tr0n(steps=1, start="sample").latent(problem, Tr0n(steps=1, start="sample").init(problem)),
    )


def two_mode_pairs(num: int = 4096) -> tuple[Pairs, LatentSpace]:
    """c in {0, 1}: z is near (-1, 1) or (1, 1) for c = 0 with odds 1:3, near (0, -1) for c = 1; y = 2 c."""
    g = torch.Generator().manual_seed(0)
    c = torch.randint(2, (num, 1), generator=g).float()
    left = torch.rand(num, generator=g) < 0.25
    x = torch.where(c[:, 0] == 1, torch.zeros(num), torch.where(left, -torch.ones(num), torch.ones(num)))
    z = torch.stack([x, 1 - 2 * c[:, 0]], 1) + 0.1 * torch.randn(num, 2, generator=g)
    blocks = (Block(name="z", dim=2, bound=2.0), Block(name="y", dim=1, role="auxiliary"))
    latent = LatentSpace(blocks=blocks, sample=lambda streams: streams.normal("p", (3,)))
    return Pairs(torch.cat([z, 2 * c], 1), c), latent


CONFIG = Tr0nTranslator(
    num_pairs=4096,
    hidden=32,
    components=4,
    steps=600,
    batch_size=128,
    learning_rate=1e-2,
    likelihood_weight=1e-2,
)


def test_training_recovers_a_known_two_mode_law():
    pairs, latent = two_mode_pairs()
    translator = train_translator(pairs, latent, CONFIG, CPU)
    mixture = translator(torch.tensor([[0.0], [1.0]]))
    weights = mixture.logits.softmax(1)
    left = float(weights[0, mixture.means[0, :, 0] < 0].sum())
    assert left == pytest.approx(0.25, abs=0.05)
    assert torch.allclose(mixture.mean()[0], torch.tensor([0.5, 1.0]), atol=0.15)
    assert torch.allclose(mixture.mean()[1], torch.tensor([0.0, -1.0]), atol=0.15)
    assert mixture.auxiliary is not None
    assert torch.allclose(mixture.auxiliary[:, 0], torch.tensor([0.0, 2.0]), atol=0.15)
    assert float(mixture.std.mean()) == pytest.approx(0.1, abs=0.05)
    assert float(mixture.means.abs().max()) < 2.0


def test_training_is_repeatable_and_the_file_round_trips():
    pairs, latent = two_mode_pairs(512)
    config = Tr0nTranslator(num_pairs=512, hidden=16, steps=20, noise=0.2)
    first, second = (train_translator(pairs, latent, config, CPU) for _ in range(2))
    for key, value in first.network.state_dict().items():
        assert torch.equal(value, second.network.state_dict()[key])
    first.setup_s = {"pairs": 1.5}
    loaded = read_translator(first.to_bytes(), latent, 1, config, CPU)
    c = torch.tensor([[0.3]])
    assert torch.equal(loaded(c).means, first(c).means)
    assert loaded.setup_s == {"pairs": 1.5}
    with pytest.raises(WeightError, match="does not fit"):
        read_translator(first.to_bytes(), latent, 2, config, CPU)
    with pytest.raises(ArtifactError, match="cannot be read"):
        read_translator(b"broken", latent, 1, config, CPU)


def test_pseudo_text_noise_changes_training_and_not_the_pairs():
    pairs, latent = two_mode_pairs(512)
    plain = Tr0nTranslator(num_pairs=512, hidden=16, steps=20)
    noisy = Tr0nTranslator(num_pairs=512, hidden=16, steps=20, noise=0.5)
    before = pairs.conditions.clone()
    a, b = (train_translator(pairs, latent, config, CPU) for config in (plain, noisy))
    assert torch.equal(pairs.conditions, before)
    assert not torch.equal(a.network.first.weight, b.network.first.weight)


def test_a_pair_does_not_depend_on_how_many_there_are():
    generator, conditioner = Vae(model="digits-vae").load(CPU), Classifier(heads=("digit",)).load(CPU)
    few = synthesize(generator, conditioner, Tr0nTranslator(num_pairs=16), CPU)
    more = synthesize(generator, conditioner, Tr0nTranslator(num_pairs=300), CPU)
    for first, second in ((few.latents, more.latents), (few.conditions, more.conditions)):
        assert torch.equal(first, second[:16])
    parts = [
        synthesize(generator, conditioner, Tr0nTranslator(num_pairs=300), CPU, start=a, stop=b)
        for a, b in ((0, 100), (100, 300))
    ]
    joined = Pairs.joined(parts)
    assert torch.equal(joined.latents, more.latents)
    assert torch.equal(joined.conditions, more.conditions)
    assert torch.allclose(more.conditions.sum(1), torch.ones(300), atol=1e-5)


def test_the_caption_route_embeds_captions_of_the_generated_images():
    from bench.conditioners.clip import Clip
    from bench.generators.gan import Gan
    from bench.worlds import shapes

    generator, conditioner = Gan(model="shapes-gan").load(CPU), Clip(views=0).load(CPU)
    config = Tr0nTranslator(num_pairs=40, route="caption")
    pairs = synthesize(generator, conditioner, config, CPU)
    from bench.zoo.weights import load_model

    with torch.no_grad():
        reading = load_model("shapes-classifier-guide")(generator.decode(pairs.latents))
    names = shapes.attribute_values(1)
    rows = [{h: names[h][int(reading[h][i].argmax())] for h in names} for i in range(40)]
    texts = shapes.captions(rows, Streams.from_seed(40, "pairs", config.seed))
    for i in range(40):
        candidates = conditioner.embed_texts(list(texts[i]))
        assert float((candidates - pairs.conditions[i]).norm(dim=1).min()) < 1e-3


class Numbered:
    """A generator that remembers the numbers of the latents it was asked for."""

    resolution = 8

    def __init__(self):
        self.latent = LatentSpace(
            blocks=(Block(name="z", dim=2),),
            sample=lambda streams: torch.zeros(len(streams), 2),
            stratified=lambda streams, number: torch.stack([number % 7, number], dim=1).float(),
        )

    def decode(self, z_ND):
        return torch.zeros(len(z_ND), 3, 8, 8)


def test_pairs_are_spread_evenly_over_the_strata_of_a_generator_whatever_their_bounds():
    conditioner = Quadratic(resolution=8).load(CPU)
    latents = synthesize(Numbered(), conditioner, Tr0nTranslator(num_pairs=700), CPU).latents
    assert latents[:, 1].tolist() == list(range(700))
    assert torch.bincount(latents[:, 0].long()).tolist() == [100] * 7
    part = synthesize(Numbered(), conditioner, Tr0nTranslator(), CPU, start=300, stop=310).latents
    assert torch.equal(part, latents[300:310])
