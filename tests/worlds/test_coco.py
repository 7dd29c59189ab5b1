"""MS-COCO's layout: what is written is read back, and every fault is one clear error."""

from __future__ import annotations

import io
import json
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from bench.errors import DataError, SuiteError
from bench.worlds.coco import Coco, CocoImageSet, write_coco

PIXELS = np.random.default_rng(0).integers(0, 256, (3, 3, 8, 10), dtype=np.uint8)
CAPTIONS = [
    ('a "quoted" \\ back/slash', "second\nline\ttab"),
    ("émoji 🦊👩‍🚀 漢字 عربى \u2028 \0", "  edges  "),
    (" ".join(f"word{i}" for i in range(1000)),),
]
ATTRIBUTES = [{"shape": "star"}, {}, {"top left": "é"}]


@pytest.fixture
def root(tmp_path) -> Path:
    """A sound data set of three images."""
    write_coco(tmp_path / "data", "val2014", PIXELS, CAPTIONS, ATTRIBUTES, [7, 3, 5])
    return tmp_path / "data"


def _edit(root: Path, change) -> None:
    path = root / "annotations" / "captions_val2014.json"
    document = json.loads(path.read_text())
    change(document)
    path.write_text(json.dumps(document))


def _load(root: Path, **options) -> CocoImageSet:
    return Coco(root=str(root), **options).load("val", root / "cache")


# --- what is written is read back -----------------------------------------------------------------


def test_round_trip_keeps_pixels_captions_attributes_and_sorts_ids(root):
    data = _load(root)
    assert data.ids == ("3", "5", "7")
    assert data.captions == (CAPTIONS[1], CAPTIONS[2], CAPTIONS[0])
    assert data.attributes == (ATTRIBUTES[1], ATTRIBUTES[2], ATTRIBUTES[0])
    read = data.images([0, 1, 2])
    assert read.dtype == np.uint8
    assert (read == PIXELS[[1, 2, 0]]).all()
    assert (data.images([2, 0, 2]) == PIXELS[[0, 1, 0]]).all()
    assert data.images([]).shape == (0, 3, 8, 10)


# JSON can hold any Unicode text but halves of surrogate pairs; a caption must not be blank.
_captions = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=40).filter(str.strip)


@given(
    rows=st.dictionaries(
        st.integers(0, 10**13),
        st.tuples(
            st.lists(_captions, min_size=1, max_size=4), st.dictionaries(_captions, _captions, max_size=2)
        ),
        min_size=1,
        max_size=5,
    )
)
@settings(max_examples=40, deadline=None)
def test_any_ids_captions_and_attributes_survive(rows):
    with tempfile.TemporaryDirectory() as folder:
        pixels = np.arange(len(rows) * 12, dtype=np.uint8).reshape(len(rows), 3, 2, 2)
        texts, attributes = [row[0] for row in rows.values()], [row[1] for row in rows.values()]
        write_coco(Path(folder) / "data", "val2014", pixels, texts, attributes, list(rows))
        data = _load(Path(folder) / "data")
        order = sorted(range(len(rows)), key=list(rows).__getitem__)
        assert data.ids == tuple(str(value) for value in sorted(rows))
        assert data.captions == tuple(tuple(texts[i]) for i in order)
        assert data.attributes == tuple(attributes[i] for i in order)
        assert (data.images(range(len(rows))) == pixels[order]).all()


def test_jpeg_is_close_and_has_cocos_names(tmp_path):
    smooth = np.broadcast_to(np.arange(0, 128, 2, dtype=np.uint8), (2, 3, 64, 64)).copy()
    write_coco(tmp_path / "jpg", "val2014", smooth, [("a",), ("b",)], codec="jpg")
    names = sorted(path.name for path in (tmp_path / "jpg" / "val2014").iterdir())
    assert names == ["COCO_val2014_000000000001.jpg", "COCO_val2014_000000000002.jpg"]
    read = _load(tmp_path / "jpg").images([0, 1])
    assert np.abs(read.astype(int) - smooth).max() <= 4


def test_captions_come_in_annotation_order_whatever_the_file_s_order(root):
    _edit(root, lambda document: document["annotations"].reverse())
    _edit(root, lambda document: document["images"].reverse())
    assert _load(root).captions == (CAPTIONS[1], CAPTIONS[2], CAPTIONS[0])


def test_a_file_without_the_extension_keys_is_read(root):
    """Published caption files hold no attributes, and other keys beside ours."""

    def published(document):
        document["licenses"] = [{"id": 1, "name": "any"}]
        for image in document["images"]:
            del image["attributes"], image["width"], image["height"]
            image["coco_url"] = "http://images.cocodataset.org/val2014/x.jpg"

    _edit(root, published)
    data = _load(root)
    assert data.attributes == ({}, {}, {})
    assert (data.images([0]) == PIXELS[[1]]).all()


def test_splits_share_a_root_and_are_told_apart(root):
    write_coco(root, "train2014", PIXELS[:1], [("train",)], ids=[9])
    source = Coco(root=str(root))
    assert source.load("train", root).captions == (("train",),)
    assert source.load("train2014", root).ids == ("9",)
    assert source.load("val", root).ids == ("3", "5", "7")
    assert sorted(path.name for path in root.parent.iterdir()) == ["data"]


def test_the_2017_layout_is_read_by_its_names(tmp_path):
    """Files of 2017 are called by their id alone."""
    root = tmp_path / "data"
    write_coco(root, "val2017", PIXELS, CAPTIONS, ids=[139, 7, 9], codec="jpg")
    write_coco(root, "train2017", PIXELS[:1], [("train",)], ids=[42])
    listed = root / "annotations" / "captions_val2017.json"
    listed.write_text(listed.read_text().replace("COCO_val2017_", ""))
    for path in (root / "val2017").iterdir():
        path.rename(path.with_name(path.name.removeprefix("COCO_val2017_")))
    source = Coco(root=str(root), split="val2017")
    data = source.load("val", tmp_path)
    assert data.ids == ("7", "9", "139")
    assert data.annotation_ids == ((3, 4), (5,), (1, 2))
    assert data.images([2]).shape == (1, 3, 8, 10)
    assert source.load("train", tmp_path).ids == ("42",)


def test_image_folder_may_have_another_name_and_subfolders(root):
    (root / "val2014").rename(root / "pictures")
    (root / "pictures" / "sub").mkdir()

    def move(document):
        name = document["images"][0]["file_name"]
        (root / "pictures" / name).rename(root / "pictures" / "sub" / name)
        document["images"][0]["file_name"] = f"sub/{name}"

    _edit(root, move)
    assert (_load(root, image_dir="pictures").images([0, 1, 2]) == PIXELS[[1, 2, 0]]).all()


def _replace(root: Path, image: Image.Image, image_id: int = 3, **options) -> Path:
    path = root / "val2014" / f"COCO_val2014_{image_id:012d}.png"
    image.save(path, **options)
    return path


def test_resolution_crops_the_centre_and_resizes_with_antialiasing(root):
    # A 4-pixel-wide centre stripe in a 60 x 40 image; the outer 10 columns on both sides are red.
    wide = np.zeros((40, 60, 3), dtype=np.uint8)
    wide[:, :10, 0] = wide[:, 50:, 0] = 255
    wide[:, 10:50:2] = 255  # one-pixel stripes: aliasing would give black or white, not grey
    _replace(root, Image.fromarray(wide))
    image = _load(root, resolution=10).images([0])[0].astype(int)
    assert image.shape == (3, 10, 10)
    assert (image == image[:1]).all()
    assert np.abs(image - 127).max() < 25


def test_an_image_of_the_right_size_is_left_as_it_is(root):
    assert (_load(root, resolution=8).images([0]) == PIXELS[[1]][..., 1:9]).all()


def test_a_resized_image_does_not_depend_on_its_neighbours(root):
    data = _load(root, resolution=5)
    whole = data.images([0, 1, 2])
    assert all((data.images([i])[0] == whole[i]).all() for i in range(3))


def test_sizes_that_differ_are_refused_without_resolution(root):
    path = _replace(root, Image.new("RGB", (4, 4)), image_id=5)
    data = _load(root)
    with pytest.raises(DataError, match=rf"{path.name}: 4 x 4 pixels.*10 x 8.*Set 'resolution'"):
        data.images([0, 1])
    assert _load(root, resolution=4).images([0, 1]).shape == (2, 3, 4, 4)


def test_stated_sizes_that_differ_are_refused_before_an_image_is_read(root):
    _edit(root, lambda document: document["images"][0].update(width=640, height=480))
    with pytest.raises(DataError, match=r"640 x 480 \(id 7\).*Set 'resolution'"):
        _load(root)
    assert len(_load(root, resolution=8)) == 3


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "1", "LA"])
def test_eight_bit_modes_become_rgb(root, mode):
    source = Image.new("L", (10, 8), 255).convert(mode)
    _replace(root, source)
    assert (_load(root).images([0]) == 255).all()


def test_sixteen_bit_images_are_refused_rather_than_clipped(root):
    path = _replace(root, Image.fromarray(np.full((8, 10), 30000, dtype=np.uint16)))
    with pytest.raises(DataError, match=rf"{path.name}: cannot read.*not 8-bit"):
        _load(root).images([0])


# --- faults -----------------------------------------------------------------------------------------


def test_missing_root_says_what_is_expected_and_where_to_get_it(tmp_path):
    with pytest.raises(DataError) as caught:
        _load(tmp_path / "none")
    for part in (
        "none/annotations/captions_val2014.json", "none/val2014/", "https://cocodataset.org",
        "assets fetch coco-annotations-2014", "assets fetch coco-val2014", "6645013297 bytes, sha256 fe9be",
    ):  # fmt: skip
        assert part in str(caught.value)


def test_missing_image_folder_is_named(root):
    (root / "val2014").rename(root / "gone")
    with pytest.raises(DataError, match=r"val2014: no such folder.*captions_val2014\.json"):
        _load(root)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", r"caption file is empty \(0 bytes\)"),
        (b" \n", "caption file is empty"),
        (b"{", "no valid JSON"),
        (b'{"a": "\xff"}', "no valid JSON"),
        (b"[" * 100_000, "no valid JSON"),
        (b"[]", "expected an object"),
        (b"{}", "'images' must be a list"),
        (b'{"images": [], "annotations": []}', "'images' is empty"),
        (b'{"images": [{"id": 1, "file_name": "a"}]}', "'annotations' must be a list"),
        (b'{"images": [{"id": 1, "file_name": "a"}], "annotations": []}', "'annotations' is empty"),
        (b'{"images": [3], "annotations": []}', r"images\[0\]: expected an object, found int"),
    ],
)
def test_unfit_caption_files_are_refused(root, content, message):
    path = root / "annotations" / "captions_val2014.json"
    path.write_bytes(content)
    with pytest.raises(DataError, match=message) as caught:
        _load(root)
    assert str(path) in str(caught.value)


def _set(kind: str, index: int, key: str, value: object):
    return lambda document: document[kind][index].__setitem__(key, value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_set("images", 1, "id", 7), r"images\[1\]\.id: image id 7 occurs twice"),
        (_set("annotations", 2, "id", 1), r"annotations\[2\]\.id: annotation id 1 occurs twice"),
        (_set("images", 0, "id", "7"), r'images\[0\]\.id: expected an integer.*found "7"'),
        (_set("images", 0, "id", True), r"images\[0\]\.id: expected an integer.*found true"),
        (lambda d: d["images"][2].pop("id"), r"images\[2\]\.id: expected an integer.*found nothing"),
        (_set("annotations", 0, "image_id", 99), r"annotations\[0\]\.image_id: 99 is not the id"),
        (_set("annotations", 4, "image_id", 3), r"1 of 3 images have no caption, the first is image 5"),
        (_set("annotations", 1, "caption", " \n "), r"annotations\[1\]\.caption \(image 7\): .*blank"),
        (_set("annotations", 1, "caption", ""), r"annotations\[1\]\.caption.*blank"),
        (_set("annotations", 1, "caption", None), r"must be a string, found NoneType"),
        (_set("annotations", 1, "caption", "\ud83d"), r"half of a surrogate pair"),
        (_set("images", 0, "attributes", {"digit": 3}), r"images\[0\]\.attributes: expected names mapped"),
        (_set("images", 0, "attributes", ["red"]), r"images\[0\]\.attributes: expected names mapped"),
        (_set("images", 0, "file_name", 5), r"images\[0\]\.file_name: expected the name"),
        (_set("images", 0, "file_name", ""), r"images\[0\]\.file_name: expected the name"),
        (_set("images", 0, "file_name", "a\0b"), r"images\[0\]\.file_name: expected the name"),
    ],
)
def test_unfit_entries_are_refused(root, change, message):
    _edit(root, change)
    with pytest.raises(DataError, match=message):
        _load(root)


@pytest.mark.parametrize(
    "name", ["../secret.png", "a/../../secret.png", "{root}/secret.png", "..\\secret.png", "C:\\x.png", "\\x"]
)
def test_file_names_that_leave_the_image_folder_are_refused(root, name):
    Image.fromarray(PIXELS[0].transpose(1, 2, 0)).save(root / "secret.png")
    _edit(root, _set("images", 0, "file_name", name.format(root=root)))
    with pytest.raises(DataError, match=r"images\[0\]\.file_name: .* leads out of the image folder"):
        _load(root)


def test_missing_image_is_named_before_any_is_read(root):
    path = root / "val2014" / "COCO_val2014_000000000005.png"
    path.unlink()
    with pytest.raises(DataError, match=rf"{path.name}: no such image \(1 of 3"):
        _load(root)


def test_image_that_vanishes_later_is_named(root):
    data = _load(root)
    path = root / "val2014" / "COCO_val2014_000000000005.png"
    path.unlink()
    with pytest.raises(DataError, match=rf"{path.name}: cannot read the image"):
        data.images([1])
    with pytest.raises(DataError, match=rf"{path.name}: cannot read the image"):
        _ = data.manifest_sha256


@pytest.mark.parametrize("codec", ["png", "jpg"])
@pytest.mark.parametrize("kept", [0.0, 0.02, 0.5, 0.9])
def test_truncated_image_is_named_and_the_others_still_read(tmp_path, codec, kept):
    pixels = np.random.default_rng(1).integers(0, 256, (2, 3, 64, 64), dtype=np.uint8)
    write_coco(tmp_path / "data", "val2014", pixels, [("a",), ("b",)], codec=codec)
    path = tmp_path / "data" / "val2014" / f"COCO_val2014_000000000001.{codec}"
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * kept)])
    data = _load(tmp_path / "data")
    with pytest.raises(DataError, match=rf"{path.name}: cannot read the image"):
        data.images([1, 0])
    other = tmp_path / "data" / "val2014" / f"COCO_val2014_000000000002.{codec}"
    other_read = _load(tmp_path / "data", resolution=64).images([1])[0]
    assert (other_read == np.asarray(Image.open(other).convert("RGB")).transpose(2, 0, 1)).all()


def test_a_text_file_called_png_is_named(root):
    path = root / "val2014" / "COCO_val2014_000000000005.png"
    path.write_text("<html>Not Found</html>")
    with pytest.raises(DataError, match=rf"{path.name}: cannot read the image"):
        _load(root).images([0, 1, 2])


def test_a_decompression_bomb_is_refused(root, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 20)
    with pytest.raises(DataError, match="cannot read the image: Image size"):
        _load(root).images([0])


def test_resolution_must_be_positive(tmp_path):
    with pytest.raises(SuiteError, match="resolution must be at least 1"):
        Coco(root=str(tmp_path), resolution=0)


# --- writing ----------------------------------------------------------------------------------------


def test_writing_refuses_what_could_not_be_read_back(tmp_path):
    def refused(message, images=PIXELS, captions=CAPTIONS, attributes=None, ids=None):
        with pytest.raises(DataError, match=message):
            write_coco(tmp_path / "new", "val2014", images, captions, attributes, ids)
        assert not any(tmp_path.iterdir())

    refused("one each per image", captions=CAPTIONS[:2])
    refused("one each per image", attributes=[{}])
    refused("distinct", ids=[1, 2, 1])
    refused("not negative", ids=[1, 2, -1])
    refused("image 2: no captions", captions=[("a",), (), ("b",)])
    refused("image 3: the caption is blank", captions=[("a",), ("b",), ("c", "")])
    refused("half of a surrogate", captions=[("a",), ("b",), ("\udc00",)])
    refused("uint8", images=PIXELS.astype(np.float32))
    refused("uint8", images=PIXELS[:, :1])
    refused("N > 0", images=PIXELS[:0], captions=[])


def test_writing_never_replaces(root):
    with pytest.raises(DataError, match="exists already"):
        write_coco(root, "val2014", PIXELS, CAPTIONS)
    (root / "annotations" / "captions_val2014.json").unlink()
    with pytest.raises(DataError, match="exists already"):
        write_coco(root, "val2014", PIXELS, CAPTIONS)
    assert len(list((root / "val2014").iterdir())) == 3


@pytest.mark.parametrize("fatal", [KeyboardInterrupt, OSError])
def test_interrupted_writing_leaves_nothing(tmp_path, monkeypatch, fatal):
    save, saved = Image.Image.save, []

    def failing(image, path, **options):
        if len(saved) == 2:
            raise fatal("disk full")
        saved.append(path)
        save(image, path, **options)

    with monkeypatch.context() as patch:
        patch.setattr(Image.Image, "save", failing)
        with pytest.raises(DataError if fatal is OSError else fatal, match="disk full"):
            write_coco(tmp_path / "data", "val2014", PIXELS, CAPTIONS)
    assert len(saved) == 2
    assert not any(tmp_path.iterdir())
    write_coco(tmp_path / "data", "val2014", PIXELS, CAPTIONS)
    assert len(_load(tmp_path / "data")) == 3


def test_manifest_is_stable_and_changes_with_every_part(root, tmp_path):
    base = _load(root).manifest_sha256
    write_coco(tmp_path / "again", "val2014", PIXELS, CAPTIONS, ATTRIBUTES, [7, 3, 5])
    assert _load(tmp_path / "again").manifest_sha256 == base

    buffer = io.BytesIO()
    Image.fromarray(PIXELS[0].transpose(1, 2, 0)).save(buffer, "PNG")
    changes = {
        "caption": lambda p: _edit(p, _set("annotations", 0, "caption", "other")),
        "order of captions": lambda p: _edit(p, _set("annotations", 0, "id", 99)),
        "attributes": lambda p: _edit(p, _set("images", 0, "attributes", {"shape": "ring"})),
        "pixels": lambda p: (p / "val2014" / "COCO_val2014_000000000003.png").write_bytes(buffer.getvalue()),
    }
    digests = {base, _load(root, resolution=8).manifest_sha256}
    for name, change in changes.items():
        write_coco(tmp_path / name, "val2014", PIXELS, CAPTIONS, ATTRIBUTES, [7, 3, 5])
        change(tmp_path / name)
        digests.add(_load(tmp_path / name).manifest_sha256)
    assert len(digests) == 2 + len(changes)
