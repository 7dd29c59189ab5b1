"""The digits world: real data, fixed splits, faithful enlargement."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.datasets import load_digits

from bench.errors import DataError, SuiteError
from bench.worlds import digits
from bench.worlds.base import ArrayImageSet
from bench.worlds.digits import Digits, _raw

WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")


def test_splits_are_disjoint_complete_and_of_the_stated_sizes():
    train, val, everything = (Digits().rows(split) for split in ("train", "val", "all"))
    assert (len(train), len(val), len(everything)) == (1297, 500, 1797)
    assert not set(train) & set(val)
    assert sorted([*train, *val]) == everything.tolist() == list(range(1797))


def test_splits_keep_every_class_in_proportion():
    world = Digits()
    counts = {split: np.bincount(world.arrays(split)[1], minlength=10) for split in ("train", "val", "all")}
    assert np.abs(counts["val"] - counts["all"] * 500 / 1797).max() < 1
    assert (counts["train"] + counts["val"] == counts["all"]).all()


def test_splits_mix_the_whole_file_and_stay_fixed():
    val = Digits().rows("val")
    assert np.histogram(val, bins=6, range=(0, 1797))[0].min() > 50
    assert val[:8].tolist() == FIRST_VAL_ROWS


FIRST_VAL_ROWS = [7, 16, 22, 24, 29, 30, 32, 35]


def test_labels_and_pixels_are_scikit_learns():
    bunch, world = load_digits(), Digits(resolution=8)
    images, labels = world.arrays("val")
    rows = world.rows("val")
    assert labels.dtype == np.int64
    assert (labels == bunch.target[rows]).all()
    # At the original size nothing is interpolated: only the scale changes.
    assert (images[:, 0] == np.round(bunch.images[rows] * 255 / 16)).all()


def test_the_table_is_the_one_that_scikit_learn_reads(monkeypatch):
    bunch = load_digits()
    _raw.cache_clear()
    images, labels = _raw()
    np.testing.assert_array_equal(images, bunch.images)
    np.testing.assert_array_equal(labels, bunch.target)
    assert (images.dtype, labels.dtype) == (np.float32, np.int64)
    monkeypatch.setattr(digits, "find_spec", lambda name: None)  # a package laid out otherwise
    _raw.cache_clear()
    again, _ = _raw()
    assert again.dtype == np.float32
    np.testing.assert_array_equal(again, images)


@pytest.mark.parametrize("resolution", [32, 64])
def test_enlargement_keeps_range_grey_and_layout(resolution):
    images, _ = Digits(resolution=resolution).arrays("val")
    assert images.dtype == np.uint8
    assert images.shape == (500, 3, resolution, resolution)
    assert images.min() == 0
    assert images.max() == 255
    assert (images == images[:, :1]).all()
    factor = resolution // 8
    blocks = images[:, 0].reshape(500, 8, factor, 8, factor).mean(axis=(2, 4))
    small, _ = Digits(resolution=8).arrays("val")
    assert np.corrcoef(blocks.ravel(), small[:, 0].ravel())[0, 1] > 0.97


def test_load_gives_ids_captions_and_attributes_that_agree(tmp_path):
    world = Digits()
    images = world.load("val", tmp_path)
    pixels, labels = world.arrays("val")
    assert images.ids == tuple(str(row) for row in world.rows("val"))
    assert world.attributes == {"digit": tuple("0123456789")}
    for label, texts, attributes in zip(labels, images.captions, images.attributes, strict=True):
        assert attributes == {"digit": str(label)}
        assert len(texts) == 1
        assert WORDS[label] in texts[0] or str(label) in texts[0]
    assert len({texts[0].replace(word, "") for texts in images.captions for word in WORDS}) > 4
    assert (images.images([3, 499, 0]) == pixels[[3, 499, 0]]).all()
    assert not any(tmp_path.iterdir())


def test_manifest_tells_content_apart(tmp_path):
    digests = {
        Digits(resolution=side).load(split, tmp_path).manifest_sha256
        for side in (16, 32)
        for split in ("train", "val")
    }
    assert len(digests) == 4
    assert Digits(resolution=16).load("val", tmp_path).manifest_sha256 in digests


def test_unknown_split_and_resolution_are_refused(tmp_path):
    with pytest.raises(DataError, match=r"no split 'vall'\. Did you mean 'val'\?.*train, val, all"):
        Digits().load("vall", tmp_path)
    with pytest.raises(SuiteError, match="resolution must be in 8"):
        Digits(resolution=4)


def test_array_image_set_refuses_lengths_that_disagree():
    with pytest.raises(ValueError, match="must agree in N"):
        ArrayImageSet(
            ids=("1",), captions=(("a",),), attributes=({},), pixels=np.zeros((2, 3, 4, 4), dtype=np.uint8)
        )
