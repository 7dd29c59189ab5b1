"""Loads the parts of a suite, each once, and says what each sample is asked for."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from bench.conditioners.base import Conditioner
from bench.conditions import (
    Assignment,
    assign,
    class_conditions,
    image_conditions,
    interpolated_conditions,
    num_ends,
    text_conditions,
)
from bench.generators.base import AnyGenerator
from bench.judges.base import Judge
from bench.plan import Cell
from bench.protocols.prompts import Placed, chosen
from bench.protocols.sources import load_under
from bench.suite import Suite
from bench.types import Condition
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

    def captioner(self, translator: str) -> Any:
        """What captions a translator's synthetic pairs; None where they need no captions."""
        config = self.suite.translators[translator].config
        if getattr(config, "route", None) != "caption":
            return None
        return self.once(("captioner", translator), lambda: config.captioner.load(self.device))

    def judge(self, name: str) -> Judge:
        return self.once(("judge", name), lambda: self.suite.judges[name].config.load(self.device))

    def images(self, data: str, split: str | None = None) -> ImageSet:
        """A split of a data set as the protocol prepares it. Without a name it is the reference split, from
        which prompts come too."""
        protocol = self.suite.protocol
        source, folder = self.suite.data[data].config, self.cache_dir / "data"
        key = ("images", data) if split is None else ("images", data, split)
        return self.once(key, lambda: load_under(source, folder, protocol, split))

    def prompts(self, data: str) -> list[Placed]:
        """The prompts of a data set under the suite's protocol, in order."""
        return self.once(("prompts", data), lambda: chosen(self.images(data), self.suite.protocol))

    def reference(self, data: str, split: str | None = None) -> Sequence[int]:
        """The images of a data set to compare with, in order, at most ``num_reference``; of another split
        than the protocol's, all."""
        protocol = self.suite.protocol
        if split is not None:
            return range(len(self.images(data, split)))
        if protocol.reference == "split":
            return range(min(len(self.images(data)), protocol.num_reference))
        indices = list(dict.fromkeys(item.index for item in self.prompts(data) if item.index is not None))
        return indices[: protocol.num_reference]

    def _ends(self, cell: Cell, what: str, num: int) -> list[Condition]:
        """The first ``num`` prompts ("texts") or images ("images") of a cell's data as conditions."""
        images = self.images(cell.data)
        if what == "images":
            return image_conditions(images, num)
        return text_conditions(images, num, self.prompts(cell.data))

    def assignment(self, cell: Cell) -> Assignment:
        """The conditions, replicates and seeds of a cell's samples."""
        conditioner = self.suite.conditioners[cell.conditioner].config
        limit = None
        if cell.condition_kind == "class":
            source = self.suite.data[cell.data].config
            heads = getattr(conditioner, "heads", None) or tuple(source.attributes)
            distinct = class_conditions(source.attributes, heads)
            limit = cell.num_conditions
        elif cell.condition_kind == "interpolated":
            ends = self._ends(cell, conditioner.between, num_ends(cell.num_conditions, conditioner.values))
            distinct = interpolated_conditions(ends, cell.num_conditions, conditioner.values)
        else:
            distinct = self._ends(cell, f"{cell.condition_kind}s", cell.num_conditions)
        composed = getattr(conditioner, "asked", None)
        if composed is not None:
            distinct = composed(distinct)
        return assign(distinct, cell.num_samples, self.suite.seed, limit)
