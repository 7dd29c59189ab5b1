"""Two metrics that give scores of one name in one cell."""

from __future__ import annotations

import yaml
from support import SMALL_SUITE

from bench.runner import run
from bench.store import RunStore
from bench.suite import load_suite


def test_guide_and_judge_are_told_apart(tmp_path):
    content = {
        **SMALL_SUITE,
        "judges": {
            **SMALL_SUITE["judges"],
            "guide": {"kind": "classifier", "model": "digits-classifier-guide"},
        },
        "metrics": {
            "accuracy": {"kind": "class-accuracy", "judge": "digits", "top": [3]},
            "in-loop": {"kind": "class-accuracy", "judge": "guide"},
        },
        "variants": {"matrix": {**SMALL_SUITE["variants"]["matrix"], "sampler": "tr0n"}},
    }
    (tmp_path / "suite.yaml").write_text(yaml.safe_dump(content))
    suite = load_suite(tmp_path / "suite.yaml")
    for _ in range(2):  # computed, then from the store
        assert run(suite, tmp_path / "run", "cpu", store_url=str(tmp_path / "store")).num_failed == 0
        (record,) = RunStore(tmp_path / "run").records()
        found = {score.metric: score for score in record.scores}
        assert found["class-accuracy"].judge == "digits"
        assert found["class-accuracy@in-loop"].judge == "guide"
        assert found["class-accuracy@in-loop"].title == "Class accuracy (in-loop)"
        assert found["class-accuracy"].value <= found["class-accuracy-top3"].value
        assert {score.metric for score in record.curve} >= {"class-accuracy", "class-accuracy@in-loop"}
        table = RunStore(tmp_path / "run").read_samples(record.cell.id)
        for name in ("class-accuracy", "class-accuracy@in-loop", "class-accuracy-top3", "target-probability"):
            assert abs(table[name].mean() - found[name].value) < 1e-6
