"""A run makes what is not there yet, and nothing else: counted, not timed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from faults.processes import Place, quick_suite

from bench import drawing
from bench.runner import RunSummary, run
from bench.store import RunStore
from bench.suite import load_suite


class Counted:
    """Runs of a suite in one place, with the numbers of samples that were drawn."""

    def __init__(self, place: Place, patch: pytest.MonkeyPatch):
        self.place, self.drawn = place, list[int]()
        draw_tiled = drawing.draw_tiled

        def counting(sampler: Any, problem: Any, **options: Any) -> Any:
            if options.get("max_steps") is None:  # no warm-up
                self.drawn.append(len(problem))
            return draw_tiled(sampler, problem, **options)

        patch.setattr(drawing, "draw_tiled", counting)

    def run(self) -> RunSummary:
        self.drawn.clear()
        self.place.write_suite()
        suite = load_suite(self.place.root / "suite.yaml")
        summary = run(suite, self.place.run_dir, "cpu", store_url=str(self.place.store_dir))
        assert summary.num_failed == 0
        return summary


@pytest.fixture
def counted(tmp_path: Path) -> Iterator[Counted]:
    suite = quick_suite(samples={"num": 20, "shard": 256, "tile": 4, "batch_size": 8})
    suite["curve"] = {"steps": [0, 2], "num": 20}
    with pytest.MonkeyPatch.context() as patch:
        counted = Counted(Place(tmp_path, suite), patch)
        summary = counted.run()
        assert sum(counted.drawn) == 40
        assert summary.made == {
            "pairs": 1, "translator": 1, "reference": 1, "samples": 2, "metrics": 4, "records": 2,
            # the reference; of two cells the final images and those at two steps
            "judge_images": 40 + 2 * (20 + 2 * 20),
        }  # fmt: skip
        yield counted


def test_a_finished_run_does_no_work(counted: Counted):
    files = {path: path.stat().st_mtime_ns for path in counted.place.root.glob("run/cells/**/[!.]*")}
    right = counted.place.results()
    assert counted.run().made == {}
    assert counted.drawn == []
    assert counted.place.results() == right
    assert files == {path: path.stat().st_mtime_ns for path in counted.place.root.glob("run/cells/**/[!.]*")}


def test_a_new_metric_draws_nothing(counted: Counted):
    before = counted.place.sound()
    counted.place.suite["metrics"]["attributes"] = {"kind": "attribute-accuracy", "judge": "digits"}
    assert counted.run().made == {"metrics": 2, "records": 2}
    assert counted.drawn == []
    assert counted.place.sound().items() >= before.items()
    for record in RunStore(counted.place.run_dir).records():
        assert "attribute-accuracy" in {score.metric for score in record.scores}


def test_a_new_judge_reads_images_and_draws_nothing(counted: Counted):
    before = counted.place.sound()
    counted.place.suite["judges"]["second"] = {"kind": "classifier", "model": "digits-classifier-guide"}
    counted.place.suite["metrics"]["again"] = {"kind": "class-accuracy", "judge": "second"}
    made = counted.run().made
    assert made == {"reference": 1, "samples": 2, "judge_images": 40 + 2 * 60, "metrics": 2, "records": 2}
    assert counted.drawn == []
    assert counted.place.sound().items() >= before.items()


def test_a_new_variant_draws_itself_alone(counted: Counted):
    before, records = counted.place.sound(), counted.place.results()
    counted.place.suite["variants"]["matrix"]["sampler"].append("prior")
    made = counted.run().made
    assert made == {"samples": 1, "judge_images": 20 + 20, "metrics": 2, "records": 1}
    assert sum(counted.drawn) == 20
    assert counted.place.sound().items() >= before.items()
    assert counted.place.results().items() >= records.items()


def test_more_samples_keep_what_is_there(counted: Counted):
    def images() -> dict[str, Any]:
        store = RunStore(counted.place.run_dir)
        return {record.cell.sampler: store.read_images(record.cell.id) for record in store.records()}

    def spans() -> set[tuple[str, ...]]:
        found = counted.place.store_dir.glob("images/*")
        return {tuple(sorted(path.name[:17] for path in folder.iterdir())) for folder in found}

    before, twenty = counted.place.sound(), images()
    assert spans() == {("00000000-00000020",)}
    counted.place.suite["samples"]["num"] = 30
    assert counted.run().made == {"samples": 2, "judge_images": 20, "metrics": 4, "records": 2}
    assert sum(counted.drawn) == 20, "ten of each cell"
    assert spans() == {("00000000-00000020", "00000020-00000030")}
    assert counted.place.sound().items() >= before.items(), "the old ones byte for byte"
    for sampler, thirty in images().items():
        assert len(thirty) == 30
        assert np.array_equal(thirty[:20], twenty[sampler])
