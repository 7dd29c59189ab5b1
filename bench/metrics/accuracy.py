"""Accuracies by a judge classifier: of the demanded class, and of every demanded attribute."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.special import log_softmax

from bench.errors import MetricError, nearest
from bench.types import Condition, ConditionKind, Evidence, MetricResult, Readout, Score


def _demanded(conditions: Sequence[Condition], readout: Readout, judge: str) -> dict[str, np.ndarray]:
    """Attribute name → demanded class index per sample (N,)."""
    names = tuple(conditions[0].labels) if conditions else ()
    if not names:
        raise MetricError("accuracy: the conditions demand no attributes, so nothing can be right or wrong.")
    targets = {}
    for name in names:
        if name not in readout.classes:
            raise MetricError(
                f"accuracy: conditions demand '{name}', judge '{judge}' reads "
                f"{', '.join(readout.classes) or 'nothing'}.{nearest(name, readout.classes)}"
            )
        values = readout.classes[name]
        try:
            targets[name] = np.array([values.index(condition.labels[name]) for condition in conditions])
        except (KeyError, ValueError) as error:
            raise MetricError(
                f"accuracy: a condition's '{name}' is missing or not a value of judge '{judge}' ({error}). "
                f"Values: {', '.join(values)}."
            ) from None
    return targets


def _correct(readout: Readout, targets: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    for name in targets:
        if not np.isfinite(readout.logits[name]).all():
            raise MetricError(
                f"accuracy: the judge's logits for '{name}' are not finite; look at the images."
            )
    return {name: readout.logits[name].argmax(1) == target for name, target in targets.items()}


@dataclass(frozen=True, kw_only=True)
class ClassAccuracy:
    """Share of samples whose every demanded attribute the judge reads right, and its mean probability.

    The probability is the product over the demanded attributes. Source: TR0N's average probability and
    LACE's accuracy, with a judge that did not guide.
    """

    judge: str

    @property
    def conditions(self) -> tuple[ConditionKind, ...]:
        return ("class",)

    def compute(self, evidence: Evidence) -> MetricResult:
        readout = evidence.readouts[self.judge]
        targets = _demanded(evidence.conditions, readout, self.judge)
        correct = np.logical_and.reduce(list(_correct(readout, targets).values()))
        rows = np.arange(len(correct))
        log_probability = sum(
            log_softmax(readout.logits[name].astype(np.float64), axis=1)[rows, target]
            for name, target in targets.items()
        )
        probability = np.exp(log_probability)
        chance = 1 / math.prod(len(readout.classes[name]) for name in targets)
        details = {"chance": chance, "attributes": list(targets)}
        values = (
            ("class-accuracy", "Class accuracy", correct),
            ("target-probability", "Target probability", probability),
        )
        scores = tuple(
            Score(
                metric=metric,
                title=title,
                value=float(value.mean()),
                n=len(correct),
                judge=self.judge,
                details=details,
            )
            for metric, title, value in values
        )
        columns = {"class-accuracy": correct, "target-probability": probability.astype(np.float32)}
        return MetricResult(scores=scores, per_sample=columns)


@dataclass(frozen=True, kw_only=True)
class AttributeAccuracy:
    """Share of samples whose attributes the judge reads as demanded: each, all, and shape and color together.

    ``attribute-accuracy`` is the mean over attributes; ``all-attributes-accuracy`` asks for every one.
    """

    judge: str

    @property
    def conditions(self) -> tuple[ConditionKind, ...]:
        return ("class", "text", "image")

    def compute(self, evidence: Evidence) -> MetricResult:
        readout = evidence.readouts[self.judge]
        targets = _demanded(evidence.conditions, readout, self.judge)
        correct = _correct(readout, targets)
        table = np.stack(list(correct.values()))
        columns: dict[str, tuple[str, Any]] = {
            "attribute-accuracy": ("Attribute accuracy", table.mean(0)),
            "all-attributes-accuracy": ("All attributes", table.all(0)),
        }
        if {"shape", "color"} <= correct.keys():
            columns["shape-and-color-accuracy"] = ("Shape and color", correct["shape"] & correct["color"])
        for name, right in correct.items():
            columns[f"attribute-accuracy/{name}"] = (f"{name.capitalize()} accuracy", right)
        scores = tuple(
            Score(metric=key, title=title, value=float(right.mean()), n=table.shape[1], judge=self.judge)
            for key, (title, right) in columns.items()
        )
        return MetricResult(scores=scores, per_sample={key: right for key, (_, right) in columns.items()})
