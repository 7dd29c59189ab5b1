"""Comparison tables: one per data set and condition kind, in Markdown and CSV."""

from __future__ import annotations

import html
import math
import re
from collections.abc import Container, Sequence
from dataclasses import dataclass, replace

import pandas as pd

from bench.guards.goodhart import PREFIX as GAP
from bench.keys import slug
from bench.report.trust import LEVEL, is_ranked, warnings
from bench.store import Record
from bench.types import Score

# Columns of the page in order, by metric id; everything else is in the CSV.
HEADLINE = (
    "fid",
    "class-accuracy",
    "target-probability",
    "shape-and-color-accuracy",
    "attribute-accuracy",
    "all-attributes-accuracy",
    "composition-accuracy",
    "clip-cosine",
    "diversity",
    "seconds-per-image",
)
ARROWS = {"lower": "↓", "higher": "↑", "none": ""}
UNITS = {"seconds-per-image": "s/image"}


@dataclass(frozen=True)
class Group:
    """The records that one table compares: same data, condition kind and conditioner, which is named where
    the run has several for these."""

    data: str
    kind: str
    records: tuple[Record, ...]
    conditioner: str = ""

    @property
    def slug(self) -> str:
        own = f"-{slug(self.conditioner)}" if self.conditioner else ""
        return f"{self.data}-{self.kind}{own}"

    @property
    def title(self) -> str:
        """Not escaped."""
        return f"{self.data}, {self.kind} conditions" + (f": {self.conditioner}" if self.conditioner else "")

    @property
    def short_title(self) -> str:
        return f"{self.data}, {self.conditioner or self.kind}"


def groups(records: Sequence[Record]) -> list[Group]:
    """Records grouped by data set, condition kind and conditioner, in order of appearance."""
    found: dict[tuple[str, str], dict[str, list[Record]]] = {}
    for record in records:
        alike = found.setdefault((record.cell.data, record.cell.condition_kind), {})
        alike.setdefault(record.cell.conditioner, []).append(record)
    return [
        Group(data, kind, tuple(items), conditioner if len(alike) > 1 else "")
        for (data, kind), alike in found.items()
        for conditioner, items in alike.items()
    ]


def escape(text: object) -> str:
    """Untrusted text made safe for one Markdown table cell: no HTML, no pipes, no line breaks, no marks."""
    plain = re.sub(r"\s+", " ", str(text)).strip()
    plain = "".join(c for c in plain if c.isprintable())
    return re.sub(r"([\\`*_\[\]|~#!])", r"\\\1", html.escape(plain, quote=False))


def final_scores(record: Record) -> dict[str, Score]:
    """Metric id → score of the final samples."""
    return {score.metric: score for score in record.scores if score.step is None}


def headline_columns(group: Group) -> list[Score]:
    """One example score per headline column that any record of the group has, Goodhart gaps last."""
    seen: dict[str, Score] = {}
    for record in group.records:
        for name, score in final_scores(record).items():
            seen.setdefault(name, score)
    return [seen[name] for name in (*HEADLINE, *sorted(n for n in seen if n.startswith(GAP))) if name in seen]


def shown(score: Score) -> str:
    """A value with the digits a reader needs."""
    value = score.value
    if not math.isfinite(value):
        return "not finite"
    if score.unit == "s/image":
        return f"{value:.4f}" if value < 1 else f"{value:.2f}"
    if 0 <= abs(value) <= 1:
        return f"{value:.3f}"
    return f"{value:.2f}"


def best_values(group: Group, columns: Sequence[Score]) -> dict[tuple[str, str], float]:
    """(generator, metric) → the best value among that generator's rows."""
    best: dict[tuple[str, str], float] = {}
    for record in group.records:
        scores = final_scores(record)
        for column in columns:
            score = scores.get(column.metric)
            if score is None or not is_ranked(score, record):
                continue
            key = (record.cell.generator, column.metric)
            pick = min if score.better == "lower" else max
            best[key] = pick(best.get(key, score.value), score.value)
    return best


def sampler_name(record: Record) -> str:
    """The sampler, with its translator where that is not the only one."""
    cell = record.cell
    return cell.sampler if cell.translator in (None, "default") else f"{cell.sampler} ({cell.translator})"


def variant_name(record: Record, group: Group) -> str:
    """A short name that tells the record from the others of its group."""
    names = [f"{sampler_name(other)}" for other in group.records]
    if len({other.cell.generator for other in group.records}) > 1:
        names = [f"{other.cell.generator} / {sampler_name(other)}" for other in group.records]
    own = names[next(k for k, other in enumerate(group.records) if other.cell.id == record.cell.id)]
    return own if names.count(own) == 1 else record.cell.variant


def shown_with_trust(score: Score, record: Record, is_level: bool = False) -> str:
    """A value, its interval, and the marks that it needs."""
    parts = [shown(score)]
    if score.interval is not None:
        low, high = (shown(replace(score, value=end)) for end in score.interval)
        parts.append(f"[{low}, {high}]")
    parts += [LEVEL] * is_level
    marks = warnings(score, record)
    return " ".join(parts) + (f" ({', '.join(marks)})" if marks else "")


def markdown_table(group: Group, level: Container[tuple[str, str]] = frozenset()) -> str:
    """The group's table: a row per variant, best per generator in bold, failed cells with their error.

    ``level`` holds (cell id, metric) of values that cannot be told from the best.
    """
    columns = headline_columns(group)
    best = best_values(group, columns)
    heads = ["generator", "sampler", "n"]
    for column in columns:
        title = f"{column.title} {ARROWS[column.better]}".strip()
        heads.append(f"{title} ({UNITS[column.metric]})" if column.metric in UNITS else title)
    lines = ["| " + " | ".join(heads) + " |", "|" + "---|" * 2 + "--:|" * (len(columns) + 1)]
    for record in group.records:
        cell = record.cell
        row = [escape(cell.generator), escape(sampler_name(record))]
        scores = final_scores(record)
        if record.status != "ok":
            message = escape((record.error or {}).get("message", "no message"))
            row += (
                ["failed", message[:300], *[""] * (len(columns) - 1)]
                if columns
                else [f"failed: {message[:300]}"]
            )
        else:
            row.append(str(cell.num_samples))
            for column in columns:
                score = scores.get(column.metric)
                if score is None:
                    row.append("")
                    continue
                text = shown_with_trust(score, record, (cell.id, column.metric) in level)
                ranked = is_ranked(score, record)
                if ranked and best.get((cell.generator, column.metric)) == score.value:
                    value = shown(score)
                    text = text.replace(value, f"**{value}**", 1)
                row.append(text)
        lines.append("| " + " | ".join(row) + " |")
    return "\n".join(lines) + "\n"


def scores_table(group: Group) -> pd.DataFrame:
    """All scores of the group in full precision: a row per variant, a column per metric."""
    rows = []
    for record in group.records:
        cell = record.cell
        row: dict[str, object] = {
            "generator": cell.generator,
            "conditioner": cell.conditioner,
            "sampler": cell.sampler,
            "translator": cell.translator,
            "n": cell.num_samples,
            "status": record.status,
            "error": (record.error or {}).get("message"),
        }
        row |= {name: score.value for name, score in final_scores(record).items()}
        rows.append(row)
    return pd.DataFrame(rows)


def phase_table(group: Group) -> str:
    """Milliseconds per image by phase, evaluations per image, and what the set-up took."""
    timings = [record.timing for record in group.records if record.timing is not None]
    # Only generators that see a prompt or a class have a context to make.
    context = ("context",) if any(timing.phase_s.get("context") for timing in timings) else ()
    phases_shown = (*context, "translate", "refine", "decode", "score")
    # Where samplers walk through a diffusion model, its passes are the cost and G's tell nothing.
    kinds = {"G": "generator", "denoiser": "denoiser", "f": "auxiliary"}
    if not any(timing.evaluations.get("denoiser_forwards") for timing in timings):
        del kinds["denoiser"]
    heads = (*phases_shown, *(f"{name} evaluations" for name in kinds), "set-up (s)")
    lines = [f"| generator | sampler | {' | '.join(heads)} |", "|---|---|" + "--:|" * len(heads)]
    for record in group.records:
        timing = record.timing
        if timing is None or record.status != "ok":
            continue
        n = timing.num_samples
        phases = [f"{1000 * timing.phase_s.get(phase, 0.0) / n:.2f}" for phase in phases_shown]
        counts = timing.evaluations
        evaluations = [
            f"{counts.get(f'{kind}_forwards', 0) / n:.0f} + {counts.get(f'{kind}_backwards', 0) / n:.0f} back"
            for kind in kinds.values()
        ]
        setup = f"{sum(timing.setup_s.values()):.1f}" if timing.setup_s else ""
        row = [escape(record.cell.generator), escape(record.cell.sampler), *phases, *evaluations, setup]
        lines.append("| " + " | ".join(row) + " |")
    return "\n".join(lines) + "\n"


def certificates(records: Sequence[Record]) -> str:
    """What ``certify`` found, in a sentence."""
    found = [record.certificate for record in records if record.certificate is not None]
    if not found:
        return "no cell is certified (tr0n-bench certify SUITE)"
    same, other = (
        max(int(item[group]["largest_pixel_difference"]) for item in found)
        for group in ("same_tile", "other_tiles")
    )
    return (
        f"{len(found)} of {len(records)} cells certified; drawn again, pixels differ by at most {same} "
        f"of 255 under other batch sizes, orders and shards, by at most {other} under other tiles"
    )
