"""The pytest plugin, in a test suite of somebody's own."""

from __future__ import annotations

import textwrap

import pytest

pytest_plugins = ["pytester"]

OWN_TESTS = """
import time
from bench.samplers.langevin import Langevin
from bench.samplers.prior import Prior

ROUNDS = dict(rounds=12, max_rounds=12, noise_rounds=5, min_effect=0.5)


def test_as_good(tr0n_bench):
    found = tr0n_bench.check(
        head=Langevin(steps=2, step_size=0.3), base=Langevin(steps=2, step_size=0.3), num=20, tile=4, **ROUNDS
    )
    assert all(item.loss == 0 for item in found.quality)


def test_faster_but_worse(tr0n_bench):
    tr0n_bench.check(
        head=Prior(), base=Langevin(steps=8, step_size=0.3, momentum=0.5), num=40, tile=8, **ROUNDS
    )


def test_functions(tr0n_bench):
    found = tr0n_bench.speed(
        lambda: time.sleep(0.03), lambda: time.sleep(0.001), **{**ROUNDS, "rounds": 20, "max_rounds": 20}
    )
    assert found.speed.verdict == "slower"
"""


def test_the_fixture_passes_equals_and_fails_what_is_worse(pytester: pytest.Pytester):
    pytester.makepyfile(textwrap.dedent(OWN_TESTS))
    result = pytester.runpytest_inprocess("-p", "bench.pytest_plugin", "-p", "no:cacheprovider")
    result.assert_outcomes(passed=2, failed=1)
    result.stdout.fnmatch_lines(["*Prior: quality lost*", "*target-probability lost*"])
