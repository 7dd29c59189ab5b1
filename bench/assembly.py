"""Loads the parts of a suite, each once, and says what each sample is asked for."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from bench.conditioners.base import Conditioner
from bench.conditions import Assignment, assign, class_conditions, text_conditions
from bench.generators.base import AnyGenerator
from bench.judges.base import Judge
from bench.plan import Cell
from bench.suite import Suite
from bench.worlds.base import ImageSet

Progress = Callable[[str, int, int], None]


def default_cache_dir() -> Path:
    """``TR0N_BENCH_CACHE`` or ``~/.cache/tr0n-bench``."""
    return Path(os.environ.get("TR0N_BENCH_CACHE") or Path.home() / ".cache" / "tr0n-bench")


def silent(task: str, done: int, total: int) -> None:
    """Progress that nobody watches."""


class Assembly:
    """The loaded parts of one suite on one device. ``asked`` is the device as the user named it ("auto"),
    by which a worker elsewhere chooses its own."""

    def __init__(
        self,
        suite: Suite,
        device: torch.device,
        cache_dir: Path | None = None,
        progress: Progress = silent,
        asked: str | None = None,
    ):
        self.suite, self.device, self.progress = suite, device, progress
        self.asked = str(device) if asked is None else asked
        self.cache_dir = default_cache_dir() if cache_dir is None else cache_dir
        self._loaded: dict[tuple[str, ...], Any] = {}

    def once(self, key: tuple[str, ...], make: Callable[[], Any]) -> Any:
        """What ``make`` gave the first time it was asked for under ``key``."""
        if key not in self._loaded:
            self._loaded[key] = make()
        return self._loaded[key]

    def generator(self, name: str) -> AnyGenerator:
        return self.once(("generator", name), lambda: self.suite.generators[name].config.load(self.device))

    def conditioner(self, name: str) -> Conditioner:
        return self.once(
            ("conditioner", name), lambda: self.suite.conditioners[name].config.load(self.device)
        )

    def judge(self, name: str) -> Judge:
        return self.once(("judge", name), lambda: self.suite.judges[name].config.load(self.device))

    def images(self, data: str) -> ImageSet:
        """The reference split of a data set; its prompts come from there too."""
        split = self.suite.protocol.reference_split
        return self.once(
            ("images", data), lambda: self.suite.data[data].config.load(split, self.cache_dir / "data")
        )

    def assignment(self, cell: Cell) -> Assignment:
        """The conditions, replicates and seeds of a cell's samples."""
        if cell.condition_kind == "class":
            source, conditioner = (
                self.suite.data[cell.data].config,
                self.suite.conditioners[cell.conditioner].config,
            )
            heads = getattr(conditioner, "heads", None) or tuple(source.attributes)
            distinct = class_conditions(source.attributes, heads)
            limit = cell.num_conditions
        else:
            distinct = text_conditions(self.images(cell.data), cell.num_conditions)
            limit = None
        return assign(distinct, cell.num_samples, self.suite.seed, limit)
