"""R-precision: how often an image's own caption is the nearest among random others."""

from __future__ import annotations

import re
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Annotated

import numpy as np
from pydantic import Field

from bench.errors import MetricError
from bench.metrics.sets import check_finite, lacks
from bench.streams import hash64
from bench.types import Condition, ConditionKind, Evidence, MetricResult, Score


class Captions:
    """The distinct captions of a cell, and which of them are no match for a given image."""

    def __init__(self, conditions: Sequence[Condition]):
        self._texts = _codes([condition.text for condition in conditions])
        self._images = _codes([image_of(condition.id) for condition in conditions])
        self._labels = _codes([tuple(sorted(condition.labels.items())) for condition in conditions])
        self._labelled = np.array([bool(condition.labels) for condition in conditions], bool)
        firsts = np.unique(self._texts, return_index=True)[1].tolist()
        # By text, so that the lists of an image do not depend on the samples' order.
        self._firsts = np.array(sorted(firsts, key=lambda row: conditions[row].text or ""), np.int64)

    def mismatched(self, row: int) -> np.ndarray:
        """Rows, by text, of the first occurrences of captions that ask for something else than row's.

        Left out are captions of the same image, equal texts, and those that demand the same labels.
        """
        others = self._firsts
        differ = (self._images[others] != self._images[row]) & (self._texts[others] != self._texts[row])
        if self._labelled[row]:
            differ &= self._labels[others] != self._labels[row]
        return others[differ]


def image_of(condition_id: str) -> str:
    """What all captions of one image share in their conditions' ids: "text:17:0" and "text:17:1" are of
    "text:17". An id that only looks so loses candidates, and never gains a wrong one."""
    return re.sub(r"^(text:.+):\d+$", r"\1", condition_id)


def _codes(values: Sequence[Hashable]) -> np.ndarray:
    """(N,) integers, equal where the values are."""
    known: dict[Hashable, int] = {}
    return np.array([known.setdefault(value, len(known)) for value in values], np.int64)


@dataclass(frozen=True, kw_only=True)
class RPrecision:
    """Share of images whose own caption is nearest among it and ``candidates`` random captions of others.

    Each image meets ``lists`` lists of candidates, drawn by ``seed`` and its condition's id; captions of the
    same image, equal texts and equal demands are no candidates. Where captions tie for the first place the
    image counts as 1 over their number, so that a judge that cannot tell is at chance. Source: Xu et al.
    2018, arXiv:1711.10485; with CLIP: Park et al. 2021 (NeurIPS Datasets and Benchmarks).
    """

    judge: str
    candidates: Annotated[int, Field(ge=1)] = 99
    lists: Annotated[int, Field(ge=1)] = 10
    seed: Annotated[int, Field(ge=0)] = 0

    @property
    def conditions(self) -> tuple[ConditionKind, ...]:
        return ("text",)

    def check_judge(self, judge: object) -> str | None:
        return lacks(judge, "r-precision", "image_embedding", "text_embedding")

    def compute(self, evidence: Evidence) -> MetricResult:
        readout = evidence.readouts[self.judge]
        images, texts = readout.image_embedding, readout.text_embedding
        if images is None or texts is None:
            raise MetricError(
                f"r-precision: judge '{self.judge}' gives no text and image embeddings. Use a CLIP judge."
            )
        check_finite(images, "r-precision: image embeddings")
        images, texts = images.astype(np.float64), texts.astype(np.float64)
        success = np.empty(len(images))
        captions = Captions(evidence.conditions)
        for i, condition in enumerate(evidence.conditions):
            others = captions.mismatched(i)
            if len(others) < self.candidates:
                raise MetricError(
                    f"r-precision: condition '{condition.id}' has {len(others)} captions that ask for "
                    f"something else, and candidates is {self.candidates}. Use more prompts, or lower it."
                )
            own = texts[i] @ images[i]
            against = texts[others] @ images[i]
            draws = np.random.default_rng(hash64("r-precision", self.seed, condition.id))
            won = 0.0
            for _ in range(self.lists):
                picked = against[draws.choice(len(others), self.candidates, replace=False)]
                won += 0.0 if (picked > own).any() else 1 / (1 + int((picked == own).sum()))
            success[i] = won / self.lists
        score = Score(
            metric="r-precision",
            title=f"R-precision (1 of {self.candidates + 1})",
            value=float(success.mean()),
            n=len(success),
            judge=self.judge,
            details={
                "chance": 1 / (self.candidates + 1),
                "candidates": self.candidates,
                "lists": self.lists,
                "seed": self.seed,
            },
        )
        return MetricResult(scores=(score,), per_sample={"r-precision": success.astype(np.float32)})
