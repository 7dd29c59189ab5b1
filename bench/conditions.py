"""Which conditions the samples of a cell are drawn for, and each sample's seed."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

from bench.errors import DataError
from bench.protocols import Protocol
from bench.protocols.prompts import Placed as PlacedPrompt
from bench.protocols.prompts import chosen as chosen_prompts
from bench.streams import Streams, hash64
from bench.types import Condition
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
            id=item.id,
            kind="text",
            text=item.prompt.caption,
            labels={} if item.index is None else dict(images.attributes[item.index]),
        )
        for item in prompts[:num]
    ]


def image_conditions(images: ImageSet, num: int) -> list[Condition]:
    """The first ``num`` images in id order as references (TR0N's image conditioning)."""
    return [_image_condition(images, i) for i in range(min(num, len(images)))]


def _image_condition(images: ImageSet, i: int) -> Condition:
    return Condition(
        id=f"image:{images.ids[i]}",
        kind="image",
        labels=dict(images.attributes[i]),
        origin=f"{images.manifest_sha256[:16]}/{images.ids[i]}",
        picture=lambda: images.images([i])[0],
    )


def num_ends(num: int, values: int) -> int:
    """How many conditions ``num`` interpolated ones lie between, ``values`` to each two."""
    return 2 * math.ceil(num / values)


def interpolated_conditions(ends: Sequence[Condition], num: int, values: int) -> list[Condition]:
    """``values`` conditions on the way between each two that follow one another: first and second, third and
    fourth, …; ``num`` in all, or fewer where there are not enough ends.

    Shares run from 0.1 to 0.9 in equal steps (0.5 for one value), as TR0N's interpolation mode has them.
    Raises DataError where there are not two to interpolate between.
    """
    if len(ends) < 2:
        raise DataError(f"interpolation needs two images or prompts, and the data set has {len(ends)}.")
    shares = [0.5] if values == 1 else [0.1 + 0.8 * k / (values - 1) for k in range(values)]
    return [
        Condition(
            id=f"interpolated:{a.id}+{b.id}@{share:.3f}",
            kind="interpolated",
            origin=json.dumps([a.origin or a.text, b.origin or b.text, share]),
            between=(a, b),
            share=share,
        )
        for a, b in zip(ends[::2], ends[1::2])
        for share in shares
    ][:num]


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
