"""The spread between runs of one suite with other seeds: what an interval within a run cannot know.

A run's own intervals speak of other samples from the same translator. Another seed of the suite also draws
other noise for every prompt; another seed of the translator trains another network. Runs that differ in
either are replicates of a cell.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from bench.errors import ResultError
from bench.statistics.means import Interval, student_interval
from bench.store import RunStore

Z = 1.959964


@dataclass(frozen=True, kw_only=True)
class BetweenRuns:
    """One metric of one cell over ``values`` of several runs. ``sd`` is their standard deviation, ``within``
    the root mean square of the standard errors that the runs' own intervals imply (NaN without any):
    their ratio is about 1 where samples are all that varies. ``interval`` is that of the mean."""

    data: str
    variant: str
    metric: str
    judge: str | None
    values: tuple[float, ...]
    sd: float
    within: float
    interval: Interval


def between_runs(runs: Sequence[RunStore]) -> list[BetweenRuns]:
    """Every final score that all runs have, by data set, variant, metric and judge.

    Raises ResultError for fewer than two runs, for runs of one seed and translator, and where nothing is
    common to all.
    """
    if len(runs) < 2:
        raise ResultError("the spread between runs needs two or more. Run the suite with --set seed=…")
    tables = []
    seeds = []
    for run in runs:
        table = {}
        for record in run.records():
            cell = record.cell
            for score in record.scores if record.status == "ok" else ():
                if score.step is None and math.isfinite(score.value):
                    table[cell.data, cell.variant, score.metric, score.judge] = score
        tables.append(table)
        seeds.append(
            [(r.cell.data, r.cell.variant, r.cell.seed, repr(r.cell.config.get("translator")))
             for r in run.records()]
        )  # fmt: skip
    for i, one in enumerate(seeds):
        for k in range(i):
            if one == seeds[k]:
                raise ResultError(
                    f"'{runs[k].run_dir}' and '{runs[i].run_dir}' have the same seeds, so they are one run "
                    "twice. Give each its own: --set seed=…"
                )
    common = [key for key in tables[0] if all(key in table for table in tables)]
    if not common:
        raise ResultError("the runs have no score of one variant in common.")
    found = []
    for key in common:
        scores = [table[key] for table in tables]
        values = np.array([score.value for score in scores])
        half = [(s.interval[1] - s.interval[0]) / 2 for s in scores if s.interval is not None]
        sd = float(values.std(ddof=1))
        method = f"Student's t over {len(values)} runs"
        found.append(
            BetweenRuns(
                data=key[0],
                variant=key[1],
                metric=key[2],
                judge=key[3],
                values=tuple(values.tolist()),
                sd=sd,
                within=float(np.sqrt(np.mean(np.square(half)))) / Z if half else math.nan,
                interval=student_interval(
                    float(values.mean()), sd / math.sqrt(len(values)), len(values) - 1, method
                ),
            )
        )
    return found
