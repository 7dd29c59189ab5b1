"""Suites: combinations that cannot work, metrics without judges, targets that cannot be used."""

from __future__ import annotations

import sys

import pytest
import suite_examples
from suite_examples import TOY, line_of, write

from bench.components import TABLES
from bench.errors import SuiteError
from bench.suite import Suite, load_suite


def load(tmp_path, text=TOY, *overrides) -> Suite:
    return load_suite(write(tmp_path, text), overrides)


def refusal(tmp_path, text=TOY, *overrides) -> str:
    with pytest.raises(SuiteError) as caught:
        load(tmp_path, text, *overrides)
    return str(caught.value).replace(f"{tmp_path}/", "")


# --- combinations --------------------------------------------------------------------------------


def combination(tmp_path, text=TOY, *overrides) -> str:
    """The refusal of the matrix's first entry."""
    message = refusal(tmp_path, text, *overrides)
    prefix = f"toy.yaml:{line_of(text, '- {data:')}: variants.matrix[0]: "
    assert message.startswith(prefix), message
    return message.removeprefix(prefix)


def test_a_generator_of_another_size_than_the_protocol(tmp_path):
    message = combination(tmp_path, TOY, "generators.linear.resolution=16")
    assert message == (
        "generator 'linear' makes 16 px images and the protocol takes 8 px. Set protocol.resolution, or use "
        "a generator that fits: stripes."
    )


def test_data_of_another_size_than_the_protocol(tmp_path):
    message = combination(tmp_path, TOY, "variants.matrix.0.data=shapes")
    assert "data 'shapes' has 32 px images and the protocol takes 8 px" in message


@pytest.mark.parametrize("override", ["samples.condition=text", "variants.matrix.0.condition=text"])
def test_a_text_condition_for_a_class_conditioner(tmp_path, override):
    text = TOY.replace("near: {kind: quadratic, resolution: 8}", "near: {kind: classifier}")
    message = combination(tmp_path, text, override)
    assert message == (
        "a text condition cannot be given to conditioner 'near' (kind 'classifier'), which takes class "
        "conditions. Remove 'condition', or use a conditioner for text: text."
    )


def test_a_classifier_on_data_without_its_heads(tmp_path):
    override = "conditioners.near={kind: classifier, heads: [tarjet]}"
    message = combination(tmp_path, TOY, override)
    assert "data 'targets' does not fit conditioner 'near': it has no attribute 'tarjet'." in message
    assert "Did you mean 'target'?" in message


def test_text_conditions_on_data_without_captions(tmp_path):
    message = combination(tmp_path, TOY, "variants.matrix.0.conditioner=text")
    assert "it has no captions to take text conditions from" in message


def test_a_sampler_on_conditions_that_it_does_not_take(tmp_path):
    message = combination(tmp_path, TOY, "samplers.prior={kind: python, target: 'my_pkg.scoring:TextOnly'}")
    assert message.startswith("sampler 'prior' takes text conditions, and conditioner 'near' makes class")


def test_a_sampler_without_the_translator_it_needs(tmp_path):
    message = combination(tmp_path, TOY, "translators=null")
    assert "sampler 'tr0n' needs a translator, and the suite declares none" in message
    two = "translators={a: {kind: tr0n}, b: {kind: tr0n}}"
    assert "several fit (a, b)" in combination(tmp_path, TOY, two)


@pytest.mark.parametrize("role", ["data", "generator", "conditioner", "sampler", "translator"])
def test_an_unknown_name_in_a_variant(tmp_path, role):
    message = refusal(tmp_path, TOY, f"variants.matrix.0.{role}=nobody")
    assert f"variants.matrix[0].{role}: the suite has no 'nobody' in " in message
    assert "Declared: " in message


def test_excluding_everything_or_by_nothing(tmp_path):
    assert "no variant is left" in refusal(tmp_path, TOY, "variants.exclude=[{data: targets}]")
    assert "an empty exclude drops everything" in refusal(tmp_path, TOY, "variants.exclude=[{}]")
    assert "the suite has no 'tr0m' in samplers" in refusal(
        tmp_path, TOY, "variants.exclude=[{sampler: tr0m}]"
    )


def test_two_variants_under_one_label(tmp_path):
    same = "data: targets, generator: linear, conditioner: near, sampler: prior"
    include = f"variants.include=[{{{same}, num_samples: 3}}]"
    message = refusal(tmp_path, TOY, include)
    assert "called 'linear/near/prior' already; they differ in num_samples" in message
    assert len(load(tmp_path, TOY, include.replace("num_samples", "name: few, num_samples")).variants) == 6


def test_num_samples_below_one(tmp_path):
    message = refusal(tmp_path, TOY, "variants.matrix.0.num_samples=0")
    assert "variants.matrix[0].num_samples: found 0; input should be greater than or equal to 1" in message


METRICS = """\
judges:
  pixels: {kind: python, target: "my_pkg.scoring:PixelJudge"}
metrics:
  level:
    kind: python
    target: my_pkg.scoring:MeanLevel
    args: {judge: pixels}
    data: [targets]
"""


def test_metrics_and_judges(tmp_path):
    suite = load(tmp_path, TOY + METRICS)
    assert suite.metrics["level"].data == ("targets",)
    assert load(tmp_path, suite.to_yaml()) == suite
    cases = {
        "metrics.level.args.judge=pixel": "metrics.level.judge: the suite has no judge 'pixel'. Did you mean",
        "metrics.level.args.judge=null": "mean level needs a judge and found none. Declared: pixels.",
        "metrics.level.data=[target]": "metrics.level.data[0]: the suite has no data 'target'. Did you mean",
        "metrics.level.data=[]": "metrics.level.data: found an empty list",
        "metrics.level.data=3": "metrics.level.data: found 3; input should be a valid array",
    }
    for override, says in cases.items():
        assert says in refusal(tmp_path, TOY + METRICS, override)


def test_a_judge_on_data_that_it_cannot_judge(tmp_path):
    override = "judges.pixels.args={only: [digit]}"
    message = combination(tmp_path, TOY + METRICS, override)
    assert "metric 'level' would use judge 'pixels' on data 'targets': it has no attribute 'digit'" in message
    assert "Restrict the metric with metrics.level.data" in message


# --- kind: python --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("block", "says"),
    [
        ("{kind: python}", "generators.stripes.target: is missing; kind 'python' needs it"),
        ("{kind: python, target: my_pkg.my_module}", "is not an import path. Write 'package.module:name'"),
        ("{kind: python, target: 'no_such_pkg:build'}", "cannot import 'no_such_pkg'"),
        ("{kind: python, target: 'my_pkg.my_module:bild'}", "has no 'bild'. Did you mean 'build'?"),
        (
            "{kind: python, target: 'my_pkg.my_module:NOT_CALLABLE'}",
            "is a int; it must be a class or a function",
        ),
        (
            "{kind: python, target: 'my_pkg.my_module:build', args: {size: 3}}",
            "unexpected keyword argument 'size'",
        ),
        (
            "{kind: python, target: 'my_pkg.my_module:Stripes', args: {contrats: 1}}",
            "generators.stripes.args.contrats: unknown field of 'my_pkg.my_module:Stripes'. Did you mean",
        ),
        ("{kind: python, target: 'my_pkg.my_module:Stripes', args: {contrast: high}}", 'found "high"'),
        ("{kind: python, target: 'my_pkg.my_module:broken'}", "raised RuntimeError: out of stripes"),
        (
            "{kind: python, target: 'my_pkg.my_module:incomplete'}",
            "without 'resolution', 'load', which every entry",
        ),
        ("{kind: python, target: 'my_pkg.my_module:build', arg: {}}", "Did you mean 'args'?"),
    ],
)
def test_python_targets_that_cannot_be_used(tmp_path, block, says):
    message = refusal(tmp_path, TOY, f"generators.stripes={block}")
    assert message.startswith("--set generators.stripes=")
    assert says in message


def test_a_target_whose_module_fails_at_import(tmp_path, monkeypatch):
    (tmp_path / "fails_at_import.py").write_text("1 / 0\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    message = refusal(tmp_path, TOY, "generators.stripes={kind: python, target: 'fails_at_import:x'}")
    assert "cannot import 'fails_at_import'" in message
    assert "ZeroDivisionError" in message


def test_every_table_takes_python_targets():
    assert all("python" not in entries for entries in TABLES.values()), "'python' is reserved"
    assert str(suite_examples.EXTERNAL) in sys.path
