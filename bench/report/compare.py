"""Two runs side by side: paired differences of quality and ratios of speed, cell by cell."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from bench.check.quality import read_cells
from bench.errors import ResultError, nearest
from bench.protocols import require_comparable
from bench.report.tables import final_scores
from bench.report.trust import is_ranked
from bench.statistics.paired import Comparison, Side, compare_paired, holm
from bench.store import Record, RunStore, atomic_write

SPEED = "seconds-per-image"
Cell = tuple[Record, pd.DataFrame | None]


@dataclass(frozen=True, kw_only=True)
class Row:
    """One metric of one pair of cells. ``comparison`` is None where they cannot be paired; ``ratio`` is b's
    seconds over a's, of a time."""

    cell: str
    metric: str
    title: str
    a: float
    b: float
    comparison: Comparison | None = None
    ratio: float | None = None
    interval: tuple[float, float] | None = None

    @property
    def verdict(self) -> str:
        if self.comparison is not None:
            return self.comparison.verdict
        if self.ratio is not None:
            return f"{self.ratio:.3g} times the seconds"
        return "not paired"


def split_run(text: str) -> tuple[Path, str | None]:
    """``RUN`` or ``RUN::VARIANT``."""
    path, mark, variant = text.partition("::")
    return Path(path), variant if mark else None


def compare_runs(a: str, b: str) -> list[Row]:
    """Every cell that two runs share, or one variant of each where ``RUN::VARIANT`` says so.

    p values are Holm-corrected over all rows. Ratios of seconds come from batches timed in each run, with an
    interval by Welch's method on their logarithms: another day, another device, another ratio; ``check``
    measures speed, this reads it. Raises ResultError where nothing can be compared, or protocols differ.
    """
    (path_a, variant_a), (path_b, variant_b) = split_run(a), split_run(b)
    left, right = read_cells(RunStore(path_a)), read_cells(RunStore(path_b))
    require_comparable([record for cells in (left, right) for record, _ in cells.values()])
    pairs: list[tuple[str, Cell, Cell]] = []
    for (data, kind, variant), one in left.items():
        if variant_a is not None and variant != variant_a:
            continue
        wanted = variant_b if variant_b is not None else variant
        other = right.get((data, kind, wanted))
        if other is not None:
            name = variant if wanted == variant else f"{variant} → {wanted}"
            pairs.append((f"{name} ({data}, {kind})", one, other))
    if not pairs:
        known = sorted({name[2] for name in (*left, *right)})
        asked = variant_a or variant_b or ""
        raise ResultError(
            f"'{a}' and '{b}' have no cell in common.{nearest(asked, known)} Variants: {', '.join(known)}. "
            "Compare two of different names as RUN::VARIANT."
        )
    rows = [row for name, one, other in pairs for row in _rows(name, one, other)]
    corrected = iter(holm([row.comparison for row in rows if row.comparison is not None]))
    return [
        row if row.comparison is None else Row(**{**vars(row), "comparison": next(corrected)}) for row in rows
    ]


def _rows(name: str, one: Cell, other: Cell) -> list[Row]:
    found = {}
    if one[1] is not None and other[1] is not None:
        a = Side(name="a", scores=one[0].scores, samples=one[1])
        b = Side(name="b", scores=other[0].scores, samples=other[1])
        with contextlib.suppress(ResultError, KeyError):
            found = {item.metric: item for item in compare_paired(a, b)}
    right = final_scores(other[0])
    rows = []
    for metric, score in final_scores(one[0]).items():
        partner = right.get(metric)
        if partner is None:
            continue
        base: dict[str, Any] = {
            "cell": name,
            "metric": metric,
            "title": score.title,
            "a": score.value,
            "b": partner.value,
        }
        if metric == SPEED:
            ratio, interval = _ratio(one[0], other[0], score.value, partner.value)
            rows.append(Row(**base, ratio=ratio, interval=interval))
        elif is_ranked(score, one[0]) and score.unit == "":
            rows.append(Row(**base, comparison=found.get(metric)))
    return rows


def _ratio(a: Record, b: Record, a_s: float, b_s: float) -> tuple[float | None, tuple[float, float] | None]:
    """b's seconds per image over a's, and a 95 % interval from their batches."""
    import numpy as np
    from scipy import stats

    if not (a_s > 0 and b_s > 0 and math.isfinite(a_s) and math.isfinite(b_s)):
        return None, None
    logs = []
    for record in (a, b):
        timing = record.timing
        if timing is None or len(timing.batch_s) < 2:
            return b_s / a_s, None
        logs.append(np.log(np.array(timing.batch_s) / np.array(timing.batch_n)))
    interval = stats.ttest_ind(logs[1], logs[0], equal_var=False).confidence_interval(0.95)
    low, high = (float(math.exp(value)) for value in interval)
    return b_s / a_s, (low, high) if math.isfinite(low) and math.isfinite(high) else None


def plain_rows(rows: list[Row]) -> list[dict[str, Any]]:
    """The rows as plain data, for tables and JSON."""
    found = []
    for row in rows:
        item, interval = row.comparison, row.interval
        change: float | None = row.ratio
        if item is not None:
            change, interval = item.difference, item.interval
        found.append(
            {
                "cell": row.cell,
                "metric": row.title,
                "A": row.a,
                "B": row.b,
                "difference or ratio": change,
                "95 % interval": interval,
                "p (Holm)": None if item is None else item.p_holm,
                "effect": None if item is None else item.effect,
                "n": None if item is None else item.n,
                "verdict of B": row.verdict,
            }
        )
    return found


def text_row(row: Mapping[str, Any]) -> list[str]:
    """A plain row with the digits that a reader needs."""
    texts = []
    for value in row.values():
        if isinstance(value, tuple):
            texts.append(f"{value[0]:.4g} to {value[1]:.4g}")
        elif isinstance(value, float):
            texts.append(f"{value:.4g}")
        else:
            texts.append("" if value is None else str(value))
    return texts


def write_comparison(rows: list[Row], title: str, out: Path) -> list[Path]:
    """``compare.html``, a page of its own, and ``compare.csv``."""
    from bench.report.html.page import write_table_page

    plain = plain_rows(rows)
    cells = [
        [{"text": text, "value": v if isinstance(v, int | float) else None}
         for text, v in zip(text_row(row), row.values())]
        for row in plain
    ]  # fmt: skip
    notes = [
        "Differences are B minus A on the same prompts and seeds; p is Holm-corrected over all rows.",
        "Ratios are B's seconds over A's as each run timed them, perhaps at another time or device.",
    ]
    page = write_table_page(out / "compare.html", title, list(plain[0]) if plain else [], cells, notes)
    csv = out / "compare.csv"
    atomic_write(csv, pd.DataFrame(plain).to_csv(index=False).encode())
    return [page, csv]
