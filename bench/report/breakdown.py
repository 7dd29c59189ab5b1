"""Scores by class and by attribute: means of per-sample columns over the samples that demand a value."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import pandas as pd

# What of a per-sample table is no score.
NOT_SCORES = frozenset(
    ("index", "condition_id", "kind", "text", "labels", "replicate", "seed", "energy", "failed_step")
)
MOST_VALUES = 40


@dataclass(frozen=True)
class Cut:
    """One column by one attribute: of each variant mean, 95 % interval (low, high) and n by value."""

    attribute: str
    column: str
    values: tuple[str, ...]
    rows: Mapping[str, Mapping[str, tuple[float, float, float, int]]]


def score_columns(table: pd.DataFrame) -> list[str]:
    """The per-sample columns that are numbers of one sample each."""
    return [
        name
        for name in table.columns
        if name not in NOT_SCORES and pd.api.types.is_numeric_dtype(table[name].dtype)
    ]


def cuts(tables: Mapping[str, pd.DataFrame]) -> list[Cut]:
    """Of each attribute that conditions demand and each score, the means by value; ``tables`` by variant.

    A class condition's attributes are what its labels say. Intervals are Wilson's for shares and Student's t
    over samples for other numbers, at 95 %; failed samples are left out. Attributes of one value, or more
    than forty, are too.
    """
    labelled = {name: (table, _labels(table)) for name, table in tables.items()}
    values: dict[str, dict[str, None]] = {}
    for _, labels in labelled.values():
        for attribute in labels.columns:
            values.setdefault(attribute, {}).update(
                dict.fromkeys(sorted(labels[attribute].dropna().unique()))
            )
    columns = dict.fromkeys(name for table, _ in labelled.values() for name in score_columns(table))
    found = []
    for attribute, names in values.items():
        if not 2 <= len(names) <= MOST_VALUES:
            continue
        for column in columns:
            rows = {
                variant: _means(table, labels[attribute], column)
                for variant, (table, labels) in labelled.items()
                if column in table and attribute in labels
            }
            found.append(Cut(attribute, column, tuple(names), {k: v for k, v in rows.items() if v}))
    return [cut for cut in found if cut.rows]


def _labels(table: pd.DataFrame) -> pd.DataFrame:
    """One column per attribute, of text; missing where a sample does not demand it."""
    if "labels" not in table:
        return pd.DataFrame(index=table.index)
    known: dict[str, dict[str, str]] = {}
    for text in table["labels"].unique():
        try:
            plain = json.loads(text)
        except (TypeError, ValueError):
            plain = {}
        known[text] = plain if isinstance(plain, dict) else {}
    frame = pd.DataFrame([known[text] for text in table["labels"]], index=table.index)
    return frame.map(lambda value: value if isinstance(value, str) else None)


def _means(table: pd.DataFrame, labels: pd.Series, column: str) -> dict[str, tuple[float, float, float, int]]:
    good = labels.notna().to_numpy(copy=True)
    if "failed_step" in table:
        good &= table["failed_step"].to_numpy() < 0
    all_numbers = table[column].to_numpy(dtype=float)
    good &= ~np.isnan(all_numbers)
    values, which = np.unique(labels.to_numpy()[good].astype(str), return_inverse=True)
    interval = wilson_interval if table[column].dtype == bool else mean_interval
    found = {}
    for k, value in enumerate(values.tolist()):
        numbers = all_numbers[good][which == k]
        found[value] = (float(numbers.mean()), *interval(numbers), len(numbers))
    return found


def wilson_interval(zeros_and_ones: np.ndarray, z: float = 1.959963984540054) -> tuple[float, float]:
    """Wilson's score interval of a share, 95 %. Source: Wilson 1927, JASA 22(158)."""
    n, p = len(zeros_and_ones), float(zeros_and_ones.mean())
    centre = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    return max(0.0, centre - half), min(1.0, centre + half)


def mean_interval(numbers: np.ndarray) -> tuple[float, float]:
    """Student's 95 % interval of a mean; NaN for a single number."""
    if len(numbers) < 2:
        return math.nan, math.nan
    half = _student(len(numbers) - 1) * numbers.std(ddof=1) / math.sqrt(len(numbers))
    return float(numbers.mean() - half), float(numbers.mean() + half)


@lru_cache(maxsize=1024)
def _student(freedom: int) -> float:
    from scipy import special

    return float(special.stdtrit(freedom, 0.975))
