"""Synthetic pairs (z, c): latents of the prior and the conditions that their images fulfil. No data."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from bench.conditioners.base import Conditioner
from bench.errors import SuiteError
from bench.generators.base import Generator
from bench.streams import Streams
from bench.translator.config import AttributeCaptioner, Tr0nTranslator
from bench.types import Condition
from bench.zoo.weights import load_model

BATCH = 256


@dataclass(frozen=True)
class Pairs:
    """``latents`` (P, dim) and ``conditions`` (P, D), float32 on the CPU."""

    latents: Tensor
    conditions: Tensor


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
    generator: Generator,
    conditioner: Conditioner,
    config: Tr0nTranslator,
    device: torch.device,
    progress: Callable[[int, int], None] | None = None,
) -> Pairs:
    """``config.num_pairs`` pairs; pair i depends on (seed, i) alone. Source: TR0N, section 3."""
    streams = Streams.from_seed(config.num_pairs, "pairs", config.seed, device=device)
    encode = conditioner.encode
    if config.route == "caption":
        encode = _caption_encoder(config.captioner, conditioner, device)
    latents, conditions = [], []
    with torch.no_grad():
        for start in range(0, config.num_pairs, BATCH):
            part = streams[start : start + BATCH]
            z = generator.latent.prior(part)
            latents.append(z.cpu())
            conditions.append(encode(generator.decode(z), part).float().cpu())
            if progress is not None:
                progress(min(start + BATCH, config.num_pairs), config.num_pairs)
    return Pairs(torch.cat(latents), torch.cat(conditions))
