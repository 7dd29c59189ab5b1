"""Power: what is promised is what simulated comparisons find, from a run's spread or a stated one."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from simulations import cosines, side

from bench.cli import main
from bench.errors import ResultError
from bench.statistics.paired import compare_paired
from bench.statistics.power import detectable, measured, samples_needed
from bench.store import CellInfo, Record, RunStore


def test_the_detectable_difference_is_found_as_often_as_promised():
    rng, found, n, sd = np.random.default_rng(0), 0, 128, 0.03
    gain = detectable(sd, n, power=0.8)
    for _ in range(200):
        x = cosines(rng, n, 1)
        y = x + gain + sd * rng.normal(size=n)
        found += compare_paired(side("a", n, 1, x), side("b", n, 1, y))[0].distinguishable
    assert 0.70 < found / 200 < 0.89  # 80 %, and three standard errors


@pytest.mark.parametrize("comparisons", [1, 20])
def test_samples_needed_are_those_at_which_it_is_detectable(comparisons):
    n = samples_needed(0.5, 0.02, comparisons=comparisons)
    assert detectable(0.5, n, comparisons=comparisons) <= 0.02
    assert detectable(0.5, n - 1, comparisons=comparisons) > 0.02
    # z(0.975) + z(0.8) = 2.8016: the textbook's n = (2.8016 * 25)² = 4906.
    assert comparisons > 1 or n == 4906


@pytest.fixture
def run_dir(tmp_path):
    store, rng, n = RunStore(tmp_path / "run"), np.random.default_rng(0), 400
    store.write_run({"cells": ["a", "b", "c"], "suite": {"samples": {"num": n}}})
    shared = cosines(rng, n, 1)
    for name in "abc":
        own = side(name, n, 1, shared + 0.03 * rng.normal(size=n))
        cell = CellInfo(
            id=name, variant=name, data="d", condition_kind="text", generator="g", conditioner="c",
            sampler=name, translator=None, num_samples=n, seed=1,
        )  # fmt: skip
        store.write_record(Record(cell=cell, status="ok", scores=tuple(own.scores)))
        store.write_samples(name, own.samples)
    return store.run_dir


def test_the_spread_is_that_of_pairs(run_dir):
    (spread,) = measured(RunStore(run_dir))
    assert (spread.metric, spread.pairs) == ("clip-cosine", 3)
    assert spread.sd == pytest.approx(0.03 * math.sqrt(2), rel=0.1)


def test_the_command_speaks_of_a_run_and_of_assumptions(run_dir, capsys, tmp_path):
    assert main(["power", str(run_dir), "--difference", "clip-cosine=0.002", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    (row,) = found["rows"]
    assert row["detectable"] == pytest.approx(detectable(row["spread"], 400))
    assert row["samples_needed"] == samples_needed(row["spread"], 0.002)
    assert main(["power", str(run_dir), "--spread", "clip-cosine=0.1", "--samples", "100"]) == 0
    out = capsys.readouterr().out
    assert "0.02802" in out
    assert "n = 100" in out
    assert main(["power", str(run_dir), "--difference", "fid=1"]) == 1
    assert "no spread is known of 'fid'. Known: clip-cosine" in capsys.readouterr().err
    assert main(["power", str(run_dir), "--spread", "clip-cosine=-1"]) == 1
    assert "write METRIC=NUMBER" in capsys.readouterr().err


def test_a_run_without_pairs_says_what_to_do(tmp_path):
    store = RunStore(tmp_path)
    store.write_run({"cells": []})
    with pytest.raises(ResultError, match="State one: --spread"):
        measured(store)
