"""The shapes world: exact attributes, images that depend on their index alone, the cache on disk."""

from __future__ import annotations

import dataclasses
import math
import threading

import numpy as np
import pytest
import torch

from bench.errors import DataError, SuiteError
from bench.streams import Streams
from bench.worlds import shapes
from bench.worlds.coco import CocoImageSet
from bench.worlds.shapes_source import Shapes

BOTH = pytest.mark.parametrize("objects", [1, 2])


@pytest.fixture(scope="module", params=[1, 2])
def made(request):
    """A world and its first 300 validation images with labels, values and captions."""
    world = Shapes(objects=request.param)
    return world, *world.make("val", 0, 300)


def _scene(shape: str, *, color="red", size="large", position="center", background="black", rotation=0.0):
    names = shapes.attribute_values(1)
    row = {"shape": shape, "color": color, "size": size, "position": position, "background": background}
    return shapes.Scenes(
        values=torch.tensor([[names[name].index(value) for name, value in row.items()]]),
        offset=torch.zeros(1, 1, 2),
        log_radius=torch.zeros(1, 1),
        rotation=torch.full((1, 1), rotation),
        brightness=torch.zeros(1, 2),
        objects=1,
    )


def _coverage(shape: str, **options) -> np.ndarray:
    """Share of each pixel that the shape covers, (64, 64), from a red shape's red channel on black."""
    red = shapes.render(_scene(shape, **options), 64)[0, 0].double().numpy()
    return (red - 12) / (220 - 12)


def test_images_repeat_exactly(made):
    world, images, labels, values, captions = made
    again = world.make("val", 0, 300)
    assert torch.equal(images, again[0])
    assert labels == again[1]
    assert torch.equal(values, again[2])
    assert captions == again[3]


def test_image_depends_on_its_index_alone(made):
    world, images, labels, _, captions = made
    for index in (0, 7, 299):
        image, label, _, texts = world.make("val", index, 1)
        assert torch.equal(image[0], images[index])
        assert label[0] == labels[index]
        assert texts[0] == captions[index]
    part = world.make("val", 100, 77)
    assert torch.equal(part[0], images[100:177])


def test_batch_size_of_the_renderer_changes_nothing():
    scenes = shapes.sample_scenes(Streams.from_seed(60, "chunk"))
    whole = shapes.render(scenes, 32)
    assert torch.equal(whole, shapes.render(scenes, 32, chunk=7))
    assert torch.equal(whole, shapes.render(scenes, 32, chunk=1))


def test_seed_split_and_objects_give_other_images():
    base = Shapes().make("val", 0, 4)[0]
    assert not torch.equal(base, Shapes().make("train", 0, 4)[0])
    assert not torch.equal(base, Shapes(seed=1).make("val", 0, 4)[0])
    assert not torch.equal(base, Shapes(objects=2).make("val", 0, 4)[0])
    # Resolution is a rendering matter: the scenes stay.
    assert Shapes(resolution=64).make("val", 0, 4)[1] == Shapes().make("val", 0, 4)[1]


def test_every_attribute_value_occurs_about_equally_often(made):
    world, _, labels, values, _ = made
    assert list(labels[0]) == list(world.attributes)
    for column, (name, allowed) in enumerate(world.attributes.items()):
        counts = np.bincount(values[:, column].numpy(), minlength=len(allowed))
        expected = len(labels) / len(allowed)
        assert np.abs(counts - expected).max() < 5 * math.sqrt(expected), name
        assert [row[name] for row in labels] == [allowed[k] for k in values[:, column].tolist()]


def test_two_objects_never_share_a_corner():
    scenes = shapes.sample_scenes(Streams.from_seed(3000, "corners"), objects=2)
    pairs = {(row["position"], row["position2"]) for row in shapes.labels(scenes)}
    assert pairs == {(a, b) for a in shapes.CORNERS for b in shapes.CORNERS if a != b}


def test_pixels_show_the_labelled_colours(made):
    """Every object's colour and the background's are on the image, within the brightness jitter."""
    world, images, labels, _, _ = made
    pixels = images.numpy().transpose(0, 2, 3, 1).astype(float)
    for image, row in zip(pixels, labels):
        wanted = [shapes.BACKGROUNDS[row["background"]]]
        wanted += [shapes.COLORS[row[name]] for name in ("color", "color2") if name in row]
        for rgb in wanted:
            distance = np.abs(image - np.array(rgb)).max(axis=2)
            assert (distance <= 0.031 * 255 + 1).sum() >= 12, row
        if world.objects == 1:  # nothing else: all pixels lie between the two colours
            low, high = np.minimum(*wanted) - 9, np.maximum(*wanted) + 9
            assert ((image >= low) & (image <= high)).all(), row


def test_shape_covers_the_labelled_position():
    """The centre of what differs from the background is the labelled place, within the jitter."""
    world = Shapes()
    images, labels, _, _ = world.make("val", 0, 200)
    grid = (np.arange(32) + 0.5) / 16 - 1
    for image, row in zip(images.numpy().astype(float), labels):
        corner = np.array(shapes.BACKGROUNDS[row["background"]], dtype=float)
        changed = np.abs(image - corner[:, None, None]).max(axis=0) > 20
        x, y = grid[np.nonzero(changed)[1]], grid[np.nonzero(changed)[0]]
        middle = np.array([x.min() + x.max(), y.min() + y.max()]) / 2
        assert np.abs(middle - shapes.POSITIONS[row["position"]]).max() < 0.2, row


def test_center_pixel_has_the_shape_s_colour_unless_it_is_a_ring():
    for name in shapes.SHAPES:
        assert _coverage(name)[31:33, 31:33].mean() == pytest.approx(0 if name == "ring" else 1, abs=1e-6)


@pytest.mark.parametrize(
    ("shape", "area"),
    [
        ("circle", math.pi),
        ("square", (2 * 0.82) ** 2),
        ("ring", math.pi * 0.7),
        ("cross", 2 * 2 * 0.62 - 0.62**2),
        ("diamond", 2 * 0.74 * 1.1),
        ("triangle", 3 * math.sqrt(3) * 0.55**2),
        ("star", 5 * 1.12 * 0.47 * math.sin(math.pi / 5)),
    ],
)
def test_shapes_have_their_exact_area_at_any_rotation(shape, area):
    radius = shapes.SIZES["large"] * 32
    for rotation in (0.0, 0.1):
        assert _coverage(shape, rotation=rotation).sum() == pytest.approx(area * radius**2, rel=0.01)


def test_triangle_star_and_heart_stand_upright():
    def rows(shape):
        widths = _coverage(shape).sum(axis=1)
        return widths[widths > 0]

    assert rows("triangle")[0] < 4 < 20 < rows("triangle")[-2]
    assert rows("star")[0] < 3
    assert rows("heart")[-1] < 5
    assert rows("heart")[6] > 15


def test_edges_are_antialiased():
    coverage = _coverage("circle")
    partial = (coverage > 0.05) & (coverage < 0.95)
    assert partial.sum() > 60
    assert len(np.unique(coverage[partial].round(3))) > 8
    # The circle's edge is one pixel wide: partial pixels lie within a pixel of it.
    grid = np.arange(64) - 31.5
    away = np.abs(np.hypot(grid[:, None], grid[None, :]) - shapes.SIZES["large"] * 32)
    assert away[partial].max() < 1


def test_resolutions_show_the_same_scene():
    small, large = (Shapes(resolution=side).make("val", 0, 50)[0].float() for side in (32, 64))
    assert (torch.nn.functional.avg_pool2d(large, 2) - small).abs().mean() < 1.0


# Every wording a caption may use for a value; values not listed stand for themselves.
SYNONYMS = {
    "circle": {"circle", "disc"},
    "square": {"square", "box"},
    "ring": {"ring", "hoop"},
    "cross": {"cross", "plus sign"},
    "diamond": {"diamond", "rhombus"},
    "purple": {"purple", "violet"},
    "cyan": {"cyan", "turquoise"},
    "gray": {"gray", "grey"},
    "small": {"small", "little", "tiny"},
    "large": {"large", "big", "huge"},
    "center": {"center", "middle"},
    "top left": {"top left", "upper left"},
    "top right": {"top right", "upper right"},
    "bottom left": {"bottom left", "lower left"},
    "bottom right": {"bottom right", "lower right"},
}


def test_every_caption_states_every_attribute(made):
    _, _, labels, _, captions = made
    for row, texts in zip(labels, captions, strict=True):
        assert len(set(texts)) == 5
        for text in texts:
            for value in row.values():
                assert any(word in text for word in SYNONYMS.get(value, {value})), (value, text)


def test_captions_use_every_synonym_and_good_grammar(made):
    world, _, _, _, captions = made
    text = "\n".join(line for texts in captions for line in texts)
    used = {value for values in world.attributes.values() for value in values}
    for value, words in SYNONYMS.items():
        if value in used:
            assert all(word in text for word in words), value
    assert "an orange" in text
    assert "a orange" not in text


def test_captions_tell_two_objects_apart():
    """Swapping the objects' colours changes every caption: colour belongs to its shape."""
    row = {"shape": "star", "color": "red", "position": "top left", "shape2": "heart", "color2": "blue"}
    row |= {"position2": "bottom right", "background": "white"}
    streams = Streams.from_seed(1, "swap")
    swapped = {**row, "color": "blue", "color2": "red"}
    (one,), (other,) = shapes.captions([row], streams), shapes.captions([swapped], streams)
    assert all(a != b for a, b in zip(one, other))
    assert shapes.captions([], Streams.from_seed(0, "none")) == []


# --- the source ----------------------------------------------------------------------------------

SMALL = Shapes(num_train=12, num_val=9)


@BOTH
def test_load_gives_what_make_gives(tmp_path, objects):
    world = dataclasses.replace(SMALL, objects=objects)
    for split, count, first in (("val", 9, 1), ("train", 12, 1_000_001)):
        images, labels, _, captions = world.make(split, 0, count)
        loaded = world.load(split, tmp_path)
        assert isinstance(loaded, CocoImageSet)
        assert loaded.ids == tuple(str(first + i) for i in range(count))
        assert (loaded.images(range(count)) == images.numpy()).all()
        assert loaded.captions == tuple(captions)
        assert loaded.attributes == tuple(labels)


def test_second_load_reads_the_cache_and_agrees(tmp_path):
    first = SMALL.load("val", tmp_path / "new" / "cache")
    folder = SMALL.folder("val", tmp_path / "new" / "cache")
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    second = SMALL.load("val", tmp_path / "new" / "cache")
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before
    assert first.manifest_sha256 == second.manifest_sha256
    assert SMALL.load("val", tmp_path / "elsewhere").manifest_sha256 == first.manifest_sha256


def test_cache_folder_follows_all_that_the_content_depends_on(tmp_path):
    base = SMALL.folder("val", tmp_path)
    changes = ({"seed": 1}, {"objects": 2}, {"resolution": 64}, {"num_val": 10})
    others = [dataclasses.replace(SMALL, **change).folder("val", tmp_path) for change in changes]
    assert len({base, SMALL.folder("train", tmp_path), *others}) == 6
    assert dataclasses.replace(SMALL, num_train=99).folder("val", tmp_path) == base


def test_an_interrupted_first_load_leaves_nothing_and_the_next_one_works(tmp_path, monkeypatch):
    calls = []

    def stop(path, *args, **kwargs):
        calls.append(path)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("bench.worlds.coco.os.rename", stop)
        with pytest.raises(KeyboardInterrupt):
            SMALL.load("val", tmp_path)
    assert calls
    assert not any(tmp_path.iterdir())
    assert len(SMALL.load("val", tmp_path)) == 9


def test_loads_at_the_same_time_share_one_cache(tmp_path):
    world = dataclasses.replace(SMALL, num_val=40)
    digests, barrier = [], threading.Barrier(3)

    def load():
        barrier.wait()
        digests.append(world.load("val", tmp_path).manifest_sha256)

    threads = [threading.Thread(target=load) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(digests) == 3
    assert len(set(digests)) == 1
    assert [path.name for path in tmp_path.iterdir()] == [world.folder("val", tmp_path).name]


def test_unknown_split_and_values_are_refused(tmp_path):
    with pytest.raises(DataError, match=r"no split 'test'.*Allowed: val, train"):
        SMALL.load("test", tmp_path)
    with pytest.raises(DataError, match="no split 'vl'"):
        SMALL.make("vl", 0, 1)
    with pytest.raises(SuiteError, match=r"resolution must be one of \(32, 64\), got 48"):
        Shapes(resolution=48)
    with pytest.raises(SuiteError, match=r"objects must be one of \(1, 2\), got 3"):
        Shapes(objects=3)
    with pytest.raises(SuiteError, match="num_val must be in 1"):
        Shapes(num_val=0)
