"""CLIP score's conventions, R-precision, top-k accuracy: known answers, chance, cheats; unfit judges."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import yaml
from support import SMALL_SUITE

from bench.errors import MetricError, SuiteError
from bench.judges.clip import ClipReader
from bench.metrics.accuracy import ClassAccuracy
from bench.metrics.clip_score import ClipScore
from bench.metrics.r_precision import Captions, RPrecision
from bench.suite import load_suite
from bench.types import Condition, Evidence, Readout


def prompts(*texts: str, **labels: str) -> tuple[Condition, ...]:
    return tuple(
        Condition(id=f"text:{i}", kind="text", text=text, labels=dict(labels)) for i, text in enumerate(texts)
    )


def clip_scores(convention: str, about: dict | None = None):
    """Cosines 1, -1, 0.6 and 0.8; the first two and the last two share a prompt."""
    image = np.array([[1.0, 0], [0, 1], [0.6, 0.8], [0.8, 0.6]], np.float32)
    text = np.array([[1.0, 0], [0, -1], [1, 0], [1, 0]], np.float32)
    readout = Readout(image_embedding=image, text_embedding=text, about=about or {})
    evidence = Evidence(conditions=prompts("a", "a", "b", "b"), readouts={"j": readout}, reference={})
    return ClipScore(judge="j", convention=convention).compute(evidence)


@pytest.mark.parametrize(
    ("convention", "expected"),
    [
        ("clipscore", {"clip-score/clipscore": 2.5 * (1 + 0 + 0.6 + 0.8) / 4}),
        ("mlperf", {"clip-score/mlperf": 100 * (1 - 1 + 0.6 + 0.8) / 4}),
        ("heim", {"clip-score/heim": (50 + 70) / 2, "clip-score/heim-best": (100 + 80) / 2}),
    ],
)
def test_each_convention_has_its_scale_its_clamp_and_its_mean(convention, expected):
    about = {"model": "ViT-B-32", "prompt_prefix": "A photo depicts ", "context_length": 77}
    result = clip_scores(convention, about)
    assert {score.metric: score.value for score in result.scores} == pytest.approx(expected, rel=1e-6)
    for score in result.scores:
        assert score.details.items() >= about.items()
        assert score.details["convention"] == convention
        if score.metric in result.per_sample:
            assert result.per_sample[score.metric].mean() == pytest.approx(score.value, rel=1e-6)


def test_a_prompt_prefix_reaches_the_text_encoder():
    told: list[str] = []

    class Words:
        def tokenizer(self, texts):
            told.extend(texts)
            return torch.ones(len(texts), 2)

        def encode_text(self, tokens):
            return tokens

        def encode_image(self, images):
            return images.flatten(1)[:, :2]

    reader = ClipReader(Words(), torch.device("cpu"), 2, {"model": "x"}, "A photo depicts ")
    reader.prepare = lambda batch: batch.float() / 255 + 1
    seen = reader.readout(np.zeros((1, 3, 4, 4), np.uint8), prompts("a cat"))
    assert told == ["A photo depicts a cat"] * 2
    assert seen.about == {"model": "x"}


def retrieval(num: int = 30, dim: int = 64, seed: int = 0) -> tuple[np.ndarray, tuple[Condition, ...]]:
    text = np.random.default_rng(seed).normal(size=(num, dim)).astype(np.float32)
    text /= np.linalg.norm(text, axis=1, keepdims=True)
    return text, prompts(*[f"caption {i}" for i in range(num)])


def r_precision(image: np.ndarray, text: np.ndarray, conditions, **options):
    readout = Readout(image_embedding=image, text_embedding=text)
    evidence = Evidence(conditions=tuple(conditions), readouts={"j": readout}, reference={})
    return RPrecision(judge="j", **{"candidates": 9, **options}).compute(evidence)


def test_r_precision_of_a_perfect_a_blind_and_a_shuffled_judge():
    text, conditions = retrieval(200)
    assert r_precision(text, text, conditions).scores[0].value == 1.0
    same = np.ones_like(text)
    assert r_precision(same, same, conditions).scores[0].value == pytest.approx(0.1)
    shuffled = r_precision(text[np.random.default_rng(1).permutation(200)], text, conditions, lists=20)
    assert 0.04 <= shuffled.scores[0].value <= 0.16
    assert shuffled.scores[0].details["chance"] == 0.1


def test_r_precision_is_seeded_and_blind_to_order():
    text, conditions = retrieval(40)
    image = text + np.random.default_rng(2).normal(size=text.shape).astype(np.float32) / 4
    first = r_precision(image, text, conditions)
    assert 0.2 < first.scores[0].value < 1
    order = np.random.default_rng(3).permutation(40)
    again = r_precision(image[order], text[order], [conditions[i] for i in order])
    assert np.array_equal(first.per_sample["r-precision"][order], again.per_sample["r-precision"])
    other = r_precision(image, text, conditions, seed=1)
    assert not np.array_equal(first.per_sample["r-precision"], other.per_sample["r-precision"])


def test_captions_of_the_same_image_text_or_demand_are_no_candidates():
    conditions = (
        Condition(id="text:1", kind="text", text="a red circle", labels={"shape": "circle"}),
        Condition(id="text:1:2", kind="text", text="one image, another caption"),
        Condition(id="text:2", kind="text", text="a red circle", labels={"shape": "circle"}),
        Condition(id="text:3", kind="text", text="a disc in red", labels={"shape": "circle"}),
        Condition(id="text:4", kind="text", text="a square", labels={"shape": "square"}),
        Condition(id="text:5", kind="text", text="no labels"),
    )
    captions = Captions(conditions)
    assert sorted(captions.mismatched(0).tolist()) == [4, 5]
    assert sorted(captions.mismatched(1).tolist()) == [3, 4, 5]
    assert sorted(captions.mismatched(5).tolist()) == [0, 1, 3, 4]
    with pytest.raises(MetricError, match="'text:1' has 2 captions"):
        r_precision(np.ones((6, 2)), np.ones((6, 2)), conditions)


def test_top_k_counts_the_k_likeliest():
    from sklearn.metrics import top_k_accuracy_score

    draws = np.random.default_rng(0)
    logits, target = draws.normal(size=(200, 12)).astype(np.float32), draws.integers(0, 12, 200)
    classes = tuple("abcdefghijkl")
    conditions = tuple(
        Condition(id=str(i), kind="class", labels={"x": classes[k]}) for i, k in enumerate(target)
    )
    readout = Readout(logits={"x": logits}, classes={"x": classes})
    evidence = Evidence(conditions=conditions, readouts={"j": readout}, reference={})
    found = {s.metric: s.value for s in ClassAccuracy(judge="j", top=(5,)).compute(evidence).scores}
    assert found["class-accuracy-top5"] == top_k_accuracy_score(target, logits, k=5, labels=range(12))
    flat = Readout(logits={"x": 0 * logits}, classes={"x": classes})
    level = Evidence(conditions=conditions, readouts={"j": flat}, reference={})
    found = {s.metric: s.value for s in ClassAccuracy(judge="j", top=(5,)).compute(level).scores}
    assert found["class-accuracy-top5"] == pytest.approx((target < 5).mean())
    with pytest.raises(MetricError, match="top 12 of the 12"):
        ClassAccuracy(judge="j", top=(12,)).compute(evidence)


@pytest.mark.parametrize(
    ("metric", "says"),
    [
        ({"kind": "r-precision", "judge": "digits"}, "reads image embedding and text embedding"),
        ({"kind": "aug-clip", "judge": "clip"}, "reads view embedding"),
        ({"kind": "classification-score", "judge": "digits"}, "reads pixels"),
        ({"kind": "kid", "judge": "pixels"}, "reads features"),
    ],
)
def test_a_judge_that_does_not_fit_is_refused_before_anything_runs(tmp_path, metric, says):
    judges = {**SMALL_SUITE["judges"], "clip": {"kind": "clip"}, "pixels": {"kind": "pixels"}}
    content = {**SMALL_SUITE, "judges": judges, "metrics": {"mine": metric}}
    path = tmp_path / "suite.yaml"
    path.write_text(yaml.safe_dump(content, sort_keys=False))
    with pytest.raises(SuiteError, match=rf"suite\.yaml:\d+.*{says}"):
        load_suite(path)
