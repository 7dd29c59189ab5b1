"""Judges on the worlds' own images: right, and blind to neighbours."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from bench.judges.classifier import ClassifierJudge
from bench.judges.clip import ClipJudge
from bench.types import Condition
from bench.worlds import shapes
from bench.worlds.digits import Digits
from bench.worlds.shapes_source import Shapes

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def world():
    """(images uint8 (300, 3, 32, 32), attribute rows, captions) of the validation split."""
    images, rows, _, captions = Shapes().make("val", 0, 300, CPU)
    return images.numpy(), rows, captions


def test_the_shapes_judge_reads_every_attribute(world):
    images, rows, _ = world
    readout = ClassifierJudge(model="shapes-classifier-judge").load(CPU).readout(images)
    assert readout.features.shape == (300, 64)
    assert readout.features.dtype == np.float32
    assert readout.classes == {k: tuple(v) for k, v in shapes.attribute_values(1).items()}
    for name, values in readout.classes.items():
        read = [values[k] for k in readout.logits[name].argmax(1)]
        assert np.mean([r == row[name] for r, row in zip(read, rows)]) >= 0.99


def test_the_digits_judge_reads_held_out_digits():
    images, labels = Digits().arrays("val")
    readout = ClassifierJudge(model="digits-classifier-judge").load(CPU).readout(images)
    assert (readout.logits["digit"].argmax(1) == labels).mean() >= 0.98


def test_the_clip_judge_prefers_an_image_s_own_caption(world):
    images, rows, captions = world
    conditions = [Condition(id=str(i), kind="text", text=captions[i][0], labels=rows[i]) for i in range(300)]
    readout = ClipJudge().load(CPU).readout(images, conditions)
    for embedding in (readout.image_embedding, readout.text_embedding):
        assert np.allclose(np.linalg.norm(embedding, axis=1), 1, atol=1e-5)
    scores = readout.text_embedding @ readout.image_embedding.T
    same = np.array([[a == b for b in rows] for a in rows])
    best = scores.argmax(1)
    assert same[np.arange(300), best].mean() >= 0.95


@pytest.mark.parametrize("config", [ClassifierJudge(model="shapes-classifier-judge"), ClipJudge()])
def test_a_readout_is_bitwise_the_same_alone_and_in_any_order(config, world):
    images, _, captions = world
    judge = config.load(CPU)
    conditions = [Condition(id=str(i), kind="text", text=captions[i][0]) for i in range(20)]
    together = judge.readout(images[:20], conditions)
    order = np.random.default_rng(0).permutation(20)
    shuffled = judge.readout(images[:20][order], [conditions[i] for i in order])
    alone = judge.readout(images[7:8], conditions[7:8])
    assert np.array_equal(together.features[order], shuffled.features)
    assert np.array_equal(together.features[7:8], alone.features)
    if together.text_embedding is not None:
        assert np.array_equal(together.text_embedding[order], shuffled.text_embedding)
        assert np.array_equal(together.text_embedding[7:8], alone.text_embedding)


def test_class_conditions_have_no_text_embedding(world):
    images, _, _ = world
    conditions = [Condition(id="c", kind="class", text="red circle", labels={"shape": "circle"})] * 2
    assert ClipJudge().load(CPU).readout(images[:2], conditions).text_embedding is None
