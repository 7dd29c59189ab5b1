"""CAS: right labels teach, shuffled ones do not, half the classes cost half; the same at any thread count."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from bench.errors import MetricError
from bench.judges.pixels import PixelsJudge
from bench.metrics.classification_score import ClassificationScore
from bench.types import Condition, Evidence, Readout
from bench.worlds.digits import Digits

CPU = torch.device("cpu")
METRIC = ClassificationScore(judge="j", steps=150, batch_size=32, width=8)


def seen(split: str, rows: np.ndarray, labels: np.ndarray | None = None) -> tuple[Readout, np.ndarray]:
    images, digits = Digits().arrays(split)
    names = digits[rows] if labels is None else labels
    conditions = [Condition(id=str(k), kind="class", labels={"digit": str(k)}) for k in names]
    return PixelsJudge().load(CPU).readout(images[rows], conditions), names


def score(samples: Readout, top: tuple[int, ...] = (), **changes):
    real = seen("val", np.arange(300))[0]
    evidence = Evidence(conditions=(), readouts={"j": samples}, reference={"j": real})
    metric = ClassificationScore(**{**vars(METRIC), "top": top, **changes})
    return metric.compute(evidence).scores


def test_real_digits_teach_and_shuffled_labels_do_not():
    rows = np.arange(600)
    samples, labels = seen("train", rows)
    first, third = score(samples, top=(3,))
    assert first.value > 0.75
    assert third.value > first.value
    assert first.interval[0] < first.value < first.interval[1]
    assert (first.n, first.details["n_reference"]) == (600, 300)
    shuffled = seen("train", rows, np.random.default_rng(0).permutation(labels))[0]
    assert score(shuffled)[0].value < 0.35


def test_it_is_the_same_at_any_thread_count_and_another_with_another_seed():
    samples = seen("train", np.arange(200))[0]
    torch.set_num_threads(2)
    try:
        several = score(samples, steps=40)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(1)
    assert several == score(samples, steps=40)
    assert several[0].value != score(samples, steps=40, seed=1)[0].value


def test_classes_that_nobody_asked_for_are_wrong():
    digits = Digits().arrays("train")[1]
    samples = seen("train", np.flatnonzero(digits < 5)[:400])[0]
    real = Digits().arrays("val")[1][:300]
    assert score(samples)[0].value <= (real < 5).mean()
    assert score(samples)[0].value > 0.3


def test_what_it_refuses():
    samples = seen("train", np.arange(20))[0]
    with pytest.raises(MetricError, match="kind 'pixels'"):
        score(Readout(features=np.zeros((2, 3))))
    with pytest.raises(MetricError, match="nothing to learn"):
        score(seen("train", np.arange(20), np.zeros(20, int))[0])
    other = Readout(pixels=samples.pixels, labels={"letter": samples.labels["digit"]})
    with pytest.raises(MetricError, match=r"not labelled with 'letter'.*digit"):
        score(other)
