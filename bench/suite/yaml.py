"""YAML with positions: reads a suite file to plain data and remembers the line of every key.

The dialect is YAML 1.2's core schema, so ``1e-3`` is a number, ``no`` a word and JSON a subset. Only
plain data is ever built: tags other than YAML's own are refused.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import yaml

from bench.errors import SuiteError

KeyPath = tuple[str | int, ...]
# A suite has some hundreds of values; aliases of aliases can claim billions.
MAX_VALUES = 100_000
_RESOLVERS = (
    ("tag:yaml.org,2002:null", r"^(?:null|Null|NULL|~|)$", ["n", "N", "~", ""]),
    ("tag:yaml.org,2002:bool", r"^(?:true|True|TRUE|false|False|FALSE)$", list("tTfF")),
    ("tag:yaml.org,2002:int", r"^(?:[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+)$", list("-+0123456789")),
    (
        "tag:yaml.org,2002:float",
        r"^(?:[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?"
        r"|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)|-?Infinity|NaN)$",
        list("-+0123456789.IN"),
    ),
    ("tag:yaml.org,2002:merge", r"^<<$", ["<"]),
)


class _Loader(yaml.SafeLoader):
    """PyYAML's safe loader with YAML 1.2's rules for plain scalars."""

    yaml_implicit_resolvers: ClassVar[Any] = {}  # type: ignore[misc]  # PyYAML shares it by class


class _Dumper(yaml.SafeDumper):
    """Quotes every text that either YAML 1.1 or 1.2 would read as another type."""


def _represent_text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    # PyYAML leaves Unicode's line ends bare in single quotes, where its reader folds them to spaces.
    style = '"' if any(character in text for character in "\x85\u2028\u2029\ufeff") else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _represent_text)
for _tag, _pattern, _first in _RESOLVERS:
    _Loader.add_implicit_resolver(_tag, re.compile(_pattern), _first)
    _Dumper.add_implicit_resolver(_tag, re.compile(_pattern), _first)


def key_name(path: KeyPath) -> str:
    """``variants.matrix[0].sampler`` of ``("variants", "matrix", 0, "sampler")``."""
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path)
    return text.removeprefix(".")


@dataclass
class Document:
    """Plain data (``data``) of one file named ``source``; ``lines`` holds the line of a key or list item.

    ``overrides`` maps a path to the text of the ``--set`` that wrote it.
    """

    data: Any
    source: str
    lines: dict[KeyPath, int] = field(default_factory=dict)
    overrides: dict[KeyPath, str] = field(default_factory=dict)

    def where(self, path: KeyPath) -> str:
        """``file:line: key``, the line being that of the closest parent where the key is absent."""
        for end in range(len(path), -1, -1):
            if path[:end] in self.overrides:
                return f"--set {self.overrides[path[:end]]}: {key_name(path)}"
            if path[:end] in self.lines:
                place = f"{self.source}:{self.lines[path[:end]]}"
                return f"{place}: {key_name(path)}" if path else place
        return f"{self.source}: {key_name(path)}" if path else self.source

    def error(self, path: KeyPath, message: str) -> SuiteError:
        return SuiteError(f"{self.where(path)}: {message}")


def _foreign_tag(source: str, line: int, node: yaml.Node) -> SuiteError:
    allowed = "null, boolean, number, text, list and mapping"
    return SuiteError(f"{source}:{line}: found tag '{node.tag}'; only {allowed} are read.")


def _text(node: yaml.ScalarNode, source: str) -> str:
    text = node.value
    if any("\ud800" <= character <= "\udfff" for character in text):
        # JSON writes characters beyond the BMP as two escapes, which YAML reads one by one.
        try:
            text = text.encode("utf-16", "surrogatepass").decode("utf-16")
        except UnicodeDecodeError:
            line = node.start_mark.line + 1
            raise SuiteError(f"{source}:{line}: a lone surrogate is not a character.") from None
    return text


def _scalar(node: yaml.ScalarNode, source: str) -> Any:
    line = node.start_mark.line + 1
    text = _text(node, source)
    match node.tag.removeprefix("tag:yaml.org,2002:"):
        case "null":
            return None
        case "bool":
            return text.lower() == "true"
        case "str":
            return text
        case "int":
            base = {"0o": 8, "0x": 16}.get(text[:2], 10)
            try:
                return int(text, base) if base != 10 else int(text)
            except ValueError:
                raise SuiteError(f"{source}:{line}: '{text[:40]}' is not an integer.") from None
        case "float":
            try:
                value = float(text.lower().replace(".inf", "inf").replace(".nan", "nan"))
            except ValueError:
                raise SuiteError(f"{source}:{line}: '{text[:40]}' is not a number.") from None
            if math.isnan(value):
                raise SuiteError(f"{source}:{line}: found NaN; write a number, or null.")
            return value
    raise _foreign_tag(source, line, node)


class _Builder:
    def __init__(self, source: str):
        self.source = source
        self.lines: dict[KeyPath, int] = {}
        self.count = 0

    def build(self, node: yaml.Node, path: KeyPath, parents: tuple[int, ...] = ()) -> Any:
        line = node.start_mark.line + 1
        self.lines.setdefault(path, line)
        self.count += 1
        if self.count > MAX_VALUES:
            raise SuiteError(f"{self.source}:{line}: more than {MAX_VALUES} values; are aliases repeated?")
        if isinstance(node, yaml.ScalarNode):
            return _scalar(node, self.source)
        if id(node) in parents:
            raise SuiteError(f"{self.source}:{line}: an alias that contains itself.")
        if len(parents) > 100:
            raise SuiteError(f"{self.source}:{line}: nested more than 100 levels deep.")
        parents = (*parents, id(node))
        if isinstance(node, yaml.SequenceNode) and node.tag == "tag:yaml.org,2002:seq":
            return [self.build(item, (*path, i), parents) for i, item in enumerate(node.value)]
        if isinstance(node, yaml.MappingNode) and node.tag == "tag:yaml.org,2002:map":
            return self.mapping(node, path, parents)
        raise _foreign_tag(self.source, line, node)

    def mapping(self, node: yaml.MappingNode, path: KeyPath, parents: tuple[int, ...]) -> dict[str, Any]:
        own: dict[str, tuple[yaml.Node, int]] = {}
        merged: dict[str, Any] = {}
        for key_node, value_node in node.value:
            line = key_node.start_mark.line + 1
            if not isinstance(key_node, yaml.ScalarNode) or key_node.value == "":
                raise SuiteError(f"{self.source}:{line}: a key must be a word, and not empty.")
            key = _text(key_node, self.source)
            if key_node.tag == "tag:yaml.org,2002:merge":
                merged |= self.merge(value_node, path, parents)
                continue
            if key in own:
                raise SuiteError(
                    f"{self.source}:{line}: {key_name((*path, key))}: given twice, first on line "
                    f"{own[key][1]}. Keep one."
                )
            own[key] = (value_node, line)
        result = {key: value for key, value in merged.items() if key not in own}
        for key, (value_node, line) in own.items():
            self.lines[(*path, key)] = line
            result[key] = self.build(value_node, (*path, key), parents)
        return result

    def merge(self, node: yaml.Node, path: KeyPath, parents: tuple[int, ...]) -> dict[str, Any]:
        """``<<: *alias`` or a list of aliases, of which earlier ones win."""
        parts = node.value if isinstance(node, yaml.SequenceNode) else [node]
        result: dict[str, Any] = {}
        for part in parts:
            if not isinstance(part, yaml.MappingNode):
                raise SuiteError(f"{self.source}:{part.start_mark.line + 1}: '<<' takes a mapping.")
            content = self.build(part, path, parents)
            result = content | result
        return result


def parse_yaml(text: str, source: str) -> Document:
    """Plain data of one YAML document with the line of every key.

    Raises SuiteError naming ``source``, the line and, where known, the column: on broken syntax, a key
    given twice, a foreign tag, NaN, a second document.
    """
    try:
        loader = _Loader(text)
        try:
            node = loader.get_single_node()
            if node is None:
                return Document(None, source)
            builder = _Builder(source)
            return Document(builder.build(node, ()), source, builder.lines)
        finally:
            loader.dispose()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = f"{source}:{mark.line + 1}:{mark.column + 1}" if mark else source
        raise SuiteError(f"{place}: not valid YAML: {error.problem or error.context}.") from error
    except yaml.YAMLError as error:
        raise SuiteError(f"{source}: not valid YAML: {str(error).splitlines()[0]}.") from error
    except RecursionError:
        raise SuiteError(f"{source}: nested too deep to read.") from None


def read_yaml(path: Path) -> Document:
    """:func:`parse_yaml` of a UTF-8 file. Raises SuiteError where it cannot be read."""
    try:
        text = Path(path).read_text(encoding="utf-8")
    except OSError as error:
        raise SuiteError(f"{path}: cannot read the suite: {error.strerror or error}.") from error
    except UnicodeDecodeError as error:
        raise SuiteError(f"{path}: not UTF-8 text (byte {error.start}).") from error
    return parse_yaml(text, str(path))


def dump_yaml(value: Any) -> str:
    """YAML text of plain data that :func:`parse_yaml` and any YAML 1.1 or 1.2 reader read back equal."""
    return yaml.dump(value, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=100)


# --- environment variables -----------------------------------------------------------------------

_REFERENCE = re.compile(r"\$\$\{|\$\{([A-Za-z_][A-Za-z0-9_]*)\}|\$\{")


def _strings(value: Any, path: KeyPath = ()) -> Iterator[tuple[Any, str | int, KeyPath]]:
    """Every (container, key, path) whose value is a string."""
    items: Any = value.items() if isinstance(value, dict) else enumerate(value)
    for key, item in items:
        if isinstance(item, str):
            yield value, key, (*path, key)
        elif isinstance(item, dict | list):
            yield from _strings(item, (*path, key))


def expand_variables(document: Document, environment: Mapping[str, str] | None = None) -> None:
    """Replaces ``${NAME}`` in every string value, in place; ``$${`` stands for a plain ``${``.

    Raises SuiteError naming file, line, key and variable where the variable is not set.
    """
    environment = os.environ if environment is None else environment
    if not isinstance(document.data, dict | list):
        return
    for container, key, path in list(_strings(document.data)):

        def replace(match: re.Match[str], path: KeyPath = path) -> str:
            if match[0] == "$${":
                return "${"
            if match[1] is None:
                raise document.error(
                    path, "'${' opens a variable. Write '${NAME}', or '$${' for the text '${'."
                )
            if match[1] not in environment:
                raise document.error(path, f"environment variable '{match[1]}' is not set. Export it first.")
            return environment[match[1]]

        container[key] = _REFERENCE.sub(replace, container[key])


def escape_variables(value: Any) -> Any:
    """Plain data in which :func:`expand_variables` changes nothing but undo this."""
    if isinstance(value, str):
        return value.replace("${", "$${")
    if isinstance(value, dict):
        return {key: escape_variables(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [escape_variables(item) for item in value]
    return value
