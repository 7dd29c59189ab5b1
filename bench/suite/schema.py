"""The JSON Schema of a suite, for editors, made from the same dataclasses that check it."""

from __future__ import annotations

import inspect
import json
import math
from functools import cache
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from bench.components import TABLES, component_class
from bench.suite import NAME_PATTERN, SECTIONS, tuned
from bench.suite.blocks import PythonTarget
from bench.suite.types import Header
from bench.suite.variants import ExcludeEntry, IncludeEntry, MatrixEntry

COMMITTED = Path(__file__).parent / "schema.json"
_TABLE_TEXT = {
    "data": "Data sets by name.",
    "generators": "Generators by name: frozen pushforwards G.",
    "conditioners": "Conditioners by name: frozen auxiliary models f that guide.",
    "translators": "Translators by name; the one called 'default' is used where a variant names none.",
    "samplers": "Samplers by name.",
    "judges": "Judges by name: networks that score and did not guide.",
    "metrics": "Metrics by name. The key 'data' restricts one to cells of these data sets.",
}
NESTED = ("conditioners",)  # tables whose components may stand inside another component
_METRIC_DATA = {
    "description": "Data sets whose cells the metric applies to; left out: all.",
    "anyOf": [{"type": "array", "items": {"type": "string"}, "minItems": 1}, {"type": "null"}],
}


def _text(cls: Any) -> str:
    return " ".join((inspect.getdoc(cls) or "").replace("``", "'").split())


def _closed(value: Any) -> Any:
    """The schema with named properties only, without derived titles and infinite defaults."""
    if isinstance(value, list):
        return [_closed(item) for item in value]
    if not isinstance(value, dict):
        return value
    if "x-table" in value:  # a component inside another
        return {"$ref": f"#/$defs/{value['x-table']}-any"}
    result = {
        key: _closed(item)
        for key, item in value.items()
        if not (key == "default" and isinstance(item, float) and not math.isfinite(item))
        and not (key == "title" and isinstance(item, str))
    }
    if isinstance(result.get("properties"), dict) and result.get("type") == "object":
        result["additionalProperties"] = False
    return result


@cache
def _dataclass_schema(cls: Any, prefix: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """The closed schema of a dataclass and its definitions, whose names start with ``prefix``."""
    schema = TypeAdapter(cls).json_schema(ref_template=f"#/$defs/{prefix}-{{model}}")
    definitions = {f"{prefix}-{name}": _closed(item) for name, item in schema.pop("$defs", {}).items()}
    return _closed({**schema, "description": _text(cls)}), definitions


def _component(table: str, kind: str) -> tuple[dict[str, Any], dict[str, Any]]:
    cls = PythonTarget if kind == "python" else component_class(table, kind)
    schema, definitions = _dataclass_schema(cls, f"{table}-{kind}")
    properties = {"kind": {"const": kind}, **schema["properties"]}
    if table == "metrics":
        properties["data"] = _METRIC_DATA
    required = ["kind", *schema.get("required", [])]
    return {
        **schema,
        "title": f"{table}: {kind}",
        "properties": properties,
        "required": required,
    }, definitions


def _list_of(entry: dict[str, Any]) -> dict[str, Any]:
    return {"anyOf": [entry, {"type": "array", "items": entry}, {"type": "null"}]}


def suite_schema() -> dict[str, Any]:
    """JSON Schema (2020-12) of a suite file: every component's own schema, chosen by its ``kind``."""
    definitions: dict[str, Any] = {}

    def of(cls: Any, prefix: str) -> dict[str, Any]:
        schema, more = _dataclass_schema(cls, prefix)
        definitions.update(more)
        return schema

    header = of(Header, "suite")
    properties: dict[str, Any] = dict(header["properties"])
    for table, entries in TABLES.items():
        branches = []
        for kind in (*entries, "python"):
            schema, more = _component(table, kind)
            definitions.update(more)
            definitions[f"{table}-{kind}"] = schema
            branches.append(
                {
                    "if": {"properties": {"kind": {"const": kind}}, "required": ["kind"]},
                    "then": {"$ref": f"#/$defs/{table}-{kind}"},
                }
            )
        entry = {
            "type": "object",
            "required": ["kind"],
            "properties": {"kind": {"enum": [*entries, "python"]}},
            "allOf": branches,
        }
        properties[table] = {
            "description": _TABLE_TEXT[table],
            "type": ["object", "null"],
            "propertyNames": {"pattern": NAME_PATTERN},
            "additionalProperties": entry,
        }
        if table in NESTED:
            definitions[f"{table}-any"] = entry
    for key, cls in SECTIONS.items():
        definitions[key] = of(cls, key)
        properties[key] = {
            "description": definitions[key]["description"],
            "anyOf": [{"$ref": f"#/$defs/{key}"}, {"type": "null"}],
        }
    properties[tuned.KEY] = {"description": tuned.DESCRIPTION, "type": ["string", "null"]}
    entries_of = {"matrix": MatrixEntry, "exclude": ExcludeEntry, "include": IncludeEntry}
    properties["variants"] = {
        "description": "Which components meet: every combination of 'matrix' less 'exclude', plus 'include'.",
        "type": "object",
        "properties": {key: _list_of(of(cls, key)) for key, cls in entries_of.items()},
        "additionalProperties": False,
        "minProperties": 1,
    }
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "tr0n-bench suite",
        "description": "A benchmark: data, components, protocol, sample counts and the variants to run.",
        "type": "object",
        "properties": properties,
        "required": [*header.get("required", []), "variants"],
        "additionalProperties": False,
        "$defs": dict(sorted(definitions.items())),
    }


def schema_text() -> str:
    """The schema as indented JSON text with a final newline: the content of the committed file."""
    return json.dumps(suite_schema(), indent=2, ensure_ascii=False, allow_nan=False) + "\n"
