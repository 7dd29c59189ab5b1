"""The table of agreement holds: every line within its tolerance, and the page lists the same lines."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[1] / "agreement" / "metrics.py"


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("agreement_metrics", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    sys.modules["agreement_metrics"] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def test_every_line_agrees_and_is_on_the_page(script):
    found = list(script.lines())
    assert len(found) >= 30
    for line in found:
        if line.tolerance is not None:
            assert line.difference <= line.tolerance, line
    page = script.OUT.read_text(encoding="utf-8").splitlines()
    shown = [row.split("|")[1:4] for row in page if row.startswith("| ")][1:]
    assert [tuple(cell.strip() for cell in row) for row in shown] == [
        (line.metric, line.against, line.on) for line in found
    ]
