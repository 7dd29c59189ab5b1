"""Intervals of metrics that are no means over samples: a group of samples left out at a time.

A bootstrap repeats samples. What nearest neighbours, kernels or covariances make of repeated samples is not
what they make of new ones: measured on Fréchet distances, its intervals are up to three times too wide
(docs/uncertainty.md). Leaving out repeats none.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from bench.statistics.design import Design
from bench.statistics.means import Interval, student_interval


@dataclass(frozen=True, eq=False)
class LeftOut:
    """A statistic and what it is with each of K groups of samples left out; ``sizes_K`` counts the samples
    of each group. ``bias`` is its expected excess over what infinitely many samples would give, where known,
    within ``bias_error`` (a bound: uniformly distributed); ``note`` says what is not."""

    value: float
    values_K: np.ndarray
    sizes_K: np.ndarray
    bias: float | None = None
    bias_error: float = 0.0
    note: str = ""
    details: Mapping[str, Any] = field(default_factory=dict)

    @property
    def corrected(self) -> float:
        """The value without its bias, where that is known."""
        return self.value - (self.bias or 0.0)

    @property
    def se(self) -> float:
        """The standard error (:func:`standard_error`)."""
        return standard_error(self.value, self.values_K, self.sizes_K)

    def interval(self, label: str) -> Interval:
        """value - bias ± t · se with K - 1 degrees of freedom; the bias' own error counts in se."""
        groups = int((self.sizes_K > 0).sum())
        method = f"jackknife, {groups} groups of {label}"
        if self.bias is not None:
            method += ", small-n bias removed"
        if self.note:
            method += f"; {self.note}"
        se = float(np.hypot(self.se, self.bias_error / np.sqrt(3)))
        return student_interval(self.corrected, se, groups - 1, method)


def standard_error(value: float, values_K: np.ndarray, sizes_K: np.ndarray) -> float:
    """Delete-a-group jackknife for groups of unequal size (Busing, Meijer and van der Leeden 1999); groups
    without samples do not count."""
    values, sizes = values_K[sizes_K > 0], sizes_K[sizes_K > 0]
    h = sizes.sum() / sizes
    pseudo = h * value - (h - 1) * values
    centre = len(h) * value - ((1 - 1 / h) * values).sum()
    return float(np.sqrt((np.square(pseudo - centre) / (h - 1)).mean()))


def leave_out(
    statistic: Callable[[np.ndarray], Mapping[str, float]], design: Design
) -> dict[str, np.ndarray]:
    """Name of each statistic → its values with each group left out, (K,), NaN for groups without samples.

    ``statistic`` gets the rows that stay; a name that one of its results lacks is left out.
    """
    rows = {k: np.flatnonzero(design.group_N != k) for k in np.flatnonzero(design.sizes_K).tolist()}
    found = {k: statistic(stay) for k, stay in rows.items() if len(stay)}
    names = set.intersection(*(set(item) for item in found.values())) if found else set()
    values = {}
    for name in sorted(names):
        values[name] = np.full(design.num_groups, np.nan)
        values[name][list(found)] = [item[name] for item in found.values()]
    return values
