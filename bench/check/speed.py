"""Base and head in turns: one runs while the other waits, in an order drawn by chance for every pair."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from bench.check.machine import notices, snapshot
from bench.check.rank import Speed, judge, spread
from bench.check.settings import CheckSettings
from bench.errors import BenchError

Run = Callable[[], tuple[float, float]]  # wall-clock and processor seconds of one run
Place = Callable[[int], None]
Told = Callable[[int, int], None]


@dataclass(frozen=True, kw_only=True)
class Measured:
    """``noise`` is the spread of log ratios of base against itself, ``base_s`` and ``head_s`` all seconds."""

    speed: Speed
    noise: float
    base_s: tuple[float, ...]
    head_s: tuple[float, ...]
    notices: tuple[str, ...] = ()


def measure(
    base: Run,
    head: Run,
    settings: CheckSettings,
    *,
    comparisons: int = 1,
    seed: int = 0,
    device: str = "cpu",
    place: Place = lambda pair: None,
    told: Told = lambda done, total: None,
) -> Measured:
    """Measures until there is a verdict, or ``max_rounds``. Both sides are warm when this is called.

    ``place`` is called with a number before every pair of runs, to move both sides to one processor.

    Raises BenchError where the processor's clock is asked for and the work is not the processor's.
    """
    if settings.clock == "processor" and not device.startswith("cpu"):
        raise BenchError(f"clock 'processor' says nothing about work on '{device}'. Use 'wall'.")
    order = random.Random(seed)
    before = snapshot()
    walls: list[float] = []
    cpus: list[float] = []

    def timed(run: Run) -> float:
        wall, cpu = run()
        walls.append(wall)
        cpus.append(cpu)
        return cpu if settings.clock == "processor" else wall

    twice = []
    for pair in range(settings.noise_rounds):
        place(pair)
        twice.append((timed(base), timed(base)))
    pairs = np.array(twice)
    noise = spread(np.log(pairs[:, 0] / pairs[:, 1]))
    base_s: list[float] = []
    head_s: list[float] = []
    found: Speed | None = None
    for look in settings.looks:
        while len(base_s) < look:
            place(len(base_s))
            sides = [(base, base_s), (head, head_s)]
            order.shuffle(sides)
            for run, seconds in sides:
                seconds.append(timed(run))
            told(len(base_s), settings.max_rounds)
        found = judge(np.array(base_s), np.array(head_s), settings, comparisons)
        if found.verdict != "inconclusive":
            break
    assert found is not None
    return Measured(
        speed=found,
        noise=noise,
        base_s=tuple(base_s),
        head_s=tuple(head_s),
        notices=tuple(notices(before, snapshot(), walls, cpus, device=device)),
    )
