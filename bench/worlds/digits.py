"""The ``digits`` world: scikit-learn's 1,797 real handwritten digits, for class conditions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch

from bench.errors import DataError, SuiteError, nearest
from bench.streams import hash64
from bench.worlds.base import ArrayImageSet

CLASSES = tuple("0123456789")
SPLITS = ("train", "val", "all")
NUM_VAL = 500
_WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
_TEMPLATES = (
    "a handwritten digit {word}",
    "the number {word} written by hand",
    "a scan of the handwritten numeral {digit}",
    "the digit {digit} in white on black",
)


@lru_cache(maxsize=1)
def _raw() -> tuple[np.ndarray, np.ndarray]:
    """scikit-learn's intensities, float32 (1797, 8, 8) in [0, 16], and labels, int64 (1797,)."""
    spec = find_spec("sklearn")
    places = spec.submodule_search_locations if spec is not None else None
    for folder in places or ():
        # The table that load_digits reads, without the second that importing scikit-learn takes.
        file = Path(folder) / "datasets" / "data" / "digits.csv.gz"
        if file.is_file():
            table = np.loadtxt(file, delimiter=",", dtype=np.float32)
            return table[:, :-1].reshape(-1, 8, 8), table[:, -1].astype(np.int64)
    from sklearn.datasets import load_digits

    bunch = load_digits()
    return bunch.images.astype(np.float32), bunch.target.astype(np.int64)


@lru_cache(maxsize=1)
def _split_rows() -> dict[str, np.ndarray]:
    """Ascending row numbers of each split. Every class gives ``val`` its share of NUM_VAL, ± 1."""
    _, labels = _raw()
    share = {k: NUM_VAL * int((labels == k).sum()) / len(labels) for k in range(10)}
    quota = {k: int(value) for k, value in share.items()}
    by_remainder = sorted(share, key=lambda k: (quota[k] - share[k], k))
    for k in by_remainder[: NUM_VAL - sum(quota.values())]:
        quota[k] += 1
    val: list[int] = []
    for k in range(10):
        # Hash order, not a library's shuffle: the split stays the same across versions of NumPy.
        rows = sorted(np.flatnonzero(labels == k).tolist(), key=lambda row: hash64("digits", "split", row))
        val += rows[: quota[k]]
    everything = np.arange(len(labels))
    held_out = np.array(sorted(val))
    return {"train": np.setdiff1d(everything, held_out), "val": held_out, "all": everything}


@dataclass(frozen=True, kw_only=True)
class Digits:
    """scikit-learn's digits, bicubically enlarged from 8 × 8 to ``resolution`` and grey on three channels.

    Splits: ``train`` (1,297), ``val`` (500) and ``all``, stratified by class and fixed. The same writers
    appear in both, as scikit-learn does not say who wrote what. Source: Alpaydin and Kaynak 1998, UCI
    "Optical Recognition of Handwritten Digits", as shipped by ``sklearn.datasets.load_digits``.
    """

    resolution: int = 32

    def __post_init__(self) -> None:
        if not 8 <= self.resolution <= 1024:
            raise SuiteError(f"digits: resolution must be in 8 … 1024, got {self.resolution}.")

    @property
    def attributes(self) -> Mapping[str, tuple[str, ...]]:
        return {"digit": CLASSES}

    def rows(self, split: str) -> np.ndarray:
        """Int64 row numbers of the split in scikit-learn's order, ascending. DataError on another split."""
        if split not in SPLITS:
            raise DataError(
                f"digits has no split '{split}'.{nearest(split, SPLITS)} Allowed: {', '.join(SPLITS)}."
            )
        return _split_rows()[split]

    def arrays(self, split: str) -> tuple[np.ndarray, np.ndarray]:
        """Images, uint8 (N, 3, resolution, resolution), and labels, int64 (N,) in 0 … 9."""
        rows = self.rows(split)
        intensities, labels = _raw()
        small = torch.from_numpy(intensities[rows])[:, None] * (255.0 / 16.0)
        side = (self.resolution, self.resolution)
        large = torch.nn.functional.interpolate(small, side, mode="bicubic", align_corners=False)
        # Bicubic weights overshoot at strokes' edges.
        grey = large.clamp(0, 255).round().to(torch.uint8).numpy()
        return np.repeat(grey, 3, axis=1), labels[rows]

    def load(self, split: str, cache_dir: Path) -> ArrayImageSet:
        """The split in memory; ids are scikit-learn's row numbers. ``cache_dir`` is not used."""
        images, labels = self.arrays(split)
        rows = self.rows(split).tolist()
        captions = []
        for row, label in zip(rows, labels.tolist()):
            template = _TEMPLATES[hash64("digits", "caption", row) % len(_TEMPLATES)]
            captions.append((template.format(word=_WORDS[label], digit=label),))
        return ArrayImageSet(
            ids=tuple(str(row) for row in rows),
            captions=tuple(captions),
            attributes=tuple({"digit": CLASSES[label]} for label in labels.tolist()),
            pixels=images,
        )
