"""Samples that are not finite: a few are counted and left out, many fail their cell."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
from faults.processes import Place, custom, quick_suite

from bench.runner import run
from bench.store import Record, RunStore
from bench.suite import load_suite

NUM = 40


def drawn(root: Path, above: float, share: float) -> tuple[RunStore, dict[str, Record]]:
    """A run of a generator that fails for latents above a value, and its records by sampler."""
    suite = quick_suite(generators=custom("PartlyNan", above=above))
    suite["samples"] |= {"num": NUM, "shard": 16, "max_failed_share": share}
    suite["curve"]["num"] = NUM
    suite["variants"]["matrix"]["sampler"] = ["prior", "langevin"]
    place = Place(root, suite)
    run(load_suite(root / "suite.yaml"), place.run_dir, "cpu", store_url=str(place.store_dir))
    store = RunStore(place.run_dir)
    return store, {record.cell.sampler: record for record in store.records()}


def test_a_few_failed_samples_are_counted_and_left_out(tmp_path: Path):
    clean, _ = drawn(tmp_path / "clean", 1e9, 0)
    store, records = drawn(tmp_path / "some", 1.2, 0.5)
    (clean_prior, clean_langevin) = (record.cell.id for record in clean.records())
    for name, twin in (("prior", clean_prior), ("langevin", clean_langevin)):
        record = records[name]
        assert record.status == "ok", record.error
        assert 0 < record.failed_samples <= NUM // 2
        num = NUM - record.failed_samples
        table = store.read_samples(record.cell.id)
        bad = table["failed_step"].to_numpy() >= 0
        assert bad.sum() == record.failed_samples
        judged = [score for score in (*record.scores, *record.curve) if score.judge is not None]
        assert {score.n for score in judged} == {num}
        assert all(np.isfinite(score.value) for score in judged)
        assert np.isnan(table["target-probability"].to_numpy()[bad]).all()
        assert np.isfinite(table["target-probability"].to_numpy()[~bad]).all()
        accuracy = next(score.value for score in record.scores if score.metric == "class-accuracy")
        assert table["class-accuracy"][~bad].mean() == accuracy
        # who fails does no harm to a neighbour in its tile
        assert np.array_equal(store.read_images(record.cell.id)[~bad], clean.read_images(twin)[~bad])
        assert np.array_equal(store.read_latents(record.cell.id)[~bad], clean.read_latents(twin)[~bad])
    steps = store.read_samples(records["prior"].cell.id)["failed_step"]
    assert set(steps) == {-1, 0}
    assert records["langevin"].failed_samples >= records["prior"].failed_samples


def test_too_many_failed_samples_fail_the_cell_by_step_and_seed(tmp_path: Path):
    _, records = drawn(tmp_path, 1.2, 0.01)
    assert {record.status for record in records.values()} == {"failed"}
    for record in records.values():
        assert record.error is not None
        assert record.error["type"] == "SamplingError"
        found = re.search(
            r"(\d+) of 40 samples .* first is sample (\d+) \(seed (\d+), class:digit=(\d)\) at step \d; "
            r"max_failed_share allows 0\.01",
            record.error["message"],
        )
        assert found, record.error["message"]
        assert int(found[2]) % 10 == int(found[4])
        assert record.scores == ()
