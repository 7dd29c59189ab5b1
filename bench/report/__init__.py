"""Tables, pictures and a page from stored runs. Reads records only; draws and scores nothing."""

from __future__ import annotations

from pathlib import Path


def write_report(run_dirs: list[Path], out: Path) -> list[Path]:
    """Writes the report of one or more runs into ``out`` and returns the files, the page first."""
    from bench.report.page import write_page

    return write_page(run_dirs, out)
