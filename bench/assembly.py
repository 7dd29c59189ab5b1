"""Loads the parts of a suite, each once: data, generators, conditioners, translators, judges, references."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import is_dataclass
from pathlib import Path
from typing import Any

import torch

from bench.conditioners.base import Conditioner
from bench.conditions import Assignment, assign, class_conditions, text_conditions
from bench.errors import DataError, WeightError
from bench.generators.base import Generator
from bench.judges.base import Judge
from bench.keys import content_key
from bench.plan import Cell
from bench.suite import Named, Suite
from bench.translator.pairs import synthesize
from bench.translator.train import Translator, load_translator, save_translator, train_translator
from bench.types import Readout
from bench.worlds.base import ImageSet
from bench.zoo.weights import file_sha256, model_sha256

TRANSLATOR_VERSION = 1  # raise when training or pair synthesis changes its results

Progress = Callable[[str, int, int], None]


def default_cache_dir() -> Path:
    """``TR0N_BENCH_CACHE`` or ``~/.cache/tr0n-bench``."""
    return Path(os.environ.get("TR0N_BENCH_CACHE") or Path.home() / ".cache" / "tr0n-bench")


def weight_hashes(config: Any) -> dict[str, str]:
    """Name of each weight file that a component's configuration uses → sha256, nested ones included.

    Zoo models answer from their cards; a file of the user's own is read. Raises WeightError if missing.
    """
    hashes: dict[str, str] = {}
    if not is_dataclass(config):
        return hashes
    path, model = getattr(config, "weights", None), getattr(config, "model", None)
    if path:
        if not Path(path).is_file():
            raise WeightError(
                f"weight file '{path}' is missing. Correct 'weights' in the suite or put the file there."
            )
        hashes[Path(path).name] = file_sha256(Path(path))
    elif isinstance(model, str):
        hashes[model] = model_sha256(model)
    for value in vars(config).values():
        hashes |= weight_hashes(value)
    return hashes


class Assembly:
    """The loaded parts of one run on one device."""

    def __init__(self, suite: Suite, device: torch.device, cache_dir: Path, progress: Progress | None = None):
        self.suite, self.device, self.cache_dir = suite, device, cache_dir
        self.progress: Progress = progress or (lambda task, done, total: None)
        self._loaded: dict[tuple[str, ...], Any] = {}

    def _once(self, key: tuple[str, ...], make: Callable[[], Any]) -> Any:
        if key not in self._loaded:
            self._loaded[key] = make()
        return self._loaded[key]

    def generator(self, name: str) -> Generator:
        return self._once(("generator", name), lambda: self.suite.generators[name].config.load(self.device))

    def conditioner(self, name: str) -> Conditioner:
        return self._once(
            ("conditioner", name), lambda: self.suite.conditioners[name].config.load(self.device)
        )

    def judge(self, name: str) -> Judge:
        return self._once(("judge", name), lambda: self.suite.judges[name].config.load(self.device))

    def images(self, data: str) -> ImageSet:
        """The reference split of a data set; its prompts come from there too."""
        split = self.suite.protocol.reference_split
        return self._once(
            ("images", data), lambda: self.suite.data[data].config.load(split, self.cache_dir / "data")
        )

    def reference(self, data: str, judge: str) -> Readout:
        """What a judge sees in the first ``num_reference`` real images."""

        def make() -> Readout:
            images = self.images(data)
            num = min(len(images), self.suite.protocol.num_reference)
            if num < 2:
                raise DataError(
                    f"data '{data}' has {num} reference images; distribution metrics need two or more."
                )
            return self.judge(judge).readout(images.images(range(num)))

        return self._once(("reference", data, judge), make)

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

    def translator_key(self, cell: Cell) -> str:
        """Content key of a trained translator: the three configurations and the hashes of their weights."""
        parts = self._translator_parts(cell)
        return content_key(
            {
                "version": TRANSLATOR_VERSION,
                "parts": [part.raw for part in parts],
                "weights": [weight_hashes(part.config) for part in parts],
            }
        )

    def _translator_parts(self, cell: Cell) -> tuple[Named, Named, Named]:
        assert cell.translator is not None
        suite = self.suite
        return (
            suite.generators[cell.generator],
            suite.conditioners[cell.conditioner],
            suite.translators[cell.translator],
        )

    def translator(self, cell: Cell) -> Translator:
        """The cell's translator, from the cache or trained now."""
        key = ("translator", cell.generator, cell.conditioner, cell.translator or "")
        return self._once(key, lambda: self._make_translator(cell))

    def _make_translator(self, cell: Cell) -> Translator:
        config = self._translator_parts(cell)[2].config
        generator, conditioner = self.generator(cell.generator), self.conditioner(cell.conditioner)
        path = self.cache_dir / "translators" / f"{self.translator_key(cell)}.safetensors"
        if path.exists():
            return load_translator(path, generator.latent, conditioner.dim, config, self.device)
        what = f"{cell.generator} × {cell.conditioner}"
        begin = time.perf_counter()
        pairs = synthesize(
            generator, conditioner, config, self.device, lambda k, n: self.progress(f"pairs {what}", k, n)
        )
        middle = time.perf_counter()
        translator = train_translator(
            pairs,
            generator.latent,
            config,
            self.device,
            lambda k, n: self.progress(f"translator {what}", k, n),
        )
        translator.setup_s = {"pairs": middle - begin, "translator_training": time.perf_counter() - middle}
        save_translator(translator, path)
        return translator
