"""The report as files: a Markdown page with tables, pictures, costs and provenance; CSV and LaTeX tables."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from bench.errors import ResultError
from bench.keys import slug
from bench.protocols import require_comparable
from bench.report.amortised import amortised
from bench.report.figures import frontier, steps
from bench.report.grids import sample_grid
from bench.report.latex import latex_document, latex_table
from bench.report.tables import (
    Group,
    certificates,
    escape,
    groups,
    headline_columns,
    markdown_table,
    phase_table,
    scores_table,
)
from bench.report.trust import LEGEND, interval_notes
from bench.report.view import RunView
from bench.store import atomic_write, scores_frame

FORMATS = ("md", "latex", "csv", "png", "svg")
Formats = Sequence[str]


def write_page(views: Sequence[RunView], out: Path, formats: Formats = FORMATS) -> list[Path]:
    """Writes tables and pictures in the given formats; several runs get a section and a folder each.

    ``md`` writes report.md, first in the list returned. Raises ResultError when a run holds no records, and
    where two runs have scores of one metric on one data set under different protocols.
    """
    if not views:
        raise ResultError("report: no run was given. Name one or more run folders.")
    together = [record for view in views for record in view.records]
    for group in groups(together):
        require_comparable(group.records, "report")
    out.mkdir(parents=True, exist_ok=True)
    files: list[Path] = []
    sections = []
    for k, view in enumerate(views):
        folder = out if len(views) == 1 else out / f"run-{k + 1}"
        section, written = _run_section(view, folder, out, formats)
        sections.append(section)
        files += written
    if "md" not in formats:
        return files
    page = out / "report.md"
    atomic_write(page, "\n".join(sections).encode())
    return [page, *files]


def _run_section(view: RunView, folder: Path, root: Path, formats: Formats) -> tuple[str, list[Path]]:
    store, run, records, listed = view.store, view.run, view.records, view.groups
    folder.mkdir(parents=True, exist_ok=True)
    files: list[Path] = []
    suite: dict[str, Any] = run.get("suite", {})
    lines = [f"# {escape(run.get('suite_name', 'run'))}", ""]
    if suite.get("description"):
        lines += [escape(suite["description"]), ""]
    failed = [record for record in records if record.status != "ok"]
    cells = "cell" if len(records) == 1 else "cells"
    lines += [
        f"{len(records)} {cells}, {len(failed)} failed. Best of each generator in bold. ↑ higher is better.",
        "",
    ]
    pictures = [form for form in ("png", "svg") if form in formats]

    def link(path: Path) -> str:
        return path.relative_to(root).as_posix()

    texts: list[tuple[str, str]] = []
    for group in listed:
        table = markdown_table(group, view.level(group))
        lines += [f"## {escape(group.title)}", "", table, *_legend(group, table)]
        csv = folder / f"table-{group.slug}.csv"
        lines.append(_judges(group))
        if "csv" in formats:
            scores_table(group).to_csv(csv, index=False)
            files.append(csv)
            lines += [f"All scores: [{csv.name}]({link(csv)})", ""]
        if "md" in formats:
            markdown = folder / f"table-{group.slug}.md"
            markdown.write_text(table, encoding="utf-8")
            files.append(markdown)
        if "latex" in formats:
            tex = folder / f"table-{group.slug}.tex"
            tex.write_text(latex_table(group), encoding="utf-8")
            files.append(tex)
            texts.append((group.title, tex.name))
        if "png" not in formats:
            continue
        for generator in dict.fromkeys(record.cell.generator for record in group.records):
            own = [r for r in group.records if r.cell.generator == generator and r.status == "ok"]
            name = generator if re.fullmatch(r"[\w-]+", generator) else slug(generator)
            path = folder / f"grid-{group.slug}-{name}.png"
            title = f"{generator} on {group.title}"
            for picture in sample_grid(store, own, path, title):
                files.append(picture)
                lines += [f"![{escape(title)}]({link(picture)})", ""]
    for name, draw, title, missing in (
        ("frontier", frontier, "FID against seconds per image", "No cell has both an FID and timings."),
        ("amortised", amortised, "Quality against total seconds", "No cell has both quality and timings."),
        ("steps", steps, "Quality against refinement steps", "No cell has a quality-versus-steps curve."),
    ):
        if pictures:
            drawn = draw(listed, folder / name, pictures)
            files += drawn
            lines += [f"## {title}", "", f"![{title}]({link(drawn[0])})" if drawn else missing, ""]
    lines += [
        "## Cost by phase",
        "",
        "Milliseconds per image; evaluations per image, forwards + backwards.",
        "",
    ]
    for group in listed:
        lines += [escape(group.title), "", phase_table(group)]
    lines += _provenance(run, records[0].environment, certificates(records))
    if "csv" in formats:
        long = folder / "scores.csv"
        frame = scores_frame(store)
        (frame if len(frame) else pd.DataFrame(columns=["cell"])).to_csv(long, index=False)
        files.append(long)
        lines += [f"Every score: [{long.name}]({link(long)})", ""]
    if "latex" in formats:
        document = folder / "report.tex"
        document.write_text(latex_document(*zip(*texts)), encoding="utf-8")
        files.append(document)
    return "\n".join(lines), files


def _legend(group: Group, table: str) -> list[str]:
    """What the marks in a group's table mean, of those that are there."""
    names = {column.metric for column in headline_columns(group)}
    shown = (s for r in group.records for s in r.scores if s.step is None and s.metric in names)
    used = ["[low, high]: 95 % interval", *interval_notes(shown)] if "[" in table else []
    used += [text for mark, text in LEGEND.items() if f" {mark}" in table or f"({mark}" in table]
    return ["; ".join(used) + ".", ""] if used else []


def _judges(group: Group) -> str:
    pairs = {
        (score.title, score.judge)
        for record in group.records
        for score in record.scores
        if score.judge is not None
    }
    judges = sorted({str(judge) for _, judge in pairs})
    guides = sorted({record.cell.conditioner for record in group.records})
    return f"Guided by {escape(', '.join(guides))}; judged by {escape(', '.join(judges) or 'nobody')}.\n"


def _provenance(run: dict[str, Any], environment: Any, certificates: str) -> list[str]:
    provenance = run.get("provenance", {})
    packages = ", ".join(
        f"{name} {version}" for name, version in (environment.get("packages") or {}).items() if version
    )
    dirty = " with uncommitted changes" if provenance.get("dirty") else ""
    lines = [
        "## Provenance",
        "",
        f"- revision: {escape(provenance.get('revision') or 'not a git checkout')}{dirty}",
        f"- suite: {escape(run.get('suite_path', ''))}, seed {escape(run.get('suite', {}).get('seed'))}",
        f"- device: {escape(provenance.get('device', ''))}; {escape(environment.get('cpu'))}, "
        f"{environment.get('threads')} threads; {escape(environment.get('gpu') or 'no GPU')}",
        f"- python {escape(environment.get('python'))}; {escape(packages)}",
        f"- determinism: {certificates}",
        "- weights (sha256):",
    ]
    lines += [
        f"  - {escape(name)}: `{escape(value)[:64]}`" for name, value in provenance.get("weights", {}).items()
    ]
    return [*lines, ""]
