"""CIFAR-10's binary version, in files of that format."""

from __future__ import annotations

import numpy as np
import pytest

from bench.errors import DataError
from bench.worlds.cifar import CLASSES, FILES, Cifar10


def write_cifar(folder, num=4, seed=0):
    rng = np.random.default_rng(seed)
    rows = {}
    for name in sorted({name for names in FILES.values() for name in names}):
        rows[name] = rng.integers(0, 256, (num, 3073), dtype=np.uint8)
        rows[name][:, 0] = rng.integers(0, 10, num)
        rows[name].tofile(folder / name)
    return rows


def test_labels_and_pixels_are_those_of_the_files(tmp_path):
    rows = write_cifar(tmp_path)
    source = Cifar10(root=str(tmp_path))
    images = source.load("train", tmp_path)
    assert len(images) == 20
    assert images.ids[5] == "data_batch_2:1"
    row = rows["data_batch_2.bin"][1]
    assert images.attributes[5] == {"class": CLASSES[row[0]]}
    pixels = images.images([5])[0]
    assert pixels[0, 0, 1] == row[2]
    assert pixels[1, 0, 0] == row[1 + 1024]
    assert pixels[2, 31, 31] == row[-1]
    assert source.load("val", tmp_path).manifest_sha256 == source.load("test", tmp_path).manifest_sha256
    assert not source.has_captions


def test_what_is_not_cifar_10_is_refused(tmp_path):
    with pytest.raises(DataError, match=r"test_batch\.bin' is missing.*cifar-10-binary\.tar\.gz"):
        Cifar10(root=str(tmp_path)).load("test", tmp_path)
    rows = write_cifar(tmp_path)["test_batch.bin"]
    rows.reshape(-1)[:-1].tofile(tmp_path / "test_batch.bin")
    with pytest.raises(DataError, match=r"12291 bytes, expected a multiple of 3073"):
        Cifar10(root=str(tmp_path)).load("test", tmp_path)
    rows[2, 0] = 10
    rows.tofile(tmp_path / "test_batch.bin")
    with pytest.raises(DataError, match=r"label 10 in row 2"):
        Cifar10(root=str(tmp_path)).load("test", tmp_path)
    with pytest.raises(DataError, match=r"no split 'vall'. Did you mean 'val'"):
        Cifar10(root=str(tmp_path)).load("vall", tmp_path)
