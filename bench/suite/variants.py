"""Variants: a matrix with excludes plus explicit includes → a checked list without repeats."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Annotated, Any

from pydantic import Field

from bench.errors import nearest
from bench.protocols.ledger import Reproduces
from bench.suite.blocks import validate
from bench.suite.checks import Tables, fitting_translators, unfit
from bench.suite.types import Positive, Variant
from bench.suite.yaml import Document, KeyPath
from bench.types import ConditionKind

Names = str | Annotated[tuple[str, ...], Field(min_length=1)]
ROLES = {
    "data": "data",
    "generator": "generators",
    "conditioner": "conditioners",
    "sampler": "samplers",
    "translator": "translators",
}


@dataclass(frozen=True, kw_only=True)
class MatrixEntry:
    """Every combination of the named components; each value is a name or a list of names."""

    data: Names
    generator: Names
    conditioner: Names
    sampler: Names
    translator: Names | None = None
    num_samples: Positive | None = None
    condition: ConditionKind | None = None
    reproduces: tuple[Reproduces, ...] = ()


@dataclass(frozen=True, kw_only=True)
class ExcludeEntry:
    """Leaves out the combinations of the matrix that match every given key."""

    data: Names | None = None
    generator: Names | None = None
    conditioner: Names | None = None
    sampler: Names | None = None
    translator: Names | None = None


@dataclass(frozen=True, kw_only=True)
class IncludeEntry:
    """One more variant, not subject to ``exclude``; ``name`` replaces its label."""

    data: str
    generator: str
    conditioner: str
    sampler: str
    translator: str | None = None
    name: Annotated[str, Field(pattern=r"^[^\x00-\x1f]+$", max_length=80)] | None = None
    num_samples: Positive | None = None
    condition: ConditionKind | None = None
    reproduces: tuple[Reproduces, ...] = ()


@dataclass(frozen=True)
class _Placed:
    """A variant and the place in the file that asked for it."""

    variant: Variant
    path: KeyPath


def expand_variants(
    document: Document, block: Any, tables: Tables, settings: Mapping[str, Any]
) -> tuple[Variant, ...]:
    """The suite's variants, matrix first, in file order; equal ones are given once.

    Raises SuiteError for an unknown name, an impossible combination, two different variants under one
    label, or no variant at all.
    """
    path: KeyPath = ("variants",)
    keys = ("matrix", "exclude", "include")
    if not isinstance(block, dict) or not block:
        raise document.error(path, f"a suite needs variants: a mapping with {' / '.join(keys)}.")
    for key in block:
        if key not in keys:
            raise document.error((*path, key), f"unknown key.{nearest(key, keys)} Keys: {', '.join(keys)}.")
    excludes = [
        _checked(document, item_path, ExcludeEntry, item, tables)
        for item_path, item in _items(document, block, "exclude")
    ]
    placed: list[_Placed] = []
    for item_path, item in _items(document, block, "matrix"):
        entry = _checked(document, item_path, MatrixEntry, item, tables)
        for variant in _product(entry):
            variant = _with_translator(document, item_path, variant, tables)
            if not any(_matches(variant, exclude) for exclude in excludes):
                placed.append(_Placed(variant, item_path))
    for item_path, item in _items(document, block, "include"):
        entry = _checked(document, item_path, IncludeEntry, item, tables)
        variant = Variant(label="", **vars(entry))
        placed.append(_Placed(_with_translator(document, item_path, variant, tables), item_path))
    if not placed:
        raise document.error(path, "no variant is left; loosen 'exclude' or add to 'matrix' or 'include'.")
    for item in placed:
        message = unfit(item.variant, tables, settings)
        if message:
            raise document.error(item.path, message)
    return _labelled(document, placed)


def _items(document: Document, block: Mapping[str, Any], key: str) -> list[tuple[KeyPath, Any]]:
    """The entries under a key with their places; one mapping counts as a list of one."""
    value = block.get(key)
    if value is None:
        return []
    path: KeyPath = ("variants", key)
    if isinstance(value, dict):
        return [(path, value)]
    if not isinstance(value, list):
        raise document.error(path, f"takes a mapping or a list of mappings, found {value!r}.")
    return [((*path, i), item) for i, item in enumerate(value)]


def _names(value: str | tuple[str, ...] | None) -> tuple[str | None, ...]:
    return (value,) if value is None or isinstance(value, str) else value


def _checked(document: Document, path: KeyPath, cls: type, item: Any, tables: Tables) -> Any:
    """The entry as ``cls``, every name in it declared."""
    kind = path[1]
    entry: Any = validate(document, path, cls, item, f"an entry of '{kind}'")
    if kind == "exclude" and not item:
        raise document.error(path, f"an empty exclude drops everything; give {', '.join(ROLES)}.")
    for role, table in ROLES.items():
        value = getattr(entry, role)
        for i, name in enumerate(_names(value)):
            if name is not None and name not in tables[table]:
                where = (*path, role) if isinstance(value, str) else (*path, role, i)
                declared = ", ".join(tables[table]) or "none"
                found = f"the suite has no '{name}' in {table}.{nearest(name, tables[table])}"
                raise document.error(where, f"{found} Declared: {declared}.")
    return entry


def _product(entry: MatrixEntry) -> list[Variant]:
    combinations = itertools.product(*(_names(getattr(entry, role)) for role in ROLES))
    return [
        Variant(
            label="",
            num_samples=entry.num_samples,
            condition=entry.condition,
            reproduces=entry.reproduces,
            **dict(zip(ROLES, combination)),  # type: ignore[arg-type]
        )
        for combination in combinations
    ]


def _matches(variant: Variant, exclude: ExcludeEntry) -> bool:
    wanted = {role: getattr(exclude, role) for role in ROLES}
    return all(getattr(variant, role) in _names(value) for role, value in wanted.items() if value is not None)


def _with_translator(document: Document, path: KeyPath, variant: Variant, tables: Tables) -> Variant:
    """The variant with its translator settled: None where unused, the default where not named."""
    if not tables["samplers"][variant.sampler].config.uses_translator:
        return replace(variant, translator=None)
    if variant.translator is not None:
        return variant
    if not tables["translators"]:
        raise document.error(
            path,
            f"sampler '{variant.sampler}' needs a translator, and the suite declares none. "
            "Add one, for example 'translators: {default: {kind: tr0n}}'.",
        )
    fitting = fitting_translators(tables["samplers"][variant.sampler].config, tables)
    if "default" in fitting:
        return replace(variant, translator="default")
    if len(fitting) != 1:
        found = f"several fit ({', '.join(fitting)})" if fitting else "none that is declared fits"
        raise document.error(
            path,
            f"sampler '{variant.sampler}' needs a translator and {found}. "
            "Name one with 'translator', or call one 'default'.",
        )
    return replace(variant, translator=fitting[0])


def _labelled(document: Document, placed: list[_Placed]) -> tuple[Variant, ...]:
    several = len({item.variant.translator for item in placed} - {None}) > 1
    result: dict[tuple[str, str], Variant] = {}
    for item in placed:
        variant = item.variant
        parts = [variant.generator, variant.conditioner, variant.sampler]
        if several and variant.translator is not None:
            parts.append(variant.translator)
        variant = replace(variant, label=variant.name or "/".join(parts))
        known = result.setdefault((variant.data, variant.label), variant)
        if known != variant:
            differing = ", ".join(k for k, v in vars(variant).items() if v != getattr(known, k))
            raise document.error(
                item.path,
                f"another variant on data '{variant.data}' is called '{variant.label}' already; they "
                f"differ in {differing}. List it under 'include' with a 'name' of its own.",
            )
    return tuple(result.values())
