"""The metric contract: a pure function of evidence, configured by its dataclass."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from bench.types import ConditionKind, Evidence, MetricResult


@runtime_checkable
class MetricConfig(Protocol):
    """``judge`` names the judge whose readout is used (None: none, as for speed).

    ``conditions`` are the kinds of cells that the metric applies to. A metric that costs too much for every
    point of a curve has a class attribute ``curve`` that is False.

    A score that is a mean over samples has a column of its own name, (N,), whose mean over what is not NaN is
    its value.
    """

    judge: str | None

    @property
    def conditions(self) -> tuple[ConditionKind, ...]: ...

    def compute(self, evidence: Evidence) -> MetricResult:
        """Scores and per-sample columns. Raises MetricError when the evidence does not suffice."""
        ...
