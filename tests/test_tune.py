"""Tuning: the same budget for all, seeds and prompts of its own, and a file that the suite takes in."""

from __future__ import annotations

import copy
import math
from pathlib import Path

import pytest
import yaml
from support import SMALL_SUITE
from typer.testing import CliRunner

from bench.cli import app
from bench.conditions import Assignment
from bench.errors import SuiteError
from bench.plan import plan
from bench.samplers.langevin import Langevin
from bench.suite import Suite, load_suite
from bench.translator.hypernetwork import NoiseHypernetwork
from bench.tune import Budget, Tuned, objective, searchable, trial_suite, tune, write_tuned

BUDGET = Budget(trials=4, num=20, metric="class-accuracy")


def small(folder: Path, **changes) -> Suite:
    content = copy.deepcopy(SMALL_SUITE) | changes
    content["samplers"] = {
        "prior": {"kind": "prior"},
        "ascent": {"kind": "ascent", "steps": 4, "learning_rate": 1e-3},
        "langevin": {"kind": "langevin", "steps": 4, "step_size": 1e-3, "momentum": 0.5},
    }
    content["variants"]["matrix"]["sampler"] = ["prior", "ascent", "langevin"]
    path = folder / "small.yaml"
    path.write_text(yaml.safe_dump(content, sort_keys=False))
    return load_suite(path)


def with_set_up(folder: Path) -> Suite:
    """The suite with an ascent, and a feed-forward pass through a network that is trained for it."""
    content = copy.deepcopy(SMALL_SUITE)
    content["samplers"] = {"ascent": {"kind": "ascent", "steps": 4}, "through": {"kind": "feed-forward"}}
    content["translators"] = {
        **content.get("translators", {}),
        "network": {"kind": "noise-hypernetwork", "hidden": 8, "steps": 2, "batch_size": 4},
    }
    (first,) = [content["variants"]["matrix"]]
    first = first[0] if isinstance(first, list) else first
    content["variants"] = {
        "matrix": [
            {**first, "sampler": "ascent"},
            {**first, "sampler": "through", "translator": "network", "num_samples": 6},
        ]
    }
    path = folder / "small.yaml"
    path.write_text(yaml.safe_dump(content, sort_keys=False))
    return load_suite(path)


def tuned(folder: Path) -> Path:
    """A copy of the suite that takes in tuned.yaml."""
    own = yaml.safe_load((folder / "small.yaml").read_text())
    path = folder / "with.yaml"
    path.write_text(yaml.safe_dump({**own, "tuned": "tuned.yaml"}, sort_keys=False))
    return path


def seeds(suite: Suite) -> set[int]:
    import torch

    from bench.assembly import Assembly

    assembly = Assembly(suite, torch.device("cpu"))
    found: Assignment = assembly.assignment(plan(suite).cells[0])
    return set(found.seeds)


def test_what_is_searched_is_declared(tmp_path):
    suite = small(tmp_path)
    subjects = searchable(suite)
    assert [subject.label for subject in subjects] == [
        "samplers.ascent",
        "samplers.langevin",
    ]  # not the prior
    assert subjects[1].space is Langevin.tunable
    assert searchable(suite, variants="*/langevin") == searchable(suite, "samplers.lang*") == subjects[1:]
    with pytest.raises(SuiteError, match="no variant is named 'ascent'"):
        searchable(suite, variants="ascent")
    with pytest.raises(SuiteError, match=r"named 'samplers.acent'\. Did you mean 'samplers.ascent'"):
        searchable(suite, "samplers.acent")


def test_a_set_up_is_searched_where_its_sampler_has_nothing_to_search(tmp_path):
    suite = with_set_up(tmp_path)
    subjects = searchable(suite)
    assert [subject.label for subject in subjects] == ["samplers.ascent", "translators.network"]
    network = subjects[1]
    assert network.space is NoiseHypernetwork.tunable
    trial = trial_suite(suite, network, {"weight": 3.0}, BUDGET)
    assert trial.translators["network"].config.weight == 3.0
    assert [variant.sampler for variant in trial.variants] == ["through"]
    assert [variant.num_samples for variant in trial.variants] == [BUDGET.num]


def test_trials_use_seeds_and_prompts_that_the_run_does_not(tmp_path):
    suite = small(tmp_path)
    ascent, _ = searchable(suite)
    trial = trial_suite(suite, ascent, {"learning_rate": 0.2}, BUDGET)
    assert [variant.sampler for variant in trial.variants] == ["ascent"]
    assert trial.samplers["ascent"].config.learning_rate == 0.2
    assert trial.protocol.reference_split == "train" != suite.protocol.reference_split
    assert not seeds(trial) & seeds(suite)
    with pytest.raises(SuiteError, match="split 'val' is the suite's own"):
        trial_suite(suite, ascent, {}, Budget(split="val"))


def test_the_search_improves_and_the_suite_takes_its_file_in(tmp_path):
    suite = small(tmp_path)
    told: list[tuple[str, int, int]] = []
    store = str(tmp_path / "store")
    found = tune(suite, BUDGET, "cpu", store, lambda *args: told.append(args))
    assert [name for name, k, _ in told if k == 4] == ["samplers.ascent", "samplers.langevin"]
    assert all(len(item.history) == 4 and item.value >= item.before for item in found)
    assert any(item.value > item.before + 0.1 for item in found)  # steps of 1e-3 lead nowhere
    write_tuned(tmp_path / "tuned.yaml", suite, BUDGET, found)
    taken = load_suite(tuned(tmp_path))
    for item in found:
        for key, value in item.settings.items():
            assert getattr(taken.samplers[item.subject.name].config, key) == value
    assert "tuned" not in taken.resolved()
    searches = yaml.safe_load((tmp_path / "tuned.yaml").read_text())["searches"]
    assert [search["of"] for search in searches] == ["samplers.ascent", "samplers.langevin"]
    assert {(search["trials"], search["num"], search["split"]) for search in searches} == {(4, 20, "train")}


def test_a_search_leaves_what_the_file_says_of_others(tmp_path):
    suite = with_set_up(tmp_path)
    ascent, network = searchable(suite)
    path = tmp_path / "tuned.yaml"
    write_tuned(path, suite, BUDGET, [Tuned(network, {"weight": 7.0}, value=0.5, before=0.25)])
    write_tuned(path, suite, BUDGET, [Tuned(ascent, {"learning_rate": 0.1}, value=0.5, before=math.nan)])
    write_tuned(path, suite, BUDGET, [Tuned(ascent, {"learning_rate": 0.2}, value=0.5, before=math.nan)])
    taken = load_suite(tuned(tmp_path))
    assert taken.translators["network"].config.weight == 7.0
    assert taken.samplers["ascent"].config.learning_rate == 0.2
    assert [search["before"] for search in yaml.safe_load(path.read_text())["searches"]] == [0.25, None]


def test_a_metric_that_no_cell_has_is_refused(tmp_path):
    from bench.runner import run

    suite = small(tmp_path)
    run(
        trial_suite(suite, searchable(suite)[0], {}, BUDGET),
        tmp_path / "run",
        "cpu",
        store_url="memory://tune",
    )
    with pytest.raises(SuiteError, match="no cell has metric 'class-acuracy'"):
        objective(tmp_path / "run", "class-acuracy")
    assert objective(tmp_path / "run", "fid")[1] is False


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("x: 1", "holds no 'samplers' and no 'translators'"),
        ("translators: {netwrk: {kind: tr0n}}", "tunes translator 'netwrk', which the suite lacks"),
        ("{samplers: {}, translators: 3}", "'translators' must map names to settings"),
        ("samplers: {acent: {kind: ascent}}", "which the suite lacks. Did you mean 'ascent'"),
        ("samplers: {ascent: {kind: langevin}}", "tuned 'ascent' as another kind than 'ascent'"),
    ],
)
def test_a_tuned_file_that_does_not_fit_is_refused(tmp_path, content, says):
    small(tmp_path)
    (tmp_path / "tuned.yaml").write_text(content)
    with pytest.raises(SuiteError, match=says):
        load_suite(tuned(tmp_path))


def test_the_command_writes_the_file(tmp_path):
    small(tmp_path)
    call = ["tune", str(tmp_path / "small.yaml"), "--trials", "1", "--num", "10", "--device", "cpu"]
    result = CliRunner().invoke(app, [*call, "--store", str(tmp_path / "store")])
    assert result.exit_code == 0, result.output
    content = yaml.safe_load((tmp_path / "tuned" / "small.yaml").read_text())
    assert content["samplers"]["ascent"] == {"kind": "ascent", "learning_rate": 0.001}
    own = yaml.safe_load((tmp_path / "small.yaml").read_text())
    own["tuned"] = "tuned/small.yaml"
    (tmp_path / "small.yaml").write_text(yaml.safe_dump(own, sort_keys=False))
    call[call.index("10")] = "12"
    again = CliRunner().invoke(app, [*call, "--only", "*.ascent", "--store", str(tmp_path / "store")])
    assert again.exit_code == 0, again.output
    searches = yaml.safe_load((tmp_path / "tuned" / "small.yaml").read_text())["searches"]
    assert [(search["of"], search["num"]) for search in searches] == [
        ("samplers.ascent", 12),
        ("samplers.langevin", 10),
    ]
