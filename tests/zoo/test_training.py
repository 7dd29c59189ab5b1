"""Recipes: a training that was interrupted ends where an uninterrupted one ends."""

from __future__ import annotations

import json

import pytest
import torch

from bench.errors import BenchError
from bench.zoo import diffusion_recipe, figures, recipes, training
from bench.zoo.recipes import RECIPES
from bench.zoo.train import build, train
from bench.zoo.weights import file_sha256


@pytest.fixture(autouse=True)
def little_data(monkeypatch):
    """Recipes draw little from a small part of their world, so that a test takes seconds."""
    for name in ("digits-classifier-judge", "digits-biggan", "digits-diffusion"):
        monkeypatch.setitem(RECIPES[name]["options"], "batch_size", 24)
    monkeypatch.setattr(training, "NUM_SHAPES", 200)
    monkeypatch.setattr(training, "NUM_CAPTIONED", 200)
    monkeypatch.setattr(figures, "NUM", 100)
    monkeypatch.setattr(recipes, "NORM_BATCHES", 2)
    monkeypatch.setattr(diffusion_recipe, "DRAWN_STEPS", 2)


def last_step_only(checkpoint_dir, name: str):
    return torch.load(checkpoint_dir / f"{name}.pt", weights_only=True)


@pytest.mark.parametrize("name", ["digits-vae", "digits-biggan", "digits-diffusion"])
def test_an_interrupted_training_gives_the_same_file(name, tmp_path):
    whole = train(name, steps=4, out=tmp_path / "whole", checkpoint_dir=tmp_path / "a", report_every=1)
    stopped = train(
        name, steps=4, out=tmp_path / "parts", checkpoint_dir=tmp_path / "b", report_every=2, stop_after_s=0
    )
    assert stopped is None
    assert last_step_only(tmp_path / "b", name)["t"] == 2
    assert not (tmp_path / "parts" / f"{name}.safetensors").exists()
    resumed = train(name, steps=4, out=tmp_path / "parts", checkpoint_dir=tmp_path / "b")
    assert whole is not None
    assert resumed is not None
    assert file_sha256(whole) == file_sha256(resumed)
    content = json.loads(resumed.with_suffix(".json").read_text())
    assert content["sha256"] == file_sha256(resumed)
    assert content["recipe"]["steps"] == 4


def test_a_checkpoint_of_another_length_is_refused(tmp_path):
    train("digits-vae", steps=2, out=tmp_path, checkpoint_dir=tmp_path)
    with pytest.raises(BenchError, match="was trained for 2 steps in all, not 3"):
        train("digits-vae", steps=3, out=tmp_path, checkpoint_dir=tmp_path)


def test_an_unknown_recipe_names_the_nearest():
    with pytest.raises(BenchError, match="Did you mean 'shapes-gan'"):
        build("shape-gan", torch.device("cpu"))


@pytest.mark.parametrize("name", ["digits-classifier-judge", "digits-vae", "digits-diffusion"])
def test_a_few_steps_lower_the_loss(name):
    training, _ = build(name, torch.device("cpu"), 60)
    key = "loss" if "classifier" in name else "error"
    losses = [float(training.step(t)[key]) for t in range(60)]
    assert sum(losses[-10:]) < 0.8 * sum(losses[:10])
