"""What a comparison of two variants can find: the smallest difference at n samples, and the n for a given
one.

From the spread of paired differences per sample: that of a finished run's pairs of variants, or an
assumption. The standard error falls as one over the root of n, for Fréchet distances as long as n is well
above the number of features. Source: Cohen 1988, chapter 2, with the normal approximation for large n.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import scipy  # whose parts are loaded when first used

from bench.errors import ResultError
from bench.report.tables import groups
from bench.statistics.paired import Comparison, Side, compare_paired
from bench.store import Record, RunStore
from bench.types import Score

ALPHA, POWER = 0.05, 0.8


@dataclass(frozen=True, kw_only=True)
class Spread:
    """The standard deviation ``sd`` of a sample's paired difference in one metric, the median over ``pairs``
    of variants; ``value`` is a typical score, NaN where none was measured. ``source`` says where from."""

    group: str
    metric: str
    title: str
    judge: str | None
    sd: float
    pairs: int
    value: float = math.nan
    source: str = "measured"


def quantiles(alpha: float, power: float, comparisons: int) -> float:
    """The standard errors that a difference must be wide: z of alpha / 2, shared out, plus z of the power."""
    return float(scipy.special.ndtri(1 - alpha / (2 * comparisons)) + scipy.special.ndtri(power))


def detectable(
    sd: float, n: int, *, alpha: float = ALPHA, power: float = POWER, comparisons: int = 1
) -> float:
    """The smallest difference that a paired test on n samples finds with this power.

    ``comparisons`` is the size of the family that alpha is shared out to, as Holm's first step does.
    """
    return quantiles(alpha, power, comparisons) * sd / math.sqrt(n)


def samples_needed(
    sd: float, difference: float, *, alpha: float = ALPHA, power: float = POWER, comparisons: int = 1
) -> int:
    """The fewest samples with which a paired test finds a difference with this power."""
    return max(2, math.ceil((quantiles(alpha, power, comparisons) * sd / abs(difference)) ** 2))


def measured(results: RunStore) -> list[Spread]:
    """The spread of every metric over pairs of variants of one generator, by table of the report.

    Raises ResultError where no two variants of a run can be paired.
    """
    found: list[Spread] = []
    for group in groups([record for record in results.records() if record.status == "ok"]):
        sides = {record.cell.id: _side(results, record) for record in group.records}
        pairs = [
            compare_paired(sides[a.cell.id], sides[b.cell.id])
            for a, b in combinations(group.records, 2)
            if a.cell.generator == b.cell.generator and a.cell.num_samples == b.cell.num_samples
        ]
        scores = {(score.metric, score.judge): score for r in group.records for score in r.scores}
        found += _spreads(group.slug, pairs, scores)
    if not found:
        raise ResultError(
            f"'{results.run_dir}' has no two variants of a generator on the same prompts and seeds, so that "
            "no spread of differences is known. State one: --spread METRIC=SD."
        )
    return found


def _side(results: RunStore, record: Record) -> Side:
    final = [score for score in record.scores if score.step is None]
    return Side(name=record.cell.id, scores=final, samples=results.read_samples(record.cell.id))


def _spreads(
    group: str, pairs: Sequence[list[Comparison]], scores: Mapping[tuple[str, str | None], Score]
) -> Iterable[Spread]:
    deviations: dict[tuple[str, str | None], list[float]] = {}
    for item in (item for pair in pairs for item in pair):
        if item.se > 0:
            deviations.setdefault((item.metric, item.judge), []).append(item.se * math.sqrt(item.n))
    for key, values in deviations.items():
        score = scores[key]
        yield Spread(
            group=group,
            metric=score.metric,
            title=score.title,
            judge=score.judge,
            sd=float(np.median(values)),
            pairs=len(values),
            value=score.value,
        )


def assumed(spreads: Mapping[str, float]) -> list[Spread]:
    """Spreads as stated by the user, by metric."""
    return [
        Spread(group="assumed", metric=name, title=name, judge=None, sd=value, pairs=0, source="assumed")
        for name, value in spreads.items()
    ]
