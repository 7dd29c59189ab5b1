"""The cost model: known answers for made-up measurements, what stays true of any, and real pilots."""

from __future__ import annotations

import json
import math
import shlex
import shutil
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from suite_examples import write
from test_survey import SUITE

from bench import payload
from bench.artifacts import open_store
from bench.assembly import Assembly
from bench.cli import main
from bench.cost import (
    Driver,
    Job,
    Setup,
    cost,
    driver_of,
    jobs_of,
    makespan,
    pilot_command,
    predict,
    setups_of,
)
from bench.errors import ResultError
from bench.pilot import CellRates, Rates, feature_rows, measure, tile_runs
from bench.plan import plan
from bench.runner import run
from bench.samplers.draw import tiles
from bench.spans import Span
from bench.suite import Suite, load_suite
from bench.survey import Survey, survey

SECONDS = st.floats(0, 1000, allow_nan=False)
JOBS = st.lists(
    st.builds(
        lambda stage, group, seconds: Job(stage=stage, group=group, seconds=seconds),
        st.sampled_from(["pairs", "translator", "reference", "samples"]),
        st.sampled_from("abcd"),
        SECONDS,
    ),
    max_size=25,
)
SETUPS = st.dictionaries(st.sampled_from("abcd"), st.builds(lambda s: Setup(seconds=s), SECONDS))


# --- the model


@pytest.mark.parametrize(("shards", "workers"), [(1, 1), (5, 1), (5, 2), (5, 4), (5, 5), (5, 64), (157, 64)])
def test_workers_do_whole_shards(shards, workers):
    assert makespan([2.0] * shards, workers) == 2.0 * math.ceil(shards / workers)


def test_jobs_go_to_the_worker_that_is_free_first():
    assert makespan([5, 1, 1, 1, 4], 2) == 7  # 5 | 1 1 1 4
    assert makespan([], 3) == 0


def test_a_known_cost():
    jobs = [
        Job(stage="pairs", group="p", seconds=2, written={"pairs": 10}),
        Job(stage="pairs", group="p", seconds=2, written={"pairs": 10}),
        Job(stage="translator", group="t", seconds=7, written={"translator": 5}, read=20),
        *[Job(stage="samples", group="a", seconds=3, written={"samples": 100}) for _ in range(3)],
        *[
            Job(stage="samples", group="b", seconds=4, written={"samples": 200, "images": 50})
            for _ in range(2)
        ],
    ]
    setups = {"a": Setup(seconds=1, read=8), "b": Setup(seconds=2)}
    driver = Driver(checking_s=0.5, recording_s=6, read=1000, run_folder=77)
    one = cost(jobs, setups, driver, 1)
    assert one.wall_s == {
        "checking": 0.5, "pairs": 4, "translator": 7, "reference": 0, "samples": 17 + 3, "recording": 6
    }  # fmt: skip
    assert one.total_s == 37.5
    assert one.work_s == 4 + 7 + 20
    assert one.stored == {"pairs": 20, "translator": 5, "samples": 700, "images": 100}
    assert (one.worker_written, one.worker_read) == (825, 28)
    assert (one.driver_read, one.run_folder, one.jobs) == (1000, 77, 8)
    two = cost(jobs, setups, driver, 2)  # 3 3 | 3 4, then 4 on the first: 10; both load both
    assert two.wall_s == {
        "checking": 0.5, "pairs": 2, "translator": 7, "reference": 0, "samples": 10 + 3, "recording": 6
    }  # fmt: skip
    assert (two.worker_written, two.worker_read) == (412.5, (20 + 2 * 8) / 2)
    many = cost(jobs, setups, driver, 8)  # a worker gets one job, and loads one cell at most
    assert many.wall_s["samples"] == 4 + 2
    assert many.wall_s["translator"] == 7  # training is not spread


@given(JOBS, SETUPS, st.integers(1, 12), st.integers(1, 12))
def test_more_workers_are_never_slower(jobs, setups, workers, more):
    few, many = (cost(jobs, setups, Driver(), num) for num in (workers, workers + more))
    for stage, seconds in few.wall_s.items():
        assert many.wall_s[stage] <= seconds + 1e-6
    assert few.total_s * workers >= sum(job.seconds for job in jobs) - 1e-6  # and no work vanishes
    assert few.total_s >= max((job.seconds for job in jobs), default=0) - 1e-6


@given(JOBS, SETUPS, st.integers(1, 12), JOBS)
def test_more_jobs_are_never_faster(jobs, setups, workers, more):
    few, many = cost(jobs, setups, Driver(), workers), cost(jobs + more, setups, Driver(), workers)
    assert many.total_s >= few.total_s - 1e-6


def test_no_workers_are_refused():
    with pytest.raises(ValueError, match="at least 1"):
        cost([], {}, Driver(), 0)


@given(st.integers(0, 40), st.integers(1, 60), st.integers(1, 20), st.integers(1, 12))
def test_tile_runs_are_those_of_the_driver(start, length, batch, tile):
    span = Span(start, start + length, "0" * 16)
    batch = max(batch, tile)
    expected = sum(
        len(list(tiles(range(first, min(first + batch, span.stop)), tile)))
        for first in range(span.start, span.stop, batch)
    )
    assert tile_runs(span, batch, tile) == expected


def test_rows_of_features():
    assert feature_rows(100, 0, 0, [30]) == 130
    assert feature_rows(100, 20, 3, [30, 40]) == 130 + 3 * 50 + 140 + 3 * 60


# --- from rates to jobs


def look(folder: Path, store: object, *overrides: str) -> tuple[Survey, Suite]:
    suite = load_suite(write(folder, SUITE), overrides)
    return survey(Assembly(suite, torch.device("cpu")), plan(suite), open_store(str(store))), suite


def made_up(found: Survey) -> Rates:
    """The same round rates for every cell."""
    tr0n = next(own for own in found.needs.values() if own.translator)
    assert tr0n.pairs is not None
    assert tr0n.translator is not None
    rates = CellRates(
        tile=4, tile_s=8.0, image_s=0.5, snapshot_s=1.0, object_s=100.0, span_s=0.25, setup_s=10.0,
        sample_bytes=3, image_bytes=50, snapshot_bytes=40, readout_bytes={"pixels": 7}, num_samples=4,
    )  # fmt: skip
    return Rates(
        cells=dict.fromkeys(found.needs, rates),
        judge_s={"pixels": 0.125},
        pair_s={tr0n.pairs.key: 0.01},
        pair_bytes={tr0n.pairs.key: 2.0},
        training_s={tr0n.translator.key: 33.0},
        translator_bytes={tr0n.translator.key: 1000.0},
        reference_s={item.key: 0.05 for item in tr0n.references.values()},
        reference_bytes={item.key: 12.0 for item in tr0n.references.values()},
        checking_s=0.5,
        metric_s=0.001,
        record_s=0.01,
        first_s=2.0,
        has_journal=True,
    )


def test_known_jobs(tmp_path):
    found, suite = look(tmp_path, tmp_path / "nothing", "samples.num=13")
    rates = made_up(found)
    jobs = jobs_of(found, suite, rates)
    assert len(jobs) == len(found.tasks)
    (pairs,) = (job for job in jobs if job.stage == "pairs")
    assert (pairs.seconds, pairs.written) == (pytest.approx(1.0), {"pairs": 200.0})
    (translator,) = (job for job in jobs if job.stage == "translator")
    assert (translator.seconds, translator.written, translator.read) == (33.0, {"translator": 1000.0}, 200.0)
    references = [job for job in jobs if job.stage == "reference"]
    assert sum(job.seconds for job in references) == pytest.approx(20 * 0.05)
    assert sum(job.written["reference"] for job in references) == 20 * 12
    tr0n = next(cell for cell in found.plan.cells if cell.sampler == "tr0n")
    spans = [job for job in jobs if job.group == tr0n.id]
    assert len(spans) == 4  # of 4, 4, 4 and 1 samples; the first two lie on the curve of two steps
    drawn = 8.0 + 2 * 1.0
    images = 4 * 3 * (0.5 + 0.125)
    curved, plain, last = drawn + images + 2 * 100 + 0.25, 8 + 4 * 0.625 + 100 + 0.25, 8 + 0.625 + 100 + 0.25
    assert [job.seconds for job in spans] == pytest.approx([curved, curved, plain, last])
    assert spans[0].written == {"readout": 12 * 7, "samples": 12, "images": 200, "snapshots": 8 * 40}
    assert spans[3].written == {"readout": 7, "samples": 3, "images": 50, "snapshots": 0}
    setup = setups_of(found, rates)[tr0n.id]
    assert (setup.seconds, setup.read) == (10.0, 1000.0)


def test_the_known_driver(tmp_path):
    found, suite = look(tmp_path, tmp_path / "nothing", "samples.num=13")
    driver = driver_of(found, suite, made_up(found))
    steps = [len(cell.curve_steps) for cell in found.plan.cells]
    assert steps == [1, 2, 2]  # the prior has no step 2
    rows = [33 + count * 26 for count in steps]  # 20 real images, a curve of 6
    assert driver.recording_s == pytest.approx(2 + 3 * 13 * 0.01 + 0.001 * sum(rows))
    assert driver.run_folder == 3 * 13 * 53
    assert driver.read == 3 * 13 * 53 + sum((13 + 8 * count) * 7 + 20 * 12 for count in steps)
    assert driver.checking_s == 0.5


def test_a_cell_without_a_pilot_is_left_out(tmp_path):
    found, suite = look(tmp_path, tmp_path / "nothing")
    rates = made_up(found)
    prior = found.plan.cells[0].id
    rates = Rates(**{**vars(rates), "cells": {prior: rates.cells[prior]}})
    assert {job.stage for job in jobs_of(found, suite, rates)} == {"reference", "samples"}
    assert {job.group for job in jobs_of(found, suite, rates) if job.stage == "samples"} == {prior}


@pytest.mark.parametrize("workers", [1, 3, 64])
def test_more_samples_never_take_less(tmp_path, workers):
    totals = []
    for num in (1, 4, 5, 12, 13, 40):
        found, suite = look(tmp_path, tmp_path / "nothing", f"samples.num={num}")
        rates = made_up(found)
        driver = driver_of(found, suite, rates)
        totals.append(cost(jobs_of(found, suite, rates), setups_of(found, rates), driver, workers).total_s)
    assert totals == sorted(totals)
    assert totals[-1] > totals[0]


# --- measuring


@pytest.fixture(scope="module")
def pilot(tmp_path_factory) -> Path:
    """A folder with a pilot of one shard of each cell, and its store; read only."""
    folder = tmp_path_factory.mktemp("pilot")
    suite = load_suite(write(folder, SUITE), ["samples.num=4"])
    assert run(suite, folder / "run", "cpu", store_url=str(folder / "store")).num_failed == 0
    return folder


def test_rates_are_what_the_store_says(pilot, tmp_path):
    store = open_store(str(shutil.copytree(pilot / "store", tmp_path / "store")))
    found, suite = look(tmp_path, store.root, "samples.num=4")
    own = next(own for own in found.needs.values() if own.cell.sampler == "langevin")
    (span,) = own.spans
    place = ("samples", own.samples.key, span.name)
    arrays, meta = payload.unpack(store.read(*place))
    meta["timing"] |= {"phase_s": {"translate": 1.0, "refine": 4.0, "decode": 1.0}}
    meta["seconds"] = {"setup": 3.0, "draw": 10.0, "encode": 6.0, "write": 0.5}
    store.write(*place, payload.pack(arrays, meta))
    for key in (own.readouts["pixels"].key, own.snapshot_readouts["pixels"].key):
        arrays, meta = payload.unpack(store.read("readout", key, span.name))
        store.write("readout", key, span.name, payload.pack(arrays, meta | {"seconds": 2.0}))
    rates = measure(found, suite, store).cells[own.cell.id]
    assert (rates.tile, rates.num_samples, rates.setup_s) == (4, 4, 3.0)
    assert rates.tile_s == pytest.approx(10 - 2 * 1)  # one tile, and two snapshots decoded beside the phases
    assert rates.snapshot_s == pytest.approx(1.0)
    assert rates.image_s == pytest.approx(6 / 12)
    assert rates.object_s == pytest.approx(0.25)
    assert rates.span_s == 0.0  # known from a journal only
    size = len(store.read("images", own.samples.key, span.name))
    assert rates.image_bytes == size / 4


def test_a_judges_speed_is_the_median_of_all_that_it_read(pilot, tmp_path):
    store = open_store(str(shutil.copytree(pilot / "store", tmp_path / "store")))
    found, suite = look(tmp_path, store.root, "samples.num=4")
    each = iter([1.0, 2.0, 3.0, 4.0, 50.0, 60.0])
    expected = []
    for own in found.needs.values():
        (span,) = own.spans
        for items, images in ((own.readouts, 4), (own.snapshot_readouts, 4 * len(own.cell.curve_steps))):
            key, seconds = items["pixels"].key, next(each)
            arrays, meta = payload.unpack(store.read("readout", key, span.name))
            store.write("readout", key, span.name, payload.pack(arrays, meta | {"seconds": seconds}))
            expected.append(seconds / images)
    middle = sorted(expected)[2:4]
    assert measure(found, suite, store).judge_s["pixels"] == pytest.approx(sum(middle) / 2)


def test_the_journal_adds_references_tasks_and_the_driver(pilot, tmp_path):
    folder = Path(shutil.copytree(pilot / "run", tmp_path / "run"))
    found, suite = look(tmp_path, pilot / "store", "samples.num=4")
    events = [json.loads(line) for line in (folder / "journal.jsonl").read_text().splitlines()]
    for event in events:
        if event["event"] == "made":
            event["seconds"] = {"reference": 2.0, "translator": 5.0}.get(event["task"].split("/")[0], 9.0)
        if event["event"] == "finished":
            event["seconds"] = {
                "checking": [0.25, 0.25, 0.25], "metrics": [5.0, 1.0, 1.0], "recording": [8.0, 1.4, 1.4]
            }  # fmt: skip
    (folder / "journal.jsonl").write_text("".join(json.dumps(event) + "\n" for event in events))
    rates = measure(found, suite, open_store(str(pilot / "store")), folder)
    assert set(rates.reference_s.values()) == {0.5}  # five tasks of four images
    assert set(rates.training_s.values()) == {5.0}
    assert set(rates.pair_s.values()) == {0.09}
    assert rates.checking_s == 0.75
    assert rates.record_s == pytest.approx(0.4 / 4)
    assert rates.first_s == pytest.approx(6.6)  # what the first cell took more than the others
    # each cell: 4 samples and 20 real images, then as many at each of its points of the curve
    assert rates.metric_s == pytest.approx(3.0 / (24 * (2 + 3 + 3)))
    assert all(8 < cell.span_s <= 9 for cell in rates.cells.values())
    with pytest.raises(ResultError, match=r"there is no journal\.jsonl"):
        measure(found, suite, open_store(str(pilot / "store")), tmp_path)


def test_predicted_sizes_are_those_of_a_run(pilot, tmp_path):
    found, suite = look(tmp_path, pilot / "store")
    assembly, store = Assembly(suite, torch.device("cpu")), open_store(str(pilot / "store"))
    prediction = predict(assembly, found.plan, found, store, 1, str(pilot / "run"))
    assert prediction.unmeasured == {}
    assert prediction.remaining.jobs == 2 * 3  # two more spans of each cell
    run(suite, tmp_path / "run", "cpu", store_url=str(tmp_path / "store"))
    fresh = open_store(str(tmp_path / "store"))
    sizes: dict[str, int] = {}
    for place in fresh.places():
        sizes[place[0]] = sizes.get(place[0], 0) + fresh.header(*place)["bytes"]
    del sizes["score"]
    assert prediction.whole.stored == pytest.approx(sizes, rel=0.05)
    done, _ = look(tmp_path, tmp_path / "store")
    after = predict(assembly, found.plan, done, fresh, 1)
    assert after.remaining.jobs == 0
    assert after.whole.jobs == prediction.whole.jobs


# --- on the command line


def test_without_a_pilot_it_says_how_to_make_one_and_that_works(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    path, address = write(tmp_path, SUITE), str(tmp_path / "store")
    arguments = ["plan", str(path), "--set", "seed=3", "--store", address, "--gpus", "2"]
    assert main([*arguments, "--json"]) == 0
    content = json.loads(capsys.readouterr().out)["cost"]
    assert len(content["unmeasured"]) == 3
    assert content["whole"]["jobs"] == 0
    command = shlex.split(content["pilot_command"])
    assert command[:4] == ["tr0n-bench", "run", str(path), "--set"]
    assert "samples.num=4" in command  # one shard
    assert main(arguments) == 0
    out = capsys.readouterr().out
    assert "# cells without a pilot" in out
    assert content["pilot_command"] in out
    assert "# wall-clock" not in out
    assert main(command[1:]) == 0
    capsys.readouterr()
    assert main([*arguments, "--pilot", "results/toy-pilot", "--json"]) == 0
    content = json.loads(capsys.readouterr().out)["cost"]
    assert content["unmeasured"] == {}
    assert content["has_journal"] is True
    assert content["whole"]["total_s"] > content["remaining"]["total_s"] > 0
    assert main([*arguments, "--pilot", "results/toy-pilot"]) == 0
    out = capsys.readouterr().out
    assert "# wall-clock on 2 x " in out
    assert "# cells without a pilot" not in out


def test_a_pilot_goes_with_gpus(tmp_path, capsys):
    assert main(["plan", str(write(tmp_path, SUITE)), "--pilot", "results/x"]) == 1
    assert "--pilot goes with --gpus" in capsys.readouterr().err


def test_the_pilots_command_replaces_the_number_of_samples(tmp_path):
    suite = load_suite(write(tmp_path, SUITE), ["samples.num=2"])
    command = shlex.split(pilot_command(suite, open_store(str(tmp_path)), ["samples.num=2", "seed=1"]))
    assert [word for word in command if "=" in word] == ["seed=1", "samples.num=2"]
