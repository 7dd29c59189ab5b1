"""The YAML reader: values, positions, refusals, variables, and round trips of arbitrary data."""

from __future__ import annotations

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.errors import SuiteError
from bench.suite.yaml import (
    Document,
    dump_yaml,
    escape_variables,
    expand_variables,
    key_name,
    parse_yaml,
    read_yaml,
)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-3", 0.001), ("1.5", 1.5), (".5", 0.5), ("-3", -3), ("0x1F", 31), ("0o17", 15), ("017", 17),
        ("no", "no"), ("on", "on"), ("true", True), ("False", False), ("~", None), ("", None), ("null", None),
        ("2014-01-01", "2014-01-01"), ("12:30", "12:30"), ("'1'", "1"), (".inf", math.inf),
        ("-.INF", -math.inf), ("Infinity", math.inf), ("Ines", "Ines"), ("[1, a]", [1, "a"]),
        ("1_000", "1_000"),
        ("1.2.3", "1.2.3"),
    ],
)  # fmt: skip
def test_scalars_follow_yaml_1_2(text, value):
    found = parse_yaml(f"key: {text}", "f").data["key"]
    assert found == value
    assert type(found) is type(value)


def test_every_key_and_item_has_its_line():
    document = parse_yaml("a:\n  b: 1\n  c:\n    - x\n    - {d: 2}\n", "f.yaml")
    assert document.data == {"a": {"b": 1, "c": ["x", {"d": 2}]}}
    lines = {
        ("a",): 1,
        ("a", "b"): 2,
        ("a", "c"): 3,
        ("a", "c", 0): 4,
        ("a", "c", 1): 5,
        ("a", "c", 1, "d"): 5,
    }
    assert {path: document.lines[path] for path in lines} == lines
    assert document.where(("a", "c", 1, "absent")) == "f.yaml:5: a.c[1].absent"
    assert key_name(("a", 0, "b")) == "a[0].b"


def test_a_key_given_twice_names_both_lines():
    with pytest.raises(SuiteError, match=r"f\.yaml:3: a\.x: given twice, first on line 2"):
        parse_yaml("a:\n  x: 1\n  x: 2\n", "f.yaml")


def test_merged_keys_may_be_overridden_and_keep_their_own_line():
    document = parse_yaml("base: &b {x: 1, y: 2}\nuse:\n  <<: *b\n  y: 3\n", "f")
    assert document.data["use"] == {"x": 1, "y": 3}
    assert document.lines["use", "x"] == 1
    assert document.lines["use", "y"] == 4


def test_aliases_are_copies():
    document = parse_yaml("a: &a [1]\nb: *a\n", "f")
    document.data["a"].append(2)
    assert document.data["b"] == [1]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: !!python/object/apply:os.system [ls]", r"f:1: found tag 'tag:yaml.org,2002:python"),
        ("a: !custom 3", r"f:1: found tag '!custom'"),
        ("a: [1\nb: 2", r"f:2:\d+: not valid YAML"),
        ("a: 1\n\tb: 2", r"f:2:\d+: not valid YAML"),
        ("a: 1\n---\nb: 2", r"f:2:\d+: not valid YAML"),
        ("a: .nan", r"f:1: found NaN"),
        ("a: *nowhere", r"f:1:\d+: not valid YAML"),
        ("? [1, 2]\n: 3", r"f:1: a key must be a word"),
        ("&a a: *a\nb: &b [*b]", r"f:2: an alias that contains itself"),
        ("x: " + "[" * 150 + "]" * 150, r"f:1: nested more than 100"),
        ("a: {<<: 3}", r"f:1: '<<' takes a mapping"),
        ('a: "\\ud800"', r"f:1: a lone surrogate"),
        ("a: \x01", r"f: not valid YAML"),
        ("a: !!int x", r"f:1: 'x' is not an integer"),
        ("a: !!float x", r"f:1: 'x' is not a number"),
    ],
)  # fmt: skip
def test_what_is_not_plain_data_is_refused_with_its_line(text, message):
    with pytest.raises(SuiteError, match=message):
        parse_yaml(text, "f")


def test_aliases_cannot_grow_without_bound():
    bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n"
    bomb += "".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]\n" for i in range(1, 9))
    with pytest.raises(SuiteError, match="values; are aliases repeated"):
        parse_yaml(bomb, "f")


def test_unreadable_files_are_named(tmp_path):
    with pytest.raises(SuiteError, match=r"absent\.yaml: cannot read the suite: No such file"):
        read_yaml(tmp_path / "absent.yaml")
    (tmp_path / "latin.yaml").write_bytes(b"name: \xe9")
    with pytest.raises(SuiteError, match=r"latin\.yaml: not UTF-8 text \(byte 6\)"):
        read_yaml(tmp_path / "latin.yaml")


def test_variables_are_expanded_in_values_only():
    document = parse_yaml("a: '${ROOT}/x-${NAME}'\nb: ['$${ROOT}', $5]\n'${ROOT}': 1\n", "f")
    expand_variables(document, {"ROOT": "/data", "NAME": "${ROOT}"})
    assert document.data == {"a": "/data/x-${ROOT}", "b": ["${ROOT}", "$5"], "${ROOT}": 1}


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("${ABSENT}", "environment variable 'ABSENT' is not set"),
        ("${1x}", "opens a variable"),
        ("${", "opens"),
    ],
)
def test_variables_that_cannot_be_expanded_name_the_line_and_key(value, message):
    document = parse_yaml(f"x: 1\na:\n  - 1\n  - '{value}'\n", "f.yaml")
    with pytest.raises(SuiteError, match=r"f\.yaml:4: a\[1\]: .*" + message):
        expand_variables(document, {})


texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
keys = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=8).filter(
    lambda key: key != "<<"
)
scalars = (
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | texts
    | st.sampled_from(
        ["1e-3", "no", "0o7", "<<", "~", "1_0", "2020-01-01", "=", "Infinity", "\U0001f600", "a: b"]
    )
)  # fmt: skip
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(keys, inner, max_size=4),
    max_leaves=12,
)


def same(a: object, b: object) -> bool:
    """Equal in value and type, so that 1, 1.0 and True stay apart."""
    return repr(a) == repr(b)


@given(values)
def test_dumped_yaml_reads_back_equal(value):
    assert same(parse_yaml(dump_yaml({"top": value}), "f").data, {"top": value})


@given(values)
def test_json_reads_back_equal(value):
    assert same(parse_yaml(json.dumps({"top": value}), "f").data, {"top": value})


@given(values)
def test_escaped_text_survives_expansion(value):
    document = Document(escape_variables({"top": value, "more": ["${X}", "$${"]}), "f")
    expand_variables(document, {})
    assert same(document.data, {"top": value, "more": ["${X}", "$${"]})
