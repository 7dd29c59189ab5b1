"""Inception Score: how sure a classifier is of each image, and how varied its answers are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import numpy as np
import scipy  # whose parts are loaded when first used
from pydantic import Field

from bench.errors import MetricError, nearest
from bench.metrics.sets import check_finite, lacks, need
from bench.types import KINDS, ConditionKind, Evidence, MetricResult, Readout, Score


def inception_scores(logits_NK: np.ndarray, splits: int, seed: int | None) -> np.ndarray:
    """exp(mean KL(p(·|x) ‖ mean p)) of each of ``splits`` parts of the rows, float64 (splits,).

    Rows are shuffled by ``seed`` as torch-fidelity shuffles them (None: as they come) and cut at
    floor(i N / splits). Between 1 and K; higher is better. Source: Salimans et al. 2016, arXiv:1606.03498.
    """
    rows = np.asarray(logits_NK, np.float64)
    if seed is not None:
        draws = np.random.RandomState(seed)
        rows = rows[draws.permutation(len(rows))]
    bounds = [i * len(rows) // splits for i in range(splits + 1)]
    scores = np.empty(splits)
    for i in range(splits):
        log_p = scipy.special.log_softmax(rows[bounds[i] : bounds[i + 1]], axis=1)
        log_marginal = scipy.special.logsumexp(log_p, axis=0) - np.log(len(log_p))
        scores[i] = np.exp((np.exp(log_p) * (log_p - log_marginal)).sum(1).mean())
    return scores


@dataclass(frozen=True, kw_only=True)
class InceptionScore:
    """Inception Score on ``splits`` parts: the mean, with the spread over parts in the details.

    The published convention is the Inception judge's 1,008-way logits without bias (its default). With a
    classifier judge it is a score of that classifier's classes; ``head`` names the one, where it has several.
    Biased at small n. Source: Salimans et al. 2016, arXiv:1606.03498; torch-fidelity's convention.
    """

    judge: str
    head: str | None = None
    splits: Annotated[int, Field(ge=1)] = 10
    seed: Annotated[int, Field(ge=0, lt=2**32)] | None = 2020

    @property
    def conditions(self) -> tuple[ConditionKind, ...]:
        return KINDS

    def check_judge(self, judge: object) -> str | None:
        return lacks(judge, "inception-score", "logits")

    def compute(self, evidence: Evidence) -> MetricResult:
        readout = evidence.readouts[self.judge]
        head = self._head(readout)
        logits = readout.logits[head]
        check_finite(logits, f"inception-score: logits '{head}'")
        need(len(logits), self.splits, "inception-score", "samples", "Lower splits.")
        values = inception_scores(logits, self.splits, self.seed)
        score = Score(
            metric="inception-score",
            title="Inception Score",
            value=float(values.mean()),
            n=len(logits),
            judge=self.judge,
            details={"std_over_splits": float(values.std()), "splits": self.splits, "head": head},
        )
        return MetricResult(scores=(score,))

    def _head(self, readout: Readout) -> str:
        heads = tuple(readout.logits)
        if self.head is None and len(heads) == 1:
            return heads[0]
        if self.head in heads:
            return self.head
        found = (
            f"no head '{self.head}'.{nearest(self.head, heads)}" if self.head else "several heads or none."
        )
        raise MetricError(
            f"inception-score: judge '{self.judge}' has {found} Set head to one of: "
            f"{', '.join(heads) or 'none'}."
        )
