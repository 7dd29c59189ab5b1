"""What a plan finds in the artifact store: per artifact what is cached and what a run has to make.

Keys are those of :mod:`bench.identity`. Weight files are hashed, not loaded. Data is read for its prompts and
its hash; a world whose images are rendered is rendered into the cache folder first, which takes seconds.
What is stored is listed, not read, but for samples, whose failures are part of the scores' keys.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Any, Literal

from bench import identity
from bench.artifacts import ArtifactStore, CorruptArtifact, MissingArtifact
from bench.assembly import Assembly
from bench.errors import ArtifactError, BenchError
from bench.identity import Identity
from bench.needs import (
    NETWORK,
    Needs,
    Part,
    pair_spans_of,
    reference_name,
    reference_names,
    reference_of,
    reference_spans_of,
)
from bench.plan import Cell, Plan, estimate, with_denoiser
from bench.scoring import RESULT, read_drawn, sources
from bench.spans import Span
from bench.types import Condition
from bench.workshop import STAGES, Task, Workshop

ArtifactKind = Literal[
    "pairs", "translator", "reference", "samples", "images", "snapshots", "readout", "score"
]
SHARED: tuple[ArtifactKind, ...] = ("pairs", "translator", "reference")
KINDS: tuple[ArtifactKind, ...] = (*SHARED, "samples", "images", "snapshots", "readout", "score")


@dataclass(frozen=True, kw_only=True)
class PartState:
    """One part of an artifact: how many samples, pairs, images or steps it holds, what making it takes, and
    whether the store has it. ``needed`` is False where a run would not make it though it is not there."""

    name: str
    num: int
    stored: bool
    needed: bool = True
    work: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Artifact:
    """Something that is made once and used by ``cells``. ``needs`` are keys of other artifacts.

    ``key`` is None where it is not known yet: ``problem`` then says why (a score's key depends on which
    samples fail, which is no problem but has to be drawn first).
    """

    kind: ArtifactKind
    name: str
    key: str | None
    needs: tuple[str, ...]
    cells: tuple[str, ...]
    parts: tuple[PartState, ...]
    problem: str | None = None

    @property
    def num_stored(self) -> int:
        return sum(part.stored for part in self.parts)

    @property
    def state(self) -> str:
        """``2 of 2 cached``, ``1 of 4 cached``, ``to do``, ``not needed``, or what is wrong."""
        if self.problem is not None:
            return self.problem
        if not any(part.needed or part.stored for part in self.parts):
            return "not needed"
        return cached(self.num_stored, len(self.parts))

    @property
    def work(self) -> dict[str, int]:
        """Evaluations that making all of it takes."""
        return _sum(part.work for part in self.parts)

    @property
    def work_to_do(self) -> dict[str, int]:
        """Evaluations that making what is missing takes."""
        return _sum(part.work for part in self.parts if part.needed and not part.stored)

    def to_plain(self) -> dict[str, Any]:
        names = (
            "kind",
            "name",
            "key",
            "needs",
            "cells",
            "state",
            "problem",
            "num_stored",
            "work",
            "work_to_do",
        )
        return {**{name: getattr(self, name) for name in names}, "num_parts": len(self.parts)}


def cached(stored: int, total: int) -> str:
    """``to do`` where nothing is stored, else how much is."""
    return f"{stored} of {total} cached" if stored else "to do"


def _sum(works: Iterable[Mapping[str, int]]) -> dict[str, int]:
    total: Counter[str] = Counter()
    for work in works:
        total.update(work)
    return dict(total)


@dataclass(frozen=True, kw_only=True)
class Survey:
    """A plan beside a store. ``artifacts`` are in an order in which they can be made; ``tasks`` are those
    that a run would do, in its order. ``needs`` maps cells to what they need, ``problems`` those of which
    that cannot be told to the reason."""

    plan: Plan
    store: str
    artifacts: tuple[Artifact, ...]
    tasks: tuple[Task, ...]
    needs: Mapping[str, Needs]
    problems: Mapping[str, str]

    def of_cell(self, cell_id: str) -> str:
        """How much is there of what is drawn and read for a cell, or what is wrong with it."""
        if cell_id in self.problems:
            return self.problems[cell_id]
        own = self.needs[cell_id]
        stored = {
            Part(item.kind, str(item.key), part.name)
            for item in self.artifacts
            if cell_id in item.cells
            for part in item.parts
            if part.stored
        }
        parts = [part for span in own.spans for part in own.span_parts(span)]
        return cached(sum(part in stored for part in parts), len(parts))

    @property
    def work(self) -> dict[str, int]:
        """The sum over artifacts, by kind of evaluation."""
        return _sum(item.work for item in self.artifacts)

    @property
    def work_to_do(self) -> dict[str, int]:
        return _sum(item.work_to_do for item in self.artifacts)

    def to_plain(self) -> dict[str, Any]:
        """Plain JSON data."""
        cells = [
            {**asdict(cell), "state": self.of_cell(cell.id), "problem": self.problems.get(cell.id)}
            for cell in self.plan.cells
        ]
        return {
            "suite": self.plan.suite,
            "store": self.store,
            "cells": cells,
            "artifacts": [item.to_plain() for item in self.artifacts],
            "tasks": dict(Counter(task.stage for task in self.tasks)),
            "work": self.work,
            "work_to_do": self.work_to_do,
        }


def survey(assembly: Assembly, plan: Plan, store: ArtifactStore) -> Survey:
    """Looks up in the store what the plan's cells need. Nothing is made; a broken sample is set aside.

    Raises ArtifactError where the store cannot be used. What is wrong with a cell (weights that are missing,
    data that is not there) is told in its place.
    """
    return _Surveyor(assembly, plan, store).survey()


class _Row:
    """An artifact that is being put together from all cells that use it."""

    def __init__(self, kind: ArtifactKind, name: str, key: str | None, needs: Sequence[str | None]):
        self.kind, self.name, self.key = kind, name, key
        self.needs = tuple(dict.fromkeys(key for key in needs if key is not None))
        self.cells: dict[str, None] = {}
        self.parts: dict[str, PartState] = {}
        self.problem: str | None = None

    def artifact(self, made: set[Part]) -> Artifact:
        """``made`` names the tasks of a run: pairs and translators are made for some other need only."""
        parts = [
            PartState(**{**vars(part), "needed": Part(self.kind, str(self.key), part.name) in made})
            if self.kind in ("pairs", "translator")
            else part
            for part in self.parts.values()
        ]
        return Artifact(
            kind=self.kind,
            name=self.name,
            key=self.key,
            needs=self.needs,
            cells=tuple(self.cells),
            parts=tuple(parts),
            problem=None if self.parts else self.problem,
        )


class _Surveyor:
    def __init__(self, assembly: Assembly, plan: Plan, store: ArtifactStore):
        self.assembly, self.suite, self.plan, self.store = assembly, assembly.suite, plan, store
        self.workshop = Workshop(assembly, plan, store)
        self.rows: dict[tuple[str, ...], _Row] = {}
        self.listed: dict[tuple[str, str], frozenset[str]] = {}
        self.needs: dict[str, Needs] = {}
        self.problems: dict[str, str] = {}

    def survey(self) -> Survey:
        for k, cell in enumerate(self.plan.cells):
            self.assembly.progress("looking up artifacts", k, len(self.plan.cells))
            try:
                own = self.needs[cell.id] = self.workshop.needs(cell.id)
            except ArtifactError:
                raise
            except Exception as error:
                self.problems[cell.id] = reason(error)
                self._broken(cell, reason(error))
            else:
                self._whole(cell, own)
        self.assembly.progress("looking up artifacts", len(self.plan.cells), len(self.plan.cells))
        tasks = self._tasks()
        made = {task.part for task in tasks}
        rows = sorted(self.rows.values(), key=lambda row: KINDS.index(row.kind))
        return Survey(
            plan=self.plan,
            store=self.store.root,
            artifacts=tuple(row.artifact(made) for row in rows),
            tasks=tuple(tasks),
            needs=self.needs,
            problems=self.problems,
        )

    def stored(self, kind: str, key: str) -> frozenset[str]:
        """Names under a key, listed once."""
        if (kind, key) not in self.listed:
            self.listed[kind, key] = frozenset(self.store.names(kind, key))
        return self.listed[kind, key]

    def _tasks(self) -> list[Task]:
        """What a run would do, each task once, stage by stage."""
        found: dict[Part, Task] = {}
        for cell_id, own in self.needs.items():
            missing = [part for part in own.parts() if part.name not in self.stored(part.kind, part.key)]
            for task in self.workshop.tasks(cell_id, missing):
                found.setdefault(task.part, task)
        return sorted(found.values(), key=lambda task: STAGES.index(task.stage))

    # --- rows

    def _add(
        self,
        kind: ArtifactKind,
        name: str,
        item: Identity | str | None,
        cell: Cell,
        parts: Iterable[tuple[str, int, Mapping[str, int]]],
        needs: Sequence[str | None] = (),
    ) -> None:
        """Adds a cell and its parts to an artifact's row; ``item`` is its identity, or what is wrong."""
        key = item.key if isinstance(item, Identity) else None
        row = self.rows.setdefault((kind, key or "", "" if key else name), _Row(kind, name, key, needs))
        row.cells[cell.id] = None
        if isinstance(item, str):
            row.problem = item
        for part, num, work in parts:
            stored = key is not None and part in self._names(kind, item)
            row.parts[part] = PartState(name=part, num=num, stored=stored, work=work)

    def _names(self, kind: str, item: Identity | str | None) -> frozenset[str]:
        return self.stored(kind, item.key) if isinstance(item, Identity) else frozenset()

    def _whole(self, cell: Cell, own: Needs) -> None:
        drawn = self._drawn(own)
        self._shared(cell, own.pairs, own.pair_spans, own.translator)
        for judge, item in own.references.items():
            self._reference(cell, judge, item, own.reference_spans[judge])
        sampler, conditioner = (
            self.suite.samplers[cell.sampler].config,
            self.suite.conditioners[cell.conditioner].config,
        )
        generator = self.suite.generators[cell.generator].config
        spans = [
            (span.name, len(span), estimate(sampler, conditioner, len(span), generator)) for span in own.spans
        ]
        translator = [own.translator.key] if own.translator else []
        self._add("samples", cell.id, own.samples, cell, spans, translator)
        self._add("images", cell.id, own.samples, cell, _plain(own.spans))
        curve = [span for span in own.spans if own.has_curve(span)]
        if own.snapshots is not None:
            self._add("snapshots", cell.id, own.snapshots, cell, _plain(curve), [own.samples.key])
        for judge, item in own.readouts.items():
            self._add("readout", f"{cell.id}/{judge}", item, cell, _read(own.spans, 1), [own.samples.key])
        for judge, item in own.snapshot_readouts.items():
            parts = _read(curve, len(cell.curve_steps))
            needs = [own.snapshots.key] if own.snapshots else []
            self._add("readout", f"{cell.id}/{judge} on the curve", item, cell, parts, needs)
        for metric in cell.metrics:
            config = self.suite.metrics[metric].config
            judge = config.judge
            if judge is None:
                continue  # computed from the record's timing: nothing is stored
            score = (
                identity.score(self.suite.metrics[metric], sources(own, config, drawn))
                if drawn is not None
                else None
            )
            needs = [own.samples.key, own.readouts[judge].key, own.references[reference_name(config)].key]
            if judge in own.snapshot_readouts:
                needs.append(own.snapshot_readouts[judge].key)
            self._add("score", f"{cell.id}/{metric}", score, cell, [(RESULT, 1, {})], needs)

    def _drawn(self, own: Needs) -> Any:
        """A cell's stored samples, or None where not all of them are there and sound."""
        key = own.samples.key
        if not {span.name for span in own.spans} <= self.stored("samples", key):
            return None
        try:
            return read_drawn(self.store, own)
        except (CorruptArtifact, MissingArtifact):
            del self.listed["samples", key]  # it was set aside, and is to be drawn again
            return None

    def _shared(
        self,
        cell: Cell,
        pairs: Identity | str | None,
        pair_spans: Sequence[Span],
        translator: Identity | str | None,
    ) -> None:
        if cell.translator is None:
            return
        config = self.suite.translators[cell.translator].config
        generator = self.suite.generators[cell.generator].config
        parts = [
            (
                span.name,
                len(span),
                with_denoiser({"generator_forwards": len(span), "auxiliary_forwards": len(span)}, generator),
            )
            for span in pair_spans
        ]
        self._add("pairs", f"{cell.generator}/{cell.conditioner}", pairs, cell, parts)
        steps = [(NETWORK, config.steps, {"translator_steps": config.steps})]
        self._add(
            "translator",
            f"{cell.generator}/{cell.conditioner}/{cell.translator}",
            translator,
            cell,
            steps if isinstance(translator, Identity) else [],
            [pairs.key] if isinstance(pairs, Identity) else [],
        )

    def _reference(self, cell: Cell, name: str, item: Identity | str, spans: Sequence[Span]) -> None:
        self._add("reference", f"{cell.data}/{name}", item, cell, _read(spans, 1))

    def _broken(self, cell: Cell, problem: str) -> None:
        """Rows of a cell of which not all can be told: each artifact by itself."""
        suite = self.suite

        def asked() -> Sequence[Condition]:
            return self.assembly.assignment(cell).conditions

        if cell.translator is not None:
            pairs = attempt(lambda: identity.pairs(suite, cell))
            spans = (
                pair_spans_of(self.assembly, self.store, cell, pairs) if isinstance(pairs, Identity) else ()
            )
            self._shared(cell, pairs, spans, attempt(lambda: identity.translator(suite, cell, asked)))
        for name in reference_names(self.suite, cell):
            item = attempt(partial(reference_of, self.assembly, cell.data, name))
            found: Any = ()
            if isinstance(item, Identity):
                found = attempt(partial(reference_spans_of, self.assembly, self.store, cell.data, name, item))
            if isinstance(found, str):
                item, found = found, ()
            self._reference(cell, name, item, found)
        samples = attempt(lambda: identity.samples(suite, cell, asked))
        self._add("samples", cell.id, samples, cell, ())
        key = samples.key if isinstance(samples, Identity) else ""
        row = self.rows[("samples", key, "" if key else cell.id)]
        row.problem = row.problem or problem


def attempt(make: Callable[[], Any]) -> Any:
    """What ``make`` gives, or as a sentence why it does not. Raises faults of the store."""
    try:
        return make()
    except ArtifactError:
        raise
    except Exception as error:
        return reason(error)


def reason(error: Exception) -> str:
    """An error in one line, with its type where it is not one of the user's."""
    text = " ".join(str(error).split())
    return text if isinstance(error, BenchError) else f"{type(error).__name__}: {text}"


def _plain(spans: Sequence[Span]) -> list[tuple[str, int, dict[str, int]]]:
    return [(span.name, len(span), {}) for span in spans]


def _read(spans: Sequence[Span], times: int) -> list[tuple[str, int, dict[str, int]]]:
    return [(span.name, len(span) * times, {"judge_forwards": len(span) * times}) for span in spans]
