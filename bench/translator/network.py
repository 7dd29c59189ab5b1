"""TR0N's translator: a residual perceptron with a Gaussian-mixture head.

Shapes: N samples, M components, d main coordinates, a auxiliary coordinates, D condition.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F


@dataclass(frozen=True)
class Mixture:
    """p(z | c) = Σ_m softmax(logits)_m N(z; means_m, diag(std²)), and the point estimate of the rest.

    ``means`` (N, M, d), ``logits`` (N, M), ``std`` (d,) shared by all components and conditions,
    ``auxiliary`` (N, a) or None.
    """

    means: Tensor
    logits: Tensor
    std: Tensor
    auxiliary: Tensor | None

    def log_density(self, z_Nd: Tensor) -> Tensor:
        """log p(z | c), (N,)."""
        standard = (z_Nd[:, None, :] - self.means) / self.std
        constant = self.std.log().sum() + 0.5 * len(self.std) * math.log(2 * math.pi)
        component = -0.5 * standard.square().sum(-1) - constant
        return torch.logsumexp(F.log_softmax(self.logits, dim=1) + component, dim=1)

    def argmax_mean(self) -> Tensor:
        """The mean of the most probable component, (N, d)."""
        best = self.logits.argmax(dim=1)
        return self.means[torch.arange(len(best), device=best.device), best]

    def mean(self) -> Tensor:
        """The mixture's mean, (N, d)."""
        return (self.logits.softmax(1)[:, :, None] * self.means).sum(1)

    def draw(self, uniform_N: Tensor, normal_Nd: Tensor) -> Tensor:
        """One draw per sample, (N, d), from a uniform and a standard normal of the sample's own stream; of
        K · N of them, K draws per sample, (K · N, d), one after the other."""
        times = len(uniform_N) // len(self.logits)
        cumulative = self.logits.double().softmax(1).cumsum(1).repeat(times, 1)
        component = (uniform_N.double()[:, None] > cumulative).sum(1).clamp(max=self.means.shape[1] - 1)
        rows = torch.arange(len(self.logits), device=component.device).repeat(times)
        return self.means[rows, component] + self.std * normal_Nd


class TranslatorNetwork(nn.Module):
    """c (N, D) to a :class:`Mixture`. Source: tr0n repository, model_biggan.py and its siblings.

    ``bound`` t gives means t·tanh(·) (BigGAN: 2), None leaves them free (StyleGAN, NVAE). ``hidden`` is
    4 D in the paper.
    """

    def __init__(
        self, condition_dim: int, main_dim: int, auxiliary_dim: int, *, components: int, hidden: int,
        bound: float | None, initial_std: float = 0.01,
    ):  # fmt: skip
        super().__init__()
        self.components, self.main_dim, self.bound = components, main_dim, bound
        self.first = nn.Linear(condition_dim, hidden)
        self.second = nn.Linear(hidden, hidden)
        self.means = nn.Linear(hidden, components * main_dim)
        self.logits = nn.Linear(hidden, components)
        self.auxiliary = nn.Linear(hidden, auxiliary_dim) if auxiliary_dim else None
        self.log_std = nn.Parameter(torch.full((main_dim,), math.log(initial_std)))

    def forward(self, condition_ND: Tensor) -> Mixture:
        h = F.relu(self.first(condition_ND))
        h = h + F.relu(self.second(h))
        means = self.means(h).view(-1, self.components, self.main_dim)
        if self.bound is not None:
            means = self.bound * torch.tanh(means)
        auxiliary = None if self.auxiliary is None else self.auxiliary(h)
        return Mixture(means, self.logits(h), self.log_std.exp() + 1e-6, auxiliary)
