"""K invertible networks side by side: affine coupling blocks with fixed orthogonal mixing.

After FrEIA's AllInOneBlock, as PromptGen uses it: a soft-clamped affine coupling, a learned scale and shift
of every coordinate, an orthogonal matrix. Shapes: K networks, B rows each, D coordinates, H hidden units.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bench.translator.base import seeded

CLAMP = 2.0


class CouplingBlock(nn.Module):
    """One block of each of K networks; all start from the same weights."""

    mixing: Tensor

    def __init__(self, num: int, dim: int, hidden: int, generator: torch.Generator):
        super().__init__()
        self.kept = dim - dim // 2
        moved = dim // 2
        bound1, bound2 = self.kept**-0.5, hidden**-0.5

        def weights(fan_in: int, fan_out: int, bound: float) -> nn.Parameter:
            one = (torch.rand(fan_in, fan_out, generator=generator) * 2 - 1) * bound
            return nn.Parameter(one.expand(num, -1, -1).clone())

        self.first, self.first_bias = weights(self.kept, hidden, bound1), weights(1, hidden, bound1)
        # A small last layer: the network starts near an orthogonal map, which leaves the prior as it is.
        self.second = weights(hidden, 2 * moved, 0.1 * bound2)
        self.second_bias = nn.Parameter(torch.zeros(num, 1, 2 * moved))
        self.log_scale = nn.Parameter(torch.zeros(num, 1, dim))
        self.shift = nn.Parameter(torch.zeros(num, 1, dim))
        mixing, _ = torch.linalg.qr(torch.randn(dim, dim, generator=generator))
        self.register_buffer("mixing", mixing)

    def forward(self, x_KBD: Tensor, rows: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """The block's output and its log-determinant (K, B). ``rows`` (K,) picks networks; None: all."""

        def own(parameter: Tensor) -> Tensor:
            return parameter if rows is None else parameter[rows]

        kept, moved = x_KBD.split([self.kept, x_KBD.shape[2] - self.kept], dim=2)
        h = F.leaky_relu(kept @ own(self.first) + own(self.first_bias), 0.1)
        raw, shift = (h @ own(self.second) + own(self.second_bias)).chunk(2, dim=2)
        log_factor = CLAMP * torch.tanh(raw)
        moved = moved * log_factor.exp() + shift
        log_scale = own(self.log_scale)
        joined = torch.cat([kept, moved], dim=2) * log_scale.exp() + own(self.shift)
        return joined @ self.mixing, log_factor.sum(2) + log_scale.sum(2)


class InvertibleEnsemble(nn.Module):
    """K networks z = h_k(e), each trained for itself: rows of one never meet another's parameters."""

    def __init__(self, num: int, dim: int, *, blocks: int = 8, hidden: int = 256, seed: int = 0):
        super().__init__()
        generator = seeded("invertible", seed)
        self.blocks = nn.ModuleList(CouplingBlock(num, dim, hidden, generator) for _ in range(blocks))

    def forward(self, e_KBD: Tensor, rows: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """z (K, B, D) and log|det dz/de| (K, B)."""
        z, total = e_KBD, torch.zeros(e_KBD.shape[:2], device=e_KBD.device)
        for block in self.blocks:
            z, log_determinant = block(z, rows)
            total = total + log_determinant
        return z, total
