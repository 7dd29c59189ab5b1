"""From suite to records: same samples whatever the batch, same records twice, faults that stay put."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from support import SMALL_SUITE

from bench.cli import main
from bench.runner import run, score
from bench.samplers.draw import draw_tiled
from bench.store import RunStore, comparable
from bench.suite import load_suite


def run_suite(path: Path, out: Path, *overrides: str) -> RunStore:
    summary = run(load_suite(path, overrides), out, "cpu")
    assert summary.run_dir == out
    return RunStore(out)


@pytest.fixture(scope="module")
def finished(tmp_path_factory, cache_dir) -> RunStore:
    """One run of the small suite, shared by the tests that only read it."""
    folder = tmp_path_factory.mktemp("finished")
    (folder / "small.yaml").write_text(yaml.safe_dump(SMALL_SUITE, sort_keys=False))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TR0N_BENCH_CACHE", str(cache_dir))
        return run_suite(folder / "small.yaml", folder / "run")


def test_every_cell_has_a_record_with_scores_and_files(finished: RunStore):
    records = finished.records()
    assert [record.cell.sampler for record in records] == ["prior", "langevin", "translator", "tr0n"]
    for record in records:
        assert record.status == "ok"
        names = {score.metric for score in record.scores}
        assert {"fid", "class-accuracy", "target-probability", "seconds-per-image"} <= names
        assert all(np.isfinite(score.value) for score in record.scores)
        assert finished.read_images(record.cell.id).shape == (20, 3, 32, 32)
        assert finished.read_latents(record.cell.id).shape == (20, 16)
        table = finished.read_samples(record.cell.id)
        assert len(table) == 20
        assert {"energy", "class-accuracy", "target-probability"} <= set(table.columns)
        assert record.environment["packages"]["torch"]


def test_evaluations_are_counted_per_sample(finished: RunStore):
    timings = {record.cell.sampler: record.timing for record in finished.records()}
    assert timings["prior"].evaluations == {
        "generator_forwards": 20, "generator_backwards": 0, "auxiliary_forwards": 0, "auxiliary_backwards": 0,
    }  # fmt: skip
    assert timings["tr0n"].evaluations == {
        "generator_forwards": 80, "generator_backwards": 60, "auxiliary_forwards": 60,
        "auxiliary_backwards": 60,
    }  # fmt: skip
    assert timings["tr0n"].batch_n == (20,)


def test_the_curve_ends_where_the_scores_are(finished: RunStore):
    record = finished.records()[3]
    last = {score.metric: score.value for score in record.curve if score.step == 3}
    final = {score.metric: score.value for score in record.scores}
    assert last["class-accuracy"] == final["class-accuracy"]
    assert last["fid"] == pytest.approx(final["fid"], rel=1e-9)
    assert {score.step for score in record.curve} == {0, 3}


def test_two_runs_give_identical_records_but_for_time(finished: RunStore, small_suite, tmp_path):
    again = run_suite(small_suite(), tmp_path / "again")
    for first, second in zip(finished.records(), again.records()):
        assert comparable(first) == comparable(second)
        assert np.array_equal(finished.read_latents(first.cell.id), again.read_latents(second.cell.id))


@pytest.mark.parametrize("batch_size", [1, 7])
def test_the_batch_size_changes_no_image(finished: RunStore, small_suite, tmp_path, batch_size):
    other = run_suite(small_suite(), tmp_path / "other", f"samples.batch_size={batch_size}")
    for first, second in zip(finished.records(), other.records()):
        assert first.cell.id == second.cell.id
        a, b = finished.read_latents(first.cell.id), other.read_latents(second.cell.id)
        assert np.abs(a - b).max() <= 1e-6
        images = finished.read_images(first.cell.id), other.read_images(second.cell.id)
        assert np.array_equal(*images)
        for x, y in zip(first.scores, second.scores):
            if x.metric in ("fid", "class-accuracy", "target-probability"):
                assert y.value == pytest.approx(x.value, rel=1e-6)


def test_more_samples_keep_the_first(finished: RunStore, small_suite, tmp_path):
    more = run_suite(small_suite(), tmp_path / "more", "samples.num=30")
    for first, second in zip(finished.records(), more.records()):
        assert np.array_equal(finished.read_images(first.cell.id), more.read_images(second.cell.id)[:20])


def test_score_computes_metrics_again_without_drawing(finished: RunStore, tmp_path, monkeypatch):
    copy = tmp_path / "copy"
    shutil.copytree(finished.run_dir, copy)

    def no_drawing(*args, **kwargs):
        raise AssertionError("score must not draw")

    monkeypatch.setattr("bench.drawing.draw_tiled", no_drawing)
    assert score(copy, "cpu").num_failed == 0
    for first, second in zip(finished.records(), RunStore(copy).records()):
        assert comparable(first) == comparable(second)


def test_score_without_stored_samples_says_so_and_makes_nothing(finished: RunStore, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(finished.run_dir, copy)
    summary = score(copy, "cpu", store_url=str(tmp_path / "empty"))
    assert summary.num_ok == 0
    assert not any(summary.made[name] for name in ("pairs", "translator", "reference", "samples"))
    for record in RunStore(copy).records():
        assert "score draws none. Run the suite." in record.error["message"]


def failing_cell(tmp_path: Path, path: Path, *overrides: str) -> tuple[RunStore, list[str]]:
    """Runs on the command line, expects exit code 1; returns the store and the failed cells' messages."""
    arguments = ["run", str(path), "--out", str(tmp_path / "run"), "--device", "cpu", "--no-report"]
    for override in overrides:
        arguments += ["--set", override]
    assert main(arguments) == 1
    store = RunStore(tmp_path / "run")
    return store, [record.error["message"] for record in store.records() if record.status == "failed"]


def test_a_missing_weight_file_fails_its_cells_alone(small_suite, tmp_path):
    path = small_suite(
        generators={"gone": {"kind": "vae", "weights": str(tmp_path / "gone.safetensors")}},
        variants={
            "include": [
                {"data": "digits", "generator": name, "conditioner": "class", "sampler": "prior"}
                for name in ("vae", "gone")
            ]
        },
    )
    store, messages = failing_cell(tmp_path, path)
    assert [record.status for record in store.records()] == ["ok", "failed"]
    assert "gone.safetensors" in messages[0]
    assert "missing" in messages[0]


def test_a_corrupt_weight_file_is_named(small_suite, tmp_path):
    from bench.zoo.weights import WEIGHTS_DIR, model_sha256

    content = bytearray((WEIGHTS_DIR / "digits-vae.safetensors").read_bytes())
    content[len(content) // 2] ^= 1
    (tmp_path / "bad.safetensors").write_bytes(content)
    path = small_suite(
        generators={
            "vae": {
                "kind": "vae",
                "weights": str(tmp_path / "bad.safetensors"),
                "sha256": model_sha256("digits-vae"),
            }
        }
    )
    _, messages = failing_cell(tmp_path, path)
    assert len(messages) == 4
    assert all("bad.safetensors" in message and "sha256" in message for message in messages)


def test_a_nan_energy_fails_its_cell_with_step_and_seed(small_suite, tmp_path):
    path = small_suite(
        generators={"nan": {"kind": "python", "target": "support:NanGenerator"}},
        variants={
            "include": [
                {"data": "digits", "generator": name, "conditioner": "class", "sampler": "langevin"}
                for name in ("nan", "vae")
            ]
        },
    )
    store, messages = failing_cell(tmp_path, path)
    assert [record.status for record in store.records()] == ["failed", "ok"]
    assert "of 20 samples have an energy or image that is not finite" in messages[0]
    assert re.search(r"sample \d+ \(seed \d+, class:digit=\d\) at step 0", messages[0])


def beside_a_sound_cell(small_suite, root: Path) -> Path:
    """A suite of one cell on the COCO folder ``root`` and one on digits."""
    return small_suite(
        data={"coco": {"kind": "coco", "root": str(root)}},
        conditioners={"text": {"kind": "clip", "model": "shapes-clip-guide", "views": 0}},
        variants={
            "include": [
                {"data": "coco", "generator": "vae", "conditioner": "text", "sampler": "prior"},
                {"data": "digits", "generator": "vae", "conditioner": "class", "sampler": "prior"},
            ]
        },
        metrics={"accuracy": {"kind": "class-accuracy", "judge": "digits", "data": ["digits"]}},
    )


def test_an_empty_caption_file_is_one_clear_error(small_suite, tmp_path):
    root = tmp_path / "coco"
    (root / "val2014").mkdir(parents=True)
    (root / "annotations").mkdir()
    (root / "annotations" / "captions_val2014.json").write_text("")
    path = beside_a_sound_cell(small_suite, root)
    store, messages = failing_cell(tmp_path, path)
    assert [record.status for record in store.records()] == ["failed", "ok"]
    assert "captions_val2014.json" in messages[0]


def test_an_unreadable_reference_image_is_named(small_suite, tmp_path):
    from bench.worlds.shapes_source import Shapes

    shapes = Shapes(num_val=6)
    root = shapes.folder("val", tmp_path)
    shapes.load("val", tmp_path)
    victim = sorted((root / "val2014").iterdir())[3]
    victim.write_bytes(b"not a picture")
    path = beside_a_sound_cell(small_suite, root)
    store, messages = failing_cell(tmp_path, path)
    assert [record.status for record in store.records()] == ["failed", "ok"]
    assert victim.name in messages[0]


def test_a_tile_pads_and_counts_only_real_samples(finished: RunStore):
    from bench.conditioners.classifier import Classifier
    from bench.conditions import assign, class_conditions
    from bench.generators.vae import Vae
    from bench.samplers.base import Problem
    from bench.samplers.langevin import Langevin

    device = torch.device("cpu")
    generator = Vae(model="digits-vae").load(device)
    conditioner = Classifier(heads=("digit",)).load(device)
    assignment = assign(class_conditions({"digit": tuple("0123456789")}, ("digit",)), 9, 1)

    def images(rows: list[int]) -> torch.Tensor:
        condition = conditioner.embed([assignment.conditions[i] for i in rows])
        streams = assignment.streams(0, 9, device)[torch.tensor(rows)]
        problem = Problem(generator, conditioner, condition, streams)
        drawn = draw_tiled(Langevin(steps=8, step_size=0.3, momentum=0.9), problem, tile=4, index=rows)
        assert problem.evaluations["generator_forwards"] == len(rows) * 9
        return drawn.images

    whole = images(list(range(9)))
    order = [4, 8, 0, 2, 6, 1, 3, 7, 5]
    assert torch.equal(images(order), whole[order])
    assert torch.equal(images([7]), whole[[7]])
