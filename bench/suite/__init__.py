"""Suites: a YAML file read, checked and turned into typed objects, before any weight loads.

Sections: ``data``, ``generators``, ``conditioners``, ``translators``, ``samplers``, ``judges`` and
``metrics`` name components; ``protocol``, ``samples`` and ``curve`` say what is drawn; ``variants`` says
which components meet.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from bench.components import TABLES
from bench.errors import nearest
from bench.protocols import Protocol, with_base
from bench.suite.blocks import Named, build_component, field_names, under_protocol, validate
from bench.suite.checks import check_metrics, check_numbers
from bench.suite.overrides import apply_overrides
from bench.suite.tuned import KEY as TUNED
from bench.suite.tuned import apply_tuned
from bench.suite.types import CurveSettings, Header, SampleSettings, Suite, Variant
from bench.suite.variants import expand_variants
from bench.suite.yaml import Document, KeyPath, expand_variables, read_yaml

__all__ = [
    "KEYS",
    "SECTIONS",
    "CurveSettings",
    "Header",
    "Named",
    "Protocol",
    "SampleSettings",
    "Suite",
    "Variant",
    "load_suite",
    "suite_from_plain",
]

NAME_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9_-]*$"
SECTIONS: dict[str, type] = {
    "protocol": Protocol,
    "samples": SampleSettings,
    "curve": CurveSettings,
}
KEYS = (*field_names(Header), *TABLES, *SECTIONS, "variants", TUNED)


def load_suite(path: Path | str, overrides: Iterable[str] = ()) -> Suite:
    """The checked suite of a YAML (or JSON) file, after ``path.to.key=value`` overrides.

    Raises SuiteError naming file, line and key, what was found, what is allowed and the nearest name.
    Component modules are imported; no weight, image or network is touched.
    """
    return _build(read_yaml(Path(path)), overrides, check_counts=True)


def suite_from_plain(plain: Mapping[str, Any], source: str, overrides: Iterable[str] = ()) -> Suite:
    """The checked suite of plain data such as :meth:`Suite.resolved` gives; ``source`` names it in errors.

    Sample counts are taken as they are: a run that is stored can be read, whatever is asked of new ones.
    """
    return _build(Document(copy.deepcopy(dict(plain)), source), overrides)


def _build(document: Document, overrides: Iterable[str], *, check_counts: bool = False) -> Suite:
    if document.data is None:
        document.data = {}
    if not isinstance(document.data, dict):
        raise document.error((), f"a suite is a mapping of keys: {', '.join(KEYS)}.")
    apply_overrides(document, overrides, KEYS)
    expand_variables(document)
    apply_tuned(document)
    content = document.data
    for key in content:
        if key not in KEYS:
            raise document.error((key,), f"unknown key.{nearest(key, KEYS)} Keys: {', '.join(KEYS)}.")
    head = {key: content[key] for key in field_names(Header) if key in content}
    header = validate(document, (), Header, head, "a suite")
    settings: dict[str, Any] = {key: _settings(document, key, cls) for key, cls in SECTIONS.items()}
    if settings["protocol"].num_samples and "num" not in (content.get("samples") or {}):
        settings["samples"] = replace(settings["samples"], num=settings["protocol"].num_samples)
    tables: dict[str, Any] = {table: _table(document, table) for table in TABLES}
    for table in ("judges", "metrics"):
        tables[table] = {
            name: under_protocol(document, table, item, settings["protocol"])
            for name, item in tables[table].items()
        }
    check_metrics(document, tables)
    variants = expand_variants(document, content.get("variants"), tables, settings)
    if check_counts:
        check_numbers(document, tables, settings, variants)
    return Suite(**asdict(header), **tables, **settings, variants=variants, source=document.source)


def _settings(document: Document, key: str, cls: type) -> Any:
    """The section with its defaults; None for a curve that is not asked for."""
    block = document.data.get(key)
    if block is None and cls is CurveSettings:
        return None
    block = {} if block is None else block
    if cls is Protocol and isinstance(block, dict):
        block = with_base(block)
    return validate(document, (key,), cls, block, f"'{key}'")


def _table(document: Document, table: str) -> dict[str, Named[Any]]:
    block = document.data.get(table)
    if block is None:
        return {}
    path: KeyPath = (table,)
    if not isinstance(block, dict):
        raise document.error(path, f"maps a name to a component each, found {block!r}.")
    for name in block:
        if not re.fullmatch(NAME_PATTERN, name):
            raise document.error((table, name), "a name holds letters, digits, '-' and '_' only.")
    return {name: build_component(document, table, name, item) for name, item in block.items()}
