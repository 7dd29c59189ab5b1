"""Accuracies, CLIP score and speed: known answers, chance, cheats and faults."""

from __future__ import annotations

import numpy as np
import pytest

from bench.errors import MetricError
from bench.metrics.accuracy import AttributeAccuracy, ClassAccuracy
from bench.metrics.clip_score import ClipScore
from bench.metrics.speed import Speed
from bench.types import Condition, Evidence, Readout, Timing

CLASSES = {"shape": ("circle", "square"), "color": ("red", "green", "blue")}


def demands(*pairs: tuple[str, str]) -> tuple[Condition, ...]:
    return tuple(
        Condition(id=str(i), kind="class", labels={"shape": s, "color": c}) for i, (s, c) in enumerate(pairs)
    )


def seen(shapes: list[int], colors: list[int], sharpness: float = 5.0) -> Readout:
    return Readout(
        logits={
            "shape": sharpness * np.eye(2, dtype=np.float32)[shapes],
            "color": sharpness * np.eye(3, dtype=np.float32)[colors],
        },
        classes=CLASSES,
    )


def scores(metric, conditions, readout) -> dict[str, float]:
    result = metric.compute(Evidence(conditions=conditions, readouts={"j": readout}, reference={}))
    return {score.metric: score.value for score in result.scores}


CONDITIONS = demands(("circle", "red"), ("circle", "green"), ("square", "blue"), ("square", "red"))


def test_class_accuracy_asks_for_every_demanded_attribute():
    values = scores(ClassAccuracy(judge="j"), CONDITIONS, seen([0, 0, 1, 0], [0, 1, 0, 0]))
    assert values["class-accuracy"] == 0.5
    e = np.exp(5.0)
    right, wrong2, wrong3 = e / (e + 1), 1 / (e + 1), 1 / (e + 2)
    color = e / (e + 2)
    expected = np.mean([right * color, right * color, right * wrong3, wrong2 * color])
    assert values["target-probability"] == pytest.approx(expected, rel=1e-6)


def test_attribute_accuracies_each_all_and_shape_with_color():
    values = scores(AttributeAccuracy(judge="j"), CONDITIONS, seen([0, 0, 1, 0], [0, 1, 0, 0]))
    assert values["attribute-accuracy/shape"] == 0.75
    assert values["attribute-accuracy/color"] == 0.75
    assert values["attribute-accuracy"] == 0.75
    assert values["shape-and-color-accuracy"] == values["all-attributes-accuracy"] == 0.5


def test_one_image_repeated_scores_at_chance():
    every = demands(*[(s, c) for s in CLASSES["shape"] for c in CLASSES["color"]] * 10)
    result = ClassAccuracy(judge="j").compute(
        Evidence(conditions=every, readouts={"j": seen([0] * 60, [2] * 60)}, reference={})
    )
    assert result.scores[0].value == pytest.approx(result.scores[0].details["chance"])
    assert result.scores[0].details["chance"] == pytest.approx(1 / 6)


def test_an_attribute_that_the_judge_does_not_read_is_named():
    conditions = (Condition(id="0", kind="class", labels={"colour": "red"}),)
    with pytest.raises(MetricError, match=r"colour.*Did you mean 'color'"):
        scores(ClassAccuracy(judge="j"), conditions, seen([0], [0]))
    conditions = (Condition(id="0", kind="class", labels={"color": "mauve"}),)
    with pytest.raises(MetricError, match="red, green, blue"):
        scores(ClassAccuracy(judge="j"), conditions, seen([0], [0]))


def test_conditions_without_labels_and_nan_logits_are_refused():
    with pytest.raises(MetricError, match="demand no attributes"):
        scores(AttributeAccuracy(judge="j"), (Condition(id="0", kind="text", text="x"),), seen([0], [0]))
    with pytest.raises(MetricError, match="not finite"):
        scores(ClassAccuracy(judge="j"), CONDITIONS, seen([0, 0, 1, 0], [0, 1, 0, 0], sharpness=np.nan))


def test_clip_score_forms_from_one_cosine():
    image = np.array([[1.0, 0.0], [0.0, 2.0], [0.6, 0.8]], dtype=np.float32)
    text = np.array([[1.0, 0.0], [0.0, -1.0], [1.0, 0.0]], dtype=np.float32)
    readout = Readout(image_embedding=image, text_embedding=text)
    values = scores(ClipScore(judge="j"), (), readout)
    cosines = np.array([1.0, -1.0, 0.6])
    assert values["clip-cosine"] == pytest.approx(cosines.mean(), rel=1e-6)
    assert values["clip-score-100"] == pytest.approx(100 * cosines.mean(), rel=1e-6)
    assert values["clipscore-w2.5"] == pytest.approx(2.5 * cosines.clip(min=0).mean(), rel=1e-6)


def test_clip_score_needs_a_clip_judge():
    with pytest.raises(MetricError, match="CLIP judge"):
        scores(ClipScore(judge="j"), (), Readout(features=np.zeros((2, 3))))


def test_speed_is_per_image_and_leaves_scoring_out():
    timing = Timing(
        num_samples=10,
        batch_size=5,
        phase_s={"translate": 1.0, "refine": 2.0, "decode": 1.0, "score": 7.0},
        batch_s=(2.0, 2.0),
        batch_n=(5, 5),
        evaluations={"generator_forwards": 30},
        peak_memory_gib=1.5,
        setup_s={"pairs": 3.0},
    )
    result = Speed().compute(Evidence(conditions=(), readouts={}, reference={}, timing=timing))
    values = {score.metric: score.value for score in result.scores}
    assert values["seconds-per-image"] == pytest.approx(0.4)
    assert values["images-per-second"] == pytest.approx(2.5)
    assert values["seconds-per-image/score"] == pytest.approx(0.7)
    assert values["evaluations/generator_forwards"] == 3
    assert values["setup-seconds/pairs"] == 3
    with pytest.raises(MetricError, match="no timings"):
        Speed().compute(Evidence(conditions=(), readouts={}, reference={}))
