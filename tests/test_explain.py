"""What went into an artifact, and what sets two apart, told where it is."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from suite_examples import write
from test_survey import SUITE

from bench import payload
from bench.artifacts import ArtifactStore, open_store
from bench.cli import main
from bench.errors import BenchError
from bench.explain import Difference, compare, explain, flat
from bench.runner import run
from bench.store import Record, RunStore
from bench.suite import load_suite


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> Path:
    """A store with three runs: one, one with other pairs, one with another step size."""
    folder = tmp_path_factory.mktemp("runs")
    for name, overrides in {
        "base": (),
        "pairs": ("translators.default.seed=1",),
        "step": ("samplers.langevin.step_size=0.2",),
    }.items():
        suite = load_suite(write(folder, SUITE), overrides)
        assert run(suite, folder / name, "cpu", store_url=str(folder / "store")).num_failed == 0
    return folder


@pytest.fixture(scope="module")
def store(runs) -> ArtifactStore:
    return open_store(str(runs / "store"))


def record(runs: Path, name: str, sampler: str) -> Record:
    (found,) = (item for item in RunStore(runs / name).records() if item.cell.sampler == sampler)
    return found


def test_it_says_what_went_in_with_keys_by_name_and_what_is_stored(runs, store):
    made = record(runs, "base", "tr0n").artifacts
    found = explain(store, made["samples"]["key"])
    assert found.kind == "samples"
    assert found.made_from["sampler.config.steps"] == 4
    assert found.made_from["tile"] == 4
    assert found.made_from["translator"] == f"translator {made['translator']}"
    assert found.inputs["translator"] == made["translator"]
    kinds = [part.kind for part in found.parts]
    assert kinds == ["samples"] * 3 + ["images"] * 3  # images lie under the key of their samples
    assert {part.name for part in found.parts} == set(made["samples"]["spans"])
    for part in found.parts:
        assert part.bytes == len(store.read(part.kind, found.key, part.name))
    assert found.to_plain()["bytes"] == sum(part.bytes or 0 for part in found.parts)


def test_the_beginning_of_a_key_is_enough_in_any_kind(runs, store):
    made = record(runs, "base", "tr0n").artifacts
    keys = {
        "pairs": made["pairs"],
        "translator": made["translator"],
        "snapshots": made["snapshots"],
        "readout": made["readouts"]["pixels"],
        "reference": made["references"]["pixels"]["key"],
        "score": made["scores"]["level"],
    }
    for kind, key in keys.items():
        found = explain(store, key[:8].upper())
        assert (found.kind, found.key) == (kind, key)
        assert found.parts


@pytest.mark.parametrize("text", ["", "abcde", "0123456789abcdef0", "samples", "../../etc"])
def test_what_is_no_key_is_refused(store, text):
    with pytest.raises(BenchError, match="is no key: give 6 to 16"):
        explain(store, text)


def test_an_unknown_key_names_the_nearest(runs, store):
    key = record(runs, "base", "prior").artifacts["samples"]["key"]
    wrong = key[:-1] + ("0" if key[-1] != "0" else "1")
    with pytest.raises(BenchError, match=rf"has the key '{wrong}'\. Nearest: samples {key}"):
        explain(store, wrong)


def test_an_unknown_key_in_an_empty_store(tmp_path):
    with pytest.raises(BenchError, match="'plan SUITE' lists"):
        explain(open_store(str(tmp_path / "nothing")), "abcdef")


def test_an_ambiguous_key_lists_all(tmp_path):
    store = open_store(str(tmp_path / "store"))
    for key in ("abcdef0000000000", "abcdef1111111111"):
        store.write("samples", key, "x", b"", {})
    with pytest.raises(
        BenchError, match=r"of 2 keys: samples abcdef0000000000, samples abcdef1111111111\. Give more"
    ):
        explain(store, "abcdef")
    assert explain(store, "abcdef1").key == "abcdef1111111111"


def test_a_difference_is_shown_where_it_is(runs, store):
    old, new = (record(runs, name, "langevin").artifacts for name in ("base", "step"))
    labels = [f"samples {item['samples']['key']}" for item in (old, new)]
    expected = [Difference("sampler.config.step_size", 0.1, 0.2)]
    assert compare(store, old["samples"]["key"], new["samples"]["key"]) == (*labels, expected)
    (found,) = compare(store, old["readouts"]["pixels"], new["readouts"]["pixels"])[2]
    assert found == Difference("of > sampler.config.step_size", 0.1, 0.2)
    (found,) = compare(store, old["snapshot_readouts"]["pixels"], new["snapshot_readouts"]["pixels"])[2]
    assert found == Difference("of > samples > sampler.config.step_size", 0.1, 0.2)


def test_a_difference_deep_down_is_followed_through_translator_and_pairs(runs, store):
    old, new = (record(runs, name, "tr0n").artifacts for name in ("base", "pairs"))
    found = compare(store, old["readouts"]["pixels"], new["readouts"]["pixels"])[2]
    assert found == [
        Difference("of > translator > pairs > synthesis.config.seed", 24, 1),
        Difference("of > translator > training.config.seed", 24, 1),
    ]


def test_what_differs_in_several_places_is_told_once(runs, store):
    old, new = (record(runs, name, "langevin").artifacts for name in ("base", "step"))
    found = compare(store, old["scores"]["level"], new["scores"]["level"])[2]
    values = [(item.old, item.new) for item in found if isinstance(item.old, float)]
    assert values == [(0.1, 0.2)]
    again = [item.new for item in found if "differs as under" in str(item.new)]
    assert len(again) == len(found) - 1 == 2  # through the readout of the images and that of the curve
    assert all(str(item.old).startswith("samples ") for item in found if item.new in again)


def test_where_what_an_artifact_is_from_is_not_stored_its_keys_are_compared(tmp_path):
    store = open_store(str(tmp_path / "store"))
    gone, kept = "0" * 16, "1" * 16
    store.write("translator", kept, "network", payload.pack({}), {"num_pairs": 3})
    for key, translator in (("a" * 16, gone), ("b" * 16, kept)):
        store.write(
            "samples", key, "x", b"", {"translator": translator, "list": [1, 2][: int(translator[0]) + 1]}
        )
    assert compare(store, "aaaaaa", "bbbbbb")[2] == [
        Difference("list[1]", "(absent)", 2),
        Difference("translator", f"{gone} (not stored)", f"translator {kept}"),
    ]


def test_the_same_key_twice_differs_in_nothing(runs, store):
    key = record(runs, "base", "prior").artifacts["samples"]["key"]
    assert compare(store, key, key[:7])[2] == []


def test_artifacts_of_two_kinds_say_so(runs, store):
    made = record(runs, "base", "tr0n").artifacts
    found = compare(store, made["pairs"], made["translator"])[2]
    assert found[0] == Difference("kind", "pairs", "translator")


def test_a_broken_header_is_told(tmp_path):
    store = open_store(str(tmp_path / "store"))
    store.write("samples", "a" * 16, "x", b"1234", {"n": 1})
    store.write("samples", "a" * 16, "y", b"1234", {"n": 1})
    path = tmp_path / "store" / "samples" / ("a" * 16)
    (path / "x").write_bytes(b"nonsense")
    found = explain(store, "aaaaaa")
    assert found.inputs == {"n": 1}  # from the other part
    assert [part.bytes for part in found.parts] == [None, 4]
    assert "corrupt" in str(found.parts[0].problem)
    (path / "y").write_bytes(b"nonsense")
    with pytest.raises(BenchError, match=r"no header of samples a{16}"):
        explain(store, "aaaaaa")


def test_plain_data_is_flattened():
    data = {"a": {"b": [1, {"c": None}]}, "d": [], "e": {}}
    assert dict(flat(data)) == {"a.b[0]": 1, "a.b[1].c": None, "d": [], "e": {}}


def test_on_the_command_line(runs, capsys):
    old, new = (record(runs, name, "langevin").artifacts for name in ("base", "step"))
    address = ("--store", str(runs / "store"))
    assert main(["explain", old["samples"]["key"], *address]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"# samples {old['samples']['key']}"
    assert "sampler.config.step_size\t0.1" in lines
    assert any(line.startswith("# 6 parts, ") for line in lines)
    assert main(["explain", old["samples"]["key"], new["samples"]["key"], *address]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].endswith(": 1 difference")
    assert lines[2] == "sampler.config.step_size\t0.1\t0.2"
    assert main(["explain", old["samples"]["key"], new["samples"]["key"], "--json", *address]) == 0
    assert json.loads(capsys.readouterr().out)["differences"] == [
        {"path": "sampler.config.step_size", "old": 0.1, "new": 0.2}
    ]
    assert main(["explain", old["samples"]["key"], "--json", *address]) == 0
    assert json.loads(capsys.readouterr().out)["kind"] == "samples"
    assert main(["explain", "ffffffffffffffff", *address]) == 1
    assert capsys.readouterr().err.startswith("error: no artifact in ")
