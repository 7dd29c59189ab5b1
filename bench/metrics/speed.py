"""Speed: seconds per image by phase, throughput, memory, evaluations of G and f."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from bench.errors import MetricError
from bench.statistics.means import Interval, linear, student_interval
from bench.types import KINDS, Better, ConditionKind, Evidence, MetricResult, Score, Timing

SAMPLING = ("context", "translate", "refine", "decode")


@dataclass(frozen=True, kw_only=True)
class Speed:
    """Wall-clock of sampling, after a warm-up and with the device synchronised at every phase.

    Seconds per image cover translate, refine and decode, and the making of a generator's context where it
    has one (a prompt's text encoder), not scoring or set-up. Evaluations are per image: G and f forwards and
    backwards, f counting every augmented view.
    """

    judge: None = None

    @property
    def conditions(self) -> tuple[ConditionKind, ...]:
        return KINDS

    def compute(self, evidence: Evidence) -> MetricResult:
        timing = evidence.timing
        if timing is None or timing.num_samples < 1:
            raise MetricError("speed: the cell has no timings. Run it again.")
        n = timing.num_samples
        per_image = sum(timing.phase_s.get(phase, 0.0) for phase in SAMPLING) / n
        rows: list[tuple[str, str, float, str, Better]] = [
            ("seconds-per-image", "Seconds per image", per_image, "s/image", "lower"),
            ("images-per-second", "Images per second", 1 / max(per_image, 1e-12), "images/s", "higher"),
            ("peak-memory", "Peak memory", timing.peak_memory_gib, "GiB", "lower"),
        ]
        for phase in (*SAMPLING, "score"):
            if phase == "context" and phase not in timing.phase_s:
                continue
            title = f"Seconds per image, {phase}"
            rows.append(
                (f"seconds-per-image/{phase}", title, timing.phase_s.get(phase, 0.0) / n, "s/image", "lower")
            )
        for name, seconds in timing.setup_s.items():
            rows.append((f"setup-seconds/{name}", f"Set-up: {name.replace('_', ' ')}", seconds, "s", "lower"))
        for name, count in timing.setup_evaluations.items():
            title = f"Set-up: {name.replace('_', ' ')}"
            rows.append((f"setup-evaluations/{name}", title, count, "samples", "lower"))
        for name, count in timing.evaluations.items():
            rows.append(
                (f"evaluations/{name}", name.replace("_", " ").capitalize(), count / n, "per image", "lower")
            )
        scores = [
            Score(metric=metric, title=title, value=float(value), unit=unit, better=better, n=n)
            for metric, title, value, unit, better in rows
        ]
        found = seconds_interval(timing)
        if found is not None and found.low > 0:
            per_second = (1 / found.high, 1 / found.low)
            method = found.method
            scores[0] = replace(scores[0], interval=(found.low, found.high), interval_method=method)
            scores[1] = replace(scores[1], interval=per_second, interval_method=method)
        return MetricResult(scores=tuple(scores))


def seconds_interval(timing: Timing) -> Interval | None:
    """The interval of seconds per image, batches taken as draws; None for fewer than three. It speaks of this
    process on this machine: others differ by more."""
    batches = len(timing.batch_s)
    if batches < 3:
        return None
    found = linear(np.array(timing.batch_s), np.array(timing.batch_n, float), np.zeros(batches, int))
    return student_interval(found.mean, found.se, found.df, f"Student's t over {batches} batches")
