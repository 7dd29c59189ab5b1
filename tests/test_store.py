"""Results on disk: round trips, broken files named, nothing half-written."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bench.errors import DataError, ResultError
from bench.payload import pack_scores, to_pngs, unpack_scores
from bench.store import (
    CellInfo,
    Record,
    RunStore,
    atomic_path,
    atomic_write,
    comparable,
    finite,
    scores_frame,
    to_json,
)
from bench.types import Score, Timing

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
ENDS = st.floats(allow_nan=False, allow_infinity=False)
NUMBERS = st.floats(allow_nan=True, allow_infinity=False)


def cell(cell_id: str = "c", **changes) -> CellInfo:
    fields = {
        "id": cell_id, "variant": "v", "data": "digits", "condition_kind": "class", "generator": "vae",
        "conditioner": "class", "sampler": "tr0n", "translator": None, "num_samples": 4, "seed": 1,
    }  # fmt: skip
    return CellInfo(**{**fields, **changes})


scores = st.builds(
    Score,
    metric=TEXT, title=TEXT, value=NUMBERS, unit=st.sampled_from(["", "s", "%"]),
    better=st.sampled_from(["lower", "higher", "none"]), n=st.integers(1, 10**9),
    judge=st.none() | TEXT, step=st.none() | st.integers(0, 100),
    interval=st.none() | st.tuples(ENDS, ENDS).map(lambda pair: tuple(sorted(pair))), interval_method=TEXT,
    details=st.dictionaries(TEXT, st.integers() | TEXT, max_size=2),
)  # fmt: skip
timings = st.builds(
    Timing,
    num_samples=st.integers(1, 100), batch_size=st.integers(1, 100),
    phase_s=st.dictionaries(TEXT, st.floats(0, 1e6), max_size=3),
    batch_s=st.lists(st.floats(0, 1e6), max_size=3).map(tuple),
    batch_n=st.lists(st.integers(1, 100), max_size=3).map(tuple),
    evaluations=st.dictionaries(TEXT, st.integers(0, 10**9), max_size=3),
    peak_memory_gib=st.floats(0, 1e3),
)  # fmt: skip


@given(
    scores=st.lists(scores, max_size=3).map(tuple),
    timing=st.none() | timings,
    text=TEXT,
    error=st.none() | st.fixed_dictionaries({"type": TEXT, "message": TEXT}),
)
@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_any_record_reads_back_equal(tmp_path: Path, scores, timing, text, error):
    record = Record(
        cell=cell(variant=text), status="failed" if error else "ok", error=error, scores=scores, timing=timing
    )
    store = RunStore(tmp_path)
    store.write_record(record)
    again = store.read_record("c")
    assert repr(again) == repr(record)  # NaN equals itself only as text


def test_records_and_runs_of_the_last_schema_are_still_read(tmp_path):
    store = RunStore(tmp_path)
    score = Score(metric="fid", title="FID", value=1.0, n=4)
    store.write_run({"cells": ["c"]})
    store.write_record(Record(cell=cell(), status="ok", scores=(score,)))
    for path in (tmp_path / "run.json", store.cell_dir("c") / "record.json"):
        content = json.loads(path.read_text())
        content["schema"] = 2
        for item in content.get("scores", ()):
            del item["interval"], item["interval_method"]
        path.write_text(json.dumps(content))
    (record,) = store.records()
    assert record.scores == (score,)
    assert record.schema == 3


@pytest.mark.parametrize("interval", [(2.0, 1.0), (math.nan, 1.0), (0.0, math.inf)])
def test_an_interval_is_finite_and_in_order(interval):
    with pytest.raises(ValueError, match="low first"):
        Score(metric="fid", title="FID", value=1.0, n=4, interval=interval)


def test_scores_with_intervals_survive_their_artifact():
    score = Score(metric="fid", title="FID", value=1.0, n=4, interval=(0.5, 1.5), interval_method="m")
    columns = {"column": np.array([1.0, 2.0])}
    assert unpack_scores(pack_scores([score], columns))[0] == (score,)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "cannot be read"),
        ("[1]", "holds no JSON object"),
        ('{"schema": 99}', "schema 99, this version reads 2 and 3"),
        ('{"schema": 2, "extra": 1}', "unknown field 'extra'"),
        ('{"schema": 2, "status": "ok"}', "cell: "),
        ('{"schema": 2, "cell": {}, "status": "maybe"}', "record.json"),
    ],
)
def test_a_broken_record_is_named(tmp_path, content, message):
    path = tmp_path / "cells" / "c" / "record.json"
    path.parent.mkdir(parents=True)
    path.write_text(content)
    with pytest.raises(ResultError, match=message) as caught:
        RunStore(tmp_path).read_record("c")
    assert "record.json" in str(caught.value)


def test_a_missing_run_says_what_to_do(tmp_path):
    with pytest.raises(ResultError, match="Run the suite first"):
        RunStore(tmp_path / "none").read_run()


def test_json_never_holds_nan_and_keeps_the_order_of_keys():
    text = to_json({"b": math.nan, "a": [math.inf, np.float32(1.5), np.int64(2)]}).decode()
    assert json.loads(text) == {"b": None, "a": [None, 1.5, 2]}
    assert text.index('"b"') < text.index('"a"')
    assert finite((1.0, -math.inf)) == [1.0, None]


def test_an_interrupted_write_leaves_the_old_file_and_no_other(tmp_path):
    path = tmp_path / "file.txt"
    atomic_write(path, b"old")

    def interrupted() -> None:
        with atomic_path(path) as partial:
            partial.write_bytes(b"half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["file.txt"]


def test_an_export_round_trips_and_is_written_once(tmp_path):
    store = RunStore(tmp_path)
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (5, 3, 8, 6), dtype=np.uint8)
    latents = rng.normal(size=(5, 7)).astype(np.float32)
    table = pd.DataFrame(
        {"index": range(5), "energy": rng.normal(size=5), "text": ["a|b", "", "ü", "x", "y"]}
    )
    assert store.export("c", {"key": "k"}, to_pngs(images), latents, table)
    assert np.array_equal(store.read_images("c"), images)
    assert np.array_equal(store.read_images("c", [4, 1]), images[[4, 1]])
    assert np.array_equal(store.read_latents("c"), latents)
    pd.testing.assert_frame_equal(store.read_samples("c"), table)
    assert not store.export("c", {"key": "k"}, [], latents, table)
    store.image_path("c", 2).unlink()
    assert store.export("c", {"key": "k"}, to_pngs(images), latents, table)
    assert store.export("c", {"key": "other"}, to_pngs(images[:3]), latents[:3], table[:3])
    assert np.array_equal(store.read_images("c"), images[:3])


def test_files_that_cannot_be_read_are_named(tmp_path):
    store = RunStore(tmp_path)
    with pytest.raises(DataError, match="holds no images"):
        store.read_images("c")
    store.write_images("c", to_pngs(np.zeros((1, 3, 4, 4), np.uint8)))
    store.image_path("c", 0).write_bytes(b"no png")
    with pytest.raises(DataError, match=r"000000\.png' cannot be read"):
        store.read_images("c")
    (store.cell_dir("c") / "samples.parquet").write_bytes(b"no parquet")
    with pytest.raises(ResultError, match=r"samples\.parquet' cannot be read"):
        store.read_samples("c")


def test_what_two_runs_share_leaves_out_time():
    def record(seconds: float, created: str) -> Record:
        fid = Score(metric="fid", title="FID", value=1.0, n=4)
        speed = Score(metric="seconds-per-image", title="s", value=seconds, unit="s/image", n=4)
        return Record(cell=cell(), status="ok", scores=(fid, speed), created_utc=created)

    assert comparable(record(1.0, "then")) == comparable(record(2.0, "now"))
    assert [score["metric"] for score in comparable(record(1.0, "then"))["scores"]] == ["fid"]


def test_the_long_table_has_a_row_per_score(tmp_path):
    store = RunStore(tmp_path)
    store.write_run({"cells": ["a", "b", "never-ran"]})
    score = Score(metric="fid", title="FID", value=1.0, n=4, interval=(0.5, 1.5))
    at_step = Score(metric="fid", title="FID", value=2.0, n=4, step=5)
    store.write_record(Record(cell=cell("a"), status="ok", scores=(score,), curve=(at_step,)))
    store.write_record(Record(cell=cell("b"), status="failed", error={"type": "E", "message": "m"}))
    frame = scores_frame(store)
    assert list(frame["value"]) == [1.0, 2.0]
    assert list(frame["interval_low"]) == [0.5, pytest.approx(math.nan, nan_ok=True)]
    assert list(frame["interval_high"].dropna()) == [1.5]
    assert [record.cell.id for record in store.records()] == ["a", "b"]
