"""Two variants on the same prompts and seeds: by how much they differ, and whether that is more than chance.

A mean over samples is compared sample by sample. Any other metric is compared by its values with groups of
samples left out, which a record holds: the same groups in both cells, so that what both owe to hard prompts
and lucky noise cancels. Of a Fréchet distance the values without small-n bias are compared.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import pandas as pd
import scipy  # whose parts are loaded when first used

from bench.errors import ResultError
from bench.statistics.design import Design
from bench.statistics.leave_out import Pairs, standard_error
from bench.statistics.means import ALPHA, linear, unit_totals
from bench.types import Better, Condition, Score

JACKKNIFE = "jackknife"
_SAME = ("condition_id", "replicate", "seed")


@dataclass(frozen=True, kw_only=True)
class Side:
    """One of two cells: what it is called, its scores of the final samples, its per-sample table."""

    name: str
    scores: Sequence[Score]
    samples: pd.DataFrame


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Of one metric, ``difference`` = b - a with its 95 % interval, ``p`` of no difference (two-sided).

    ``se`` is its standard error, ``effect`` the difference in standard deviations of a sample's difference
    (Cohen's d_z, for clustered samples with the effective deviation). ``p_holm`` is p corrected for all
    comparisons of a table, p itself until :func:`holm` is applied. ``n`` counts samples in both, ``method``
    says how it was found.
    """

    metric: str
    title: str
    judge: str | None
    better: Better
    a: str
    b: str
    difference: float
    se: float
    interval: tuple[float, float]
    p: float
    p_holm: float
    effect: float
    n: int
    method: str

    @property
    def distinguishable(self) -> bool:
        """Whether b differs from a by more than chance, with all comparisons counted (5 % in all)."""
        return self.p_holm < ALPHA

    @property
    def verdict(self) -> Literal["better", "worse", "different", "not distinguishable"]:
        """Of b against a; "different" where the metric has no better direction."""
        if not self.distinguishable:
            return "not distinguishable"
        if self.better == "none":
            return "different"
        return "better" if (self.difference > 0) == (self.better == "higher") else "worse"


def compare_paired(a: Side, b: Side, metrics: Iterable[str] | None = None) -> list[Comparison]:
    """Every metric that both cells have (or those named), compared; in the order of a's scores.

    Left out are metrics without per-sample values or left-out groups, such as timings. Raises ResultError
    where the cells were not drawn for the same prompts and seeds.
    """
    check_paired(a, b)
    wanted = None if metrics is None else set(metrics)
    others = {(score.metric, score.judge): score for score in b.scores}
    ok = (a.samples["failed_step"].to_numpy() < 0) & (b.samples["failed_step"].to_numpy() < 0)
    design = table_design(a.samples).take(np.flatnonzero(ok))
    found = []
    for score in a.scores:
        other = others.get((score.metric, score.judge))
        if other is None or score.step is not None or (wanted is not None and score.metric not in wanted):
            continue
        if JACKKNIFE in score.details and JACKKNIFE in other.details:
            result = _by_group(score, other)
        else:
            columns = [values_of(score, side.samples) for side in (a, b)]
            if columns[0] is None or columns[1] is None:
                continue
            result = _by_sample(columns[1][ok] - columns[0][ok], design)
        if result is not None:
            found.append(_comparison(score, a.name, b.name, *result, n=int(ok.sum())))
    return found


def check_paired(a: Side, b: Side) -> None:
    """Raises ResultError where two cells were not drawn for the same prompts and seeds in the same order."""
    for side in (a, b):
        missing = {*_SAME, "kind", "failed_step"} - set(side.samples)
        if missing:
            raise ResultError(f"the samples of '{side.name}' have no {min(missing)}: run the suite again.")
    for column in _SAME:
        left, right = (side.samples[column].to_numpy() for side in (a, b))
        if len(left) != len(right):
            raise ResultError(
                f"'{a.name}' has {len(left)} samples and '{b.name}' {len(right)}: pairs need as many of both."
            )
        if not np.array_equal(left, right):
            row = int((left != right).argmax())
            here, there = left.tolist()[row], right.tolist()[row]
            raise ResultError(
                f"sample {row} of '{a.name}' has {column} {here!r}, that of '{b.name}' {there!r}: "
                "pairs need the same prompts and seeds. Run both with the same data and suite seed."
            )


def table_design(samples: pd.DataFrame) -> Design:
    """The design of a per-sample table's rows."""
    rows = zip(samples["condition_id"], samples["kind"])
    return Design.of([Condition(id=str(name), kind=kind) for name, kind in rows])


def values_of(score: Score, samples: pd.DataFrame) -> np.ndarray | None:
    """The per-sample values (N,) float64 that a score is the mean of, or None where it is no such mean."""
    if score.metric in samples and samples[score.metric].dtype.kind in "bfiu":
        return samples[score.metric].to_numpy(np.float64)
    return None


def left_out_of(score: Score) -> tuple[float, np.ndarray, np.ndarray] | None:
    """What a score keeps of the groups left out: value without bias, values (K,), sizes (K,)."""
    kept: Mapping[str, Any] | None = score.details.get(JACKKNIFE)
    if kept is None:
        return None
    values = np.array([math.nan if v is None else v for v in kept["values"]], float)
    return score.value - float(kept["bias"] or 0.0), values, np.array(kept["sizes"], float)


Result = tuple[float, float, float, str]  # difference, standard error, degrees of freedom, method


def _by_sample(differences_N: np.ndarray, design: Design) -> Result | None:
    if design.num_units < 2 or not np.isfinite(differences_N).all():
        return None
    found = linear(*unit_totals(differences_N, design), design.stratum_U)
    return found.mean, found.se, found.df, f"paired t over {design.label}"


def _by_group(a: Score, b: Score) -> Result | None:
    """From values with the same groups left out; None where they were others."""
    left, right = left_out_of(a), left_out_of(b)
    if left is None or right is None or a.details[JACKKNIFE]["digest"] != b.details[JACKKNIFE]["digest"]:
        return None
    bias_known = [score.details[JACKKNIFE]["bias"] is not None for score in (a, b)]
    difference = right[0] - left[0] if all(bias_known) else b.value - a.value
    both = np.isfinite(left[1]) & np.isfinite(right[1])
    if both.sum() < 2:
        return None
    sizes = np.where(both, (left[2] + right[2]) / 2, 0.0)
    change = np.where(both, right[1] - left[1], 0.0)
    se = standard_error(b.value - a.value, change, sizes, _changed_pairs(a, b, both), difference)
    return difference, se, int(both.sum()) - 1, f"paired jackknife, {int(both.sum())} groups"


def _changed_pairs(a: Score, b: Score, both_K: np.ndarray) -> Pairs | None:
    """By how much values without pairs of groups differ; None where a record has none of the same pairs, as
    those of older versions."""
    left, right = (score.details[JACKKNIFE].get("pairs") for score in (a, b))
    if left is None or right is None or left["groups"] != right["groups"]:
        return None
    if "left" not in left or "left" not in right:  # nor have some how many samples stayed
        return None
    groups = np.array(left["groups"], int).reshape(-1, 2)
    changed = np.array(right["values"], float) - np.array(left["values"], float)
    usable = both_K[groups].all(1)
    stay = (np.array(left["left"], float) + np.array(right["left"], float)).reshape(-1, 3) / 2
    excess = (float(left["excess"]) + float(right["excess"])) / 2
    return Pairs(groups[usable], changed[usable], stay[usable], excess)


def _comparison(
    score: Score, a: str, b: str, difference: float, se: float, df: float, method: str, *, n: int
) -> Comparison:
    half = float(scipy.special.stdtrit(df, 1 - ALPHA / 2)) * se
    if se > 0:
        p, effect = (
            float(2 * scipy.special.stdtr(df, -abs(difference) / se)),
            difference / (se * math.sqrt(n)),
        )
    else:
        p, effect = float(difference == 0), 0.0 if difference == 0 else math.copysign(math.inf, difference)
    return Comparison(
        metric=score.metric, title=score.title, judge=score.judge, better=score.better, a=a, b=b,
        difference=difference, se=se, interval=(difference - half, difference + half), p=p, p_holm=p,
        effect=effect, n=n, method=method,
    )  # fmt: skip


def holm(comparisons: Sequence[Comparison]) -> list[Comparison]:
    """The same comparisons with ``p_holm`` corrected for all of them (Holm 1979)."""
    corrected = holm_adjusted([item.p for item in comparisons])
    return [replace(item, p_holm=p) for item, p in zip(comparisons, corrected)]


def holm_adjusted(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down adjusted p values, in the order given."""
    adjusted, largest = [0.0] * len(p_values), 0.0
    for rank, i in enumerate(sorted(range(len(p_values)), key=lambda i: p_values[i])):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[i]))
        adjusted[i] = largest
    return adjusted
