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
import torch

from bench import payload
from bench.artifacts import ArtifactStore, CorruptArtifact, MissingArtifact
from bench.artifacts.faults import reason
from bench.assembly import Assembly
from bench.conditions import Assignment
from bench.errors import SamplingError
from bench.generators.base import ContextGenerator
from bench.identity import Identity
from bench.judges.base import Judge
from bench.keys import content_key
from bench.memory import free_memory, is_out_of_memory
from bench.needs import Needs, Part, judge_and_split, needs
from bench.plan import Cell, Plan, with_denoiser
from bench.protocols.images import presented, through_codec
from bench.provenance import hardware
from bench.samplers.base import Problem
from bench.samplers.draw import Draw, Phases, Untimed, draw_tiled, fill_tile, tiles, to_uint8
from bench.spans import Span
from bench.streams import Streams
from bench.timing import PhaseTimer
from bench.translator.base import Ground, Trained, distinct
from bench.translator.pairs import Pairs, synthesize
from bench.types import Condition, Readout

WARM_UP_STEPS = 2
EVALUATIONS = ("generator_forwards", "generator_backwards", "auxiliary_forwards", "auxiliary_backwards")

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
        self._warm: set[tuple[str, ...]] = set()

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
        drawn, energies, timer, counts, tile = self._draw(own, span)
        seconds = {"setup": timer.began - begin, "draw": time.perf_counter() - timer.began}
        begin = time.perf_counter()
        how = self.suite.protocol.quantise
        images = to_uint8(drawn.images, how).cpu().numpy()
        snapshots = {str(t): to_uint8(x, how).cpu().numpy() for t, x in sorted(drawn.snapshots.items())}
        timing = timer.timing(num_samples=len(span), batch_size=tile, evaluations=counts)
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
            "energy": energies.numpy(),
            "failed_step": drawn.failed_step.cpu().numpy(),
        }
        translator = self.translator(own)
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

    def _draw(self, own: Needs, span: Span) -> tuple[Draw, torch.Tensor, PhaseTimer, dict[str, int], int]:
        """Draws a span, on smaller tiles where the device's memory does not hold one."""
        cell = own.cell
        translator = self.translator(own)
        tile = known = self._tile(own)
        while True:
            try:
                drawn = self._draw_on(own, span, translator, tile)
                break
            except Exception as error:
                if not is_out_of_memory(error):
                    raise
                if tile == 1:
                    raise SamplingError(
                        f"out of memory, even with one sample at a time ({reason(error)}). "
                        "Free some memory, or use another device."
                    ) from error
            free_memory(self.assembly.device)
            tile = max(1, tile // 2)
            self._warm.discard((cell.generator, cell.conditioner, cell.sampler))
        if tile < known:  # and not before: what did not help is no limit
            self._remember_tile(own, tile)
        return drawn

    def _draw_on(
        self, own: Needs, span: Span, translator: Trained | None, tile: int
    ) -> tuple[Draw, torch.Tensor, PhaseTimer, dict[str, int], int]:
        cell, device = own.cell, self.assembly.device
        sampler = self.suite.samplers[cell.sampler].config
        timer = PhaseTimer(device)
        warm = (cell.generator, cell.conditioner, cell.sampler)
        if warm not in self._warm:
            first = self.problem(own.assignment, cell, [span.start], translator, tile)
            draw_tiled(sampler, first, tile=tile, max_steps=WARM_UP_STEPS)
            self._warm.add(warm)
        timer.start()
        draws, energies, counts = [], [], Counter(dict.fromkeys(EVALUATIONS, 0))
        batch = max(tile, self.suite.samples.batch_size)
        steps = cell.curve_steps if own.has_curve(span) else ()
        for start in range(span.start, span.stop, batch):
            index = range(start, min(start + batch, span.stop))
            with timer.batch(len(index)):
                problem = self.problem(own.assignment, cell, index, translator, tile, timer)
                draws.append(
                    draw_tiled(sampler, problem, tile=tile, index=index, timer=timer, snapshots=steps)
                )
            counts.update(problem.evaluations)
            energies.append(_final_energy(problem, draws[-1].images, tile, index, sampler.steps))
            self.assembly.progress(f"{cell.data}: {cell.variant}", index.stop, cell.num_samples)
        return _joined(draws), torch.cat(energies), timer, dict(counts), tile

    def problem(
        self,
        assignment: Assignment,
        cell: Cell,
        index: Sequence[int],
        translator: Trained | None,
        tile: int,
        timer: Phases | None = None,
    ) -> Problem:
        """The problem of samples ``index`` of a cell; what their context takes is part of sampling."""
        generator = self.assembly.generator(cell.generator)
        conditioner = self.assembly.conditioner(cell.conditioner)
        timer = timer or Untimed()
        conditions = [assignment.conditions[i] for i in index]
        seeds = torch.tensor([assignment.seeds[i] for i in index], dtype=torch.int64)
        streams = Streams(seeds, self.assembly.device)
        embedded: list[torch.Tensor] = [torch.empty(0)] * len(index)
        context: dict[str, list[torch.Tensor]] = {}
        with torch.no_grad():
            # On tiles as well: a text's embedding must not depend on who is asked for beside it.
            for positions, rows in tiles(index, tile):
                filled = fill_tile(positions, rows, tile)
                asked = [conditions[k] for k in filled.tolist()]
                _place(embedded, conditioner.embed(asked), positions, rows)
                if isinstance(generator, ContextGenerator):
                    with timer.phase("context"):
                        seen = generator.context(asked, streams[filled.to(streams.device)])
                    for name, values in seen.items():
                        _place(context.setdefault(name, embedded.copy()), values, positions, rows)
        return Problem(
            generator,
            conditioner,
            torch.stack(embedded),
            streams,
            translator,
            context={name: torch.stack(values) for name, values in context.items()}
            if isinstance(generator, ContextGenerator)
            else None,
        )

    def _tile(self, own: Needs) -> int:
        """The suite's tile, or what was left of it when this device last ran out of memory."""
        found = self._read_or_none(self._limit(own))
        tile = self.suite.samples.tile
        return tile if found is None else min(tile, int(found[1]["tile"]))

    def _remember_tile(self, own: Needs, tile: int) -> None:
        part = self._limit(own)
        self.store.write(*part.place, payload.pack({}, {"tile": tile}), {"samples": own.samples.key})

    def _limit(self, own: Needs) -> Part:
        return Part("limit", own.samples.key, content_key(hardware(self.assembly.device)))

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


def _final_energy(
    problem: Problem, images: torch.Tensor, tile: int, index: range, steps: int
) -> torch.Tensor:
    """The guide's energy of the final images, (N,), on tiles; not counted as sampling."""
    energies = torch.empty(len(images))
    with torch.no_grad():
        for positions, rows in tiles(index, tile):
            filled = fill_tile(positions, rows, tile).to(images.device)
            energy = problem.conditioner.energy(
                images[filled], problem.condition_ND[filled], problem.streams[filled], steps
            )
            energies[positions] = energy.cpu()[rows]
    return energies


def _place(
    column: list[torch.Tensor], values: torch.Tensor, positions: torch.Tensor, rows: torch.Tensor
) -> None:
    """Puts these rows of ``values`` at these positions of ``column``."""
    for position, row in zip(positions.tolist(), rows.tolist()):
        column[position] = values[row]


def _joined(draws: Sequence[Draw]) -> Draw:
    return Draw(
        torch.cat([part.images.cpu() for part in draws]),
        torch.cat([part.latents.cpu() for part in draws]),
        torch.cat([part.failed_step.cpu() for part in draws]),
        {t: torch.cat([part.snapshots[t] for part in draws]) for t in draws[0].snapshots},
    )
