"""A suite with BigGAN and a public CLIP, on small files of the published formats, from plan to record."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from auxiliary_files import open_clip_of, save_safetensors, tiny_clip_config
from generators.biggan_files import brock_file
from PIL import Image

from bench import identity
from bench.runner import run
from bench.store import RunStore
from bench.suite import load_suite

PROMPTS = ["a blue dog", "two surfers, one wave", "a red bus in the snow"]


@pytest.fixture(scope="module")
def content(tmp_path_factory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("files")
    (folder / "images").mkdir()
    for i in range(2):
        image = np.random.default_rng(i).integers(0, 256, (128, 128, 3), dtype=np.uint8)
        Image.fromarray(image).save(folder / "images" / f"{i}.png")
    (folder / "prompts.txt").write_text("\n".join(PROMPTS))
    about = tiny_clip_config(folder)
    clip = {
        "config": str(about),
        "weights": str(save_safetensors(open_clip_of(about), folder / "clip.safetensors")),
    }
    biggan = {
        "kind": "biggan",
        "weights": str(brock_file(folder)),
        "resolution": 128,
        "width": 4,
        "num_classes": 7,
    }
    data = {"kind": "images", "root": f"{folder}/images", "prompts": f"{folder}/prompts.txt"}
    translator = {"kind": "tr0n", "num_pairs": 14, "pair_batch": 7, "hidden": 32, "steps": 3}
    return {
        "name": "biggan",
        "data": {"prompts": data},
        "generators": {"biggan": biggan},
        "conditioners": {"clip": {"kind": "open-clip", "views": 2, **clip}},
        "translators": {"small": translator},
        "samplers": {"prior": {"kind": "prior"}, "tr0n": {"kind": "tr0n", "steps": 2}},
        "judges": {"clip": {"kind": "open-clip", **clip}},
        "metrics": {"clip-score": {"kind": "clip-score", "judge": "clip"}},
        "protocol": {"resolution": 128, "num_reference": 2},
        "samples": {"num": 3, "tile": 3},
        "variants": {
            "matrix": {
                "data": "prompts",
                "generator": "biggan",
                "conditioner": "clip",
                "sampler": ["prior", "tr0n"],
            }
        },
    }  # fmt: skip


def written(content: dict[str, Any], folder: Path, **fields: Any) -> Path:
    content = copy.deepcopy(content)
    content["generators"]["biggan"] |= fields
    path = folder / "suite.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


def test_a_suite_runs_from_published_files_to_records(content, tmp_path):
    out = tmp_path / "run"
    run(load_suite(written(content, tmp_path)), out, "cpu", store_url=str(tmp_path / "store"))
    records = {record.cell.sampler: record for record in RunStore(out).records()}
    assert {record.status for record in records.values()} == {"ok"}
    for record in records.values():
        assert RunStore(out).read_images(record.cell.id).shape == (3, 3, 128, 128)
        latents = RunStore(out).read_latents(record.cell.id)
        assert latents.shape == (3, 120 + 128)
        assert np.abs(latents[:, :120]).max() <= 2
        assert "clip-cosine" in {score.metric for score in record.scores}
    assert records["tr0n"].timing.evaluations["auxiliary_backwards"] == 3 * 2 * 2  # samples, steps, views


def test_missing_weights_fail_their_cells_with_one_message(content, tmp_path):
    gone = str(tmp_path / "biggan-128.pth")
    path = written(content, tmp_path, weights=gone)
    out = tmp_path / "run"
    run(load_suite(path), out, "cpu", store_url=str(tmp_path / "store"))
    for record in RunStore(out).records():
        assert record.status == "failed"
        message = record.error["message"]
        assert f"file '{gone}' is missing: BigGAN at 128 px" in message
        assert "Get it:" in message
        assert "Verify: sha256sum" in message


def test_a_results_identity_follows_the_model_and_its_prior_but_not_where_the_file_lies(content, tmp_path):
    def key(**fields: Any) -> str:
        suite = load_suite(written(content, tmp_path, **fields))
        return str(identity.component(suite.generators["biggan"]))

    moved = tmp_path / "elsewhere.pth"
    moved.write_bytes(Path(content["generators"]["biggan"]["weights"]).read_bytes())
    assert key(weights=str(moved)) == key()
    others = [{"bn_eps": 1e-4}, {"z_prior": "uniform"}, {"y_prior": "normal"}, {"z_bound": 1.5}]
    assert len({key(), *(key(**fields) for fields in others)}) == 5
