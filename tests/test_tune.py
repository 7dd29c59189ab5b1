"""Tuning: the same budget for all, seeds and prompts of its own, and a file that the suite takes in."""

from __future__ import annotations

import copy
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
from bench.tune import Budget, objective, searchable, trial_suite, tune, tuned_yaml

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


def seeds(suite: Suite) -> set[int]:
    import torch

    from bench.assembly import Assembly

    assembly = Assembly(suite, torch.device("cpu"))
    found: Assignment = assembly.assignment(plan(suite).cells[0])
    return set(found.seeds)


def test_what_is_searched_is_declared(tmp_path):
    spaces = searchable(small(tmp_path))
    assert list(spaces) == ["ascent", "langevin"]  # the prior has nothing to tune
    assert spaces["langevin"] is Langevin.tunable


def test_trials_use_seeds_and_prompts_that_the_run_does_not(tmp_path):
    suite = small(tmp_path)
    trial = trial_suite(suite, "ascent", {"learning_rate": 0.2}, BUDGET)
    assert [variant.sampler for variant in trial.variants] == ["ascent"]
    assert trial.samplers["ascent"].config.learning_rate == 0.2
    assert trial.protocol.reference_split == "train" != suite.protocol.reference_split
    assert not seeds(trial) & seeds(suite)
    with pytest.raises(SuiteError, match="split 'val' is the suite's own"):
        trial_suite(suite, "ascent", {}, Budget(split="val"))


def test_the_search_improves_and_the_suite_takes_its_file_in(tmp_path):
    suite = small(tmp_path)
    told: list[tuple[str, int, int]] = []
    store = str(tmp_path / "store")
    found = tune(suite, BUDGET, "cpu", store, lambda *args: told.append(args))
    assert [name for name, k, _ in told if k == 4] == ["ascent", "langevin"]
    assert all(len(item.history) == 4 and item.value >= item.before for item in found.values())
    assert any(item.value > item.before + 0.1 for item in found.values())  # steps of 1e-3 lead nowhere
    text = tuned_yaml(suite, BUDGET, found)
    assert "# ascent: class-accuracy" in text
    (tmp_path / "tuned.yaml").write_text(text)
    own = yaml.safe_load((tmp_path / "small.yaml").read_text())
    path = tmp_path / "with.yaml"
    path.write_text(yaml.safe_dump({**own, "tuned": "tuned.yaml"}, sort_keys=False))
    taken = load_suite(path)
    for name, item in found.items():
        for key, value in item.settings.items():
            assert getattr(taken.samplers[name].config, key) == value
    assert "tuned" not in taken.resolved()


def test_a_metric_that_no_cell_has_is_refused(tmp_path):
    from bench.runner import run

    run(
        trial_suite(small(tmp_path), "ascent", {}, BUDGET), tmp_path / "run", "cpu", store_url="memory://tune"
    )
    with pytest.raises(SuiteError, match="no cell has metric 'class-acuracy'"):
        objective(tmp_path / "run", "class-acuracy")
    assert objective(tmp_path / "run", "fid")[1] is False


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("x: 1", "holds no 'samplers'"),
        ("samplers: {acent: {kind: ascent}}", "which the suite lacks. Did you mean 'ascent'"),
        ("samplers: {ascent: {kind: langevin}}", "tuned 'ascent' as another kind than 'ascent'"),
    ],
)
def test_a_tuned_file_that_does_not_fit_is_refused(tmp_path, content, says):
    small(tmp_path)
    (tmp_path / "tuned.yaml").write_text(content)
    own = yaml.safe_load((tmp_path / "small.yaml").read_text())
    (tmp_path / "with.yaml").write_text(yaml.safe_dump({**own, "tuned": "tuned.yaml"}, sort_keys=False))
    with pytest.raises(SuiteError, match=says):
        load_suite(tmp_path / "with.yaml")


def test_the_command_writes_the_file(tmp_path):
    small(tmp_path)
    call = ["tune", str(tmp_path / "small.yaml"), "--trials", "1", "--num", "10", "--device", "cpu"]
    result = CliRunner().invoke(app, [*call, "--store", str(tmp_path / "store")])
    assert result.exit_code == 0, result.output
    content = yaml.safe_load((tmp_path / "tuned" / "small.yaml").read_text())
    assert content["samplers"]["ascent"] == {"kind": "ascent", "learning_rate": 0.001}
