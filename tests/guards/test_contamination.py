"""A judge that guided is found by its weights and by its lineage, and its scores are never ranked."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import yaml
from support import SMALL_SUITE

from bench.auxiliaries.clip_files import ClipFiles
from bench.conditioners.classifier import Classifier
from bench.conditioners.clip import Clip
from bench.conditioners.sum import Sum as Summed
from bench.conditioners.sum import Term
from bench.conditioners.wrapped import ImageCondition
from bench.guards.contamination import kinship, lineages
from bench.judges.classifier import ClassifierJudge
from bench.judges.clip import ClipJudge
from bench.report.tables import groups, markdown_table
from bench.report.trust import is_ranked
from bench.runner import run
from bench.store import RunStore
from bench.suite import load_suite
from bench.suite.nested import NestedConditioner
from bench.verify import verify


@dataclass(frozen=True, kw_only=True)
class Public:
    """A public model by name and tag, with a file of its own."""

    model: str
    pretrained: str
    weights: str


@dataclass(frozen=True)
class Sum:
    terms: tuple[object, ...]


def test_the_shipped_judges_are_independent_of_the_shipped_guides():
    assert kinship(Classifier(model="digits-classifier-guide"), ClassifierJudge()) is None
    assert kinship(Clip(model="shapes-clip-guide"), ClipJudge()) is None
    assert lineages(Clip(model="shapes-clip-guide")) == {("clip resnet", "shapes")}


def test_the_guide_as_judge_is_found_by_its_weights(tmp_path):
    guide = Classifier(model="digits-classifier-guide")
    assert "the guide's weights" in kinship(guide, ClassifierJudge(model="digits-classifier-guide"))
    file = tmp_path / "w.pt"
    file.write_bytes(b"weights")
    a, b = (Public(model="ViT-B-32", pretrained=tag, weights=str(file)) for tag in ("openai", "laion2b_e16"))
    assert kinship(a, b) == "the guide's weights (w.pt)"
    assert kinship(Sum((a, "other")), Sum((Sum((b,)),))) == "the guide's weights (w.pt)"


def test_the_same_architecture_and_data_are_next_of_kin(tmp_path):
    files = [tmp_path / name for name in ("a", "b", "c")]
    for file in files:
        file.write_bytes(file.name.encode())

    def public(model: str, tag: str, k: int) -> Public:
        return Public(model=model, pretrained=tag, weights=str(files[k]))

    guide = public("ViT-B-32", "laion2b_s34b_b79k", 0)
    assert kinship(guide, public("ViT-B-32-quickgelu", "laion2b_e16", 1)) == (
        "the guide's architecture and data (ViT-B-32 on laion2b)"
    )
    assert kinship(guide, public("ViT-L-14", "laion2b_s32b_b82k", 2)) is None
    assert kinship(guide, public("ViT-B-32", "openai", 2)) is None


def test_weights_that_are_not_at_hand_leave_the_lineage(tmp_path):
    a, b = (Public(model="RN50", pretrained="yfcc15m", weights=str(tmp_path / n)) for n in "ab")
    assert "RN50 on yfcc15m" in kinship(a, b)


@pytest.fixture(scope="module")
def judged_by_the_guide(tmp_path_factory) -> tuple[Path, str]:
    """A run that is judged by its guide as well, in a folder, and its store's address."""
    folder = tmp_path_factory.mktemp("guide")
    suite = {
        **SMALL_SUITE,
        "judges": {
            "digits": {"kind": "classifier", "model": "digits-classifier-judge"},
            "guide": {"kind": "classifier", "model": "digits-classifier-guide"},
        },
        "metrics": {
            "accuracy": {"kind": "class-accuracy", "judge": "digits"},
            "pleased": {"kind": "class-accuracy", "judge": "guide"},
        },
        "samples": {"num": 40, "batch_size": 40, "tile": 20},
        "curve": None,
        "variants": {"matrix": {**SMALL_SUITE["variants"]["matrix"], "sampler": ["prior", "langevin"]}},
    }
    (folder / "suite.yaml").write_text(yaml.safe_dump(suite, sort_keys=False))
    run(load_suite(folder / "suite.yaml"), folder / "run", "cpu", store_url=str(folder / "store"))
    return folder / "run", str(folder / "store")


def test_the_record_says_so_and_sets_both_views_side_by_side(judged_by_the_guide):
    results = RunStore(judged_by_the_guide[0])
    for record in results.records():
        assert set(record.in_loop) == {"guide"}
        table = results.read_samples(record.cell.id)
        (gap,) = [score for score in record.scores if score.metric == "goodhart/target-probability"]
        probabilities = {
            score.judge: score.value
            for score in record.scores
            if score.title.startswith("Target probability")
        }
        assert gap.value == pytest.approx(probabilities["guide"] - probabilities["digits"], abs=1e-6)
        assert gap.value == pytest.approx(table["goodhart/target-probability"].mean(), abs=1e-6)
        assert gap.interval[0] <= gap.value <= gap.interval[1]
        assert -1 <= gap.details["rank_correlation"] <= 1
        for score in record.scores:
            assert is_ranked(score, record) == (score.judge == "digits" and score.better != "none")


def test_the_guides_opinion_is_labelled_and_never_bold(judged_by_the_guide):
    records = RunStore(judged_by_the_guide[0]).records()
    only_guide = tuple(
        replace(record, scores=tuple(s for s in record.scores if s.judge == "guide")) for record in records
    )
    renamed = [
        replace(record, scores=tuple(replace(s, metric=s.metric.split("@")[0]) for s in record.scores))
        for record in only_guide
    ]
    (group,) = groups(renamed)
    table = markdown_table(group)
    assert "(in-loop)" in table
    assert "**" not in table


def test_a_record_that_hides_its_guide_does_not_stand(judged_by_the_guide, tmp_path):
    from bench.artifacts import open_store

    run_dir, store = judged_by_the_guide
    assert all(not verdict.faults for verdict in verify(run_dir, open_store(store)))
    results = RunStore(run_dir)
    record = results.records()[0]
    try:
        results.write_record(replace(record, in_loop={}))
        faults = [fault for verdict in verify(run_dir, open_store(store)) for fault in verdict.faults]
        assert "in_loop.guide" in {fault.what for fault in faults}
    finally:
        results.write_record(record)


def test_gaps_leave_out_failed_samples():
    from bench.guards.goodhart import gaps
    from bench.statistics.design import Design
    from bench.types import Condition

    design = Design.of([Condition(id=str(k), kind="text") for k in range(6)])
    guide, judge = np.array([1.0, 2, 3, 4, 5, 0]), np.array([0.0, 1, 2, 2, 5, 9])
    ok = np.array([True] * 5 + [False])
    found = gaps({"m": guide}, {"m": judge}, {"m": "M"}, design, ok, guide="g", judge="j")
    assert found.scores[0].value == pytest.approx(np.mean([1, 1, 1, 2, 0]))
    assert (found.scores[0].n, found.scores[0].better) == (5, "none")
    assert np.isnan(found.per_sample["goodhart/m"][5])
    assert gaps({"m": guide}, {"n": judge}, {}, design, ok, guide="g", judge="j").scores == ()


def test_a_guide_inside_another_is_found_and_a_shared_tokenizer_is_no_kinship(tmp_path):
    inside = NestedConditioner.of({"kind": "clip", "model": "shapes-clip-judge", "views": 0})
    for guide in (ImageCondition(conditioner=inside), Summed(terms=(Term(conditioner=inside),))):
        assert "the guide's weights" in kinship(guide, ClipJudge())
        assert lineages(guide) == lineages(ClipJudge())
    files = [tmp_path / name for name in ("a.safetensors", "b.safetensors", "open_clip_config.json")]
    for file in files:
        file.write_bytes(file.name.encode())
    a, b = (ClipFiles(weights=str(file), config=str(files[2])) for file in files[:2])
    assert kinship(a, b) is None
    assert "the guide's weights" in kinship(a, a)
