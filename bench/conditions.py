"""Which conditions the samples of a cell are drawn for, and each sample's seed."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

from bench.errors import DataError
from bench.streams import Streams, hash64
from bench.types import Condition, ConditionKind
from bench.worlds.base import ImageSet


@dataclass(frozen=True)
class Assignment:
    """Sample i is replicate ``replicates[i]`` of ``conditions[i]``, with its own 63-bit seed.

    Sample i does not depend on how many samples there are, as long as the number of distinct conditions
    stays: raising the count keeps the first ones.
    """

    conditions: tuple[Condition, ...]
    replicates: tuple[int, ...]
    seeds: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.conditions)

    def streams(self, start: int, stop: int, device: torch.device) -> Streams:
        return Streams(torch.tensor(self.seeds[start:stop], dtype=torch.int64), device)


def class_conditions(attributes: Mapping[str, Sequence[str]], heads: Sequence[str]) -> list[Condition]:
    """One condition per combination of the heads' values, the last head changing fastest."""
    values = [attributes[head] for head in heads]
    return [
        Condition(
            id="class:" + ",".join(f"{head}={value}" for head, value in zip(heads, combination)),
            kind="class",
            text=" ".join(reversed(combination)),
            labels=dict(zip(heads, combination)),
        )
        for combination in itertools.product(*values)
    ]


def text_conditions(images: ImageSet, num: int) -> list[Condition]:
    """The first caption of each of the first ``num`` images in id order (TR0N's protocol)."""
    conditions = [
        Condition(
            id=f"text:{images.ids[i]}",
            kind="text",
            text=images.captions[i][0],
            labels=dict(images.attributes[i]),
        )
        for i in range(min(num, len(images)))
        if images.captions[i]
    ]
    if not conditions:
        raise DataError("the data set has no captions, so there are no text conditions to sample.")
    return conditions


def assign(
    distinct: Sequence[Condition], num_samples: int, seed: int, limit: int | None = None
) -> Assignment:
    """``num_samples`` samples over the conditions in turn; ``limit`` keeps an even spread of that many.

    Seeds come from (suite seed, condition id, replicate), so that every variant draws the same prompt
    from the same random numbers.
    """
    if limit is not None and limit < len(distinct):
        distinct = [distinct[i * len(distinct) // limit] for i in range(limit)]
    num = len(distinct)
    picks = [(distinct[i % num], i // num) for i in range(num_samples)]
    return Assignment(
        conditions=tuple(condition for condition, _ in picks),
        replicates=tuple(replicate for _, replicate in picks),
        seeds=tuple(hash64(seed, condition.id, replicate) for condition, replicate in picks),
    )


def condition_kind_title(kind: ConditionKind) -> str:
    return {"class": "class-conditional", "text": "text-conditional"}[kind]
