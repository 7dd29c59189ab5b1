"""What is searched when a component is tuned: one range per field, declared beside its defaults."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Range:
    """Values of a numeric field from ``low`` to ``high``; ``log`` searches their logarithm."""

    low: float
    high: float
    log: bool = True

    def suggest(self, trial: Any, name: str) -> float:
        """A value of an Optuna trial."""
        return trial.suggest_float(name, self.low, self.high, log=self.log)
