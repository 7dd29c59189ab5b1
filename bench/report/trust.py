"""What a reader must know before trusting a number, as marks in a table and a line below it each.

A score by a judge that guided is labelled in-loop and never ranked; a distance of too few samples is marked;
so is a value that cannot be told from the best one of its generator.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterable, Mapping, Sequence

import pandas as pd

from bench.errors import ResultError
from bench.statistics.leave_out import BIAS_STAYS
from bench.statistics.paired import Comparison, Side, compare_paired, holm
from bench.store import Record
from bench.types import Score

IN_LOOP, SMALL_N, LEVEL = "in-loop", "small n", "≈"
LEGEND = {
    IN_LOOP: "in-loop: the judge guided, or shares architecture and data with the guide; not ranked",
    SMALL_N: "small n: so few samples that the value is biased upwards; compare equal n only",
    LEVEL: "≈: not told from the best of its generator (paired, 5 % for the whole table by Holm's method)",
}

WITHOUT_BIAS = (
    "intervals of distances biased at small n (FID …) speak of infinitely many samples: what so few samples "
    "add is in the value and not in the interval, which may lie wholly below it"
)
WITH_BIAS = (
    "where samples are fewer than about 1.6 times the features, or prompts describe images of the reference, "
    "a distance's interval speaks of that many samples, bias and all"
)


def interval_notes(scores: Iterable[Score]) -> list[str]:
    """What must be known of the intervals of these scores beyond their being 95 % intervals."""
    seen = [score for score in scores if score.interval is not None]
    notes = [WITHOUT_BIAS] if any(score.details.get("bias") for score in seen) else []
    return notes + [WITH_BIAS] * any(BIAS_STAYS in score.interval_method for score in seen)


def is_ranked(score: Score, record: Record) -> bool:
    """Whether a score may be called better or worse than another."""
    return score.better != "none" and score.judge not in record.in_loop and math.isfinite(score.value)


def warnings(score: Score, record: Record) -> list[str]:
    """The marks of :data:`LEGEND` that a score has on its own."""
    marks = [IN_LOOP] if score.judge in record.in_loop else []
    return [*marks, SMALL_N] if score.details.get("small_n") else marks


def comparisons(
    records: Sequence[Record], samples: Mapping[str, pd.DataFrame], metrics: Sequence[str]
) -> list[Comparison]:
    """Every pair of the records of each generator, by cell id, p values corrected for all of them.

    Cells of other prompts or seeds, without a table or without scores are left out.
    """
    found: list[Comparison] = []
    for i, a in enumerate(records):
        for b in records[i + 1 :]:
            if a.cell.generator != b.cell.generator or not {a.cell.id, b.cell.id} <= samples.keys():
                continue
            with contextlib.suppress(ResultError):
                found += compare_paired(_side(a, samples), _side(b, samples), metrics)
    return holm(found)


def _side(record: Record, samples: Mapping[str, pd.DataFrame]) -> Side:
    return Side(name=record.cell.id, scores=_ranked(record), samples=samples[record.cell.id])


def _ranked(record: Record) -> list[Score]:
    return [score for score in record.scores if score.step is None and is_ranked(score, record)]


def level_with_best(
    records: Sequence[Record], samples: Mapping[str, pd.DataFrame], metrics: Sequence[str]
) -> set[tuple[str, str]]:
    """(cell id, metric) of scores that cannot be told from their generator's best one, which is not in it."""
    best: dict[tuple[str, str], tuple[float, str]] = {}
    for record in records:
        for score in _ranked(record):
            key, sign = (record.cell.generator, score.metric), -1.0 if score.better == "lower" else 1.0
            value = (sign * score.value, record.cell.id)
            best[key] = max(best.get(key, value), value, key=lambda item: item[0])
    winners = {(metric, cell) for (_, metric), (_, cell) in best.items()}
    level = set()
    for item in comparisons(records, samples, metrics):
        for one, other in ((item.a, item.b), (item.b, item.a)):
            if (item.metric, one) in winners and not item.distinguishable:
                level.add((other, item.metric))
    return level
