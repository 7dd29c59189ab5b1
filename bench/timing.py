"""Wall-clock by phase with device synchronisation, and peak memory."""

from __future__ import annotations

import contextlib
import resource
import sys
import time
from collections.abc import Iterator, Mapping

import torch

from bench.types import Timing


def synchronise(device: torch.device) -> None:
    """Waits until the device has done all that was asked of it; nothing on a CPU."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def peak_memory_gib(device: torch.device) -> float:
    """Largest memory so far: allocated on a CUDA device since ``start``, else this process's resident set."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**30
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**30 if sys.platform == "darwin" else peak / 2**20


class PhaseTimer:
    """Adds up seconds per phase and per batch. The device is synchronised at both ends of a phase."""

    def __init__(self, device: torch.device):
        self.device = device
        self.phase_s: dict[str, float] = {}
        self.batch_s: list[float] = []
        self.batch_n: list[int] = []
        self.began = time.perf_counter()

    def start(self) -> None:
        """Forgets all measured so far (a warm-up) and resets the device's peak memory."""
        self.began = time.perf_counter()
        self.phase_s.clear()
        self.batch_s.clear()
        self.batch_n.clear()
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)

    @contextlib.contextmanager
    def phase(self, name: str) -> Iterator[None]:
        synchronise(self.device)
        begin = time.perf_counter()
        try:
            yield
        finally:
            synchronise(self.device)
            self.phase_s[name] = self.phase_s.get(name, 0.0) + time.perf_counter() - begin

    @contextlib.contextmanager
    def batch(self, num: int) -> Iterator[None]:
        """One batch of ``num`` samples; its value is what the phases inside it took."""
        before = sum(self.phase_s.values())
        yield
        self.batch_s.append(sum(self.phase_s.values()) - before)
        self.batch_n.append(num)

    def seconds(self, name: str) -> float:
        return self.phase_s.get(name, 0.0)

    def timing(
        self, *, num_samples: int, batch_size: int, evaluations: Mapping[str, int],
        setup_s: Mapping[str, float] | None = None,
    ) -> Timing:  # fmt: skip
        """What was measured since :meth:`start`."""
        return Timing(
            num_samples=num_samples,
            batch_size=batch_size,
            phase_s=dict(self.phase_s),
            batch_s=tuple(self.batch_s),
            batch_n=tuple(self.batch_n),
            evaluations=dict(evaluations),
            peak_memory_gib=peak_memory_gib(self.device),
            setup_s=dict(setup_s or {}),
        )
