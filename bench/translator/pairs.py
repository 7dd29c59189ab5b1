"""Synthetic pairs (z, c): latents of the prior and the conditions that their images fulfil. No data."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bench.conditioners.base import Conditioner
from bench.generators.base import AnyGenerator, context_of, decode_in
from bench.streams import Streams
from bench.translator.config import Tr0nTranslator
from bench.types import Condition


@dataclass(frozen=True)
class Pairs:
    """``latents`` (P, dim) and ``conditions`` (P, D), float32 on the CPU; ``seconds`` to make them.

    ``captions`` are the texts that conditions embed, where they come from captions; for people to read.
    """

    latents: Tensor
    conditions: Tensor
    seconds: float = 0.0
    captions: tuple[str, ...] = ()

    @property
    def meta(self) -> dict[str, Any]:
        """What is stored beside the arrays."""
        return {"seconds": self.seconds} | ({"captions": list(self.captions)} if self.captions else {})

    def arrays(self) -> dict[str, np.ndarray]:
        return {"latents": self.latents.numpy(), "conditions": self.conditions.numpy()}

    @classmethod
    def of(cls, arrays: Mapping[str, np.ndarray], seconds: float) -> Pairs:
        """The pairs of :meth:`arrays`."""
        latents, conditions = (torch.from_numpy(arrays[name]) for name in ("latents", "conditions"))
        return cls(latents, conditions, seconds)

    @classmethod
    def none(cls) -> Pairs:
        """No pairs, for what is trained without."""
        return cls(torch.empty(0, 0), torch.empty(0, 0))

    @classmethod
    def joined(cls, parts: Sequence[Pairs]) -> Pairs:
        """All pairs in order."""
        return cls(
            torch.cat([part.latents for part in parts]),
            torch.cat([part.conditions for part in parts]),
            sum(part.seconds for part in parts),
        )


def _caption_encoder(captioner: Any, conditioner: Any, texts: list[str]) -> Callable[..., Tensor]:
    """Images → text embeddings (N, D) of their captions, which ``texts`` takes down."""

    def encode(images_NCHW: Tensor, streams: Streams) -> Tensor:
        captions = captioner.captions(images_NCHW, streams)
        texts.extend(captions)
        return conditioner.embed(
            [Condition(id=f"pair:{i}", kind="text", text=text) for i, text in enumerate(captions)]
        )

    return encode


def synthesize(
    generator: AnyGenerator,
    conditioner: Conditioner,
    config: Tr0nTranslator,
    device: torch.device,
    *,
    start: int = 0,
    stop: int | None = None,
    captioner: Any = None,
    progress: Callable[[int], None] | None = None,
) -> Pairs:
    """Pairs start … stop-1 (``config.num_pairs`` by default); pair i depends on (seed, i) alone.

    Networks run on blocks of a fixed size, so that it does not depend on the bounds either. ``captioner``
    is the loaded one, if it is at hand. ``progress`` is told how far it is. Raises SuiteError for a
    generator that makes no image of nothing. Source: TR0N, section 3.
    """
    stop = config.num_pairs if stop is None else stop
    block = config.pair_batch
    conditioner = getattr(conditioner, "pairing", conditioner)
    encode, captions = conditioner.encode, list[str]()
    if config.route == "caption":
        encode = _caption_encoder(captioner or config.captioner.load(device), conditioner, captions)
    held_out: Any = config.captioner.load(device) if getattr(config, "held_out", ()) else None
    latents, conditions = [], []
    begin = time.perf_counter()
    with torch.no_grad():
        for first in range(start - start % block, stop, block):
            streams = Streams.from_seed(block, "pairs", config.seed, start=first, device=device)
            z = generator.latent.numbered(streams, first)
            wanted = slice(max(0, start - first), stop - first)
            latents.append(z[wanted].cpu())
            images = decode_in(generator, z, context_of(generator, None, streams))
            conditions.append(encode(images, streams)[wanted].float().cpu())
            if held_out is not None:
                keep = ~held_out.shows(images, config.held_out)[wanted].cpu()
                latents[-1], conditions[-1] = latents[-1][keep], conditions[-1][keep]
            if progress is not None:
                progress(min(first + block, stop))
    seconds = time.perf_counter() - begin
    offset = start % block
    return Pairs(
        torch.cat(latents), torch.cat(conditions), seconds, tuple(captions[offset : offset + stop - start])
    )
