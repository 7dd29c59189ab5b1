"""What plan says is cached: what a run then makes, no more and no less, under the record's own keys."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from suite_examples import write

from bench.artifacts import open_store
from bench.assembly import Assembly
from bench.cli import main
from bench.journal import Journal
from bench.plan import plan
from bench.runner import run
from bench.spans import Span, cover
from bench.store import RunStore
from bench.suite import load_suite
from bench.survey import Artifact, Survey, survey
from bench.zoo.weights import WEIGHTS_DIR

SUITE = """\
name: toy
seed: 24
data:
  targets: {kind: python, target: "my_pkg.my_module:Targets", args: {values: 5}}
generators:
  linear: {kind: linear, dim: 4, resolution: 8}
conditioners:
  near: {kind: quadratic, resolution: 8}
translators:
  default: {kind: tr0n, num_pairs: 100, steps: 10}
samplers:
  prior: {kind: prior}
  langevin: {kind: langevin, steps: 3, step_size: 0.1}
  tr0n: {kind: tr0n, steps: 4}
judges:
  pixels: {kind: python, target: "my_pkg.scoring:PixelJudge"}
metrics:
  level: {kind: python, target: "my_pkg.scoring:MeanLevel", args: {judge: pixels}}
  speed: {kind: speed}
protocol: {resolution: 8, num_reference: 20}
samples: {num: 12, batch_size: 5, tile: 4, shard: 4}
curve: {steps: [0, 2], num: 6}
variants:
  matrix: {data: targets, generator: linear, conditioner: near, sampler: [prior, langevin, tr0n]}
"""


@pytest.fixture(scope="module")
def drawn(tmp_path_factory) -> Path:
    """A folder with the suite, a store and a finished run; read only."""
    folder = tmp_path_factory.mktemp("drawn")
    summary = run(load_suite(write(folder, SUITE)), folder / "run", "cpu", store_url=str(folder / "store"))
    assert summary.num_failed == 0
    return folder


@pytest.fixture
def store(drawn: Path, tmp_path: Path) -> Path:
    """A copy of the finished run's store, to be changed."""
    return Path(shutil.copytree(drawn / "store", tmp_path / "store"))


def look(folder: Path, store: Path | str, *overrides: str, text: str = SUITE) -> Survey:
    suite = load_suite(write(folder, text), overrides)
    return survey(Assembly(suite, torch.device("cpu")), plan(suite), open_store(str(store)))


def by_kind(found: Survey, kind: str) -> list[Artifact]:
    return [item for item in found.artifacts if item.kind == kind]


def places(found: Survey, *kinds: str) -> set[tuple[str, str | None, str]]:
    """Every part's place in a store."""
    return {
        (item.kind, item.key, part.name)
        for item in found.artifacts
        if not kinds or item.kind in kinds
        for part in item.parts
    }


def test_in_an_empty_store_all_is_to_do(tmp_path):
    found = look(tmp_path, tmp_path / "nothing")
    assert {item.state for item in found.artifacts} == {"to do"}
    assert {found.of_cell(cell.id) for cell in found.plan.cells} == {"to do"}
    assert found.work_to_do == found.work
    assert not (tmp_path / "nothing").exists()  # looking makes nothing
    assert [item.key for item in by_kind(found, "score")] == [None] * 3


def test_after_a_run_all_is_cached_and_nothing_is_left_to_do(drawn, tmp_path):
    found = look(tmp_path, drawn / "store")
    states = {(item.kind, item.state) for item in found.artifacts}
    assert states == {
        ("pairs", "1 of 1 cached"),
        ("translator", "1 of 1 cached"),
        ("reference", "5 of 5 cached"),
        ("samples", "3 of 3 cached"),
        ("images", "3 of 3 cached"),
        ("snapshots", "2 of 2 cached"),
        ("readout", "3 of 3 cached"),
        ("readout", "2 of 2 cached"),
        ("score", "1 of 1 cached"),
    }
    assert found.tasks == ()
    assert set(found.work_to_do.values()) <= {0}
    # two spans have a curve: samples, images, readout, snapshots, their readout; the third has three parts
    assert {found.of_cell(cell.id) for cell in found.plan.cells} == {"13 of 13 cached"}


def test_keys_are_those_of_the_records(drawn, tmp_path):
    found = look(tmp_path, drawn / "store")
    for record in RunStore(drawn / "run").records():
        keys = {
            kind: {item.key for item in by_kind(found, kind) if record.cell.id in item.cells}
            for kind in (
                "samples",
                "images",
                "snapshots",
                "readout",
                "reference",
                "score",
                "translator",
                "pairs",
            )
        }
        made = record.artifacts
        assert keys["samples"] == keys["images"] == {made["samples"]["key"]}
        assert keys["snapshots"] == {made["snapshots"]}
        assert keys["readout"] == {*made["readouts"].values(), *made["snapshot_readouts"].values()}
        assert keys["reference"] == {item["key"] for item in made["references"].values()}
        assert keys["score"] == set(made["scores"].values())
        assert keys["translator"] == {made["translator"]} - {None}
        assert keys["pairs"] == {made["pairs"]} - {None}
        (samples,) = (item for item in by_kind(found, "samples") if record.cell.id in item.cells)
        assert [part.name for part in samples.parts] == made["samples"]["spans"]


@pytest.mark.parametrize(
    "overrides",
    [
        (),
        ("samples.num=20",),
        ("samplers.langevin.step_size=0.2",),
        ("translators.default.steps=11",),
        ("protocol.num_reference=10",),
        ("judges.pixels.args={only: [target]}",),
        ("curve.num=12",),
        ("seed=25",),
    ],
)
def test_what_is_to_do_is_what_a_run_makes(store, tmp_path, overrides):
    found = look(tmp_path, store, *overrides)
    expected = {task.label for task in found.tasks}
    summary = run(load_suite(tmp_path / "toy.yaml", overrides), tmp_path / "run", "cpu", store_url=str(store))
    assert summary.num_failed == 0
    events = Journal(tmp_path / "run" / "journal.jsonl").read()
    assert {event["task"] for event in events if event["event"] == "made"} == expected
    after = look(tmp_path, store, *overrides)
    assert after.tasks == ()
    assert all(item.num_stored == len(item.parts) or item.state == "not needed" for item in after.artifacts)


def test_raising_the_number_of_samples_keeps_what_is_there(drawn, tmp_path):
    found = look(tmp_path, drawn / "store", "samples.num=20")
    assert {item.state for item in by_kind(found, "samples")} == {"3 of 5 cached"}
    assert {item.state for item in by_kind(found, "reference")} == {"5 of 5 cached"}
    assert {item.state for item in by_kind(found, "score")} == {"to do"}
    langevin = next(item for item in by_kind(found, "samples") if "langevin" in item.name)
    assert langevin.work["generator_backwards"] == 20 * 3
    assert langevin.work_to_do["generator_backwards"] == 8 * 3


def test_changing_a_metric_leaves_only_its_scores_to_do(drawn, tmp_path):
    before = look(tmp_path, drawn / "store")
    changed = look(
        tmp_path, drawn / "store", "metrics.level.args={judge: pixels, kinds_of_condition: [class]}"
    )
    assert {item.kind for item in changed.artifacts if item.state == "to do"} == {"score"}
    assert changed.tasks == ()
    assert not {item.key for item in by_kind(changed, "score")} & {
        item.key for item in by_kind(before, "score")
    }
    fewer = look(tmp_path, drawn / "store", "protocol.num_reference=8")
    assert {item.kind for item in fewer.artifacts if item.state == "to do"} == {"score"}
    assert {item.state for item in by_kind(fewer, "reference")} == {"2 of 2 cached"}


def test_pairs_of_a_stored_translator_are_not_needed(store, tmp_path):
    shutil.rmtree(store / "pairs")
    found = look(tmp_path, store)
    assert [item.state for item in by_kind(found, "pairs")] == ["not needed"]
    assert found.tasks == ()
    shutil.rmtree(store / "translator")
    found = look(tmp_path, store)  # nothing is left to draw
    assert [item.state for item in by_kind(found, "translator")] == ["not needed"]
    assert found.work_to_do.get("translator_steps", 0) == 0
    found = look(tmp_path, store, "samples.num=16")
    assert [item.state for item in by_kind(found, "pairs")] == ["to do"]
    assert [item.state for item in by_kind(found, "translator")] == ["to do"]


def test_broken_samples_are_to_be_drawn_again(store, tmp_path):
    before = look(tmp_path, store)
    victim = by_kind(before, "samples")[1]
    path = store / "samples" / str(victim.key) / victim.parts[1].name
    path.write_bytes(path.read_bytes()[:-1])
    found = look(tmp_path, store)
    (again,) = (item for item in by_kind(found, "samples") if item.key == victim.key)
    assert [part.stored for part in again.parts] == [True, False, True]
    assert [task.part.name for task in found.tasks] == [victim.parts[1].name]
    assert [item.key for item in by_kind(found, "score")].count(None) == 1


def test_cells_of_one_configuration_but_number_share_what_they_draw(tmp_path):
    variant = (
        "{name: few, data: targets, generator: linear, conditioner: near, sampler: prior, num_samples: 8}"
    )
    text = SUITE.replace("variants:\n", f"variants:\n  include:\n    - {variant}\n")
    found = look(tmp_path, tmp_path / "nothing", text=text)
    shared = [item for item in by_kind(found, "samples") if len(item.cells) == 2]
    assert len(shared) == 1
    assert sum(part.num for part in shared[0].parts) == 12
    assert len([task for task in found.tasks if task.part.key == shared[0].key]) == 3


# --- what changes a key


@pytest.fixture
def digits(small_suite, tmp_path):
    """The places of the digits suite's artifacts with a weight file of the user's own."""
    own = tmp_path / "own" / "vae.safetensors"
    own.parent.mkdir()
    shutil.copy(WEIGHTS_DIR / "digits-vae.safetensors", own)

    def look_up(*overrides: str, weights: Path = own, **changes) -> Survey:
        path = small_suite(generators={"vae": {"kind": "vae", "weights": str(weights)}}, **changes)
        suite = load_suite(path, overrides)
        assembly = Assembly(suite, torch.device("cpu"))
        return survey(assembly, plan(suite), open_store(str(tmp_path / "nothing")))

    return look_up


def test_where_a_weight_file_lies_and_its_age_change_no_key(digits, small_suite, tmp_path):
    before = digits()
    assert None not in {item.key for item in before.artifacts if item.kind != "score"}
    elsewhere = tmp_path / "elsewhere.bin"
    shutil.copy(tmp_path / "own" / "vae.safetensors", elsewhere)
    os.utime(elsewhere, (1, 1))
    assert places(digits(weights=elsewhere), *KEYED) == places(before, *KEYED)
    suite = load_suite(small_suite())  # the same file as the package ships it
    shipped = survey(Assembly(suite, torch.device("cpu")), plan(suite), open_store(str(tmp_path / "nothing")))
    assert places(shipped, *KEYED) == places(before, *KEYED)
    assert places(digits("samples.batch_size=7"), *KEYED) == places(before, *KEYED)


KEYED = ("pairs", "translator", "reference", "samples", "images", "snapshots", "readout")
DRAWN = ("samples", "images", "snapshots", "readout")


@pytest.mark.parametrize(
    ("override", "changed", "kept"),
    [
        ("seed=6", DRAWN, ("pairs", "translator", "reference")),
        ("samples.tile=8", DRAWN, ("pairs", "translator", "reference")),
        ("protocol.reference_split=train", ("reference",), ("pairs", "translator", *DRAWN)),
        ("translators.default.seed=1", ("pairs", "translator"), ("reference",)),
        ("translators.default.steps=21", ("translator",), ("pairs", "reference")),
    ],
)
def test_what_determines_an_artifact_changes_its_place(digits, override, changed, kept):
    before, after = digits(), digits(override)
    for kind in changed:
        assert not places(before, kind) & places(after, kind), kind
    for kind in kept:
        assert places(before, kind) == places(after, kind), kind


def test_other_data_changes_the_reference_and_other_conditions_the_samples(tmp_path):
    before = look(tmp_path, tmp_path / "nothing")
    data = look(tmp_path, tmp_path / "nothing", "data.targets.args={values: 5, num: 21}")
    assert not places(before, "reference") & places(data, "reference")
    assert places(before, *DRAWN) == places(data, *DRAWN)
    conditions = look(tmp_path, tmp_path / "nothing", "data.targets.args={values: 6}")
    shared = places(before, "samples") & places(conditions, "samples")
    assert {name[:17] for _, _, name in shared} == {
        "00000000-00000004"
    }  # the first four targets are the same


def test_a_samplers_step_size_changes_its_own_samples(digits):
    before, after = digits(), digits("samplers.langevin.step_size=0.31")
    cells = {cell.sampler: cell.id for cell in before.plan.cells}
    for sampler, same in (("prior", True), ("translator", True), ("tr0n", True), ("langevin", False)):
        one = {item.key for item in by_kind(before, "samples") if cells[sampler] in item.cells}
        assert (one <= {item.key for item in by_kind(after, "samples")}) is same


def test_other_weights_change_all_but_the_reference(digits, tmp_path):
    before = digits()
    changed = tmp_path / "changed.safetensors"
    content = bytearray((tmp_path / "own" / "vae.safetensors").read_bytes())
    content[-1] ^= 1
    changed.write_bytes(content)
    after = digits(weights=changed)
    for kind in KEYED:
        assert bool(places(before, kind) & places(after, kind)) is (kind == "reference"), kind


# --- what cannot be told


def test_missing_weights_are_told_in_their_place(small_suite, tmp_path, capsys):
    path = small_suite(
        generators={"gone": {"kind": "vae", "weights": str(tmp_path / "gone.safetensors")}},
        variants={
            "include": [
                {"data": "digits", "generator": name, "conditioner": "class", "sampler": "tr0n"}
                for name in ("vae", "gone")
            ]
        },
    )
    assert main(["plan", str(path), "--store", str(tmp_path / "nothing"), "--json"]) == 0
    content = json.loads(capsys.readouterr().out)
    problems = [cell["problem"] for cell in content["cells"]]
    assert problems[0] is None
    assert "gone.safetensors' is missing" in problems[1]
    for kind in ("pairs", "translator", "samples"):
        sound, broken = (item for item in content["artifacts"] if item["kind"] == kind)
        assert (sound["state"], sound["problem"]) == ("to do", None)
        assert broken["key"] is None
        assert "gone.safetensors' is missing" in broken["state"]
    (reference,) = (item for item in content["artifacts"] if item["kind"] == "reference")
    assert reference["key"]
    assert len(reference["cells"]) == 2
    assert main(["plan", str(path), "--store", str(tmp_path / "nothing")]) == 0
    assert "gone.safetensors' is missing" in capsys.readouterr().out


def test_data_that_is_not_there_is_told_in_its_place(small_suite, tmp_path):
    path = small_suite(
        data={"coco": {"kind": "coco", "root": str(tmp_path / "coco")}},
        conditioners={"text": {"kind": "clip", "model": "shapes-clip-guide", "views": 0}},
        metrics={"accuracy": {"kind": "class-accuracy", "judge": "digits", "data": ["digits"]}},
        variants={
            "include": [{"data": "coco", "generator": "vae", "conditioner": "text", "sampler": "prior"}]
        },
    )
    suite = load_suite(path)
    found = survey(Assembly(suite, torch.device("cpu")), plan(suite), open_store(str(tmp_path / "nothing")))
    (samples,) = by_kind(found, "samples")
    assert samples.key is not None  # data is no part of it, but of which samples there are
    assert str(tmp_path / "coco") in samples.state
    assert [item.key for item in by_kind(found, "reference")] == [None]
    assert all(str(tmp_path / "coco") in item.state for item in by_kind(found, "reference"))


# --- spans


def content_of(start: int, stop: int) -> str:
    return f"{start:08x}{stop:08x}"


SPANS = st.builds(
    lambda start, length, fits: Span(
        start, start + length, content_of(start, start + length) if fits else "f" * 16
    ),
    st.integers(0, 60),
    st.integers(1, 30),
    st.booleans(),
)


@given(st.integers(1, 80), st.integers(1, 20), st.lists(SPANS, max_size=12))
def test_spans_cover_all_samples_once_with_what_fits(num, size, stored):
    names = [span.name for span in stored]
    spans = cover(num, size, names, content_of)
    assert [span.start for span in spans] == [0, *(span.stop for span in spans[:-1])]
    assert spans[-1].stop == num
    assert all(span.digest == content_of(span.start, span.stop) for span in spans)  # misfits are left out
    starts = {span.start for span in stored if span.stop <= num}
    for span in spans:
        # At each start the longest stored span that fits is taken, and no new one is cut through a start.
        fitting = [item for item in stored if item.start == span.start and item.stop <= num and
                   item.digest == content_of(item.start, item.stop)]  # fmt: skip
        if fitting:
            assert span.stop == max(item.stop for item in fitting)
        else:
            assert not starts & set(range(span.start + 1, span.stop))
            assert span.stop <= (span.start // size + 1) * size
    assert cover(num, size, [span.name for span in spans], content_of) == spans  # what was made is found


@given(st.integers(1, 60), st.integers(1, 40), st.integers(1, 20))
def test_more_samples_keep_the_spans_of_fewer(num, more, size):
    first = cover(num, size, [], content_of)
    second = cover(num + more, size, [span.name for span in first], content_of)
    assert second[: len(first)] == first
