"""Suites: what loads, what is refused and how the refusal reads."""

from __future__ import annotations

import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from suite_examples import TOY, line_of, write

from bench.components import component_class
from bench.errors import SuiteError
from bench.suite import Suite, load_suite, suite_from_plain
from bench.suite.blocks import field_names
from bench.suite.yaml import dump_yaml, parse_yaml


def load(tmp_path, text=TOY, *overrides) -> Suite:
    return load_suite(write(tmp_path, text), overrides)


def refusal(tmp_path, text=TOY, *overrides) -> str:
    with pytest.raises(SuiteError) as caught:
        load(tmp_path, text, *overrides)
    return str(caught.value).replace(f"{tmp_path}/", "")


# --- what loads ----------------------------------------------------------------------------------


def test_components_are_typed_and_defaults_filled(tmp_path):
    suite = load(tmp_path)
    tr0n = suite.samplers["tr0n"]
    assert type(tr0n.config) is component_class("samplers", "tr0n")
    assert tr0n.config.steps == 4
    assert tr0n.raw["kind"] == "tr0n"
    assert tr0n.raw["steps"] == 4
    assert tr0n.raw["momentum"] == tr0n.config.momentum
    assert suite.generators["stripes"].config.contrast == 0.5
    assert suite.generators["stripes"].raw == {
        "kind": "python",
        "target": "my_pkg.my_module:build",
        "args": {"contrast": 0.5},
    }
    assert suite.data["targets"].raw["args"]["num"] == 20  # a dataclass target has its defaults written out
    assert (suite.seed, suite.protocol.resolution, suite.samples.num, suite.curve.num) == (24, 8, 12, 6)
    assert suite.samples.conditions is None


def test_matrix_exclude_and_include(tmp_path):
    text = (
        TOY
        + "  include:\n"
        + "    - {data: targets, generator: stripes, conditioner: near, sampler: tr0n, name: mine}\n"
    )
    suite = load(tmp_path, text)
    assert [variant.label for variant in suite.variants] == [
        "linear/near/prior",
        "linear/near/langevin",
        "linear/near/tr0n",
        "stripes/near/prior",
        "stripes/near/langevin",
        "mine",
    ]
    assert [variant.translator for variant in suite.variants] == [
        None,
        None,
        "default",
        None,
        None,
        "default",
    ]


def test_a_translator_is_dropped_where_unused_and_repeats_collapse(tmp_path):
    text = TOY.replace("translators:\n", "translators:\n  other: {kind: tr0n, num_pairs: 7, steps: 5}\n")
    text = text.replace(
        "sampler: [prior, langevin, tr0n]", "sampler: [prior, tr0n], translator: [default, other]"
    )
    suite = load(tmp_path, text)
    assert [variant.label for variant in suite.variants] == [
        "linear/near/prior",
        "linear/near/tr0n/default",
        "linear/near/tr0n/other",
        "stripes/near/prior",
    ]


def test_the_only_translator_needs_no_name(tmp_path):
    assert load(tmp_path, TOY.replace("default: {", "mine: {")).variants[2].translator == "mine"


def test_overrides_change_add_and_replace(tmp_path):
    suite = load(
        tmp_path,
        TOY,
        "samplers.tr0n.step_size=1e-2",
        "samples.num=7",
        "curve=null",
        "generators.extra={kind: linear, resolution: 8}",
        "variants.matrix.0.generator.1=extra",
        "translators.default.captioner.model=mine",
    )
    assert suite.samplers["tr0n"].config.step_size == 0.01
    assert suite.samples.num == 7
    assert suite.curve is None
    assert suite.variants[-1].generator == "extra"
    assert suite.translators["default"].config.captioner.model == "mine"


def test_environment_variables_expand_in_files_and_overrides(tmp_path, monkeypatch):
    monkeypatch.setenv("WEIGHTS", "/models")
    text = TOY.replace("text: {kind: clip}", "text: {kind: clip, weights: '${WEIGHTS}/a.safetensors'}")
    assert load(tmp_path, text).conditioners["text"].config.weights == "/models/a.safetensors"
    suite = load(tmp_path, TOY, "conditioners.text.weights=${WEIGHTS}/b.safetensors")
    assert suite.conditioners["text"].config.weights == "/models/b.safetensors"


# --- round trips ---------------------------------------------------------------------------------


def test_resolved_suites_load_again_as_yaml_and_json(tmp_path, monkeypatch):
    monkeypatch.setenv("ODD", "${NOT} a variable")
    suite = load(tmp_path, TOY, "description=${ODD}", "samples.conditions=3")
    assert suite.description == "${NOT} a variable"
    assert load(tmp_path, suite.to_yaml()) == suite
    assert load(tmp_path, json.dumps(suite.resolved())) == suite
    assert suite_from_plain(suite.resolved(), "memory") == suite
    assert load(tmp_path, suite.to_yaml()).resolved() == suite.resolved()


settings_strategy = st.fixed_dictionaries(
    {
        "seed": st.integers(0, 2**63 - 1),
        "description": st.text(st.characters(exclude_categories=["Cs"]), max_size=30),
        "samplers.tr0n.steps": st.integers(1, 10**9),
        "samplers.tr0n.step_size": st.floats(1e-300, 1e300),
        "samplers.tr0n.clip_norm": st.none() | st.floats(1e-6, 1e6),
        "samplers.tr0n.start": st.sampled_from(["sample", "argmax_mean", "mixture_mean"]),
        "conditioners.text.weights": st.none()
        | st.text(st.characters(exclude_categories=["Cs"]), max_size=9),
        "samples.num": st.integers(1, 10**6),
        "samples.conditions": st.none() | st.integers(1, 100),
        "curve.steps": st.lists(st.integers(0, 500), min_size=1, max_size=5),
    }
)


@given(settings_strategy)
@settings(max_examples=40, deadline=None)
def test_any_valid_suite_survives_a_round_trip(changes):
    plain = _toy().resolved()
    for path, value in changes.items():
        *parents, last = path.split(".")
        node = plain
        for part in parents:
            node = node[part]
        node[last] = value.replace("${", "$${") if isinstance(value, str) else value
    suite = suite_from_plain(plain, "memory")
    assert suite.description == changes["description"]
    assert suite.samplers["tr0n"].config.step_size == changes["samplers.tr0n.step_size"]
    for text in (dump_yaml(suite.resolved()), json.dumps(suite.resolved())):
        again = suite_from_plain(parse_yaml(text, "again").data, "again")
        assert again == suite
        assert again.resolved() == suite.resolved()


def _toy() -> Suite:
    import yaml

    return suite_from_plain(yaml.safe_load(TOY), "toy")


# --- unknown keys --------------------------------------------------------------------------------

BLOCKS = {
    (): field_names(Suite),
    ("samplers", "tr0n"): [*field_names(component_class("samplers", "tr0n")), "kind"],
    ("data", "shapes"): [*field_names(component_class("data", "shapes")), "kind"],
    ("generators", "stripes"): ["kind", "target", "args"],
    ("generators", "stripes", "args"): ["resolution", "contrast"],
    ("samples",): ["num", "batch_size", "tile", "conditions", "condition"],
    ("variants",): ["matrix", "exclude", "include"],
}
BLOCK_TEXT = TOY.replace("samples: {num: 12, batch_size: 5}", "samples:\n  num: 12")


@given(
    block=st.sampled_from(list(BLOCKS)),
    key=st.from_regex(r"[a-z_]{1,14}", fullmatch=True),
    value=st.sampled_from(["3", "text", "[1]", "{a: 1}", "null"]),
)
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_an_unknown_key_is_always_refused_with_key_and_line(tmp_path, block, key, value):
    if key in BLOCKS[block]:
        return
    lines = BLOCK_TEXT.splitlines()
    at = 0
    for depth, part in enumerate(block):
        at = next(i for i in range(at, len(lines)) if lines[i].startswith("  " * depth + f"{part}:")) + 1
    lines.insert(at, "  " * len(block) + f"{key}: {value}")
    message = refusal(tmp_path, "\n".join(lines) + "\n")
    if block == ("generators", "stripes", "args"):
        assert f"'{key}'" in message  # a function's own signature names it
        assert message.startswith(f"toy.yaml:{line_of(TOY, '    args:')}: generators.stripes.args: ")
    else:
        assert message.startswith(f"toy.yaml:{at + 1}: {'.'.join((*block, key))}: unknown ")


@pytest.mark.parametrize(
    ("old", "new", "at", "key", "says"),
    [
        (
            "steps: 4",
            "step: 4",
            "step: 4",
            "samplers.tr0n.step",
            "Did you mean 'steps'? Fields: steps, step_size",
        ),
        (
            "kind: tr0n\n",
            "kind: tron\n",
            "kind: tron",
            "samplers.tr0n.kind",
            "Did you mean 'tr0n'? Allowed: prior",
        ),
        (
            "resolution: 32",
            "resolution: 48",
            ": 48",
            "data.shapes.resolution",
            "found 48; input should be 32 or 64",
        ),
        (
            "resolution: 32",
            "resolution: '32'",
            "'32'",
            "data.shapes.resolution",
            'found "32"; input should be 32',
        ),
        (
            "steps: 4",
            "steps: true",
            "true",
            "samplers.tr0n.steps",
            "found true; input should be a valid integer",
        ),
        (
            "steps: 4",
            "steps: 4.5",
            "4.5",
            "samplers.tr0n.steps",
            "found 4.5; input should be a valid integer",
        ),
        ("steps: 4", "steps: 0", "steps: 0", "samplers.tr0n.steps", "steps must be at least 1, got 0"),
        ("kind: shapes\n", "kinds: shapes\n", "  shapes:", "data.shapes.kind", "is missing"),
        ("contrast: 0.5", "contrast: 5", "args:\n", "generators.stripes.args", "must be in (0, 1], got 5"),
        ("seed: 24", "seed: -1", "seed: -1", "seed", "found -1; input should be greater than or equal to 0"),
        ("seed: 24", "sead: 24", "sead", "sead", "Did you mean 'seed'?"),
        ("name: toy", "name: a/b", "name: a/b", "name", "should match pattern"),
        ("name: toy", "Name: toy", "Name", "Name", "Did you mean 'name'?"),
        ("  prior: {", "  a.b: {", "a.b", "samplers.a.b", "letters, digits, '-' and '_' only"),
    ],
)
def test_errors_name_line_key_and_remedy(tmp_path, old, new, at, key, says):
    assert TOY.count(old) == 1
    text = TOY.replace(old, new)
    number = text[: text.index(at.replace("args:\n", "    args:\n"))].count("\n") + 1
    message = refusal(tmp_path, text)
    assert message.startswith(f"toy.yaml:{number}: {key}: ")
    assert says in message


def test_a_missing_name_and_missing_variants_are_told(tmp_path):
    assert "name: is missing; a suite needs it" in refusal(tmp_path, TOY.replace("name: toy\n", ""))
    assert "variants: a suite needs variants" in refusal(tmp_path, TOY[: TOY.index("variants:")])
    assert "name: is missing" in refusal(tmp_path, "")
    assert "a suite is a mapping of keys: name" in refusal(tmp_path, "- 1\n")


FID = (
    "judges:\n  seen: {kind: classifier}\nmetrics:\n  fid: {kind: fid, judge: seen, data: [shapes]}\n"
    "variants:\n  include:\n"
    "    - {data: shapes, generator: gan, conditioner: text, sampler: prior}\nsamples:"
)


def test_few_samples_are_refused_unless_the_suite_takes_the_blame(tmp_path):
    text = TOY[: TOY.index("variants:")].replace("samples:", FID).replace("resolution: 8, num", "num")
    text = text.replace("generators:", "generators:\n  gan: {kind: gan, model: shapes-gan}")
    message = refusal(tmp_path, text)
    assert message.startswith(f"toy.yaml:{line_of(text, 'kind: fid')}: metrics.fid: is FID of 12 samples")
    assert "Raise samples.num, or set metrics.fid.allow_small_n: true" in message
    assert "curve.num" in refusal(tmp_path, text, "samples.num=5000")
    enough = load(tmp_path, text, "samples.num=2048", "curve.num=2048")
    allowed = load(tmp_path, text, "metrics.fid.allow_small_n=true")
    assert suite_from_plain({**allowed.resolved(), "metrics": enough.resolved()["metrics"]}, "stored")


# --- overrides -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("override", "says"),
    [
        ("samplers.tr0m.steps=1", "the suite has no 'tr0m' in samplers. Did you mean 'tr0n'?"),
        ("sample.num=1", "unknown key 'sample'. Did you mean 'samples'?"),
        ("samplers.tr0n.step_sise=1", "unknown field of kind 'tr0n'. Did you mean 'step_size'?"),
        ("samples.num=many", 'samples.num: found "many"; input should be a valid integer'),
        ("samples.num=0", "samples.num: found 0; input should be greater than or equal to 1"),
        ("curve.steps.4=1", "'curve.steps' is a list of 4; give an index from 0 to 3, found '4'"),
        ("curve.steps.x=1", "give an index from 0 to 3, found 'x'"),
        ("seed.x=1", "'seed' is 24, which holds no key 'x'"),
        ("samples", "write path.to.key=value"),
        ("samples..num=1", "write path.to.key=value"),
        ("samples.num=[1", "not valid YAML"),
        ("description=${ABSENT_VARIABLE}", "environment variable 'ABSENT_VARIABLE' is not set"),
    ],
)
def test_wrong_overrides_name_set_and_the_nearest_key(tmp_path, override, says):
    message = refusal(tmp_path, TOY, override)
    assert message.startswith(f"--set {override}")
    assert says in message
