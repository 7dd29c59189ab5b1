"""What disturbs a measurement: other load, clocks that change, a device that is not the baseline's."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy import stats

CLOCKS = "/sys/devices/system/cpu"


@dataclass(frozen=True, kw_only=True)
class Snapshot:
    """The machine at one moment; None for what it does not tell."""

    load: float | None
    clock_mhz: float | None
    throttled: str | None


def snapshot() -> Snapshot:
    """Load average of a minute, the mean clock of the processors, and why a GPU holds its clock back."""
    load = None
    with contextlib.suppress(OSError):
        load = os.getloadavg()[0]
    return Snapshot(load=load, clock_mhz=_clock_mhz(), throttled=_gpu_throttle())


def _clock_mhz() -> float | None:
    values = []
    for path in Path(CLOCKS).glob("cpu[0-9]*/cpufreq/scaling_cur_freq"):
        with contextlib.suppress(OSError, ValueError):
            values.append(int(path.read_text()) / 1000)
    if not values:
        with contextlib.suppress(OSError, ValueError):
            for line in Path("/proc/cpuinfo").read_text().splitlines():
                if line.startswith("cpu MHz"):
                    values.append(float(line.partition(":")[2]))
    return float(np.mean(values)) if values else None


def _gpu_throttle() -> str | None:
    """The active reasons of nvidia-smi; None where there is no such tool or nothing holds back."""
    query = "clocks_throttle_reasons.sw_thermal_slowdown,clocks_throttle_reasons.hw_slowdown"
    try:
        done = subprocess.run(
            ["nvidia-smi", f"--query-gpu={query}", "--format=csv,noheader"],
            capture_output=True, text=True, timeout=5,
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return None
    names = ("thermal slow-down", "hardware slow-down")
    active = {
        name
        for line in done.stdout.splitlines()
        for name, value in zip(names, line.split(","))
        if value.strip() == "Active"
    }
    return ", ".join(sorted(active)) or None


def notices(
    before: Snapshot, after: Snapshot, wall_s: Sequence[float], cpu_s: Sequence[float], *, device: str
) -> list[str]:
    """Sentences on what disturbed a series of runs, in time order; [] where nothing was noticed."""
    found = []
    wall, cpu = np.asarray(wall_s), np.asarray(cpu_s)
    cores = os.cpu_count() or 1
    if device.startswith("cpu") and len(wall) >= 10:
        waited = float(np.median(1 - np.minimum(cpu / wall, 1)))
        if waited > 0.1:
            found.append(
                f"other load: in half of the runs the processor was away for {100 * waited:.0f} % of the time"
            )
    loads = [s.load for s in (before, after) if s.load is not None]
    if loads and max(loads) > cores + 1:
        found.append(f"other load: a load average of {max(loads):.1f} on {cores} cores")
    clocks = [s.clock_mhz for s in (before, after)]
    if clocks[0] and clocks[1] and abs(clocks[1] / clocks[0] - 1) > 0.1:
        found.append(f"the processor's clock went from {clocks[0]:.0f} to {clocks[1]:.0f} MHz")
    for reason in {s.throttled for s in (before, after)} - {None}:
        found.append(f"the GPU holds its clock back: {reason}")
    if len(wall) >= 30:
        third = len(wall) // 3
        change = float(np.median(wall[-third:]) / np.median(wall[:third]) - 1)
        p = stats.mannwhitneyu(wall[:third], wall[-third:]).pvalue
        if abs(change) > 0.1 and p < 1e-3:
            found.append(f"the machine's speed drifted: the last third took {100 * change:+.0f} %")
    return found
