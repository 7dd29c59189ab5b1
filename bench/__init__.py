"""tr0n-bench: benchmark and evaluation harness for plug-and-play conditional generation."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bench.report.frames import Run

__all__ = ["load"]


def load(run: Path | str) -> Run:
    """A run folder as pandas frames, for notebooks: ``.scores``, ``.samples``, ``.timings``, ``.table()``,
    ``.grid()``. Raises ResultError where it holds no run."""
    from bench.report.frames import Run

    return Run(run)
