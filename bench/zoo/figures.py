"""Figures of a trained generator for its card, read by the world's judge."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from bench.metrics.frechet import Moments, frechet_distance
from bench.streams import Streams

NUM = 2000


@torch.no_grad()
def generator_figures(
    network: torch.nn.Module, data: str, reference: Tensor, *, bound: float | None = 2.0
) -> dict[str, float]:
    """What the judge of ``data`` sees in 2,000 draws of the prior.

    ``confidence_NAME`` is the mean probability of the likeliest value of attribute NAME; ``confidence`` is
    their mean. ``least_share`` is the rarest value's frequency relative to an equal share (0: a value is
    missing). ``fid`` is to ``reference``, uint8 (N, 3, 32, 32),
    in the judge's features. A class-conditional network also has
    ``class_accuracy_NAME``, classes drawn uniformly. ``bound`` limits the normal latent; None leaves it free.
    """
    from bench.zoo.training import CLASS_HEADS, to_unit, world_heads
    from bench.zoo.weights import load_model

    judge = load_model(f"{data}-classifier-judge")
    network = network.to("cpu").eval()
    decoder: Any = getattr(network, "decoder", network)
    streams = Streams.from_seed(NUM, "figures", data)
    latents = streams.normal("z", (decoder.z_dim,))
    if bound is not None:
        latents = latents.clamp(-bound, bound)
    demanded: dict[str, Tensor] = {}
    if decoder.num_classes:
        label = streams.integers("class", decoder.num_classes)
        latents = torch.cat([latents, decoder.embedding(label)], dim=1)
        for name, values in reversed(list(world_heads(data).items())[:CLASS_HEADS]):
            demanded[name] = label % len(values)
            label = label // len(values)
    images = torch.cat([decoder(part) for part in latents.split(250)])
    # What a judge gets in a benchmark is an 8-bit image.
    images = ((images.clamp(-1, 1) + 1) * 127.5).round() / 127.5 - 1
    features = torch.cat([judge.features(part) for part in images.split(250)])
    real = torch.cat([judge.features(to_unit(part)) for part in reference[:NUM].cpu().split(250)])
    figures: dict[str, float] = {}
    shares = []
    logits = judge.head(features)
    for name, values in logits.items():
        figures[f"confidence_{name}"] = float(values.softmax(1).amax(1).mean())
        counts = torch.bincount(values.argmax(1), minlength=values.shape[1])
        shares.append(float(counts.min()) * values.shape[1] / NUM)
    figures["confidence"] = float(np.mean(list(figures.values())))
    figures["least_share"] = min(shares)
    for name, target in demanded.items():
        figures[f"class_accuracy_{name}"] = float((logits[name].argmax(1) == target).float().mean())
    a, b = Moments.of(real.numpy()), Moments.of(features.numpy())
    figures["fid"] = frechet_distance(a.mean, a.covariance, b.mean, b.covariance)
    return figures
