"""ImageNet's folder layout."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from bench.auxiliaries.classifier_files import ClassifierFiles
from bench.errors import DataError
from bench.worlds.imagenet import ImageNet


def write(folder, synset: str, name: str, value: int):
    (folder / synset).mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((20, 30, 3), value, np.uint8)).save(folder / synset / name)


def test_folders_give_classes_in_the_classifiers_words(tmp_path):
    write(tmp_path / "val", "n01443537", "b.png", 90)
    write(tmp_path / "val", "n01440764", "a.JPEG", 200)
    source = ImageNet(root=str(tmp_path), resolution=16)
    images = source.load("val", tmp_path)
    assert images.ids == ("n01440764/a", "n01443537/b")
    assert images.attributes == ({"class": "tench"}, {"class": "goldfish"})
    assert images.images([1]).shape == (1, 3, 16, 16)
    assert int(images.images([1]).max()) == 90
    assert ClassifierFiles(model="resnet50", weights="w").check_data(source) is None
    before = images.manifest_sha256
    write(tmp_path / "val", "n01443537", "b.png", 91)
    assert source.load("val", tmp_path).manifest_sha256 != before


def test_what_is_not_the_layout_is_refused(tmp_path):
    with pytest.raises(DataError, match=r"train: no such folder.*image-net\.org"):
        ImageNet(root=str(tmp_path)).load("train", tmp_path)
    (tmp_path / "val").mkdir()
    with pytest.raises(DataError, match="no images in it"):
        ImageNet(root=str(tmp_path)).load("val", tmp_path)
    write(tmp_path / "val", "tench", "a.png", 3)
    with pytest.raises(DataError, match="tench: is no synset"):
        ImageNet(root=str(tmp_path)).load("val", tmp_path)
