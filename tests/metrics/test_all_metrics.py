"""Every metric end to end on the built-in worlds, each image decoded once and shown once to each network."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest
import yaml
from support import SMALL_SUITE

from bench import payload
from bench.assembly import Assembly
from bench.components import METRICS
from bench.runner import run
from bench.store import RunStore
from bench.suite import load_suite

NUM, REFERENCE = 40, 60
# Judges of published files stand in tests of their own; what they give, these give too.
METRICS_OF_ALL = {
    "fid": {"kind": "fid", "judge": "classes", "allow_small_n": True},
    "fid-infinity": {"kind": "fid-infinity", "judge": "classes", "points": 3, "allow_small_n": True},
    "kid": {"kind": "kid", "judge": "classes", "subsets": 3, "subset_size": 20},
    "kid-full": {"kind": "kid", "judge": "classes", "estimator": "full"},
    "cmmd": {"kind": "cmmd", "judge": "clip"},
    "prdc": {"kind": "prdc", "judge": "classes", "k": 3},
    "is": {"kind": "inception-score", "judge": "classes", "head": "shape", "splits": 2},
    "memorisation": {"kind": "memorisation", "judge": "classes"},
    "diversity": {"kind": "diversity", "judge": "classes"},
    "clip": {"kind": "clip-score", "judge": "clip"},
    "clip-heim": {"kind": "clip-score", "judge": "clip", "convention": "heim"},
    "aug": {"kind": "aug-clip", "judge": "clip"},
    "r": {"kind": "r-precision", "judge": "clip", "candidates": 5, "lists": 2},
    "similarity": {"kind": "image-similarity", "judge": "clip"},
    "accuracy": {"kind": "class-accuracy", "judge": "classes"},
    "attributes": {"kind": "attribute-accuracy", "judge": "classes"},
    "composition": {"kind": "composition-accuracy", "judge": "classes"},
    "cas": {"kind": "classification-score", "judge": "pixels", "steps": 3, "width": 4},
    "speed": {"kind": "speed"},
}
SUITE: dict[str, Any] = {
    **SMALL_SUITE,
    "name": "all-metrics",
    "data": {"shapes": {"kind": "shapes", "num_val": 100}},
    "generators": {"gan": {"kind": "gan", "model": "shapes-gan"}},
    "conditioners": {
        "text": {"kind": "clip", "model": "shapes-clip-guide", "views": 0},
        "image": {"kind": "image", "conditioner": {"kind": "clip", "views": 0}},
        "class": {"kind": "classifier", "model": "shapes-classifier-guide", "heads": ["shape", "color"]},
    },
    "samplers": {"langevin": {"kind": "langevin", "steps": 1}},
    "judges": {
        "classes": {"kind": "classifier", "model": "shapes-classifier-judge"},
        "clip": {"kind": "aug-clip", "model": "shapes-clip-judge", "views": 2},
        "pixels": {"kind": "pixels"},
    },
    "metrics": METRICS_OF_ALL,
    "protocol": {"reference_split": "val", "num_reference": REFERENCE},
    "samples": {"num": NUM, "batch_size": 20, "tile": 4, "shard": 16, "conditions": 10},
    "variants": {
        "matrix": {
            "data": "shapes",
            "generator": "gan",
            "conditioner": ["text", "class", "image"],
            "sampler": "langevin",
        }
    },
}
del SUITE["curve"], SUITE["translators"]


class Counting:
    """A judge that counts how often it was shown each image."""

    def __init__(self, judge: Any, seen: Counter[bytes]):
        self.judge, self.seen = judge, seen
        self.labelled = getattr(judge, "labelled", False)

    def readout(self, images: np.ndarray, conditions: Any = None) -> Any:
        self.seen.update(image.tobytes() for image in images)
        return self.judge.readout(images, conditions)


@pytest.fixture
def counts(monkeypatch: pytest.MonkeyPatch) -> dict[str, Counter[bytes]]:
    """Judge → image → how often shown, and under "decoded" file → how often decoded."""
    found: dict[str, Counter[bytes]] = {"decoded": Counter()}
    load = Assembly.judge

    def judge(self: Assembly, name: str) -> Any:
        return self.once(
            ("counting", name), lambda: Counting(load(self, name), found.setdefault(name, Counter()))
        )

    def decode(arrays: Any) -> np.ndarray:
        found["decoded"].update(payload.png_files(arrays))
        return decode_pngs(arrays)

    decode_pngs = payload.decode_pngs
    monkeypatch.setattr(Assembly, "judge", judge)
    monkeypatch.setattr(payload, "decode_pngs", decode)
    return found


def test_every_metric_in_one_run_from_one_pass_of_each_network(tmp_path, counts):
    assert {block["kind"] for block in METRICS_OF_ALL.values()} == set(METRICS), "a new metric belongs here"
    path, out, url = tmp_path / "all.yaml", tmp_path / "run", str(tmp_path / "store")

    # Drawn for one judge first, so that the others' images come from files.
    path.write_text(yaml.safe_dump({**SUITE, "metrics": {"fid": METRICS_OF_ALL["fid"]}}))
    assert run(load_suite(path), out, "cpu", store_url=url).num_failed == 0
    assert counts["decoded"].total() == 0
    for seen in counts.values():
        seen.clear()

    path.write_text(yaml.safe_dump(SUITE))
    assert run(load_suite(path), out, "cpu", store_url=url).num_failed == 0
    assert counts.pop("decoded").total() == 3 * NUM
    assert counts.pop("classes").total() == 0, "what it saw is stored"
    for name, seen in counts.items():
        cells = 2 if name == "pixels" else 3  # what classifies the classes has nothing to say of references
        assert seen.total() == cells * NUM + REFERENCE, name

    found: set[str] = set()
    for record in RunStore(out).records():
        scores = {score.metric: score for score in record.scores}
        found |= set(scores)
        assert all(np.isfinite(score.value) for score in record.scores)
        table = RunStore(out).read_samples(record.cell.id)
        for name in set(scores) & set(table.columns):
            mean = np.nanmean(table[name].to_numpy(float))
            assert mean == pytest.approx(scores[name].value, abs=1e-5), name
    assert found >= {
        "fid", "fid-infinity", "kid", "kid-1000", "kid@kid-full", "cmmd", "precision", "recall", "density",
        "coverage", "inception-score", "authenticity", "nearest-real-distance", "diversity", "clip-cosine",
        "clip-score/heim", "clip-score/heim-best", "aug-clip", "r-precision", "class-accuracy",
        "image-similarity", "target-probability", "attribute-accuracy", "classification-score",
        "seconds-per-image",
    }  # fmt: skip
    assert run(load_suite(path), out, "cpu", store_url=url).made == {}
