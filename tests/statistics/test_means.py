"""Intervals of means against SciPy, statsmodels' formulas written out, and what must not change them."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats
from simulations import accuracy_trial, conditions, cosine_trial, cosines, share

from bench.statistics.design import Design
from bench.statistics.means import bootstrap_means, linear, mean_interval, unit_totals


def test_bca_agrees_with_scipys():
    values = np.random.default_rng(3).exponential(size=150)
    found = mean_interval(values, Design.of(conditions(150)), replicates=20_000)
    expected = stats.bootstrap((values,), np.mean, n_resamples=20_000, rng=1).confidence_interval
    width = expected.high - expected.low
    assert found.low == pytest.approx(expected.low, abs=0.03 * width)
    assert found.high == pytest.approx(expected.high, abs=0.03 * width)
    assert "BCa" in found.method


def test_wilson_agrees_with_scipys_but_for_students_quantile():
    right = np.arange(2000) % 10 == 0
    found = mean_interval(right, Design.of(conditions(2000)))
    expected = stats.binomtest(int(right.sum()), len(right)).proportion_ci(method="wilson")
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), rel=2e-3)


@pytest.mark.parametrize("value", [True, False])
def test_a_perfect_share_is_not_certain(value):
    found = mean_interval(np.full(512, value), Design.of(conditions(512)))
    assert (found.high, found.low)[not value] == float(value)
    assert 0.005 < found.high - found.low < 0.01


def test_the_standard_error_is_the_textbooks():
    rng = np.random.default_rng(0)
    values = rng.normal(size=120)
    plain = linear(*unit_totals(values, Design.of(conditions(120))), np.zeros(120, int))
    assert plain.se == pytest.approx(values.std(ddof=1) / np.sqrt(120))
    clustered = Design.of(conditions(120, 4))
    means = values.reshape(4, 30).mean(0)
    found = linear(*unit_totals(values, clustered), clustered.stratum_U)
    assert found.se == pytest.approx(means.std(ddof=1) / np.sqrt(30))
    assert found.df == 29
    classes = Design.of(conditions(120, 12, "class"))
    within = values.reshape(12, 10).var(0, ddof=1) / 12
    found = linear(*unit_totals(values, classes), classes.stratum_U)
    assert found.se == pytest.approx(np.sqrt(within.sum()) / 10)
    assert found.df == 110


@pytest.mark.parametrize(("each", "kind"), [(1, "text"), (6, "text"), (3, "class"), (12, "class")])
def test_bootstrap_replicates_spread_as_the_standard_error_says(each, kind):
    design = Design.of(conditions(240, each, kind))
    values = np.random.default_rng(1).normal(size=240) + design.unit_N % 7
    totals = unit_totals(values, design)
    means = np.concatenate(list(bootstrap_means(*totals, design.stratum_U, 20_000)))
    found = linear(*totals, design.stratum_U)
    assert means.std() == pytest.approx(found.se, rel=0.03)
    assert means.mean() == pytest.approx(found.mean, abs=0.05 * found.se)


def test_samples_of_a_prompt_count_as_less_than_so_many_prompts():
    values = np.tile(cosines(np.random.default_rng(2), 64, 1), 8)  # a prompt's samples are all alike
    alike = mean_interval(values, Design.of(conditions(512, 8)))
    apart = mean_interval(values, Design.of(conditions(512)))
    assert alike.se == pytest.approx(apart.se * np.sqrt(8), rel=0.02)


def test_order_changes_nothing():
    rng = np.random.default_rng(4)
    values, asked, order = cosines(rng, 300, 3), conditions(300, 3), rng.permutation(300)
    a = mean_interval(values, Design.of(asked))
    b = mean_interval(values[order], Design.of([asked[i] for i in order]))
    assert (a.low, a.high, a.se) == pytest.approx((b.low, b.high, b.se), rel=1e-12)


def test_too_little_to_say():
    assert mean_interval(np.ones(4), Design.of(conditions(4, 4))) is None  # one prompt
    assert mean_interval(np.array([1.0, np.nan]), Design.of(conditions(2))) is None
    few = mean_interval(np.arange(10.0) / 3, Design.of(conditions(10)))
    assert "Student" in few.method
    expected = stats.t.interval(0.95, 9, 1.5, stats.sem(np.arange(10.0) / 3))
    assert (few.low, few.high) == pytest.approx(expected)


@pytest.mark.parametrize(
    "trial",
    [
        accuracy_trial(512, 1, 0.9, 0),
        accuracy_trial(512, 8, 0.8, 0.3),
        accuracy_trial(510, 51, 0.9, 0, "class"),
        cosine_trial(512, 1),
        cosine_trial(256, 8),
    ],
    ids=["accuracy", "accuracy by prompt", "accuracy by class", "cosine", "cosine by prompt"],
)
def test_intervals_hold_the_truth(trial):
    # Of 300 that hold it with 95 %, fewer than 272 (90.7 %) or more than 297 come once in 1,000.
    assert 0.907 < share(trial, 300) <= 0.99
