"""Samplers that cheat: each must score badly or fail openly, whatever single number it was made to please."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from support import SMALL_SUITE
from torch import Tensor

from bench.artifacts import open_store
from bench.generators.base import Block, LatentSpace
from bench.runner import run
from bench.samplers.base import Problem, Sampler
from bench.store import Record, RunStore
from bench.suite import load_suite
from bench.verify import verify
from bench.worlds.digits import Digits


class Album:
    """A generator whose latent names a training image: what a sampler that looks up data amounts to."""

    resolution = 32

    def __init__(self):
        images = Digits().load("train", None).images(range(400))
        self.images = torch.from_numpy(images.copy()).float() / 127.5 - 1
        self.latent = LatentSpace(blocks=(Block(name="z", dim=1),), sample=lambda s: s.uniform("album", (1,)))

    def decode(self, z_ND: Tensor) -> Tensor:
        index = (z_ND[:, 0].clamp(0, 0.999) * len(self.images)).long()
        return self.images[index] + 0 * z_ND.sum()


@dataclass(frozen=True, kw_only=True)
class AlbumConfig:
    """Training images of the digits world, by number."""

    resolution: int = 32

    def load(self, device: torch.device) -> Album:
        return Album()


@dataclass(frozen=True, kw_only=True)
class OneImage(Sampler):
    """The one most convincing image of each class, for every seed."""

    candidates: int = 64

    def init(self, problem: Problem) -> Tensor:
        from bench.samplers.start import best_candidate
        from bench.streams import Streams

        same = Streams(torch.zeros_like(problem.streams.keys))
        prior = problem.generator.latent.prior
        return best_candidate(
            problem, lambda many: prior(same.splits([k + 1 for k in many])), self.candidates
        )

    def latent(self, problem: Problem, state: Tensor) -> Tensor:
        return state


@dataclass(frozen=True, kw_only=True)
class NotANumber(Sampler):
    """Latents that are not finite."""

    def init(self, problem: Problem) -> Tensor:
        return torch.full((len(problem), problem.generator.latent.dim), torch.nan)

    def latent(self, problem: Problem, state: Tensor) -> Tensor:
        return state


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("cheats")


@pytest.fixture(scope="module")
def records(folder: Path) -> dict[str, Record]:
    content: dict[str, Any] = copy.deepcopy(SMALL_SUITE)
    content["generators"]["album"] = {"kind": "python", "target": "samplers.test_cheats:AlbumConfig"}
    content["samplers"] |= {
        "one-image": {"kind": "python", "target": "samplers.test_cheats:OneImage"},
        "nan": {"kind": "python", "target": "samplers.test_cheats:NotANumber"},
        "best-of": {"kind": "best-of", "candidates": 8},
    }
    content["metrics"] |= {
        "diversity": {"kind": "diversity", "judge": "digits"},
        "memorisation": {"kind": "memorisation", "judge": "digits"},
        # Copies are looked for among what the generator could have learned by heart.
        "copies": {"kind": "memorisation", "judge": "digits", "split": "train"},
    }
    content["protocol"] = {"reference_split": "val", "num_reference": 400}
    content["samples"] = {**content["samples"], "num": 40, "tile": 8}
    content.pop("curve")
    honest = {"data": "digits", "generator": "vae", "conditioner": "class"}
    samplers = ["prior", "best-of", "one-image", "nan"]
    content["variants"] = {
        "matrix": [{**honest, "sampler": samplers}, {**honest, "generator": "album", "sampler": "best-of"}]
    }
    path = folder / "cheats.yaml"
    path.write_text(yaml.safe_dump(content, sort_keys=False))
    run(load_suite(path), folder / "run", "cpu", store_url=str(folder / "store"))
    return {f"{r.cell.generator}/{r.cell.sampler}": r for r in RunStore(folder / "run").records()}


def value(record: Record, metric: str) -> float:
    return next(score.value for score in record.scores if score.metric.split("/")[0] == metric)


def test_one_image_repeated_has_no_diversity(records):
    """FID is pleased with one good image per class (14; honest best of 8: 49, n = 40); diversity tells."""
    cheat, honest = records["vae/one-image"], records["vae/best-of"]
    assert value(cheat, "class-accuracy") >= value(honest, "class-accuracy")  # what it was made to please
    assert value(cheat, "diversity") < 1e-3 < 0.1 * value(honest, "diversity")


def test_the_condition_ignored_is_at_chance(records):
    assert (
        value(records["vae/prior"], "class-accuracy") < 0.3 < value(records["vae/best-of"], "class-accuracy")
    )


def test_what_is_not_a_number_fails_openly(records):
    record = records["vae/nan"]
    assert (record.status, record.scores) == ("failed", ())
    assert "not finite" in (record.error or {})["message"]


def test_training_images_are_recognised(records):
    cheat, honest = records["album/best-of"], records["vae/best-of"]
    assert value(cheat, "authenticity") > 0.3  # among validation images none is a copy
    assert value(cheat, "authenticity-train") == 0.0
    name = "nearest-real-distance-train"
    assert value(cheat, name) < 0.1 * value(honest, name)
    assert value(honest, "authenticity-train") > 0.1


def test_a_score_of_another_split_says_so_and_leaves_the_others_as_they_were(records):
    judged = [score for score in records["album/best-of"].scores if score.judge]
    train = [score for score in judged if score.metric.endswith("-train")]
    others = [score for score in judged if score not in train]
    assert [score.details for score in train] == 2 * [{"n_reference": 1297, "split": "train"}]
    assert {score.details["n_reference"] for score in others if score.metric == "fid"} == {400}
    assert len({score.protocol for score in train} | {score.protocol for score in others}) == 2
    assert records["album/best-of"].protocol["fields"]["num_reference"] == 400


def test_a_run_with_scores_of_another_split_is_verified(records, folder):
    verdicts = verify(folder / "run", open_store(str(folder / "store")), python=True)
    assert [fault for verdict in verdicts for fault in verdict.faults] == []
    assert any("stored scores" in verdict.stands for verdict in verdicts)
