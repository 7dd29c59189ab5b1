"""The JSON Schema: kept in step with the committed copy, and agreeing with the loader."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from suite_examples import TOY

from bench.components import TABLES
from bench.errors import SuiteError
from bench.plan import plan
from bench.suite import KEYS, suite_from_plain
from bench.suite.schema import COMMITTED, schema_text, suite_schema
from bench.suite.yaml import parse_yaml

SUITES = Path(__file__).parents[1] / "suites"


def test_the_committed_schema_is_the_one_made_now():
    message = "run: tr0n-bench schema --out bench/suite/schema.json"
    assert COMMITTED.read_text(encoding="utf-8") == schema_text(), message


def test_the_schema_knows_every_key_of_a_suite():
    schema = suite_schema()
    assert set(schema["properties"]) == set(KEYS)
    assert schema["required"] == ["name", "variants"]
    assert schema["additionalProperties"] is False


def test_every_reference_resolves_and_every_definition_is_used():
    text = schema_text()
    references = set(re.findall(r'"#/\$defs/([^"]+)"', text))
    assert references == set(suite_schema()["$defs"])


def test_it_is_strict_json_without_derived_titles():
    text = schema_text()
    json.loads(text, parse_constant=lambda word: pytest.fail(f"{word} is not JSON"))
    assert '"title": "Step Size"' not in text


@pytest.mark.parametrize("table", TABLES)
def test_a_component_is_chosen_by_its_kind(table):
    choices = suite_schema()["properties"][table]["additionalProperties"]
    branches = {
        branch["if"]["properties"]["kind"]["const"]: branch["then"]["$ref"] for branch in choices["allOf"]
    }
    assert branches == {kind: f"#/$defs/{table}-{kind}" for kind in [*TABLES[table], "python"]}


def test_constraints_and_choices_reach_the_editor():
    definitions = suite_schema()["$defs"]
    assert definitions["data-shapes"]["properties"]["resolution"]["enum"] == [32, 64]
    assert definitions["samples"]["properties"]["num"]["minimum"] == 1
    assert definitions["translators-tr0n-AttributeCaptioner"]["additionalProperties"] is False
    assert definitions["data-coco"]["required"] == ["kind", "root"]


# --- the same answers as the loader --------------------------------------------------------------

TYPES = {
    "object": dict,
    "array": list,
    "string": str,
    "boolean": bool,
    "null": type(None),
    "integer": int,
    "number": (int, float),
}


def fits(value: Any, schema: dict[str, Any], root: dict[str, Any]) -> bool:
    """Whether a value satisfies the part of JSON Schema that the suite's schema uses."""
    known = (
        "$ref $defs $schema title description default type const enum anyOf allOf if then properties "
        "required additionalProperties propertyNames minProperties items minItems pattern minLength "
        "maxLength minimum maximum exclusiveMinimum exclusiveMaximum"
    )
    assert set(schema) <= set(known.split()), schema
    if "$ref" in schema and not fits(value, root["$defs"][schema["$ref"].removeprefix("#/$defs/")], root):
        return False
    allowed = schema.get("type", list(TYPES))
    names = [allowed] if isinstance(allowed, str) else allowed
    if not any(
        isinstance(value, TYPES[name]) and (name == "boolean" or not isinstance(value, bool))
        for name in names
    ):
        return False
    if ("const" in schema and value != schema["const"]) or ("enum" in schema and value not in schema["enum"]):
        return False
    if not all(fits(value, part, root) for part in schema.get("allOf", [])):
        return False
    if "anyOf" in schema and not any(fits(value, part, root) for part in schema["anyOf"]):
        return False
    if "if" in schema and fits(value, schema["if"], root) and not fits(value, schema["then"], root):
        return False
    if isinstance(value, dict):
        return _fits_object(value, schema, root)
    if isinstance(value, list):
        enough = len(value) >= schema.get("minItems", 0)
        return enough and all(fits(item, schema.get("items", {}), root) for item in value)
    if isinstance(value, str):
        short = schema.get("minLength", 0) <= len(value) <= schema.get("maxLength", math.inf)
        return short and re.search(schema.get("pattern", ""), value) is not None
    if isinstance(value, int | float) and not isinstance(value, bool):
        inside = schema.get("minimum", -math.inf) <= value <= schema.get("maximum", math.inf)
        above = value > schema["exclusiveMinimum"] if "exclusiveMinimum" in schema else True
        return inside and above and value < schema.get("exclusiveMaximum", math.inf)
    return True


def _fits_object(value: dict[str, Any], schema: dict[str, Any], root: dict[str, Any]) -> bool:
    properties, others = schema.get("properties", {}), schema.get("additionalProperties", True)
    if not set(schema.get("required", [])) <= set(value) or len(value) < schema.get("minProperties", 0):
        return False
    for key, item in value.items():
        if "propertyNames" in schema and not fits(key, schema["propertyNames"], root):
            return False
        rule = properties.get(key, others)
        if rule is False or (isinstance(rule, dict) and not fits(item, rule, root)):
            return False
    return True


@pytest.mark.parametrize("path", sorted(SUITES.glob("*.yaml")), ids=lambda path: path.stem)
def test_shipped_suites_fit_the_schema_and_can_be_planned(path):
    plain = parse_yaml(path.read_text(encoding="utf-8"), path.name).data
    assert fits(plain, suite_schema(), suite_schema())
    suite = suite_from_plain(plain, str(path))  # of which the key `tuned` names a file beside it
    assert suite.name == path.stem, "a suite is named like its file"
    assert plan(suite).cells


def test_valid_suites_fit_the_schema():
    plain = yaml.safe_load(TOY)
    assert fits(plain, suite_schema(), suite_schema())
    resolved = suite_from_plain(plain, "toy").resolved()
    assert fits(resolved, suite_schema(), suite_schema())


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("seed",), "24"),
        (("seed",), -1),
        (("seed",), True),
        (("sead",), 1),
        (("name",), "a/b"),
        (("name",), None),
        (("samples", "num"), 0),
        (("samples", "number"), 3),
        (("samples", "condition"), "picture"),
        (("protocol", "codec"), "jpg"),
        (("curve", "steps"), []),
        (("curve", "steps"), [0, -1]),
        (("curve",), {}),
        (("data", "shapes", "resolution"), 48),
        (("data", "shapes", "resolution"), "32"),
        (("data", "shapes", "kind"), "shape"),
        (("data", "a.b"), {"kind": "digits"}),
        (("generators", "linear"), 3),
        (("generators", "linear"), {}),
        (("generators", "stripes", "arg"), {}),
        (("generators", "stripes"), {"kind": "python"}),
        (("samplers", "tr0n", "step_sise"), 1.0),
        (("samplers", "tr0n", "start"), "mean"),
        (("samplers", "tr0n", "clip_norm"), "1"),
        (("translators", "default", "captioner"), {"modell": "x"}),
        (("variants",), {}),
        (("variants", "matrix", 0, "sampler"), []),
        (("variants", "matrix", 0, "num_samples"), 0),
        (("variants", "matrix", 0, "steps"), 3),
        (("variants", "include"), [{"data": "targets"}]),
        (("variants", "includes"), []),
    ],
)
def test_what_the_loader_refuses_the_schema_refuses(path, value):
    plain = yaml.safe_load(TOY)
    node = plain
    for part in path[:-1]:
        node = node[part]
    node[path[-1]] = value
    with pytest.raises(SuiteError):
        suite_from_plain(plain, "toy")
    assert not fits(plain, suite_schema(), suite_schema())
