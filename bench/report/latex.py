"""LaTeX tables: booktabs rules, best of each generator in bold, 95 % intervals as ±.

Each table is a fragment to ``\\input``; it needs ``\\usepackage{booktabs}`` and nothing else.
"""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Sequence

from bench.report.tables import (
    UNITS,
    Group,
    best_values,
    final_scores,
    headline_columns,
    sampler_name,
    shown,
)  # fmt: skip
from bench.report.trust import warnings
from bench.store import Record
from bench.types import Score

ARROWS = {"lower": r" $\downarrow$", "higher": r" $\uparrow$", "none": ""}
_SPECIAL = {
    "\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "$": r"\$", "&": r"\&", "#": r"\#", "%": r"\%",
    "_": r"\_", "^": r"\textasciicircum{}", "~": r"\textasciitilde{}", "<": r"\textless{}",
    ">": r"\textgreater{}", "|": r"\textbar{}", '"': r"\textquotedbl{}", "'": r"\textquotesingle{}",
    "`": r"\textasciigrave{}", "-": "-{}",
}  # fmt: skip


def latex_escape(text: object) -> str:
    """Untrusted text as LaTeX that prints it: no command, one line.

    Letters outside ASCII lose their accents; what has no ASCII form is printed as its code point.
    """
    out = []
    for character in " ".join(str(text).split()):
        if character in _SPECIAL:
            out.append(_SPECIAL[character])
        elif " " <= character <= "~":
            out.append(character)
        else:
            ascii_form = unicodedata.normalize("NFKD", character).encode("ascii", "ignore").decode()
            if ascii_form:
                out += [_SPECIAL.get(c, c) for c in ascii_form]
            elif not unicodedata.combining(character):
                out.append(f"U+{ord(character):04X}")
    return "".join(out)


def latex_table(group: Group) -> str:
    """A ``tabular`` of the group's headline metrics, a row per variant; a failed cell says so."""
    columns = headline_columns(group)
    best = best_values(group, columns)
    heads = ["generator", "sampler", "$n$"]
    for column in columns:
        unit = f" ({latex_escape(UNITS[column.metric])})" if column.metric in UNITS else ""
        heads.append(f"{latex_escape(column.title)}{ARROWS[column.better]}{unit}")
    lines = [r"\begin{tabular}{ll" + "r" * (len(columns) + 1) + "}", r"\toprule"]
    lines += [" & ".join(heads) + r" \\", r"\midrule"]
    previous = None
    for record in group.records:
        cell, scores = record.cell, final_scores(record)
        if previous not in (None, cell.generator):
            lines.append(r"\midrule")
        previous = cell.generator
        row = [latex_escape(cell.generator), latex_escape(sampler_name(record))]
        if record.status != "ok":
            row.append(rf"\multicolumn{{{len(columns) + 1}}}{{l}}{{failed}}")
        else:
            row.append(str(cell.num_samples))
            for column in columns:
                score = scores.get(column.metric)
                bold = score is not None and best.get((cell.generator, column.metric)) == score.value
                row.append("" if score is None else latex_value(score, bold=bold) + _warned(score, record))
        lines.append(" & ".join(row) + r" \\")
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}", ""])


def _warned(score: Score, record: Record) -> str:
    marks = warnings(score, record)
    return rf"\textsuperscript{{{latex_escape(', '.join(marks))}}}" if marks else ""


def latex_value(score: Score, *, bold: bool = False) -> str:
    """A value with its 95 % interval: ``± half`` where both sides round to the same, else both sides, and
    [low, high] where the value is not in it."""
    text = shown(score)
    value = rf"\textbf{{{text}}}" if bold else text
    if score.interval is None or not math.isfinite(score.value):
        return value
    digits = len(text.partition(".")[2])
    if not score.interval[0] <= score.value <= score.interval[1]:
        low, high = (f"{bound:.{digits}f}" for bound in score.interval)
        return rf"{value} {{\scriptsize $[{low}, {high}]$}}"
    below, above = (f"{abs(bound - score.value):.{digits}f}" for bound in score.interval)
    sides = rf"$\pm${below}" if below == above else rf"$^{{+{above}}}_{{-{below}}}$"
    return rf"{value} {{\scriptsize {sides}}}"


def latex_document(titles: Sequence[str], files: Sequence[str]) -> str:
    """A document that shows the tables of ``files``, each under its title."""
    lines = [
        r"\documentclass{article}",
        r"\usepackage[T1]{fontenc}",
        r"\usepackage{textcomp}",
        r"\usepackage{booktabs}",
        r"\usepackage{graphicx}",
        r"\usepackage[margin=2cm]{geometry}",
        r"\begin{document}",
    ]
    for title, file in zip(titles, files, strict=True):
        lines += [
            r"\begin{table}[ht]",
            r"\centering",
            rf"\caption{{{latex_escape(title)}. Best of each generator in bold;",
            r"$\pm$ and $[\,]$ are 95\,\% intervals, of distances biased at small $n$ without that bias.}",
            rf"\resizebox{{\ifdim\width>\linewidth\linewidth\else\width\fi}}{{!}}{{\input{{{file}}}}}",
            r"\end{table}",
        ]
    return "\n".join([*lines, r"\end{document}", ""])
