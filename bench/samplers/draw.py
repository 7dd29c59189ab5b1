"""The driver that runs any sampler: phases timed, snapshots kept, non-finite energies caught.

Networks are run on *tiles* of a fixed number of samples, the last one padded. Kernels pick other blockings
for other batch shapes, and a chain of clipped gradient steps amplifies the last bit of that: with the
tile fixed, the same (prompt, seed) gives the same bits whatever the batch size, order or shard.
"""

from __future__ import annotations

from collections.abc import Collection
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from typing import Protocol

import torch
from torch import Tensor

from bench.errors import SamplingError
from bench.samplers.base import Problem, Sampler


class Phases(Protocol):
    """What times the phases; ``phase(name)`` is a context manager."""

    def phase(self, name: str) -> AbstractContextManager: ...


class Untimed:
    def phase(self, name: str) -> AbstractContextManager:
        return nullcontext()


@dataclass
class Draw:
    """``images`` (N, 3, H, W) float32 in [-1, 1] and ``latents`` (N, dim) of the last iterate;
    ``snapshots`` maps a step to the images at that step."""

    images: Tensor
    latents: Tensor
    snapshots: dict[int, Tensor] = field(default_factory=dict)

    def first(self, num: int) -> Draw:
        """The first ``num`` samples."""
        return Draw(self.images[:num], self.latents[:num], {t: x[:num] for t, x in self.snapshots.items()})


def to_uint8(images_NCHW: Tensor) -> Tensor:
    """[-1, 1] to uint8 by rounding to the nearest."""
    return ((images_NCHW.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)


def draw(
    sampler: Sampler,
    problem: Problem,
    *,
    timer: Phases | None = None,
    snapshots: Collection[int] = (),
    max_steps: int | None = None,
) -> Draw:
    """Runs ``init``, the steps and the final decode. Snapshots are decoded outside the timed phases.

    ``max_steps`` cuts a warm-up run short. Raises SamplingError naming step and sample when an energy is
    NaN or infinite.
    """
    timer = timer or Untimed()
    steps = sampler.steps if max_steps is None else min(sampler.steps, max_steps)
    kept: dict[int, Tensor] = {}

    def keep(t: int, state: object) -> None:
        if t in snapshots:
            kept[t] = problem.generator.decode(sampler.latent(problem, state)).cpu()

    with torch.no_grad():
        with timer.phase("translate"):
            state = sampler.init(problem)
        keep(0, state)
        for t in range(steps):
            with timer.phase("refine"):
                state = sampler.step(problem, state, t)
            _check_finite(state, t, problem)
            if t + 1 < steps:
                keep(t + 1, state)
        with timer.phase("decode"):
            latents = sampler.latent(problem, state)
            images = problem.decode(latents)
        if not torch.isfinite(images).all():
            raise SamplingError(
                f"an image is not finite after {steps} steps; check the generator and step size."
            )
        if steps in snapshots:
            kept[steps] = images.cpu()
    return Draw(images, latents, kept)


def draw_tiled(
    sampler: Sampler,
    problem: Problem,
    *,
    tile: int,
    timer: Phases | None = None,
    snapshots: Collection[int] = (),
    max_steps: int | None = None,
) -> Draw:
    """:func:`draw` on tiles of exactly ``tile`` samples; any number of samples in, as many out, in order."""
    draws = []
    for start in range(0, len(problem), tile):
        rows = torch.arange(start, start + tile, device=problem.streams.device).clamp(max=len(problem) - 1)
        padding = max(0, start + tile - len(problem))
        part = replace(
            problem, condition_ND=problem.condition_ND[rows], streams=problem.streams[rows], padding=padding
        )
        drawn = draw(sampler, part, timer=timer, snapshots=snapshots, max_steps=max_steps)
        draws.append(drawn.first(tile - padding))
    return Draw(
        images=torch.cat([part.images for part in draws]),
        latents=torch.cat([part.latents for part in draws]),
        snapshots={t: torch.cat([part.snapshots[t] for part in draws]) for t in draws[0].snapshots},
    )


def _check_finite(state: object, t: int, problem: Problem) -> None:
    energy = getattr(state, "energy_N", None)
    if energy is None:
        return
    bad = (~torch.isfinite(energy)).nonzero()[:, 0]
    if len(bad):
        first = int(bad[0])
        raise SamplingError(
            f"energy is {float(energy[first])} at step {t} for {len(bad)} of {len(energy)} samples, the "
            f"first with stream key {int(problem.streams.keys[first])}. Lower step_size, or mend the "
            "generator or conditioner."
        )
