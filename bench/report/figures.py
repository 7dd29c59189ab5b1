"""Figures: FID against seconds per image, and quality against refinement steps."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from bench.report.style import MARKERS, PALETTE, arrange, entitle, log_scale, new_figure, plain, quiet, save
from bench.report.tables import ARROWS, Group, final_scores
from bench.store import Record

CURVES = ("fid", "class-accuracy", "shape-and-color-accuracy", "clip-cosine")


def frontier(groups: Sequence[Group], path: Path, formats: Sequence[str] = ("png", "svg")) -> list[Path]:
    """FID against seconds per image, a panel per group (TR0N's Figure 5 in kind); [] where nothing has both.

    The grey line joins each generator's points that no other beats in both.
    """
    panels = []
    for group in groups:
        points = []
        for record in group.records:
            scores = final_scores(record)
            if {"fid", "seconds-per-image"} <= scores.keys():
                points.append((record, scores["seconds-per-image"].value, scores["fid"].value))
        if points:
            panels.append((group, points))
    if not panels:
        return []
    figure = new_figure(4.6 * len(panels), 4.2, arranged=True)
    arrange(figure, columns=len(panels))
    samplers = list(dict.fromkeys(record.cell.sampler for _, points in panels for record, _, _ in points))
    for axes, (group, points) in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels):
        generators = list(dict.fromkeys(record.cell.generator for record, _, _ in points))
        for k, generator in enumerate(generators):
            own = [(x, y) for record, x, y in points if record.cell.generator == generator]
            axes.plot(*zip(*_pareto(own)), color="#bbbbbb", linewidth=1, zorder=1)
            for record, x, y in points:
                if record.cell.generator == generator:
                    color = PALETTE[samplers.index(record.cell.sampler) % len(PALETTE)]
                    axes.scatter(x, y, color=color, marker=MARKERS[k % len(MARKERS)], s=60, zorder=2)
        for k, sampler in enumerate(samplers):
            axes.scatter([], [], color=PALETTE[k % len(PALETTE)], marker="o", label=plain(sampler))
        if len(generators) > 1:
            for k, generator in enumerate(generators):
                axes.scatter(
                    [], [], color="#888888", marker=MARKERS[k % len(MARKERS)], label=plain(generator)
                )
        n = points[0][0].cell.num_samples
        entitle(axes, f"{group.title}, n = {n}", 11)
        log_scale(axes)
        axes.set_xlabel("seconds per image (log)")
        axes.set_ylabel("FID ↓")
        axes.set_ylim(bottom=0)
        axes.legend(fontsize=8, frameon=False)
        quiet(axes)
    return save(figure, path, formats)


def _pareto(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """The points that no other beats in both coordinates, by rising first coordinate."""
    front: list[tuple[float, float]] = []
    for x, y in sorted(points):
        if not front or y < front[-1][1]:
            front.append((x, y))
    return front


def steps(groups: Sequence[Group], path: Path, formats: Sequence[str] = ("png", "svg")) -> list[Path]:
    """Metrics along the refinement, a row per group, a panel per metric. [] where no record has a curve."""
    rows = []
    for group in groups:
        records = [record for record in group.records if len({score.step for score in record.curve}) > 1]
        names = [name for name in CURVES if any(score.metric == name for r in records for score in r.curve)]
        if names:
            rows.append((group, records, names))
    if not rows:
        return []
    width = max(len(names) for _, _, names in rows)
    figure = new_figure(4.2 * width, 3.4 * len(rows), arranged=True)
    arrange(figure, columns=width, rows=len(rows))
    grid = figure.subplots(len(rows), width, squeeze=False)
    for axes_row, (group, records, names) in zip(grid, rows):
        for axes in axes_row[len(names) :]:
            axes.set_visible(False)
        for axes, name in zip(axes_row, names):
            title, better, n = name, "none", 0
            for k, record in enumerate(records):
                points = sorted(
                    (s.step, s.value, s.n) for s in record.curve if s.metric == name and s.step is not None
                )
                example = next((s for s in record.curve if s.metric == name), None)
                if example is None:
                    continue
                title, better, n = example.title, example.better, example.n
                xs, ys = [p[0] for p in points], [p[1] for p in points]
                marker = MARKERS[k % len(MARKERS)]
                axes.plot(
                    xs,
                    ys,
                    marker=marker,
                    color=PALETTE[k % len(PALETTE)],
                    label=plain(_label(record, records)),
                )
            entitle(axes, f"{group.short_title}: {title} {ARROWS[better]} (n = {n})", 10)
            axes.set_xlabel("Langevin steps")
            quiet(axes)
        axes_row[0].legend(fontsize=8, frameon=False)
    return save(figure, path, formats)


def _label(record: Record, records: Sequence[Record]) -> str:
    several = len({other.cell.generator for other in records}) > 1
    return f"{record.cell.generator} / {record.cell.sampler}" if several else record.cell.sampler
