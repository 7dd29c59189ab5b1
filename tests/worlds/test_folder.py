"""A folder of images with a list of prompts: order, splits, geometry, and every fault named."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from bench.conditions import text_conditions
from bench.errors import DataError
from bench.protocols import Protocol
from bench.protocols.prompts import chosen
from bench.protocols.sources import load_under
from bench.worlds.folder import Images


@pytest.fixture
def root(tmp_path):
    draws = np.random.default_rng(0)
    for name, size in (
        ("b/2.jpg", (9, 8)),
        ("a.PNG", (8, 8)),
        ("b/10.webp", (12, 8)),
        ("val2/x.png", (8, 8)),
    ):
        path = tmp_path / "ffhq" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(draws.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)).save(path)
    (tmp_path / "ffhq" / "notes.txt").write_text("no image")
    return tmp_path / "ffhq"


def test_files_come_in_order_of_their_paths_and_are_cropped(root, tmp_path):
    data = Images(root=str(root), resolution=8).load("val", tmp_path)
    assert data.ids == ("a", "b/10", "b/2", "val2/x")
    assert data.images([3, 0]).shape == (2, 3, 8, 8)
    whole = np.asarray(Image.open(root / "b" / "10.webp").convert("RGB")).transpose(2, 0, 1)
    assert np.array_equal(data.images([1])[0], whole[:, :, 2:10])
    with pytest.raises(DataError, match=r"12 x 8 pixels.*Set 'resolution'"):
        Images(root=str(root)).load("val", tmp_path).images([0, 1])


def test_a_split_is_a_subfolder(root, tmp_path):
    assert Images(root=str(root)).load("val2", tmp_path).ids == ("x",)
    with pytest.raises(DataError, match="train: no such folder"):
        Images(root=str(root)).load("train", tmp_path)


def test_prompts_are_lines_of_text_that_belong_to_no_image(root, tmp_path):
    path = tmp_path / "prompts.txt"
    path.write_text("a face, smiling\n\n # not a comment \nthird 🦊\n", encoding="utf-8")
    source = Images(root=str(root), resolution=8, prompts=str(path))
    assert (source.has_captions, Images(root=str(root)).has_captions) == (True, False)
    data = load_under(source, tmp_path, Protocol(eval_size=8))
    conditions = text_conditions(data, 9, chosen(data, Protocol()))
    assert [c.text for c in conditions] == ["a face, smiling", "# not a comment", "third 🦊"]
    assert [c.id for c in conditions] == ["text:0", "text:1", "text:2"]
    assert {str(c.labels) for c in conditions} == {"{}"}


def test_the_hash_covers_bytes_names_prompts_and_geometry(root, tmp_path):
    path = tmp_path / "prompts.txt"
    path.write_text("one")
    digests = set()

    def add(**options):
        digests.add(Images(root=str(root), **options).load("val", tmp_path).manifest_sha256)

    add()
    add()
    assert len(digests) == 1
    add(resolution=8)
    add(prompts=str(path))
    path.write_text("two")
    add(prompts=str(path))
    (root / "a.PNG").rename(root / "c.png")
    add()
    Image.new("RGB", (8, 8)).save(root / "c.png")
    add()
    assert len(digests) == 6


def test_faults_are_named(root, tmp_path):
    with pytest.raises(DataError, match=r"nowhere: no such folder\. Correct 'root'"):
        Images(root=str(tmp_path / "nowhere")).load("val", tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"empty: no images in it"):
        Images(root=str(tmp_path / "empty")).load("val", tmp_path)
    for content, message in ((b"\xff", "cannot be read as UTF-8"), (b" \n", "no prompt in it")):
        (tmp_path / "p.txt").write_bytes(content)
        with pytest.raises(DataError, match=message):
            Images(root=str(root), prompts=str(tmp_path / "p.txt")).load("val", tmp_path)
    (root / "a.jpg").write_bytes(b"x")
    with pytest.raises(DataError, match="'a' is there with two suffixes"):
        Images(root=str(root)).load("val", tmp_path)
    (root / "a.PNG").unlink()
    with pytest.raises(DataError, match=r"a\.jpg: cannot read the image"):
        Images(root=str(root), resolution=8).load("val", tmp_path).images([0])
