"""Sensitivity: values of a run under that protocol, no image decoded twice, steps that add up."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import yaml
from inception_files import write_weights
from support import SMALL_SUITE

from bench import payload
from bench.artifacts import open_store
from bench.cli import main
from bench.protocols import Protocol
from bench.protocols.sensitivity import Change, changes_to, sensitivity, single_changes, suite_under
from bench.protocols.shipped import SHIPPED
from bench.runner import run
from bench.store import RunStore
from bench.suite import load_suite
from bench.worlds.coco import write_coco
from bench.worlds.files import FileImageSet
from bench.worlds.shapes_source import Shapes

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def coco_run(tmp_path_factory, cache_dir):
    """Two cells on shapes written as MS-COCO, photographs wider than high, judged by a random Inception."""
    folder = tmp_path_factory.mktemp("coco")
    images, rows, _, captions = Shapes().make("val", 0, 4)
    wide = np.concatenate([images.numpy(), 255 - images.numpy()[:, :, :, :5]], axis=3)
    write_coco(folder / "data", "val2014", wide, captions, rows)
    suite = {
        "name": "coco",
        "data": {"coco": {"kind": "coco", "root": str(folder / "data"), "resolution": 32}},
        "generators": {"gan": {"kind": "gan", "model": "shapes-gan"}},
        "conditioners": {"text": {"kind": "clip", "model": "shapes-clip-guide", "views": 0}},
        "samplers": {"prior": SMALL_SUITE["samplers"]["prior"]},
        "judges": {
            "inception": {"kind": "inception", "weights": str(write_weights(folder)), "batch_size": 4},
            "shapes": {"kind": "classifier", "model": "shapes-classifier-judge"},
        },
        "metrics": {
            "fid": {"kind": "fid", "judge": "inception", "allow_small_n": True},
            "fid-shapes": {"kind": "fid", "judge": "shapes", "allow_small_n": True},
        },
        "protocol": {"name": "tr0n-2023", "resolution": 32, "eval_size": 32, "num_reference": 4},
        "samples": {"num": 4, "tile": 4, "shard": 4},
        "variants": {
            "matrix": {"data": "coco", "generator": "gan", "conditioner": "text", "sampler": "prior"}
        },
    }
    path = folder / "coco.yaml"
    path.write_text(yaml.safe_dump(suite, sort_keys=False))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TR0N_BENCH_CACHE", str(cache_dir))
        summary = run(load_suite(path), folder / "run", "cpu", store_url=str(folder / "store"))
    assert summary.num_failed == 0, RunStore(folder / "run").records()[0].error
    return path, folder / "run", str(folder / "store")


CHANGES = [
    Change(label="codec png", fields={"codec": "png"}),
    Change(label="crop none", fields={"crop": "none"}),
    Change(label="clean", fields={"extractor_resize": "clean", "extractor_scale": "tensorflow"}),
    Change(label="ddof 0", fields={"ddof": 0}),
]


@pytest.fixture(scope="module")
def measured(coco_run, cache_dir):
    """The sensitivities, and how often samples and photographs were decoded on the way."""
    _, out, url = coco_run
    decoded = {"samples": 0, "files": []}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TR0N_BENCH_CACHE", str(cache_dir))
        pngs, decode = payload.decode_pngs, FileImageSet._decode

        def count_pngs(arrays):
            found = pngs(arrays)
            decoded["samples"] += len(found)
            return found

        def count_files(self, name):
            if self.decoded is None or name not in self.decoded:
                decoded["files"].append(name)
            return decode(self, name)

        patch.setattr(payload, "decode_pngs", count_pngs)
        patch.setattr(FileImageSet, "_decode", count_files)
        found = sensitivity(out, open_store(url), CPU, CHANGES)
    return found, decoded


def test_each_image_is_decoded_once(measured):
    _, decoded = measured
    assert decoded["samples"] == 4
    assert sorted(decoded["files"]) == sorted(set(decoded["files"]))
    assert len(decoded["files"]) == 4


def test_the_run_s_own_value_is_the_base(coco_run, measured):
    record = RunStore(coco_run[1]).records()[0]
    own = {(s.metric, s.judge): s.value for s in record.scores if s.judge}
    for item in measured[0]:
        assert item.base == own[item.metric, item.judge]
    assert len(measured[0]) == len(own) * len(CHANGES)
    assert "tr0n-2023 (" in record.protocol["title"]
    assert "extractor_sha256" in record.protocol["title"]


def test_values_are_those_of_a_run_under_that_protocol(coco_run, measured, tmp_path):
    """The same suite run with the field overridden looks at nothing again, and scores agree."""
    path, _, url = coco_run
    for change in CHANGES[:3]:
        overrides = [f"protocol.{key}={value}" for key, value in change.fields.items()]
        out = tmp_path / change.label.replace(" ", "-")
        summary = run(load_suite(path, overrides), out, "cpu", store_url=url)
        assert summary.made["judge_images"] == summary.made["samples"] == 0
        values = {(s.metric, s.judge): s.value for s in RunStore(out).records()[0].scores if s.judge}
        for item in measured[0]:
            if item.change == change:
                assert item.value == values[item.metric, item.judge]


def test_fields_move_what_they_should(measured):
    by = {(item.change.label, item.judge): item.difference for item in measured[0]}
    assert by["codec png", "inception"] != 0
    assert by["crop none", "inception"] != 0
    assert by["clean", "inception"] != 0
    assert by["clean", "shapes"] == 0  # another judge's features do not pass through Inception's input
    assert by["ddof 0", "shapes"] != 0


def test_steps_to_a_protocol_begin_at_the_run_and_end_at_the_goal():
    protocol = Protocol(**{**SHIPPED["tr0n-2023"], "name": "tr0n-2023"})
    changes, unanswered = changes_to(protocol, "gigagan-30k")
    path = [change for change in changes if change.label.startswith(("first", "…"))]
    alone = [change for change in changes if change not in path]
    assert {key for change in alone for key in change.fields} == set(path[-1].fields)
    assert [len(change.fields) for change in path] == list(range(1, len(alone) + 1))
    assert path[-1].fields["resize_filter"] == "lanczos"
    assert unanswered == ["resolution", "quantise", "caption", "num_samples"]
    whole = Protocol(**{**vars(protocol), **path[-1].fields})
    goal = Protocol(**{**SHIPPED["gigagan-30k"], "name": "gigagan-30k"})
    left = {key for key, value in goal.content.items() if value != whole.content[key]}
    assert left == {"quantise", "caption", "num_samples"}


def test_alternatives_leave_out_the_run_s_own_value():
    changes = single_changes(Protocol())
    assert all(getattr(Protocol(), key) != value for item in changes for key, value in item.fields.items())
    assert {change.label for change in single_changes(Protocol(), ["codec"])} == {
        "codec jpeg-95",
        "codec jpeg-75",
    }


def test_a_judge_s_own_resize_gives_way(coco_run):
    suite = load_suite(coco_run[0])
    assert suite.judges["inception"].config.resize == "pytorch-fid"
    assert suite_under(suite, {"extractor_resize": "clean"}).judges["inception"].config.resize == "clean"


def test_the_command_prints_and_writes_the_table(coco_run, measured, tmp_path, capsys):
    _, out, url = coco_run
    csv = tmp_path / "table.csv"
    arguments = ["sensitivity", str(out), "--store", url, "--device", "cpu", "--out", str(csv)]
    assert main([*arguments, "--field", "ddof"]) == 0
    assert "ddof 0" in capsys.readouterr().out
    assert csv.read_text().count("\n") == 3
    assert main([*arguments, "--to", "gigagan-31k"]) == 1
    assert "Did you mean 'gigagan-30k'" in capsys.readouterr().err
    assert main([*arguments, "--field", "codek"]) == 1
    assert "Did you mean 'codec'" in capsys.readouterr().err
