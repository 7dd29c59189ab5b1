"""What a check leaves for people and CI: a Markdown summary, JUnit XML, GitHub annotations, JSON."""

from __future__ import annotations

import os
import re
from pathlib import Path
from xml.etree import ElementTree

from bench.check.gate import CellCheck, Check
from bench.check.quality import Quality
from bench.report.tables import escape
from bench.store import atomic_write, to_json

_WORDS = {
    "faster": "✅ faster", "same": "✅ same", "kept": "✅ kept", "slower": "❌ slower", "lost": "❌ lost",
    "quality lost": "❌ quality lost", "inconclusive": "❔ inconclusive",
}  # fmt: skip
# No control character may stand in XML 1.0, escaped or not.
_NO_XML = re.compile(r"[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def percent(ratio: float) -> str:
    """A ratio of seconds as a change: ``+3.2 %``."""
    return f"{100 * (ratio - 1):+.1f} %"


def speed_text(cell: CellCheck) -> str:
    """A cell's speed in a line."""
    if cell.measured is None:
        return "not measured"
    speed = cell.measured.speed
    low, high = speed.interval
    shown = f"{percent(speed.ratio)} ({percent(low)} to {percent(high)}), {speed.rounds} rounds"
    return f"{shown}; about {speed.more_rounds} more would settle it" if speed.more_rounds else shown


def quality_text(item: Quality) -> str:
    """A metric's quality in a line."""
    shown = f"{item.base:.4g} to {item.head:.4g}, worse by {item.loss:.4g}"
    if item.interval is not None:
        shown += f" ({item.interval[0]:.4g} to {item.interval[1]:.4g})"
    shown += f", allowed {item.margin:.4g}"
    return f"{shown}; {item.note}" if item.note else shown


def markdown(check: Check) -> str:
    """A summary for a pull request."""
    lines = [
        f"## Sampler check: {_WORDS[check.verdict]}",
        "",
        f"{escape(check.suite)}, {escape(check.head)} against {escape(check.base)}, "
        f"on {escape(check.device)}. Time per run of head against base; positive is slower.",
        "",
        "| cell | verdict | time | A/A spread of a pair | a run |",
        "|---|---|---|--:|---|",
    ]
    for cell in check.cells:
        noise = f"{100 * cell.measured.noise:.1f} %" if cell.measured is not None else ""
        lines.append(
            f"| {escape(cell.name)} | {_WORDS[cell.verdict]} | {speed_text(cell)} | {noise} | {cell.unit} |"
        )
    rows = [(cell, item) for cell in check.cells for item in cell.quality]
    if rows:
        lines += ["", "| cell | metric | quality | base to head |", "|---|---|---|---|"]
        lines += [
            f"| {escape(cell.name)} | {escape(item.title)} | {_WORDS[item.verdict]} | {quality_text(item)} |"
            for cell, item in rows
        ]
    if check.notices:
        lines += ["", "Noticed:", ""]
        lines += [f"- {escape(text)}" for text in check.notices]
    return "\n".join(lines) + "\n"


def junit(check: Check) -> bytes:
    """JUnit XML: a case per cell for speed, and one per metric for quality. Inconclusive is an error."""

    def text(value: object) -> str:
        return _NO_XML.sub("\ufffd", str(value))

    suite = ElementTree.Element("testsuite", name=text(f"tr0n-bench check {check.suite}"))
    counts = {"tests": 0, "failures": 0, "errors": 0}

    def case(group: str, name: str, verdict: str, message: str, seconds: float = 0.0) -> None:
        element = ElementTree.SubElement(
            suite, "testcase", classname=text(group), name=text(name), time=f"{seconds:.3f}"
        )
        counts["tests"] += 1
        if verdict in ("slower", "lost"):
            counts["failures"] += 1
            ElementTree.SubElement(element, "failure", type=verdict, message=text(message))
        elif verdict == "inconclusive":
            counts["errors"] += 1
            ElementTree.SubElement(element, "error", type=verdict, message=text(message))
        ElementTree.SubElement(element, "system-out").text = text(f"{verdict}: {message}")

    for cell in check.cells:
        if cell.measured is not None:
            seconds = sum(cell.measured.base_s) + sum(cell.measured.head_s)
            case(cell.name, "speed", cell.measured.speed.verdict, speed_text(cell), seconds)
        for item in cell.quality:
            case(cell.name, f"quality: {item.metric}", item.verdict, quality_text(item))
    for key, value in counts.items():
        suite.set(key, str(value))
    root = ElementTree.Element("testsuites")
    root.append(suite)
    return ElementTree.tostring(root, encoding="utf-8", xml_declaration=True)


def github_annotations(check: Check) -> list[str]:
    """GitHub Actions workflow commands: an error per loss, a warning for what is open, notices."""
    found = []
    for cell in check.cells:
        if cell.measured is not None and cell.measured.speed.verdict in ("slower", "inconclusive"):
            level = "error" if cell.measured.speed.verdict == "slower" else "warning"
            found.append(_annotation(level, f"{cell.name}: {cell.measured.speed.verdict}", speed_text(cell)))
        for item in cell.quality:
            if item.verdict != "kept":
                level = "error" if item.verdict == "lost" else "warning"
                title = f"{cell.name}: {item.title} {item.verdict}"
                found.append(_annotation(level, title, quality_text(item)))
    return found + [_annotation("notice", "machine", text) for text in check.notices]


def _annotation(level: str, title: str, message: str) -> str:
    def data(value: str) -> str:
        return value.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")

    return f"::{level} title={data(title).replace(':', '%3A').replace(',', '%2C')}::{data(message)}"


def write(check: Check, out: Path) -> list[Path]:
    """``check.json``, ``check.md`` and ``junit.xml``; on GitHub Actions the job's summary as well."""
    files = {
        "check.json": to_json(check.to_plain()),
        "check.md": markdown(check).encode(),
        "junit.xml": junit(check),
    }
    for name, content in files.items():
        atomic_write(out / name, content)
    summary = os.environ.get("GITHUB_STEP_SUMMARY")
    if summary:
        with Path(summary).open("a", encoding="utf-8") as file:
            file.write(markdown(check))
    return [out / name for name in files]
