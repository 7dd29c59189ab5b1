"""The Fréchet distance: closed forms, invariances, an independent eigenvalue reference."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import scipy.linalg
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.errors import MetricError
from bench.metrics.fid import Fid
from bench.metrics.frechet import Moments, frechet_distance
from bench.types import Evidence, Readout


def random_gaussian(seed: int, dim: int, n: int | None = None) -> tuple[np.ndarray, np.ndarray]:
    draws = np.random.default_rng(seed)
    x = draws.normal(size=(n or 3 * dim + 2, dim)) @ draws.normal(size=(dim, dim)) + draws.normal(size=dim)
    moments = Moments.of(x)
    return moments.mean, moments.covariance


def test_two_gaussians_of_one_dimension_match_the_formula():
    value = frechet_distance(np.array([1.0]), np.array([[4.0]]), np.array([3.0]), np.array([[9.0]]))
    assert value == pytest.approx((1 - 3) ** 2 + (2 - 3) ** 2, rel=1e-12)


def test_commuting_covariances_match_the_formula():
    a, b = np.array([1.0, 4.0, 0.25]), np.array([9.0, 1.0, 0.0])
    mean = np.array([0.5, -1.0, 2.0])
    value = frechet_distance(mean, np.diag(a), 0 * mean, np.diag(b))
    assert value == pytest.approx((mean**2).sum() + ((a**0.5 - b**0.5) ** 2).sum(), rel=1e-12)


@settings(deadline=None, max_examples=40)
@given(seed=st.integers(0, 10**6), dim=st.integers(1, 12))
def test_it_equals_the_eigenvalue_form_is_symmetric_and_ignores_rotations(seed, dim):
    (m1, c1), (m2, c2) = random_gaussian(seed, dim), random_gaussian(seed + 1, dim)
    value = frechet_distance(m1, c1, m2, c2)
    cross = np.sqrt(scipy.linalg.eigvals(c1 @ c2).astype(complex)).real.sum()
    reference = ((m1 - m2) ** 2).sum() + np.trace(c1) + np.trace(c2) - 2 * cross
    scale = np.trace(c1) + np.trace(c2)
    assert value == pytest.approx(reference, rel=1e-8, abs=1e-7 * scale)
    assert frechet_distance(m2, c2, m1, c1) == pytest.approx(value, rel=1e-8, abs=1e-8 * scale)
    q = np.linalg.qr(np.random.default_rng(seed).normal(size=(dim, dim)))[0]
    rotated = frechet_distance(q @ m1, q @ c1 @ q.T, q @ m2, q @ c2 @ q.T)
    assert rotated == pytest.approx(value, rel=1e-7, abs=1e-7 * scale)
    assert frechet_distance(m1, c1, m1, c1) <= 1e-7 * scale


@settings(deadline=None, max_examples=40)
@given(seed=st.integers(0, 10**6), cuts=st.lists(st.integers(1, 59), max_size=5))
def test_merged_moments_are_those_of_the_whole(seed, cuts):
    x = np.random.default_rng(seed).normal(3.0, 2.0, size=(60, 5)).astype(np.float32)
    bounds = [0, *sorted(set(cuts)), 60]
    merged = Moments.of(x[bounds[0] : bounds[1]])
    for start, stop in itertools.pairwise(bounds[1:]):
        merged = merged.merge(Moments.of(x[start:stop]))
    assert np.allclose(merged.mean, x.astype(np.float64).mean(0), rtol=1e-12)
    assert np.allclose(merged.covariance, np.cov(x.astype(np.float64).T), rtol=1e-10, atol=1e-12)


def test_fewer_samples_than_features_give_a_finite_distance():
    a, b = random_gaussian(1, 20, n=8), random_gaussian(2, 20, n=8)
    assert 0 < frechet_distance(*a, *b) < np.inf


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda m, c: (m[:-1], c), "shape"),
        (lambda m, c: (m * np.nan, c), "NaN"),
        (lambda m, c: (m, c * np.inf), "NaN"),
    ],
)
def test_bad_moments_are_refused(change, message):
    mean, covariance = random_gaussian(0, 4)
    with pytest.raises(MetricError, match=message):
        frechet_distance(*change(mean, covariance), mean, covariance)


def evidence(n: int, dim: int, **changes: np.ndarray) -> Evidence:
    draws = np.random.default_rng(0)
    samples = changes.get("samples", draws.normal(size=(n, dim)).astype(np.float32))
    reference = draws.normal(size=(500, dim)).astype(np.float32)
    return Evidence(
        conditions=(), readouts={"j": Readout(features=samples)}, reference={"j": Readout(features=reference)}
    )


def test_fid_refuses_a_singular_covariance_unless_told():
    with pytest.raises(MetricError, match="allow_small_n"):
        Fid(judge="j").compute(evidence(16, 16))
    (score,) = Fid(judge="j", allow_small_n=True).compute(evidence(16, 16)).scores
    assert score.details["small_n"]
    assert score.n == 16
    assert Fid(judge="j").compute(evidence(17, 16)).scores[0].details["small_n"]
    assert not Fid(judge="j").compute(evidence(2048, 16)).scores[0].details["small_n"]


def test_fid_refuses_nan_features_and_a_judge_without_any():
    with pytest.raises(MetricError, match="NaN"):
        Fid(judge="j").compute(evidence(20, 4, samples=np.full((20, 4), np.nan)))
    empty = Evidence(conditions=(), readouts={"j": Readout()}, reference={"j": Readout()})
    with pytest.raises(MetricError, match="no features"):
        Fid(judge="j").compute(empty)


def test_repeating_one_image_scores_badly():
    honest = Fid(judge="j").compute(evidence(200, 8)).scores[0].value
    repeated = np.random.default_rng(1).normal(size=(1, 8)).repeat(200, axis=0)
    cheat = Fid(judge="j").compute(evidence(200, 8, samples=repeated)).scores[0].value
    assert cheat > 5 + honest
