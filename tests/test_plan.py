"""Plans: cells, ids that change exactly with what determines the samples, shared artifacts, counted work."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from suite_examples import TOY, write

from bench.artifacts import open_store
from bench.assembly import Assembly
from bench.conditions import assign, class_conditions
from bench.errors import SuiteError
from bench.keys import canonical_json, content_key, slug
from bench.plan import Cell, Plan, plan
from bench.samplers.base import Problem
from bench.samplers.draw import draw
from bench.suite import load_suite
from bench.survey import Survey, survey

SCORING = """\
judges:
  pixels: {kind: python, target: "my_pkg.scoring:PixelJudge"}
metrics:
  level: {kind: python, target: "my_pkg.scoring:MeanLevel", args: {judge: pixels}}
  elsewhere: {kind: python, target: "my_pkg.scoring:MeanLevel", args: {judge: pixels}, data: [shapes]}
  prose:
    kind: python
    target: my_pkg.scoring:MeanLevel
    args: {judge: pixels, kinds_of_condition: [text]}
"""


def make(tmp_path, *overrides, text=TOY) -> Plan:
    return plan(load_suite(write(tmp_path, text), overrides))


def surveyed(tmp_path, *overrides, text=TOY) -> Survey:
    """What a store that holds nothing lacks."""
    suite = load_suite(write(tmp_path, text), overrides)
    return survey(
        Assembly(suite, torch.device("cpu")), plan(suite), open_store(str(tmp_path / "empty-store"))
    )


def cell(the_plan: Plan, variant: str) -> Cell:
    (found,) = (item for item in the_plan.cells if item.variant == variant)
    return found


def test_keys_are_canonical():
    assert content_key({"b": 1, "a": [1.5, None]}) == content_key({"a": [1.5, None], "b": 1})
    assert canonical_json({"b": "é", "a": 1}) == '{"a":1,"b":"\\u00e9"}'
    assert content_key({"a": 1}) == "1f8c00645b7df6ce"  # stored keys stay readable across versions
    assert content_key([1]) != content_key(["1"])
    assert (slug("Shapes-GAN/CLIP 2/tr0n"), slug("***")) == ("shapes-gan-clip-2-tr0n", "variant")


def test_cells_carry_everything_the_runner_needs(tmp_path):
    the_plan = make(tmp_path, text=TOY + SCORING)
    assert [item.variant for item in the_plan.cells] == [
        "linear/near/prior",
        "linear/near/langevin",
        "linear/near/tr0n",
        "stripes/near/prior",
        "stripes/near/langevin",
    ]
    found = cell(the_plan, "linear/near/tr0n")
    assert re.fullmatch(r"linear-near-tr0n-[0-9a-f]{8}", found.id)
    assert (found.data, found.condition_kind, found.translator) == ("targets", "class", "default")
    assert (found.num_samples, found.num_conditions, found.seed) == (12, 5, 24)
    assert found.metrics == ("level",)
    assert found.curve_steps == (0, 2, 4)  # 50 is beyond the sampler's own 4
    assert cell(the_plan, "linear/near/prior").curve_steps == (0,)
    assert found.config["sampler"]["steps"] == 4
    assert found.config["translator"]["num_pairs"] == 100
    plain = surveyed(tmp_path, text=TOY + SCORING).to_plain()
    assert json.loads(json.dumps(plain))["cells"][2]["id"] == found.id


@pytest.mark.parametrize(
    ("override", "changed"),
    [
        ("samples.batch_size=64", ()),
        ("description=other", ()),
        ("curve=null", ()),
        ("protocol.num_reference=7", ()),
        ("samplers.unused={kind: langevin}", ()),
        ("version=2", ()),
        ("seed=25", ("prior", "langevin", "tr0n")),
        ("samples.num=13", ("prior", "langevin", "tr0n")),
        ("samples.conditions=2", ("prior", "langevin", "tr0n")),
        ("data.targets.args.values=6", ("prior", "langevin", "tr0n")),
        ("conditioners.near.scale=2", ("prior", "langevin", "tr0n")),
        ("generators.linear.seed=1", ("prior", "langevin", "tr0n")),
        ("samplers.langevin.step_size=1", ("langevin",)),
        ("translators.default.noise=0.5", ("tr0n",)),
    ],
)
def test_an_id_changes_exactly_with_what_determines_the_samples(tmp_path, override, changed):
    before, after = make(tmp_path), make(tmp_path, override)
    differing = {
        name
        for name in ("prior", "langevin", "tr0n")
        if cell(before, f"linear/near/{name}").id != cell(after, f"linear/near/{name}").id
    }
    assert differing == set(changed)
    assert all(item.id.endswith(f"-{item.config_hash[:8]}") for item in after.cells)


def test_writing_a_default_out_or_renaming_leaves_the_hash(tmp_path):
    before = cell(make(tmp_path), "linear/near/langevin")
    written = cell(make(tmp_path, "samplers.langevin.step_size=5"), "linear/near/langevin")
    assert written.id == before.id
    renamed = make(
        tmp_path, text=TOY.replace("langevin: {", "walk: {").replace("prior, langevin", "prior, walk")
    )
    assert cell(renamed, "linear/near/walk").config_hash == before.config_hash


def test_ids_and_keys_are_the_same_in_another_process(tmp_path):
    path = write(tmp_path)
    store = str(tmp_path / "empty-store")
    command = [sys.executable, "-m", "bench", "plan", str(path), "--store", store, "--json"]
    root = Path(__file__).parents[1]
    environment = {
        "PYTHONPATH": f"{root}:{root / 'tests' / 'external_component'}",
        "PYTHONHASHSEED": "7",
        "TR0N_BENCH_CACHE": str(tmp_path / "cache"),
    }
    result = subprocess.run(command, capture_output=True, text=True, env=environment, check=True)
    here = json.loads(json.dumps(surveyed(tmp_path).to_plain()))
    assert json.loads(result.stdout) == here
    assert all(item["key"] for item in here["artifacts"])  # no metric here, so no score


def test_two_cells_of_one_configuration_are_refused(tmp_path):
    text = TOY.replace("data:\n", 'data:\n  again: {kind: python, target: "my_pkg.my_module:Targets"}\n')
    with pytest.raises(
        SuiteError, match=r"'linear/near/prior' on data 'targets' and .* on data 'again' have the"
    ):
        make(
            tmp_path,
            text=text.replace("{data: targets, generator: [l", "{data: [targets, again], generator: [l"),
        )


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [((), 5), (("samples.conditions=3",), 3), (("samples.conditions=9",), 5), (("samples.num=4",), 4)],
)
def test_numbers_of_class_conditions(tmp_path, overrides, expected):
    assert {item.num_conditions for item in make(tmp_path, *overrides).cells} == {expected}


def test_text_conditions_are_one_per_sample_or_as_many_as_asked(tmp_path):
    captioned = "data.targets.args.has_captions=true", "variants.matrix.0.conditioner=text"
    assert {item.num_conditions for item in make(tmp_path, *captioned).cells} == {12}
    assert {item.num_conditions for item in make(tmp_path, *captioned, "samples.conditions=3").cells} == {3}


def test_artifacts_come_once_and_in_order_of_need(tmp_path):
    text = TOY.replace("tr0n:\n    kind", "other: {kind: tr0n, steps: 9}\n  tr0n:\n    kind") + SCORING
    text = text.replace("langevin, tr0n]", "langevin, tr0n, other]")
    found = surveyed(tmp_path, text=text)
    kinds = [item.kind for item in found.artifacts]
    assert {kind: kinds.count(kind) for kind in kinds} == {
        "pairs": 2,  # one per generator; 'other' on stripes is not excluded
        "translator": 2,
        "reference": 1,
        "samples": 7,
        "images": 7,
        "snapshots": 7,
        "readout": 14,  # of the final images and of the snapshots
        "score": 7,
    }
    made: set[str] = set()
    places: set[tuple[str, str | None, str]] = set()
    for item in found.artifacts:
        assert set(item.needs) <= made, item
        place = (item.kind, item.key, "" if item.key else item.name)
        assert place not in places
        places.add(place)
        made.add(str(item.key))
    assert {item.name for item in found.artifacts if item.key is None} == {
        f"{one.id}/level"
        for one in found.plan.cells  # depends on which samples fail
    }
    translator = next(item for item in found.artifacts if item.name == "linear/near/default")
    assert len(translator.cells) == 2
    assert translator.work == {"translator_steps": 10}
    assert next(item for item in found.artifacts if item.kind == "pairs").work["generator_forwards"] == 100


def test_pairs_are_shared_by_translators_that_differ_in_training_only(tmp_path):
    text = TOY.replace("sampler: [prior, langevin, tr0n]", "sampler: tr0n, translator: [default, wide]")
    text = text.replace(
        "translators:\n", "translators:\n  wide: {kind: tr0n, num_pairs: 100, components: 3}\n"
    )
    found = surveyed(tmp_path, "variants.exclude=null", "variants.matrix.0.generator=linear", text=text)
    kinds = [item.kind for item in found.artifacts]
    assert (kinds.count("pairs"), kinds.count("translator")) == (1, 2)


def test_readouts_depend_on_judges_and_samples_do_not(tmp_path):
    def keys(kind: str, *overrides: str) -> list[str | None]:
        found = surveyed(tmp_path, *overrides, text=TOY + SCORING).artifacts
        return [item.key for item in found if item.kind == kind]

    change = "judges.pixels.args={only: [target]}"
    assert keys("samples") == keys("samples", change)
    assert not set(keys("readout")) & set(keys("readout", change))
    assert keys("reference") != keys("reference", change)
    assert keys("readout") == keys("readout", "protocol.num_reference=7")


@pytest.mark.parametrize(
    ("sampler", "overrides"),
    [("prior", ()), ("langevin", ()), ("langevin", ("samplers.langevin.candidates=3",))],
)
@pytest.mark.parametrize("generator", ["linear", "stripes"])
def test_estimated_work_is_what_a_run_counts(tmp_path, sampler, overrides, generator):
    suite = load_suite(write(tmp_path), overrides)
    found = cell(plan(suite), f"{generator}/near/{sampler}")
    device = torch.device("cpu")
    loaded = suite.generators[generator].config.load(device)
    conditioner = suite.conditioners["near"].config.load(device)
    source = suite.data["targets"].config
    given = assign(class_conditions(source.attributes, ["target"]), found.num_samples, suite.seed)
    problem = Problem(
        loaded, conditioner, conditioner.embed(given.conditions), given.streams(0, len(given), device)
    )
    drawn = draw(suite.samplers[sampler].config, problem)
    assert tuple(drawn.images.shape) == (12, 3, 8, 8)
    assert torch.isfinite(drawn.images).all()
    counted = {key: problem.evaluations[key] for key in found.work}
    assert counted == found.work


def test_views_multiply_f_and_a_sampler_may_know_better(tmp_path):
    captioned = "data.targets.args.has_captions=true", "variants.matrix.0.conditioner=text"
    the_plan = make(tmp_path, *captioned, "conditioners.text.views=7")
    assert cell(the_plan, "linear/text/langevin").work == {
        "generator_forwards": 12 * 3 + 12,
        "generator_backwards": 12 * 3,
        "auxiliary_forwards": 12 * 3 * 7,
        "auxiliary_backwards": 12 * 3 * 7,
    }
    plain = make(tmp_path, *captioned, "conditioners.text.views=0")
    assert cell(plain, "linear/text/langevin").work["auxiliary_forwards"] == 12 * 3
    own = make(tmp_path, "samplers.prior={kind: python, target: 'my_pkg.scoring:Frugal'}")
    assert cell(own, "linear/near/prior").work == {"generator_forwards": 84, "auxiliary_forwards": 12}
    both = surveyed(tmp_path, "samplers.prior={kind: python, target: 'my_pkg.scoring:Frugal'}").work
    assert both["translator_steps"] == 10
    assert both["generator_forwards"] == sum(item.work["generator_forwards"] for item in own.cells) + 100


def test_planning_reads_no_weights(tmp_path, monkeypatch):
    import safetensors

    def refuse(*arguments, **options):
        raise AssertionError("a weight file was opened")

    monkeypatch.setattr(safetensors, "safe_open", refuse)
    monkeypatch.setattr(torch, "load", refuse)
    text = TOY.replace("resolution: 8", "resolution: 32").replace("values: 5", "values: 5, resolution: 32")
    text = text.replace("contrast: 0.5", "resolution: 32").replace(
        "linear: {kind: linear, dim: 4, resolution: 32}",
        "linear: {kind: gan, weights: /nowhere/absent.safetensors}",
    )
    found = surveyed(tmp_path, text=text)
    assert len(found.plan.cells) == 5
    assert len(found.problems) == 3
    assert all("absent.safetensors' is missing" in problem for problem in found.problems.values())
