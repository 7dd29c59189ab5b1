"""Results of many commits: a file that only grows, trends, and the commit at which a number stepped.

A line of JSON per commit, cell and metric. Points belong to one series where suite, its version, cell's
configuration, metric, its version and device agree: a benchmark that changed starts anew, and what was
measured before is retired, not compared.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from pydantic import TypeAdapter, ValidationError

from bench.artifacts.faults import told
from bench.artifacts.folder import DAY_S
from bench.artifacts.locks import file_lock
from bench.change_points import change_points
from bench.errors import ResultError
from bench.keys import content_key
from bench.store import RunStore, finite

SCHEMA = 1
SPEED = "seconds-per-image"


@dataclass(frozen=True, kw_only=True)
class Point:
    """One number at one commit. ``benchmark`` is the hash of what must agree for numbers to be comparable;
    ``spread`` the standard error of the value, where it is known."""

    commit: str
    created_utc: str
    suite: str
    suite_version: int
    cell: str
    metric: str
    metric_version: int
    title: str
    value: float
    better: str
    spread: float | None
    device: str
    benchmark: str
    schema: int = SCHEMA


_POINT = TypeAdapter(Point)


def points_of(run_dir: Path, commit: str | None = None) -> list[Point]:
    """A run's final scores, at the revision that it names unless ``commit`` says another.

    Raises ResultError where the run names none.
    """
    store = RunStore(run_dir)
    run = store.read_run()
    revision = commit or run.get("provenance", {}).get("revision")
    if not revision:
        raise ResultError(f"'{run_dir}' names no revision. Say which: --commit REVISION.")
    suite, version = str(run.get("suite_name", "")), int(run.get("suite", {}).get("version", 1))
    found = []
    for record in store.records():
        if record.status != "ok":
            continue
        cell = record.cell
        device = ", ".join(sorted({str(item.get("device")) for item in record.hardware})) or "unknown"
        for score in record.scores:
            if score.step is not None or score.better == "none" or not math.isfinite(score.value):
                continue
            timed = score.unit in ("s/image", "s", "images/s", "GiB")
            spread = None
            if score.interval is not None:
                spread = (score.interval[1] - score.interval[0]) / (2 * 1.959964)
            benchmark = content_key(
                [suite, version, finite(dict(cell.config)), cell.num_samples, cell.seed, score.metric,
                 score.version, score.judge, device if timed else ""]
            )  # fmt: skip
            found.append(
                Point(
                    commit=str(revision), created_utc=record.created_utc, suite=suite, suite_version=version,
                    cell=f"{cell.variant} ({cell.data}, {cell.condition_kind})", metric=score.metric,
                    metric_version=score.version, title=score.title, value=score.value, better=score.better,
                    spread=spread, device=device, benchmark=benchmark,
                )
            )  # fmt: skip
    return found


def append(path: Path, points: Sequence[Point]) -> int:
    """Appends points that are not there yet; returns how many. Lines that are there are never changed."""
    with told("written", str(path), (OSError,), ResultError):
        path.parent.mkdir(parents=True, exist_ok=True)
        with file_lock(path.with_name(f".{path.name}.lock"), wait=True, stale_s=DAY_S):
            known = {(p.commit, p.benchmark, p.cell, p.created_utc) for p in read(path)}
            new = [p for p in points if (p.commit, p.benchmark, p.cell, p.created_utc) not in known]
            text = "".join(json.dumps(asdict(p), ensure_ascii=False) + "\n" for p in new).encode()
            with path.open("ab") as file:
                if file.tell() and not path.read_bytes().endswith(b"\n"):
                    file.write(b"\n")  # what was cut short stays a line of its own
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
    return len(new)


def read(path: Path) -> list[Point]:
    """All points in the order in which they were appended. Raises ResultError naming a line that is none."""
    if not path.exists():
        return []
    found = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        if not line.strip():
            continue
        try:
            plain = json.loads(line)
            if plain.get("schema") != SCHEMA:
                raise ValueError(f"schema {plain.get('schema')!r}, this version reads {SCHEMA}")
            found.append(_POINT.validate_python(plain))
        except (ValueError, AttributeError, ValidationError) as error:
            reason = error.errors()[0]["msg"] if isinstance(error, ValidationError) else error
            raise ResultError(
                f"{path}:{number}: no point of a history: {reason}. Remove the line."
            ) from error
    return found


@dataclass(frozen=True, kw_only=True)
class Step:
    """A change of level: ``commit`` is the first of the new one; ``ratio`` new over old level."""

    commit: str
    before: float
    after: float
    p: float

    @property
    def ratio(self) -> float:
        return self.after / self.before if self.before else math.inf


@dataclass(frozen=True, kw_only=True)
class Series:
    """The points of one benchmark, oldest first. ``retired``: the cell's metric has a newer benchmark."""

    cell: str
    metric: str
    title: str
    better: str
    device: str
    points: tuple[Point, ...]
    steps: tuple[Step, ...]
    retired: bool


def series(points: Sequence[Point]) -> list[Series]:
    """Points by benchmark, with the commits at which they stepped."""
    grouped: dict[tuple[str, str, str], list[Point]] = {}
    newest: dict[tuple[str, str, str], str] = {}
    for point in points:
        grouped.setdefault((point.cell, point.metric, point.benchmark), []).append(point)
        newest[point.cell, point.metric, point.device] = point.benchmark
    found = []
    for (cell, metric, benchmark), own in grouped.items():
        values = np.array([point.value for point in own])
        steps = []
        for at, before, after, p in change_points(values, log=metric == SPEED):
            steps.append(Step(commit=own[at].commit, before=before, after=after, p=p))
        found.append(
            Series(
                cell=cell, metric=metric, title=own[0].title, better=own[0].better, device=own[0].device,
                points=tuple(own), steps=tuple(steps),
                retired=newest[cell, metric, own[-1].device] != benchmark,
            )
        )  # fmt: skip
    return found
