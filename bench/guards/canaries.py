"""Metrics tried on images whose order is known: whatever does not move as it must does not measure.

Real images are split in two halves; one is the reference, the other is scored as it is, negated, with prompts
of other images, and with half of the classes. Made worse, images are compared with themselves as they were,
so that chance has no part in the order (Heusel et al. 2017, figure 3). Each metric is computed as in a run.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np

from bench.errors import BenchError
from bench.guards.pictures import LADDERS, negated
from bench.judges.base import Judge
from bench.suite import Named
from bench.types import Condition, Evidence, Readout, Score
from bench.worlds.base import ImageSet

DISTANCES = ("fid", "fd", "kid", "cmmd")  # 0 between equal sets, and grow
MATCHES = (
    "class-accuracy", "target-probability", "shape-and-color-accuracy", "attribute-accuracy",
    "all-attributes-accuracy", "clip-cosine", "clip-score", "aug-clip", "r-precision",
)  # fmt: skip
ACCURACIES = ("class-accuracy", "all-attributes-accuracy", "shape-and-color-accuracy")
SHARES = (*ACCURACIES, "attribute-accuracy")
SPREADS = ("recall", "coverage")
CLIPS = ("clip-cosine", "clip-score", "aug-clip")
UNMOVED = 0.98  # a judge that reads so many right at the foot of a ladder is too robust to be moved by it
SLACK = 0.02  # of a metric's whole movement, that one step may go the wrong way by chance

Status = Literal["passed", "failed", "skipped"]


@dataclass(frozen=True, kw_only=True)
class Finding:
    """What became of one check: on what, whether it passed, and the numbers."""

    check: str
    subject: str
    status: Status
    text: str
    values: tuple[float, ...] = field(default=())


@dataclass(frozen=True)
class Trial:
    """A judge's two halves of a data set: images and what each shows. ``kind`` says what conditions are."""

    data: str
    images: np.ndarray
    reference: np.ndarray
    captions: tuple[str, ...]
    labels: tuple[Mapping[str, str], ...]

    @classmethod
    def of(cls, data: str, images: ImageSet, num: int) -> Trial:
        """At most ``num`` images in each half, in turn, so that both hold every class alike."""
        total = min(2 * num, len(images) // 2 * 2)
        pixels = images.images(range(total))
        return cls(
            data=data,
            images=pixels[::2],
            reference=pixels[1::2],
            captions=tuple(images.captions[i][0] if images.captions[i] else "" for i in range(0, total, 2)),
            labels=tuple(dict(images.attributes[i]) for i in range(0, total, 2)),
        )

    def conditions(self, kind: str, heads: Sequence[str]) -> tuple[Condition, ...]:
        """What each image shows, as a condition of a class (of the judge's attributes) or as its caption."""
        made = []
        for caption, labels in zip(self.captions, self.labels):
            own = {head: labels[head] for head in heads if head in labels}
            name = ",".join(f"{head}={value}" for head, value in own.items())
            text = caption if kind == "text" else name
            made.append(Condition(id=f"{kind}:{text}", kind=kind, text=text, labels=own))  # type: ignore[arg-type]
        return tuple(made)


class Canary:
    """The checks of one judge's metrics on one data set. Judges see each set of images once."""

    def __init__(self, trial: Trial, judge_name: str, judge: Judge, metrics: Mapping[str, Named[Any]]):
        self.trial, self.name, self.judge, self.metrics = trial, judge_name, judge, metrics
        self.reference = judge.readout(trial.reference)
        plain = judge.readout(trial.images)
        heads = [head for head in plain.classes if all(head in labels for labels in trial.labels)]
        reads_text = plain.image_embedding is not None and all(trial.captions)
        self.kind = "text" if reads_text or not heads else "class"
        self.conditions = trial.conditions(self.kind, heads)
        self.plain = judge.readout(trial.images, self.conditions)

    def findings(self) -> Iterator[Finding]:
        clean = self._scores(self.plain, self.conditions)
        same = self._scores(self.plain, self.conditions, reference=self.plain)
        ladders = {name: [same, *self._rungs(change, steps)] for name, (change, steps) in LADDERS.items()}
        yield from self._identity(same, ladders)
        for name, rungs in ladders.items():
            yield from self._ladder(name, rungs)
        yield from self._negated(clean)
        yield from self._shuffled(clean)
        yield from self._half(clean)

    def _rungs(
        self, change: Callable[[np.ndarray, float], np.ndarray], steps: Sequence[float]
    ) -> Iterator[dict[str, Score]]:
        """Scores of images made worse, against the same images as they were."""
        for step in steps:
            readout = self.judge.readout(change(self.trial.images, step), self.conditions)
            yield self._scores(readout, self.conditions, reference=self.plain)

    def _scores(
        self, readout: Readout, conditions: Sequence[Condition], reference: Readout | None = None
    ) -> dict[str, Score]:
        """Name of each metric's score → the score; what cannot be computed is absent."""
        seen = Evidence(
            conditions=tuple(conditions),
            readouts={self.name: readout},
            reference={self.name: self.reference if reference is None else reference},
        )
        found: dict[str, Score] = {}
        for name, metric in self.metrics.items():
            config = metric.config
            if hasattr(config, "allow_small_n"):
                config = replace(config, allow_small_n=True)
            if self.kind not in config.conditions:
                continue
            try:
                found |= {f"{name}: {score.title}": score for score in config.compute(seen).scores}
            except BenchError:
                continue
        return found

    def _finding(self, check: str, name: str, passed: bool, text: str, *values: float) -> Finding:
        subject = f"{name} ({self.name}, {self.trial.data})"
        status: Status = "passed" if passed else "failed"
        return Finding(check=check, subject=subject, status=status, text=text, values=values)

    def _identity(
        self, same: Mapping[str, Score], ladders: Mapping[str, list[dict[str, Score]]]
    ) -> Iterator[Finding]:
        for name, score in same.items():
            if not is_of(score, DISTANCES):
                continue
            scale = max(abs(rungs[-1][name].value) for rungs in ladders.values() if name in rungs[-1])
            # KID is unbiased, so that of equal sets lies a little below 0.
            allowed = (0.1 if is_of(score, ("kid",)) else 1e-6) * scale
            passed = abs(score.value) <= allowed
            yield self._finding(
                "equal sets give 0", name, passed, f"{score.value:.3g}, allowed {allowed:.3g}", score.value
            )

    def _ladder(self, ladder: str, rungs: Sequence[Mapping[str, Score]]) -> Iterator[Finding]:
        for name, score in rungs[0].items():
            if not is_of(score, DISTANCES + MATCHES) or not all(name in rung for rung in rungs):
                continue
            values = [rung[name].value for rung in rungs]
            passed = falls(values, score.better)
            finding = self._finding(f"{ladder} makes it worse", name, passed, _arrow(values), *values)
            if not passed and is_of(score, SHARES) and min(values) >= UNMOVED:
                finding = replace(
                    finding, status="skipped", text=f"{finding.text}: nearly all right throughout"
                )
            yield finding

    def _negated(self, clean: Mapping[str, Score]) -> Iterator[Finding]:
        names = [name for name, score in clean.items() if is_of(score, CLIPS)]
        if not names:
            return
        scores = self._scores(
            self.judge.readout(negated(self.trial.images), self.conditions), self.conditions
        )
        for name in names:
            values = clean[name].value, scores[name].value
            passed = values[1] < values[0]
            yield self._finding("negated images score lower", name, passed, _arrow(values), *values)

    def _shuffled(self, clean: Mapping[str, Score]) -> Iterator[Finding]:
        """Prompts of other images: matches drop, accuracies to what chance gives."""
        order = np.random.default_rng(0).permutation(len(self.conditions))
        shuffled = [self.conditions[i] for i in order]
        texts = self.plain.text_embedding
        readout = replace(self.plain, text_embedding=None if texts is None else texts[order])
        scores = self._scores(readout, shuffled)
        chance = float(np.mean([a.labels == b.labels for a, b in zip(self.conditions, shuffled)]))
        for name, score in clean.items():
            if name not in scores or not is_of(score, MATCHES):
                continue
            values = score.value, scores[name].value
            passed, text = values[1] < values[0], _arrow(values)
            if is_of(score, ACCURACIES) and "color" not in score.metric:
                allowed = 4 * np.sqrt(max(chance, 1 / score.n) / score.n)
                passed = passed and abs(values[1] - chance) <= allowed
                text += f", chance {chance:.3g} ± {allowed:.2g}"
            yield self._finding("shuffled prompts score lower", name, bool(passed), text, *values)

    def _half(self, clean: Mapping[str, Score]) -> Iterator[Finding]:
        """Half of the classes is missing: coverage of the reference falls, at the same number of samples."""
        names = [name for name, score in clean.items() if is_of(score, SPREADS)]
        attributes = list(self.conditions[0].labels) if self.conditions else []
        if not names or not attributes:
            return
        columns = {name: np.array([c.labels[name] for c in self.conditions]) for name in attributes}
        shown = max(columns.values(), key=lambda column: len(np.unique(column)))
        kept = np.unique(shown)[::2]
        part = np.flatnonzero(np.isin(shown, kept))
        same = np.sort(np.random.default_rng(0).permutation(len(shown))[: len(part)])
        whole, half = (
            self._scores(_rows(self.plain, rows), [self.conditions[i] for i in rows]) for rows in (same, part)
        )
        for name in names:
            if name in whole and name in half:
                values = whole[name].value, half[name].value
                passed = values[1] < values[0]
                yield self._finding("half of the classes cover less", name, passed, _arrow(values), *values)


def is_of(score: Score, kinds: Sequence[str]) -> bool:
    """Whether a score is of one of these kinds: by its metric's name before what tells it apart."""
    name, _, rest = score.metric.split("@")[0].partition("/")
    # Of a single attribute nothing is promised: where the background is, blur does not hide.
    return name in kinds and not (rest and name == "attribute-accuracy")


def falls(values: Sequence[float], better: str) -> bool:
    """Whether values get worse step by step, but for a little chance, and are worse in the end."""
    signed = np.array(values) * (1 if better == "lower" else -1)
    if not np.isfinite(signed).all():
        return False
    slack = SLACK * (signed.max() - signed.min())
    return bool(signed[-1] > signed[0] and (np.diff(signed) >= -slack).all())


def _arrow(values: Sequence[float]) -> str:
    return " → ".join(f"{value:.4g}" for value in values)


def _rows(readout: Readout, rows: np.ndarray) -> Readout:
    from bench.statistics.intervals import taken

    seen = Evidence(conditions=(), readouts={"": readout}, reference={})
    return taken(seen, rows).readouts[""]


def each_judge(
    trials: Mapping[str, Trial],
    judges: Mapping[str, Callable[[], Judge]],
    metrics: Mapping[str, Named[Any]],
) -> Iterator[Finding]:
    """The canaries of every judge on every data set that one of its metrics is for."""
    for judge, load in judges.items():
        own = {name: item for name, item in metrics.items() if item.config.judge == judge}
        for data, trial in trials.items():
            fitting = {name: item for name, item in own.items() if item.data is None or data in item.data}
            if not fitting:
                continue
            try:
                yield from Canary(trial, judge, load(), fitting).findings()
            except BenchError as error:
                subject = f"{judge} on {data}"
                yield Finding(check="canaries", subject=subject, status="skipped", text=str(error))
