"""Fréchet distances with groups left out: the same as computing each anew, and an interval that holds."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from simulations import conditions, features, frechet_trial, share

from bench.errors import MetricError
from bench.metrics.fid import Fid
from bench.metrics.frechet import Moments, frechet_distance
from bench.statistics import frechet
from bench.statistics.design import Design
from bench.statistics.frechet import extrapolated_bias, frechet_bootstrap, frechet_left_out
from bench.statistics.intervals import with_intervals
from bench.types import Condition, Evidence, Readout


def distance(x: np.ndarray, reference: Moments) -> float:
    moments = Moments.of(x)
    return frechet_distance(moments.mean, moments.covariance, reference.mean, reference.covariance)


@pytest.mark.parametrize(
    ("n", "dim", "each"), [(200, 24, 1), (200, 24, 4), (37, 24, 1), (24, 24, 1), (15, 24, 1)]
)
def test_each_value_is_that_of_the_samples_that_stay(n, dim, each):
    world = features("gaussian", dim)
    x = world.draw(np.random.default_rng(0), n).astype(np.float32)
    design = Design.of(conditions(n, each))
    found = frechet_left_out(x, world.reference, design)
    # Fewer samples than features: eigenvalues that are zero come out as roots of rounding errors.
    tolerance = {"rel": 1e-9 if n > dim + 5 else 1e-6}
    assert found.value == pytest.approx(distance(x, world.reference), **tolerance)
    for k in range(design.num_groups):
        expected = distance(x[design.group_N != k], world.reference)
        assert found.values_K[k] == pytest.approx(expected, **tolerance)
    assert np.array_equal(np.unique(found.pairs.groups_P2), np.sort(found.pairs.groups_P2.ravel()))
    for pair, value in list(zip(found.pairs.groups_P2, found.pairs.values_P))[:5]:
        expected = distance(x[~np.isin(design.group_N, pair)], world.reference)
        assert value == pytest.approx(expected, **tolerance)


def test_where_prompts_describe_the_reference_the_bias_stays():
    world = features("gaussian", 16)
    x, design = world.draw(np.random.default_rng(3), 200), Design.of(conditions(200))
    alone = frechet_left_out(x, world.reference, design)
    shared = frechet_left_out(x, world.reference, replace(design, of_reference=True))
    assert alone.bias > 0
    assert shared.bias is None
    assert "prompts describe" in shared.note
    assert np.array_equal(shared.values_K, alone.values_K)
    interval = shared.interval(design.label)
    assert interval.low < shared.value < interval.high


@pytest.mark.parametrize("size", [5, 200])
def test_processors_that_share_the_work_change_nothing(size, monkeypatch):
    """Fewer and more samples than features."""
    world = features("gaussian", 40)
    x, design = world.draw(np.random.default_rng(4), size * 2), Design.of(conditions(size * 2))
    alone = frechet_left_out(x, world.reference, design)
    monkeypatch.setattr(frechet, "LARGE", 1)
    monkeypatch.setattr(frechet.os, "cpu_count", lambda: 4)
    shared = frechet_left_out(x, world.reference, design)
    assert np.array_equal(shared.values_K, alone.values_K, equal_nan=True)
    assert np.array_equal(shared.pairs.values_P, alone.pairs.values_P)
    assert shared.bias == alone.bias


@pytest.mark.parametrize("num", [160, 300])
def test_the_bias_of_few_samples_in_each_of_many_classes_is_that_of_many_draws(num):
    """Weights of what stays differ by a fifteenth and more, and each set counts for fewer than it has."""
    world, rng = features("gaussian", 48).in_classes(10), np.random.default_rng(1)
    design = Design.of(conditions(num, num // 10, "class"))
    found = [frechet_left_out(world.draw(rng, num), world.reference, design) for _ in range(30)]
    bias = np.mean([item.value for item in found]) - world.truth
    assert np.mean([item.bias for item in found]) == pytest.approx(bias, rel=0.05)


def test_what_stays_of_a_class_counts_for_all_of_it(monkeypatch):
    """Against weighted moments taken one by one, with samples turned once and turned each time."""
    rng, dim, counts = np.random.default_rng(0), 5, [25, 25, 31, 60]
    label_N = np.repeat(np.arange(4), counts)
    x = rng.normal(size=(len(label_N), dim)) + label_N[:, None]
    reference = Moments.of(rng.normal(size=(300, dim)))
    design = Design.of([Condition(id=f"c{k}", kind="class", labels={"c": str(k)}) for k in label_N])
    kept = frechet_left_out(x, reference, design)
    monkeypatch.setattr("bench.statistics.frechet._KEPT", 0)
    turned = frechet_left_out(x, reference, design)
    assert kept.values_K == pytest.approx(turned.values_K, rel=1e-9)
    for k in range(design.num_groups):
        stay = design.group_N != k
        left = np.bincount(label_N[stay], minlength=4)
        weight = (np.array(counts) / left)[label_N[stay]] * stay.sum() / len(label_N)
        mean = weight @ x[stay] / stay.sum()
        covariance = (weight[:, None] * (x[stay] - mean)).T @ (x[stay] - mean) / (stay.sum() - 1)
        expected = frechet_distance(mean, covariance, reference.mean, reference.covariance)
        assert kept.values_K[k] == pytest.approx(expected, rel=1e-9)
        for pair, count in zip(kept.pairs.groups_P2, kept.pairs.left_P3):
            if k in pair:
                assert count[list(pair).index(k)] == pytest.approx(
                    weight.sum() ** 2 / np.square(weight).sum()
                )


def test_bootstrap_replicates_are_those_of_the_samples_drawn():
    world = features("heavy", 8)
    x, design = world.draw(np.random.default_rng(0), 60), Design.of(conditions(60, 2))
    draws, order = np.random.default_rng(0), np.arange(30)
    for found in frechet_bootstrap(x, world.reference, design, 3):
        drawn = order[(draws.random(30) * 30).astype(int)]
        rows = np.concatenate([np.flatnonzero(design.unit_N == unit) for unit in drawn])
        assert found == pytest.approx(distance(x[rows], world.reference), rel=1e-9)


def test_a_parabola_is_extrapolated_exactly():
    def value(x: float) -> float:
        return 3 + 5 * x - 2 * x * x

    points = [(x, value(x)) for x in (0.1, 0.13, 0.2)]
    assert extrapolated_bias(*points) == pytest.approx(value(0.1) - 3)


def test_the_bias_is_that_of_many_draws():
    world = features("heavy", 48)
    rng, design = np.random.default_rng(5), Design.of(conditions(160))
    found = [frechet_left_out(world.draw(rng, 160), world.reference, design) for _ in range(40)]
    bias = np.mean([item.value for item in found]) - world.truth
    assert bias > 5 * np.std([item.value for item in found])  # without correction no interval would hold
    assert np.mean([item.bias for item in found]) == pytest.approx(bias, rel=0.06)


def test_classes_are_left_out_in_equal_shares():
    """51 or 52 samples of each of ten classes: out of balance they have a bias of their own."""
    rng, dim, num = np.random.default_rng(3), 16, 512
    means = rng.normal(0, 3, (10, dim))
    label_N = np.arange(num) % 10
    names = [Condition(id=f"c{k}", kind="class", labels={"c": str(k)}) for k in label_N]
    weights = np.bincount(label_N) / num
    centre = weights @ means
    between = (weights[:, None] * (means - centre)).T @ (means - centre)
    wide, narrow = np.eye(dim) * 0.5, np.eye(dim) * 0.2
    reference = Moments(10**6, centre, (between + wide) * (10**6 - 1))
    truth = frechet_distance(centre, between + narrow, centre, between + wide)
    design, found = Design.of(names), []
    for _ in range(40):
        x = means[label_N] + rng.normal(0, np.sqrt(0.2), (num, dim))
        found.append(frechet_left_out(x, reference, design))
    bias = np.mean([item.value for item in found]) - truth
    assert np.mean([item.bias for item in found]) == pytest.approx(bias, abs=0.15 * abs(bias))
    # The interval is that of single draws: it may miss, but not always.
    held = [ends.low <= truth <= ends.high for ends in (item.interval("") for item in found)]
    assert np.mean(held) > 0.85


@pytest.mark.parametrize(
    ("kind", "dim", "n"), [("gaussian", 32, 96), ("heavy", 32, 256), ("rectified", 24, 128)]
)
def test_intervals_hold_the_truth(kind, dim, n):
    # Of 120 that hold it with 95 %, fewer than 106 (88.3 %) come once in 1,000.
    assert share(frechet_trial(kind, dim, n), 120) > 0.883


def test_a_small_n_says_that_its_bias_stays():
    world = features("gaussian", 32)
    found = frechet_left_out(
        world.draw(np.random.default_rng(0), 40), world.reference, Design.of(conditions(40))
    )
    assert found.bias is None
    assert "more than 51 samples" in found.interval("40 samples").method
    assert found.corrected == found.value


def test_fid_has_an_interval_about_its_value_without_bias():
    rng = np.random.default_rng(0)
    samples, reference = rng.normal(0.2, 1, (300, 16)), rng.normal(size=(500, 16))
    evidence = Evidence(
        conditions=tuple(conditions(300)),
        readouts={"j": Readout(features=samples.astype(np.float32))},
        reference={"j": Readout(features=reference.astype(np.float32))},
    )
    config, design = Fid(judge="j", allow_small_n=True), Design.of(conditions(300))
    result = config.compute(evidence)
    (score,) = with_intervals(config, evidence, result, design)
    assert score.value == result.scores[0].value
    assert sum(score.interval) / 2 == pytest.approx(score.value - score.details["bias"])
    assert len(score.details["jackknife"]["values"]) == 40
    assert len(score.details["jackknife"]["pairs"]["values"]) == 20
    (point,) = with_intervals(config, evidence, result, design, curve=True)
    assert point.interval == score.interval
    assert "jackknife" not in point.details
    with pytest.raises(MetricError, match="NaN"):
        frechet_left_out(samples * np.nan, Moments.of(reference), design)
