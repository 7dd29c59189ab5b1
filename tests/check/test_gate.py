"""The gate on real processes: a copy of the code that is slower, a run that was better, what CI reads."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from support import FinishedRun

from bench.check import gate, outputs, sides
from bench.check.gate import EXIT_CODES, CellCheck, Check
from bench.check.quality import Quality, compare_quality, read_cells
from bench.check.rank import Speed
from bench.check.settings import CheckSettings
from bench.check.sides import HEAD, MOST_FORKS, Side, checkout, sharing
from bench.check.speed import Measured
from bench.cli import main
from bench.errors import BenchError
from bench.store import RunStore

QUICK = CheckSettings(rounds=16, max_rounds=16, noise_rounds=5, unit_s=0.05)


def speed(verdict: str = "same", **changes) -> Measured:
    found = Speed(verdict=verdict, ratio=1.01, interval=(0.99, 1.03), rounds=40, spread=0.02)
    return Measured(speed=replace(found, **changes), noise=0.02, base_s=(1.0,), head_s=(1.0,))


def quality(verdict: str = "kept", **changes) -> Quality:
    found = Quality(
        metric="fid",
        title="FID",
        base=3.0,
        head=3.1,
        loss=0.1,
        interval=(0.0, 0.2),
        margin=0.3,
        verdict=verdict,
    )
    return replace(found, **changes)


def made(*cells: CellCheck, notices: tuple[str, ...] = ()) -> Check:
    return Check(suite="s.yaml", base="b", head="h", device="cpu", cells=cells, notices=notices)


def cell(speed_verdict: str = "same", *verdicts: str, name: str = "v") -> CellCheck:
    return CellCheck(
        name=name,
        unit="4 samples",
        measured=speed(speed_verdict),
        quality=tuple(quality(v) for v in verdicts),
    )


@pytest.fixture(scope="module")
def slow_code(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of this code in which a Langevin step takes ten times as long."""
    folder = tmp_path_factory.mktemp("slow")
    shutil.copytree(HEAD / "bench", folder / "bench", ignore=shutil.ignore_patterns("__pycache__"))
    path = folder / "bench" / "samplers" / "langevin.py"
    head = "    def step(self, problem: Problem, state: LangevinState, t: int) -> LangevinState:\n"
    text = path.read_text()
    assert text.count(head) == 1
    spin = (
        head + "        import time\n        begin = time.perf_counter()\n"
        "        new = self._step(problem, state, t)\n        end = time.perf_counter()\n"
        # but not the first one of a process, which takes a second of its own
        "        while _warm and time.perf_counter() - end < 9 * (end - begin):\n            pass\n"
        "        _warm.append(True)\n        return new\n\n"
    )
    path.write_text(text.replace(head, spin + head.replace("def step", "def _step")) + "\n_warm = []\n")
    return folder


def test_the_gate_end_to_end(
    slow_code, finished_run: FinishedRun, small_suite, tmp_path, capsys, monkeypatch
):
    """Base is a copy whose steps are ten times slower; its records are a run whose samples were better than
    what the overrides let this code draw: faster, and yet it fails."""
    path = small_suite(variants={"matrix": {"data": "digits", "generator": "vae", "conditioner": "class",
                                            "sampler": ["tr0n"]}})  # fmt: skip
    monkeypatch.setattr(sides, "MOST_FORKS", 20)  # the fresh starts have a test of their own
    settings = tmp_path / "check.yaml"
    settings.write_text("{rounds: 10, max_rounds: 10, per_process: 1, noise_rounds: 5, unit_s: 0.05}")
    out = tmp_path / "check"
    code = main(
        ["check", str(path), "--baseline", str(finished_run.out), "--base-code", str(slow_code), "--device",
         "cpu", "--settings", str(settings), "--out", str(out), "--margin", "target-probability=0.01",
         "--set", "samplers.tr0n.noise_std=4.0"]
    )  # fmt: skip
    plain = json.loads((out / "check.json").read_text())
    (only,) = plain["cells"]
    assert only["measured"]["speed"]["verdict"] == "faster"
    assert only["measured"]["speed"]["ratio"] < 0.6
    assert plain["verdict"] == "quality lost"
    assert code == EXIT_CODES["quality lost"] == 4
    assert "verdict: quality lost" in capsys.readouterr().out
    cases = ElementTree.parse(out / "junit.xml").getroot().findall(".//testcase")
    assert any(case.find("failure") is not None for case in cases)


def test_two_variants_of_a_suite(small_suite, tmp_path):
    path = small_suite(
        samples={"num": 12},
        curve=None,
        variants={
            "matrix": {
                "data": "digits",
                "generator": "vae",
                "conditioner": "class",
                "sampler": ["prior", "langevin"],
            }
        },
    )
    found = gate.check_variants(
        path, (), "vae/class/langevin", "vae/class/prior", QUICK, device="cpu", work=tmp_path / "work"
    )
    (only,) = found.cells
    assert only.measured.speed.verdict == "faster"
    assert found.verdict == "quality lost"


def test_a_fault_of_a_side_is_told_and_its_death_too(small_suite, tmp_path):
    with Side("head") as side:
        with pytest.raises(BenchError, match=r"head \(.*SuiteError"):
            side.ask(
                "load", suite=str(tmp_path / "none.yaml"), overrides=[], device="cpu", store=str(tmp_path)
            )
        side._process.kill()
        with pytest.raises(BenchError, match="the process ended at 'time'"):
            side.ask("time", cell="x")
    with pytest.raises(BenchError, match="holds no package"), Side("base", tmp_path):
        pass


def test_a_side_goes_on_in_a_new_process_that_has_read_the_suite(finished_run: FinishedRun, tmp_path):
    suite = {"suite": str(finished_run.path), "overrides": [], "device": "cpu", "store": str(tmp_path)}
    with Side("head") as side:
        cell = side.load(**suite)["cells"][0]["id"]
        seen = set()
        for _ in range(3):
            side.renew()
            seen.add(side._child or side._process.pid)
        assert len(seen) == 3
        first = side._process.pid
        for _ in range(MOST_FORKS):
            side.renew()
        assert side._process.pid != first  # not all are forks of one
        assert "variant" in side.ask("load", **suite)["cells"][0]
        side.settle()
        assert side._child is None
        assert side.ask("load", **suite)["cells"][0]["id"] == cell
        if sys.platform == "linux":
            side.renew()
            os.kill(side._child, signal.SIGKILL)
            with pytest.raises(BenchError, match="the process that drew has died"):
                side.ask("time", cell=cell)
        side._forks = False  # as where forking will not do
        side.renew()
        assert side.ask("load", **suite)["cells"][0]["id"] == cell


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system pins no threads")
def test_sides_share_a_processor_that_changes_and_are_free_afterwards(
    finished_run: FinishedRun, tmp_path, monkeypatch
):
    monkeypatch.setenv("OMP_NUM_THREADS", "2")  # the drawing thread has a helper
    suite = {"suite": str(finished_run.path), "overrides": [], "device": "cpu"}
    allowed = sorted(os.sched_getaffinity(0))

    def helpers(process: int) -> list[set[int]]:
        threads = [int(name) for name in os.listdir(f"/proc/{process}/task") if int(name) != process]
        return [os.sched_getaffinity(thread) for thread in threads]

    with Side("base") as base, Side("head") as head:
        for side in (base, head):
            cells = side.load(**suite, store=str(tmp_path / side.name))["cells"]
            side.ask("prepare", cell=cells[0]["id"], unit_s=0.05)
        processes = [side._process.pid for side in (base, head)]
        assert all(helpers(pid) for pid in processes)
        with sharing([base, head]) as place:
            for number in range(len(allowed) + 1):
                place(number)
                only = {allowed[number % len(allowed)]}
                assert [os.sched_getaffinity(pid) for pid in processes] == [only, only]
                rest = set(allowed) - only or only
                assert all(where == rest for pid in processes for where in helpers(pid))
        assert [sorted(os.sched_getaffinity(pid)) for pid in processes] == [allowed, allowed]
        assert all(where == set(allowed) for pid in processes for where in helpers(pid))


# --- where base is


def test_a_run_names_its_code_and_a_revision_is_checked_out(finished_run, tmp_path):
    repository = tmp_path / "repository"
    (repository / "bench").mkdir(parents=True)
    (repository / "bench" / "__init__.py").write_text("old = True\n")
    run = ["git", "-C", str(repository), "-c", "user.name=n", "-c", "user.email=e"]
    subprocess.run(["git", "init", "-q", str(repository)], check=True)
    subprocess.run([*run, "add", "."], check=True)
    subprocess.run([*run, "commit", "-qm", "m"], check=True)
    (repository / "bench" / "__init__.py").write_text("new = True\n")
    with checkout("HEAD", repository) as path:
        assert (path / "bench" / "__init__.py").read_text() == "old = True\n"
    assert not path.exists()
    with pytest.raises(BenchError, match="is no commit"), checkout("absent", repository):
        pass
    with pytest.raises(BenchError, match="is no commit"), checkout("--help", repository):
        pass
    with gate.find_base(str(repository), None) as base:
        assert base.code == repository.resolve()
        assert base.run is None
    store = RunStore(finished_run.copy(tmp_path / "copy")[0])
    content = store.read_run()
    store.write_run({**content, "provenance": {**content["provenance"], "revision": None}})
    with (
        pytest.raises(BenchError, match="does not say which revision"),
        gate.find_base(str(store.run_dir), None),
    ):
        pass


# --- quality


def test_quality_is_kept_by_itself_and_lost_by_another_sampler(finished_run):
    cells = {name[2]: value for name, value in read_cells(RunStore(finished_run.out)).items()}
    prior, tr0n = cells["vae/class/prior"], cells["vae/class/tr0n"]
    same = compare_quality(tr0n, tr0n, CheckSettings())
    assert same
    assert {item.verdict for item in same} == {"kept"}
    assert {item.loss for item in same} == {0.0}
    worse = {item.metric: item for item in compare_quality(tr0n, prior, CheckSettings())}
    assert worse["target-probability"].verdict == "lost"
    assert worse["target-probability"].loss > 0
    better = {item.metric: item for item in compare_quality(prior, tr0n, CheckSettings())}
    assert better["target-probability"].verdict == "kept"
    failed = (replace(tr0n[0], status="failed", scores=()), None)
    assert {item.verdict for item in compare_quality(tr0n, failed, CheckSettings())} == {"lost"}


def test_other_samples_cannot_show_that_quality_was_kept(finished_run):
    record, table = next(
        value for name, value in read_cells(RunStore(finished_run.out)).items() if "tr0n" in name[2]
    )
    found = compare_quality((record, table), (record, table[:-1]), CheckSettings())
    assert {item.verdict for item in found} == {"inconclusive"}
    assert all("not the same samples" in item.note for item in found)


def test_a_loss_within_its_margin_is_kept_and_noise_is_inconclusive(finished_run):
    record, table = next(
        value for name, value in read_cells(RunStore(finished_run.out)).items() if "tr0n" in name[2]
    )
    rng = np.random.default_rng(0)
    noisy = table.assign(
        **{"target-probability": table["target-probability"] + rng.normal(0, 0.2, len(table))}
    )
    score = next(s for s in record.scores if s.metric == "target-probability")
    head = replace(
        record, scores=(replace(score, value=float(noisy["target-probability"].mean()), interval=None),)
    )
    base = replace(record, scores=(score,))
    for margin, verdict in ((1.0, "kept"), (1e-4, "inconclusive")):
        settings = CheckSettings(margins={"target-probability": margin})
        (item,) = compare_quality((base, table), (head, noisy), settings)
        assert item.verdict == verdict
        assert item.margin == margin


# --- verdicts and what CI reads


@pytest.mark.parametrize(
    ("cells", "verdict", "code"),
    [
        ([cell()], "same", 0),
        ([cell("faster", "kept")], "faster", 0),
        ([cell("slower")], "slower", 3),
        ([cell("faster", "lost")], "quality lost", 4),
        ([cell("faster", "inconclusive")], "inconclusive", 5),
        ([cell("inconclusive")], "inconclusive", 5),
        ([cell("faster"), cell("slower"), cell("same", "lost")], "quality lost", 4),
        ([cell("inconclusive"), cell("slower")], "slower", 3),
    ],
)
def test_the_verdict_is_the_worst_and_has_its_exit_code(cells, verdict, code):
    found = made(*cells)
    assert (found.verdict, found.exit_code) == (verdict, code)


EVIL = 'a|b "x" <i>\n%0A::error::\x00'


def test_outputs_hold_untrusted_names(tmp_path, monkeypatch):
    summary = tmp_path / "summary.md"
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(summary))
    found = made(cell("slower", "lost", "inconclusive", name=EVIL), notices=("other load: 2\nlines",))
    outputs.write(found, tmp_path)
    root = ElementTree.parse(tmp_path / "junit.xml").getroot()
    suite = root.find("testsuite")
    assert (suite.get("tests"), suite.get("failures"), suite.get("errors")) == ("3", "2", "1")
    assert suite.find("testcase").get("classname").startswith('a|b "x" <i>')
    text = summary.read_text()
    assert text == (tmp_path / "check.md").read_text()
    assert "<i>" not in text
    assert "❌ quality lost" in text
    lines = outputs.github_annotations(found)
    assert [line.split(" ")[0] for line in lines] == ["::error", "::error", "::warning", "::notice"]
    assert all("\n" not in line for line in lines)
    assert "%25250A" not in lines[0]
    assert "%250A" in lines[0]


def test_inconclusive_says_how_many_more_rounds():
    open_cell = CellCheck(name="v", unit="", measured=speed("inconclusive", more_rounds=123), quality=())
    assert "about 123 more would settle it" in outputs.markdown(made(open_cell))


def test_wrong_usage_is_told(small_suite, capsys):
    path = str(small_suite())
    assert main(["check", path]) == 1
    assert main(["check", path, "--baseline", "x", "--base-variant", "y"]) == 1
    assert main(["check", path, "--baseline", "x", "--margin", "fid"]) == 1
    assert "is METRIC=NUMBER" in capsys.readouterr().err
