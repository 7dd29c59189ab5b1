"""Spectral normalisation (Miyato et al. 2018, arXiv:1802.05957), folded into the weights once at loading.

At inference the singular vectors do not move, so that W / sigma is a constant. It is computed, and given, in
float64; a network keeps it in its own precision.
"""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F


def fold_one_vector(weight: Tensor, u_1O: Tensor, eps: float = 1e-8) -> Tensor:
    """W / sigma of ajbrock's layers, which store u (1, O) alone: one power iteration gives sigma.

    ``weight`` is (O, ...). The published layers take the same step at every evaluation.
    """
    matrix, u = weight.double().flatten(1), u_1O.double()
    v = F.normalize(u @ matrix, eps=eps)
    u = F.normalize(v @ matrix.T, eps=eps)
    sigma = (v @ matrix.T @ u.T).squeeze()
    return weight.double() / sigma


def fold_two_vectors(weight: Tensor, u_O: Tensor, v_I: Tensor) -> Tensor:
    """W / sigma of ``torch.nn.utils.spectral_norm``: sigma = u · W v with both vectors as stored."""
    sigma = u_O.double() @ weight.double().flatten(1) @ v_I.double()
    return weight.double() / sigma
