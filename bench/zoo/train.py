"""The training loop of the zoo: resumable, seeded, with a card at the end.

``tr0n-bench zoo train NAME`` calls :func:`train`. Checkpoints are torch files read with
``weights_only=True``.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from bench.errors import BenchError, nearest
from bench.zoo.recipes import RECIPES
from bench.zoo.training import Training
from bench.zoo.weights import WEIGHTS_DIR, card, save_model


def build(name: str, device: torch.device, steps: int | None = None) -> tuple[Training, dict[str, Any]]:
    """The training object of a recipe and the recipe. Raises BenchError for an unknown name."""
    if name not in RECIPES:
        raise BenchError(
            f"the zoo has no recipe '{name}'.{nearest(name, RECIPES)} Recipes: {', '.join(RECIPES)}."
        )
    recipe = RECIPES[name]
    return recipe["class"](recipe["seed"], device, steps or recipe["steps"], **recipe["options"]), recipe


def save_checkpoint(training: Training, path: Path, t: int) -> None:
    state = {
        "t": t,
        "total_steps": training.total_steps,
        "modules": {k: m.state_dict() for k, m in training.modules.items()},
        "optimizers": {k: o.state_dict() for k, o in training.optimizers.items()},
    }
    partial = path.with_suffix(".tmp")
    torch.save(state, partial)
    os.replace(partial, path)


def load_checkpoint(training: Training, path: Path) -> int:
    """Restores modules and optimisers and returns the next step."""
    state = torch.load(path, map_location=training.device, weights_only=True)
    if state["total_steps"] != training.total_steps:
        raise BenchError(
            f"{path} was trained for {state['total_steps']} steps in all, not {training.total_steps}. "
            "Give the same --steps to resume, or remove the checkpoint to start anew."
        )
    for name, module in training.modules.items():
        module.load_state_dict(state["modules"][name])
    for name, optimizer in training.optimizers.items():
        optimizer.load_state_dict(state["optimizers"][name])
    return int(state["t"])


def train(
    name: str,
    *,
    device: str = "cpu",
    steps: int | None = None,
    out: Path | None = None,
    checkpoint_dir: Path | None = None,
    checkpoint_s: float = 120.0,
    stop_after_s: float | None = None,
    report: Callable[[int, int, dict[str, float]], None] | None = None,
    report_every: int = 200,
) -> Path | None:
    """Trains a recipe and writes NAME.safetensors and its card NAME.json; returns the weights' path.

    A checkpoint in ``checkpoint_dir`` is resumed. With ``stop_after_s`` the training stops at the first
    report after that many seconds, leaves a checkpoint and returns None.
    """
    out = out or WEIGHTS_DIR
    checkpoint_dir = checkpoint_dir or Path("cache") / "zoo"
    checkpoint_dir.mkdir(parents=True, exist_ok=True)
    out.mkdir(parents=True, exist_ok=True)
    training, recipe = build(name, torch.device(device), steps)
    checkpoint = checkpoint_dir / f"{name}.pt"
    start = load_checkpoint(training, checkpoint) if checkpoint.exists() else 0
    begin = saved = time.monotonic()
    for t in range(start, training.total_steps):
        losses = training.step(t)
        last = t + 1 == training.total_steps
        if (t + 1) % report_every and not last:
            continue
        if report is not None:
            report(t + 1, training.total_steps, {key: float(value) for key, value in losses.items()})
        now = time.monotonic()
        stop = stop_after_s is not None and now - begin > stop_after_s and not last
        if stop or last or now - saved > checkpoint_s:
            save_checkpoint(training, checkpoint, t + 1)
            saved = now
        if stop:
            return None
    path = out / f"{name}.safetensors"
    sha256 = save_model(training.export(), training.architecture, path, half=True)
    content = {
        "name": name,
        "description": recipe["description"],
        "architecture": training.architecture,
        "data": recipe["options"].get("data", "shapes"),
        "recipe": {"class": recipe["class"].__name__, "steps": training.total_steps, **recipe["options"]},
        "seed": recipe["seed"],
        "trained_on": torch.cuda.get_device_name() if device.startswith("cuda") else "cpu",
        "torch": torch.__version__,
        "figures": training.evaluate(),
        "sha256": sha256,
        "bytes": path.stat().st_size,
    }
    (out / f"{name}.json").write_text(json.dumps(content, indent=2, sort_keys=True) + "\n")
    card.cache_clear()
    return path
