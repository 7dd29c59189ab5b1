"""Any metric gets an interval: its own, that of a mean, or by leaving out groups of samples."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pytest
from simulations import conditions

from bench.errors import MetricError
from bench.statistics.design import Design
from bench.statistics.intervals import with_intervals
from bench.statistics.leave_out import LeftOut, Pairs, pair_variance, standard_error
from bench.types import Evidence, MetricResult, Readout, Score


@dataclass(frozen=True)
class Spread:
    """The standard deviation of the first feature: no mean over samples."""

    judge: str = "j"
    conditions = ("text",)
    allow_small_n: bool = False

    def compute(self, evidence: Evidence) -> MetricResult:
        x = evidence.readouts["j"].features[:, 0]
        if len(x) < 390 and not self.allow_small_n:
            raise MetricError("too few")
        assert len(evidence.conditions) == len(x)
        return MetricResult(scores=(Score(metric="spread", title="Spread", value=float(x.std()), n=len(x)),))


class Own(Spread):
    def compute(self, evidence: Evidence) -> MetricResult:
        score = Score(metric="own", title="Own", value=1.0, n=4, interval=(0.0, 2.0), interval_method="mine")
        return MetricResult(scores=(score,))


class Costly(Spread):
    resampled = False


def evidence(n: int = 400, seed: int = 0) -> Evidence:
    x = np.random.default_rng(seed).normal(size=(n, 3)).astype(np.float32)
    readouts = {"j": Readout(features=x, logits={"h": x}, image_embedding=x)}
    return Evidence(conditions=tuple(conditions(n)), readouts=readouts, reference={})


def intervals(config: Spread, seen: Evidence, **options: bool) -> Score:
    (score,) = with_intervals(config, seen, config.compute(seen), Design.of(seen.conditions), **options)
    return score


def test_a_metric_that_is_no_mean_is_computed_without_each_group():
    ends = []
    for seed in range(60):
        score = intervals(Spread(), evidence(seed=seed))
        ends.append(score.interval)
        # Of a normal deviate's standard deviation the standard error is 1 / sqrt(2 n).
        assert np.subtract(*score.interval[::-1]) / 2 / 2.02 == pytest.approx(1 / np.sqrt(800), rel=0.4)
    assert 51 <= sum(low <= 1 <= high for low, high in ends) <= 60
    assert "jackknife, 40 groups" in score.interval_method


def test_a_metrics_own_interval_stays_and_a_costly_one_is_not_computed_again():
    own = intervals(Own(), evidence())
    assert (own.interval, own.interval_method) == ((0.0, 2.0), "mine")
    assert intervals(Costly(), evidence()).interval is None


def test_a_curve_keeps_no_groups():
    assert "jackknife" in intervals(Spread(), evidence()).details
    point = intervals(Spread(), evidence(), curve=True)
    assert (point.interval, point.details) == (None, {})


def test_a_heavy_metric_is_computed_again_less_often(monkeypatch):
    from bench.statistics import intervals as module

    fine = intervals(Spread(), evidence())
    monkeypatch.setattr(module, "HEAVY", 1.0)
    coarse = intervals(Spread(), evidence())
    assert "10 groups" in coarse.interval_method
    assert coarse.details["jackknife"]["digest"] != fine.details["jackknife"]["digest"]
    widths = [score.interval[1] - score.interval[0] for score in (fine, coarse)]
    assert widths[1] == pytest.approx(widths[0], rel=0.6)


def test_the_jackknife_of_a_mean_is_its_standard_error():
    x = np.random.default_rng(0).normal(size=90)
    design = Design.of(conditions(90), num_groups=90)
    values = np.array([np.delete(x, np.flatnonzero(design.group_N == k)).mean() for k in range(90)])
    se = standard_error(x.mean(), values, design.sizes_K)
    assert se == pytest.approx(x.std(ddof=1) / np.sqrt(90), rel=1e-9)


def test_terms_in_pairs_of_groups_count_once():
    """Of a squared mean about 0 all variance is in pairs: 2 dim / n², and the jackknife says twice that."""
    rng, num, n, dim = np.random.default_rng(0), 20, 100, 50
    group = np.repeat(np.arange(num), n // num)
    pairs = np.arange(num).reshape(-1, 2)
    plain, corrected = [], []
    for _ in range(100):
        x = rng.normal(size=(n, dim))
        value = np.square(x.mean(0)).sum()
        values = np.array([np.square(x[group != k].mean(0)).sum() for k in range(num)])
        both = np.array([np.square(x[~np.isin(group, pair)].mean(0)).sum() for pair in pairs])
        sizes = np.bincount(group).astype(float)
        left = np.tile([n - 5.0, n - 5.0, n - 10.0], (len(pairs), 1))
        plain.append(standard_error(value, values, sizes) ** 2)
        corrected.append(standard_error(value, values, sizes, Pairs(pairs, both, left)) ** 2)
    assert np.mean(plain) == pytest.approx(4 * dim / n**2, rel=0.2)
    assert np.mean(corrected) == pytest.approx(2 * dim / n**2, rel=0.3)
    # Where all is linear there is nothing to take off.
    values = np.array([x[group != k].mean() for k in range(num)])
    both = np.array([x[~np.isin(group, pair)].mean() for pair in pairs])
    assert pair_variance(float(x.mean()), values, sizes, Pairs(pairs, both, left)) < 1e-20


def test_an_interval_ends_where_the_truth_cannot_be():
    found = LeftOut(1.0, np.array([0.9, 1.1, 1.0, 1.0]), np.full(4, 5.0), bias=2.0, least=0.0)
    assert (found.interval("").low, found.interval("").high) == (0.0, 0.0)
    found = replace(found, bias=0.9)
    free = replace(found, least=None).interval("")
    assert free.low < 0
    assert (found.interval("").low, found.interval("").high) == (0.0, free.high)


def test_groups_of_unlike_size_are_weighted():
    rng = np.random.default_rng(0)
    ratios = []
    for _ in range(300):
        sizes = np.array([4, 4, 4, 30, 30, 30, 8, 8, 8, 8])
        x = rng.normal(size=sizes.sum())
        group = np.repeat(np.arange(10), sizes)
        values = np.array([x[group != k].mean() for k in range(10)])
        ratios.append(standard_error(x.mean(), values, sizes.astype(float)) ** 2 * len(x))
    assert np.mean(ratios) == pytest.approx(1, abs=0.1)
