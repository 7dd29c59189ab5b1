"""``--set path.to.key=value``: changes to a suite's plain data before it is checked."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any

from bench.components import TABLES
from bench.errors import SuiteError, nearest
from bench.suite.yaml import Document, KeyPath, key_name, parse_yaml


def apply_overrides(document: Document, overrides: Iterable[str], keys: Collection[str]) -> None:
    """Writes each ``path.to.key=value`` into the document, in place and in order.

    ``value`` is YAML. A list is indexed by number. A key that the file lacks is added, so that a default
    can be changed; whether it is allowed is checked with the rest of the suite. ``keys`` are the suite's
    top-level keys. Raises SuiteError naming ``--set`` for a path that leads nowhere.
    """
    for text in overrides:
        _apply(document, text, keys)


def _split(text: str) -> tuple[list[str], str]:
    left, sign, right = text.partition("=")
    parts = left.strip().split(".")
    if not sign or not all(parts):
        raise SuiteError(f"--set {text}: write path.to.key=value, for example samples.num=100.")
    return parts, right


def _apply(document: Document, text: str, keys: Collection[str]) -> None:
    parts, right = _split(text)
    value = parse_yaml(right, f"--set {text}").data
    if not isinstance(document.data, dict):
        raise document.error((), "a suite is a mapping of keys.")
    if parts[0] not in keys:
        raise SuiteError(
            f"--set {text}: unknown key '{parts[0]}'.{nearest(parts[0], keys)} Keys: {', '.join(keys)}."
        )
    node: Any = document.data
    path: KeyPath = ()
    for depth, part in enumerate(parts):
        last = depth == len(parts) - 1
        index = _index(text, node, part, path)
        present = index < len(node) if isinstance(index, int) else index in node
        if not present and not (last and isinstance(value, dict)):
            _refuse_absent_component(text, node, part, path)
        path = (*path, index)
        if last:
            node[index] = value
        else:
            if not present or node[index] is None:
                node[index] = {}
            node = node[index]
    for known in [key for key in document.lines if key[: len(path)] == path]:
        del document.lines[known]
    for known in [key for key in document.overrides if key[: len(path)] == path]:
        del document.overrides[known]
    document.overrides[path] = text


def _index(text: str, node: Any, part: str, path: KeyPath) -> str | int:
    """``part`` as a key of ``node``, or SuiteError."""
    if isinstance(node, list):
        if not part.isdecimal() or int(part) >= len(node):
            raise SuiteError(
                f"--set {text}: '{key_name(path)}' is a list of {len(node)}; "
                f"give an index from 0 to {len(node) - 1}, found '{part}'."
            )
        return int(part)
    if not isinstance(node, dict):
        raise SuiteError(f"--set {text}: '{key_name(path)}' is {node!r}, which holds no key '{part}'.")
    return part


def _refuse_absent_component(text: str, node: Any, part: str, path: KeyPath) -> None:
    """A component or argument that is not there cannot be changed; a setting can be added."""
    if len(path) == 1 and path[0] in TABLES:
        raise SuiteError(
            f"--set {text}: the suite has no '{part}' in {path[0]}.{nearest(part, node)} "
            f"Declared: {', '.join(node) or 'none'}."
        )
