"""What a check found: verdicts and faults, and where two pieces of plain data differ, in words."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from bench.errors import BenchError
from bench.store import finite
from bench.types import Score

SHOWN = 60
# Intervals and biases are small differences of large numbers: another processor's rounding shows in them.
_DERIVED = ("interval", "details")
_DERIVED_RELATIVE = 1e-5


@dataclass(frozen=True)
class Fault:
    """Something that does not stand: the file or artifact, what in it, what it should be, what it is."""

    where: str
    what: str
    expected: str
    found: str


@dataclass
class Verdict:
    """On one cell (or the run): what stands, what does not, what could not be checked and why."""

    cell: str
    stands: list[str] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)
    unchecked: list[str] = field(default_factory=list)

    def check(self, name: str, faults: Iterator[Fault]) -> bool:
        """Notes ``name`` as standing, or the faults; an error within is one too. Whether it stands."""
        before = len(self.faults)
        try:
            self.faults += faults
        except Exception as error:  # what a record or artifact holds may break whoever reads it
            self.faults.append(Fault(name, "cannot be checked", "sound", described(error)))
        if len(self.faults) == before:
            self.stands.append(name)
        return len(self.faults) == before


def described(error: Exception) -> str:
    """An error in words, with its type where the message alone may not say enough."""
    return str(error) if isinstance(error, BenchError) else f"{type(error).__name__}: {error}"


def close(expected: Any, found: Any, rel: float) -> bool:
    """Whether numbers are equal to a relative ``rel``, and all else is equal."""
    numbers = isinstance(expected, int | float) and isinstance(found, int | float)
    if numbers and not isinstance(expected, bool) and not isinstance(found, bool):
        return math.isclose(expected, found, rel_tol=rel)
    return type(expected) is type(found) and expected == found


def differences(expected: Any, found: Any, rel: float, path: str = "") -> Iterator[tuple[str, str, str]]:
    """(path, expected, found) of every leaf of plain data that differs."""
    if isinstance(expected, Mapping) and isinstance(found, Mapping):
        for key in dict.fromkeys([*expected, *found]):
            inner = f"{path}.{key}" if path else str(key)
            yield from differences(expected.get(key, _ABSENT), found.get(key, _ABSENT), rel, inner)
    elif isinstance(expected, list) and isinstance(found, list) and len(expected) == len(found):
        for k, pair in enumerate(zip(expected, found)):
            yield from differences(*pair, rel, f"{path}[{k}]")
    elif not close(expected, found, rel):
        yield path, shown(expected), shown(found)


class _Absent:
    def __repr__(self) -> str:
        return "absent"


_ABSENT = _Absent()


def shown(value: Any) -> str:
    """A value in a line of text, cut where it is long."""
    text = " ".join(str(value).split()) if isinstance(value, str) else repr(value)
    return text if len(text) <= SHOWN else text[: SHOWN - 1] + "…"


def score_faults(
    where: str, what: str, expected: Sequence[Score], found: Sequence[Score], rel: float
) -> Iterator[Fault]:
    """Scores that differ; a score is known by its metric, judge and step."""

    def named(scores: Sequence[Score]) -> dict[str, Any]:
        table: dict[str, Any] = {}
        for score in scores:
            name = f"{score.metric} ({score.judge})" if score.judge else score.metric
            name += "" if score.step is None else f" at step {score.step}"
            while name in table:  # two metrics of one kind and judge: told apart by their order
                name += "'"
            table[name] = finite(asdict(score))
        return table

    a, b = named(expected), named(found)
    for name in dict.fromkeys([*a, *b]):
        if name not in a or name not in b:
            yield Fault(where, f"{what} {name}", *("there" if name in side else "none" for side in (a, b)))
            continue
        leaves: list[tuple[str, str, str]] = []
        for derived, tolerance in ((False, rel), (True, max(rel, _DERIVED_RELATIVE))):
            wanted, got = (
                {k: v for k, v in side[name].items() if (k in _DERIVED) == derived} for side in (a, b)
            )
            leaves += differences(wanted, got, tolerance)
        for path, expectation, finding in leaves:
            label = "" if path == "value" else f", {path}"
            yield Fault(where, f"{what} {name}{label}", expectation, finding)


def table_faults(where: str, expected: pd.DataFrame, found: pd.DataFrame, rel: float) -> Iterator[Fault]:
    """Columns of a table that differ, each with its first row."""
    if len(expected) != len(found):
        yield Fault(where, "rows", str(len(expected)), str(len(found)))
        return
    for column in dict.fromkeys([*expected, *found]):
        if column not in expected or column not in found:
            sides = ("there" if column in side else "none" for side in (expected, found))
            yield Fault(where, f"column {column}", *sides)
            continue
        a, b = expected[column].to_numpy(), found[column].to_numpy()
        if all(np.issubdtype(side.dtype, np.floating) for side in (a, b)):
            wrong = ~np.isclose(b, a, rtol=rel, atol=0.0, equal_nan=True)
        else:
            wrong = np.array([not _same(x, y) for x, y in zip(a.tolist(), b.tolist())], bool)
        if wrong.any():
            row = int(wrong.argmax())
            yield Fault(where, f"column {column}, row {row}", shown(a.tolist()[row]), shown(b.tolist()[row]))


def _same(a: Any, b: Any) -> bool:
    return a == b or (pd.isna(a) and pd.isna(b))


def plain_faults(where: str, what: str, expected: Any, found: Any, rel: float = 0.0) -> Iterator[Fault]:
    """Leaves of plain data (or of dataclasses) that differ."""

    def plain(value: Any) -> Any:
        return finite(asdict(value) if hasattr(value, "__dataclass_fields__") else value)

    for path, wanted, got in differences(plain(expected), plain(found), rel):
        dot = "" if not path or path.startswith("[") else "."
        yield Fault(where, f"{what}{dot}{path}", wanted, got)
