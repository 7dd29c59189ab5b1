"""Precision, recall, density, coverage, memorisation and diversity: prdc, brute force, cheats."""

from __future__ import annotations

import contextlib
import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.neighbors import NearestNeighbors

from bench.errors import MetricError
from bench.metrics.distances import nearest_squared, radii_squared
from bench.metrics.diversity import Diversity, condition_diversity
from bench.metrics.memorisation import Memorisation, nearest_real
from bench.metrics.prdc import Prdc, manifolds
from bench.statistics.design import Design
from bench.types import Condition, Evidence, Readout


def normal(seed: int, num: int, dim: int = 5, shift: float = 0.0) -> np.ndarray:
    return np.random.default_rng(seed).normal(shift, 1.0, (num, dim)).astype(np.float32)


def evidence(samples: np.ndarray, reference: np.ndarray, ids: list[str] | None = None) -> Evidence:
    names = ids or [str(i) for i in range(len(samples))]
    return Evidence(
        conditions=tuple(Condition(id=name, kind="class") for name in names),
        readouts={"j": Readout(features=samples)},
        reference={"j": Readout(features=reference)},
    )


def values(metric, given: Evidence) -> dict[str, float]:
    return {score.metric: score.value for score in metric.compute(given).scores}


@settings(deadline=None, max_examples=25)
@given(seed=st.integers(0, 10**6), n=st.integers(8, 60), m=st.integers(8, 60), k=st.integers(1, 5))
def test_all_four_are_those_of_the_authors_package(seed, n, m, k):
    from prdc import compute_prdc

    draws = np.random.default_rng(seed)
    samples, reference = draws.normal(size=(n, 4)), draws.normal(0.5, 1.5, size=(m, 4))
    with contextlib.redirect_stdout(io.StringIO()):
        theirs = compute_prdc(reference, samples, k)
    ours = values(Prdc(judge="j", k=k), evidence(samples, reference))
    assert ours == pytest.approx(theirs, abs=1e-12)


def test_distances_are_scikit_learns_to_rounding_far_from_the_origin():
    x, y = normal(0, 300, 16, shift=1000.0), normal(1, 200, 16, shift=1000.0)
    finder = NearestNeighbors(n_neighbors=6, algorithm="kd_tree").fit(x.astype(np.float64))
    assert np.sqrt(radii_squared(x, 5)) == pytest.approx(
        finder.kneighbors(x.astype(float))[0][:, 5], rel=1e-9
    )
    distance, row = finder.kneighbors(y.astype(float), n_neighbors=1)
    squared, index = nearest_squared(y, x)
    assert np.sqrt(squared) == pytest.approx(distance[:, 0], rel=1e-9)
    assert np.array_equal(index, row[:, 0])


def test_a_set_compared_with_itself_fills_it_exactly():
    """prdc's own rounding lets density of copies drift from 1: a copy of a ball's k-th neighbour is on its
    edge, not inside."""
    rows = normal(3, 400, 24)
    copies = np.random.default_rng(0).permutation(rows)
    found = values(Prdc(judge="j"), evidence(copies, rows))
    assert found == {"precision": 1.0, "recall": 1.0, "density": 1.0, "coverage": 1.0}


def test_sets_far_apart_share_nothing_and_half_the_modes_cost_recall_and_coverage():
    assert set(values(Prdc(judge="j"), evidence(normal(0, 50), normal(1, 50, shift=99))).values()) == {0.0}
    modes = np.repeat(20 * np.eye(5, dtype=np.float32), 40, axis=0)
    reference, samples = modes + normal(0, 200), modes + normal(1, 200)
    half = np.concatenate(
        [samples[:80], samples[:80] + normal(2, 80) / 50, samples[:40] + normal(3, 40) / 50]
    )
    whole, less = (values(Prdc(judge="j"), evidence(x, reference)) for x in (samples, half))
    assert less["recall"] < 0.6 < 0.8 < whole["recall"]
    assert less["coverage"] < 0.5 < 0.8 < whole["coverage"]
    assert less["precision"] > 0.8


def test_columns_average_to_the_scores_and_sets_are_cut_by_seed():
    given = evidence(normal(0, 60), normal(1, 80, shift=0.5))
    for metric in (Prdc(judge="j"), Prdc(judge="j", size=40, seed=3)):
        result = metric.compute(given)
        for score in result.scores:
            if score.metric in result.per_sample:
                column = result.per_sample[score.metric]
                assert column.shape == (60,)
                assert np.nanmean(column) == pytest.approx(score.value, abs=1e-6)
        assert values(metric, given) == values(metric, given)
    assert result.scores[0].n == 40
    with pytest.raises(MetricError, match="at least 61"):
        Prdc(judge="j", size=61).compute(given)


@settings(deadline=None, max_examples=20)
@given(seed=st.integers(0, 10**6))
def test_order_does_not_matter_and_blocks_do_not_show(seed):
    draws = np.random.default_rng(seed)
    samples, reference = draws.normal(size=(40, 3)), draws.normal(size=(30, 3))
    first = manifolds(samples, reference, 3)
    order = draws.permutation(40)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("bench.metrics.distances.BLOCK", 7)
        second = manifolds(samples[order], reference, 3)
    assert np.array_equal(first.precise[order], second.precise)
    assert np.array_equal(first.density[order], second.density)
    assert np.array_equal(first.recalled, second.recalled)
    assert np.array_equal(first.covered, second.covered)


def test_copies_are_found_and_named():
    real = normal(0, 300, 8)
    copied = np.array([7, 7, 250])
    found = nearest_real(np.concatenate([real[copied], normal(1, 3, 8, shift=50)]), real)
    assert found.row[:3].tolist() == copied.tolist()
    assert found.distance[:3].tolist() == [0, 0, 0]
    assert found.authentic.tolist() == [False] * 3 + [True] * 3
    result = values(Memorisation(judge="j"), evidence(real[::2], real))
    assert result == {"authenticity": 0.0, "nearest-real-distance": 0.0}


def test_fresh_images_are_about_half_authentic():
    found = nearest_real(normal(0, 4000, 8), normal(1, 4000, 8))
    assert 0.45 <= found.authentic.mean() <= 0.6


def test_diversity_of_known_distances():
    rows = np.array([[0.0, 0], [3, 4], [1, 1], [1, 1], [9, 9]], np.float32)
    names = ["a", "a", "b", "b", "c"]
    value, each = condition_diversity(rows, names, squared=False)
    assert value == 2.5
    assert each[:4].tolist() == [5, 5, 0, 0]
    assert np.isnan(each[4])
    assert condition_diversity(rows, names, squared=True)[0] == 12.5
    order = [3, 0, 4, 1, 2]
    assert condition_diversity(rows[order], [names[i] for i in order], squared=False)[0] == 2.5
    with pytest.raises(MetricError, match="no condition has two samples"):
        Diversity(judge="j").compute(evidence(rows, rows))
    score = Diversity(judge="j").compute(evidence(rows, rows, names)).scores[0]
    assert (score.value, score.n, score.better) == (2.5, 4, "higher")


def test_recall_and_coverage_without_groups_are_those_of_the_others():
    samples, reference = normal(0, 60), normal(1, 50, shift=0.5)
    given = evidence(samples, reference)
    design = Design.of(given.conditions, num_groups=6)
    found = Prdc(judge="j").left_out(given, design)
    assert set(found) == {"recall", "coverage"}
    for k in range(6):
        fewer = values(Prdc(judge="j"), evidence(samples[design.group_N != k], reference))
        assert {name: each.values_K[k] for name, each in found.items()} == {
            name: fewer[name] for name in found
        }
    assert Prdc(judge="j", size=40).left_out(given, design) == {}
