"""Energies of the classifier and CLIP conditioners: known values, layouts, faults, independence."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from bench.conditioners.classifier import Classifier
from bench.conditioners.clip import Clip
from bench.errors import DataError, SuiteError, WeightError
from bench.streams import Streams
from bench.types import Condition
from bench.worlds.digits import Digits
from bench.worlds.shapes_source import Shapes

CPU = torch.device("cpu")


def digit(value: str) -> Condition:
    return Condition(id=f"class:{value}", kind="class", labels={"digit": value})


def test_the_class_energy_is_the_cross_entropy_of_the_demanded_class():
    conditioner = Classifier(heads=("digit",)).load(CPU)
    images = torch.from_numpy(Digits().arrays("val")[0][:12]).float() / 127.5 - 1
    target = torch.arange(12) % 10
    condition = conditioner.embed([digit(str(int(k))) for k in target])
    assert condition.shape == (12, 10)
    assert torch.equal(condition.argmax(1), target)
    energy = conditioner.energy(images, condition, Streams.from_seed(12, "e"), 0)
    logits = conditioner.network(images)["digit"]
    assert torch.allclose(energy, F.cross_entropy(logits, target, reduction="none"), atol=1e-5)
    assert torch.allclose(
        conditioner.encode(images, Streams.from_seed(12, "e")), logits.softmax(1), atol=1e-6
    )


def test_several_heads_add_their_energies_in_the_order_asked_for():
    conditioner = Classifier(model="shapes-classifier-guide", heads=("color", "shape")).load(CPU)
    images, rows, _, _ = Shapes().make("val", 0, 6)
    x = images.float() / 127.5 - 1
    labels = [{"color": row["color"], "shape": row["shape"]} for row in rows]
    conditions = [Condition(id=str(i), kind="class", labels=row) for i, row in enumerate(labels)]
    right = conditioner.energy(x, conditioner.embed(conditions), Streams.from_seed(6, "e"), 0)
    wrong = conditioner.energy(x, conditioner.embed(conditions).roll(1, 0), Streams.from_seed(6, "e"), 0)
    assert conditioner.dim == 16
    assert float(right.max()) < 0.2
    assert float(wrong.mean()) > 2


def test_unknown_labels_heads_and_data_are_refused_by_name():
    conditioner = Classifier(heads=("digit",)).load(CPU)
    with pytest.raises(DataError, match="digit='11'"):
        conditioner.embed([digit("11")])
    with pytest.raises(SuiteError, match=r"no head 'digits'.*Did you mean 'digit'"):
        Classifier(heads=("digits",)).load(CPU)
    assert "no attribute 'digit'" in (Classifier(heads=("digit",)).check_data(Shapes()) or "")
    assert Classifier(heads=("digit",)).check_data(Digits()) is None


def text(words: str) -> Condition:
    return Condition(id=words[:20], kind="text", text=words)


@pytest.fixture(scope="module")
def clip():
    return Clip(views=0).load(CPU)


def test_the_plain_text_energy_is_minus_the_cosine(clip):
    images, _, _, captions = Shapes().make("val", 0, 8)
    x = images.float() / 127.5 - 1
    condition = clip.embed([text(five[0]) for five in captions])
    energy = clip.energy(x, condition, Streams.from_seed(8, "e"), 0)
    embedding = clip.network.encode_image((x + 1) / 2 / 0.5 - 1)
    assert torch.allclose(energy, -F.cosine_similarity(embedding, condition), atol=1e-5)
    assert float(energy.max()) < -0.8
    mismatched = clip.energy(x, condition.roll(1, 0), Streams.from_seed(8, "e"), 0)
    assert float((mismatched - energy).min()) > 0.05


def test_the_augmented_energy_is_the_mean_over_views():
    conditioner = Clip(views=5).load(CPU)
    images = Shapes().make("val", 0, 3)[0].float() / 127.5 - 1
    condition = conditioner.embed([text("a red circle")] * 3)
    streams = Streams.from_seed(3, "views")
    from bench.conditioners.augment import augment

    views = augment(images, streams, 7, 5, conditioner.config.augmentations)
    cosine = F.cosine_similarity(conditioner.encode(views, streams), condition.repeat_interleave(5, 0), dim=1)
    energy = conditioner.energy(images, condition, streams, 7)
    assert torch.allclose(energy, -cosine.view(3, 5).mean(1), atol=1e-6)
    assert conditioner.views == 5


def test_the_gradient_of_a_sample_is_its_own(clip):
    images = (Shapes().make("val", 0, 4)[0].float() / 127.5 - 1).requires_grad_()
    condition = clip.embed([text("a small blue star")] * 4)
    energy = clip.energy(images, condition, Streams.from_seed(4, "g"), 0)
    (gradient,) = torch.autograd.grad(energy[2], images)
    assert float(gradient[2].abs().max()) > 0
    assert float(gradient[[0, 1, 3]].abs().max()) == 0


def test_empty_text_is_refused_and_long_text_keeps_its_end(clip):
    with pytest.raises(DataError, match="no text"):
        clip.embed([Condition(id="blank", kind="text", text="  ")])
    tokenizer = clip.network.tokenizer
    tokens = tokenizer(["red " * 500, "red"])
    assert tokens.shape == (2, 40)
    assert int(tokens[0, -1]) == tokenizer.inner.eot_token_id
    assert tokenizer.truncated(["red " * 500, "red"]) == [True, False]


def test_equal_texts_share_one_embedding_whatever_their_neighbours(clip):
    many = clip.embed_texts(
        ["a red circle", "a blue star", "a red circle", *[f"caption {i}" for i in range(300)]]
    )
    assert torch.equal(many[0], many[2])
    assert torch.allclose(clip.embed_texts(["a red circle"])[0], many[0], atol=1e-5)


def test_a_missing_clip_file_is_named(tmp_path):
    with pytest.raises(WeightError, match=r"gone\.safetensors"):
        Clip(weights=str(tmp_path / "gone.safetensors")).load(CPU)
