"""CIFAR-10 from the published binary version, which unlike the Python version holds no pickles."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bench.errors import DataError, nearest
from bench.worlds.base import ArrayImageSet

CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
SIDE = 32
RECORD = 1 + 3 * SIDE * SIDE  # a label and the pixels, channel by channel
FILES = {
    "train": tuple(f"data_batch_{k}.bin" for k in range(1, 6)),
    "val": ("test_batch.bin",),
    "test": ("test_batch.bin",),
}
SOURCE = "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz"


@dataclass(frozen=True, kw_only=True)
class Cifar10:
    """CIFAR-10: 32 px images of ten classes, from the folder of the binary version.

    ``root`` is the unpacked ``cifar-10-batches-bin``: data_batch_1.bin … data_batch_5.bin and
    test_batch.bin, of 3,073 bytes per image. Splits: ``train`` (50,000) and ``test`` (10,000; ``val`` is
    the same). The class is the attribute "class". There are no captions. Source: Krizhevsky 2009.
    """

    root: str
    has_captions = False

    @property
    def resolution(self) -> int:
        return SIDE

    @property
    def attributes(self) -> Mapping[str, tuple[str, ...]]:
        return {"class": CLASSES}

    def load(self, split: str, cache_dir: Path) -> ArrayImageSet:
        """The split in memory, in the files' order; ids are ``<file>:<row>``. ``cache_dir`` is not used.

        Raises DataError for another split, a missing file, or one that is cut short or not in the format.
        """
        if split not in FILES:
            raise DataError(
                f"cifar10 has no split '{split}'.{nearest(split, FILES)} Allowed: {', '.join(FILES)}."
            )
        ids: list[str] = []
        labels: list[int] = []
        pixels = []
        for name in FILES[split]:
            rows = _read(Path(self.root).expanduser() / name)
            ids += [f"{name.removesuffix('.bin')}:{i}" for i in range(len(rows))]
            labels += rows[:, 0].tolist()
            pixels.append(rows[:, 1:].reshape(-1, 3, SIDE, SIDE))
        return ArrayImageSet(
            ids=tuple(ids),
            captions=tuple(() for _ in ids),
            attributes=tuple({"class": CLASSES[label]} for label in labels),
            pixels=np.concatenate(pixels),
        )


def _read(path: Path) -> np.ndarray:
    """uint8 (N, 3073)."""
    try:
        content = np.fromfile(path, np.uint8)
    except FileNotFoundError:
        raise DataError(
            f"'{path}' is missing. Get CIFAR-10's binary version from {SOURCE}, unpack it and set 'root' to "
            "its folder cifar-10-batches-bin."
        ) from None
    except OSError as error:
        raise DataError(f"'{path}' cannot be read: {error}.") from error
    if not len(content) or len(content) % RECORD:
        raise DataError(
            f"'{path}' has {len(content)} bytes, expected a multiple of {RECORD}. Unpack it anew."
        )
    rows = content.reshape(-1, RECORD)
    if rows[:, 0].max() >= len(CLASSES):
        raise DataError(
            f"'{path}' has label {rows[:, 0].max()} in row {int(rows[:, 0].argmax())}, expected 0 … 9: it is "
            "not CIFAR-10's binary version (CIFAR-100's records are one byte longer)."
        )
    return rows
