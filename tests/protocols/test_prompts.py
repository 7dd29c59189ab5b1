"""Which captions become prompts, and manifests: frozen, hashed, and every fault named."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
import yaml

from bench.cli import main
from bench.conditions import text_conditions
from bench.errors import DataError
from bench.protocols import Protocol
from bench.protocols.prompts import Placed, chosen, manifest_bytes, read_manifest, sample
from bench.worlds.coco import Coco, CocoImageSet, write_coco

HARD = [
    ('a "quoted", caption\twith / slashes \\ and "commas"', "second,\n line"),
    ("émoji 🦊👩‍🚀 漢字 \u2028 line", "  edges  ", "third"),
    (" ".join(f"word{i}" for i in range(1000)), "{not json}"),
    ("plain", "other"),
]


@pytest.fixture
def images(tmp_path) -> CocoImageSet:
    write_coco(tmp_path / "data", "val2014", np.zeros((4, 3, 4, 4), np.uint8), HARD, ids=[30, 10, 20, 40])
    return Coco(root=str(tmp_path / "data")).load("val", tmp_path)


def texts(prompts: list[Placed]) -> list[tuple[str, str]]:
    return [(item.id, item.prompt.caption) for item in prompts]


def test_first_takes_the_lowest_annotation_of_each_image_ids_ascending(images):
    expected = [
        ("text:10", HARD[1][0]),
        ("text:20", HARD[2][0]),
        ("text:30", HARD[0][0]),
        ("text:40", "plain"),
    ]
    found = chosen(images, Protocol())
    assert texts(found) == expected
    assert [item.prompt.annotation_id for item in found] == [3, 6, 1, 8]
    assert [c.id for c in text_conditions(images, 2)] == ["text:10", "text:20"]


def test_all_takes_every_caption_and_every_prompt_has_an_id_of_its_own(images):
    found = chosen(images, Protocol(caption="all"))
    assert [item.prompt.caption for item in found] == [*HARD[1], *HARD[2], *HARD[0], *HARD[3]]
    assert len({item.id for item in found}) == len(found) == 9


def test_random_depends_on_seed_and_image_alone(images, tmp_path):
    by_seed = [texts(chosen(images, Protocol(caption="random", caption_seed=k))) for k in range(8)]
    assert len({str(item) for item in by_seed}) > 1
    assert by_seed[3] == texts(chosen(images, Protocol(caption="random", caption_seed=3)))
    # Another set with one of the images: it gets the same caption.
    write_coco(tmp_path / "one", "val2014", np.zeros((1, 3, 4, 4), np.uint8), [HARD[1]], ids=[10])
    one = Coco(root=str(tmp_path / "one")).load("val", tmp_path)
    for seed in range(8):
        assert texts(chosen(one, Protocol(caption="random", caption_seed=seed))) == by_seed[seed][:1]


def write(folder: Path, content: bytes, name: str = "prompts.jsonl") -> Protocol:
    (folder / name).write_bytes(content)
    digest = hashlib.sha256(content).hexdigest()
    return Protocol(caption="file", prompts=str(folder / name), prompts_sha256=digest)


def test_a_manifest_gives_back_what_was_frozen(images, tmp_path):
    frozen = chosen(images, Protocol(caption="all"))
    content = manifest_bytes(frozen, {"split": "val"})
    assert content == manifest_bytes(frozen, {"split": "val"})
    read = chosen(images, write(tmp_path, content))
    assert [item.prompt for item in read] == [item.prompt for item in frozen]
    assert [item.index for item in read] == [item.index for item in frozen]
    assert len({item.id for item in read}) == len(read)


def test_one_caption_per_image_keeps_the_ids_and_so_the_seeds_of_first(images, tmp_path):
    frozen = chosen(images, Protocol())
    read = chosen(images, write(tmp_path, manifest_bytes(frozen, {})))
    assert texts(read) == texts(frozen)


def test_a_subset_is_seeded_and_nested_in_its_order(images):
    prompts = chosen(images, Protocol())
    assert sample(prompts, 2, None) == prompts[:2]
    subsets = [sample(prompts, 2, seed) for seed in range(20)]
    assert sample(prompts, 2, 7) == subsets[7]
    assert len({str(item) for item in subsets}) > 3
    assert all([item.index for item in subset] == sorted(item.index for item in subset) for subset in subsets)
    assert all(set(sample(prompts, 2, seed)) < set(sample(prompts, 3, seed)) for seed in range(20))
    with pytest.raises(DataError, match=r"5 prompts were asked for, and the data has 4"):
        sample(prompts, 5, None)


@pytest.mark.parametrize(
    ("head", "delimiter"),
    [
        (("image_id", "caption"), ","),
        (("id", "image_id", "caption"), "\t"),
        (("Image_ID", "text"), ","),
    ],
)
def test_published_tables_are_read(images, tmp_path, head, delimiter):
    values = {
        "image_id": "20",
        "Image_ID": "20",
        "id": "7",
        "caption": '"{not json}"',
        "text": '"{not json}"',
    }
    lines = [delimiter.join(head), delimiter.join(values[name] for name in head)]
    (item,) = chosen(images, write(tmp_path, "\n".join(lines).encode(), "captions.csv"))
    assert (item.prompt.image_id, item.prompt.caption) == ("20", "{not json}")
    assert item.prompt.annotation_id == (7 if "id" in head else None)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([{"image_id": "99", "caption": "x"}], r"prompt 1: the data has no image '99'"),
        ([{"image_id": "10", "caption": "x", "annotation_id": 3}], r"annotation 3 of image 10 reads 'émoji"),
        ([{"image_id": "10", "caption": "x", "annotation_id": 1}], r"image 10 has no annotation 1"),
        ([{"image_id": "10", "caption": "  "}], r"line 1: the caption is blank"),
        ([{"image_id": "10"}], r"line 1: a caption must be a string, found NoneType"),
        ([{"caption": "x"}], r"line 1: image_id: expected an image's id, found None"),
        (
            [{"image_id": "10", "caption": "x", "annotation_id": "b"}],
            r"annotation_id: expected a whole number",
        ),
        ([{"kind": "prompts", "schema": 2}], r"schema 2, this version reads 1"),
        (
            [{"kind": "prompts", "schema": 1, "num": 2}, {"image_id": "10", "caption": "x"}],
            "promises 2 prompts",
        ),
        ([{"kind": "prompts", "schema": 1, "num": 0}], "no prompt in it"),
    ],
)
def test_manifests_that_do_not_fit_are_refused(images, tmp_path, rows, message):
    content = "".join(json.dumps(row) + "\n" for row in rows).encode()
    with pytest.raises(DataError, match=message):
        chosen(images, write(tmp_path, content))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"{broken\n", "line 1: no valid JSON"),
        (b"\xff\xfe", "no UTF-8 text"),
        (b"caption\nx\n", "no column for 'image_id': found caption"),
        (b"image_id\n3\n", "no column for 'caption'"),
        (b"", "no column"),
    ],
)
def test_files_that_are_no_manifest_are_refused(images, tmp_path, content, message):
    with pytest.raises(DataError, match=message):
        chosen(images, write(tmp_path, content))


def test_a_changed_or_missing_manifest_is_named(images, tmp_path):
    protocol = write(tmp_path, manifest_bytes(chosen(images, Protocol()), {}))
    Path(str(protocol.prompts)).write_bytes(b"{}\n")
    with pytest.raises(DataError, match=r"sha256 is [0-9a-f]{64}, expected .*prompts_sha256"):
        chosen(images, protocol)
    Path(str(protocol.prompts)).unlink()
    with pytest.raises(DataError, match="cannot be read: No such file"):
        read_manifest(Path(str(protocol.prompts)))
    with pytest.raises(DataError, match="the suite names none"):
        chosen(images, Protocol(caption="file"))


def test_the_command_writes_a_manifest_that_a_suite_runs_with(tmp_path, capsys, small_suite):
    out = tmp_path / "frozen.jsonl"
    path = small_suite(data={"shapes": {"kind": "shapes", "num_val": 12}})
    assert main(["manifest", str(path), "shapes", "--num", "5", "--seed", "3", "--out", str(out)]) == 0
    printed = capsys.readouterr().out.splitlines()
    block = yaml.safe_load(printed[1])["protocol"]
    assert block["prompts_sha256"] == hashlib.sha256(out.read_bytes()).hexdigest()
    rows = read_manifest(out, block["prompts_sha256"])
    assert len(rows) == 5
    assert main(["manifest", str(path), "shape", "--out", str(out)]) == 1
    assert "Did you mean 'shapes'" in capsys.readouterr().err
