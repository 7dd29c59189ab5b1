"""Inception Score: torch-fidelity, bounds and known answers."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from bench.errors import MetricError
from bench.metrics.inception_score import InceptionScore, inception_scores
from bench.torchvision_guard import ensure_torchvision
from bench.types import Evidence, Readout

ensure_torchvision()


def evidence(**logits: np.ndarray) -> Evidence:
    return Evidence(conditions=(), readouts={"j": Readout(logits=logits)}, reference={})


@pytest.mark.parametrize("num", [103, 200])
@pytest.mark.parametrize("scale", [0.1, 30.0])
def test_it_is_torch_fidelitys(num, scale):
    from torch_fidelity.metric_isc import isc_features_to_metric

    logits = (scale * np.random.default_rng(0).normal(size=(num, 40))).astype(np.float32)
    theirs = isc_features_to_metric(torch.from_numpy(logits), splits=10, shuffle=True, rng_seed=2020)
    score = InceptionScore(judge="j").compute(evidence(x=logits)).scores[0]
    assert score.value == pytest.approx(theirs["inception_score_mean"], rel=1e-10)
    assert score.details["std_over_splits"] == pytest.approx(
        theirs["inception_score_std"], rel=1e-6, abs=1e-9
    )
    unshuffled = isc_features_to_metric(torch.from_numpy(logits), splits=4, shuffle=False)
    assert inception_scores(logits, 4, None).mean() == pytest.approx(
        unshuffled["inception_score_mean"], rel=1e-10
    )


def test_from_one_class_to_every_class():
    sure = 1000 * np.eye(8)
    assert inception_scores(np.tile(sure, (5, 1)), 1, 0) == pytest.approx([8])
    assert inception_scores(np.tile(sure[:1], (40, 1)), 2, 0) == pytest.approx([1, 1])
    assert inception_scores(np.zeros((40, 8)), 2, 0) == pytest.approx([1, 1])


def test_the_head_must_be_clear_and_there_must_be_enough():
    two = {"shape": np.zeros((20, 3)), "color": np.eye(20, 4)}
    with pytest.raises(MetricError, match="shape, color"):
        InceptionScore(judge="j").compute(evidence(**two))
    with pytest.raises(MetricError, match="Did you mean 'color'"):
        InceptionScore(judge="j", head="colour").compute(evidence(**two))
    assert InceptionScore(judge="j", head="shape").compute(evidence(**two)).scores[0].value == pytest.approx(
        1
    )
    with pytest.raises(MetricError, match="at least 10"):
        InceptionScore(judge="j").compute(evidence(x=np.zeros((9, 3))))
    with pytest.raises(MetricError, match="row 4 is not finite"):
        InceptionScore(judge="j").compute(
            evidence(x=np.where(np.arange(20)[:, None] == 4, np.inf, np.zeros((20, 3))))
        )
