"""Runs a plan: makes what the artifact store lacks, scores every cell, writes its record.

A cell that fails is a record too. Everything costly lies in the store under the hash of what determines it,
so a run that was interrupted goes on where it stopped, and a run that is finished has nothing to do.
"""

from __future__ import annotations

import contextlib
import time
import traceback
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from bench import payload
from bench.artifacts import CorruptArtifact, MissingArtifact, open_store
from bench.assembly import Assembly, Progress, default_cache_dir, silent
from bench.certify import read_certificate
from bench.engines import Engine, make_engine
from bench.errors import ArtifactError, BenchError, ResultError
from bench.guards.contamination import in_loop_judges
from bench.identity import weight_hashes
from bench.journal import Journal
from bench.needs import Needs, Part
from bench.plan import Cell, plan
from bench.protocols import stamped
from bench.provenance import environment, git_state, utc_now
from bench.recorded import artifacts_of, cell_info, protocol_of
from bench.scoring import Scorer, check_failures, read_drawn, samples_table, with_score_seconds
from bench.store import Record, RunStore
from bench.suite import Suite, suite_from_plain
from bench.workshop import STAGES, Stage, Workshop

MOST_REPAIRS = 5


@dataclass(frozen=True)
class RunSummary:
    """Where a run was written, how its cells ended, and what was done: tasks by stage, images judged,
    metrics computed, records written."""

    run_dir: Path
    num_ok: int
    num_failed: int
    made: Counter[str] = field(default_factory=Counter)


def choose_device(name: str) -> torch.device:
    """ "auto" is CUDA where there is one, else the CPU. Raises BenchError for an unknown or absent device."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise BenchError(f"unknown device '{name}'. Allowed: auto, cpu, cuda, cuda:0, …") from None
    if device.type == "cuda" and not torch.cuda.is_available():
        raise BenchError("device 'cuda' was asked for, and this torch sees no CUDA device. Use --device cpu.")
    return device


def default_store_url() -> str:
    """Where artifacts lie unless told otherwise."""
    return str(default_cache_dir() / "artifacts")


def run(
    suite: Suite,
    out: Path,
    device: str = "auto",
    progress: Progress | None = None,
    *,
    store_url: str | None = None,
    engine: Engine | None = None,
    draw: bool = True,
) -> RunSummary:
    """Brings every cell of the suite up to date in ``out``, with artifacts in the store at ``store_url``.

    Where ``draw`` is False samples must be in the store. Raises ArtifactError or ResultError where the store
    or ``out`` cannot be used; every other fault is the record of the cell that it met.
    """
    torch_device = choose_device(device)
    store = open_store(store_url or default_store_url())
    engine = engine or make_engine("local")
    the_plan = plan(suite)
    results = RunStore(out)
    journal = Journal(out / "journal.jsonl")
    assembly = Assembly(suite, torch_device, progress=progress or silent, asked=device)
    attempt = _Attempt(suite, Workshop(assembly, the_plan, store), results, journal, engine, draw)
    # Not what it leaves alone: a run's folder is the same whether it took one attempt or ten.
    results.write_run(
        {
            "suite": suite.resolved(),
            "suite_name": suite.name,
            "suite_path": Path(suite.source).name,
            "cells": [cell.id for cell in the_plan.cells],
            "provenance": {
                **git_state(Path.cwd()),
                "weights": weights_of(suite),
                "device": str(torch_device),
            },
        }
    )
    journal.write("attempt", suite=suite.name, cells=len(the_plan.cells), store=store.root)
    try:
        store.sweep()
        results.sweep()
        attempt.make(the_plan.cells)
        ok = attempt.record(the_plan.cells)
    except BaseException as error:
        with contextlib.suppress(ResultError):  # a full disk takes no more lines
            journal.write("interrupted", reason=f"{type(error).__name__}: {error}"[:500])
        raise
    finally:
        engine.close()
    summary = RunSummary(out, sum(ok), len(ok) - sum(ok), attempt.counts())
    seconds = {name: [round(value, 3) for value in each] for name, each in attempt.seconds.items()}
    journal.write(
        "finished", ok=summary.num_ok, failed=summary.num_failed, made=dict(summary.made), seconds=seconds
    )
    return summary


def score(
    run_dir: Path,
    device: str = "auto",
    progress: Progress | None = None,
    *,
    store_url: str | None = None,
) -> RunSummary:
    """Brings the metrics of a run up to date from stored samples; nothing is drawn."""
    suite = suite_from_plain(RunStore(run_dir).read_run()["suite"], str(run_dir / "run.json"))
    return run(suite, run_dir, device, progress, store_url=store_url, draw=False)


def weights_of(suite: Suite) -> dict[str, str]:
    """Every weight file of the suite → sha256, or what is wrong with it (the cell then fails on its own)."""
    hashes: dict[str, str] = {}
    for table in (suite.generators, suite.conditioners, suite.translators, suite.judges):
        for item in table.values():
            try:
                hashes |= weight_hashes(item.config)
            except BenchError as error:
                hashes[item.name] = f"unavailable: {error}"
    return hashes


# What is made where nothing may be drawn: stored samples need no translator any more.
SCORING: tuple[Stage, ...] = ("reference", "samples")


class _Attempt:
    """One attempt at a plan. ``failed`` maps a cell to the error that stopped it."""

    def __init__(
        self,
        suite: Suite,
        workshop: Workshop,
        results: RunStore,
        journal: Journal,
        engine: Engine,
        draw: bool,
    ):
        self.suite, self.workshop, self.store = suite, workshop, workshop.store
        self.results, self.journal, self.engine, self.draw = results, journal, engine, draw
        self.progress = workshop.assembly.progress
        self.scorer = Scorer(suite, self.store)
        self.failed: dict[str, Exception] = {}
        self.seconds: dict[str, list[float]] = {}
        self.records = 0

    @contextlib.contextmanager
    def timed(self, name: str) -> Iterator[None]:
        """Appends what the block takes to ``seconds``, which has a list of each name: one value per cell."""
        begin = time.perf_counter()
        yield
        self.seconds.setdefault(name, []).append(time.perf_counter() - begin)

    def counts(self) -> Counter[str]:
        return self.workshop.made + Counter(metrics=self.scorer.computed, records=self.records)

    # --- making

    def make(self, cells: Sequence[Cell]) -> None:
        """Makes all that is missing, stage by stage; a cell whose task fails is left out of later stages."""
        missing: dict[str, list[Part]] = {}
        for k, cell in enumerate(cells):
            self.progress("checking artifacts", k, len(cells))
            try:
                with self.timed("checking"):
                    missing[cell.id] = self._missing(self.workshop.needs(cell.id, again=True))
            except (ArtifactError, ResultError):
                raise
            except Exception as error:
                self._fail(cell.id, error)
        self.progress("checking artifacts", len(cells), len(cells))
        if not self.draw:
            self._refuse_drawing(missing)
        done: set[Part] = set()
        for stage in STAGES if self.draw else SCORING:
            tasks, sharers = [], dict[Part, list[str]]()
            for cell_id, parts in missing.items():
                if cell_id in self.failed:
                    continue
                for task in self.workshop.tasks(cell_id, parts):
                    if task.stage == stage:
                        sharers.setdefault(task.part, []).append(cell_id)
                        if task.part not in done:
                            done.add(task.part)
                            tasks.append(task)
            for k, outcome in enumerate(self.engine.perform(tasks, self.workshop)):
                self.progress(f"stage {stage}", k + 1, len(tasks))
                if outcome.error is not None:
                    for cell_id in sharers[outcome.task.part]:
                        self._fail(cell_id, outcome.error)
                event = "failed" if outcome.error is not None else "made" if outcome.made else "found"
                lost = {"lost": list(outcome.lost)} if outcome.lost else {}  # workers that died at it
                self.journal.write(
                    event,
                    task=outcome.task.label,
                    seconds=round(outcome.seconds, 3),
                    worker=outcome.worker,
                    **lost,
                )

    def _refuse_drawing(self, missing: dict[str, list[Part]]) -> None:
        """Fails the cells whose samples are not stored, before any work is done."""
        for cell_id, parts in missing.items():
            for task in self.workshop.tasks(cell_id, parts):
                if task.stage == "samples" and task.part.kind != "readout":
                    message = (
                        f"samples '{'/'.join(task.part.place)}' are not in the artifact store "
                        f"'{self.store.root}', and score draws none. Run the suite."
                    )
                    self._fail(cell_id, ResultError(message))
                    break

    def _missing(self, own: Needs) -> list[Part]:
        """Parts that the store lacks. Objects in a folder are read and checked: what is torn, flipped or
        swapped is set aside, and is missing then."""
        return [part for part in own.parts() if not self._is_sound(part)]

    def _is_sound(self, part: Part) -> bool:
        if not self.store.is_local:
            return self.store.exists(*part.place)
        try:
            self.store.read(*part.place)
        except MissingArtifact:
            return False
        except CorruptArtifact as error:
            self.journal.write("corrupt", task="/".join(part.place), error=str(error))
            return False
        return True

    def _fail(self, cell_id: str, error: Exception) -> None:
        self.failed.setdefault(cell_id, error)

    # --- recording

    def record(self, cells: Sequence[Cell]) -> list[bool]:
        """Scores and records every cell; whether each is ok."""
        ok = []
        for k, cell in enumerate(cells):
            self.progress("scoring", k, len(cells))
            with self.timed("recording"):
                ok.append(self._record(cell))
        self.progress("scoring", len(cells), len(cells))
        return ok

    def _record(self, cell: Cell) -> bool:
        record = Record(cell=cell_info(cell), status="ok", environment=environment(), created_utc=utc_now())
        for repair in range(MOST_REPAIRS):
            if cell.id in self.failed:
                break
            try:
                record = self._scored(record, self.workshop.needs(cell.id))
                break
            except (CorruptArtifact, MissingArtifact) as error:
                # Found on reading: set aside by now, so that making what is missing mends it.
                self.journal.write("repair", cell=cell.id, error=str(error))
                if repair == MOST_REPAIRS - 1 or not self.draw:
                    self._fail(cell.id, error)
                else:
                    self.make([cell])
            except (ArtifactError, ResultError):
                raise
            except Exception as error:
                self._fail(cell.id, error)
        if cell.id in self.failed:
            record = _failed(record, self.failed[cell.id])
        if not self._is_recorded(record):
            self.results.write_record(record)
            self.records += 1
        return record.status == "ok"

    def _is_recorded(self, record: Record) -> bool:
        """Whether the folder's record says the same, but for when it was made."""
        try:
            old = self.results.read_record(record.cell.id)
        except BenchError:
            return False
        return replace(record, created_utc=old.created_utc, environment=old.environment) == old

    def _scored(self, record: Record, own: Needs) -> Record:
        """The complete record of a cell; writes its images, latents and table as well."""
        drawn = read_drawn(self.store, own)
        check_failures(own, drawn, self.suite.samples.max_failed_share)
        drawn = with_score_seconds(self.store, own, drawn)
        with self.timed("metrics"):
            in_loop = in_loop_judges(self.suite, own.cell)
            scored = self.scorer.score(own, drawn, in_loop)
        table = samples_table(own, drawn)
        for column, values in scored.columns.items():
            table[column] = values
        artifacts = artifacts_of(own, scored.keys)
        source = {name: artifacts[name] for name in ("samples", "scores")}
        self.results.export(own.cell.id, source, self._images(own), drawn.latents, table)
        protocol = protocol_of(self.suite, own)
        return replace(
            record,
            scores=stamped(scored.scores, protocol),
            curve=stamped(scored.curve, protocol),
            protocol=protocol,
            timing=drawn.timing,
            failed_samples=int((~drawn.ok).sum()),
            hardware=tuple(drawn.hardware),
            tiles=tuple(drawn.tiles),
            artifacts=artifacts,
            certificate=read_certificate(self.store, own),
            in_loop=in_loop,
            notes=drawn.notes,
        )

    def _images(self, own: Needs) -> Any:
        for span in own.spans:
            content = self.store.read("images", own.samples.key, span.name)
            yield from payload.png_files(payload.unpack(content)[0])


def _failed(record: Record, error: Exception) -> Record:
    """The record of a failed cell; with the traceback where the error is not the user's to mend."""
    details = {"type": type(error).__name__, "message": str(error)}
    if not isinstance(error, BenchError):
        details["traceback"] = "".join(traceback.format_exception(error)[-6:])
    return Record(
        cell=record.cell,
        status="failed",
        error=details,
        environment=record.environment,
        created_utc=record.created_utc,
    )
