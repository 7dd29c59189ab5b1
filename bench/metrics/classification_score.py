"""Classification accuracy score: what a classifier learns from generated images, tested on real ones."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Annotated, ClassVar

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from bench.errors import MetricError
from bench.metrics.accuracy import in_top
from bench.metrics.sets import lacks, need
from bench.streams import hash64
from bench.types import ConditionKind, Evidence, MetricResult, Readout, Score


class SmallClassifier(nn.Module):
    """Four convolutions of stride 2 with group normalisation, mean over pixels, a linear layer per attribute.

    Uint8-scaled images (N, 3, H, W) in [-1, 1] → logits by attribute. About 100,000 weights at ``width`` 24.
    """

    def __init__(self, heads: Mapping[str, int], width: int):
        super().__init__()
        widths = [3, width, 2 * width, 4 * width, 4 * width]
        layers: list[nn.Module] = []
        for before, after in itertools.pairwise(widths):
            layers += [nn.Conv2d(before, after, 3, 2, 1), nn.GroupNorm(4, after), nn.ReLU()]
        self.body = nn.Sequential(*layers)
        self.heads = nn.ModuleDict({f"head:{name}": nn.Linear(widths[-1], k) for name, k in heads.items()})

    def forward(self, images_NCHW: Tensor) -> dict[str, Tensor]:
        features = self.body(images_NCHW).mean((2, 3))
        return {name.removeprefix("head:"): head(features) for name, head in self.heads.items()}


@dataclass(frozen=True)
class Budget:
    """How a classifier is trained: Adam, ``learning_rate`` falling to 0 as a cosine."""

    steps: int
    batch_size: int
    learning_rate: float
    width: int
    seed: int


def train(pixels_NCHW: np.ndarray, classes: Mapping[str, np.ndarray], budget: Budget) -> SmallClassifier:
    """A classifier of uint8 images, from scratch, on the CPU; ``classes`` are int64 (N,) by attribute."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(hash64("classification-score", budget.seed))
        network = SmallClassifier({name: int(k.max()) + 1 for name, k in classes.items()}, budget.width)
    optimiser = torch.optim.Adam(network.parameters(), budget.learning_rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, budget.steps)
    images, targets = _scaled(pixels_NCHW), {name: torch.from_numpy(k) for name, k in classes.items()}
    for rows in _batches(len(images), budget):
        logits = network(images[rows])
        loss = sum((F.cross_entropy(logits[name], targets[name][rows]) for name in logits), torch.zeros(()))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
    return network.eval()


def _batches(num: int, budget: Budget) -> Iterator[np.ndarray]:
    """Rows of each step: one shuffle of the images after another."""
    draws, waiting = np.random.default_rng(budget.seed), np.empty(0, np.int64)
    for _ in range(budget.steps):
        while len(waiting) < budget.batch_size:
            waiting = np.concatenate([waiting, draws.permutation(num)])
        yield waiting[: budget.batch_size]
        waiting = waiting[budget.batch_size :]


def _scaled(pixels_NCHW: np.ndarray) -> Tensor:
    return torch.from_numpy(np.asarray(pixels_NCHW)).float() / 127.5 - 1


@contextmanager
def _one_thread() -> Iterator[None]:
    """Sums in one order: training must not depend on how many cores there are."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@dataclass(frozen=True, kw_only=True)
class ClassificationScore:
    """CAS: share of real images that a classifier trained only on the samples reads right, in every demanded
    attribute.

    ``judge`` is of kind ``pixels``; its reference images are the test set, so that protocol.reference_split
    should be one that no generator saw. A small convolutional network is trained for ``steps`` batches of
    ``batch_size`` on the CPU: fit for the built-in worlds and images of 32 pixels, while published scores
    take a ResNet-50 and are not comparable. Real images of a class that no sample was asked for count as
    wrong. The interval covers the choice of test images, not that of samples or of the training's seed.
    ``top`` adds top-k. Source: Ravuri and Vinyals 2019, arXiv:1905.10887.
    """

    judge: str
    steps: Annotated[int, Field(ge=1)] = 1000
    batch_size: Annotated[int, Field(ge=1)] = 64
    learning_rate: Annotated[float, Field(gt=0)] = 2e-3
    width: Annotated[int, Field(ge=4, multiple_of=4)] = 24
    seed: Annotated[int, Field(ge=0)] = 0
    top: tuple[Annotated[int, Field(ge=2)], ...] = ()

    curve: ClassVar[bool] = False
    resampled: ClassVar[bool] = False

    @property
    def conditions(self) -> tuple[ConditionKind, ...]:
        return ("class", "text")

    def check_judge(self, judge: object) -> str | None:
        return lacks(judge, "classification-score", "pixels")

    def compute(self, evidence: Evidence) -> MetricResult:
        from scipy.stats import binomtest  # half a second, which planning need not wait for

        samples, real = evidence.readouts[self.judge], evidence.reference[self.judge]
        pixels, tested = self._pixels(samples), self._pixels(real)
        need(len(pixels), 2, "classification-score", "samples", "Draw more.")
        classes, targets = self._classes(evidence, samples, real)
        budget = Budget(self.steps, self.batch_size, self.learning_rate, self.width, self.seed)
        with _one_thread():
            network = train(pixels, classes, budget)
            with torch.no_grad():
                parts = [network(_scaled(tested[i : i + 256])) for i in range(0, len(tested), 256)]
        logits = {name: torch.cat([part[name] for part in parts]).numpy() for name in classes}
        scores = []
        for k in (1, *self.top):
            right = np.ones(len(tested), bool)
            for name, target in targets.items():
                # A class that was never asked for is past the last one, and never right.
                known = target < logits[name].shape[1]
                right &= known & in_top(logits[name], np.where(known, target, 0), k)
            interval = binomtest(int(right.sum()), len(right)).proportion_ci(method="wilson")
            metric = "classification-score" if k == 1 else f"classification-score-top{k}"
            title = "Classification accuracy score" + ("" if k == 1 else f", top {k}")
            scores.append(
                Score(
                    metric=metric,
                    title=title,
                    value=float(right.mean()),
                    n=len(pixels),
                    judge=self.judge,
                    interval=(interval.low, interval.high),
                    interval_method="Wilson, over real test images only",
                    details={"n_reference": len(tested), "attributes": list(classes), **vars(budget)},
                )
            )
        return MetricResult(scores=tuple(scores))

    def _pixels(self, readout: Readout) -> np.ndarray:
        if readout.pixels is None:
            raise MetricError(
                f"classification-score: judge '{self.judge}' keeps no pixels. Use a judge of kind 'pixels'."
            )
        return readout.pixels

    def _classes(
        self, evidence: Evidence, samples: Readout, real: Readout
    ) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
        """Class by attribute: of samples as demanded, and of real images as they are; a value that no sample
        was asked for has the number of those that were."""
        demanded = {
            name: samples.labels[name] for name in samples.labels if len(set(samples.labels[name])) > 1
        }
        if not demanded:
            raise MetricError(
                "classification-score: the conditions demand no attribute with two values or more, so there "
                "is nothing to learn. Restrict the metric with 'data'."
            )
        lacking = demanded.keys() - real.labels.keys()
        if lacking:
            raise MetricError(
                f"classification-score: real images are not labelled with '{min(lacking)}'. They have: "
                f"{', '.join(real.labels) or 'nothing'}."
            )
        classes, targets = {}, {}
        for name, codes in demanded.items():
            values, classes[name] = np.unique(codes, return_inverse=True)
            place = np.searchsorted(values, real.labels[name]).clip(max=len(values) - 1)
            targets[name] = np.where(values[place] == real.labels[name], place, len(values))
        return classes, targets
