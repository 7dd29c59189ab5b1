"""The ``shapes`` source: renders once, writes MS-COCO's layout to the cache, reads that back."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from bench.errors import DataError, SuiteError, nearest
from bench.streams import Streams, hash64
from bench.worlds import shapes
from bench.worlds.coco import CocoImageSet, write_coco
from bench.worlds.coco_annotations import captions_path
from bench.worlds.files import track

# Raised by any change to pixels, captions or layout, so that an old cache is never read as new.
VERSION = 1
FIRST_ID = {"val": 1, "train": 1_000_001}
_FOLDER = {"val": "val2014", "train": "train2014"}
_RENDER_CHUNK = 1000


@dataclass(frozen=True, kw_only=True)
class Shapes:
    """Antialiased coloured shapes with exact attributes and five captions each.

    ``objects`` is one, or two in different corners. Scene i of a split depends on (seed, objects, split,
    i) alone: splits share no stream, and more images never change the earlier ones.
    """

    resolution: Literal[32, 64] = 32
    objects: Literal[1, 2] = 1
    seed: int = 0
    num_train: int = 20_000
    num_val: int = 2_000

    def __post_init__(self) -> None:
        for name, allowed in (("resolution", (32, 64)), ("objects", (1, 2))):
            if getattr(self, name) not in allowed:
                raise SuiteError(f"shapes: {name} must be one of {allowed}, got {getattr(self, name)}.")
        for name in ("num_train", "num_val"):
            # Validation ids end where training ids begin.
            if not 1 <= getattr(self, name) <= 1_000_000:
                raise SuiteError(f"shapes: {name} must be in 1 … 1000000, got {getattr(self, name)}.")

    @property
    def attributes(self) -> Mapping[str, tuple[str, ...]]:
        return shapes.attribute_values(self.objects)

    def make(
        self, split: str, start: int, num: int, device: torch.device | str | None = None
    ) -> tuple[Tensor, list[dict[str, str]], Tensor, list[tuple[str, ...]]]:
        """Images start … start+num-1 of a split, without disk: (images, labels, values, captions).

        Images are uint8 (num, 3, resolution, resolution) and values int64 (num, A), indices into
        ``attributes`` in its order; both lie on ``device``. Labels name the same values; captions are
        five per image. ``start + num`` may pass ``num_train``: a split is an endless sequence.
        """
        self._check(split)
        streams = Streams.from_seed(num, self.seed, "shapes", self.objects, split, start=start, device=device)
        scenes = shapes.sample_scenes(streams, self.objects)
        rows = shapes.labels(scenes)
        return shapes.render(scenes, self.resolution), rows, scenes.values, shapes.captions(rows, streams)

    def folder(self, split: str, cache_dir: Path) -> Path:
        """Where the split is cached; the name holds a hash of all that the content depends on."""
        config = {key: value for key, value in asdict(self).items() if not key.startswith("num_")}
        config |= {"split": split, "num": self._count(split), "version": VERSION}
        digest = hash64("shapes", json.dumps(config, sort_keys=True))
        return Path(cache_dir) / f"shapes-{self.resolution}px-{self.objects}-{split}-{digest:016x}"

    def load(self, split: str, cache_dir: Path) -> CocoImageSet:
        """The split ``train`` or ``val``, rendered at first use and then read from ``cache_dir``.

        Ids count from 1 (``val``) and from 1,000,001 (``train``). Raises DataError on another split.
        """
        self._check(split)
        root, name = self.folder(split, cache_dir), _FOLDER[split]
        if not captions_path(root, name).is_file():
            try:
                self._write(split, root)
            except DataError:
                # Another process may have finished the same folder first; its content is the same.
                if not captions_path(root, name).is_file():
                    raise
        return CocoImageSet(root, name, resolution=self.resolution)

    def _write(self, split: str, root: Path) -> None:
        count = self._count(split)
        starts = range(0, count, _RENDER_CHUNK)
        parts = [
            self.make(split, start, min(_RENDER_CHUNK, count - start))
            for start in track(starts, f"rendering shapes ({split})", len(starts))
        ]
        write_coco(
            root,
            _FOLDER[split],
            torch.cat([part[0] for part in parts]).numpy(),
            [texts for part in parts for texts in part[3]],
            [row for part in parts for row in part[1]],
            range(FIRST_ID[split], FIRST_ID[split] + count),
        )

    def _count(self, split: str) -> int:
        return self.num_val if split == "val" else self.num_train

    @staticmethod
    def _check(split: str) -> None:
        if split not in FIRST_ID:
            allowed = ", ".join(FIRST_ID)
            raise DataError(f"shapes has no split '{split}'.{nearest(split, FIRST_ID)} Allowed: {allowed}.")
