"""Quality against all seconds: set-up paid once, on the committed run of the rivals."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from bench.report.amortised import amortised, total_seconds
from bench.report.tables import groups
from bench.store import Record, RunStore

RUN = Path(__file__).parents[2] / "results" / "rivals-class"


@pytest.fixture(scope="module")
def records() -> list[Record]:
    return RunStore(RUN).records()


def test_the_set_up_is_paid_once(records):
    record = next(r for r in records if r.cell.sampler == "promptgen" and r.cell.data == "digits")
    each = next(s.value for s in record.scores if s.metric == "seconds-per-image")
    assert record.timing is not None
    setup = sum(record.timing.setup_s.values())
    assert setup > 10
    assert total_seconds(record, 1) == pytest.approx(setup + each)
    assert total_seconds(record, 10_000) == pytest.approx(setup + 10_000 * each)
    assert total_seconds(replace(record, timing=None), 1) is None


def test_the_figure_is_drawn_where_there_is_quality_and_timing(records, tmp_path):
    files = amortised(groups(records), tmp_path / "amortised", ("png",))
    assert [file.name for file in files] == ["amortised.png"]
    bare = [replace(record, scores=()) for record in records]
    assert amortised(groups(bare), tmp_path / "none", ("png",)) == []
