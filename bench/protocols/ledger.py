"""The published ledger: numbers from papers and repositories, and whether a run reproduces them.

``suites/published.csv`` has one published number a row. A variant of a suite declares which it is meant to
reproduce (``reproduces``); the verdict compares protocols first, as far as the publication states its own,
and values after that.
"""

from __future__ import annotations

import csv
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from bench.errors import DataError, nearest
from bench.protocols.shipped import NAMES

_NUMBER = r"[0-9]+(?:\.[0-9]+)?"


@dataclass(frozen=True, kw_only=True)
class Reproduces:
    """The published number that a variant is meant to reproduce: one row of the ledger.

    ``system`` and ``metric`` name it; ``dataset``, ``n_samples`` and ``resolution`` tell rows of one name
    apart. ``score`` is our metric's id where it does not follow from ``metric``. The measured value may be
    ``tolerance`` away, in the metric's own unit.
    """

    system: str
    metric: str
    tolerance: Annotated[float, Field(ge=0)]
    dataset: str | None = None
    n_samples: int | None = None
    resolution: int | None = None
    score: str | None = None


@dataclass(frozen=True, kw_only=True)
class Published:
    """One row. ``low`` and ``high`` bound the printed value: equal for a number, apart for a range, infinite
    on one side for a bound; None where no source gives the value. Blank columns are what is not stated."""

    system: str
    metric: str
    value: str
    dataset: str
    split: str
    n_samples: int | None
    resolution: int | None
    extractor: str
    protocol: str
    notes: str
    source: str
    line: int = 0
    low: float | None = None
    high: float | None = None

    @property
    def unstated(self) -> list[str]:
        """What of its protocol the publication does not say."""
        known = {
            name: getattr(self, name) for name in ("dataset", "split", "n_samples", "resolution", "extractor")
        }
        if self.protocol:  # a shipped protocol says all of it
            return []
        return [name for name, value in known.items() if value in (None, "")]


COLUMNS = tuple(item.name for item in fields(Published) if item.name not in ("line", "low", "high"))


def default_ledger() -> Path:
    """``suites/published.csv`` of the working folder, or else of the source tree that this code lies in."""
    here = Path("suites") / "published.csv"
    beside = Path(__file__).parents[2] / here
    return beside if beside.is_file() and not here.is_file() else here


def read_ledger(path: Path) -> list[Published]:
    """The rows of a ledger. Raises DataError naming file, line and column: another set of columns, a value
    that is neither a number, a range nor a bound, an unknown protocol, a number without a source, a row that
    is there twice."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"ledger '{path}' cannot be read: {error}.") from error
    reader = csv.DictReader(text.splitlines(), strict=True)
    found = tuple(reader.fieldnames or ())
    if set(found) != set(COLUMNS) or len(found) != len(COLUMNS):
        missing, more = [c for c in COLUMNS if c not in found], [c for c in found if c not in COLUMNS]
        raise DataError(
            f"ledger '{path}', line 1: columns must be {', '.join(COLUMNS)}; missing: "
            f"{', '.join(missing) or 'none'}; unknown: {', '.join(map(str, more)) or 'none'}."
        )
    rows: list[Published] = []
    seen: dict[tuple[Any, ...], int] = {}
    try:
        for raw in reader:
            row = _row(f"ledger '{path}', line {reader.line_num}", raw, reader.line_num)
            key = tuple(getattr(row, name) for name in COLUMNS)
            if key in seen:
                raise DataError(
                    f"ledger '{path}', line {row.line}: the same as line {seen[key]}. Remove one."
                )
            seen[key] = row.line
            rows.append(row)
    except csv.Error as error:
        raise DataError(f"ledger '{path}', line {reader.line_num}: {error}.") from error
    if not rows:
        raise DataError(f"ledger '{path}': no row in it.")
    return rows


def _row(where: str, raw: Mapping[Any, Any], line: int) -> Published:
    if None in raw or any(value is None for value in raw.values()):
        raise DataError(f"{where}: expected {len(COLUMNS)} columns. Quote texts that hold commas.")
    text = {name: str(value).strip() for name, value in raw.items()}
    for name in ("system", "metric"):
        if not text[name]:
            raise DataError(f"{where}: {name} is blank; every row names one.")
    if text["value"] and not text["source"]:
        raise DataError(f"{where}: value {text['value']} has no source. Say where it is printed.")
    if text["protocol"] and text["protocol"] not in NAMES:
        raise DataError(
            f"{where}: protocol: unknown '{text['protocol']}'.{nearest(text['protocol'], NAMES)} Allowed: "
            f"blank, {', '.join(NAMES)}."
        )
    low, high = _bounds(where, text["value"])
    return Published(
        **{name: text[name] for name in COLUMNS if name not in ("n_samples", "resolution")},
        n_samples=_whole(where, "n_samples", text["n_samples"]),
        resolution=_whole(where, "resolution", text["resolution"]),
        line=line,
        low=low,
        high=high,
    )


def _whole(where: str, name: str, text: str) -> int | None:
    if not text:
        return None
    if not text.isascii() or not text.isdigit() or int(text) < 1:
        raise DataError(f"{where}: {name}: found '{text}', expected a whole number from 1, or nothing.")
    return int(text)


def _bounds(where: str, text: str) -> tuple[float | None, float | None]:
    if not text:
        return None, None
    if match := re.fullmatch(_NUMBER, text):
        return float(text), float(text)
    if match := re.fullmatch(rf"({_NUMBER})-({_NUMBER})", text):
        low, high = float(match[1]), float(match[2])
        if low <= high:
            return low, high
    if match := re.fullmatch(rf"([<>])({_NUMBER})", text):
        bound = float(match[2])
        return (bound, math.inf) if match[1] == ">" else (-math.inf, bound)
    raise DataError(
        f"{where}: value: found '{text}', expected a number, a range such as 23.0-23.9, a bound such as >18, "
        "or nothing where no source gives it."
    )


def chosen_row(ledger: Sequence[Published], wanted: Reproduces) -> Published:
    """The one row that a suite names. Raises DataError where none or several fit."""
    named = [row for row in ledger if row.system == wanted.system]
    if not named:
        systems = list(dict.fromkeys(row.system for row in ledger))
        raise DataError(
            f"the ledger has no system '{wanted.system}'.{nearest(wanted.system, systems)} Systems: "
            f"{', '.join(systems[:12])}, …"
        )
    narrow = {
        name: value for name, value in asdict(wanted).items()
        if name in ("metric", "dataset", "n_samples", "resolution") and value is not None
    }  # fmt: skip
    fitting = [row for row in named if all(getattr(row, key) == value for key, value in narrow.items())]
    if len(fitting) == 1:
        return fitting[0]
    listed = "; ".join(
        f"line {row.line}: {row.metric} {row.value} on {row.dataset}" for row in fitting or named
    )
    which = "several rows fit" if fitting else "no row fits"
    raise DataError(f"{which} {narrow} of '{wanted.system}' in the ledger ({listed}). Name one of them.")
