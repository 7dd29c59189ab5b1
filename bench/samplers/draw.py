"""The driver that runs any sampler: phases timed, snapshots kept, samples that fail marked.

Networks are run on *tiles* of a fixed number of samples, and sample i of a cell always sits in row
i mod tile; rows that nobody asked for are filled. Kernels pick other blockings for other batch shapes and
other instructions for other rows, and a chain of clipped gradient steps amplifies the last bit of that:
with shape and row fixed, the same (prompt, seed) gives the same bits whatever the batch size, order or shard.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Literal, Protocol

import torch
from torch import Tensor

from bench.generators.base import context_rows
from bench.samplers.base import Problem, Sampler


class Phases(Protocol):
    """What times the phases; ``phase(name)`` is a context manager."""

    def phase(self, name: str) -> AbstractContextManager: ...


class Untimed:
    def phase(self, name: str) -> AbstractContextManager:
        return nullcontext()


@dataclass
class Draw:
    """``images`` (N, 3, H, W) float32 in [-1, 1] and ``latents`` (N, dim) of the last iterate.

    ``failed_step`` int64 (N,) is the first step at which a sample's energy (or at last its image) was not
    finite, -1 where none was: a failed sample's images are grey, its latent zero. ``snapshots`` maps a step
    to the images at that step.
    """

    images: Tensor
    latents: Tensor
    failed_step: Tensor
    snapshots: dict[int, Tensor] = field(default_factory=dict)


def to_uint8(images_NCHW: Tensor, quantise: Literal["round", "floor"] = "round") -> Tensor:
    """[-1, 1] to uint8 by rounding to the nearest, or by cutting off as torchvision's ToPILImage does with
    floats, which darkens by half a level on average."""
    unit = images_NCHW.clamp(-1, 1) + 1
    if quantise == "floor":
        return (unit / 2 * 255).floor().to(torch.uint8)
    return (unit * 127.5).round().to(torch.uint8)


def draw(
    sampler: Sampler,
    problem: Problem,
    *,
    timer: Phases | None = None,
    snapshots: Collection[int] = (),
    max_steps: int | None = None,
) -> Draw:
    """Runs ``init``, the steps and the final decode. Snapshots are decoded outside the timed phases.

    ``max_steps`` cuts a warm-up run short. A sample whose energy becomes NaN or infinite is marked as failed
    at that step; as no sample sees another, the rest go on unharmed.
    """
    timer = timer or Untimed()
    steps = sampler.steps if max_steps is None else min(sampler.steps, max_steps)
    energies: list[Tensor | None] = []
    kept: dict[int, Tensor] = {}

    def keep(t: int, state: object) -> None:
        if t in snapshots:
            kept[t] = sampler.images(replace(problem, evaluations=Counter()), state)

    with torch.no_grad():
        with timer.phase("translate"):
            state = sampler.init(problem)
        keep(0, state)
        for first, stop in pairwise(sorted({0, steps, *(t for t in snapshots if 0 < t < steps)})):
            with timer.phase("refine"):  # which waits for the device: not after every step
                for t in range(first, stop):
                    state = sampler.step(problem, state, t)
                    energies.append(getattr(state, "energy_N", None))
            if stop < steps:
                keep(stop, state)
        with timer.phase("decode"):
            latents = sampler.latent(problem, state)
            images = sampler.images(problem, state)
        failed = _first_failure(energies, images)
        if steps in snapshots:
            kept[steps] = images
        good = failed < 0
        return Draw(
            torch.where(good[:, None, None, None], images, 0.0),
            torch.where(good[:, None], latents, 0.0),
            failed,
            {t: torch.where(good[:, None, None, None], x, 0.0).cpu() for t, x in kept.items()},
        )


def _first_failure(energies: Sequence[Tensor | None], images: Tensor) -> Tensor:
    """The first step whose energy is not finite, or the number of steps where only the image is not; int64
    (N,), -1 where all is. Found once, after the last step, for less than a look after each would cost.
    """
    last = torch.isfinite(images).flatten(1).all(1)
    fine = [torch.ones_like(last) if energy is None else torch.isfinite(energy) for energy in energies]
    failed, step = (~torch.stack([*fine, last])).max(0)  # of equal values the first
    return torch.where(failed, step, -1)


def tiles(index: Sequence[int], tile: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Per tile that samples ``index`` fall in: their positions in ``index`` and their rows, int64 (K,)."""
    groups: dict[int, list[int]] = {}
    for position, i in enumerate(index):
        groups.setdefault(i // tile, []).append(position)
    for positions in groups.values():
        yield torch.tensor(positions), torch.tensor([index[k] % tile for k in positions])


def fill_tile(positions: Tensor, rows: Tensor, tile: int) -> Tensor:
    """(tile,) positions: the wanted ones in their rows, the first of them everywhere else."""
    filled = positions[0].repeat(tile)
    filled[rows] = positions
    return filled


def draw_tiled(
    sampler: Sampler,
    problem: Problem,
    *,
    tile: int,
    index: Sequence[int] | None = None,
    timer: Phases | None = None,
    snapshots: Collection[int] = (),
    max_steps: int | None = None,
) -> Draw:
    """:func:`draw` on tiles of exactly ``tile`` samples; any number of samples in, as many out, in order.

    ``index`` holds each sample's number in its cell, by which it gets its row; 0, 1, 2, … by default.
    """
    index = range(len(problem)) if index is None else index
    found: dict[str, Tensor] = {}
    snapshots = sorted(set(snapshots))
    for positions, rows in tiles(index, tile):
        filled = fill_tile(positions, rows, tile).to(problem.streams.device)
        part = replace(
            problem,
            condition_ND=problem.condition_ND[filled],
            streams=problem.streams[filled],
            context=context_rows(problem.context, filled),
            padding=tile - len(rows),
        )
        drawn = draw(sampler, part, timer=timer, snapshots=snapshots, max_steps=max_steps)
        named = {"images": drawn.images, "latents": drawn.latents, "failed_step": drawn.failed_step}
        for name, values in (named | {str(t): x for t, x in drawn.snapshots.items()}).items():
            if name not in found:
                found[name] = values.new_empty((len(index), *values.shape[1:]))
            found[name][positions.to(values.device)] = values[rows.to(values.device)]
    images, latents, failed = (found.pop(name) for name in ("images", "latents", "failed_step"))
    return Draw(images, latents, failed, {int(t): x for t, x in found.items()})
