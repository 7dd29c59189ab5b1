"""The rule of the gate: exact ranks, intervals, and what it says of known differences."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from scipy import stats

from bench.check import speed
from bench.check.machine import Snapshot
from bench.check.rank import bounds, judge, signed_rank_cdf, spread, walsh_averages
from bench.check.settings import CheckSettings, read_settings
from bench.check.speed import measure
from bench.errors import BenchError


@pytest.fixture(autouse=True)
def quiet_machine(monkeypatch):
    """What the tests' own machine is at must not choose the clock."""
    monkeypatch.setattr(speed, "snapshot", lambda: Snapshot(load=0.5, clock_mhz=None, throttled=None))


@pytest.mark.parametrize("n", [5, 12])
def test_the_distribution_is_that_of_every_assignment_of_signs(n):
    signs = (np.arange(2**n)[:, None] >> np.arange(n)) & 1
    sums = signs @ np.arange(1, n + 1)
    every = np.array([(sums <= k).mean() for k in range(n * (n + 1) // 2 + 1)])
    assert np.allclose(signed_rank_cdf(n), every, atol=1e-12)


def test_bounds_agree_with_the_test_that_they_invert():
    """A shift inside the interval is not rejected by scipy's exact test, one outside is."""
    values = np.random.default_rng(1).normal(0.3, 1, 20)
    low, high = bounds(walsh_averages(values), 20, 0.025)
    for shift, inside in ((low + 1e-6, True), (low - 1e-6, False), (high - 1e-6, True), (high + 1e-6, False)):
        p = stats.wilcoxon(values - shift, method="exact").pvalue
        assert (p > 0.05) == inside


def test_too_few_values_bound_nothing():
    assert bounds(walsh_averages(np.ones(3)), 3, 0.01) == (-np.inf, np.inf)


def verdicts(effect: float, sigma: float, num: int) -> Counter:
    settings, rng = CheckSettings(max_rounds=160), np.random.default_rng(3)
    found: Counter[str] = Counter()
    for _ in range(num):
        d = sigma * rng.standard_t(3, settings.max_rounds) + np.log1p(effect)
        for look in settings.looks:
            speed = judge(d[:look], settings)
            if speed.verdict != "inconclusive":
                break
        found[speed.verdict] += 1
    return found


def test_equal_sides_are_the_same_and_ten_per_cent_is_slower_under_heavy_tails():
    assert verdicts(0.0, 0.03, 150)["same"] >= 148
    assert verdicts(0.10, 0.08, 100)["slower"] >= 99
    assert verdicts(-0.10, 0.03, 60)["faster"] >= 59


def test_five_per_cent_is_hardly_ever_called_the_same():
    assert verdicts(0.05, 0.08, 150)["same"] <= 7


def test_noise_is_inconclusive_and_the_rounds_it_asks_for_settle_it():
    settings, rng = CheckSettings(), np.random.default_rng(0)
    few = judge(0.3 * rng.standard_normal(40), settings)
    assert few.verdict == "inconclusive"
    assert few.more_rounds > 100
    total = 40 + 2 * few.more_rounds
    many = judge(0.3 * rng.standard_normal(total), settings)
    assert many.verdict == "same"


def test_many_cells_share_one_error_rate():
    rng = np.random.default_rng(5)
    d = 0.06 * rng.standard_normal(40) + np.log(1.06)
    alone = judge(d, CheckSettings())
    among = judge(d, CheckSettings(), comparisons=1000)
    assert among.interval[0] < alone.interval[0]


def test_the_spread_is_not_moved_by_outliers():
    values = np.random.default_rng(0).normal(0, 0.1, 2000)
    values[:50] = 100
    assert spread(values) == pytest.approx(0.1, rel=0.1)


def test_measuring_interleaves_stops_when_settled_and_is_reproducible():
    def run(log: list[str]) -> tuple:
        rng = np.random.default_rng(0)

        def side(name, seconds):
            def once():
                log.append(name)
                return seconds * np.exp(0.01 * rng.standard_normal()), seconds

            return once

        return measure(side("b", 1.0), side("h", 1.2), CheckSettings(rounds=20, max_rounds=80), seed=7)

    log: list[str] = []
    found = run(log)
    assert found.speed.verdict == "slower"
    assert found.speed.rounds == 20
    assert found.speed.ratio == pytest.approx(1.2, rel=0.02)
    pairs = [tuple(log[40:][i : i + 2]) for i in range(0, 40, 2)]  # after base against itself
    assert log[:40] == ["b"] * 40
    assert set(pairs) == {("b", "h"), ("h", "b")}
    again: list[str] = []
    assert run(again) == found
    assert again == log


def test_both_runs_of_a_pair_have_the_same_place():
    at: list[int] = []
    log: list[tuple[str, int]] = []

    def side(name):
        def once():
            log.append((name, at[-1]))
            return 1.0, 1.0

        return once

    settings = CheckSettings(rounds=10, max_rounds=10, noise_rounds=5)
    measure(side("b"), side("h"), settings, place=at.append)
    assert at == [*range(5), *range(10)]
    assert [place for _, place in log] == [k for k in at for _ in range(2)]


def test_new_processes_are_warmed_up_in_the_order_in_which_they_run():
    """So that each first run follows the other side's work, and none has the processor's caches to itself."""
    log: list[int | tuple[int, ...]] = []

    def side(number):
        def once():
            log.append(number)
            return 1.0, 1.0

        return once

    settings = CheckSettings(rounds=40, max_rounds=40, noise_rounds=5)
    measure(side(0), side(1), settings, seed=3, renew=lambda order: log.append(tuple(order)))
    after_noise = log[2 * settings.noise_rounds :]
    orders = after_noise[:: 1 + 2 * settings.per_process]
    assert set(orders) == {(0, 1), (1, 0)}
    for k, order in enumerate(orders):
        begin = k * (1 + 2 * settings.per_process) + 1
        assert tuple(after_noise[begin : begin + 2]) == order
    assert len(orders) == settings.rounds / settings.per_process


def test_new_processes_count_as_one_however_often_they_run():
    """One process in ten is 10 % slower for as long as it lives; rounds of equal code must not add up to
    an alarm."""

    def check(seed: int, effect: float):
        rng = np.random.default_rng(seed)
        speeds = [1.0, 1.0]

        def renew(order=()):
            speeds[:] = np.where(rng.random(2) < 0.1, 1.1, 1.0)

        def side(k, seconds):
            return lambda: (seconds * speeds[k] * np.exp(0.02 * rng.standard_normal()), seconds)

        renew()
        both = side(0, 1.0), side(1, 1 + effect)
        return measure(*both, CheckSettings(clock="wall"), seed=seed, renew=renew).speed

    equal = Counter(check(seed, 0.0).verdict for seed in range(60))
    assert not equal["slower"]
    assert not equal["faster"]
    slower = [check(seed, 0.1) for seed in range(40)]
    assert Counter(speed.verdict for speed in slower)["slower"] >= 38
    assert {speed.rounds % 40 for speed in slower} == {0}


def test_what_disturbs_is_noticed():
    rng = np.random.default_rng(0)
    calls = iter(range(10**6))

    def drifting():
        seconds = (1 + next(calls) / 100) * np.exp(0.01 * rng.standard_normal())
        return seconds, seconds / 2

    found = measure(drifting, drifting, CheckSettings(rounds=40, max_rounds=40))
    text = " ".join(found.notices)
    assert "drifted" in text
    assert "other load: in half of the runs the processor was away for 50 %" in text


def test_the_processors_clock_ignores_waiting():
    rng = np.random.default_rng(0)

    def side(work):
        return lambda: (work * rng.uniform(1, 9), work * np.exp(0.01 * rng.standard_normal()))

    quick = {"rounds": 20, "max_rounds": 20}
    on_the_wall = measure(side(1.0), side(1.1), CheckSettings(**quick, clock="wall"))
    assert on_the_wall.speed.verdict == "inconclusive"
    found = measure(side(1.0), side(1.1), CheckSettings(**quick, clock="processor"))
    assert found.speed.verdict == "slower"
    with pytest.raises(BenchError, match="says nothing about work on 'cuda'"):
        measure(side(1.0), side(1.0), CheckSettings(clock="processor"), device="cuda")


def test_where_others_work_the_processors_clock_decides_and_the_walls_may_deny():
    def found(base, head, **settings):
        rng = np.random.default_rng(0)

        def side(wall, cpu):
            return lambda: (wall * rng.uniform(1, 1.02), cpu * np.exp(0.01 * rng.standard_normal()))

        quick = CheckSettings(rounds=20, max_rounds=20, **settings)
        return measure(side(*base), side(*head), quick)

    quiet = found((1.0, 1.0), (1.2, 1.0))  # head waits: on a quiet machine the wall-clock says it
    assert (quiet.clock, quiet.speed.verdict) == ("wall", "slower")
    busy = found((1.5, 1.0), (1.8, 1.2))
    assert (busy.clock, busy.speed.verdict) == ("processor", "slower")
    assert "not the wall-clock's" in " ".join(busy.notices)
    assert busy.base_s[0] >= 1.5 > busy.base_cpu_s[0]
    waits = found((1.5, 1.0), (2.0, 1.0))
    assert (waits.clock, waits.speed.verdict, waits.speed.more_rounds) == ("processor", "inconclusive", 20)
    assert found((1.5, 1.0), (2.0, 1.0), clock="processor").speed.verdict == "same"
    assert found((1.5, 1.0), (2.0, 1.0), clock="wall").speed.verdict == "slower"


def test_settings_are_read_and_faults_name_the_key(tmp_path):
    path = tmp_path / "check.yaml"
    path.write_text("rounds: 20\nmargins: {fid: 0.5}\n")
    found = read_settings(path, {"clip-cosine": 0.01}, max_rounds=50, min_effect=None)
    assert found.looks == (20, 40, 50)
    assert found.margins == {"fid": 0.5, "clip-cosine": 0.01}
    for text, message in (
        ("rouns: 3", "unknown key 'rouns'"),
        ("rounds: 3", "rounds"),
        ("margins: 3", "margins: maps"),
        ("rounds: 50\nmax_rounds: 20", "max_rounds"),
        ("[1]", "no mapping"),
    ):
        path.write_text(text)
        with pytest.raises(BenchError, match=message):
            read_settings(path, {})
