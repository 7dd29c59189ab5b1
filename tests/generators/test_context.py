"""Generators that see the condition or have noise of their own; samplers do not know."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest
import torch
import yaml
from support import SMALL_SUITE, Tinted

from bench.artifacts import open_store
from bench.certify import certify
from bench.components import component_class
from bench.conditioners.classifier import Classifier
from bench.errors import SuiteError
from bench.report.tables import groups, phase_table
from bench.runner import run
from bench.samplers.base import Problem
from bench.samplers.draw import draw_tiled
from bench.store import RunStore
from bench.streams import Streams
from bench.suite import load_suite
from bench.translator.config import Tr0nTranslator
from bench.translator.pairs import synthesize
from bench.types import Condition

CPU = torch.device("cpu")


def tinted_suite(folder, samplers, **args):
    generators = {"tinted": {"kind": "python", "target": "support:Tinted", "args": args}}
    matrix = {**SMALL_SUITE["variants"]["matrix"], "generator": "tinted", "sampler": samplers}
    content = {**SMALL_SUITE, "generators": generators, "variants": {"matrix": matrix}}
    path = folder / "tinted.yaml"
    path.write_text(yaml.safe_dump(content, sort_keys=False))
    return load_suite(path)


def problem(index) -> Problem:
    """Samples of digits 0 … 9 in turn, with the context that belongs to them."""
    generator, conditioner = Tinted().load(CPU), Classifier().load(CPU)
    conditions = [Condition(id=str(i), kind="class", labels={"digit": str(i % 10)}) for i in index]
    streams = Streams.from_seed(20, "tinted")[torch.tensor(index)]
    return Problem(
        generator,
        conditioner,
        conditioner.embed(conditions),
        streams,
        context=generator.context(conditions, streams),
    )


def test_a_run_gives_every_sample_its_own_condition_and_noise(tmp_path):
    suite = tinted_suite(tmp_path, ["prior", "langevin"])
    store = str(tmp_path / "store")
    assert run(suite, tmp_path / "run", "cpu", store_url=store).num_failed == 0
    results = RunStore(tmp_path / "run")
    for cell in results.read_run()["cells"]:
        record = results.read_record(cell)
        assert record.timing.phase_s["context"] > 0
        assert record.notes["generator"] == {"operators": "reference"}
        scores = {score.metric: score.value for score in record.scores}
        per_phase = [scores[f"seconds-per-image/{p}"] for p in ("context", "translate", "refine", "decode")]
        assert scores["seconds-per-image"] == pytest.approx(sum(per_phase))
        images = results.read_images(cell).astype(float) / 127.5 - 1
        digits = np.array([i % 10 for i in range(len(images))])
        # z moves a channel by at most 0.2, the noise pattern a pixel by 0.1; the digit sets the middle.
        off = images.mean((1, 2, 3)) - 0.5 * (digits / 4.5 - 1)
        assert np.abs(off).max() < 0.22
        patterns = images - images.mean((2, 3), keepdims=True)
        assert np.abs(patterns[0] - patterns[10]).max() > 0.1, "same digit, another sample's noise"
    (group,) = groups(results.records())
    assert "| context | translate | refine |" in phase_table(group)
    without = [replace(r, timing=replace(r.timing, phase_s={"decode": 1.0})) for r in group.records]
    assert "context" not in phase_table(replace(group, records=tuple(without)))
    for certified in certify(suite, tmp_path / "run", CPU, open_store(store), num=5):
        assert certified.problem == ""
        assert certified.certificate["same_tile"]["largest_pixel_difference"] == 0


def test_context_rows_follow_their_samples_through_tiles():
    sampler = component_class("samplers", "langevin")(steps=2, step_size=0.3, momentum=0.5)
    order = [7, 2, 19, 11, 4]
    together = draw_tiled(sampler, problem(order), tile=4, index=order)
    for position, i in enumerate(order):
        alone = draw_tiled(sampler, problem([i]), tile=4, index=[i])
        assert torch.equal(alone.images[0], together.images[position])


def test_pairs_of_a_generator_that_can_do_without_conditions():
    config = Tr0nTranslator(num_pairs=6)
    conditioner = Classifier().load(CPU)
    pairs = synthesize(Tinted(needs_conditions=False).load(CPU), conditioner, config, CPU)
    assert pairs.latents.shape == (6, 3)
    part = synthesize(Tinted(needs_conditions=False).load(CPU), conditioner, config, CPU, start=2, stop=4)
    assert torch.equal(part.conditions, pairs.conditions[2:4])
    with pytest.raises(SuiteError, match="needs a condition"):
        synthesize(Tinted().load(CPU), conditioner, config, CPU)


def test_what_cannot_work_is_refused_when_planning(tmp_path):
    says = "generator 'tinted' makes no image without a condition, so no synthetic pairs can be drawn"
    with pytest.raises(SuiteError, match=re.escape(says)):
        tinted_suite(tmp_path, ["tr0n"])
    tinted_suite(tmp_path, ["tr0n"], needs_conditions=False)
    with pytest.raises(SuiteError, match="generator 'tinted' takes text conditions, and conditioner 'class'"):
        tinted_suite(tmp_path, ["prior"], kinds=["text"])
