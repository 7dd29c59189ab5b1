"""Zoo files: what ships is whole and small, and every damaged file is named for what it is."""

from __future__ import annotations

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from bench.errors import WeightError
from bench.zoo.weights import (
    WEIGHTS_DIR,
    card,
    file_sha256,
    load_model,
    model_names,
    read_model,
    save_model,
    verify_all,
)

NAME = "digits-classifier-guide"


def test_every_shipped_model_loads_and_matches_its_card():
    assert set(verify_all().values()) == {"ok"}
    assert sum(path.stat().st_size for path in WEIGHTS_DIR.iterdir()) <= 40e6
    for name in model_names():
        content = card(name)
        assert content["name"] == name
        assert {"data", "recipe", "seed", "figures", "sha256", "description"} <= content.keys()
        assert content["figures"], f"{name}: a card without figures"


def test_every_recipe_is_shipped_and_the_other_way_round():
    from bench.zoo.recipes import RECIPES

    assert sorted(RECIPES) == model_names()
    for name, recipe in RECIPES.items():
        assert card(name)["seed"] == recipe["seed"]
        assert card(name)["recipe"]["steps"] == recipe["steps"]


@pytest.mark.parametrize("name", [n for n in model_names() if "classifier" in n or "clip" in n])
def test_guides_and_judges_meet_the_set_quality(name):
    figures = card(name)["figures"]
    least = {"digits": 0.98, "shapes": 0.99}[card(name)["data"]]
    for key, value in figures.items():
        if key.startswith("accuracy"):
            assert value >= least
        if key == "retrieval_r1_of_100":
            assert value >= 0.9


@pytest.mark.parametrize("data", ["digits", "shapes"])
def test_guide_and_judge_differ_in_seed_architecture_and_weights(data):
    guide, judge = card(f"{data}-classifier-guide"), card(f"{data}-classifier-judge")
    assert guide["seed"] != judge["seed"]
    assert guide["architecture"] != judge["architecture"]
    assert guide["sha256"] != judge["sha256"]


def test_the_clips_differ_in_seed_and_network():
    guide, judge = card("shapes-clip-guide"), card("shapes-clip-judge")
    assert guide["seed"] != judge["seed"]
    assert guide["recipe"]["network"] != judge["recipe"]["network"]


def test_an_unknown_model_names_the_nearest():
    with pytest.raises(WeightError, match="Did you mean 'digits-vae'"):
        load_model("digit-vae")


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(WeightError, match=r"no\.safetensors' is missing"):
        load_model(NAME, path=str(tmp_path / "no.safetensors"))


def test_one_flipped_bit_is_found(tmp_path):
    path = tmp_path / "model.safetensors"
    content = bytearray((WEIGHTS_DIR / f"{NAME}.safetensors").read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(WeightError, match=f"sha256 is {file_sha256(path)}, expected {card(NAME)['sha256']}"):
        load_model(NAME, path=str(path), sha256=card(NAME)["sha256"])


@pytest.mark.parametrize("content", [b"", b"garbage that is no safetensors file", b"\x80\x04K\x01."])
def test_what_is_no_safetensors_file_is_refused(tmp_path, content):
    path = tmp_path / "model.safetensors"
    path.write_bytes(content)
    with pytest.raises(WeightError, match="not a readable safetensors file"):
        read_model(path)


def changed(tmp_path, change, architecture: str = "plain-classifier"):
    state = load_file(WEIGHTS_DIR / f"{NAME}.safetensors")
    change(state)
    path = tmp_path / "model.safetensors"
    about = {"architecture": architecture, "config": load_model(NAME).config}
    save_file(state, path, metadata={"model": json.dumps(about)})
    return path


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.pop("body.0.weight"), r"missing key 'body\.0\.weight'"),
        (lambda s: s.update(extra=torch.zeros(1)), "unexpected key 'extra'"),
        (lambda s: s.update({"body.0.bias": torch.zeros(3)}), r"'body\.0\.bias' has shape \(3,\), expected"),
    ],
)
def test_keys_and_shapes_that_do_not_fit_are_named(tmp_path, change, message):
    with pytest.raises(WeightError, match=message):
        read_model(changed(tmp_path, change))


def test_an_unknown_architecture_names_the_nearest(tmp_path):
    with pytest.raises(WeightError, match="Did you mean 'plain-classifier'"):
        read_model(changed(tmp_path, lambda s: None, "plain-classifer"))


def test_a_saved_model_round_trips_and_is_frozen(tmp_path):
    model = load_model(NAME)
    sha256 = save_model(model, "plain-classifier", tmp_path / "a.safetensors")
    assert save_model(model, "plain-classifier", tmp_path / "again.safetensors") == sha256
    again = read_model(tmp_path / "a.safetensors", sha256)
    assert not again.training
    assert not any(p.requires_grad for p in again.parameters())
    assert all(torch.equal(v, again.state_dict()[k]) for k, v in model.state_dict().items())
    shutil.copy(tmp_path / "a.safetensors", tmp_path / "b.safetensors")
    assert read_model(tmp_path / "b.safetensors", sha256) is not None
