"""Tables, pictures and pages from stored runs. Draws and scores nothing."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from bench.errors import BenchError, nearest

FORMATS = ("html", "md", "latex", "csv", "png", "svg")
RUN_FORMATS = ("html", "md", "csv", "png")  # what a run leaves beside its records


def write_report(
    run_dirs: list[Path],
    out: Path,
    formats: Sequence[str] = FORMATS,
    *,
    store_url: str | None = None,
    python: bool = False,
) -> list[Path]:
    """Writes the report of one or more runs into ``out`` and returns the files, pages first.

    ``store_url`` names the artifact store that trajectories and nearest real images of the HTML page come
    from; ``python`` allows a suite's own code to run for them. Raises ResultError for a run without records.
    """
    from bench.report.page import write_page
    from bench.report.view import RunView

    views = [RunView(run_dir) for run_dir in run_dirs]
    files = write_page(views, out, formats)
    if "html" in formats:
        from bench.report.html.page import write_html

        files = write_html(views, out, store_url=store_url, python=python) + files
    return files


def read_formats(text: str) -> tuple[str, ...]:
    """The formats of a list such as ``html,latex``, each once. Raises BenchError for an unknown one."""
    named = [part.strip().lower() for part in text.split(",") if part.strip()]
    for name in named:
        if name not in FORMATS:
            raise BenchError(
                f"--format: unknown '{name}'.{nearest(name, FORMATS)} Allowed: {', '.join(FORMATS)}."
            )
    if not named:
        raise BenchError(f"--format names none. Allowed: {', '.join(FORMATS)}.")
    return tuple(dict.fromkeys(named))
