"""What each field of a protocol does to a run's scores, from its stored samples: nothing is drawn.

Every image is decoded once, however many protocols look at it, and what a judge saw under an equal transform
is not looked at again: readouts are artifacts, kept under the transform that made them.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from bench import payload
from bench.artifacts import ArtifactStore
from bench.assembly import Assembly, Progress, silent
from bench.errors import BenchError, ResultError
from bench.keys import canonical_json
from bench.needs import Needs, Part, judge_and_split, needs
from bench.plan import Cell, plan
from bench.protocols.base import Protocol
from bench.protocols.images import presented
from bench.protocols.shipped import SHIPPED
from bench.recorded import read_suite
from bench.scoring import Scorer, read_drawn
from bench.store import RunStore
from bench.suite import Suite, suite_from_plain
from bench.types import Score
from bench.workshop import reference_readout
from bench.worlds.files import FileImageSet

# Values tried one at a time, besides the run's own.
ALTERNATIVES: dict[str, tuple[Any, ...]] = {
    "codec": ("png", "jpeg-95", "jpeg-75"),
    "reference_codec": ("png", "jpeg-75"),
    "crop": ("centre", "centre-round", "none"),
    "resize_filter": ("bicubic", "bilinear", "lanczos", "box"),
    "extractor_resize": ("clean", "torch-fidelity", "pytorch-fid", "t2ibenchmark"),
    "extractor_scale": ("tensorflow", "symmetric"),
    "moments": ("float64", "float32"),
    "ddof": (1, 0),
}
# Other values of these can be set by --to; a few have no list that fits every run.
SCORABLE = (*ALTERNATIVES, "eval_size", "num_reference", "extractor")
# What samples were drawn for or as: another value needs other samples.
DRAWN = (
    "resolution", "quantise", "caption", "caption_seed", "prompts_sha256", "num_samples", "reference_split",
    "reference",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Change:
    """One protocol: the run's own with ``fields`` changed. ``label`` names it in tables."""

    label: str
    fields: Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Measured:
    """One score under one change; ``base`` is the value under the run's own protocol."""

    cell: str
    metric: str
    judge: str
    change: Change
    value: float
    base: float

    @property
    def difference(self) -> float:
        return self.value - self.base


def single_changes(protocol: Protocol, only: Iterable[str] = ()) -> list[Change]:
    """Every alternative value of every scorable field, one at a time. Half the reference is one of them."""
    wanted = set(only) or {*ALTERNATIVES, "num_reference"}
    changes = [
        Change(label=f"{name} {value}", fields={name: value})
        for name, values in ALTERNATIVES.items()
        if name in wanted
        for value in values
        if value != getattr(protocol, name)
    ]
    half = protocol.num_reference // 2
    if "num_reference" in wanted and half >= 2:
        changes.append(Change(label=f"num_reference {half}", fields={"num_reference": half}))
    return changes


def changes_to(protocol: Protocol, name: str) -> tuple[list[Change], list[str]]:
    """From a run's protocol to a shipped one: each differing field alone, then field upon field, so that the
    steps add up to the whole gap; and the fields that stored samples cannot answer for."""
    goal = Protocol(**{**SHIPPED[name], "name": name})
    differing = {
        key: getattr(goal, key)
        for key in SCORABLE
        if getattr(goal, key) is not None and getattr(goal, key) != getattr(protocol, key)
    }
    if goal.eval_size is None and protocol.eval_size is not None:
        differing["eval_size"] = None
    alone = [Change(label=f"{key} {value}", fields={key: value}) for key, value in differing.items()]
    path = [
        Change(label=f"… and {key} {value}" if k else f"first {key} {value}",
               fields=dict(list(differing.items())[: k + 1]))
        for k, (key, value) in enumerate(differing.items())
    ]  # fmt: skip
    open_ = [
        key
        for key in DRAWN
        if getattr(goal, key) is not None and getattr(goal, key) != getattr(protocol, key)
    ]
    return alone + path, open_


def suite_under(suite: Suite, fields: Mapping[str, Any]) -> Suite:
    """The suite with other fields of its protocol. What its judges and metrics had from the protocol they
    have anew; curves are left out, as they are not scored again."""
    plain = suite.resolved()
    protocol = {**plain["protocol"], **fields}
    plain["protocol"] = {key: value for key, value in protocol.items() if value is not None}
    plain.pop("curve", None)
    for table in ("judges", "metrics"):
        for name, item in getattr(suite, table).items():
            for own, theirs in getattr(type(item.config), "protocol_fields", {}).items():
                if protocol.get(theirs) is not None:
                    plain[table][name].pop(own, None)
    return suite_from_plain(plain, suite.source)


def sensitivity(
    run_dir: Path,
    store: ArtifactStore,
    device: torch.device,
    changes: Sequence[Change] | None = None,
    *,
    progress: Progress = silent,
) -> list[Measured]:
    """Every judged score of every cell under every change, and its value under the run's own protocol.

    Raises ResultError where the run has no cell that is ok, or an image that is not in the store.
    """
    results = RunStore(run_dir)
    suite = read_suite(results)
    changes = single_changes(suite.protocol) if changes is None else changes
    views = [_View(change, suite_under(suite, change.fields), device) for change in (_BASE, *changes)]
    ok = {record.cell.id for record in results.records() if record.status == "ok"}
    if not ok:
        raise ResultError(f"'{run_dir}' holds no cell that is ok. Run the suite first.")
    found: list[Measured] = []
    for cell_id in [cell.id for cell in plan(views[0].suite).cells if cell.id in ok]:
        needed = [view.needs(store, cell_id) for view in views]
        _look(store, views, needed, progress)
        scores = [_scores(view, own, store) for view, own in zip(views, needed)]
        for change, values in zip(changes, scores[1:]):
            for (metric, judge), value in values.items():
                base = scores[0].get((metric, judge))
                if base is not None:
                    found.append(
                        Measured(
                            cell=cell_id, metric=metric, judge=judge, change=change, value=value, base=base
                        )
                    )
    return found


_BASE = Change(label="as run", fields={})


class _View:
    """A suite under one change, with its parts."""

    def __init__(self, change: Change, suite: Suite, device: torch.device):
        self.change, self.suite = change, suite
        self.assembly = Assembly(suite, device)
        self.cells: dict[str, Cell] = {cell.id: cell for cell in plan(suite).cells}

    def needs(self, store: ArtifactStore, cell_id: str) -> Needs:
        if cell_id not in self.cells:
            raise BenchError(f"change '{self.change.label}' needs other samples; it cannot be scored here.")
        return needs(self.assembly, store, self.cells[cell_id])


def _look(store: ArtifactStore, views: Sequence[_View], needed: Sequence[Needs], progress: Progress) -> None:
    """Makes the readouts that are missing, span by span: each image is decoded once for all views."""
    own = needed[0]
    loaded: dict[tuple[str, str], Any] = {}

    def judge(view: _View, name: str, key: str) -> Any:
        """A judge that two views configure alike is loaded once."""
        if (name, key) not in loaded:
            loaded[name, key] = view.assembly.judge(name)
        return loaded[name, key]

    for k, span in enumerate(own.spans):
        progress(f"samples of {own.cell.variant}", k, len(own.spans))
        images: np.ndarray | None = None
        conditions = own.assignment.conditions[span.start : span.stop]
        for view, item in zip(views, needed):
            for name, readout in item.readouts.items():
                part = Part("readout", readout.key, span.name)
                if store.exists(*part.place):
                    continue
                if images is None:
                    content = store.read("images", own.samples.key, span.name)
                    images = payload.decode_pngs(payload.unpack(content)[0])
                shown = presented(images, view.suite.protocol)
                seen = judge(view, name, _key(readout)).readout(shown, conditions)
                store.write(*part.place, payload.pack(*payload.readout_arrays(seen)), readout.header)
    missing: dict[tuple[int, int], list[tuple[_View, Needs, str, Any]]] = {}
    for view, item in zip(views, needed):
        for name, reference in item.references.items():
            for span in item.reference_spans[name]:
                if not store.exists("reference", reference.key, span.name):
                    missing.setdefault((span.start, span.stop), []).append((view, item, name, span))
    for k, (bounds, tasks) in enumerate(sorted(missing.items(), key=lambda pair: pair[0])):
        progress("reference images", k, len(missing))
        decoded: dict[str | None, dict[str, Any]] = {}
        for view, item, name, span in tasks:
            reference = item.references[name]
            part = Part("reference", reference.key, span.name)
            if store.exists(*part.place):  # two views of one transform
                continue
            asked, split = judge_and_split(name)
            reader = judge(view, asked, _key(reference))
            known = decoded.setdefault(split, {})
            with _decoding_once(view.assembly.images(own.cell.data, split), known):
                seen = reference_readout(view.assembly, own.cell.data, reader, range(*bounds), split)
            store.write(*part.place, payload.pack(*payload.readout_arrays(seen)), reference.header)


@contextlib.contextmanager
def _decoding_once(images: Any, decoded: dict[str, Any]) -> Iterator[None]:
    """Within the block a set of files keeps what it decodes in ``decoded``, and takes it from there."""
    if not isinstance(images, FileImageSet):
        yield
        return
    images.decoded = decoded
    try:
        yield
    finally:
        images.decoded = None


def _key(item: Any) -> str:
    return canonical_json(item.inputs["judge"])


def _scores(view: _View, own: Needs, store: ArtifactStore) -> dict[tuple[str, str], float]:
    judged = tuple(name for name in own.cell.metrics if view.suite.metrics[name].config.judge is not None)
    own = replace(own, cell=replace(own.cell, metrics=judged))
    scores: Sequence[Score] = Scorer(view.suite, store).score(own, read_drawn(store, own)).scores
    return {(score.metric, str(score.judge)): score.value for score in scores}
