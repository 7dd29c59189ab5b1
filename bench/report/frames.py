"""Runs in a notebook: records as pandas frames, tables and sample grids that show themselves."""

from __future__ import annotations

import base64
import html
import tempfile
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd

from bench.errors import ResultError, nearest
from bench.report.tables import (
    ARROWS,
    Group,
    best_values,
    final_scores,
    groups,
    headline_columns,
    sampler_name,
    shown,
)  # fmt: skip
from bench.store import Record, RunStore, scores_frame


@dataclass(frozen=True)
class Shown:
    """A piece of HTML that a notebook shows; ``frame`` is the same as a pandas frame, where it is a table."""

    html: str
    frame: pd.DataFrame | None = None

    def _repr_html_(self) -> str:
        return self.html

    def __repr__(self) -> str:
        return "a picture" if self.frame is None else repr(self.frame)


class Run:
    """A run's records as frames.

    ``scores``: a row per cell, metric and step. ``samples``: a row per sample, with its cell's names.
    ``timings``: a row per cell and phase. In a notebook the run itself shows its headline tables.
    """

    def __init__(self, folder: Path | str):
        self.store = RunStore(folder)
        self.info: dict[str, Any] = self.store.read_run()
        self.records: list[Record] = self.store.records()
        if not self.records:
            raise ResultError(f"'{folder}' holds no records yet. Run the suite first.")

    @property
    def name(self) -> str:
        return str(self.info.get("suite_name", "run"))

    @cached_property
    def scores(self) -> pd.DataFrame:
        return scores_frame(self.store)

    @cached_property
    def samples(self) -> pd.DataFrame:
        """Per-sample tables end to end; a column that a cell does not have is missing (NaN) there."""
        parts = []
        for record in self.records:
            if record.status == "ok":
                table = self.store.read_samples(record.cell.id)
                parts.append(table.assign(cell=record.cell.id, **_names(record)))
        return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame()

    @cached_property
    def timings(self) -> pd.DataFrame:
        """``seconds`` and ``seconds_per_image`` of each phase of each cell."""
        rows = [
            {"cell": r.cell.id, **_names(r), "phase": phase, "seconds": seconds,
             "seconds_per_image": seconds / r.timing.num_samples}
            for r in self.records if r.timing is not None
            for phase, seconds in r.timing.phase_s.items()
        ]  # fmt: skip
        return pd.DataFrame(rows)

    def table(
        self, data: str | None = None, kind: str | None = None, conditioner: str | None = None
    ) -> Shown:  # fmt: skip
        """The headline table of a data set, kind of condition and conditioner; the first where left out."""
        group = self._group(data, kind, conditioner)
        columns = headline_columns(group)
        best = best_values(group, columns)
        heads = ["generator", "sampler", "n", *(f"{c.title} {ARROWS[c.better]}".strip() for c in columns)]
        lines, rows = [], []
        for record in group.records:
            scores, cell = final_scores(record), record.cell
            values = [scores.get(column.metric) for column in columns]
            texts = [cell.generator, sampler_name(record), str(cell.num_samples)]
            marks = [False] * 3
            for score in values:
                texts.append("failed" if record.status != "ok" else "" if score is None else _text(score))
                marks.append(score is not None and best.get((cell.generator, score.metric)) == score.value)
            lines.append("".join(_cell(text, mark) for text, mark in zip(texts, marks)))
            rows.append([*texts[:2], cell.num_samples, *(None if s is None else s.value for s in values)])
        head = "".join(f"<th>{html.escape(text)}</th>" for text in heads)
        body = "".join(f"<tr>{line}</tr>" for line in lines)
        title = html.escape(group.title)
        text = f"<table><caption>{title}</caption><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
        return Shown(text, pd.DataFrame(rows, columns=heads))

    def grid(
        self, data: str | None = None, kind: str | None = None, generator: str | None = None,
        conditioner: str | None = None,
    ) -> Shown:  # fmt: skip
        """Samples of one generator: prompts down, samplers across. Raises ResultError without images."""
        from bench.report.grids import sample_grid

        group = self._group(data, kind, conditioner)
        own = [r for r in group.records if r.status == "ok" and generator in (None, r.cell.generator)]
        own = [r for r in own if r.cell.generator == own[0].cell.generator]
        with tempfile.TemporaryDirectory() as folder:
            title = f"{own[0].cell.generator} on {group.data}" if own else ""
            files = sample_grid(self.store, own, Path(folder) / "grid.png", title)
            if not files:
                raise ResultError(f"'{self.store.run_dir}' holds no images of {generator or 'this table'}.")
            content = base64.b64encode(files[0].read_bytes()).decode()
        alt = html.escape(f"Samples: {title}", quote=True)
        return Shown(f'<img alt="{alt}" src="data:image/png;base64,{content}">')

    def image(self, cell: str, index: int) -> Any:
        """One sample as a Pillow image, which a notebook shows."""
        from PIL import Image

        return Image.fromarray(self.store.read_images(cell, [index])[0].transpose(1, 2, 0))

    def _group(self, data: str | None, kind: str | None, conditioner: str | None) -> Group:
        found = groups(self.records)
        for group in found:
            own = group.records[0].cell.conditioner
            if data in (None, group.data) and kind in (None, group.kind) and conditioner in (None, own):
                return group
        names = [f"{group.data}/{group.kind}/{group.records[0].cell.conditioner}" for group in found]
        asked = f"{data or '*'}/{kind or '*'}/{conditioner or '*'}"
        raise ResultError(f"no table '{asked}'.{nearest(asked, names)} Tables: {', '.join(names)}.")

    def _repr_html_(self) -> str:
        found = groups(self.records)
        tables = [self.table(g.data, g.kind, g.records[0].cell.conditioner).html for g in found]
        return f"<h3>{html.escape(self.name)}</h3>" + "".join(tables)

    def __repr__(self) -> str:
        failed = sum(record.status != "ok" for record in self.records)
        return f"Run({self.name!r}, {len(self.records)} cells, {failed} failed)"


def _names(record: Record) -> dict[str, Any]:
    cell = record.cell
    return {
        "variant": cell.variant, "data": cell.data, "condition_kind": cell.condition_kind,
        "generator": cell.generator, "sampler": cell.sampler,
    }  # fmt: skip


def _text(score: Any) -> str:
    if score.interval is None:
        return shown(score)
    low, high = (shown(type(score)(**{**vars(score), "value": v, "interval": None})) for v in score.interval)
    return f"{shown(score)} ({low} to {high})"


def _cell(text: str, bold: bool) -> str:
    inner = html.escape(text)
    return f"<td><b>{inner}</b></td>" if bold else f"<td>{inner}</td>"
