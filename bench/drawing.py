"""Draws spans of samples: conditions embedded, a stream each, tiles that the device's memory holds."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from bench import payload
from bench.artifacts import ArtifactStore, CorruptArtifact, MissingArtifact
from bench.artifacts.faults import reason
from bench.assembly import Assembly
from bench.conditions import Assignment
from bench.errors import SamplingError
from bench.generators.base import ContextGenerator
from bench.keys import content_key
from bench.memory import free_memory, is_out_of_memory
from bench.needs import Needs, Part
from bench.plan import Cell
from bench.provenance import hardware
from bench.samplers.base import Problem
from bench.samplers.draw import Draw, Phases, Untimed, draw_tiled, fill_tile, tiles
from bench.spans import Span
from bench.streams import Streams
from bench.timing import PhaseTimer
from bench.translator.base import Trained

WARM_UP_STEPS = 2
EVALUATIONS = ("generator_forwards", "generator_backwards", "auxiliary_forwards", "auxiliary_backwards")


@dataclass(frozen=True)
class DrawnSpan:
    """A span as drawn on tiles of ``tile``: what the sampler gave, the guide's energy of the final images
    (N,), seconds by phase, and evaluations of G and f."""

    draw: Draw
    energy_N: torch.Tensor
    timer: PhaseTimer
    evaluations: dict[str, int]
    tile: int


class Drawer:
    """Draws on the device of ``assembly``; the store remembers what its memory did not hold."""

    def __init__(self, assembly: Assembly, store: ArtifactStore):
        self.assembly, self.suite, self.store = assembly, assembly.suite, store
        self._warm: set[tuple[str, ...]] = set()

    def draw(self, own: Needs, span: Span, translator: Trained | None) -> DrawnSpan:
        """Draws a span, on smaller tiles where the device's memory does not hold one.

        Raises SamplingError where it does not hold a single sample.
        """
        cell = own.cell
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

    def _draw_on(self, own: Needs, span: Span, translator: Trained | None, tile: int) -> DrawnSpan:
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
        return DrawnSpan(_joined(draws), torch.cat(energies), timer, dict(counts), tile)

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
        tile = self.suite.samples.tile
        try:
            _, meta = payload.unpack(self.store.read(*self._limit(own).place))
        except (CorruptArtifact, MissingArtifact):
            return tile
        return min(tile, int(meta["tile"]))

    def _remember_tile(self, own: Needs, tile: int) -> None:
        part = self._limit(own)
        self.store.write(*part.place, payload.pack({}, {"tile": tile}), {"samples": own.samples.key})

    def _limit(self, own: Needs) -> Part:
        return Part("limit", own.samples.key, content_key(hardware(self.assembly.device)))


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
