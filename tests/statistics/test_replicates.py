"""Runs with other seeds: their spread, beside what one run's intervals say."""

from __future__ import annotations

import math

import numpy as np
import pytest

from bench.cli import main
from bench.errors import ResultError
from bench.metrics.speed import Speed
from bench.statistics.replicates import between_runs
from bench.store import CellInfo, Record, RunStore
from bench.types import Evidence, Score, Timing


def make_run(folder, seed: int, value: float) -> RunStore:
    store = RunStore(folder)
    cell = CellInfo(
        id=f"c{seed}", variant="v", data="d", condition_kind="text", generator="g", conditioner="c",
        sampler="s", translator=None, num_samples=4, seed=seed,
    )  # fmt: skip
    score = Score(metric="m", title="M", value=value, n=4, judge="j", interval=(value - 1.96, value + 1.96))
    store.write_run({"cells": [cell.id]})
    store.write_record(Record(cell=cell, status="ok", scores=(score,)))
    return store


def test_the_spread_is_that_of_the_runs_beside_that_within_one(tmp_path, capsys):
    runs = [make_run(tmp_path / str(k), k, value) for k, value in enumerate((1.0, 3.0, 8.0))]
    (found,) = between_runs(runs)
    assert found.sd == pytest.approx(np.std([1, 3, 8], ddof=1))
    assert found.within == pytest.approx(1, rel=1e-4)
    assert found.interval.low < 4 < found.interval.high
    assert main(["replicates", *(str(run.run_dir) for run in runs)]) == 0
    assert "d\tv\tm\tj\t4\t" in capsys.readouterr().out


def test_one_run_twice_is_no_replicate(tmp_path):
    runs = [make_run(tmp_path / str(k), 7, 1.0) for k in range(2)]
    with pytest.raises(ResultError, match="the same seeds"):
        between_runs(runs)
    with pytest.raises(ResultError, match="two or more"):
        between_runs(runs[:1])


def test_seconds_have_an_interval_over_batches():
    timing = Timing(
        num_samples=10, batch_size=4, phase_s={"refine": 10.0}, batch_s=(3.6, 4.4, 2.0), batch_n=(4, 4, 2),
        evaluations={}, peak_memory_gib=1.0,
    )  # fmt: skip
    seconds, throughput, *_ = (
        Speed().compute(Evidence(conditions=(), readouts={}, reference={}, timing=timing)).scores
    )
    assert seconds.value == pytest.approx(1.0)
    assert seconds.interval[0] < 1 < seconds.interval[1]
    assert throughput.interval == pytest.approx((1 / seconds.interval[1], 1 / seconds.interval[0]))
    # Residuals -0.4, 0.4, 0 of unit totals: se = sqrt(3 / 2 * 0.32) / 10.
    half = 4.302653 * math.sqrt(1.5 * 0.32) / 10
    assert seconds.interval[1] - seconds.value == pytest.approx(half, rel=1e-5)
