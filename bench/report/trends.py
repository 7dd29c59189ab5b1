"""Trends of a history as a page: a chart per metric, a star at the first commit of a new level."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench.history import Series
from bench.report.html.page import write_table_page
from bench.report.style import PALETTE


def charts(found: Sequence[Series]) -> list[dict[str, Any]]:
    """A chart per metric: a trace per cell, steps marked; for the page."""
    by_metric: dict[str, list[Series]] = {}
    for item in found:
        if not item.retired:
            by_metric.setdefault(item.metric, []).append(item)
    made = []
    for number, (metric, items) in enumerate(by_metric.items()):
        traces: list[dict[str, Any]] = []
        for k, item in enumerate(items):
            color = PALETTE[k % len(PALETTE)]
            commits = [point.commit[:10] for point in item.points]
            errors = [1.96 * point.spread if point.spread is not None else 0.0 for point in item.points]
            traces.append(
                {
                    "type": "scatter", "mode": "lines+markers", "name": item.cell,
                    "x": list(range(1, len(commits) + 1)), "y": [point.value for point in item.points],
                    "text": commits, "hovertemplate": "%{text}: %{y:.5g}",
                    "error_y": {"type": "data", "array": errors, "thickness": 1} if any(errors) else None,
                    "line": {"color": color}, "marker": {"color": color},
                }
            )  # fmt: skip
            first = {commit.commit: i for i, commit in reversed([*enumerate(item.points, 1)])}
            for step in item.steps:
                traces.append(
                    {
                        "type": "scatter", "mode": "markers+text", "showlegend": False,
                        "x": [first[step.commit]], "y": [step.after], "text": [step.commit[:10]],
                        "textposition": "top center",
                        "marker": {"color": color, "symbol": "star-diamond", "size": 15},
                    }
                )  # fmt: skip
        layout = {
            "xaxis": {"title": {"text": "commits, oldest first"}},
            "yaxis": {"title": {"text": items[0].title}},
        }
        made.append(
            {"id": f"trend-{number}", "label": f"{items[0].title} ({metric})",
             "choices": [{"name": metric, "traces": traces, "layout": layout}]}
        )  # fmt: skip
    return made


def write_trends(found: Sequence[Series], out: Path) -> list[Path]:
    """``history.html``: a table of steps and a chart per metric, in one file."""
    heads = ["cell", "metric", "device", "points", "last", "steps", "state"]
    rows = []
    for item in found:
        steps = [
            f"{s.commit[:10]}: {s.before:.4g} to {s.after:.4g} ({100 * (s.ratio - 1):+.1f} %)"
            for s in item.steps
        ]
        state = "retired" if item.retired else ""
        num, last = len(item.points), item.points[-1].value
        values = [item.cell, item.title, item.device, num, last, "; ".join(steps), state]
        rows.append([{"text": _text(v), "value": v if isinstance(v, int | float) else None} for v in values])
    notes = ["A star marks the first commit of a new level. Retired: the benchmark itself has changed since."]
    return [write_table_page(out / "history.html", "History", heads, rows, notes, charts(found))]


def _text(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
