"""FID∞: known Gaussians, its influence function against leaving samples out, coverage of its interval."""

from __future__ import annotations

import numpy as np
import pytest

from bench.errors import MetricError
from bench.metrics.fid_infinity import FidInfinity, fid_infinity, influence
from bench.metrics.frechet import FrechetTarget, Moments
from bench.types import Evidence, Readout

DIM = 6


def drawn(seed: int, num: int) -> np.ndarray:
    """Of a Gaussian with mean 0.3 and standard deviation 1.3 in each dimension."""
    return np.random.default_rng(seed).normal(0.3, 1.3, (num, DIM))


REFERENCE = Moments(10**9, np.zeros(DIM), np.eye(DIM) * (10**9 - 1))
TRUTH = DIM * (0.3**2 + 0.3**2)


def test_the_influence_is_what_leaving_a_sample_out_does():
    rows = drawn(0, 4000)
    target = FrechetTarget.of(REFERENCE)
    whole = target.distance_of(Moments.of(rows))
    expected = [
        len(rows) * (whole - target.distance_of(Moments.of(np.delete(rows, i, 0)))) for i in range(40)
    ]
    expected = np.array(expected) - np.mean(expected)
    found = influence(rows, REFERENCE)[:40]
    assert np.corrcoef(found, expected)[0, 1] >= 0.9999
    assert found - found.mean() == pytest.approx(expected, abs=0.02 * np.abs(expected).max())


def test_the_bias_goes_and_the_interval_holds_the_truth():
    """200 sets of 400: FID itself is biased by several standard errors of its mean, FID∞ is not."""
    target = FrechetTarget.of(REFERENCE)
    plain, extrapolated, held = [], [], 0
    for seed in range(200):
        rows = drawn(seed, 400)
        plain.append(target.distance_of(Moments.of(rows)))
        found = fid_infinity(rows, REFERENCE, 40, 10, seed)
        extrapolated.append(found.value)
        held += abs(found.value - TRUTH) <= 1.96 * found.standard_error
    error = np.std(extrapolated) / np.sqrt(200)
    assert np.mean(plain) - TRUTH > 4 * np.std(plain) / np.sqrt(200)
    assert abs(np.mean(extrapolated) - TRUTH) <= 3 * error
    assert 0.91 <= held / 200 <= 0.985


def test_it_is_seeded_named_by_its_features_and_refuses_small_subsets():
    def given(num: int, **about: str) -> Evidence:
        seen = [Readout(features=drawn(i, num).astype(np.float32), about=about) for i in range(2)]
        return Evidence(conditions=(), readouts={"j": seen[0]}, reference={"j": seen[1]})

    metric = FidInfinity(judge="j", points=5)
    first, second = (metric.compute(given(200)).scores[0] for _ in range(2))
    assert first == second
    assert first.interval[0] < first.value < first.interval[1]
    assert (first.metric, first.title) == ("fid-infinity", "FID∞")
    named = metric.compute(given(200, extractor="DINOv2 ViT-B/14")).scores[0]
    assert (named.metric, named.title) == ("fd-infinity/dinov2-vit-b-14", "FD∞-DINOv2 ViT-B/14")
    with pytest.raises(MetricError, match=r"4 samples in the smallest subset.*at least 70"):
        metric.compute(given(40))
    marked = FidInfinity(judge="j", points=5, allow_small_n=True).compute(given(40)).scores[0]
    assert marked.details["small_n"]
