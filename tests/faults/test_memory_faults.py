"""Out of memory: a smaller tile where that helps, a failed cell where nothing does."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from faults.processes import Place, Server, custom, quick_suite

from bench.runner import run
from bench.store import Record, RunStore
from bench.suite import load_suite


def test_a_host_without_memory_fails_the_cell_and_leaves_no_trace(server: Server, tmp_path: Path):
    suite = quick_suite(generators=custom("Greedy"))
    suite["generators"]["modest"] = {"kind": "vae", "model": "digits-vae"}
    suite["variants"]["matrix"] |= {"generator": ["vae", "modest"], "sampler": ["prior"]}
    place = Place(tmp_path / "limited", suite, {"more_memory": 1 << 30})
    assert server.run(place) == 1
    modest, greedy = sorted(place.results().values(), key=lambda record: record["status"], reverse=True)
    assert (modest["status"], modest["cell"]["generator"]) == ("ok", "modest")
    assert (greedy["status"], greedy["cell"]["generator"]) == ("failed", "vae")
    assert greedy["error"]["type"] == "SamplingError"
    assert greedy["error"]["message"].startswith(
        "out of memory, even with one sample at a time (Unable to allocate 2.00 GiB"
    )
    assert place.output() == f"{place.run_dir}: 1 cells ok, 1 failed\n"
    assert place.half_written() == []
    place.limits = {}
    assert server.run(place) == 0, place.output()
    whole = Place(tmp_path / "whole", suite)
    assert server.run(whole) == 0
    assert place.results() == whole.results()  # its tiles among it: what did not help is no limit


def small_device(tmp_path: Path, num: int = 20) -> Place:
    suite = quick_suite(generators=custom("SmallDevice", folder=str(tmp_path)))
    suite["samples"] |= {"num": num, "tile": 8, "shard": 8}
    suite["curve"]["num"] = num
    suite["variants"]["matrix"]["sampler"] = ["langevin"]
    return Place(tmp_path / "place", suite)


def once(place: Place) -> tuple[Record, np.ndarray, np.ndarray]:
    """The only record of a run, with its images and latents."""
    run(load_suite(place.root / "suite.yaml"), place.run_dir, "cpu", store_url=str(place.store_dir))
    store = RunStore(place.run_dir)
    record = store.records()[0]
    assert record.status == "ok", record.error
    return record, store.read_images(record.cell.id).astype(int), store.read_latents(record.cell.id)


def test_a_device_without_memory_gets_smaller_tiles(tmp_path: Path):
    place = small_device(tmp_path)
    whole, images, latents = once(place)
    assert whole.tiles == (8,)
    shutil.rmtree(place.store_dir)
    shutil.rmtree(place.run_dir)
    (tmp_path / "rows").write_text("3")
    refused = tmp_path / "refused"
    record, small_images, small_latents = once(place)
    assert record.tiles == (2,)
    assert refused.read_text().split() == ["8", "4"], "once a size, for all three spans"
    assert np.abs(small_images - images).max() <= 1
    assert np.abs(small_latents - latents).max() <= 1e-4
    for first, second in zip(whole.scores, record.scores):
        if first.metric in ("fid", "class-accuracy"):
            assert second.value == pytest.approx(first.value, rel=1e-2)
    more = small_device(tmp_path, num=30)
    record, more_images, _ = once(more)
    assert record.tiles == (2,)
    assert refused.read_text().split() == ["8", "4"], "remembered by the next run"
    assert np.array_equal(more_images[:20], small_images)


def test_a_device_that_holds_no_sample_fails_the_cell(tmp_path: Path):
    place = small_device(tmp_path)
    (tmp_path / "rows").write_text("0")
    summary = run(load_suite(place.root / "suite.yaml"), place.run_dir, "cpu", store_url=str(place.store_dir))
    assert summary.num_failed == 1
    (record,) = RunStore(place.run_dir).records()
    assert record.error is not None
    assert "out of memory, even with one sample at a time (CUDA out of memory" in record.error["message"]
    (tmp_path / "rows").unlink()
    record, _, _ = once(place)
    assert record.tiles == (8,)
