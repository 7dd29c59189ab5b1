"""Which interval each score of a metric gets.

In this order: the metric's own, where its scores have one; that of a mean, where the metric gives per-sample
values under the score's name; from groups of samples left out, by the metric's own ``left_out(evidence,
design)`` where it has one, else by computing the metric again on the samples that stay. A metric whose
configuration says ``resampled = False`` is not computed again.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, is_dataclass, replace
from typing import Any

import numpy as np

from bench.errors import MetricError
from bench.statistics.design import Design
from bench.statistics.leave_out import LeftOut, leave_out
from bench.statistics.means import mean_interval
from bench.statistics.paired import JACKKNIFE
from bench.types import Evidence, MetricResult, Readout, Score

HEAVY, FEW_GROUPS = 2e9, 10  # multiplications above which a metric is computed again 10 times, not 40
CURVE_FEATURES = 512  # points of a curve have an interval by left-out groups up to this many features


def with_intervals(
    config: Any, evidence: Evidence, result: MetricResult, design: Design, *, curve: bool = False
) -> tuple[Score, ...]:
    """The scores of a metric's result with their intervals; ``design`` is that of the evidence's samples.

    Points of a curve keep no values of left-out groups; of these intervals they have only those of a metric's
    own ``left_out``, and none in large feature spaces.
    """
    scores = list(result.scores)
    rest = []
    for i, score in enumerate(scores):
        values = result.per_sample.get(score.metric)
        if score.interval is not None or score.interval_method:
            continue
        if values is not None and _is_mean(score, values, design):
            found = mean_interval(values, design)
            if found is not None:
                scores[i] = replace(score, interval=(found.low, found.high), interval_method=found.method)
        else:
            rest.append(i)
    if not rest or design.num_units < 4:
        return tuple(scores)
    if curve and _num_features(evidence) > CURVE_FEATURES:
        for i in rest:
            scores[i] = replace(scores[i], interval_method=f"none: a curve above {CURVE_FEATURES} features")
        return tuple(scores)
    own = getattr(config, "left_out", None)
    if own is None and _work(evidence) > HEAVY:
        design = design.coarser(FEW_GROUPS)
    left_out: Mapping[str, LeftOut] = {}
    if own is not None:
        left_out = own(evidence, design)
    elif not curve and getattr(config, "resampled", True):
        left_out = _computed_again(config, evidence, design, [scores[i] for i in rest])
    for i in rest:
        if scores[i].metric in left_out:
            scores[i] = with_left_out(scores[i], left_out[scores[i].metric], design, keep=not curve)
    return tuple(scores)


def _work(evidence: Evidence) -> float:
    """Multiplications that comparing all samples with each other and the reference takes."""
    total = 0.0
    for judge, readout in evidence.readouts.items():
        if readout.features is not None:
            n, dim = readout.features.shape
            seen = evidence.reference.get(judge)
            m = len(seen.features) if seen is not None and seen.features is not None else 0
            total += float(n) * (n + m) * dim
    return total


def _is_mean(score: Score, values: np.ndarray, design: Design) -> bool:
    """Whether a score is the mean of these per-sample values, of every sample."""
    if np.ndim(values) != 1 or len(values) != len(design.unit_N) or not np.isfinite(values).all():
        return False
    return bool(np.isclose(np.mean(values, dtype=np.float64), score.value, rtol=1e-5, atol=1e-7))


def _num_features(evidence: Evidence) -> int:
    features = [readout.features for readout in evidence.readouts.values()]
    return max((item.shape[1] for item in features if item is not None), default=0)


def _computed_again(
    config: Any, evidence: Evidence, design: Design, scores: list[Score]
) -> Mapping[str, LeftOut]:
    """The metric computed on what stays of each group left out."""
    if is_dataclass(config) and "allow_small_n" in {item.name for item in fields(config)}:
        config = replace(config, allow_small_n=True)  # type: ignore[type-var]

    def statistic(rows: np.ndarray) -> dict[str, float]:
        try:
            return {s.metric: s.value for s in config.compute(taken(evidence, rows)).scores}
        except MetricError:  # too few samples are left
            return {}

    values = leave_out(statistic, design)
    return {
        score.metric: LeftOut(score.value, values[score.metric], design.sizes_K)
        for score in scores
        if score.metric in values and np.isfinite(score.value)
    }


def taken(evidence: Evidence, rows: np.ndarray) -> Evidence:
    """Evidence of some of the samples, against the same reference."""

    def of(readout: Readout) -> Readout:
        def some(values: np.ndarray | None) -> np.ndarray | None:
            return None if values is None else values[rows]

        return replace(
            readout,
            features=some(readout.features),
            logits={head: values[rows] for head, values in readout.logits.items()},
            image_embedding=some(readout.image_embedding),
            text_embedding=some(readout.text_embedding),
            view_embedding=some(readout.view_embedding),
            reference_embedding=some(readout.reference_embedding),
            pixels=some(readout.pixels),
            labels={name: values[rows] for name, values in readout.labels.items()},
        )

    return replace(
        evidence,
        conditions=tuple(evidence.conditions[i] for i in rows) if evidence.conditions else (),
        readouts={judge: of(readout) for judge, readout in evidence.readouts.items()},
    )


def with_left_out(score: Score, found: LeftOut, design: Design, *, keep: bool = True) -> Score:
    """The score with the interval and bias found; with ``keep`` also with the values, for comparisons."""
    used = found.values_K[found.sizes_K > 0]
    if len(used) < 4 or not np.isfinite(used).all():
        return score
    interval = found.interval(design.label)
    details = dict(score.details)
    if found.bias is not None:
        details["bias"] = found.bias
    if keep:
        details[JACKKNIFE] = {
            "values": found.values_K.tolist(),
            "sizes": [int(size) for size in found.sizes_K],
            "bias": found.bias,
            "digest": design.digest,
        }
        if found.pairs is not None and np.isfinite(found.pairs.values_P).all():
            details[JACKKNIFE]["pairs"] = {
                "groups": found.pairs.groups_P2.tolist(),
                "values": found.pairs.values_P.tolist(),
                "left": found.pairs.left_P3.tolist(),
                "excess": found.pairs.excess,
            }
    method, low, high = interval.method, interval.low, interval.high
    return replace(score, interval=(low, high), interval_method=method, details=details)
