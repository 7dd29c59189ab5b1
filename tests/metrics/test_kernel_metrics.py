"""KID and CMMD: brute force, torch-fidelity, the jackknife one by one, invariances.

Beside sayakpaul/cmmd-pytorch on 500 and 700 embeddings (tests/side_by_side/cmmd.py) CMMD is the same in
float64; in the float32 in which that code runs, its value is off by 4e-4.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.errors import MetricError
from bench.metrics import kid
from bench.metrics.cmmd import Cmmd, cmmd
from bench.metrics.kernels import KernelSums, cubic_kernel, gaussian_kernel
from bench.metrics.kid import Kid, kid_subsets
from bench.statistics.design import Design
from bench.statistics.intervals import with_intervals
from bench.torchvision_guard import ensure_torchvision
from bench.types import Condition, Evidence, Readout

ensure_torchvision()


def features(seed: int, num: int, dim: int = 6, shift: float = 0.0) -> np.ndarray:
    return np.random.default_rng(seed).normal(shift, 1.0, (num, dim)).astype(np.float32)


def evidence(samples: np.ndarray, reference: np.ndarray, **about) -> Evidence:
    def seen(rows: np.ndarray) -> Readout:
        unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
        return Readout(features=rows, image_embedding=unit, about=about)

    return Evidence(conditions=(), readouts={"j": seen(samples)}, reference={"j": seen(reference)})


def brute_mmd(x: np.ndarray, y: np.ndarray, unbiased: bool) -> float:
    """Every pair in turn, in Python."""
    x, y = x.astype(np.float64), y.astype(np.float64)

    def k(a: np.ndarray, b: np.ndarray) -> float:
        return float((a @ b / len(a) + 1) ** 3)

    def within(rows: np.ndarray) -> float:
        n = len(rows)
        pairs = [k(rows[i], rows[j]) for i in range(n) for j in range(n) if i != j or not unbiased]
        return sum(pairs) / len(pairs)

    return within(x) + within(y) - 2 * sum(k(a, b) for a in x for b in y) / (len(x) * len(y))


def test_both_estimators_equal_every_pair_in_turn():
    x, y = features(0, 9), features(1, 7, shift=0.5)
    sums = KernelSums.of(x, y, cubic_kernel)
    assert sums.unbiased() == pytest.approx(brute_mmd(x, y, True), rel=1e-12)
    assert sums.biased() == pytest.approx(brute_mmd(x, y, False), rel=1e-12)


def test_the_jackknife_equals_leaving_out_one_row_at_a_time():
    x, y = features(0, 9), features(1, 7, shift=0.5)
    less_x = np.array([brute_mmd(np.delete(x, i, 0), y, True) for i in range(9)])
    less_y = np.array([brute_mmd(x, np.delete(y, i, 0), True) for i in range(7)])
    expected = (
        8 / 9 * np.square(less_x - less_x.mean()).sum() + 6 / 7 * np.square(less_y - less_y.mean()).sum()
    )
    assert KernelSums.of(x, y, cubic_kernel).unbiased_variance() == pytest.approx(expected, rel=1e-9)


def test_subsets_are_torch_fidelitys():
    from torch_fidelity.metric_kid import kid_features_to_metric

    x, y = features(0, 90), features(1, 70, shift=0.3)
    theirs = kid_features_to_metric(
        torch.from_numpy(x),
        torch.from_numpy(y),
        kid_subsets=12,
        kid_subset_size=50,
        verbose=False,
        rng_seed=2020,
    )
    ours = kid_subsets(x, y, 12, 50, 2020)
    # torch-fidelity forms the kernel in float32
    assert ours.mean() == pytest.approx(theirs["kernel_inception_distance_mean"], rel=1e-4)
    assert ours.std() == pytest.approx(theirs["kernel_inception_distance_std"], rel=1e-4)
    exact = kid_features_to_metric(
        torch.from_numpy(x).double(), torch.from_numpy(y).double(), kid_subsets=12, kid_subset_size=50,
        verbose=False, rng_seed=2020,
    )  # fmt: skip
    assert ours.mean() == pytest.approx(exact["kernel_inception_distance_mean"], rel=1e-12)


def test_kid_is_unbiased_and_its_error_covers():
    """300 pairs of sets of one distribution: the mean is 0 within its error, and so are 95 % of all."""
    values, held = [], 0
    for seed in range(300):
        result = Kid(judge="j", estimator="full").compute(
            evidence(features(2 * seed, 40), features(2 * seed + 1, 40))
        )
        values.append(result.scores[0].value)
        held += abs(values[-1]) <= 1.96 * result.scores[0].details["standard_error"]
    assert abs(np.mean(values)) <= 3 * np.std(values) / np.sqrt(300)
    assert held / 300 >= 0.92


def test_kid_scores_and_what_it_refuses():
    given = evidence(features(0, 30), features(1, 30, shift=1.0))
    raw, thousand = Kid(judge="j", subsets=5, subset_size=20).compute(given).scores
    assert thousand.value == pytest.approx(1000 * raw.value)
    assert raw.details["std_over_subsets"] > 0
    assert raw.better == "lower"
    assert (raw.metric, thousand.metric) == ("kid", "kid-1000")
    with pytest.raises(MetricError, match=r"30 samples.*at least 1000.*estimator: full"):
        Kid(judge="j").compute(given)
    bad = features(0, 30)
    bad[3, 0] = np.nan
    with pytest.raises(MetricError, match="row 3 is not finite"):
        Kid(judge="j", estimator="full").compute(evidence(bad, features(1, 30)))


def test_a_judge_that_names_its_network_has_scores_of_its_own():
    given = evidence(features(0, 30), features(1, 30), extractor="DINOv2 ViT-L/14")
    score = Kid(judge="j", estimator="full").compute(given).scores[0]
    assert (score.metric, score.title) == ("kid/dinov2-vit-l-14", "KID (DINOv2 ViT-L/14)")


def test_cmmd_is_the_mean_over_all_pairs():
    x, y = features(0, 12).astype(np.float64), features(1, 8).astype(np.float64)

    def mean(a: np.ndarray, b: np.ndarray) -> float:
        return float(np.mean([[np.exp(-np.square(p - q).sum() / 200) for q in b] for p in a]))

    assert cmmd(x, y) == pytest.approx(1000 * (mean(x, x) + mean(y, y) - 2 * mean(x, y)), rel=1e-9)


@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 10**6), n=st.integers(3, 20), m=st.integers(3, 20), dim=st.integers(1, 6))
def test_order_rotation_and_repeated_sets_change_nothing(seed, n, m, dim):
    draws = np.random.default_rng(seed)
    x, y = draws.normal(size=(n, dim)), draws.normal(0.5, 1, size=(m, dim))
    value, biggest = cmmd(x, y), 1e-9
    assert cmmd(draws.permutation(x), draws.permutation(y)) == pytest.approx(value, abs=biggest)
    assert cmmd(np.repeat(x, 3, axis=0), y) == pytest.approx(value, abs=biggest)
    turn = np.linalg.qr(draws.normal(size=(dim, dim)))[0]
    assert cmmd(x @ turn, y @ turn) == pytest.approx(value, abs=biggest)
    assert cmmd(y, x) == pytest.approx(value, abs=biggest)
    assert abs(cmmd(x, x)) <= biggest
    unbiased = KernelSums.of(x, y, cubic_kernel).unbiased()
    again = KernelSums.of(draws.permutation(x), draws.permutation(y), cubic_kernel).unbiased()
    assert again == pytest.approx(unbiased, rel=1e-9, abs=1e-9)


def test_blocks_do_not_change_a_sum(monkeypatch):
    x, y = features(0, 50), features(1, 33)
    whole = KernelSums.of(x, y, gaussian_kernel(10.0))
    monkeypatch.setattr("bench.metrics.kernels.BLOCK", 7)
    parts = KernelSums.of(x, y, gaussian_kernel(10.0))
    assert parts.biased() == pytest.approx(whole.biased(), rel=1e-9)
    assert parts.unbiased() == pytest.approx(whole.unbiased(), rel=1e-9)


def test_cmmd_needs_embeddings():
    blind = Evidence(conditions=(), readouts={"j": Readout()}, reference={"j": Readout()})
    with pytest.raises(MetricError, match="CLIP judge"):
        Cmmd(judge="j").compute(blind)
    score = Cmmd(judge="j").compute(evidence(features(0, 9), features(1, 9))).scores[0]
    assert (score.metric, score.better, score.n) == ("cmmd", "lower", 9)


@pytest.mark.parametrize("metric", [Kid(judge="j", estimator="full"), Cmmd(judge="j")])
def test_left_out_groups_equal_computing_again_without_them(metric):
    samples, reference = features(0, 30), features(1, 20, shift=0.5)
    given = evidence(samples, reference)
    design = Design.of([Condition(id=str(i), kind="text", text="x") for i in range(30)], num_groups=7)
    found = metric.left_out(given, design)
    for score in metric.compute(given).scores:
        left_out = found[score.metric]
        assert left_out.value == pytest.approx(score.value, rel=1e-9)
        for k in range(7):
            fewer = metric.compute(evidence(samples[design.group_N != k], reference)).scores
            (expected,) = (each.value for each in fewer if each.metric == score.metric)
            assert left_out.values_K[k] == pytest.approx(expected, rel=1e-9)


def test_the_bias_of_cmmd_is_gone_from_its_interval():
    """200 pairs of sets of one distribution, of 40 and 400: most bias is the samples', and goes."""
    design = Design.of([Condition(id=str(i), kind="text", text="x") for i in range(40)], num_groups=20)
    values = np.array(
        [
            [found.value, found.corrected]
            for seed in range(200)
            for found in Cmmd(judge="j")
            .left_out(evidence(features(2 * seed, 40), features(2 * seed + 1, 400)), design)
            .values()
        ]
    )
    plain, corrected = values.mean(0)
    assert corrected < plain / 5


def test_subsets_have_the_interval_of_all_pairs_where_these_are_not_too_many(monkeypatch):
    given = evidence(features(0, 40), features(1, 50, shift=0.5))
    design = Design.of([Condition(id=str(i), kind="text", text="x") for i in range(40)])
    subsets, full = Kid(judge="j", subset_size=20), Kid(judge="j", estimator="full")
    few = with_intervals(subsets, given, subsets.compute(given), design)[0]
    all_pairs = with_intervals(full, given, full.compute(given), design)[0]
    assert few.interval == pytest.approx(all_pairs.interval)
    assert few.value != all_pairs.value
    assert "over all pairs" in few.interval_method
    monkeypatch.setattr(kid, "MOST_PAIRS", 1000)
    many = with_intervals(subsets, given, subsets.compute(given), design)[0]
    assert many.interval is None
    assert many.interval_method.startswith("none: too many pairs")
    assert with_intervals(full, given, full.compute(given), design)[0].interval == all_pairs.interval
