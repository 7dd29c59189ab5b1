"""A history only grows, tells benchmarks apart, and finds the commit at which a number stepped."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from report.synthetic import synthetic_run

from bench.change_points import change_points, segment
from bench.cli import main
from bench.errors import ResultError
from bench.history import append, points_of, read, series
from bench.report.compare import compare_runs, plain_rows


def test_segments_are_the_best_of_every_partition():
    rng = np.random.default_rng(0)
    values = np.concatenate([rng.normal(0, 1, 5), rng.normal(4, 1, 4), rng.normal(1, 1, 4)])
    n, penalty = len(values), 3.0

    def cost(edges: tuple[int, ...]) -> float:
        parts = np.split(values, edges)
        return sum(((part - part.mean()) ** 2).sum() for part in parts) + penalty * len(edges)

    every = [()]
    for size in (1, 2, 3, 4):
        from itertools import combinations

        every += [e for e in combinations(range(2, n - 1), size) if (np.diff([0, *e, n]) >= 2).all()]
    assert tuple(segment(values, penalty)) == min(every, key=cost)


def test_steps_are_found_where_they_are_and_noise_has_none():
    rng = np.random.default_rng(0)
    misses, false = 0, 0
    for _ in range(100):
        noise = 0.02 * rng.standard_normal(40)
        false += len(change_points(np.exp(noise), log=True))
        found = change_points(np.exp(noise + np.where(np.arange(40) >= 25, np.log(1.1), 0)), log=True)
        misses += not any(abs(at - 25) <= 1 for at, *_ in found)
    assert misses <= 2
    assert false <= 4
    ((at, before, after, _),) = change_points(np.r_[np.full(10, 1.0), np.full(3, 2.0)])
    assert (at, before, after) == (10, 1.0, 2.0)
    assert change_points(np.ones(30)) == []
    assert change_points(np.ones(3)) == []


def test_a_history_grows_once_and_finds_the_commit(tmp_path):
    path = tmp_path / "history.jsonl"
    points = points_of(synthetic_run(tmp_path / "run"), "c0")
    speed = next(p for p in points if p.metric == "seconds-per-image")
    rng = np.random.default_rng(0)
    for k in range(24):
        value = 0.01 * (1.2 if k >= 15 else 1.0) * np.exp(0.01 * rng.standard_normal())
        assert append(path, [replace(speed, commit=f"commit{k}", value=value)]) == 1
    before = path.read_bytes()
    assert append(path, [replace(speed, commit="commit3")]) == 0
    assert path.read_bytes() == before
    (found,) = series(read(path))
    (step,) = found.steps
    assert step.commit == "commit15"
    assert step.ratio == pytest.approx(1.2, rel=0.02)
    append(path, [replace(speed, commit="commit24", benchmark="another", suite_version=2)])
    old, new = series(read(path))
    assert (old.retired, new.retired) == (True, False)


def test_a_broken_line_is_named(tmp_path):
    path = tmp_path / "h.jsonl"
    append(path, points_of(synthetic_run(tmp_path / "run"), "c0")[:1])
    with path.open("a") as file:
        file.write('{"schema": 1, "commit"')
    with pytest.raises(ResultError, match=r"h\.jsonl:2: no point"):
        read(path)
    run = synthetic_run(tmp_path / "other")
    with pytest.raises(ResultError, match="names no revision"):
        points_of(run)


def test_the_benchmark_changes_with_what_it_measures(tmp_path):
    run = synthetic_run(tmp_path / "run")
    one = {(p.cell, p.metric): p.benchmark for p in points_of(run, "c")}
    content = json.loads((run / "run.json").read_text())
    content["suite"]["version"] = 2
    (run / "run.json").write_text(json.dumps(content))
    two = {(p.cell, p.metric): p.benchmark for p in points_of(run, "c")}
    assert one.keys() == two.keys()
    assert not set(one.values()) & set(two.values())


def test_the_commands_add_and_show(tmp_path, capsys):
    run, path = synthetic_run(tmp_path / "run"), tmp_path / "h.jsonl"
    for k in range(3):
        assert main(["history", "add", str(path), str(run), "--commit", f"commit{k}"]) == 0
    assert main(["history", "show", str(path), "--out", str(tmp_path)]) == 0
    assert "10 series, 0 retired, 0 steps" in capsys.readouterr().out
    assert (tmp_path / "history.html").stat().st_size > 10**6
    assert main(["history", "show", str(tmp_path / "none.jsonl")]) == 1


# --- compare


def test_a_run_against_itself_differs_in_nothing(tmp_path, capsys):
    run = str(synthetic_run(tmp_path / "run"))
    rows = compare_runs(run, run)
    assert {row.comparison.difference for row in rows if row.comparison is not None} == {0.0}
    assert {row.ratio for row in rows if row.ratio is not None} == {1.0}
    assert main(["compare", run, run, "--out", str(tmp_path / "out")]) == 0
    assert "CLIP cosine" in capsys.readouterr().out
    assert (tmp_path / "out" / "compare.html").is_file()


def test_variants_are_compared_by_name_and_the_better_is_better(tmp_path):
    run = str(synthetic_run(tmp_path / "run", num=200))
    rows = {row.metric: row for row in compare_runs(f"{run}::gan/prior", f"{run}::gan/tr0n")}
    cosine = rows["clip-cosine"]
    assert cosine.verdict == "better"
    assert cosine.comparison.difference == pytest.approx(0.1, abs=0.02)
    assert rows["seconds-per-image"].ratio == pytest.approx(4.0)
    assert rows["fid"].verdict == "not paired"
    assert plain_rows([cosine])[0]["verdict of B"] == "better"
    with pytest.raises(ResultError, match="Did you mean 'gan/prior'"):
        compare_runs(f"{run}::gan/prio", run)
