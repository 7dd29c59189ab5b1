"""Interactive charts as plain plotly figures: frontier, quality against steps, cost by phase.

A chart is ``{"id", "label", "choices": [{"name", "traces", "layout"}]}``: the reader picks a choice. Colours
are Okabe and Ito's, as in the pictures of the Markdown page; text and grid colours are the page's own.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from bench.report.style import PALETTE
from bench.report.tables import ARROWS, Group, final_scores, variant_name
from bench.store import TIME_UNITS, Record
from bench.types import Score

SYMBOLS = ("circle", "square", "triangle-up", "diamond", "triangle-down", "cross", "x", "star")
DASHES = ("solid", "dash", "dot", "dashdot")
PHASES = ("translate", "refine", "decode", "score", "context")
Chart = dict[str, Any]


def quality_scores(group: Group) -> list[Score]:
    """One example of each metric with a direction that is no time and no memory, headline ones first."""
    from bench.report.tables import HEADLINE

    seen: dict[str, Score] = {}
    for record in group.records:
        for score in (*record.scores, *record.curve):
            if score.better != "none" and score.unit not in TIME_UNITS:
                seen.setdefault(score.metric, score)
    first = [seen[name] for name in HEADLINE if name in seen]
    return first + [score for name, score in seen.items() if name not in HEADLINE]


def _samplers(group: Group) -> list[str]:
    return list(dict.fromkeys(record.cell.sampler for record in group.records))


def _generators(group: Group) -> list[str]:
    return list(dict.fromkeys(record.cell.generator for record in group.records))


def _look(record: Record, group: Group) -> tuple[str, int]:
    """The colour of a record's sampler and the number of its generator."""
    color = PALETTE[_samplers(group).index(record.cell.sampler) % len(PALETTE)]
    return color, _generators(group).index(record.cell.generator)


def _error_bars(scores: Sequence[Score]) -> dict[str, Any] | None:
    """Asymmetric bars from 95 % intervals; None where no score has one. A bar starts at its value: there is
    none where the interval lies beside it, as that of a biased distance may."""
    if not any(score.interval for score in scores):
        return None
    pairs = [score.interval or (score.value, score.value) for score in scores]
    pairs = [
        (low, high) if low <= score.value <= high else (score.value, score.value)
        for score, (low, high) in zip(scores, pairs)
    ]
    return {
        "type": "data",
        "symmetric": False,
        "array": [high - score.value for score, (_, high) in zip(scores, pairs)],
        "arrayminus": [score.value - low for score, (low, _) in zip(scores, pairs)],
        "thickness": 1,
        "width": 3,
    }


def frontier(group: Group, chart_id: str) -> Chart | None:
    """Each quality metric against seconds per image; a line joins each generator's undominated points."""
    choices = []
    for example in quality_scores(group):
        traces: list[dict[str, Any]] = []
        fronts: dict[str, list[tuple[float, float]]] = {}
        for record in group.records:
            scores = final_scores(record)
            quality, seconds = scores.get(example.metric), scores.get("seconds-per-image")
            if quality is None or seconds is None or not _plottable(quality.value, seconds.value):
                continue
            color, k = _look(record, group)
            fronts.setdefault(record.cell.generator, []).append((seconds.value, quality.value))
            traces.append(
                {
                    "type": "scatter",
                    "mode": "markers",
                    "name": variant_name(record, group),
                    "x": [seconds.value],
                    "y": [quality.value],
                    "error_y": _error_bars([quality]),
                    "error_x": _error_bars([seconds]),
                    "marker": {"color": color, "symbol": SYMBOLS[k % len(SYMBOLS)], "size": 11},
                }
            )
        for points in fronts.values():
            best = undominated(points, lower=example.better == "lower")
            traces.insert(
                0,
                {
                    "type": "scatter",
                    "mode": "lines",
                    "x": [x for x, _ in best],
                    "y": [y for _, y in best],
                    "line": {"color": "#999999", "width": 1, "shape": "linear"},
                    "showlegend": False,
                    "hoverinfo": "skip",
                },
            )
        if traces:
            title = f"{example.title} {ARROWS[example.better]} (n = {example.n})"
            axes = {"xaxis": _axis("seconds per image (log)", log=True), "yaxis": _axis(title)}
            choices.append({"name": example.title, "traces": traces, "layout": axes})
    return _chart(chart_id, "Quality against seconds per image", choices)


def undominated(points: Sequence[tuple[float, float]], *, lower: bool) -> list[tuple[float, float]]:
    """The points that no other beats in both coordinates, by rising x; y is better ``lower`` or higher."""
    front: list[tuple[float, float]] = []
    for x, y in sorted(points, key=lambda p: (p[0], p[1] if lower else -p[1])):
        if not front or (y < front[-1][1] if lower else y > front[-1][1]):
            front.append((x, y))
    return front


def steps(group: Group, chart_id: str) -> Chart | None:
    """Each metric along the refinement, a line per variant."""
    choices = []
    for example in quality_scores(group):
        traces = []
        for record in group.records:
            points = [s for s in record.curve if s.metric == example.metric and s.step is not None]
            points = sorted((s for s in points if math.isfinite(s.value)), key=lambda s: s.step or 0)
            if len(points) < 2:
                continue
            color, k = _look(record, group)
            traces.append(
                {
                    "type": "scatter",
                    "mode": "lines+markers",
                    "name": variant_name(record, group),
                    "x": [s.step for s in points],
                    "y": [s.value for s in points],
                    "error_y": _error_bars(points),
                    "line": {"color": color, "dash": DASHES[k % len(DASHES)]},
                    "marker": {"color": color, "symbol": SYMBOLS[k % len(SYMBOLS)], "size": 8},
                }
            )
        if traces:
            title = f"{example.title} {ARROWS[example.better]}"
            axes = {"xaxis": _axis("refinement steps"), "yaxis": _axis(title)}
            choices.append({"name": example.title, "traces": traces, "layout": axes})
    return _chart(chart_id, "Quality against refinement steps", choices)


def cost(group: Group, chart_id: str) -> Chart | None:
    """Milliseconds per image by phase, a stacked bar per variant, and evaluations of G and f per image."""
    timed = [(r, r.timing) for r in group.records if r.timing is not None and r.status == "ok"]
    if not timed:
        return None
    names = [variant_name(record, group) for record, _ in timed]

    def bars(name: str, values: list[float], color: str) -> dict[str, Any]:
        return {
            "type": "bar", "orientation": "h", "name": name, "y": names, "x": values,
            "marker": {"color": color},
        }  # fmt: skip

    phases = [
        bars(phase, [1000 * t.phase_s.get(phase, 0.0) / t.num_samples for _, t in timed], PALETTE[k])
        for k, phase in enumerate(PHASES)
        if any(t.phase_s.get(phase) for _, t in timed)
    ]
    kinds = dict.fromkeys(kind for _, t in timed for kind in t.evaluations)
    counts = [
        bars(kind.replace("_", " "), [t.evaluations.get(kind, 0) / t.num_samples for _, t in timed], color)
        for kind, color in zip(kinds, PALETTE * 2)
    ]
    height = 90 + 30 * len(names)

    def layout(title: str) -> dict[str, Any]:
        return {
            "barmode": "stack",
            "xaxis": _axis(title),
            "yaxis": {"autorange": "reversed", "automargin": True},
            "height": max(260, height),
        }

    choices = [
        {"name": "milliseconds by phase", "traces": phases, "layout": layout("milliseconds per image")},
        {"name": "evaluations", "traces": counts, "layout": layout("evaluations per image")},
    ]
    return _chart(chart_id, "Cost per image", choices)


def _plottable(*values: float) -> bool:
    return all(math.isfinite(value) for value in values)


def _axis(title: str, *, log: bool = False) -> dict[str, Any]:
    return {"title": {"text": title}, **({"type": "log", "dtick": "D2"} if log else {})}


def _chart(chart_id: str, label: str, choices: list[dict[str, Any]]) -> Chart | None:
    return {"id": chart_id, "label": label, "choices": choices} if choices else None
