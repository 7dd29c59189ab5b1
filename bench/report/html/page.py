"""Puts the HTML page together: what the template needs, the scripts' hashes, the sprites' place."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Container, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from bench.errors import BenchError
from bench.report.breakdown import Cut, cuts
from bench.report.evidence import RunEvidence
from bench.report.html import charts
from bench.report.html.browser import browser
from bench.report.html.sprites import Sprites
from bench.report.tables import (
    ARROWS,
    UNITS,
    Group,
    best_values,
    certificates,
    final_scores,
    headline_columns,
    sampler_name,
    shown,
    variant_name,
)  # fmt: skip
from bench.report.trust import LEGEND, interval_notes, is_ranked, warnings
from bench.report.view import RunView
from bench.store import Record, atomic_write, finite
from bench.types import Score

TEMPLATES = Path(__file__).with_name("templates")
SCRIPTS = ("page.js", "tables.js", "charts.js", "browser.js")
MOST_IMAGE_BYTES = 22 * 2**20  # with plotly's 4.8 MB and the data the page stays below 30 MB
MARK_WORDS = {"best": "best", "same": "not distinguishable from the best", "": ""}


def write_html(
    views: Sequence[RunView], out: Path, *, store_url: str | None = None, python: bool = False
) -> list[Path]:
    """Writes ``report.html`` (and, where thumbnails do not fit in 30 MB, ``report-images/``) into ``out``.

    Raises ResultError where a run holds no records.
    """
    from plotly.offline import get_plotlyjs

    sprites, browsers = Sprites(MOST_IMAGE_BYTES), dict[str, Any]()
    pages, chart_list = list[dict[str, Any]](), list[charts.Chart]()
    for k, view in enumerate(views):
        page, found_charts, found_browsers = _run(view, f"r{k}", sprites, out, store_url, python)
        pages.append(page)
        chart_list += found_charts
        browsers |= found_browsers
    sources, files = sprites.place(out / "report-images")
    code, plotly = _scripts(SCRIPTS), get_plotlyjs()
    html = (
        _templates()
        .get_template("report.html")
        .render(
            title=", ".join(page["name"] for page in pages),
            runs=pages,
            csp=content_security_policy(plotly, code, beside=bool(files)),
            css=(TEMPLATES / "report.css").read_text(encoding="utf-8"),
            plotly=plotly,
            code=code,
            data=script_json({"charts": chart_list, "browsers": browsers, "beside": bool(files)}),
            sprites=sources,
        )
    )
    path = out / "report.html"
    atomic_write(path, html.encode())
    return [path, *files]


def write_table_page(
    path: Path,
    title: str,
    heads: Sequence[str],
    rows: Sequence[Sequence[Mapping[str, Any]]],
    notes: Sequence[str] = (),
    chart_list: Sequence[charts.Chart] = (),
) -> Path:
    """Writes a page of one sortable table and charts. Cells are ``{"text", "value" (a number, or None)}``."""
    from plotly.offline import get_plotlyjs

    names = ("page.js", "tables.js", "charts.js") if chart_list else ("page.js", "tables.js")
    code, plotly = _scripts(names), get_plotlyjs() if chart_list else ""
    html = (
        _templates()
        .get_template("table.html")
        .render(
            title=title,
            heads=heads,
            rows=rows,
            notes=notes,
            charts=chart_list,
            csp=content_security_policy(*filter(None, (plotly, code)), beside=False),
            css=(TEMPLATES / "report.css").read_text(encoding="utf-8"),
            plotly=plotly,
            code=code,
            data=script_json({"charts": list(chart_list), "browsers": {}, "beside": False}),
        )
    )
    atomic_write(path, html.encode())
    return path


def _scripts(names: Sequence[str]) -> str:
    return "\n".join((TEMPLATES / name).read_text(encoding="utf-8") for name in names)


def _templates() -> Any:
    import jinja2

    return jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES), autoescape=True, undefined=jinja2.StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip


def content_security_policy(*scripts: str, beside: bool) -> str:
    """A policy under which only these scripts run and nothing is fetched; ``beside``: except pictures."""
    hashes = [base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in scripts]
    pictures = "data: blob: file: 'self'" if beside else "data: blob:"
    return "; ".join(
        [
            "default-src 'none'",
            "script-src " + " ".join(f"'sha256-{value}'" for value in hashes),
            "style-src 'unsafe-inline'",
            f"img-src {pictures}",
            "base-uri 'none'",
            "form-action 'none'",
        ]
    )


def script_json(value: Any) -> str:
    """JSON that can stand in a script element: no character of it can end the element or start a comment."""
    text = json.dumps(finite(value), ensure_ascii=True, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _run(
    view: RunView, prefix: str, sprites: Sprites, out: Path, store_url: str | None, python: bool
) -> tuple[dict[str, Any], list[charts.Chart], dict[str, Any]]:
    """The template's content for one run, its charts and its browsers by element id."""
    store, run, records = view.store, view.run, view.records
    evidence = RunEvidence(store, store_url, python=python)
    found_charts: list[charts.Chart] = []
    browsers: dict[str, Any] = {}
    sections = []
    for k, group in enumerate(view.groups):
        ident = f"{prefix}g{k}"
        tables = view.tables(group)
        own = [
            chart
            for draw in (charts.frontier, charts.steps, charts.cost)
            if (chart := draw(group, f"{ident}-{draw.__name__}")) is not None
        ]
        found_charts += own
        browsable = browser(store, group, tables, sprites, evidence, out)
        if browsable is not None:
            browsers[f"{ident}-browser"] = browsable
        sections.append(
            {
                "id": ident,
                "title": group.title,
                "table": _table(group, view.level(group)),
                "guides": sorted({record.cell.conditioner for record in group.records}),
                "judges": sorted({str(s.judge) for r in group.records for s in r.scores if s.judge}),
                "charts": own,
                "cuts": _cut_tables(group, tables),
                "browser": f"{ident}-browser" if browsable is not None else None,
                "num_images": sum(len(v["at"]) for v in browsable["variants"]) if browsable else 0,
                "errors": [
                    (variant_name(r, group), (r.error or {}).get("message", "no message"))
                    for r in group.records
                    if r.status != "ok"
                ],
            }
        )
    suite = run.get("suite", {})
    page = {
        "id": prefix,
        "name": str(run.get("suite_name", "run")),
        "description": str(suite.get("description") or ""),
        "num_cells": len(records),
        "num_failed": sum(record.status != "ok" for record in records),
        "sections": sections,
        "provenance": _provenance(run, records),
        "suite": json.dumps(suite, indent=2, ensure_ascii=False),
        "weights": dict(run.get("provenance", {}).get("weights", {})),
        "notes": evidence.notes,
        "published": _published(view, evidence),
        "legend": [*interval_notes(s for r in records for s in r.scores if s.step is None), *LEGEND.values()],
    }
    return page, found_charts, browsers


def _published(view: RunView, evidence: RunEvidence) -> list[dict[str, Any]]:
    """Rows of published against measured, where the run's variants declare what they reproduce."""
    from bench.report.published import published_rows, published_table

    if not any(variant.get("reproduces") for variant in _variants(view.run)):
        return []
    try:
        table = published_table(published_rows([view.store.run_dir]))
    except BenchError as error:
        evidence.note(f"published numbers: {error}")
        return []
    plain = table.astype(object).where(table.notna(), "").to_dict("records")
    return [{str(key): value for key, value in row.items()} for row in plain]


def _variants(run: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    listed = run.get("suite", {}).get("variants", {})
    found = listed.get("include", []) if isinstance(listed, dict) else []
    return [variant for variant in found if isinstance(variant, dict)]


def _table(group: Group, level: Container[tuple[str, str]]) -> dict[str, Any]:
    """Columns and rows of the headline table; every metric is a column, the less important ones hidden."""
    examples: dict[str, Score] = {}
    for record in group.records:
        for name, score in final_scores(record).items():
            examples.setdefault(name, score)
    first = [column.metric for column in headline_columns(group)]
    order = first + [name for name in examples if name not in first]
    columns = [
        {
            "metric": name,
            "title": f"{examples[name].title} {ARROWS[examples[name].better]}".strip(),
            "unit": UNITS.get(name, examples[name].unit),
            "better": examples[name].better,
            "headline": name in first,
        }
        for name in order
    ]
    best = best_values(group, [*examples.values()])
    rows = []
    for record in group.records:
        scores = final_scores(record)
        cells: list[dict[str, Any] | None] = []
        for name in order:
            own = scores.get(name)
            if own is None:
                cells.append(None)
                continue
            mark = "same" if (record.cell.id, name) in level else ""
            if is_ranked(own, record) and best.get((record.cell.generator, name)) == own.value:
                mark = "best"
            warned = ", ".join(warnings(own, record))
            cells.append({**_cell(own), "mark": mark, "word": MARK_WORDS[mark], "warned": warned})
        rows.append(
            {
                "variant": record.cell.variant,
                "generator": record.cell.generator,
                "sampler": sampler_name(record),
                "n": record.cell.num_samples,
                "failed_samples": record.failed_samples,
                "ok": record.status == "ok",
                "error": (record.error or {}).get("message", "no message"),
                "cells": cells,
            }
        )
    return {"columns": columns, "rows": rows, "hidden": sum(not c["headline"] for c in columns)}


def _cell(score: Score) -> dict[str, Any]:
    interval = None
    if score.interval is not None:
        low, high = (shown(Score(**{**vars(score), "value": v, "interval": None})) for v in score.interval)
        interval = f"{low} to {high}"
    return {"value": score.value, "text": shown(score), "interval": interval, "tip": _tip(score)}


def _tip(score: Score) -> str:
    parts = [f"{score.value:.8g}", f"n = {score.n}"]
    parts += [f"judged by {score.judge}"] if score.judge else []
    parts += [f"95 % interval: {score.interval_method}"] if score.interval_method else []
    return "; ".join(parts)


def _cut_tables(group: Group, tables: Mapping[str, pd.DataFrame]) -> list[dict[str, Any]]:
    """Breakdowns by attribute, each a small table: variants down, values across."""
    names = {record.cell.id: variant_name(record, group) for record in group.records}
    return [_cut_table(cut, names) for cut in cuts(tables)]


def _cut_table(cut: Cut, names: Mapping[str, str]) -> dict[str, Any]:
    means = [mean for row in cut.rows.values() for mean, *_ in row.values()]
    low, high = min(means), max(means)
    rows = []
    for cell_id, row in cut.rows.items():
        cells: list[dict[str, Any] | None] = []
        for value in cut.values:
            if value not in row:
                cells.append(None)
                continue
            mean, least, most, n = row[value]
            shade = 0.0 if high == low else (mean - low) / (high - low)
            cells.append(
                {
                    "text": f"{mean:.3f}",
                    "value": mean,
                    "shade": round(shade, 3),
                    "tip": f"95 % interval {least:.3f} to {most:.3f}, n = {n}",
                }
            )
        rows.append({"name": names[cell_id], "cells": cells})
    return {"attribute": cut.attribute, "column": cut.column, "values": cut.values, "rows": rows}


def _provenance(run: Mapping[str, Any], records: list[Record]) -> list[tuple[str, str]]:
    """Label and text of each line of the provenance panel."""
    known, environment = run.get("provenance", {}), records[0].environment
    dirty = " with uncommitted changes" if known.get("dirty") else ""
    devices = {str(item.get("device")) for record in records for item in record.hardware}
    packages = environment.get("packages") or {}
    lines = [
        ("Revision", f"{known.get('revision') or 'not a git checkout'}{dirty}"),
        ("Suite", f"{run.get('suite_path', '')}, version {run.get('suite', {}).get('version', 1)}"),
        ("Seed", str(run.get("suite", {}).get("seed", ""))),
        ("Drawn on", ", ".join(sorted(devices)) or "unknown"),
        (
            "Device",
            f"{known.get('device', '')}; {environment.get('cpu')}, {environment.get('threads')} threads; "
            f"{environment.get('gpu') or 'no GPU'}",
        ),
        ("Numerics", f"{environment.get('dtype')}, TF32 {'on' if environment.get('tf32') else 'off'}"),
        ("Python", str(environment.get("python"))),
        ("Packages", ", ".join(f"{name} {version}" for name, version in packages.items() if version)),
        ("Determinism", certificates(records)),
        ("Recorded", f"{min(r.created_utc for r in records)} to {max(r.created_utc for r in records)} UTC"),
    ]
    return [(label, text) for label, text in lines if text]
