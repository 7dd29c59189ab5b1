"""Which conditions the samples of a cell are drawn for, and each sample's seed."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

from bench.errors import DataError
from bench.protocols import Protocol
from bench.protocols.prompts import Placed as PlacedPrompt
from bench.protocols.prompts import chosen as chosen_prompts
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


def text_conditions(
    images: ImageSet, num: int, prompts: Sequence[PlacedPrompt] | None = None
) -> list[Condition]:
    """The first ``num`` of the prompts; by default the first caption of each image in id order (TR0N's
    protocol)."""
    if prompts is None:
        prompts = chosen_prompts(images, Protocol())
    if not prompts:
        raise DataError("the data set has no captions, so there are no text conditions to sample.")
    return [
        Condition(
            id=item.id, kind="text", text=item.prompt.caption, labels=dict(images.attributes[item.index])
        )
        for item in prompts[:num]
    ]


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
