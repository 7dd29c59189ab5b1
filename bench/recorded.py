"""What a record says of its cell and its artifacts, written by the runner and read back by who checks it.

From it, the suite and the conditions of the samples everything can be put together again that scoring needs:
no weights, no data, no device.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import pandas as pd
from pydantic import TypeAdapter, ValidationError

from bench import identity
from bench.assembly import Assembly
from bench.components import CODE_KINDS, TABLES
from bench.conditions import Assignment
from bench.errors import ResultError
from bench.identity import Identity
from bench.needs import Needs, judge_and_split, reference_names, reference_of
from bench.plan import Cell
from bench.protocols import record_protocol
from bench.spans import Span
from bench.store import CellInfo, Record, RunStore
from bench.suite import Suite, suite_from_plain
from bench.types import Condition


@dataclass(frozen=True, kw_only=True)
class Stretch:
    """A key and the names of the spans that are stored under it."""

    key: str
    spans: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Artifacts:
    """The form of ``Record.artifacts``: keys of what scores come from, by judge (``references`` of another
    split than the protocol's by "judge@split", ``scores`` by metric)."""

    samples: Stretch
    translator: str | None
    pairs: str | None
    snapshots: str | None
    readouts: Mapping[str, str] = field(default_factory=dict)
    snapshot_readouts: Mapping[str, str] = field(default_factory=dict)
    references: Mapping[str, Stretch] = field(default_factory=dict)
    scores: Mapping[str, str] = field(default_factory=dict)


_ARTIFACTS = TypeAdapter(Artifacts)


@dataclass(frozen=True)
class Recorded(Identity):
    """An artifact of which a record gives the key; what determines it is not at hand."""

    recorded: str = ""

    @property
    def key(self) -> str:
        return self.recorded


def read_suite(results: RunStore, *, python: bool = True) -> Suite:
    """The suite of a run. Raises ResultError where there is none, and with ``python`` False where it names
    code of its own: building such a suite imports and calls it, and a run may come from others."""
    path = results.run_dir / "run.json"
    plain = results.read_run().get("suite")
    if not isinstance(plain, dict):
        raise ResultError(f"'{path}' holds no suite. Run the suite again.")
    if not python:
        own = [
            f"{table}.{name}"
            for table in TABLES
            if isinstance(plain.get(table), dict)
            for name, block in plain[table].items()
            if _names_code(block)
        ]
        if own:
            raise ResultError(
                f"'{path}' names code of its own ({', '.join(own)}), which this would run. "
                "Where you trust it, add --python."
            )
    return suite_from_plain(plain, str(path))


def _names_code(block: Any) -> bool:
    """Whether a component, or one inside it, is code by its import path."""
    if isinstance(block, list):
        return any(map(_names_code, block))
    if not isinstance(block, dict):
        return False
    return block.get("kind") in CODE_KINDS or any(map(_names_code, block.values()))


def cell_info(cell: Cell) -> CellInfo:
    """What a record says of its cell."""
    return CellInfo(
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


def artifacts_of(own: Needs, scores: Mapping[str, str]) -> dict[str, Any]:
    """What a record was made from, so that it can be looked up, explained and verified."""
    return {
        "samples": {"key": own.samples.key, "spans": [span.name for span in own.spans]},
        "translator": own.translator.key if own.translator else None,
        "pairs": own.pairs.key if own.pairs else None,
        "snapshots": own.snapshots.key if own.snapshots else None,
        "readouts": {judge: item.key for judge, item in own.readouts.items()},
        "snapshot_readouts": {judge: item.key for judge, item in own.snapshot_readouts.items()},
        "references": {
            judge: {"key": item.key, "spans": [span.name for span in own.reference_spans[judge]]}
            for judge, item in own.references.items()
        },
        "scores": dict(scores),
    }


def protocol_of(
    suite: Suite, own: Needs, judges: Mapping[str, Mapping[str, Any]] | None = None
) -> dict[str, Any]:
    """What a record says of the protocol that its scores were made under; ``judges`` says what the reference
    readouts were made from where their identities do not."""
    return record_protocol(
        suite.protocol,
        num_samples=own.cell.num_samples,
        num_reference=max(
            (spans[-1].stop for name, spans in own.reference_spans.items() if name in own.readouts),
            default=None,
        ),
        judges={judge: item.inputs for judge, item in own.references.items()} if judges is None else judges,
    )


def read_artifacts(record: Record) -> Artifacts:
    """Raises ResultError where the record's artifacts do not have their form."""
    try:
        return _ARTIFACTS.validate_python(dict(record.artifacts))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise ResultError(f"artifacts.{where}: {first['msg']}") from error


Known = tuple[str | None, Callable[[], Identity]]


def expected_keys(assembly: Assembly, cell: Cell, named: Artifacts) -> dict[str, Known]:
    """Of each artifact that a record names: the key there, and how to compute what it comes from.

    Computing raises BenchError where weights or data are not at hand.
    """
    suite = assembly.suite

    def asked() -> Sequence[Condition]:
        return assembly.assignment(cell).conditions

    samples = partial(identity.samples, suite, cell, asked)

    def snapshots() -> Identity:
        return identity.snapshots(samples(), cell.curve_steps)

    def readout(of: Callable[[], Identity], judge: str) -> Identity:
        return identity.readout(suite, of(), suite.judges[judge])

    keys: dict[str, Known] = {"samples": (named.samples.key, samples)}
    if cell.translator is not None:
        keys["translator"] = (named.translator, partial(identity.translator, suite, cell, asked))
        keys["pairs"] = (named.pairs, partial(identity.pairs, suite, cell))
    if cell.curve_steps:
        keys["snapshots"] = (named.snapshots, snapshots)
    for judge in suite.judges.keys() & named.readouts.keys():
        keys[f"readouts.{judge}"] = (named.readouts[judge], partial(readout, samples, judge))
    for judge in suite.judges.keys() & named.snapshot_readouts.keys():
        keys[f"snapshot_readouts.{judge}"] = (
            named.snapshot_readouts[judge],
            partial(readout, snapshots, judge),
        )
    for name, stretch in named.references.items():
        if judge_and_split(name)[0] in suite.judges:
            keys[f"references.{name}"] = (stretch.key, partial(reference_of, assembly, cell.data, name))
    return keys


def recorded_needs(suite: Suite, cell: Cell, named: Artifacts, assignment: Assignment) -> Needs:
    """What a record's scores are made from, by the keys that it names.

    Raises ResultError where it names too few or too many samples or judges for its cell.
    """

    def known(kind: str, key: str) -> Recorded:
        return Recorded(kind, {}, key)

    judges = {suite.metrics[name].config.judge for name in cell.metrics} - {None}
    with_curve = judges if suite.curve is not None and cell.curve_steps else set()
    for what, expected, found in (
        ("readouts", judges, named.readouts),
        ("references", set(reference_names(suite, cell)), named.references),
        ("snapshot_readouts", with_curve, named.snapshot_readouts),
    ):
        if found.keys() != expected:
            raise ResultError(f"artifacts.{what}: judges {sorted(found)}, the suite says {sorted(expected)}")
    if (named.snapshots is None) != (not cell.curve_steps):
        raise ResultError("artifacts.snapshots: there with a curve, and only there")
    spans = _spans(named.samples.spans, "samples")
    if spans[-1].stop != cell.num_samples:
        raise ResultError(f"artifacts.samples: {spans[-1].stop} samples, the suite says {cell.num_samples}")
    return Needs(
        cell=cell,
        assignment=assignment,
        samples=known("samples", named.samples.key),
        spans=spans,
        snapshots=known("snapshots", named.snapshots) if named.snapshots else None,
        num_curve=min(cell.num_samples, suite.curve.num) if suite.curve else 0,
        readouts={judge: known("readout", key) for judge, key in named.readouts.items()},
        snapshot_readouts={judge: known("readout", key) for judge, key in named.snapshot_readouts.items()},
        references={judge: known("reference", item.key) for judge, item in named.references.items()},
        reference_spans={judge: _spans(item.spans, judge) for judge, item in named.references.items()},
    )


def _spans(names: Sequence[str], what: str) -> tuple[Span, ...]:
    """Spans from 0 on without gaps, by their names."""
    spans = tuple(span for span in map(Span.parse, names) if span is not None)
    starts = [0, *(span.stop for span in spans)]
    if not spans or len(spans) != len(names) or [span.start for span in spans] != starts[:-1]:
        raise ResultError(f"artifacts: spans of {what} have gaps or are none: {', '.join(names) or 'none'}")
    return spans


def table_assignment(table: pd.DataFrame) -> Assignment:
    """The conditions, replicates and seeds that a per-sample table names. Raises ResultError."""
    try:
        rows: list[dict[Any, Any]] = table.to_dict("records")
        return Assignment(
            conditions=tuple(
                Condition(
                    id=str(row["condition_id"]),
                    kind=row["kind"],
                    text=row["text"] if isinstance(row["text"], str) else None,
                    labels=json.loads(row["labels"]),
                    origin=row["origin"] if isinstance(row.get("origin"), str) else None,
                )
                for row in rows
            ),
            replicates=tuple(int(row["replicate"]) for row in rows),
            seeds=tuple(int(row["seed"]) for row in rows),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise ResultError(f"its columns are not those of a per-sample table: {error}") from error
