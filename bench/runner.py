"""Runs a plan: draws every cell, scores it, writes its record. A cell that fails is a record too."""

from __future__ import annotations

import gc
import traceback
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from bench.assembly import Assembly, Progress, default_cache_dir, weight_hashes
from bench.errors import BenchError, ResultError
from bench.plan import Cell, plan
from bench.provenance import environment, git_state, utc_now
from bench.samplers.base import Problem
from bench.samplers.draw import draw_tiled, fill_tile, tiles, to_uint8
from bench.store import CellInfo, Record, RunStore
from bench.suite import Suite, suite_from_plain
from bench.timing import PhaseTimer
from bench.types import Condition, Evidence, Readout, Score, Timing

WARM_UP_STEPS = 2


@dataclass(frozen=True)
class RunSummary:
    """Where a run was written and how its cells ended."""

    run_dir: Path
    num_ok: int
    num_failed: int


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


def run(suite: Suite, out: Path, device: str = "auto", progress: Progress | None = None) -> RunSummary:
    """Draws and scores every cell of the suite into ``out``; existing records of these cells are replaced."""
    torch_device = choose_device(device)
    the_plan = plan(suite)
    store = RunStore(out)
    assembly = Assembly(suite, torch_device, default_cache_dir(), progress)
    store.write_run(
        {
            "suite": suite.resolved(),
            "suite_name": suite.name,
            "suite_path": Path(suite.source).name,
            "cells": [cell.id for cell in the_plan.cells],
            "created_utc": utc_now(),
            "provenance": {**git_state(Path.cwd()), "weights": _weights(suite), "device": str(torch_device)},
        }
    )
    results = []
    for k, cell in enumerate(the_plan.cells):
        assembly.progress("cells", k, len(the_plan.cells))
        results.append(_run_cell(suite, cell, assembly, store))
        gc.collect()
    assembly.progress("cells", len(the_plan.cells), len(the_plan.cells))
    return RunSummary(out, sum(results), len(results) - sum(results))


def score(run_dir: Path, device: str = "auto", progress: Progress | None = None) -> RunSummary:
    """Computes the metrics of a run anew from its stored images; nothing is drawn."""
    store = RunStore(run_dir)
    suite = suite_from_plain(store.read_run()["suite"], str(run_dir / "run.json"))
    assembly = Assembly(suite, choose_device(device), default_cache_dir(), progress)
    the_plan = plan(suite)
    results = []
    for k, cell in enumerate(the_plan.cells):
        assembly.progress("cells", k, len(the_plan.cells))
        try:
            record = store.read_record(cell.id)
        except ResultError:
            record = None
        if record is None or record.timing is None:
            results.append(False)
            continue
        try:
            record = _scored(suite, cell, assembly, store, record)
        except Exception as error:
            record = _failed(record, error)
        store.write_record(record)
        results.append(record.status == "ok")
    assembly.progress("cells", len(the_plan.cells), len(the_plan.cells))
    return RunSummary(run_dir, sum(results), len(results) - sum(results))


def _weights(suite: Suite) -> dict[str, str]:
    """Every weight file of the suite → sha256, or what is wrong with it (the cell then fails on its own)."""
    hashes: dict[str, str] = {}
    for table in (suite.generators, suite.conditioners, suite.translators, suite.judges):
        for item in table.values():
            try:
                hashes |= weight_hashes(item.config)
            except BenchError as error:
                hashes[item.name] = f"unavailable: {error}"
    return hashes


def _run_cell(suite: Suite, cell: Cell, assembly: Assembly, store: RunStore) -> bool:
    info = CellInfo(
        id=cell.id,
        variant=cell.variant,
        data=cell.data,
        condition_kind=cell.condition_kind,
        generator=cell.generator,
        conditioner=cell.conditioner,
        sampler=cell.sampler,
        translator=cell.translator,
        num_samples=cell.num_samples,
        seed=cell.seed,
        config=cell.config,
    )
    record = Record(cell=info, status="ok", environment=environment(), created_utc=utc_now())
    try:
        record = replace(record, timing=_draw_cell(suite, cell, assembly, store))
        record = _scored(suite, cell, assembly, store, record)
    except Exception as error:
        record = _failed(record, error)
    store.write_record(record)
    return record.status == "ok"


def _failed(record: Record, error: Exception) -> Record:
    """The record of a failed cell; with the traceback where the error is not the user's to mend."""
    details = {"type": type(error).__name__, "message": str(error)}
    if not isinstance(error, BenchError):
        details["traceback"] = "".join(traceback.format_exception(error)[-6:])
    return replace(record, status="failed", error=details, scores=(), curve=())


def _draw_cell(suite: Suite, cell: Cell, assembly: Assembly, store: RunStore) -> Timing:
    """Draws and stores all samples of a cell, and returns what that took."""
    device = assembly.device
    sampler = suite.samplers[cell.sampler].config
    generator, conditioner = assembly.generator(cell.generator), assembly.conditioner(cell.conditioner)
    translator = assembly.translator(cell) if cell.translator is not None else None
    assignment = assembly.assignment(cell)
    num, tile, batch = len(assignment), suite.samples.tile, suite.samples.batch_size
    with torch.no_grad():
        condition_ND = conditioner.embed(assignment.conditions)
    timer = PhaseTimer(device)

    def problem(start: int, stop: int) -> Problem:
        streams = assignment.streams(start, stop, device)
        return Problem(generator, conditioner, condition_ND[start:stop], streams, translator)

    draw_tiled(sampler, problem(0, min(tile, num)), tile=tile, max_steps=WARM_UP_STEPS)
    timer.start()
    store.clear_samples(cell.id)
    num_curve = min(num, suite.curve.num) if suite.curve else 0
    energies, latents, evaluations = [], [], dict.fromkeys(EVALUATIONS, 0)
    kept: dict[int, list[np.ndarray]] = {t: [] for t in cell.curve_steps}
    for start in range(0, num, batch):
        stop = min(start + batch, num)
        part = problem(start, stop)
        snapshots = cell.curve_steps if start < num_curve else ()
        with timer.batch(stop - start):
            drawn = draw_tiled(
                sampler, part, tile=tile, index=range(start, stop), timer=timer, snapshots=snapshots
            )
        images = to_uint8(drawn.images).cpu()
        store.write_images(cell.id, start, images.numpy())
        latents.append(drawn.latents.cpu())
        for name in evaluations:
            evaluations[name] += part.evaluations[name]
        with torch.no_grad():
            energies.append(_final_energy(part, drawn.images, tile, range(start, stop), sampler.steps))
        for t in snapshots:
            kept[t].append(to_uint8(drawn.snapshots[t]).numpy()[: max(0, num_curve - start)])
        assembly.progress(cell.variant, stop, num)
    store.write_latents(cell.id, torch.cat(latents).numpy())
    for t, parts in kept.items():
        if parts:
            store.write_curve(cell.id, t, np.concatenate(parts))
    store.write_samples(cell.id, _samples_table(assignment, torch.cat(energies).numpy()))
    return timer.timing(
        num_samples=num,
        batch_size=batch,
        evaluations=evaluations,
        setup_s=translator.setup_s if translator is not None else {},
    )


EVALUATIONS = ("generator_forwards", "generator_backwards", "auxiliary_forwards", "auxiliary_backwards")


def _final_energy(
    problem: Problem, images: torch.Tensor, tile: int, index: range, steps: int
) -> torch.Tensor:
    """The guide's energy of the final images, (N,), on tiles; not counted as sampling."""
    energies = torch.empty(len(images))
    for positions, rows in tiles(index, tile):
        filled = fill_tile(positions, rows, tile).to(images.device)
        energy = problem.conditioner.energy(
            images[filled], problem.condition_ND[filled], problem.streams[filled], steps
        )
        energies[positions] = energy.cpu()[rows]
    return energies


def _samples_table(assignment: Any, energies: np.ndarray) -> pd.DataFrame:
    from bench.keys import canonical_json

    conditions = assignment.conditions
    return pd.DataFrame(
        {
            "index": np.arange(len(conditions)),
            "condition_id": [condition.id for condition in conditions],
            "kind": [condition.kind for condition in conditions],
            "text": [condition.text for condition in conditions],
            "labels": [canonical_json(dict(condition.labels)) for condition in conditions],
            "replicate": assignment.replicates,
            "seed": np.array(assignment.seeds, dtype=np.int64),
            "energy": energies.astype(np.float32),
            "failed_step": np.full(len(conditions), -1),
        }
    )


def _conditions(table: pd.DataFrame) -> tuple[Condition, ...]:
    import json

    return tuple(
        Condition(
            id=row["condition_id"], kind=row["kind"], text=row["text"], labels=json.loads(row["labels"])
        )
        for row in table[["condition_id", "kind", "text", "labels"]].to_dict("records")
    )


def _scored(suite: Suite, cell: Cell, assembly: Assembly, store: RunStore, record: Record) -> Record:
    """The record with scores, curve and per-sample columns from the stored images."""
    table = store.read_samples(cell.id)
    conditions = _conditions(table)
    metrics = {name: suite.metrics[name].config for name in cell.metrics}
    judges = sorted({metric.judge for metric in metrics.values() if metric.judge})
    timer = PhaseTimer(assembly.device)
    with timer.phase("score"):
        readouts = _readouts(assembly, judges, store.read_images(cell.id), conditions)
    reference = {judge: assembly.reference(cell.data, judge) for judge in judges}
    assert record.timing is not None
    phases = {**record.timing.phase_s, "score": timer.seconds("score")}
    record = replace(record, timing=replace(record.timing, phase_s=phases))
    evidence = Evidence(conditions=conditions, readouts=readouts, reference=reference, timing=record.timing)
    scores: list[Score] = []
    for metric in metrics.values():
        result = metric.compute(evidence)
        scores.extend(result.scores)
        for column, values in result.per_sample.items():
            table[column] = values
    store.write_samples(cell.id, table)
    curve = _curve(cell, assembly, store, metrics, judges, conditions, reference)
    return replace(record, status="ok", error=None, scores=tuple(scores), curve=tuple(curve))


def _readouts(
    assembly: Assembly, judges: Iterable[str], images: np.ndarray, conditions: tuple[Condition, ...]
) -> dict[str, Readout]:
    return {judge: assembly.judge(judge).readout(images, conditions) for judge in judges}


def _curve(
    cell: Cell,
    assembly: Assembly,
    store: RunStore,
    metrics: Mapping[str, Any],
    judges: list[str],
    conditions: tuple[Condition, ...],
    reference: Mapping[str, Readout],
) -> list[Score]:
    """Every judged metric at the stored steps of the trajectory."""
    points: list[Score] = []
    for t in cell.curve_steps:
        images = store.read_curve(cell.id, t)
        if images is None:
            continue
        part = conditions[: len(images)]
        evidence = Evidence(
            conditions=part, readouts=_readouts(assembly, judges, images, part), reference=reference
        )
        for metric in metrics.values():
            if metric.judge is not None:
                points.extend(replace(item, step=t) for item in metric.compute(evidence).scores)
    return points
