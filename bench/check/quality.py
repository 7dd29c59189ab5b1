"""Is head no worse than base, within the declared margins? Paired on prompts and seeds where possible."""

from __future__ import annotations

import contextlib
import math
from dataclasses import dataclass
from typing import Literal

import pandas as pd

from bench.check.settings import CheckSettings
from bench.errors import ResultError
from bench.report.trust import is_ranked
from bench.statistics.paired import Comparison, Side, compare_paired
from bench.store import TIME_UNITS, Record, RunStore
from bench.types import Score

QualityVerdict = Literal["kept", "lost", "inconclusive"]


@dataclass(frozen=True, kw_only=True)
class Quality:
    """One metric of one cell. ``loss`` is how much worse head is, in the metric's unit (negative: better),
    with its 95 % interval; ``margin`` is the loss that is acceptable. ``note`` says what limits it."""

    metric: str
    title: str
    base: float
    head: float
    loss: float
    interval: tuple[float, float] | None
    margin: float
    verdict: QualityVerdict
    note: str = ""


def cell_name(record: Record) -> tuple[str, str, str]:
    """What tells a run's cells apart, whatever their configuration: data, kind of condition, variant."""
    return record.cell.data, record.cell.condition_kind, record.cell.variant


def read_cells(store: RunStore) -> dict[tuple[str, str, str], tuple[Record, pd.DataFrame | None]]:
    """A run's records with their per-sample tables, by name."""
    found = {}
    for record in store.records():
        table = None
        if record.status == "ok":
            with contextlib.suppress(ResultError):
                table = store.read_samples(record.cell.id)
        found[cell_name(record)] = (record, table)
    return found


def compare_quality(
    base: tuple[Record, pd.DataFrame | None],
    head: tuple[Record, pd.DataFrame | None],
    settings: CheckSettings,
) -> list[Quality]:
    """Every ranked metric of the final samples. *kept*: the interval of the loss ends within the margin.
    *lost*: it lies beyond the margin, or the loss does and is more than chance. Else *inconclusive*.

    A head that failed has lost all that base had.
    """
    compared, unlike = dict[tuple[str, str | None], Comparison](), ""
    if base[1] is not None and head[1] is not None:
        old = Side(name=base[0].cell.variant, scores=base[0].scores, samples=base[1])
        new = Side(name=head[0].cell.variant, scores=head[0].scores, samples=head[1])
        try:
            compared = {(item.metric, item.judge): item for item in compare_paired(old, new)}
        except (ResultError, KeyError) as error:
            unlike = f"not the same samples: {error}"
    others = {(s.metric, s.judge): s for s in head[0].scores if s.step is None}
    found = []
    for score in base[0].scores:
        if score.step is not None or score.unit in TIME_UNITS or not is_ranked(score, base[0]):
            continue
        other = others.get((score.metric, score.judge))
        if other is None or not math.isfinite(other.value):
            reason = "head failed" if head[0].status != "ok" else "head has no such score"
            found.append(_quality(score, math.nan, math.inf, None, settings, "lost", reason))
            continue
        found.append(judged(score, other, compared.get((score.metric, score.judge)), settings, unlike))
    return found


def judged(
    base: Score, head: Score, comparison: Comparison | None, settings: CheckSettings, unlike: str = ""
) -> Quality:
    """The verdict on one metric. Without a comparison the two values alone decide; where that is because
    other samples were drawn (``unlike`` says so), they cannot show that quality was kept."""
    sign = 1.0 if base.better == "lower" else -1.0
    margin = settings.margin_of(base)
    if comparison is None or not all(map(math.isfinite, comparison.interval)):
        loss = sign * (head.value - base.value)
        verdict: QualityVerdict = "lost" if loss > margin else "inconclusive" if unlike else "kept"
        note = unlike or "not paired: values alone compared"
        return _quality(base, head.value, loss, None, settings, verdict, note)
    least, most = sorted(sign * end for end in comparison.interval)
    loss = sign * comparison.difference
    if most <= margin:
        verdict = "kept"
    elif least > margin or (loss > margin and least > 0):
        verdict = "lost"
    else:
        verdict = "inconclusive"
    return _quality(base, head.value, loss, (least, most), settings, verdict)


def _quality(
    base: Score, head: float, loss: float, interval: tuple[float, float] | None, settings: CheckSettings,
    verdict: QualityVerdict, note: str = "",
) -> Quality:  # fmt: skip
    return Quality(
        metric=base.metric, title=base.title, base=base.value, head=head, loss=loss, interval=interval,
        margin=settings.margin_of(base), verdict=verdict, note=note,
    )  # fmt: skip
