"""The two sets of features that a distribution metric compares, checked, and its name by extractor."""

from __future__ import annotations

import re

import numpy as np

from bench.errors import MetricError
from bench.types import Evidence, Readout


def feature_sets(evidence: Evidence, judge: str, metric: str) -> tuple[np.ndarray, np.ndarray]:
    """Features of samples (N, F) and reference (M, F) as the judge stored them.

    Raises MetricError where the judge has none, the dimensions differ or a value is not finite.
    """
    samples, reference = evidence.readouts[judge].features, evidence.reference[judge].features
    if samples is None or reference is None:
        raise MetricError(
            f"{metric}: judge '{judge}' has no features. Use a classifier, CLIP, DINOv2 or Inception judge."
        )
    if samples.shape[1] != reference.shape[1]:
        raise MetricError(
            f"{metric}: samples have {samples.shape[1]} features, the reference {reference.shape[1]}. "
            "Build both with the same judge."
        )
    for name, features in (("samples", samples), ("reference images", reference)):
        check_finite(features, f"{metric}: features of {name}")
    return samples, reference


def check_finite(values: np.ndarray, what: str) -> None:
    """Raises MetricError naming the first row that holds NaN or an infinite value."""
    finite = np.isfinite(values).reshape(len(values), -1).all(1)
    if not finite.all():
        raise MetricError(f"{what}: row {int(np.argmin(finite))} is not finite; look at that image.")


def need(num: int, least: int, metric: str, what: str, remedy: str) -> None:
    """Raises MetricError where there are fewer than ``least`` of what a metric needs."""
    if num < least:
        raise MetricError(f"{metric}: {num} {what}, and it needs at least {least}. {remedy}")


def lacks(judge: object, metric: str, *fields: str) -> str | None:
    """Which fields of Readout a metric reads and a judge's configuration does not give, in words; None where
    it gives all, or does not say (``gives``)."""
    gives: tuple[str, ...] | None = getattr(judge, "gives", None)
    if gives is None or not (missing := [name for name in fields if name not in gives]):
        return None
    wanted = " and ".join(name.replace("_", " ") for name in missing)
    return f"{metric} reads {wanted}, which this judge does not give (it gives {', '.join(gives)})."


def by_extractor(metric: str, title: str, readout: Readout) -> tuple[str, str]:
    """Metric id and title that say whose features were compared: scores on other features never share a
    column. A judge that names no extractor leaves both as they are."""
    if not readout.extractor:
        return metric, title
    slug = re.sub(r"[^a-z0-9]+", "-", readout.extractor.lower()).strip("-")
    return f"{metric}/{slug}", f"{title} ({readout.extractor})"
