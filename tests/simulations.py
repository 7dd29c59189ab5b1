"""Simulated data with known truth, and trials on it: features of known moments, hits of known probability,
paired variants. A trial draws once and says whether an interval held the truth, or whether equals were told
apart; ``share`` repeats it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd

from bench.metrics.frechet import Moments, frechet_distance
from bench.statistics.design import Design
from bench.statistics.frechet import frechet_bootstrap, frechet_left_out
from bench.statistics.intervals import with_left_out
from bench.statistics.means import mean_interval
from bench.statistics.paired import Side, compare_paired
from bench.types import Condition, Score


def conditions(n: int, each: int = 1, kind: str = "text") -> list[Condition]:
    """``n`` samples over n / each conditions in turn, as a cell has them."""
    return [Condition(id=f"{kind}:{i % (n // each)}", kind=kind) for i in range(n)]


@dataclass(frozen=True)
class Features:
    """``draw(rng, n)`` gives (n, dim) with the moments ``model``; their distance to ``reference`` is
    ``truth``."""

    draw: Callable[[np.random.Generator, int], np.ndarray]
    reference: Moments
    model: Moments

    @property
    def truth(self) -> float:
        a, b = self.model, self.reference
        return frechet_distance(a.mean, a.covariance, b.mean, b.covariance)

    def in_classes(self, num: int, seed: int = 8) -> Features:
        """The same with ``num`` classes, which rows belong to in turn, of equal shares and means apart by
        half of the standard deviation; those of the reference are the same."""
        offset = np.random.default_rng(seed).normal(size=(num, len(self.model.mean)))
        offset *= 0.5 * np.sqrt(np.diag(self.model.covariance)) / offset.std(0)
        offset -= offset.mean(0)
        between = offset.T @ offset / num

        def draw(draws: np.random.Generator, n: int) -> np.ndarray:
            return self.draw(draws, n) + offset[np.arange(n) % num]

        def wider(moments: Moments) -> Moments:
            return Moments(moments.n, moments.mean, (moments.covariance + between) * (moments.n - 1))

        return Features(draw, wider(self.reference), wider(self.model))

    def by_prompt(self, each: int, alike: float) -> Features:
        """The same with prompts of ``each`` rows, which share ``alike`` of their variance (of Gaussian
        features, whose moments stay)."""

        def draw(draws: np.random.Generator, n: int) -> np.ndarray:
            prompt = np.tile(self.draw(draws, n // each), (each, 1)) - self.model.mean
            own = self.draw(draws, n) - self.model.mean
            return self.model.mean + np.sqrt(alike) * prompt + np.sqrt(1 - alike) * own

        return Features(draw, self.reference, self.model)


def features(kind: str, dim: int, seed: int = 7) -> Features:
    """Features whose covariance has a spectrum that falls like 1 / k, as those of deep networks do, and
    differs from the reference's in scale and direction.

    "gaussian"; "heavy" with scales of their own per sample (excess kurtosis 0.75); "rectified" like a ReLU
    layer: sparse and not negative; its truth is measured on 400,000 samples.
    """
    rng = np.random.default_rng(seed)
    basis = np.linalg.qr(rng.normal(size=(dim, dim)))[0]
    scale = 1 / np.arange(1, dim + 1)
    covariance = (basis * (0.3 * dim * scale / scale.sum())) @ basis.T
    values, vectors = np.linalg.eigh(covariance)
    root = (vectors * np.sqrt(values)) @ vectors.T
    if kind == "rectified":
        mixing = rng.normal(size=(dim, dim)) / np.sqrt(dim)

        def rectified(draws: np.random.Generator, n: int, shift: float = 0.1) -> np.ndarray:
            return np.maximum(draws.normal(size=(n, dim)) @ mixing.T + shift, 0)

        reference = Moments.of(rectified(rng, 400_000, 0.0))
        return Features(rectified, reference, Moments.of(rectified(rng, 400_000)))
    factor = root @ (np.eye(dim) + 0.3 * np.linalg.qr(rng.normal(size=(dim, dim)))[0])
    mean = 0.1 * rng.normal(size=dim)

    def draw(draws: np.random.Generator, n: int) -> np.ndarray:
        x = draws.normal(size=(n, dim)) @ factor.T
        if kind == "heavy":
            x *= np.sqrt(draws.gamma(4, 0.25, size=(n, 1)))
        return mean + x

    n = 10**6  # a covariance is scatter / (n - 1)
    reference = Moments(n, np.zeros(dim), covariance * (n - 1))
    model = Moments(n, mean, factor @ factor.T * (n - 1))
    return Features(draw, reference, model)


def hits(rng: np.random.Generator, n: int, each: int, share: float, spread: float) -> np.ndarray:
    """Whether each of n samples is right, over n / each prompts in turn whose own shares spread by a beta
    distribution about ``share``; ``spread`` 0 means that all prompts are equally hard."""
    prompts = n // each
    if spread:
        weight = 1 / spread
        shares = rng.beta(share * weight, (1 - share) * weight, size=prompts)
    else:
        shares = np.full(prompts, share)
    return rng.random(n) < np.tile(shares, each)


def cosines(rng: np.random.Generator, n: int, each: int, mean: float = 0.3) -> np.ndarray:
    """CLIP cosines: skewed to low values, as prompts differ and some samples miss altogether."""
    prompt = np.tile(0.06 * rng.normal(size=n // each), each)
    return mean + prompt - 0.08 * (rng.exponential(size=n) - 1)


Trial = Callable[[np.random.Generator], bool]


def share(trial: Trial, repetitions: int, seed: int = 0) -> float:
    """How often a trial came out True."""
    rng = np.random.default_rng(seed)
    return sum(trial(rng) for _ in range(repetitions)) / repetitions


def frechet_trial(
    kind: str, dim: int, n: int, bootstrap: int = 0, *, classes: int = 0, each: int = 1, alike: float = 0.0
) -> Trial:
    """Whether the interval of a distance holds it; with ``bootstrap`` replicates the basic bootstrap's.

    Samples are of ``classes`` in equal shares, or ``each`` of a prompt, ``alike`` as ``by_prompt`` says.
    """
    world, design = features(kind, dim), Design.of(conditions(n, each))
    if classes:
        world, design = world.in_classes(classes), Design.of(conditions(n, n // classes, "class"))
    if each > 1:
        world = world.by_prompt(each, alike)
    truth = world.truth

    def trial(rng: np.random.Generator) -> bool:
        x = world.draw(rng, n)
        found = frechet_left_out(x, world.reference, design)
        if bootstrap:
            values = np.array(list(frechet_bootstrap(x, world.reference, design, bootstrap)))
            low, high = 2 * found.value - np.quantile(values, [0.975, 0.025])
        else:
            interval = found.interval(design.label)
            low, high = interval.low, interval.high
        return bool(low <= truth <= high)

    return trial


def accuracy_trial(n: int, each: int, value: float, spread: float, kind: str = "text") -> Trial:
    design = Design.of(conditions(n, each, kind))

    def trial(rng: np.random.Generator) -> bool:
        interval = mean_interval(hits(rng, n, each, value, spread), design)
        return interval.low <= value <= interval.high

    return trial


def cosine_trial(n: int, each: int) -> Trial:
    design = Design.of(conditions(n, each))

    def trial(rng: np.random.Generator) -> bool:
        interval = mean_interval(cosines(rng, n, each), design)
        return interval.low <= 0.3 <= interval.high

    return trial


def side(name: str, n: int, each: int, column: np.ndarray | None = None, score: Score | None = None) -> Side:
    asked = conditions(n, each)
    table = pd.DataFrame(
        {
            "condition_id": [condition.id for condition in asked],
            "kind": "text",
            "replicate": np.arange(n) // (n // each),
            "seed": np.arange(n),
            "failed_step": -1,
        }
    )
    if column is not None:
        table["clip-cosine"] = column
        score = Score(metric="clip-cosine", title="CLIP cosine", value=float(column.mean()), n=n)
    return Side(name=name, scores=(score,), samples=table)


def paired_trial(n: int, each: int, gain: float, *, rejects: bool) -> Trial:
    """Whether the interval of a paired difference holds it, or (``rejects``) whether 0 is ruled out.

    Both variants share what prompts and seeds bring; each adds noise of its own.
    """

    def trial(rng: np.random.Generator) -> bool:
        shared = cosines(rng, n, each)
        prompt = np.tile(0.02 * rng.normal(size=n // each), each)  # the gain differs by prompt
        a = side("a", n, each, shared + 0.03 * rng.normal(size=n))
        b = side("b", n, each, shared + gain + prompt + 0.05 * (rng.exponential(size=n) - 1))
        (found,) = compare_paired(a, b)
        return found.distinguishable if rejects else found.interval[0] <= gain <= found.interval[1]

    return trial


def hits_trial(n: int, each: int) -> Trial:
    """Whether a paired comparison of two equally accurate variants says that they differ."""

    def trial(rng: np.random.Generator) -> bool:
        shares = np.tile(rng.beta(4, 2, size=n // each), each)
        sides = [side(name, n, each, rng.random(n) < shares) for name in ("a", "b")]
        return compare_paired(*sides)[0].distinguishable

    return trial


def frechet_pair_trial(kind: str, dim: int, n: int, *, shared: float) -> Trial:
    """Whether two variants of equal distance are told apart; ``shared`` of a sample's variance is common."""
    world, design = features(kind, dim), Design.of(conditions(n))
    centre = world.draw(np.random.default_rng(1), 200_000).mean(0)

    def trial(rng: np.random.Generator) -> bool:
        common = world.draw(rng, n) - centre
        sides = []
        for name in ("a", "b"):
            own = world.draw(rng, n) - centre
            x = centre + np.sqrt(shared) * common + np.sqrt(1 - shared) * own
            found = frechet_left_out(x, world.reference, design)
            score = Score(metric="fid", title="FID", value=found.value, better="lower", n=n)
            sides.append(side(name, n, 1, score=with_left_out(score, found, design, keep=True)))
        return compare_paired(*sides)[0].distinguishable

    return trial
