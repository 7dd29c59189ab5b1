"""From stored artifacts to scores: what judges saw is put together on disk, metrics see it as arrays."""

from __future__ import annotations

import contextlib
import itertools
import math
import os
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pandas as pd

from bench import identity, payload
from bench.artifacts import ArtifactStore, CorruptArtifact, MissingArtifact
from bench.artifacts.faults import told
from bench.errors import SamplingError
from bench.guards.goodhart import gaps
from bench.keys import canonical_json
from bench.needs import Needs, Part, reference_name
from bench.spans import Span
from bench.statistics.design import Design
from bench.statistics.intervals import with_intervals
from bench.suite import Suite
from bench.types import Condition, Evidence, MetricResult, Readout, Score, Timing

RESULT = "result"


@dataclass(frozen=True)
class Drawn:
    """What is known of a cell's samples besides images: ``latents`` (N, dim), ``energy`` (N,),
    ``failed_step`` (N,), the summed timing, the devices, the tiles that networks ran on, and what was noted
    of G and f."""

    latents: np.ndarray
    energy: np.ndarray
    failed_step: np.ndarray
    timing: Timing
    hardware: list[dict[str, Any]]
    tiles: list[int]
    notes: dict[str, Any] = field(default_factory=dict)

    @property
    def ok(self) -> np.ndarray:
        """Which samples did not fail, bool (N,)."""
        return self.failed_step < 0


def read_drawn(store: ArtifactStore, own: Needs) -> Drawn:
    """A cell's samples without their images. Raises CorruptArtifact or MissingArtifact."""
    arrays: list[dict[str, np.ndarray]] = []
    timings: list[Timing] = []
    places: list[dict[str, Any]] = []
    setup_s: dict[str, float] = {}
    setup_evaluations: dict[str, int] = {}
    notes: dict[str, Any] = {}
    for span in own.spans:
        part, meta = payload.unpack(store.read("samples", own.samples.key, span.name))
        arrays.append(part)
        timings.append(Timing(**meta["timing"]))
        places.append(meta["hardware"])
        setup_s = meta["setup_s"]
        setup_evaluations = meta.get("setup_evaluations", {})
        found = meta.get("notes", {})
        if "truncated_texts" in found:
            found["truncated_texts"] += notes.get("truncated_texts", 0)
        notes |= found
    columns = {name: np.concatenate([part[name] for part in arrays]) for name in arrays[0]}
    unique = [place for i, place in enumerate(places) if place not in places[:i]]
    return Drawn(
        **columns,
        timing=replace(_summed(timings), setup_s=dict(setup_s), setup_evaluations=dict(setup_evaluations)),
        hardware=unique,
        tiles=sorted({timing.batch_size for timing in timings}),
        notes=notes,
    )


def _summed(timings: Sequence[Timing]) -> Timing:
    def total(maps: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        return {
            name: sum(item.get(name, 0) for item in maps)
            for name in dict.fromkeys(k for m in maps for k in m)
        }

    return Timing(
        num_samples=sum(item.num_samples for item in timings),
        batch_size=max(item.batch_size for item in timings),
        phase_s=total([item.phase_s for item in timings]),
        batch_s=tuple(s for item in timings for s in item.batch_s),
        batch_n=tuple(n for item in timings for n in item.batch_n),
        evaluations=total([item.evaluations for item in timings]),
        peak_memory_gib=max(item.peak_memory_gib for item in timings),
    )


def check_failures(own: Needs, drawn: Drawn, largest_share: float) -> None:
    """Raises SamplingError where more than a share of the samples failed, naming the first."""
    failed = np.flatnonzero(~drawn.ok)
    if len(failed) <= largest_share * len(drawn.failed_step):
        return
    first = int(failed[0])
    raise SamplingError(
        f"{len(failed)} of {len(drawn.failed_step)} samples have an energy or image that is not finite, the "
        f"first is sample {first} (seed {own.assignment.seeds[first]}, "
        f"{own.assignment.conditions[first].id}) at step {int(drawn.failed_step[first])}; "
        f"max_failed_share allows {largest_share:g}. Lower step_size, or mend the generator or conditioner."
    )


def samples_table(own: Needs, drawn: Drawn) -> pd.DataFrame:
    """One row per sample: what was asked, its seed, what came of it."""
    conditions = own.assignment.conditions
    origins = [condition.origin for condition in conditions]
    return pd.DataFrame(
        {
            "index": np.arange(len(conditions)),
            "condition_id": [condition.id for condition in conditions],
            "kind": [condition.kind for condition in conditions],
            "text": [condition.text for condition in conditions],
            "labels": [canonical_json(dict(condition.labels)) for condition in conditions],
            **({"origin": origins} if any(origins) else {}),
            "replicate": own.assignment.replicates,
            "seed": np.array(own.assignment.seeds, dtype=np.int64),
            "energy": drawn.energy.astype(np.float32),
            "failed_step": drawn.failed_step,
        }
    )


class Stacked:
    """Arrays of several artifacts end to end, in files of no name, mapped into memory: the kernel removes
    them with the arrays, however the process ends."""

    def stack(
        self, parts: Iterable[Mapping[str, np.ndarray]], total: int, keep: np.ndarray | None = None
    ) -> dict[str, np.ndarray]:
        """Each named array of all parts, (total, …); ``parts`` may be lazy. ``keep`` lists the rows wanted,
        ascending. Raises ArtifactError where there is no room for the files."""
        files: dict[str, np.ndarray] = {}
        num = total if keep is None else len(keep)
        first = at = 0
        for arrays in parts:
            length = min(len(next(iter(arrays.values()))), total - first)
            rows = np.arange(length)
            if keep is not None:
                rows = keep[(keep >= first) & (keep < first + length)] - first
            for name, values in arrays.items():
                if name not in files:
                    files[name] = _mapped((num, *values.shape[1:]), values.dtype)
                files[name][at : at + len(rows)] = values[rows]
            first, at = first + length, at + len(rows)
        return files


def _mapped(shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """An array in a temporary file that has no name. Its room is taken at once: a disk that is full only when
    a page is written would end the process."""
    size = math.prod(shape) * dtype.itemsize
    if not size:
        return np.empty(shape, dtype)
    with (
        told("written", f"{tempfile.gettempdir()} (TMPDIR)", (OSError,)),
        tempfile.TemporaryFile(prefix="tr0n-bench-") as file,
    ):
        os.posix_fallocate(file.fileno(), 0, size)
        return np.memmap(file, dtype, "r+", shape=shape)


@dataclass(frozen=True)
class Scored:
    """A cell's final scores, its curve, per-sample columns, and the keys of what they came from."""

    scores: tuple[Score, ...]
    curve: tuple[Score, ...]
    columns: dict[str, np.ndarray]
    keys: dict[str, str]


class Scorer:
    """Computes a cell's metrics from stored readouts, each once: results are artifacts too.

    ``computed`` counts metrics that were not found in the store; with ``reuse`` False none is looked for
    there, and nothing is written.
    """

    def __init__(self, suite: Suite, store: ArtifactStore, *, reuse: bool = True):
        self.suite, self.store, self.reuse, self.computed = suite, store, reuse, 0

    def score(self, own: Needs, drawn: Drawn, in_loop: Mapping[str, str] | None = None) -> Scored:
        """``in_loop`` names judges that also guided: their scores are set beside those of the others.

        Raises CorruptArtifact or MissingArtifact for a readout that cannot be read.
        """
        metrics = {name: self.suite.metrics[name] for name in own.cell.metrics}
        scores: list[Score] = []
        curve: list[Score] = []
        columns: dict[str, np.ndarray] = {}
        keys: dict[str, str] = {}
        evidence = _Evidence(self.store, own, drawn, Stacked())
        views: list[_View] = []
        for name, metric in metrics.items():
            if metric.config.judge is None:
                timed = Evidence(
                    conditions=own.assignment.conditions, readouts={}, reference={}, timing=drawn.timing
                )
                result = metric.config.compute(timed)
                found, part_columns = tuple(result.scores), dict(result.per_sample)
            else:
                item = identity.score(metric, sources(own, metric.config, drawn))
                keys[name] = item.key
                found, part_columns = self._stored_or_made(item, metric.config, evidence)
                titles = {score.metric: score.title for score in found}
                views.append(_View(metric.config, titles, part_columns))
            taken = {score.metric for score in scores} | columns.keys()
            if taken & ({score.metric for score in found} | part_columns.keys()):
                found = tuple(_told_apart(score, name) for score in found)
                part_columns = {_apart(column, name): values for column, values in part_columns.items()}
            scores += [_named(s, metric.config.judge) for s in found if s.step is None]
            curve += [_named(s, metric.config.judge) for s in found if s.step is not None]
            columns |= part_columns
        for result in _goodhart(views, in_loop or {}, evidence.whole_design(), drawn.ok):
            scores += result.scores
            columns |= result.per_sample
        curve.sort(key=lambda s: s.step or 0)
        columns = dict(sorted(columns.items()))  # as they come from the store
        return Scored(tuple(scores), tuple(curve), columns, keys)

    def _stored_or_made(
        self, item: identity.Identity, config: Any, evidence: _Evidence
    ) -> tuple[tuple[Score, ...], dict[str, np.ndarray]]:
        place = ("score", item.key, RESULT)
        if self.reuse:
            with contextlib.suppress(CorruptArtifact, MissingArtifact):
                return payload.unpack_scores(self.store.read(*place))
        self.computed += 1
        final = evidence.final(config)
        result = config.compute(final)
        scores = list(with_intervals(config, final, result, evidence.design()))
        for step, seen in evidence.curve(config) if getattr(config, "curve", True) else ():
            design, at_step = evidence.design(curve=True), config.compute(seen)
            points = with_intervals(config, seen, at_step, design, curve=True)
            scores += [replace(score, step=step) for score in points]
        columns = {name: evidence.spread(values) for name, values in result.per_sample.items()}
        if self.reuse:
            self.store.write(*place, payload.pack_scores(scores, columns), item.header)
        return tuple(scores), columns


def _apart(metric: str, name: str) -> str:
    return f"{metric}@{name}"


def _told_apart(score: Score, name: str) -> Score:
    """The score by the metric's name in the suite, where another metric gave one of the same name."""
    return replace(score, metric=_apart(score.metric, name), title=f"{score.title} ({name})")


@dataclass(frozen=True)
class _View:
    """What a metric gave, under its own names."""

    config: Any
    titles: Mapping[str, str]
    columns: Mapping[str, np.ndarray]


def _goodhart(
    views: Sequence[_View], in_loop: Mapping[str, str], design: Design, ok_N: np.ndarray
) -> Iterator[MetricResult]:
    """The gap between each judge that guided and the first of the same metric that did not."""
    for guide in views:
        if guide.config.judge not in in_loop:
            continue
        others = (
            view for view in views
            if type(view.config) is type(guide.config) and view.config.judge not in in_loop
        )  # fmt: skip
        for judge in itertools.islice(others, 1):
            yield gaps(
                guide.columns, judge.columns, judge.titles, design, ok_N,
                guide=guide.config.judge, judge=judge.config.judge,
            )  # fmt: skip


def _named(score: Score, judge: str | None) -> Score:
    """The score with its judge's name in this suite: another suite may have stored it under another."""
    return replace(score, judge=judge)


def sources(own: Needs, config: Any, drawn: Drawn) -> dict[str, Any]:
    """All that a metric sees of a cell, by content: keys and spans."""
    judge, name = config.judge, reference_name(config)
    return {
        "samples": [own.samples.key, _content(own.spans)],
        "failed": np.flatnonzero(~drawn.ok).tolist(),
        "readout": own.readouts[judge].key,
        "reference": [own.references[name].key, own.reference_spans[name][-1].stop],
        "curve": [own.snapshot_readouts[judge].key, own.num_curve] if own.snapshots else None,
    }


def _content(spans: Sequence[Span]) -> list[list[Any]]:
    return [[span.start, span.stop, span.digest] for span in spans]


class _Evidence:
    """Evidence of one cell, read from the store when first asked for."""

    def __init__(self, store: ArtifactStore, own: Needs, drawn: Drawn, stacked: Stacked):
        self.store, self.own, self.drawn, self.stacked = store, own, drawn, stacked
        self._found: dict[tuple[str, str], Readout] = {}
        self._curves: dict[str, dict[int, Readout]] = {}
        self._design: Design | None = None

    @property
    def _keep(self) -> np.ndarray | None:
        return None if self.drawn.ok.all() else np.flatnonzero(self.drawn.ok)

    def design(self, *, curve: bool = False) -> Design:
        """Which samples belong together, of those that did not fail."""
        num = self.own.num_curve if curve else self.own.cell.num_samples
        rows = np.arange(len(self.own.assignment)) if self._keep is None else self._keep
        return self.whole_design().take(rows[rows < num])

    def whole_design(self) -> Design:
        """The same of all samples."""
        if self._design is None:
            # Prompts are drawn from the images that the cell is scored against.
            of_reference = self.own.cell.condition_kind != "class"
            self._design = replace(Design.of(self.own.assignment.conditions), of_reference=of_reference)
        return self._design

    def _conditions(self, num: int) -> tuple[Condition, ...]:
        keep = range(num) if self._keep is None else [i for i in self._keep if i < num]
        return tuple(self.own.assignment.conditions[i] for i in keep)

    def _parts(self, key: str, spans: Sequence[Span], kind: str, meta: dict[str, Any]) -> Any:
        for span in spans:
            arrays, about = payload.unpack(self.store.read(kind, key, span.name))
            meta |= about
            yield arrays

    def _readout(self, name: str, reference: bool) -> Readout:
        """Of the samples by a judge's name, of real images by a :func:`reference_name`."""
        place = ("reference" if reference else "final", name)
        if place not in self._found:
            own, meta = self.own, dict[str, Any]()
            if reference:
                spans = own.reference_spans[name]
                parts = self._parts(own.references[name].key, spans, "reference", meta)
                arrays = self.stacked.stack(parts, spans[-1].stop)
            else:
                parts = self._parts(own.readouts[name].key, own.spans, "readout", meta)
                arrays = self.stacked.stack(parts, own.cell.num_samples, self._keep)
            self._found[place] = payload.arrays_readout(arrays, meta)
        return self._found[place]

    def final(self, config: Any) -> Evidence:
        """What a metric of the final samples sees."""
        return Evidence(
            conditions=self._conditions(self.own.cell.num_samples),
            readouts={config.judge: self._readout(config.judge, False)},
            reference={config.judge: self._readout(reference_name(config), True)},
            timing=self.drawn.timing,
        )

    def curve(self, config: Any) -> list[tuple[int, Evidence]]:
        """Step → what a metric sees of the first samples at that step."""
        own, judge = self.own, config.judge
        if own.snapshots is None or not own.num_curve:
            return []
        if judge not in self._curves:
            spans = [span for span in own.spans if own.has_curve(span)]
            meta: dict[str, Any] = {}
            parts = self._parts(own.snapshot_readouts[judge].key, spans, "readout", meta)
            keep = None if self._keep is None else self._keep[self._keep < own.num_curve]
            arrays = self.stacked.stack(parts, own.num_curve, keep)
            steps: dict[int, dict[str, np.ndarray]] = {}
            for name, values in arrays.items():
                step, _, rest = name.partition("/")
                steps.setdefault(int(step), {})[rest] = values
            self._curves[judge] = {t: payload.arrays_readout(named, meta) for t, named in steps.items()}
        conditions = self._conditions(own.num_curve)
        reference = {judge: self._readout(reference_name(config), True)}
        return [
            (t, Evidence(conditions=conditions, readouts={judge: readout}, reference=reference))
            for t, readout in sorted(self._curves[judge].items())
        ]

    def spread(self, values: np.ndarray) -> np.ndarray:
        """A column over the samples that did not fail, with gaps (NaN, False) for those that did."""
        if self._keep is None:
            return np.asarray(values)
        flags = values.dtype == np.bool_
        column = np.full((len(self.drawn.ok), *values.shape[1:]), False if flags else np.nan)
        column[self._keep] = values
        return column


def with_score_seconds(store: ArtifactStore, own: Needs, drawn: Drawn) -> Drawn:
    """The samples with the seconds in their timing that judges took for their images."""
    phases = {**drawn.timing.phase_s, "score": _score_seconds(store, own)}
    return replace(drawn, timing=replace(drawn.timing, phase_s=phases))


def _score_seconds(store: ArtifactStore, own: Needs) -> float:
    total = 0.0
    for item in own.readouts.values():
        for span in own.spans:
            part = Part("readout", item.key, span.name)
            total += float(payload.unpack(store.read(*part.place))[1].get("seconds", 0.0))
    return total
