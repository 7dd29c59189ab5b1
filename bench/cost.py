"""What a suite would take on N workers: wall-clock, storage and traffic, from a measured pilot.

A pilot is a run of the same suite with one shard of samples per cell. Each stored span of samples says how
long it took (``seconds`` in its metadata), each readout and translator likewise; headers tell their sizes.
The journal of the pilot's run folder adds what the store does not know: references, what each task takes
besides, and the driver's own work. The model:

- Stages follow one another, as in a run. Within a stage each job goes to the worker that is free first; a job
  is never split, so a worker does whole shards, and training a translator takes one worker.
- A span takes its tiles times the seconds of one, a snapshot's decoding and encoding per step of the curve,
  encoding per image, reading per image and judge, and a constant.
- Loading and warming up is paid once per worker and cell, at most for as many cells as a worker gets jobs.
- The driver looks up artifacts first, and computes metrics and writes the run folder at the end: metrics in
  proportion to the features that they read (a cell's and the reference's, at each point of the curve), the
  rest in proportion to samples. It does so alone, whatever the number of workers.

Not in it: waiting for a cluster, starting workers, a network that is the bottleneck, failures.
"""

from __future__ import annotations

import heapq
import math
import os
import shlex
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from bench.artifacts import ArtifactStore, open_store
from bench.assembly import Assembly
from bench.needs import Needs
from bench.pilot import (
    AUTO,
    Rates,
    feature_rows,
    measure,
    metric_references,
    tile_runs,
)  # fmt: skip
from bench.plan import Plan
from bench.spans import Span
from bench.suite import Suite
from bench.survey import Survey, survey
from bench.workshop import STAGES, Task

# --- the model


@dataclass(frozen=True, kw_only=True)
class Job:
    """One task: ``group`` says what has to be loaded for it; bytes ``written`` by kind of artifact."""

    stage: str
    group: str
    seconds: float
    written: Mapping[str, float] = field(default_factory=dict)
    read: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Setup:
    """What a worker does before its first job of a group."""

    seconds: float = 0.0
    read: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Driver:
    """What is done by one process whatever the number of workers: seconds before and after the stages."""

    checking_s: float = 0.0
    recording_s: float = 0.0
    read: float = 0.0
    run_folder: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Cost:
    """``wall_s`` by stage, seconds of work in all (``work_s``), bytes by kind of artifact (``stored``) and in
    the run folder, and the traffic with the store: of the average worker and of the driver."""

    workers: int
    wall_s: Mapping[str, float]
    work_s: float
    jobs: int
    stored: Mapping[str, float]
    run_folder: float
    worker_read: float
    worker_written: float
    driver_read: float

    @property
    def total_s(self) -> float:
        return sum(self.wall_s.values())

    def to_plain(self) -> dict[str, Any]:
        """Plain JSON data."""
        return {**asdict(self), "total_s": self.total_s}


def makespan(seconds: Iterable[float], workers: int) -> float:
    """When the last job ends, if each goes, in order, to the worker that is free first."""
    free = [0.0] * workers
    for job in seconds:
        heapq.heapreplace(free, free[0] + job)
    return max(free)


def cost(jobs: Sequence[Job], setups: Mapping[str, Setup], driver: Driver, workers: int) -> Cost:
    """The prediction; more workers are never slower, more jobs never faster."""
    if workers < 1:
        raise ValueError(f"workers must be at least 1, got {workers}")
    wall_s = {"checking": driver.checking_s}
    work_s = read = 0.0
    written: dict[str, float] = defaultdict(float)
    for stage in STAGES:
        own = [job for job in jobs if job.stage == stage]
        groups = [setups.get(group, Setup()) for group in dict.fromkeys(job.group for job in own)]
        # A worker meets at most as many groups as it gets jobs; the most costly ones, to be safe.
        most = min(len(groups), math.ceil(len(own) / workers))
        loading = sum(sorted((setup.seconds for setup in groups), reverse=True)[:most])
        wall_s[stage] = makespan((job.seconds for job in own), workers) + loading
        busy = min(workers, len(own))
        work_s += sum(job.seconds for job in own) + loading * busy
        loaded = sum(sorted((setup.read for setup in groups), reverse=True)[:most])
        read += sum(job.read for job in own) + loaded * busy
        for job in own:
            for kind, size in job.written.items():
                written[kind] += size
    wall_s["recording"] = driver.recording_s
    return Cost(
        workers=workers,
        wall_s=wall_s,
        work_s=work_s,
        jobs=len(jobs),
        stored=dict(written),
        run_folder=driver.run_folder,
        worker_read=read / workers,
        worker_written=sum(written.values()) / workers,
        driver_read=driver.read,
    )


# --- from rates to jobs


def jobs_of(found: Survey, suite: Suite, rates: Rates) -> list[Job]:
    """A survey's tasks as jobs, those of cells that were not measured left out."""
    jobs = []
    for task in found.tasks:
        if task.cell in rates.cells:
            jobs.append(_job(task, found.needs[task.cell], suite, rates))
    return jobs


def _job(task: Task, own: Needs, suite: Suite, rates: Rates) -> Job:
    key = task.part.key
    num = len(task.span) if task.span is not None else 0
    if task.stage == "pairs":
        written = {"pairs": num * rates.pair_bytes.get(key, 0.0)}
        return Job(stage="pairs", group=key, seconds=num * rates.pair_s[key], written=written)
    if task.stage == "translator":
        assert own.pairs is not None
        num = suite.translators[str(own.cell.translator)].config.num_pairs
        return Job(
            stage="translator",
            group=key,
            seconds=rates.training_s[key],
            written={"translator": rates.translator_bytes[key]},
            read=num * rates.pair_bytes.get(own.pairs.key, 0.0),
        )
    if task.stage == "reference":
        each = rates.reference_s.get(key, rates.judge_s.get(task.judge, 0.0))
        written = {"reference": num * rates.reference_bytes.get(key, 0.0)}
        return Job(stage="reference", group=task.judge, seconds=num * each, written=written)
    assert task.span is not None
    return _span_job(task, task.span, own, suite, rates)


def _span_job(task: Task, span: Span, own: Needs, suite: Suite, rates: Rates) -> Job:
    cell, num = rates.cells[own.cell.id], len(span)
    steps = len(own.cell.curve_steps) if own.has_curve(span) else 0
    images = num * (1 + steps)
    judges = list(own.readouts)
    # Where only a judge is new, images are read from the store and not drawn.
    draws = task.part.kind in ("samples", "images", "snapshots")
    seconds = sum(images * rates.judge_s.get(judge, 0.0) for judge in judges)
    written = {"readout": sum(images * cell.readout_bytes.get(judge, 0.0) for judge in judges)}
    read = 0.0
    if draws:
        runs = tile_runs(span, suite.samples.batch_size, cell.tile)
        objects = 1 + bool(steps)
        seconds += runs * (cell.tile_s + steps * cell.snapshot_s) + images * cell.image_s
        seconds += objects * cell.object_s
        written |= {
            "samples": num * cell.sample_bytes,
            "images": num * cell.image_bytes,
            "snapshots": num * steps * cell.snapshot_bytes,
        }
    else:
        read = num * cell.image_bytes + num * steps * cell.snapshot_bytes
    # Without a journal the objects written last, samples and readouts, are taken to be as slow as the others.
    last = draws + len(judges) * (1 + bool(steps))
    seconds += cell.span_s if rates.has_journal else last * cell.object_s
    return Job(stage="samples", group=own.cell.id, seconds=seconds, written=written, read=read)


def setups_of(found: Survey, rates: Rates) -> dict[str, Setup]:
    """What each worker loads for each cell."""
    setups = {}
    for cell_id, cell in rates.cells.items():
        own = found.needs[cell_id]
        read = rates.translator_bytes.get(own.translator.key, 0.0) if own.translator is not None else 0.0
        setups[cell_id] = Setup(seconds=cell.setup_s, read=read)
    return setups


def driver_of(found: Survey, suite: Suite, rates: Rates) -> Driver:
    """The driver's work for all cells that were measured."""
    recording, read, folder = rates.first_s, 0.0, 0.0
    for cell_id, cell in rates.cells.items():
        own, num = found.needs[cell_id], found.needs[cell_id].cell.num_samples
        steps = len(own.cell.curve_steps) if own.snapshots is not None else 0
        curve = own.num_curve if steps else 0
        in_curve = sum(len(span) for span in own.spans if own.has_curve(span))
        references = {name: spans[-1].stop for name, spans in own.reference_spans.items()}
        used = metric_references(suite, own.cell.metrics)
        recording += num * rates.record_s
        recording += rates.metric_s * feature_rows(num, curve, steps, [references[name] for name in used])
        folder += num * (cell.image_bytes + cell.sample_bytes)
        read += num * (cell.image_bytes + cell.sample_bytes)
        for judge in own.readouts:
            read += (num + in_curve * steps) * cell.readout_bytes.get(judge, 0.0)
        for name, item in own.references.items():
            read += references[name] * rates.reference_bytes.get(item.key, 0.0)
    return Driver(checking_s=rates.checking_s, recording_s=recording, read=read, run_folder=folder)


# --- all of it


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """``whole`` in a store that holds nothing, ``remaining`` in the one that was looked at; both without the
    cells of ``unmeasured``, for which ``pilot_command`` is to be run first."""

    whole: Cost
    remaining: Cost
    measured: Mapping[str, int]
    unmeasured: Mapping[str, str]
    hardware: tuple[str, ...]
    has_journal: bool
    is_remote: bool
    pilot_command: str

    def to_plain(self) -> dict[str, Any]:
        """Plain JSON data."""
        plain = {name: getattr(self, name) for name in ("measured", "unmeasured", "has_journal", "is_remote")}
        return {
            **plain,
            "hardware": list(self.hardware),
            "pilot_command": self.pilot_command,
            "whole": self.whole.to_plain(),
            "remaining": self.remaining.to_plain(),
        }


def predict(
    assembly: Assembly,
    plan: Plan,
    found: Survey,
    store: ArtifactStore,
    workers: int,
    pilot: str = AUTO,
    overrides: Sequence[str] = (),
) -> Prediction:
    """What the suite takes on ``workers`` workers, each as fast as the one that made the pilot.

    ``found`` is the survey of ``store``; ``overrides`` are those of the command line, for the pilot's.
    """
    suite = assembly.suite
    rates = measure(found, suite, store, None if pilot == AUTO else Path(pilot))
    empty = survey(assembly, plan, open_store(os.devnull))  # nothing can lie below a file
    setups, driver = setups_of(empty, rates), driver_of(empty, suite, rates)
    unmeasured = {
        cell.id: found.problems.get(cell.id, "no samples of it are stored")
        for cell in plan.cells
        if cell.id not in rates.cells
    }
    to_do = jobs_of(found, suite, rates)
    return Prediction(
        whole=cost(jobs_of(empty, suite, rates), setups, driver, workers),
        remaining=cost(to_do, setups, driver, workers),
        measured={cell_id: cell.num_samples for cell_id, cell in rates.cells.items()},
        unmeasured=unmeasured,
        hardware=rates.hardware,
        has_journal=rates.has_journal,
        is_remote=not store.is_local,
        pilot_command=pilot_command(suite, store, overrides),
    )


def pilot_command(suite: Suite, store: ArtifactStore, overrides: Sequence[str] = ()) -> str:
    """The command that draws one shard of every cell."""
    num = min(suite.samples.shard, suite.samples.num)
    words = ["tr0n-bench", "run", suite.source]
    for override in (*(o for o in overrides if not o.startswith("samples.num=")), f"samples.num={num}"):
        words += ["--set", override]
    for name, metric in suite.metrics.items():
        if getattr(metric.config, "allow_small_n", True) is False:  # a pilot's scores are not looked at
            words += ["--set", f"metrics.{name}.allow_small_n=true"]
    words += ["--store", store.root, "--out", f"results/{suite.name}-pilot", "--no-report"]
    return shlex.join(words)
