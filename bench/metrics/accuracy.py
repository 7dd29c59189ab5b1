"""Accuracies by a judge classifier: of the demanded class, and of every demanded attribute."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import numpy as np
import scipy  # whose parts are loaded when first used
from pydantic import Field

from bench.errors import MetricError, nearest
from bench.metrics.sets import lacks
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


def in_top(logits_NK: np.ndarray, target_N: np.ndarray, k: int) -> np.ndarray:
    """Whether fewer than k classes come before the target, by logit and, where equal, by index; bool (N,)."""
    own = np.take_along_axis(logits_NK, target_N[:, None], axis=1)
    before = np.arange(logits_NK.shape[1]) < target_N[:, None]
    return ((logits_NK > own) | ((logits_NK == own) & before)).sum(1) < k


@dataclass(frozen=True, kw_only=True)
class ClassAccuracy:
    """Share of samples whose every demanded attribute the judge reads right, and its mean probability.

    The probability is the product over the demanded attributes. ``top`` adds top-k accuracies, such as [5]:
    every demanded attribute among the judge's k likeliest values. Source: TR0N's average probability and
    LACE's accuracy, with a judge that did not guide.
    """

    judge: str
    top: tuple[Annotated[int, Field(ge=2)], ...] = ()

    later_fields: ClassVar[tuple[str, ...]] = ("top",)

    @property
    def conditions(self) -> tuple[ConditionKind, ...]:
        return ("class",)

    def check_judge(self, judge: object) -> str | None:
        return lacks(judge, "class-accuracy", "logits")

    def compute(self, evidence: Evidence) -> MetricResult:
        readout = evidence.readouts[self.judge]
        targets = _demanded(evidence.conditions, readout, self.judge)
        correct = np.logical_and.reduce(list(_correct(readout, targets).values()))
        rows = np.arange(len(correct))
        log_probability = sum(
            scipy.special.log_softmax(readout.logits[name].astype(np.float64), axis=1)[rows, target]
            for name, target in targets.items()
        )
        probability = np.exp(log_probability)
        chance = 1 / math.prod(len(readout.classes[name]) for name in targets)
        details = {"chance": chance, "attributes": list(targets)}
        values: list[tuple[str, str, np.ndarray]] = [
            ("class-accuracy", "Class accuracy", correct),
            ("target-probability", "Target probability", probability),
        ]
        for k in self.top:
            self._check_top(k, readout, targets)
            among = [in_top(readout.logits[name], target, k) for name, target in targets.items()]
            values.append(
                (f"class-accuracy-top{k}", f"Class accuracy, top {k}", np.logical_and.reduce(among))
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
        columns = {
            name: each if each.dtype == np.bool_ else each.astype(np.float32) for name, _, each in values
        }
        return MetricResult(scores=scores, per_sample=columns)

    def _check_top(self, k: int, readout: Readout, targets: Iterable[str]) -> None:
        for name in targets:
            if k >= len(readout.classes[name]):
                raise MetricError(
                    f"class-accuracy: top {k} of the {len(readout.classes[name])} values of '{name}' is "
                    "always right. Lower top."
                )


@dataclass(frozen=True, kw_only=True)
class AttributeAccuracy:
    """Share of samples whose attributes the judge reads as demanded: each, all, and shape and color together.

    ``attribute-accuracy`` is the mean over attributes; ``all-attributes-accuracy`` asks for every one.
    """

    judge: str

    @property
    def conditions(self) -> tuple[ConditionKind, ...]:
        return ("class", "text", "image")

    def check_judge(self, judge: object) -> str | None:
        return lacks(judge, "attribute-accuracy", "logits")

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
