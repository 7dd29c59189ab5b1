"""One block of a suite → one typed object, checked by pydantic against its dataclass."""

from __future__ import annotations

import dataclasses
import functools
import inspect
import json
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar, get_args, get_type_hints

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError, create_model

from bench.components import component_class, missing_members, resolve_path
from bench.errors import BenchError, SuiteError, nearest
from bench.suite.yaml import Document, KeyPath

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Named(Generic[T]):
    """A component of a suite: its name there, its kind, its configuration object.

    ``raw`` is the resolved block as plain data, defaults included; loading it again gives an equal
    component. ``data`` restricts a metric to cells of these data sets (None: all).
    """

    name: str
    kind: str
    raw: dict[str, Any]
    config: T = field(compare=False)
    data: tuple[str, ...] | None = None


def as_before(named: Named[Any]) -> dict[str, Any]:
    """The raw configuration without ``later_fields`` of its class that have their default: fields added to a
    component whose default leaves results as they were, and keys with them."""
    later = getattr(type(named.config), "later_fields", ())
    if not later or named.kind == "python":
        return named.raw
    defaults = {item.name: item.default for item in dataclasses.fields(named.config)}
    return {name: value for name, value in named.raw.items() if name not in later or value != defaults[name]}


@functools.cache
def _model(cls: Any) -> type[BaseModel]:
    # A standard dataclass inside a model is held to the model's rules: nothing unknown, nothing coerced.
    return create_model(
        f"Checked{cls.__name__}", __config__=ConfigDict(extra="forbid", strict=True), value=(cls, ...)
    )


def field_names(cls: type) -> list[str]:
    """The names that a block of this dataclass may hold."""
    return [item.name for item in dataclasses.fields(cls) if item.init]


def validate(document: Document, path: KeyPath, cls: Callable[..., T], data: Any, what: str) -> T:
    """An instance of the dataclass ``cls`` from plain data found at ``path``.

    ``what`` names it in errors ("kind 'tr0n'"). Raises SuiteError with file, line, key, what was found,
    what is allowed and the nearest name: for an unknown or missing key, a wrong type or value.
    """
    if not isinstance(data, dict):
        raise document.error(path, f"found {_shown(data)}; {what} takes a mapping of fields.")
    try:
        # In JSON mode lists become tuples while numbers, texts and booleans stay apart.
        model: Any = _model(cls).model_validate_json(json.dumps({"value": data}))
        return model.value
    except ValidationError as error:
        raise _first_error(document, path, cls, data, what, error) from None
    except BenchError as error:
        raise document.error(_blamed(path, data, str(error)), str(error)) from None
    except Exception as error:
        raise document.error(path, f"{what} refused its fields: {type(error).__name__}: {error}") from error


def _blamed(path: KeyPath, data: dict[str, Any], message: str) -> KeyPath:
    """The key that a dataclass's own check speaks of, where its message names one of the block's keys."""
    named = [key for key in data if re.search(rf"(?<!\w){re.escape(key)}(?!\w)", message)]
    return (*path, min(named, key=message.index)) if named else path


def _shown(value: Any) -> str:
    text = "null" if value is None else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else text[:57] + "..."


def _first_error(
    document: Document, path: KeyPath, cls: Any, data: Any, what: str, error: ValidationError
) -> SuiteError:
    """The most telling of pydantic's errors: an unknown key first, as it often explains a missing one."""
    found: dict[KeyPath, list[Any]] = {}
    for item in error.errors(include_url=False):
        place, value = _place(data, item)
        found.setdefault(place, []).append((item, value))

    def rank(place: KeyPath) -> int:
        return 0 if found[place][0][0]["type"] in ("unexpected_keyword_argument", "extra_forbidden") else 1

    place = min(found, key=rank)
    items, value = [item for item, _ in found[place]], found[place][0][1]
    full = (*path, *place)
    if rank(place) == 0:
        owner = _dataclass_at(cls, place[:-1])
        allowed = field_names(owner) if owner is not None else []
        around = next((part for part in reversed(place[:-1]) if isinstance(part, str)), None)
        inside = what if around is None else f"'{around}' of {what}"
        listed = f" Fields: {', '.join(allowed) or 'none'}." if owner is not None else ""
        return document.error(full, f"unknown field of {inside}.{nearest(str(place[-1]), allowed)}{listed}")
    if items[0]["type"] in ("missing", "missing_argument", "missing_keyword_only_argument"):
        return document.error(full, f"is missing; {what} needs it.")
    messages = list(dict.fromkeys(item["msg"][:1].lower() + item["msg"][1:] for item in items))
    text = f"found {_shown(value)}; {' or '.join(messages)}."
    expected = [word.strip("' ") for word in str(items[0].get("ctx", {}).get("expected", "")).split("'")]
    return document.error(full, text + (nearest(value, expected) if isinstance(value, str) else ""))


def _place(data: Any, item: Any) -> tuple[KeyPath, Any]:
    """Where in the block an error lies: pydantic's location without its own names for union members."""
    node, place = data, []
    parts = item["loc"][1:]
    for i, part in enumerate(parts):
        inside = isinstance(node, dict) and part in node
        if inside or (isinstance(node, list) and isinstance(part, int) and part < len(node)):
            node = node[part]
            place.append(part)
        elif i == len(parts) - 1 and item["type"].startswith("missing"):
            place.append(part)
    return tuple(place), node


def _dataclass_at(cls: Any, place: KeyPath) -> type | None:
    """The dataclass that a path of field names leads to, where that is plain to see."""
    for part in place:
        if isinstance(part, int):  # an item of a list
            cls = next(iter(get_args(cls)), None)
            continue
        if not dataclasses.is_dataclass(cls) or not isinstance(part, str):
            return None
        cls = get_type_hints(cls).get(part)
    return cls if dataclasses.is_dataclass(cls) and isinstance(cls, type) else None


def plain(config: Any) -> dict[str, Any]:
    """The dataclass's fields as plain JSON data, defaults included."""
    cls = type(config)
    dumped = TypeAdapter(cls).dump_python(config, mode="json")
    return {name: dumped[name] for name in field_names(cls)}


def build_component(document: Document, table: str, name: str, block: Any) -> Named[Any]:
    """The component that ``block`` declares under ``name`` in a table, contract checked.

    Raises SuiteError as :func:`validate` does, and for an unknown kind or a target that cannot be used.
    """
    path: KeyPath = (table, name)
    if not isinstance(block, dict):
        raise document.error(path, f"found {_shown(block)}; a component is a mapping with 'kind'.")
    kind = block.get("kind")
    if not isinstance(kind, str):
        found = f"found {_shown(kind)}" if "kind" in block else "is missing"
        raise document.error((*path, "kind"), f"{found}; every component names its kind.")
    fields = {key: value for key, value in block.items() if key != "kind"}
    data = _metric_data(document, path, fields) if table == "metrics" else None
    if kind == "python":
        config, raw = _from_target(document, path, fields)
    else:
        try:
            cls = component_class(table, kind)
        except SuiteError as error:
            raise document.error((*path, "kind"), str(error)) from error
        config = validate(document, path, cls, fields, f"kind '{kind}'")
        raw = plain(config)
    missing = missing_members(table, config)
    if missing:
        raise document.error(
            path,
            f"kind '{kind}' gives a {type(config).__name__} without {', '.join(missing)}, "
            f"which every entry of {table} needs.",
        )
    raw = {"kind": kind, **raw} | ({} if data is None else {"data": list(data)})
    return Named(name=name, kind=kind, raw=raw, config=config, data=data)


def under_protocol(document: Document, table: str, named: Named[Any], protocol: Any) -> Named[Any]:
    """The component with what the protocol settles for it.

    A configuration's class may offer ``protocol_fields``, its field → the protocol's field. A value that the
    protocol leaves open (None) changes nothing. Raises SuiteError where the suite writes out another one.
    """
    if named.kind == "python":  # its arguments are its own affair
        return named
    wanted = {
        own: getattr(protocol, theirs)
        for own, theirs in getattr(type(named.config), "protocol_fields", {}).items()
        if getattr(protocol, theirs) is not None
    }
    block = document.data[table][named.name]
    for own, value in wanted.items():
        if block.get(own) not in (None, value):
            theirs = type(named.config).protocol_fields[own]
            raise document.error(
                (table, named.name, own),
                f"found {_shown(block[own])}, and protocol '{protocol.name}' says {_shown(value)}. Leave it "
                f"out here, or set protocol.{theirs}, which makes another protocol.",
            )
    changed = {own: value for own, value in wanted.items() if getattr(named.config, own) != value}
    if not changed:
        return named
    config = dataclasses.replace(named.config, **changed)
    return dataclasses.replace(named, config=config, raw={**named.raw, **changed})


@dataclass(frozen=True, kw_only=True)
class _Restriction:
    data: tuple[str, ...]


def _metric_data(document: Document, path: KeyPath, fields: dict[str, Any]) -> tuple[str, ...] | None:
    """The suite's own key ``data`` of a metric, taken out of its fields."""
    value = fields.pop("data", None)
    if value is None:
        return None
    data = validate(document, path, _Restriction, {"data": value}, "a metric").data
    if not data:
        raise document.error((*path, "data"), "found an empty list; leave 'data' out to use every data set.")
    return data


@dataclass(frozen=True, kw_only=True)
class PythonTarget:
    """A component from any importable package: ``target`` is ``package.module:name``.

    ``target`` is a configuration dataclass, or a function that returns one; ``args`` are its arguments.
    """

    target: str
    args: dict[str, Any] = field(default_factory=dict)


def _from_target(document: Document, path: KeyPath, fields: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    block = validate(document, path, PythonTarget, fields, "kind 'python'")
    where, args_at = (*path, "target"), (*path, "args")
    try:
        target = resolve_path(block.target)
    except SuiteError as error:
        raise document.error(where, str(error)) from error
    what = f"'{block.target}'"
    if isinstance(target, type) and dataclasses.is_dataclass(target):
        config = validate(document, args_at, target, block.args, what)
        return config, {"target": block.target, "args": plain(config)}
    if not callable(target):
        raise document.error(where, f"{what} is a {type(target).__name__}; it must be a class or a function.")
    try:
        inspect.signature(target).bind(**block.args)
    except (TypeError, ValueError) as error:
        raise document.error(args_at, f"{what} does not take these arguments: {error}.") from None
    try:
        config = target(**block.args)
    except BenchError as error:
        raise document.error(args_at, str(error)) from error
    except Exception as error:
        raise document.error(args_at, f"{what} raised {type(error).__name__}: {error}") from error
    return config, {"target": block.target, "args": block.args}
