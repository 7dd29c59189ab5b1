"""Composed conditions: energies by hand, what a translator is asked, optima, and through a run."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
import yaml
from support import SMALL_SUITE

from bench.captioners.attributes import AttributeCaptioner
from bench.conditioners.composition import Composition, Term
from bench.errors import DataError, SuiteError
from bench.generators.base import Block, LatentSpace
from bench.generators.gan import Gan
from bench.metrics.composition import CompositionAccuracy
from bench.plan import plan
from bench.runner import run
from bench.samplers.ascent import Ascent
from bench.samplers.base import Problem
from bench.samplers.draw import draw
from bench.samplers.start import pooled
from bench.store import RunStore
from bench.streams import Streams
from bench.suite import load_suite
from bench.suite.nested import NestedConditioner
from bench.translator.config import Tr0nTranslator
from bench.translator.network import Mixture
from bench.translator.pairs import synthesize
from bench.types import Condition, Evidence, Readout

CPU = torch.device("cpu")
CLASSES = {"kind": "classifier", "model": "shapes-classifier-guide", "heads": ["shape", "color"]}
TEXTS = {"kind": "clip", "model": "shapes-clip-guide", "views": 0}
RED_STAR = Condition(id="rs", kind="class", text="red star", labels={"shape": "star", "color": "red"})
SENTENCE = Condition(id="s", kind="text", text="a {color} star", labels={"shape": "star", "color": "red"})


def composition(inside: dict, *terms: Term, **fields) -> Composition:
    return Composition(conditioner=NestedConditioner.of(inside), terms=terms, **fields)


def images(num: int = 6) -> tuple[torch.Tensor, Streams]:
    streams = Streams.from_seed(num, "composition")
    generator = Gan().load(CPU)
    return generator.decode(generator.latent.prior(streams)), streams


def test_and_is_the_weighted_sum_and_not_the_complement():
    x, streams = images()
    config = composition(
        CLASSES, Term(heads=("shape",), weight=2.0), Term(heads=("color",), weight=0.5, negate=True)
    )
    (asked,) = config.asked([RED_STAR])
    assert (dict(asked.labels), dict(asked.avoid)) == ({"shape": "star"}, {"color": "red"})
    conditioner = config.load(CPU)
    condition = conditioner.embed([asked] * 6)
    logits = conditioner.inner.network(x)
    star = conditioner.inner.network.heads["shape"].index("star")
    red = conditioner.inner.network.heads["color"].index("red")
    shape = logits["shape"].double().log_softmax(1)[:, star]
    color = torch.log1p(-logits["color"].double().softmax(1)[:, red])
    expected = -2 * shape - 0.5 * color
    assert torch.allclose(conditioner.energy(x, condition, streams, 0).double(), expected, atol=1e-4)
    terms = conditioner.term_energies(x, condition, streams, 0).double()
    assert torch.allclose(terms, torch.stack([-shape, -color], 1), atol=1e-4)


def test_or_is_low_where_either_is():
    x, streams = images()
    both = (Term(heads=("shape",)), Term(heads=("color",)))
    soft = composition(CLASSES, *both, combine="or", temperature=0.5).load(CPU)
    condition = soft.embed([RED_STAR] * 6)
    terms = soft.term_energies(x, condition, streams, 0).double()
    expected = -0.5 * torch.exp(-terms / 0.5).sum(1).log()
    assert torch.allclose(soft.energy(x, condition, streams, 0).double(), expected, atol=1e-4)
    assert (expected <= terms.min(1).values + 1e-9).all()


def test_a_negated_text_is_a_bounded_hinge_and_words_are_data():
    x, streams = images()
    config = composition(TEXTS, Term(text="a {shape}"), Term(text="{color}", negate=True), margin=0.2)
    conditioner = config.load(CPU)
    condition = conditioner.embed([SENTENCE] * 6)
    f = torch.nn.functional.cosine_similarity
    image = conditioner.encode(x, streams)
    star, red = (conditioner.inner.embed_texts([text]) for text in ("a star", "red"))
    expected = -f(image, star, dim=1) + (f(image, red, dim=1) - 0.2).clamp(min=0)
    assert torch.allclose(conditioner.energy(x, condition, streams, 0), expected, atol=1e-5)
    assert (conditioner.dim, conditioner.views) == (conditioner.inner.dim, 2)
    # "{color}" inside a caption is text, not a template.
    plain = composition(TEXTS, Term(text="{text}")).load(CPU)
    own = plain.embed([SENTENCE])[0, : plain.dim]
    assert torch.equal(own, plain.inner.embed_texts(["a {color} star"])[0])
    with pytest.raises(DataError, match=r"asks for '\{texture\}'"):
        composition(TEXTS, Term(text="{texture}")).load(CPU).embed([SENTENCE])


def test_what_a_translator_is_asked():
    terms = (Term(heads=("shape",)), Term(heads=("color",)))
    joint, mean, pool = (
        composition(CLASSES, *terms, start=start).load(CPU) for start in ("joint", "mean", "pool")
    )
    plain = joint.inner.embed([RED_STAR])
    assert torch.equal(joint.translator_inputs(joint.embed([RED_STAR]))[:, 0], plain)
    parts = pool.translator_inputs(pool.embed([RED_STAR]))
    assert parts.shape == (1, 2, joint.dim)
    shapes, colors = joint.inner.sizes
    assert torch.equal(parts[0, 0, :shapes], plain[0, :shapes])
    assert parts[0, 0, shapes:].tolist() == pytest.approx([1 / colors] * colors)
    one = mean.translator_inputs(mean.embed([RED_STAR]))
    assert float(one.norm()) == pytest.approx(float(parts.norm(dim=2).mean()), rel=1e-5)
    absent = composition(CLASSES, terms[0], Term(heads=("color",), negate=True))
    (asked,) = absent.asked([RED_STAR])
    open_ = absent.load(CPU).translator_inputs(absent.load(CPU).embed([asked]))[0, 0, shapes:]
    assert sorted(open_.tolist()) == pytest.approx([0.0] + [1 / (colors - 1)] * (colors - 1))


def test_pooled_mixtures_have_the_mean_density():
    g = torch.Generator().manual_seed(0)
    std = torch.full((3,), 0.7)
    two = [
        Mixture(torch.randn(4, m, 3, generator=g), torch.randn(4, m, generator=g), std, None) for m in (2, 5)
    ]
    z = torch.randn(4, 3, generator=g)
    expected = torch.stack([mixture.log_density(z).exp() for mixture in two]).mean(0)
    assert torch.allclose(pooled(two).log_density(z).exp(), expected, rtol=1e-5)


class Colours:
    """An image of one grey level per channel: E of a class is linear in the latent's softmax."""

    resolution = 4
    latent = LatentSpace(blocks=(Block(name="z", dim=3),), sample=lambda streams: streams.normal("z", (3,)))

    def decode(self, z_ND: torch.Tensor) -> torch.Tensor:
        return z_ND[:, :, None, None].expand(-1, -1, 4, 4)


class Quadratics:
    """Two quadratic energies |z - a|²/2 and |z - b|²/2, told apart by the heads' blocks."""

    heads, sizes, views, dim = ("first", "second"), (3, 3), 1, 6

    def energy(self, images_NCHW, condition_ND, streams, step):
        z = images_NCHW[:, :, 0, 0]
        masks = condition_ND.view(-1, 2, 3)
        used = (masks.abs().sum(2) > 0).float()
        return ((z[:, None] - masks).square().sum(2) / 2 * used).sum(1)


def test_the_optimum_of_two_quadratics_is_their_weighted_mean():
    from bench.conditioners.composition import CompositionConditioner

    config = composition(CLASSES, Term(heads=("shape",), weight=3.0), Term(heads=("color",), weight=1.0))
    conditioner = CompositionConditioner(config, Quadratics())
    a, b = torch.tensor([1.0, -1.0, 2.0]), torch.tensor([-3.0, 1.0, 0.5])
    zero = torch.zeros(3)
    row = torch.cat([a, zero, zero, b, zero, zero])
    problem = Problem(Colours(), conditioner, row.expand(5, -1), Streams.from_seed(5, "two"))
    found = draw(Ascent(steps=300, learning_rate=0.1), problem).latents
    assert torch.allclose(found, ((3 * a + b) / 4).expand(5, -1), atol=1e-3)
    assert problem.evaluations["auxiliary_forwards"] == 5 * 300 * 2


def test_joint_success_counts_what_is_demanded_and_what_is_avoided():
    conditions = tuple(
        Condition(id=str(i), kind="class", labels={"shape": "star"}, avoid={"color": "red"}) for i in range(4)
    )
    shapes, colors = [0, 0, 1, 0], [0, 1, 1, 0]
    readout = Readout(
        logits={"shape": np.eye(2)[shapes], "color": np.eye(2)[colors]},
        classes={"shape": ("star", "circle"), "color": ("red", "blue")},
    )
    evidence = Evidence(conditions=conditions, readouts={"j": readout}, reference={})
    result = CompositionAccuracy(judge="j").compute(evidence)
    assert {s.metric: s.value for s in result.scores} == {
        "composition-accuracy": 0.25, "composition-part/shape": 0.75, "composition-part/color": 0.5,
    }  # fmt: skip


def test_pairs_of_held_out_combinations_are_left_out():
    generator = Gan().load(CPU)
    conditioner = NestedConditioner.of(CLASSES).config.load(CPU)
    every = Tr0nTranslator(num_pairs=300)
    some = Tr0nTranslator(num_pairs=300, held_out=("shape=star", "shape=circle,color=red"))
    whole, left = (synthesize(generator, conditioner, config, CPU) for config in (every, some))
    assert 0 < len(left.latents) < len(whole.latents) == 300
    reader = AttributeCaptioner().load(CPU)
    assert not reader.shows(generator.decode(left.latents), some.held_out).any()
    gone = {tuple(row) for row in whole.latents.tolist()} - {tuple(row) for row in left.latents.tolist()}
    assert reader.shows(generator.decode(torch.tensor(sorted(gone))), some.held_out).all()
    with pytest.raises(SuiteError, match="is no combination of the shapes world"):
        reader.shows(generator.decode(left.latents[:1]), ("shape=cube",))


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: composition(CLASSES), "terms must not be empty"),
        (lambda: composition(CLASSES, Term(text="x")), "terms of class conditions need 'heads'"),
        (lambda: composition(TEXTS, Term(text="x", negate=True)), "must not all be negated"),
        (lambda: Term(), "either text"),
        (lambda: Term(text="x", weight=-1), "weight must be positive, got -1. To ask for absence"),
        (
            lambda: composition(CLASSES, Term(heads=("shape",)), combinations=("shape=cube",)).asked(
                [RED_STAR]
            ),
            "'shape=cube' is no combination",
        ),
    ],
)
def test_what_cannot_be_composed_is_refused(make, says):
    with pytest.raises(SuiteError, match=says):
        make()


def test_a_composition_runs_with_a_translator_and_shares_its_pairs(tmp_path):
    content = copy.deepcopy(SMALL_SUITE)
    both = [{"heads": ["shape"]}, {"heads": ["color"], "negate": True}]
    content |= {
        "data": {"shapes": {"kind": "shapes", "num_val": 40}},
        "generators": {"gan": {"kind": "gan", "model": "shapes-gan"}},
        "conditioners": {
            "plain": CLASSES,
            "not": {
                "kind": "composition", "conditioner": CLASSES, "terms": both, "start": "pool",
                "combinations": ["shape=star,color=red", "shape=circle,color=blue"],
            },
        },
        "judges": {"shapes": {"kind": "classifier", "model": "shapes-classifier-judge"}},
        "metrics": {"joint": {"kind": "composition-accuracy", "judge": "shapes"}},
        "protocol": {"reference_split": "val", "num_reference": 40},
        "samples": {"num": 6, "batch_size": 8, "tile": 2},
        "variants": {
            "matrix": {"data": "shapes", "generator": "gan", "conditioner": ["plain", "not"],
                "sampler": "tr0n"}
        },
    }  # fmt: skip
    path = tmp_path / "composition.yaml"
    path.write_text(yaml.safe_dump(content, sort_keys=False))
    (cell,) = (cell for cell in plan(load_suite(path)).cells if cell.conditioner == "not")
    assert cell.num_conditions == 2
    summary = run(load_suite(path), tmp_path / "run", "cpu", store_url=str(tmp_path / "store"))
    assert (summary.num_failed, summary.made["pairs"]) == (0, 1)
    table = next(r for r in RunStore(tmp_path / "run").records() if r.cell.conditioner == "not")
    assert {s.metric for s in table.scores} == {
        "composition-accuracy", "composition-part/shape", "composition-part/color",
    }  # fmt: skip
