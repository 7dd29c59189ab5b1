"""The judge's view beside the guide's, sample by sample.

What is optimised stops being a measure: the guide's score of a sample rises as long as it is refined, also
where the picture no longer gets better. The gap, guide less judge, is what refinement gained with the guide
alone. Networks have scales of their own, so one gap means little; that it widens from one variant to another
means a lot.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from bench.statistics.design import Design
from bench.statistics.means import mean_interval
from bench.types import MetricResult, Score

PREFIX = "goodhart/"


def gaps(
    guides: Mapping[str, np.ndarray],
    judges: Mapping[str, np.ndarray],
    titles: Mapping[str, str],
    design: Design,
    ok_N: np.ndarray,
    *,
    guide: str,
    judge: str,
) -> MetricResult:
    """The gap of every metric that both gave by sample, (N,) each; NaN where a sample failed (``ok_N``).

    Scores hold its mean, its interval, and in the details how far guide and judge agree on which samples are
    good (Spearman's rank correlation, None where one of them calls all alike). ``design`` is of all samples.
    """
    scores: list[Score] = []
    columns: dict[str, np.ndarray] = {}
    for metric in guides.keys() & judges.keys():
        ours, theirs = (np.asarray(values, np.float64) for values in (guides[metric], judges[metric]))
        if ours.ndim != 1 or ours.shape != theirs.shape:
            continue
        gap = np.where(ok_N, ours - theirs, np.nan)
        rows = np.flatnonzero(np.isfinite(gap))
        if not len(rows):
            continue
        found = mean_interval(gap[rows], design.take(rows))
        columns[PREFIX + metric] = gap.astype(np.float32)
        scores.append(
            Score(
                metric=PREFIX + metric,
                title=f"Goodhart gap, {titles.get(metric, metric)}",
                value=float(gap[rows].mean()),
                better="none",
                n=len(rows),
                judge=judge,
                interval=None if found is None else (found.low, found.high),
                interval_method="" if found is None else found.method,
                details={"guide": guide, "rank_correlation": _rank_correlation(ours[rows], theirs[rows])},
            )
        )
    scores.sort(key=lambda score: score.metric)
    return MetricResult(scores=tuple(scores), per_sample=dict(sorted(columns.items())))


def _rank_correlation(a: np.ndarray, b: np.ndarray) -> float | None:
    from scipy.stats import rankdata

    ranks = [rankdata(values) for values in (a, b)]
    if any(values.std() == 0 for values in ranks):
        return None
    return float(np.corrcoef(*ranks)[0, 1])
