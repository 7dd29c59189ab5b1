"""Training, storing and loading a translator."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from bench.generators.base import LatentSpace
from bench.streams import Streams, hash64
from bench.translator.base import Trained, load_state
from bench.translator.config import Tr0nTranslator
from bench.translator.network import Mixture, TranslatorNetwork
from bench.translator.pairs import Pairs


class Translator(Trained):
    """A trained translator with the columns of the latent that it predicts."""

    def __init__(self, network: TranslatorNetwork, latent: LatentSpace, device: torch.device):
        super().__init__(network, device)
        self.main, self.auxiliary = latent.columns("main").to(device), latent.columns("auxiliary").to(device)

    def __call__(self, condition_ND: Tensor) -> Mixture:
        with torch.no_grad():
            return self.network(condition_ND)


def new_network(latent: LatentSpace, condition_dim: int, config: Tr0nTranslator) -> TranslatorNetwork:
    """An untrained translator for a latent space; the tanh bound is that of the main blocks."""
    bounds = {block.bound for block in latent.blocks if block.role == "main"}
    if len(bounds) != 1:
        raise ValueError(f"main blocks must share one bound, got {sorted(map(str, bounds))}")
    return TranslatorNetwork(
        condition_dim, len(latent.columns("main")), len(latent.columns("auxiliary")),
        components=config.components, hidden=config.hidden or 4 * condition_dim,
        bound=bounds.pop(), initial_std=config.initial_std,
    )  # fmt: skip


def translator_loss(mixture: Mixture, main: Tensor, auxiliary: Tensor, weight: float) -> Tensor:
    """weight * mean negative log-likelihood + mean squared error of the auxiliary block.

    Source: tr0n repository, loss.py; weight is 1e-4 there.
    """
    loss = -weight * mixture.log_density(main).mean()
    if mixture.auxiliary is not None:
        loss = loss + (mixture.auxiliary - auxiliary).square().mean()
    return loss


def train_translator(
    pairs: Pairs,
    latent: LatentSpace,
    config: Tr0nTranslator,
    device: torch.device,
    progress: Callable[[int, int], None] | None = None,
) -> Translator:
    """Adam with cosine annealing to zero at every step, gradient norm clipped, pairs in seeded order."""
    torch.manual_seed(hash64("translator", config.seed) % 2**31)
    network = new_network(latent, pairs.conditions.shape[1], config).to(device)
    main, auxiliary = latent.columns("main"), latent.columns("auxiliary")
    z_main, z_auxiliary = pairs.latents[:, main].to(device), pairs.latents[:, auxiliary].to(device)
    conditions = pairs.conditions.to(device)
    optimizer = torch.optim.Adam(network.parameters(), lr=config.learning_rate)
    num = len(conditions)
    per_epoch = math.ceil(num / config.batch_size)
    order = torch.arange(num)
    for t in range(config.steps):
        epoch, k = divmod(t, per_epoch)
        if k == 0:
            g = torch.Generator().manual_seed(hash64("translator-order", config.seed, epoch) % 2**62)
            order = torch.randperm(num, generator=g)
        index = order[k * config.batch_size : (k + 1) * config.batch_size].to(device)
        c = conditions[index]
        if config.noise:
            streams = Streams(index + epoch * num)
            c = c + config.noise * streams.normal(f"translator-noise:{config.seed}", (c.shape[1],))
        for group in optimizer.param_groups:
            group["lr"] = config.learning_rate * 0.5 * (1 + math.cos(math.pi * t / config.steps))
        loss = translator_loss(network(c), z_main[index], z_auxiliary[index], config.likelihood_weight)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), config.clip_norm)
        optimizer.step()
        if progress is not None and (t + 1) % 50 == 0:
            progress(t + 1, config.steps)
    return Translator(network, latent, device)


def read_translator(
    content: bytes, latent: LatentSpace, condition_dim: int, config: Tr0nTranslator, device: torch.device
) -> Translator:
    """The translator of :meth:`Translator.to_bytes`. Raises WeightError if it does not fit."""
    network = new_network(latent, condition_dim, config)
    meta = load_state(network, content)
    translator = Translator(network, latent, device)
    translator.took(meta)
    return translator
