"""Base and head in turns: one runs while the other waits, in an order drawn by chance for every pair."""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from bench.check.machine import Snapshot, notices, snapshot
from bench.check.rank import Speed, judge, spread
from bench.check.settings import CheckSettings
from bench.errors import BenchError

Run = Callable[[], tuple[float, float]]  # wall-clock and processor seconds of one run
Place = Callable[[int], None]
Renew = Callable[[Sequence[int]], None]
Told = Callable[[int, int], None]
CLOCKS: tuple[Literal["wall", "processor"], ...] = ("wall", "processor")
AWAY = 0.1  # share of its time that the processor may work for others, in half of the runs


@dataclass(frozen=True, kw_only=True)
class Measured:
    """``noise`` is the spread of log ratios of base against itself. ``base_s`` and ``head_s`` are all seconds
    of the wall-clock, ``base_cpu_s`` and ``head_cpu_s`` those that the processor worked; the verdict and the
    noise are of ``clock``."""

    speed: Speed
    noise: float
    base_s: tuple[float, ...]
    head_s: tuple[float, ...]
    base_cpu_s: tuple[float, ...] = ()
    head_cpu_s: tuple[float, ...] = ()
    clock: Literal["wall", "processor"] = "wall"
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
    renew: Renew | None = None,
    told: Told = lambda done, total: None,
) -> Measured:
    """Measures until there is a verdict, or ``max_rounds``. Both sides are warm when this is called.

    ``place`` is called with a number before every pair of runs, to move both sides to one processor;
    ``renew`` before every ``per_process`` pairs, to go on in new processes that are warmed up in the order
    given, in which they are to run next: 0 for base, 1 for head. With one order for all, the side that came
    last was 4 to 11 % faster in its first pair, and 3 % in all.
    Raises BenchError where the processor's clock is asked for and the work is not the processor's.
    """
    if settings.clock == "processor" and not device.startswith("cpu"):
        raise BenchError(f"clock 'processor' says nothing about work on '{device}'. Use 'wall'.")
    order = random.Random(seed)
    before = snapshot()
    twice = []
    for pair in range(settings.noise_rounds):
        place(pair)
        twice.append((base(), base()))
    alone = np.array(twice)  # (rounds, first or second, wall or processor)
    clock = _clock(settings, alone.reshape(-1, 2), before, device)
    column = CLOCKS.index(clock)
    pairs: list[tuple[tuple[float, float], tuple[float, float]]] = []
    in_order = [run for pair in twice for run in pair]
    found: Speed | None = None
    for look in settings.looks:
        while len(pairs) < look:
            sides = [0, 1]
            order.shuffle(sides)
            if renew is not None and len(pairs) % settings.per_process == 0:
                renew(sides)
            place(len(pairs))
            took = {side: (base, head)[side]() for side in sides}
            in_order += [took[side] for side in sides]
            pairs.append((took[0], took[1]))
            told(len(pairs), settings.max_rounds)
        seconds = np.array(pairs)
        per = settings.per_process if renew is not None else 1
        units = by_process(np.log(seconds[:, 1] / seconds[:, 0]), per)
        found = judge(units[:, column], settings, comparisons, per)
        if settings.clock == "auto" and clock == "processor":
            found = _agreed(found, judge(units[:, 0], settings, comparisons, per))
        if found.verdict != "inconclusive":
            break
    assert found is not None
    said = notices(before, snapshot(), *zip(*in_order), device=device)
    if clock == "processor":
        said.append("the seconds compared are those that the processor worked, not the wall-clock's")
    columns = {
        name: tuple(seconds[:, side, k].tolist())
        for k, ending in enumerate(("_s", "_cpu_s"))
        for side, name in enumerate((f"base{ending}", f"head{ending}"))
    }
    noise = spread(np.log(alone[:, 0, column] / alone[:, 1, column]))
    return Measured(speed=found, noise=noise, clock=clock, notices=tuple(said), **columns)


def by_process(log_ratios: np.ndarray, per: int) -> np.ndarray:
    """(N, …) log ratios of pairs in their order → (N / per, …), the median of each process's."""
    return np.stack([np.median(log_ratios[k : k + per], axis=0) for k in range(0, len(log_ratios), per)])


def _clock(
    settings: CheckSettings, runs_N2: np.ndarray, machine: Snapshot, device: str
) -> Literal["wall", "processor"]:
    """The clock to go by: where others use the processors as well, the one that does not count their time."""
    if settings.clock != "auto":
        return settings.clock
    if not device.startswith("cpu"):
        return "wall"
    away = float(np.median(1 - np.minimum(runs_N2[:, 1] / runs_N2[:, 0], 1)))
    crowded = machine.load is not None and machine.load > (os.cpu_count() or 1) + 1
    return "processor" if away > AWAY or crowded else "wall"


def _agreed(processor: Speed, wall: Speed) -> Speed:
    """The processor's verdict, unless the wall-clock denies it: waiting counts as well, and work that moved
    to where the processor does not see it."""
    denied = {"slower": ("faster",), "faster": ("slower",), "same": ("slower", "faster")}
    if wall.verdict in denied.get(processor.verdict, ()):
        return replace(processor, verdict="inconclusive", more_rounds=processor.rounds)
    return processor
