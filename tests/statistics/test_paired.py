"""Paired comparisons: SciPy's paired t, what pairing gains, what is refused, Holm's correction."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy import stats
from simulations import (
    conditions,
    cosines,
    features,
    frechet_pair_trial,
    hits_trial,
    paired_trial,
    share,
    side,
)

from bench.errors import ResultError
from bench.statistics.design import Design
from bench.statistics.frechet import frechet_left_out
from bench.statistics.intervals import with_left_out
from bench.statistics.paired import compare_paired, holm, holm_adjusted
from bench.types import Score


def test_a_mean_is_compared_as_scipys_paired_t_does():
    rng = np.random.default_rng(0)
    x = cosines(rng, 200, 1)
    y = x + 0.01 * rng.normal(size=200) + 0.002
    (found,) = compare_paired(side("a", 200, 1, x), side("b", 200, 1, y))
    expected = stats.ttest_rel(y, x)
    assert found.p == pytest.approx(expected.pvalue)
    assert found.interval == pytest.approx(tuple(expected.confidence_interval()))
    assert found.effect == pytest.approx((y - x).mean() / (y - x).std(ddof=1))
    assert found.n == 200
    assert found.verdict == "better"
    (back,) = compare_paired(side("b", 200, 1, y), side("a", 200, 1, x))
    assert (back.difference, back.p, back.verdict) == (-found.difference, found.p, "worse")


def test_pairing_finds_what_two_separate_intervals_would_not():
    rng = np.random.default_rng(0)
    x = cosines(rng, 200, 1)
    (found,) = compare_paired(
        side("a", 200, 1, x), side("b", 200, 1, x + 0.005 + 0.01 * rng.normal(size=200))
    )
    assert found.distinguishable
    assert stats.ttest_ind(x, x + 0.005).pvalue > 0.3


def test_equal_cells_do_not_differ():
    x = cosines(np.random.default_rng(0), 50, 1)
    (found,) = compare_paired(side("a", 50, 1, x), side("b", 50, 1, x))
    assert (found.difference, found.p, found.effect, found.verdict) == (0, 1, 0, "not distinguishable")


def test_other_prompts_or_seeds_are_refused_by_name():
    x = cosines(np.random.default_rng(0), 50, 1)
    a, b = side("a", 50, 1, x), side("b", 50, 1, x)
    b.samples.loc[7, "seed"] = 99
    with pytest.raises(ResultError, match="sample 7 of 'a' has seed 7, that of 'b' 99"):
        compare_paired(a, b)
    with pytest.raises(ResultError, match="50 samples and 'b' 40"):
        compare_paired(a, side("b", 40, 1, x[:40]))


def test_samples_that_failed_on_either_side_are_left_out_of_both():
    x = cosines(np.random.default_rng(0), 50, 1)
    a, b = side("a", 50, 1, x), side("b", 50, 1, x.copy())
    b.samples.loc[3, ["failed_step", "clip-cosine"]] = [5, np.nan]
    (found,) = compare_paired(a, b)
    assert (found.n, found.difference) == (49, 0)


def test_metrics_without_samples_or_groups_are_left_out():
    x = cosines(np.random.default_rng(0), 50, 1)
    a, b = (
        replace(s, scores=(*s.scores, Score(metric="seconds-per-image", title="s", value=1.0, n=50)))
        for s in (side("a", 50, 1, x), side("b", 50, 1, x))
    )
    assert [item.metric for item in compare_paired(a, b)] == ["clip-cosine"]
    assert compare_paired(a, b, metrics=["fid"]) == []


def test_holm_agrees_with_a_known_example_and_only_ever_raises_p():
    # Holm 1979, as R's p.adjust(c(0.01, 0.04, 0.03, 0.005), "holm") gives it.
    assert holm_adjusted([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm_adjusted([]) == []
    x = cosines(np.random.default_rng(0), 50, 1)
    found = compare_paired(side("a", 50, 1, x), side("b", 50, 1, x + 0.001 * np.arange(50) % 0.003))
    corrected = holm(found * 20)
    assert all(item.p_holm == min(1, 20 * item.p) for item in corrected)


@pytest.mark.parametrize(
    "trial",
    [paired_trial(256, 1, 0.0, rejects=True), paired_trial(256, 8, 0.0, rejects=True), hits_trial(256, 1)],
    ids=["cosine", "cosine by prompt", "accuracy"],
)
def test_equals_are_told_apart_as_rarely_as_promised(trial):
    assert 0.01 < share(trial, 300) < 0.09


def test_the_interval_of_a_difference_holds_it():
    assert 0.91 < share(paired_trial(256, 4, 0.02, rejects=False), 300) < 0.99


@pytest.mark.parametrize("lacks", ["pairs", "what stayed of each"])
def test_a_record_of_an_older_version_without_pairs_of_groups_is_compared_without_them(lacks):
    world, design = features("gaussian", 32), Design.of(conditions(96))
    rng, sides = np.random.default_rng(0), []
    for name in ("a", "b"):
        found = frechet_left_out(world.draw(rng, 96), world.reference, design)
        score = Score(metric="fid", title="FID", value=found.value, better="lower", n=96)
        sides.append(side(name, 96, 1, score=with_left_out(score, found, design)))
    (new,) = compare_paired(*sides)
    kept = dict(sides[0].scores[0].details["jackknife"])
    if lacks == "pairs":
        del kept["pairs"]
    else:
        kept["pairs"] = {name: value for name, value in kept["pairs"].items() if name != "left"}
    older = replace(sides[0], scores=(replace(sides[0].scores[0], details={"jackknife": kept}),))
    (old,) = compare_paired(older, sides[1])
    assert (old.difference, old.method) == (new.difference, new.method)
    assert 0.6 * old.se < new.se < old.se


def test_equal_frechet_distances_are_told_apart_as_rarely_as_promised():
    assert share(frechet_pair_trial("heavy", 16, 128, shared=0.5), 150) < 0.107
