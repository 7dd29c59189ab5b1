"""Synthetic pairs (z, c): latents of the prior and the conditions that their images fulfil. No data."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from bench.conditioners.base import Conditioner
from bench.errors import SuiteError
from bench.generators.base import AnyGenerator, context_of, decode_in
from bench.streams import Streams
from bench.translator.config import AttributeCaptioner, Tr0nTranslator
from bench.types import Condition
from bench.zoo.weights import load_model

BATCH = 256


@dataclass(frozen=True)
class Pairs:
    """``latents`` (P, dim) and ``conditions`` (P, D), float32 on the CPU; ``seconds`` to make them."""

    latents: Tensor
    conditions: Tensor
    seconds: float = 0.0

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


def _caption_encoder(config: AttributeCaptioner, conditioner: Conditioner, device: torch.device):
    from bench.worlds import shapes

    classifier = load_model(config.model, device, path=config.weights, sha256=config.sha256)
    expected = shapes.attribute_values(1)
    if dict(classifier.heads) != expected:
        raise SuiteError(
            f"captioner: classifier '{config.model}' reads {', '.join(classifier.heads)}; the shapes grammar "
            f"needs {', '.join(expected)}."
        )

    def encode(images_NCHW: Tensor, streams: Streams) -> Tensor:
        picks = {head: logits.argmax(1).tolist() for head, logits in classifier(images_NCHW).items()}
        rows = [{head: expected[head][picks[head][i]] for head in expected} for i in range(len(images_NCHW))]
        wordings = shapes.captions(rows, streams)
        which = streams.integers("pairs:wording", 5).tolist()
        texts = [
            Condition(id=f"pair:{i}", kind="text", text=five[k])
            for i, (five, k) in enumerate(zip(wordings, which))
        ]
        return conditioner.embed(texts)

    return encode


def synthesize(
    generator: AnyGenerator,
    conditioner: Conditioner,
    config: Tr0nTranslator,
    device: torch.device,
    *,
    start: int = 0,
    stop: int | None = None,
    progress: Callable[[int], None] | None = None,
) -> Pairs:
    """Pairs start … stop-1 (``config.num_pairs`` by default); pair i depends on (seed, i) alone.

    Networks run on blocks of a fixed size, so that it does not depend on the bounds either. ``progress``
    is told how far it is. Raises SuiteError for a generator that makes no image of nothing. Source: TR0N,
    section 3.
    """
    stop = config.num_pairs if stop is None else stop
    encode = conditioner.encode
    if config.route == "caption":
        encode = _caption_encoder(config.captioner, conditioner, device)
    latents, conditions = [], []
    begin = time.perf_counter()
    with torch.no_grad():
        for first in range(start - start % BATCH, stop, BATCH):
            streams = Streams.from_seed(BATCH, "pairs", config.seed, start=first, device=device)
            z = generator.latent.numbered(streams, first)
            wanted = slice(max(0, start - first), stop - first)
            latents.append(z[wanted].cpu())
            images = decode_in(generator, z, context_of(generator, None, streams))
            conditions.append(encode(images, streams)[wanted].float().cpu())
            if progress is not None:
                progress(min(first + BATCH, stop))
    return Pairs(torch.cat(latents), torch.cat(conditions), time.perf_counter() - begin)
