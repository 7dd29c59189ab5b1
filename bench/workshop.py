"""Makes artifacts: synthetic pairs, translators, references, and spans of samples with what judges saw.

A :class:`Task` names one piece of work; :meth:`Workshop.perform` does it unless the store holds it already.
Tasks are plain data and depend on each other through the store alone, so any process can do any of them.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from bench import payload
from bench.artifacts import ArtifactStore, CorruptArtifact, MissingArtifact
from bench.assembly import Assembly
from bench.drawing import Drawer
from bench.identity import Identity
from bench.judges.base import Judge
from bench.needs import Needs, Part, judge_and_split, needs
from bench.plan import Cell, Plan, with_denoiser
from bench.protocols.images import presented, through_codec
from bench.provenance import hardware
from bench.samplers.draw import to_uint8
from bench.spans import Span
from bench.translator.base import Ground, Trained, distinct
from bench.translator.pairs import Pairs, synthesize
from bench.types import Condition, Readout

Stage = Literal["pairs", "translator", "reference", "samples"]
STAGES: tuple[Stage, ...] = ("pairs", "translator", "reference", "samples")


@dataclass(frozen=True, kw_only=True)
class Task:
    """One piece of work for the cell ``cell`` (and others that share it): the first missing ``part`` names
    it. ``judge``, ``split`` of the real images (None: the protocol's) and ``span`` say which, where the stage
    has several."""

    stage: Stage
    cell: str
    part: Part
    judge: str = ""
    split: str | None = None
    span: Span | None = None

    @property
    def label(self) -> str:
        """What it makes, for the journal: ``samples/<key>/<span>``."""
        return "/".join(self.part.place)


class Workshop:
    """Does tasks of one plan on one device, with artifacts in ``store``. ``made`` counts what it made."""

    def __init__(self, assembly: Assembly, plan: Plan, store: ArtifactStore):
        self.assembly, self.suite, self.store = assembly, assembly.suite, store
        self.cells = {cell.id: cell for cell in plan.cells}
        self.made: Counter[str] = Counter()
        self._needs: dict[str, Needs] = {}
        self._translators: dict[str, Trained] = {}
        self.drawer = Drawer(assembly, store)
        self.problem = self.drawer.problem

    # --- what is to be done

    def needs(self, cell_id: str, *, again: bool = False) -> Needs:
        """What a cell needs; looked up in the store once, or ``again``."""
        if again or cell_id not in self._needs:
            self._needs[cell_id] = needs(self.assembly, self.store, self.cells[cell_id])
        return self._needs[cell_id]

    def tasks(self, cell_id: str, missing: Iterable[Part]) -> list[Task]:
        """The tasks that make a cell's missing parts."""
        gone, own = set(missing), self.needs(cell_id)
        spans = [(span, [p for p in own.span_parts(span) if p in gone]) for span in own.spans]
        to_draw = any(part.kind in ("samples", "images", "snapshots") for _, parts in spans for part in parts)
        network_gone = any(part in gone for part in own.translator_parts())
        found: list[Task] = []
        if to_draw and network_gone:
            found += [
                Task(stage="pairs", cell=cell_id, part=part, span=span)
                for part, span in zip(own.pair_parts(), own.pair_spans)
                if part in gone
            ]
            found.append(Task(stage="translator", cell=cell_id, part=own.translator_parts()[0]))
        for name, reference_spans in own.reference_spans.items():
            for span in reference_spans:
                part = Part("reference", own.references[name].key, span.name)
                if part in gone:
                    judge, split = judge_and_split(name)
                    task = Task(
                        stage="reference", cell=cell_id, part=part, judge=judge, split=split, span=span
                    )
                    found.append(task)
        found += [
            Task(stage="samples", cell=cell_id, part=parts[0], span=span) for span, parts in spans if parts
        ]
        return found

    # --- doing it

    def perform(self, task: Task, *, wait: bool = True) -> bool | None:
        """Makes what the task names, unless it is there: True if made now, False if not needed any more,
        None where ``wait`` is False and another process is at it."""
        locked = task.part
        if task.stage == "samples" and task.span is not None:
            # Whatever of a span is missing: who draws it makes all of it.
            locked = Part("samples", self.needs(task.cell).samples.key, task.span.name)
        with self.store.lock(*locked.place, wait=wait) as mine:
            if not mine:
                return None
            made = {
                "pairs": self._pairs_task,
                "translator": self._translator_task,
                "reference": self._reference_task,
                "samples": self._samples_task,
            }[task.stage](task)
            self.made[task.stage] += made
            return made

    def _write(self, part: Part, item: Identity, content: bytes) -> None:
        self.store.write(*part.place, content, item.header)

    def _read(self, part: Part) -> tuple[dict[str, np.ndarray], dict]:
        return payload.unpack(self.store.read(*part.place))

    def _read_or_none(self, part: Part) -> tuple[dict[str, np.ndarray], dict] | None:
        """None for an artifact that is missing, or was just found corrupt and set aside."""
        try:
            return self._read(part)
        except (CorruptArtifact, MissingArtifact):
            return None

    # pairs and translators

    def _pairs_task(self, task: Task) -> bool:
        own, span = self.needs(task.cell), task.span
        assert own.pairs is not None
        assert span is not None
        if self.store.exists(*task.part.place):
            return False
        cell = own.cell
        pairs = self._synthesize(cell, span.start, span.stop)
        self._write(task.part, own.pairs, payload.pack(pairs.arrays(), pairs.meta))
        return True

    def _synthesize(self, cell: Cell, start: int, stop: int) -> Pairs:
        label = f"pairs {cell.generator} × {cell.conditioner}"
        total = self.suite.translators[str(cell.translator)].config.num_pairs
        return synthesize(
            self.assembly.generator(cell.generator),
            self.assembly.conditioner(cell.conditioner),
            self.suite.translators[str(cell.translator)].config,
            self.assembly.device,
            start=start,
            stop=stop,
            captioner=self.assembly.captioner(str(cell.translator)),
            progress=lambda done: self.assembly.progress(label, done, total),
        )

    def _translator_task(self, task: Task) -> bool:
        own = self.needs(task.cell)
        if self.store.exists(*task.part.place):
            return False
        assert own.translator is not None
        translator = self._train(own)
        self._write(task.part, own.translator, translator.to_bytes())
        self._translators[task.part.key] = translator
        return True

    def _train(self, own: Needs) -> Trained:
        cell = own.cell
        assert own.pairs is not None
        loaded = []
        for part, span in zip(own.pair_parts(), own.pair_spans):
            found = self._read_or_none(part)
            if found is None:
                pairs = self._synthesize(cell, span.start, span.stop)
                self._write(part, own.pairs, payload.pack(pairs.arrays(), pairs.meta))
                loaded.append(pairs)
            else:
                arrays, meta = found
                loaded.append(Pairs.of(arrays, meta["seconds"]))
        pairs = Pairs.joined(loaded) if loaded else Pairs.none()
        label, begin = f"{cell.translator} {cell.generator} × {cell.conditioner}", time.perf_counter()
        ground = self._ground(own)
        trained = self.suite.translators[str(cell.translator)].config.train(
            ground, pairs, lambda done, total: self.assembly.progress(label, done, total)
        )
        seconds = time.perf_counter() - begin
        trained.setup_s = {"pairs": pairs.seconds, "translator_training": seconds}
        views = {"generator_forwards": len(pairs.latents), "auxiliary_forwards": len(pairs.latents)}
        made = with_denoiser(views, ground.generator)
        trained.setup_evaluations = dict(Counter(made) + ground.evaluations)
        return trained

    def _ground(self, own: Needs) -> Ground:
        """What a cell's set-up is trained on, and what it is put together again from."""
        cell = own.cell
        return Ground(
            self.assembly.generator(cell.generator),
            self.assembly.conditioner(cell.conditioner),
            self.assembly.device,
            distinct(own.assignment.conditions),
        )

    def translator(self, own: Needs) -> Trained | None:
        """A cell's translator: from memory, from the store, or (should it have gone meanwhile) made anew."""
        if own.translator is None:
            return None
        (part,) = own.translator_parts()
        if part.key not in self._translators:
            cell = own.cell
            try:
                config = self.suite.translators[str(cell.translator)].config
                self._translators[part.key] = config.read(self.store.read(*part.place), self._ground(own))
            except (CorruptArtifact, MissingArtifact):
                self.perform(Task(stage="translator", cell=cell.id, part=part))
                return self.translator(own)
        return self._translators[part.key]

    # references

    def _reference_task(self, task: Task) -> bool:
        own, span = self.needs(task.cell), task.span
        assert span is not None
        if self.store.exists(*task.part.place):
            return False
        judge = self.assembly.judge(task.judge)
        rows = range(span.start, span.stop)
        readout = reference_readout(self.assembly, own.cell.data, judge, rows, task.split)
        content = payload.pack(*payload.readout_arrays(readout))
        name = task.judge if task.split is None else f"{task.judge}@{task.split}"
        self._write(task.part, own.references[name], content)
        self.made["judge_images"] += len(span)
        return True

    # samples, and what judges saw in them

    def _samples_task(self, task: Task) -> bool:
        own, span = self.needs(task.cell), task.span
        assert span is not None
        missing = [part for part in own.span_parts(span) if not self.store.exists(*part.place)]
        if not missing:
            return False
        final, curve = self._images(own, span, {part.kind for part in missing})
        conditions = own.assignment.conditions[span.start : span.stop]
        for judge, item in own.readouts.items():
            self._read_images(
                Part("readout", item.key, span.name), item, judge, {"": final}, conditions, missing
            )
        if own.has_curve(span):
            for judge, item in own.snapshot_readouts.items():
                part = Part("readout", item.key, span.name)
                self._read_images(part, item, judge, curve, conditions, missing)
        return True

    def _images(self, own: Needs, span: Span, missing: set[str]) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        """A span's final images and its snapshots by step, from the store, or drawn and stored now."""
        curve_part = Part("snapshots", own.snapshots.key, span.name) if own.snapshots else None
        if not missing & {"samples", "images", "snapshots"}:
            final = self._read_or_none(Part("images", own.samples.key, span.name))
            curve = self._read_or_none(curve_part) if curve_part and own.has_curve(span) else ({}, {})
            if final is not None and curve is not None:
                return payload.decode_pngs(final[0]), payload.decode_steps(curve[0])
        begin = time.perf_counter()
        translator = self.translator(own)
        found = self.drawer.draw(own, span, translator)
        drawn, timer = found.draw, found.timer
        seconds = {"setup": timer.began - begin, "draw": time.perf_counter() - timer.began}
        begin = time.perf_counter()
        how = self.suite.protocol.quantise
        images = to_uint8(drawn.images, how).cpu().numpy()
        snapshots = {str(t): to_uint8(x, how).cpu().numpy() for t, x in sorted(drawn.snapshots.items())}
        timing = timer.timing(num_samples=len(span), batch_size=found.tile, evaluations=found.evaluations)
        made: list[tuple[Part, Identity, bytes]] = []
        if curve_part is not None and own.snapshots is not None and own.has_curve(span):
            made.append((curve_part, own.snapshots, payload.pack(payload.encode_steps(snapshots))))
        part = Part("images", own.samples.key, span.name)
        made.append((part, own.samples, payload.pack(payload.encode_pngs(images))))
        seconds["encode"] = time.perf_counter() - begin
        begin = time.perf_counter()
        for content in made:
            self._write(*content)
        seconds["write"] = time.perf_counter() - begin
        table = {
            "latents": drawn.latents.cpu().numpy(),
            "energy": found.energy_N.numpy(),
            "failed_step": drawn.failed_step.cpu().numpy(),
        }
        meta = {
            "timing": vars(timing),
            "hardware": hardware(self.assembly.device),
            "setup_s": translator.setup_s if translator is not None else {},
            "notes": self._notes(own.cell, own.assignment.conditions[span.start : span.stop]),
            "setup_evaluations": translator.setup_evaluations if translator is not None else {},
            "seconds": seconds,  # wall-clock of this span, by which other spans' can be predicted
        }
        self._write(Part("samples", *part.place[1:]), own.samples, payload.pack(table, meta))
        return images, snapshots

    def _notes(self, cell: Cell, conditions: Sequence[Condition]) -> dict[str, Any]:
        """What was settled on loading G and f, and how many of the samples' texts f had to cut."""
        parts: dict[str, Any] = {
            "generator": self.assembly.generator(cell.generator),
            "conditioner": self.assembly.conditioner(cell.conditioner),
        }
        notes: dict[str, Any] = {
            role: dict(found) for role, part in parts.items() if (found := getattr(part, "notes", None))
        }
        truncated = getattr(parts["conditioner"], "truncated", None)
        if truncated is not None:
            notes["truncated_texts"] = sum(truncated(conditions))
        return notes

    def _read_images(
        self,
        part: Part,
        item: Identity,
        judge: str,
        images: dict[str, np.ndarray],
        conditions: Sequence,
        missing: Sequence[Part],
    ) -> None:
        """Stores what a judge sees in images by step ("": the final ones), unless it is there."""
        if part not in missing:
            return
        arrays: dict[str, np.ndarray] = {}
        meta: dict = {}
        reader = self.assembly.judge(judge)
        begin = time.perf_counter()
        for step, stored in images.items():
            stack = presented(stored, self.suite.protocol)
            readout: Readout = reader.readout(stack, conditions)
            named, meta = payload.readout_arrays(readout)
            arrays |= {f"{step}/{name}" if step else name: values for name, values in named.items()}
            self.made["judge_images"] += len(stack)
        meta["seconds"] = time.perf_counter() - begin
        self._write(part, item, payload.pack(arrays, meta))


def reference_readout(
    assembly: Assembly, data: str, judge: Judge, rows: range, split: str | None = None
) -> Readout:
    """What a judge sees in some of the reference images of ``data``, or of those of another split, under the
    suite's protocol."""
    shown = assembly.images(data, split)
    chosen = assembly.reference(data, split)[rows.start : rows.stop]
    images = through_codec(shown.images(chosen), assembly.suite.protocol.reference_codec)
    known = None
    if getattr(judge, "labelled", False):
        known = [Condition(id=shown.ids[i], kind="class", labels=dict(shown.attributes[i])) for i in chosen]
    return judge.readout(images, known)
