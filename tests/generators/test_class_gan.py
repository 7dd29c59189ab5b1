"""The native class-conditional ceiling: the right class, from the same network as the searches use."""

from __future__ import annotations

import pytest
import torch

from bench.conditioners.classifier import Classifier
from bench.errors import DataError, SuiteError
from bench.generators.base import context_of
from bench.generators.class_gan import ClassGan
from bench.generators.gan import Gan
from bench.samplers.base import Problem
from bench.samplers.draw import draw
from bench.samplers.prior import Prior
from bench.streams import Streams
from bench.types import Condition

CPU = torch.device("cpu")


def digit(value: str) -> Condition:
    return Condition(id=value, kind="class", labels={"digit": value})


def test_it_draws_the_class_that_is_asked_for():
    generator, conditioner = ClassGan(model="digits-biggan").load(CPU), Classifier(heads=("digit",)).load(CPU)
    conditions = [digit(str(k % 10)) for k in range(60)]
    streams = Streams.from_seed(60, "native")
    problem = Problem(
        generator, conditioner, conditioner.embed(conditions), streams,
        context=context_of(generator, conditions, streams),
    )  # fmt: skip
    images = draw(Prior(), problem).images
    found = conditioner.encode(images, streams).argmax(1)
    assert float((found == torch.arange(60) % 10).float().mean()) > 0.85


def test_it_is_the_network_that_searches_use():
    native, free = ClassGan().load(CPU), Gan(model="shapes-biggan").load(CPU)
    condition = Condition(id="c", kind="class", labels={"shape": "circle", "color": "blue"})
    streams = Streams.from_seed(3, "same")
    context = native.context([condition] * 3, streams)
    z = native.latent.prior(streams)
    assert torch.equal(native.decode(z, context), free.decode(torch.cat([z, context["y"]], dim=1)))


def test_what_names_no_class_is_refused():
    generator = ClassGan(model="digits-biggan").load(CPU)
    streams = Streams.from_seed(1, "x")
    with pytest.raises(DataError, match="it must give digit, and gives"):
        generator.context([Condition(id="c", kind="class", labels={"shape": "circle"})], streams)
    with pytest.raises(SuiteError, match="makes no image without a class"):
        generator.context(None, streams)
    with pytest.raises(SuiteError, match="has no classes"):
        ClassGan(model="digits-vae")
