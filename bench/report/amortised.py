"""Quality against all seconds spent on 1, 100 and 10,000 images, set-up included."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench.report.style import MARKERS, PALETTE, arrange, entitle, log_scale, new_figure, plain, quiet, save
from bench.report.tables import ARROWS, Group, final_scores
from bench.store import Record

COUNTS = (1, 100, 10_000)
# The first that a group's records have is the quality.
QUALITIES = ("class-accuracy", "shape-and-color-accuracy", "composition-accuracy", "clip-cosine", "fid")


def total_seconds(record: Record, num: int) -> float | None:
    """Seconds for ``num`` images, set-up included; None for a record without timing."""
    score = final_scores(record).get("seconds-per-image")
    if record.timing is None or score is None:
        return None
    return sum(record.timing.setup_s.values()) + num * score.value


def amortised(groups: Sequence[Group], path: Path, formats: Sequence[str] = ("png", "svg")) -> list[Path]:
    """A row per group and a panel per number of images; [] where no record has both quality and timing.

    What a set-up takes is paid once, so that a sampler with one moves left as images become many.
    """
    rows = []
    for group in groups:
        for name in QUALITIES:
            own = [
                (record, scores[name])
                for record in group.records
                if name in (scores := final_scores(record)) and total_seconds(record, 1) is not None
            ]
            if own:
                rows.append((group, own))
                break
    if not rows:
        return []
    labels = list(dict.fromkeys(_label(record, group) for group, own in rows for record, _ in own))
    legend = 0.6 + 0.075 * max(map(len, labels))  # inches
    figure = new_figure(4.1 * len(COUNTS) + 0.7 + legend, 3.4 * len(rows), arranged=True)
    grid = figure.subplots(len(rows), len(COUNTS), squeeze=False, sharey="row")
    for axes_row, (group, own) in zip(grid, rows):
        title, better = own[0][1].title, own[0][1].better
        for axes, num in zip(axes_row, COUNTS):
            for record, score in own:
                k = labels.index(_label(record, group))
                axes.plot([total_seconds(record, num)], [score.value], **_look(k))
            log_scale(axes)
            images = "1 image" if num == 1 else f"{num:,} images"
            entitle(axes, f"{group.short_title}: {images}", 10)
            axes.set_xlabel("seconds in all, set-up included (log)")
            quiet(axes)
        axes_row[0].set_ylabel(plain(f"{title} {ARROWS[better]}".strip()))
    for k, label in enumerate(labels):
        grid[0][0].plot([], [], label=plain(label), **_look(k))
    figure.legend(
        *grid[0][0].get_legend_handles_labels(), loc="upper right", bbox_to_anchor=(1, 1), fontsize=8,
        frameon=False,
    )  # fmt: skip
    arrange(figure, right=legend, between=0.3, rows=len(rows), columns=len(COUNTS))
    return save(figure, path, formats)


def _look(k: int) -> dict[str, Any]:
    color, marker = PALETTE[k % len(PALETTE)], MARKERS[k // len(PALETTE) % len(MARKERS)]
    return {"color": color, "marker": marker, "markersize": 7.5, "linestyle": "none"}


def _label(record: Record, group: Group) -> str:
    """The sampler, and the generator where the group has the same sampler on several."""
    cell = record.cell
    same = {other.cell.generator for other in group.records if other.cell.sampler == cell.sampler}
    return f"{cell.sampler} ({cell.generator})" if len(same) > 1 else cell.sampler
