"""A stored run as its report sees it: what several of its pages need is read and worked out once."""

from __future__ import annotations

import contextlib
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd

from bench.errors import ResultError
from bench.report.tables import Group, groups, headline_columns
from bench.report.trust import level_with_best
from bench.store import Record, RunStore


class RunView:
    """One run. Raises ResultError where it is missing or broken, and on its records where it has none."""

    def __init__(self, run_dir: Path):
        self.store = RunStore(run_dir)
        self._tables: dict[str, pd.DataFrame | None] = {}
        self._level: dict[str, set[tuple[str, str]]] = {}

    @cached_property
    def run(self) -> dict[str, Any]:
        """The content of run.json."""
        return self.store.read_run()

    @cached_property
    def records(self) -> list[Record]:
        """The records of all cells, at least one."""
        records = self.store.records()
        if not records:
            raise ResultError(f"'{self.store.run_dir}' holds no records yet. Run the suite first.")
        return records

    @cached_property
    def groups(self) -> list[Group]:
        """The records by table."""
        return groups(self.records)

    def tables(self, group: Group) -> dict[str, pd.DataFrame]:
        """The per-sample table of every good cell of a group that has one, by cell id."""
        found = {}
        for record in group.records:
            cell = record.cell.id
            if cell not in self._tables:
                self._tables[cell] = None
                if record.status == "ok":
                    with contextlib.suppress(ResultError):
                        self._tables[cell] = self.store.read_samples(cell)
            table = self._tables[cell]
            if table is not None:
                found[cell] = table
        return found

    def level(self, group: Group) -> set[tuple[str, str]]:
        """(cell id, metric) of the group's headline scores not told from their generator's best."""
        if group.slug not in self._level:
            names = [column.metric for column in headline_columns(group)]
            self._level[group.slug] = level_with_best(group.records, self.tables(group), names)
        return self._level[group.slug]
