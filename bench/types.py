"""Frozen types that the rooms share. Shape suffixes: N samples, C channels, H and W pixels, D latent."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

import numpy as np

ConditionKind = Literal["class", "text", "image", "interpolated"]
KINDS: tuple[ConditionKind, ...] = get_args(ConditionKind)
Better = Literal["higher", "lower", "none"]


@dataclass(frozen=True, kw_only=True)
class Condition:
    """What one sample is asked to show.

    ``labels`` maps attribute names to the values that the condition demands (``{"digit": "3"}``); it is
    empty where no ground truth is known, as for real captions. ``avoid`` maps names to values that must not
    be shown. ``text`` is untrusted data.

    An "image" condition shows a reference: ``picture`` gives it as uint8 (3, H, W), RGB. An "interpolated"
    one lies between two others: ``between`` them, ``share`` of the way from the first to the second.
    ``origin`` says by content what the other fields do not: which picture, between what.
    """

    id: str
    kind: ConditionKind
    text: str | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    avoid: Mapping[str, str] = field(default_factory=dict)
    origin: str | None = None
    picture: Callable[[], np.ndarray] | None = field(default=None, compare=False, repr=False)
    between: tuple[Condition, Condition] | None = field(default=None, compare=False, repr=False)
    share: float | None = field(default=None, compare=False)


@dataclass(frozen=True, kw_only=True)
class Score:
    """One number of one cell.

    ``step`` is the refinement step for a point of a quality-versus-steps curve, None for the final
    samples. ``judge`` names the network that scored (None where none did).

    ``interval`` is the 95 % confidence interval (low, high), in the score's own unit, and
    ``interval_method`` says in words how it was found; None where there is none, and then the text says why
    or is empty. It covers what the score estimates, not the estimate: that of a biased score, such as FID at
    small n, may lie beside ``value``.

    ``protocol`` is the hash of the evaluation protocol, judge and reference images (:mod:`bench.protocols`),
    set when the score is recorded: scores of different hashes are different quantities. "" without a judge.
    """

    metric: str
    title: str
    value: float
    unit: str = ""
    better: Better = "higher"
    n: int
    judge: str | None = None
    version: int = 1
    step: int | None = None
    interval: tuple[float, float] | None = None
    interval_method: str = ""
    protocol: str = ""
    details: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.interval is not None:
            low, high = self.interval
            if not (math.isfinite(low) and math.isfinite(high) and low <= high):
                raise ValueError(
                    f"interval of '{self.metric}' must be finite, low first, got {self.interval}"
                )


@dataclass(frozen=True, kw_only=True)
class Readout:
    """What a judge saw in N images, as float32 arrays.

    ``features`` (N, F) feed distribution metrics; ``logits`` maps a classifier head to (N, K), with
    ``classes`` naming the K values; ``image_embedding`` and ``text_embedding`` (N, E) have unit norm.
    ``reference_embedding`` (N, E), of unit norm, is that of the picture that an image condition shows.
    ``view_embedding`` (N, E) is the mean of the unit embeddings of an image's augmented views, so that its
    product with a text's is the mean cosine. ``pixels`` are uint8 (N, 3, H, W), and ``labels`` maps an
    attribute to codes of what the images are to show or are known to show, int64 (N,).

    ``about`` says in plain data what the judge is: "extractor" (whose features they are, where a distance on
    them must say so), and what else a score needs to be understood. Fields that a judge does not have are
    None or empty.
    """

    features: np.ndarray | None = None
    logits: Mapping[str, np.ndarray] = field(default_factory=dict)
    classes: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    image_embedding: np.ndarray | None = None
    text_embedding: np.ndarray | None = None
    view_embedding: np.ndarray | None = None
    reference_embedding: np.ndarray | None = None
    pixels: np.ndarray | None = None
    labels: Mapping[str, np.ndarray] = field(default_factory=dict)
    about: Mapping[str, Any] = field(default_factory=dict)

    @property
    def extractor(self) -> str:
        """The name of the network whose features these are; empty where the judge does not say."""
        return str(self.about.get("extractor", ""))


@dataclass(frozen=True, kw_only=True)
class Timing:
    """Wall-clock of one cell's sampling, device synchronised, warm-up excluded.

    ``phase_s`` maps context / translate / refine / decode / score to seconds in total; ``batch_s`` holds
    every raw per-batch value (sampling phases only). Evaluations count single samples, not batches:
    ``generator_forwards``, ``generator_backwards``, ``auxiliary_forwards`` (views), ``auxiliary_backwards``;
    with a diffusion model ``denoiser_forwards`` and ``denoiser_backwards``, also those inside of G.
    ``setup_s`` and ``setup_evaluations`` are what was spent once, before the first sample.
    """

    num_samples: int
    batch_size: int
    phase_s: Mapping[str, float]
    batch_s: tuple[float, ...]
    batch_n: tuple[int, ...]
    evaluations: Mapping[str, int]
    peak_memory_gib: float
    setup_s: Mapping[str, float] = field(default_factory=dict)
    setup_evaluations: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """All that a metric may see: conditions in sample order, readouts of samples and reference by judge."""

    conditions: tuple[Condition, ...]
    readouts: Mapping[str, Readout]
    reference: Mapping[str, Readout]
    timing: Timing | None = None


@dataclass(frozen=True, kw_only=True)
class MetricResult:
    """Scores of a cell plus per-sample columns, each (N,), for the Parquet table."""

    scores: tuple[Score, ...]
    per_sample: Mapping[str, np.ndarray] = field(default_factory=dict)
