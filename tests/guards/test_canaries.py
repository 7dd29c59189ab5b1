"""Canaries sing for sound metrics, and fall silent for those that do not measure."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch

from bench.assembly import Assembly
from bench.cli import main
from bench.errors import MetricError
from bench.guards import doctor
from bench.guards.canaries import Canary, Finding, Trial, falls
from bench.guards.extractors import fixture_path, known_answer, precision, write_fixture
from bench.guards.pictures import LADDERS, fixed_pictures, negated
from bench.journal import Journal
from bench.metrics.accuracy import ClassAccuracy
from bench.store import RunStore
from bench.suite import Named, suite_from_plain

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def assembly() -> Assembly:
    return Assembly(doctor.built_in_suite(), CPU)


@pytest.fixture(scope="module")
def trial(assembly) -> Trial:
    return Trial.of("digits", assembly.images("digits"), 100)


def digits_metrics(assembly) -> dict[str, Named]:
    return {k: m for k, m in assembly.suite.metrics.items() if m.config.judge == "digits" and m.kind != "kid"}


def verdicts(findings: list[Finding]) -> dict[str, set[str]]:
    """Check → the metrics that failed it."""
    found: dict[str, set[str]] = {finding.check: set() for finding in findings}
    for finding in findings:
        if finding.status == "failed":
            found[finding.check].add(finding.subject.split(":")[0])
    return found


def test_sound_metrics_pass_every_check(assembly, trial):
    metrics = digits_metrics(assembly)
    found = verdicts(list(Canary(trial, "digits", assembly.judge("digits"), metrics).findings()))
    assert set(found) == {
        "equal sets give 0", "blur makes it worse", "noise makes it worse", "jpeg makes it worse",
        "shuffled prompts score lower", "half of the classes cover less",
    }  # fmt: skip
    assert not set().union(*found.values())


class Blind:
    """A judge that looks at nothing: every image gets the features of another, fixed one."""

    def __init__(self, judge):
        self.judge = judge

    def readout(self, images_NCHW, conditions=None):
        fixed = np.random.default_rng(len(images_NCHW)).integers(0, 256, images_NCHW.shape, dtype=np.uint8)
        return self.judge.readout(fixed, conditions)


def test_a_judge_that_does_not_look_is_found(assembly, trial):
    metrics = digits_metrics(assembly)
    found = verdicts(list(Canary(trial, "digits", Blind(assembly.judge("digits")), metrics).findings()))
    for ladder in LADDERS:
        assert found[f"{ladder} makes it worse"] >= {"fid-digits", "accuracy-digits"}


@dataclass(frozen=True, kw_only=True)
class Inverted(ClassAccuracy):
    """Counts what is wrong, and calls it accuracy."""

    def compute(self, evidence):
        result = super().compute(evidence)
        return replace(result, scores=tuple(replace(s, value=1 - s.value) for s in result.scores))


def test_a_metric_that_counts_the_wrong_way_is_found(assembly, trial):
    metric = Named(name="wrong", kind="class-accuracy", raw={}, config=Inverted(judge="digits"))
    found = verdicts(list(Canary(trial, "digits", assembly.judge("digits"), {"wrong": metric}).findings()))
    assert found["shuffled prompts score lower"] == {"wrong"}
    assert found["blur makes it worse"] == {"wrong"}


class Negating:
    """A CLIP that is shown negatives: the fault that stood in a public metric for months."""

    def __init__(self, judge):
        self.judge = judge

    def readout(self, images_NCHW, conditions=None):
        return self.judge.readout(negated(images_NCHW), conditions)


def test_a_clip_score_of_negatives_is_found(assembly):
    images = assembly.images("shapes")
    trial, metrics = Trial.of("shapes", images, 60), {"clip": assembly.suite.metrics["clip"]}
    judge = assembly.judge("shapes-clip")
    for seen, fails in ((judge, set()), (Negating(judge), {"clip"})):
        canary = Canary(trial, "shapes-clip", seen, metrics)
        clean = canary._scores(canary.plain, canary.conditions)
        found = verdicts([*canary._negated(clean), *canary._shuffled(clean)])
        assert found["negated images score lower"] == fails
        assert "shuffled prompts score lower" in found


def test_steps_of_a_ladder_grow_and_pictures_stay():
    images = fixed_pictures(32)
    for change, steps in LADDERS.values():
        errors = [np.square(change(images, step).astype(float) - images).mean() for step in steps]
        assert errors == sorted(errors)
        assert np.array_equal(change(images, steps[0]), change(images, steps[0]))
    assert images.shape == (8, 3, 32, 32)
    assert int(images.astype(np.int64).sum()) == 3083454
    assert np.array_equal(negated(negated(images)), images)


def test_order_is_what_falls_looks_at():
    assert falls([1.0, 0.9, 0.5], "higher")
    assert falls([0.0, 1.0, 50.0], "lower")
    assert falls([1.0, 1.005, 0.5], "higher")  # a hundredth of the way back, by chance
    assert not falls([1.0, 1.1, 0.5], "higher")
    assert not falls([1.0, 1.0, 1.0], "higher")
    assert not falls([1.0, float("nan"), 0.5], "higher")


# --- known answers -------------------------------------------------------------------------------


def test_shipped_judges_see_what_they_saw(assembly):
    for judge in assembly.suite.judges.values():
        finding = known_answer(judge, CPU)
        assert (finding.status, finding.check) == ("passed", "known answer"), finding


def test_a_judge_that_sees_something_else_is_found(assembly, monkeypatch, tmp_path):
    from bench.guards import extractors

    judge = assembly.suite.judges["digits"]
    assert fixture_path(judge).is_file()
    monkeypatch.setattr(extractors, "FIXTURES", tmp_path)
    assert known_answer(judge, CPU).status == "skipped"
    write_fixture(judge, CPU)
    assert known_answer(judge, CPU).status == "passed"
    monkeypatch.setattr(extractors, "fixed_pictures", lambda side: np.flip(fixed_pictures(side), 1))
    finding = known_answer(judge, CPU)  # channels in another order
    assert finding.status == "failed"
    assert finding.values[0] > 0.01


def test_number_formats_are_told_and_tf32_fails():
    (finding,) = precision()
    assert finding.status == "passed"
    assert "TF32" in finding.text
    before = torch.get_float32_matmul_precision()
    try:
        torch.set_float32_matmul_precision("high")
        assert next(precision()).status == "failed"
    finally:
        torch.set_float32_matmul_precision(before)


# --- before a run --------------------------------------------------------------------------------

FAILED = Finding(check="blur makes it worse", subject="fid", status="failed", text="1 → 1")


def test_a_run_is_refused_where_a_check_fails(assembly, monkeypatch):
    monkeypatch.setattr(doctor, "examine", lambda assembly: iter([FAILED]))
    with pytest.raises(MetricError, match="1 checks of judges and metrics failed, so nothing is drawn"):
        doctor.examine_before_run(assembly.suite, CPU, None, always=True)
    doctor.examine_before_run(assembly.suite, CPU, None, always=False)  # a short run


def test_a_run_is_long_by_what_it_makes(monkeypatch, tmp_path):
    suite = doctor.load_suite(doctor.BUILT_IN, ["samples.num=300"])
    assert not doctor.is_long(suite, CPU, str(tmp_path / "store"))
    monkeypatch.setattr(doctor, "FEW_FORWARDS", 200)
    assert not doctor.is_long(suite, CPU, str(tmp_path / "store"))
    monkeypatch.setattr(doctor, "MANY_FORWARDS", 300)
    assert doctor.is_long(suite, CPU, str(tmp_path / "store"))


def test_a_run_that_has_finished_is_not_weighed_again(finished_run, tmp_path, monkeypatch):
    def weighed(*arguments: object) -> None:
        raise AssertionError("it was weighed")

    monkeypatch.setattr(doctor, "FEW_FORWARDS", 0)
    monkeypatch.setattr("bench.survey.survey", weighed)
    run_dir, url = finished_run.copy(tmp_path)
    suite = suite_from_plain(RunStore(run_dir).read_run()["suite"], "run.json")
    doctor.examine_before_run(suite, CPU, url, always=False, run_dir=run_dir)
    swapped, _ = finished_run.copy(tmp_path / "swapped")
    known = RunStore(swapped).read_run()
    known["provenance"]["weights"] = dict.fromkeys(known["provenance"]["weights"], "0" * 64)
    RunStore(swapped).write_run({key: value for key, value in known.items() if key != "schema"})
    Journal(run_dir / "journal.jsonl").write("interrupted", reason="KeyboardInterrupt")
    other = suite_from_plain({**RunStore(run_dir).read_run()["suite"], "seed": 6}, "run.json")
    for changed, folder in (
        (suite, run_dir),
        (other, finished_run.out),
        (suite, swapped),
        (suite, tmp_path / "nowhere"),
    ):
        with pytest.raises(AssertionError, match="it was weighed"):
            doctor.examine_before_run(changed, CPU, url, always=False, run_dir=folder)


def test_the_command_prints_and_fails(monkeypatch, capsys):
    both = [FAILED, replace(FAILED, status="passed")]
    monkeypatch.setattr(doctor, "examine", lambda assembly, num: iter(both))
    assert main(["doctor"]) == 1
    assert "failed\tblur makes it worse\tfid\t1 → 1" in capsys.readouterr().out
    monkeypatch.setattr(doctor, "examine", lambda assembly, num: iter([replace(FAILED, status="passed")]))
    assert main(["doctor", "--json"]) == 0
    assert Path(doctor.BUILT_IN).is_file()
