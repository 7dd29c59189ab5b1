"""What went into an artifact, and what sets two apart, from the headers in the store alone."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from bench.artifacts import ArtifactStore
from bench.cli_output import print_table, size
from bench.errors import ArtifactError, BenchError
from bench.identity import VERSIONS
from bench.keys import canonical_json

SHORTEST = 6
NESTED = " > "  # between a path in an artifact's inputs and one in those of what it is made from
ABSENT = "(absent)"
_KEY = re.compile(r"[0-9a-f]{16}")
_PREFIX = re.compile(rf"[0-9a-f]{{{SHORTEST},16}}")


@dataclass(frozen=True)
class StoredPart:
    """One object of the store; ``bytes`` is its payload's length, or ``problem`` says why it is not known."""

    kind: str
    name: str
    bytes: int | None
    problem: str | None = None


@dataclass(frozen=True)
class Explanation:
    """All that is stored under one key, and the ``inputs`` that determine it.

    ``made_from`` are the same inputs path by path, with keys of stored artifacts after their kind.
    """

    key: str
    kind: str
    inputs: Mapping[str, Any]
    made_from: Mapping[str, Any]
    parts: tuple[StoredPart, ...]

    def to_plain(self) -> dict[str, Any]:
        """Plain JSON data."""
        return {**asdict(self), "bytes": sum(part.bytes or 0 for part in self.parts)}


@dataclass(frozen=True)
class Difference:
    """One input in which two artifacts differ. ``path`` leads from the artifacts' own inputs to those of what
    they are made from."""

    path: str
    old: Any
    new: Any


class Catalogue:
    """A store's keys, listed once, and their headers, read when asked for."""

    def __init__(self, store: ArtifactStore):
        self.store = store
        self.names: dict[str, dict[str, list[str]]] = {}
        for kind, key, name in store.places():
            self.names.setdefault(key, {}).setdefault(kind, []).append(name)
        self._inputs: dict[str, Mapping[str, Any] | None] = {}

    def find(self, prefix: str) -> str:
        """The only key that begins with ``prefix``. Raises BenchError, with the nearest keys, for another."""
        text = prefix.strip().lower()
        if not _PREFIX.fullmatch(text):
            raise BenchError(
                f"'{prefix}' is no key: give {SHORTEST} to 16 of the characters 0-9 and a-f, "
                "as 'plan' shows them."
            )
        found = [key for key in self.names if key.startswith(text)]
        if len(found) == 1:
            return found[0]
        if found:
            raise BenchError(
                f"'{prefix}' is the beginning of {len(found)} keys: {self._listed(found)}. Give more of it."
            )
        near = difflib.get_close_matches(text, [key[: len(text)] for key in self.names], n=3, cutoff=0.5)
        nearest = [key for key in self.names if key[: len(text)] in near][:3]
        remedy = f"Nearest: {self._listed(nearest)}." if nearest else "'plan SUITE' lists a suite's keys."
        raise BenchError(f"no artifact in '{self.store.root}' has the key '{prefix}'. {remedy}")

    def _listed(self, keys: list[str]) -> str:
        return ", ".join(self.label(key) for key in keys)

    def kind(self, key: str) -> str:
        """What a key is the key of; images lie under the key of their samples, for instance."""
        kinds = self.names[key]
        return next((kind for kind in VERSIONS if kind in kinds), min(kinds))

    def label(self, key: str) -> str:
        """``samples 0123456789abcdef``."""
        return f"{self.kind(key)} {key}"

    def inputs(self, key: str) -> Mapping[str, Any] | None:
        """What determines a stored artifact, from the first of its parts whose header can be read."""
        if key not in self._inputs:
            self._inputs[key] = None
            kind = self.kind(key)
            for name in self.names[key][kind]:
                try:
                    self._inputs[key] = self.store.header(kind, key, name)["inputs"]
                    break
                except ArtifactError:
                    continue
        return self._inputs[key]

    def parts(self, key: str) -> Iterator[StoredPart]:
        for kind in sorted(self.names[key], key=lambda kind: (kind != self.kind(key), kind)):
            for name in self.names[key][kind]:
                try:
                    yield StoredPart(kind, name, self.store.header(kind, key, name)["bytes"])
                except ArtifactError as error:
                    yield StoredPart(kind, name, None, str(error))


def explain(store: ArtifactStore, prefix: str) -> Explanation:
    """What is stored under the key that begins with ``prefix``. Raises BenchError for none or several."""
    catalogue = Catalogue(store)
    key = catalogue.find(prefix)
    inputs = _inputs(catalogue, key)
    made_from = {
        path: catalogue.label(value) if isinstance(value, str) and value in catalogue.names else value
        for path, value in flat(inputs)
    }
    return Explanation(key, catalogue.kind(key), inputs, made_from, tuple(catalogue.parts(key)))


def compare(store: ArtifactStore, first: str, second: str) -> tuple[str, str, list[Difference]]:
    """The labels of two artifacts and all inputs in which they differ, those of what they are made from
    included. Raises BenchError for an unknown or ambiguous key."""
    catalogue = Catalogue(store)
    a, b = catalogue.find(first), catalogue.find(second)
    found: list[Difference] = []
    if catalogue.kind(a) != catalogue.kind(b):
        found.append(Difference("kind", catalogue.kind(a), catalogue.kind(b)))
    _Comparison(catalogue, found).values(_inputs(catalogue, a), _inputs(catalogue, b), "")
    return catalogue.label(a), catalogue.label(b), found


def _inputs(catalogue: Catalogue, key: str) -> Mapping[str, Any]:
    inputs = catalogue.inputs(key)
    if inputs is None:
        raise BenchError(
            f"no header of {catalogue.label(key)} in '{catalogue.store.root}' can be read: its objects are "
            "corrupt. Remove them and run again."
        )
    return inputs


def flat(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Path and value of everything in plain data that holds nothing else: ``sampler.config.steps``, 20."""
    items = _items(value)
    if not items:
        yield path, value
    for step, item in items.items():
        yield from flat(item, _joined(path, step))


def _items(value: Any) -> dict[str, Any]:
    if isinstance(value, Mapping):
        return {str(key): item for key, item in value.items()}
    if isinstance(value, list | tuple):
        return {f"[{i}]": item for i, item in enumerate(value)}
    return {}


def _joined(path: str, step: str) -> str:
    if not path or path.endswith(NESTED) or step.startswith("["):
        return path + step
    return f"{path}.{step}"


class _Comparison:
    """Compares inputs path by path and follows keys into what they are keys of, each two keys once."""

    def __init__(self, catalogue: Catalogue, found: list[Difference]):
        self.catalogue, self.found = catalogue, found
        self.seen: dict[tuple[str, str], str] = {}

    def values(self, old: Any, new: Any, path: str) -> None:
        if old == new and type(old) is type(new):
            return
        a, b = _items(old), _items(new)
        if a and b and isinstance(old, Mapping) == isinstance(new, Mapping):
            for step in dict.fromkeys([*a, *b]):
                self.values(a.get(step, ABSENT), b.get(step, ABSENT), _joined(path, step))
        elif self._are_keys(old, new):
            self._artifacts(old, new, path)
        else:
            self.found.append(Difference(path, self._named(old), self._named(new)))

    def _are_keys(self, *values: Any) -> bool:
        """Whether all are keys of stored artifacts of one kind, with headers."""
        names = self.catalogue.names
        return (
            all(isinstance(value, str) and value in names for value in values)
            and len({self.catalogue.kind(value) for value in values}) == 1
            and all(self.catalogue.inputs(value) is not None for value in values)
        )

    def _artifacts(self, old: str, new: str, path: str) -> None:
        label = self.catalogue.label
        if (old, new) in self.seen:
            first = self.seen[old, new]
            self.found.append(Difference(path, label(old), f"{label(new)}, which differs as under {first}"))
            return
        self.seen[old, new] = path
        self.values(self.catalogue.inputs(old), self.catalogue.inputs(new), path + NESTED)

    def _named(self, value: Any) -> Any:
        """A key with its kind, or, where it looks like one and is not stored, with a word that it is not."""
        if not isinstance(value, str) or not _KEY.fullmatch(value):
            return value
        return self.catalogue.label(value) if value in self.catalogue.names else f"{value} (not stored)"


def print_explanation(found: Explanation) -> None:
    """Inputs and parts as tables."""
    rows = [[path, _text(value)] for path, value in found.made_from.items()]
    print_table(f"{found.kind} {found.key}", ["made from", "value"], rows)
    parts = [[part.kind, part.name, part.problem or size(part.bytes or 0)] for part in found.parts]
    total = sum(part.bytes or 0 for part in found.parts)
    print_table(f"{len(parts)} parts, {size(total)}", ["kind", "part", "size"], parts, right=["size"])


def print_comparison(old: str, new: str, differences: list[Difference]) -> None:
    """One row per difference."""
    title = f"{old} -> {new}: {len(differences)} difference{'s' * (len(differences) != 1)}"
    rows = [[item.path, _text(item.old), _text(item.new)] for item in differences]
    print_table(title, ["input", "old", "new"], rows)


def _text(value: Any) -> str:
    return value if isinstance(value, str) else canonical_json(value)
