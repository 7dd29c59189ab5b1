"""Whether every part of a composed condition is met: demanded values shown, avoided ones not."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bench.errors import MetricError, nearest
from bench.types import ConditionKind, Evidence, MetricResult, Score


@dataclass(frozen=True, kw_only=True)
class CompositionAccuracy:
    """Joint success: the share of samples in which a judge reads every demanded value and no avoided one.

    ``composition-part/NAME`` is the share that meets the part about one attribute alone. Source: joint
    success over conditions, as compositional generation is judged in LACE (arXiv:2110.10873).
    """

    judge: str

    @property
    def conditions(self) -> tuple[ConditionKind, ...]:
        return ("class", "text")

    def compute(self, evidence: Evidence) -> MetricResult:
        readout = evidence.readouts[self.judge]
        conditions = evidence.conditions
        met: dict[str, np.ndarray] = {}
        for name in dict.fromkeys(n for c in conditions for n in (*c.labels, *c.avoid)):
            if name not in readout.classes:
                raise MetricError(
                    f"composition-accuracy: conditions speak of '{name}', judge '{self.judge}' reads "
                    f"{', '.join(readout.classes) or 'nothing'}.{nearest(name, readout.classes)}"
                )
            values = np.array(readout.classes[name])[readout.logits[name].argmax(1)]
            wanted = np.array([c.labels.get(name, values[i]) for i, c in enumerate(conditions)])
            unwanted = np.array([c.avoid.get(name, "") for c in conditions])
            finite = np.isfinite(readout.logits[name]).all(1)
            met[name] = finite & (values == wanted) & (values != unwanted)
        if not met:
            raise MetricError("composition-accuracy: the conditions name no attributes.")
        joint = np.logical_and.reduce(list(met.values()))
        columns = {"composition-accuracy": ("Joint success", joint)} | {
            f"composition-part/{name}": (f"Part: {name}", each) for name, each in met.items()
        }
        scores = tuple(
            Score(metric=key, title=title, value=float(each.mean()), n=len(joint), judge=self.judge)
            for key, (title, each) in columns.items()
        )
        return MetricResult(scores=scores, per_sample={key: each for key, (_, each) in columns.items()})
